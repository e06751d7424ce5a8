import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntulm.text import extract, normalise, remove

TAGS = st.text(st.characters(categories=["L", "N", "M"]) | st.just("_"), min_size=1, max_size=8)


@given(st.text(max_size=20))
def test_normalise_is_idempotent(tag):
    assert normalise(normalise(tag)) == normalise(tag)


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("#One, #two! #ONE", ["one", "two"]),
        ("#Cafe\u0301 ＃ｗｉｄｅ #Straße #STRASSE", ["café", "wide", "strasse"]),
        ("#हिन्दी #日本 #heart\ufe0f", ["हिन्दी", "日本", "heart"]),
        ("a#no &#39; http://x.y/#no #123 # #_", []),
        ("##twice #a#b #c_d2", ["twice", "a", "c_d2"]),
    ],
)
def test_extract(text, tags):
    assert extract(text) == tags


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("see #Tag! and #tagger", "see ! and #tagger"),
        ("＃ｔａｇ ##TAG a#tag", "a"),
        ("keep  two  spaces #other", "keep  two  spaces #other"),
        ("#tag", ""),
        ("tag stays, #tag goes", "tag stays, goes"),
    ],
)
def test_remove(text, without):
    assert remove(text, "tag") == without


@given(TAGS, st.text(max_size=10), st.text(max_size=10), st.sampled_from(["#", "＃", "##"]), st.booleans())
def test_a_removed_hashtag_is_not_found_again(tag, before, after, sign, upper):
    text = f"{before}{sign}{tag.upper() if upper else tag}{after} {sign}{tag}"
    left = remove(text, tag)
    assert normalise(tag) not in extract(left)
    assert remove(left, tag) == left


def test_remove_finds_a_tag_that_a_source_spells_with_other_characters():
    assert remove("about #l·l today", "l·l") == "about today"
