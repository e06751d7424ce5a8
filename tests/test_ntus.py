"""ntulm/ntus.py: the NTUs of posts by the roles of a scheme, and their rows in a table."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schemes import MORE, SCHEME

from ntulm.embeddings.table import EmbeddingTable, write_table
from ntulm.ntus import NTUS, NtuScheme, known_posts, ntus_of, rows_of

USERS, TAGS = ["ada", "bob", "eve"], ["so", "it"]
NAMES = [("user", key) for key in USERS] + [("hashtag", key) for key in TAGS]

# Hostile posts: missing values, values that stand twice, and keys that no table knows.
users = st.sampled_from([*USERS, "nobody", "so"])
tags = st.sampled_from([*TAGS, "new", "ada"])
posts = st.lists(
    st.fixed_dictionaries(
        {
            "author": st.none() | users,
            "mentions": st.none() | st.lists(users, max_size=4),
            "hashtags": st.none() | st.lists(tags, max_size=4),
            "urls": st.none() | st.lists(st.sampled_from(["https://www.A.example/x", "", "b.example"]), max_size=2),
            "text": st.sampled_from(["", "plain", "buy $AAPL and $aapl, not $B"]),
        }
    ),
    max_size=12,
)
FIELDS = {"author": "author", "mention": "mentions", "hashtag": "hashtags"}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    directory = tmp_path_factory.mktemp("table")
    vectors = np.arange(len(NAMES) * 3, dtype=np.float32).reshape(-1, 3)
    write_table(directory, [kind for kind, _ in NAMES], [key for _, key in NAMES], vectors)
    return EmbeddingTable.load(directory)


def columns(posts):
    return {name: [post[name] for post in posts] for name in ("author", "mentions", "hashtags", "urls", "text")}


def pairs(ntus):
    return [[(ntu["role"], ntu["key"]) for ntu in own] for own in ntus.to_pylist()]


def plain(post):
    """What a reader of the scheme would write down, role by role."""
    found = [("author", post["author"])] if post["author"] else []
    found += [("mention", key) for key in dict.fromkeys(post["mentions"] or [])]
    found += [("hashtag", key) for key in dict.fromkeys(post["hashtags"] or [])]
    found += [("stock", key) for key in (["aapl", "b"] if "$" in post["text"] else [])]
    hosts = [{"https://www.A.example/x": "a.example"}.get(url, url) for url in post["urls"] or []]
    return found + [("link", host) for host in dict.fromkeys(hosts) if host]


@settings(deadline=None)  # a busy machine takes its time
@given(posts)
def test_ntus_stand_by_role_and_each_key_once(posts):
    ntus = ntus_of(MORE, {"post_id": [""] * len(posts), **columns(posts)})
    assert ntus.type == NTUS
    assert pairs(ntus) == [plain(post) for post in posts]


@settings(deadline=None)  # a busy machine takes its time
@given(posts, st.sampled_from([["author"], ["hashtag"], ["author", "hashtag"], ["mention", "author"], list(FIELDS)]))
def test_rows_equal_a_plain_loop(table, posts, roles):
    ntus = ntus_of(MORE, {"post_id": [""] * len(posts), **columns(posts)})
    rows, offsets, places = rows_of(table, MORE, ntus, roles)
    all_ntus = [ntu for own in pairs(ntus) for ntu in own]
    of_role = [[(role, key) for role, key in own if role in roles] for own in pairs(ntus)]
    assert np.diff(offsets).tolist() == [len(own) for own in of_role]
    assert [all_ntus[place] for place in places] == [ntu for own in of_role for ntu in own]
    wanted = [(MORE.roles[role].type, key) for own in of_role for role, key in own]
    assert rows.tolist() == [NAMES.index(name) if name in NAMES else -1 for name in wanted]
    known = [any((MORE.roles[role].type, key) in NAMES for role, key in own) for own in of_role]
    assert known_posts(table, MORE, ntus, roles).tolist() == known


def test_null_lists_slices_and_chunks_are_read_like_any(table):
    own = [{"role": "author", "key": "ada"}, {"role": "hashtag", "key": "it"}]
    whole = pa.array([[], own, None, own[1:]], NTUS)
    rows, offsets, places = rows_of(table, SCHEME, whole, ["author", "hashtag"])
    assert (rows.tolist(), offsets.tolist(), places.tolist()) == ([0, 4, 4], [0, 0, 2, 2, 3], [0, 1, 2])
    rows, offsets, _ = rows_of(table, SCHEME, whole.slice(2), ["hashtag"])
    assert (rows.tolist(), offsets.tolist()) == ([4], [0, 0, 1])
    chunked = pa.chunked_array([whole.slice(0, 2), whole.slice(2)])
    assert rows_of(table, SCHEME, chunked, ["hashtag"])[0].tolist() == [4, 4]
    assert rows_of(table, SCHEME, pa.array([], NTUS), ["author"])[1].tolist() == [0]


def test_a_scheme_survives_json_and_knows_what_comes_from_posts():
    again = NtuScheme.from_json(MORE.to_json())
    assert again == MORE
    assert list(again.of_posts) == ["author", "mention", "hashtag", "stock", "link"]
    assert (again.key_form("author"), again.key_form("stock"), again.key_form("link")) == (None, "cashtag", "domain")
