import pytest

from ntulm.errors import UserError
from ntulm.variants import VARIANTS, present, variant_of

TEXTS = [f"post {number}" for number in range(40)]
AUTHORS = [None if number % 4 == 0 else f"user{number}" for number in range(40)]
HASHTAGS = [None if number % 3 == 0 else [f"tag{number}", "all"] for number in range(40)]


def test_variants_name_their_ntus():
    assert variant_of("text").slot == ()
    assert variant_of("author+hashtag").slot == ("author", "hashtag")
    with pytest.raises(UserError, match=r"unknown variant 'hashtag\+author'; valid are text, author, hashtag, author"):
        variant_of("hashtag+author")


@pytest.mark.parametrize("name", ["text", "author", "hashtag", "author+hashtag", "unadapted"])
def test_most_variants_see_the_posts_as_they_are(name):
    seen = present(VARIANTS[name], TEXTS, AUTHORS, HASHTAGS)
    assert (seen.texts, seen.authors, seen.hashtags) == (TEXTS, AUTHORS, HASHTAGS)


def test_shuffled_posts_keep_their_text_and_get_the_ntus_of_another():
    seen = present(VARIANTS["shuffled"], TEXTS, AUTHORS, HASHTAGS)
    assert seen.texts == TEXTS
    pairs = list(zip(seen.authors, map(str, seen.hashtags), strict=True))
    own = list(zip(AUTHORS, map(str, HASHTAGS), strict=True))
    assert sorted(pairs, key=str) == sorted(own, key=str)  # author and hashtags of one post stay together
    assert sum(first == second for first, second in zip(pairs, own, strict=True)) < 8


def test_words_stand_before_the_text():
    seen = present(VARIANTS["words"], ["hello #all", "so"], ["ada", None], [["all"], None])
    assert seen.texts == ["ada all hello #all", "so"]
