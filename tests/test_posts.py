"""ntulm/posts.py: the container keeps rows together, and shows each variant what it may see."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schemes import MORE, SCHEME

from ntulm.ntus import NTUS
from ntulm.posts import COLUMNS, Posts
from ntulm.variants import parse_variant

ROLES = SCHEME.of_posts


def make_posts(count=40):
    """Posts that tell their number in everything they hold."""
    return Posts.of(
        SCHEME,
        {
            "post_id": [f"p{number}" for number in range(count)],
            "text": [f"post {number}" for number in range(count)],
            "author": [None if number % 4 == 0 else f"user{number}" for number in range(count)],
            "hashtags": [None if number % 3 == 0 else [f"tag{number}", "all"] for number in range(count)],
        },
        ordinal=np.arange(count, dtype=np.int32),
    )


def pairs(posts):
    return [[(ntu["role"], ntu["key"]) for ntu in own] for own in posts.ntus.to_pylist()]


def test_posts_have_the_columns_of_the_contract_and_further_ones():
    posts = make_posts()
    assert posts.table.schema.names == [*COLUMNS.names, "ordinal"]
    assert posts.table.schema.field("ntus").type == NTUS
    assert posts.table["ordinal"].type == pa.int32()
    assert (len(posts), posts.texts[5], posts.authors[4:6]) == (40, "post 5", [None, "user5"])
    assert pairs(posts)[3:6] == [
        [("author", "user3")],
        [("hashtag", "tag4"), ("hashtag", "all")],
        [("author", "user5"), ("hashtag", "tag5"), ("hashtag", "all")],
    ]


@pytest.mark.parametrize("name", ["text", "author", "hashtag", "author.hashtag", "author++hashtag", "unadapted"])
def test_most_variants_see_the_posts_as_they_are(name):
    posts = make_posts()
    assert posts.seen_by(parse_variant(name, ROLES)).table.equals(posts.table)


def test_shuffled_posts_keep_their_text_and_get_the_ntus_of_another():
    posts = make_posts()
    seen = posts.seen_by(parse_variant("shuffled", ROLES))
    assert seen.texts == posts.texts
    assert sorted(pairs(seen)) == sorted(pairs(posts))  # the NTUs of one post stay together
    assert sum(one == other for one, other in zip(pairs(seen), pairs(posts), strict=True)) < 8
    assert seen.table.equals(posts.seen_by(parse_variant("shuffled", ROLES)).table)


def test_words_stand_before_the_text():
    fields: dict[str, list[Any]] = {
        "post_id": ["1", "2"],
        "text": ["hello #all", "so"],
        "author": ["ada", None],
        "hashtags": [["all"], None],
    }
    seen = Posts.of(SCHEME, fields).seen_by(parse_variant("words", ROLES))
    assert seen.texts == ["ada all hello #all", "so"]


rows = st.lists(st.integers(0, 39), max_size=60).map(lambda rows: np.array(rows, np.int64))


@settings(deadline=None)  # a busy machine takes its time
@given(rows)
def test_taken_rows_stay_together(rows):
    posts = make_posts()
    taken = posts.take(rows)
    numbers = rows.tolist()
    assert taken.texts == [f"post {number}" for number in numbers]
    assert pairs(taken) == [pairs(posts)[number] for number in numbers]
    chosen = np.isin(np.arange(40), rows)
    assert posts.take(chosen).table["ordinal"].to_pylist() == sorted(set(numbers))


@settings(deadline=None)  # a busy machine takes its time
@given(rows)
def test_posts_without_ntus_keep_everything_else(rows):
    posts = make_posts()
    bare = posts.without_ntus(rows)
    hidden = set(rows.tolist())
    assert pairs(bare) == [[] if row in hidden else own for row, own in enumerate(pairs(posts))]
    assert bare.table.drop(["ntus"]).equals(posts.table.drop(["ntus"]))
    assert bare.table.schema == posts.table.schema


def test_no_posts_and_posts_in_several_chunks():
    none = make_posts(0)
    assert (len(none), none.ntus.to_pylist(), len(none.without_ntus(np.array([], int)))) == (0, [], 0)
    assert len(none.seen_by(parse_variant("shuffled", ROLES))) == 0
    posts = make_posts(8)
    parts = Posts(pa.concat_tables([posts.table.slice(0, 3), posts.table.slice(3)]))
    assert pairs(parts) == pairs(posts)
    assert pairs(Posts(posts.table.slice(3))) == pairs(posts)[3:]
    assert pairs(parts.without_ntus(np.array([4])))[4] == []


def test_roles_whose_field_is_not_there_give_no_ntu():
    posts = Posts.of(MORE, {"post_id": ["1"], "text": ["buy $AAPL"], "author": ["ada"]})
    assert pairs(posts) == [[("author", "ada"), ("stock", "aapl")]]
