"""Pseudonyms: one per user, by a key that is nowhere, for the corpus, tasks, new and arriving posts alike."""

import json
import re

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw import READING, like, post, repost, written
from ruamel.yaml import YAML

from ntulm import pseudonyms
from ntulm.configure import configured
from ntulm.corpus.stage import TABLES
from ntulm.errors import UserError
from ntulm.files import read_json
from ntulm.inference.reading import read_posts
from ntulm.layout import Layout
from ntulm.params import check_params
from ntulm.pseudonyms import VARIABLE, Pseudonyms, from_environment
from ntulm.tasks.dataset import posts_of_texts
from ntulm.text import Reading, mentions, user_key

KEY = "0123456789abcdef-a-test"
HOSTS = Reading(casefold_users=True, mention_hosts=True, html=False, mentions_in_text=True)
SCHEME = check_params(YAML(typ="safe", pure=True).load(configured("quickstart", [])), "test").ntus.scheme
NAMES = ("hopperfan", "lovelacefan", "turingfan", "gracefan")
ALIAS = re.compile(r"[a-z2-7]{16}")


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)
    return Layout(tmp_path)


def rows() -> list[dict]:
    text = "@TuringFan see https://x.example/hopperfan/status/1 and .@GraceFan #tag"
    made = [post(n, text=f"{text} {n}", author="hopperfan", reply_to="gracefan", quoted="turingfan") for n in range(20)]
    made += [repost(30, post(31, author="lovelacefan"), author="turingfan"), like("gracefan", {"post_id": "p1"})]
    made += [post(40, post_id="https://x.example/users/hopperfan/40", author="hopperfan", favorited_by=["lovelacefan"])]
    made[-1]["labels"] = [{"field": "f", "value": "v"}]
    return made


def everything(layout: Layout) -> str:
    """All that the stage wrote, as text."""
    tables = [pq.read_table(path).to_pylist() for path in sorted(layout.corpus.glob("*.parquet"))]
    return json.dumps(tables, default=str) + layout.reading.read_text() + layout.metrics("corpus").read_text()


def test_nothing_behind_the_corpus_holds_a_handle_or_the_key(layout, monkeypatch):
    written(monkeypatch, layout, rows(), pseudonyms=True)
    found = everything(layout).casefold()
    assert not [name for name in (*NAMES, KEY) if name in found]
    first = pq.read_table(layout.posts).to_pylist()[0]
    own = Pseudonyms(KEY, READING)
    turing, grace = own.user("turingfan"), own.user("gracefan")
    assert first["text"] == f"@{turing} see https://x.example/ and .@{grace} #tag 0"
    assert (first["author"], first["mentions"]) == (own.user("hopperfan"), [turing, grace])
    assert (first["reply_to"], first["quoted"], first["urls"]) == (grace, turing, ["https://x.example/"])
    assert read_json(layout.metrics("corpus"))["pseudonyms"] == read_json(layout.reading)["pseudonyms"]
    labels = pq.read_table(layout.labels).to_pylist()
    assert labels[0]["post_id"] in pq.read_table(layout.posts)["post_id"].to_pylist()


def test_pseudonyms_change_names_and_nothing_else(layout, monkeypatch):
    written(monkeypatch, layout, rows())
    plain = {name: pq.read_table(layout.corpus / f"{name}.parquet").to_pylist() for name in TABLES}
    written(monkeypatch, layout, rows(), pseudonyms=True)
    own = Pseudonyms(KEY, READING)
    hidden = {name: pq.read_table(layout.corpus / f"{name}.parquet").to_pylist() for name in TABLES}
    expected = [own.fields({name: [value] for name, value in one.items()}) for one in plain["posts"]]
    assert hidden["posts"] == [{name: values[0] for name, values in one.items()} for one in expected]
    engaged = {(own.user(one["user"]), own.post_id(one["post_id"]), one["kind"]) for one in plain["engagements"]}
    assert {(one["user"], one["post_id"], one["kind"]) for one in hidden["engagements"]} == engaged
    assert [one["split"] for one in hidden["splits"]] == [one["split"] for one in plain["splits"]]


def test_a_new_post_and_a_benchmark_have_the_users_of_the_corpus(layout, monkeypatch):
    written(monkeypatch, layout, rows(), pseudonyms=True)
    reading = Reading(**read_json(layout.reading))
    first = pq.read_table(layout.posts).to_pylist()[0]
    text = rows()[0]["text"]
    read = read_posts([{"text": text, "author": "@HopperFan"}], SCHEME, reading)
    users = [first["author"], *first["mentions"]]
    assert (read.texts, read.authors) == ([first["text"]], [first["author"]])
    assert [ntu["key"] for ntu in read.ntus.to_pylist()[0] if ntu["role"] in ("author", "mention")] == users
    task = posts_of_texts(SCHEME, reading, ["7"], ["test"], [text], [0], ["hopperfan"])
    assert (task.texts, task.authors, task.ntus.to_pylist()) == (read.texts, read.authors, read.ntus.to_pylist())
    assert task.table["post_id"].to_pylist() == ["7"]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (None, f"^{VARIABLE}: not in the environment; corpus.pseudonyms needs the key"),
        ("short", f"^{VARIABLE}: 5 characters; expected at least 16"),
    ],
)
def test_a_key_that_is_missing_or_short(layout, monkeypatch, key, message):
    monkeypatch.delenv(VARIABLE) if key is None else monkeypatch.setenv(VARIABLE, key)
    with pytest.raises(UserError, match=message):
        written(monkeypatch, layout, rows(), pseudonyms=True)
    assert not layout.corpus.exists()


def test_another_key_is_refused(layout, monkeypatch):
    written(monkeypatch, layout, rows(), pseudonyms=True)
    reading = Reading(**read_json(layout.reading))
    monkeypatch.setenv(VARIABLE, KEY + "x")
    with pytest.raises(UserError, match=rf"another key \(fingerprint \w+\) than .* \({reading.pseudonyms}\)"):
        read_posts(["a post"], SCHEME, reading)
    assert KEY not in str(reading)


def test_without_pseudonyms_no_key_is_asked_for(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert pseudonyms.of(READING) is None
    assert read_posts([{"text": "a", "author": "ann"}], SCHEME, READING).authors == ["ann"]


def test_pseudonyms_hang_on_the_key_and_on_the_name(monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)
    own, other = from_environment(READING), Pseudonyms(KEY + "x", READING)
    assert ALIAS.fullmatch(own.user("ann"))
    assert len({own.user("ann"), own.user("bob"), other.user("ann"), own.fingerprint, other.fingerprint}) == 5
    assert own.user("ann") == Pseudonyms(KEY, HOSTS).user("ann")


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("https://www.x.example/ann/1?by=ann#ann", "https://www.x.example/"),
        ("http://ann@x.example:80/@ann", "http://x.example:80/"),
        ("www.x.example/ann", "www.x.example/"),
        ("https://", ""),
        ("", ""),
    ],
)
def test_links_keep_their_host(link, expected):
    assert Pseudonyms(KEY, READING).link(link) == expected


texts = st.lists(
    st.sampled_from(
        ["@ann", "＠Ann", "@bob@b.example", "https://x.example/ann", "www.y.example/@ann", " ", ".", "@", "#t", "\n"]
    )
    | st.text(max_size=2)
).map("".join)


@settings(deadline=None, max_examples=200)
@given(texts, st.sampled_from([READING, HOSTS]))
def test_no_name_is_left_in_a_text(text, reading):
    after = Pseudonyms(KEY, reading).text(text)
    assert not re.search(r"(?<!\w)[@＠](?:ann|bob)(?!\w)", after, re.IGNORECASE)
    assert "/ann" not in after
    if not re.search(r"[@＠]|://|www", text):
        assert after == text


@settings(deadline=None, max_examples=200)
@given(texts, st.sampled_from([READING, HOSTS]))
def test_whoever_is_mentioned_stands_in_the_text_by_pseudonym(text, reading):
    own = Pseudonyms(KEY, reading)
    named = [
        one for one in mentions(text, reading.mention_hosts) if not re.search(r"\w[@＠]|[@＠][\w.@＠-]*[@＠]", text)
    ]
    after = own.text(text)
    assert all(own.user(user_key(name, casefold=True)) in after for name in named)
