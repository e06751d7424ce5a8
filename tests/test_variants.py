"""ntulm/variants.py: a variant's name is its meaning, and what is no name is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntulm.errors import UserError
from ntulm.variants import Slot, Variant, parse_variant

ROLES = dict.fromkeys(["author", "mention", "hashtag"])


@pytest.mark.parametrize(
    ("name", "slots"),
    [
        ("text", ()),
        ("unadapted", ()),
        ("author", (Slot(("author",)),)),
        ("author+hashtag", (Slot(("author", "hashtag")),)),
        ("hashtag+author", (Slot(("hashtag", "author")),)),
        ("author++hashtag", (Slot(("author", "hashtag"), per_type=True),)),
        ("author.hashtag", (Slot(("author",)), Slot(("hashtag",)))),
        ("mention.author++hashtag", (Slot(("mention",)), Slot(("author", "hashtag"), per_type=True))),
        ("shuffled", (Slot(("author", "hashtag")),)),
    ],
)
def test_a_name_says_what_the_slots_take(name, slots):
    variant = parse_variant(name, ROLES)
    assert variant.slots == slots
    assert variant.roles == tuple(role for slot in slots for role in slot.roles)
    assert variant.shuffled == (name == "shuffled")
    assert variant.trained == (name != "unadapted")


def test_words_have_roles_and_no_slot():
    assert parse_variant("words", ROLES) == Variant(words=("author", "hashtag"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("emoji", r"unknown role 'emoji'; ntus\.roles has author, mention, hashtag"),
        ("author+author", "a role stands twice"),
        ("author.author+hashtag", "a role stands twice"),
        ("author+hashtag++mention", "is no slot; expected roles joined by"),
        ("author+", "'author\\+' is no slot"),
        ("author..hashtag", "'' is no slot"),
        ("", "'' is no slot"),
        ("author, hashtag", "is no slot"),
        ("Author", "is no slot"),
        ("text+author", "unknown role 'text'"),
    ],
)
def test_what_is_no_variant_is_refused_with_what_would_be_right(name, message):
    with pytest.raises(UserError, match=message):
        parse_variant(name, ROLES)


@pytest.mark.parametrize("name", ["words", "shuffled"])
def test_variants_of_the_papers_roles_want_them(name):
    with pytest.raises(UserError, match=rf"variant '{name}': unknown role 'hashtag'"):
        parse_variant(name, {"author": None})


@settings(deadline=None)  # a busy machine takes its time
@given(st.permutations(list(ROLES)), st.lists(st.sampled_from(["+", "++", "."]), min_size=2, max_size=2))
def test_a_name_is_read_back_or_refused(roles, signs):
    name = roles[0] + signs[0] + roles[1] + signs[1] + roles[2]
    if set(signs) == {"+", "++"}:
        with pytest.raises(UserError):
            parse_variant(name, ROLES)
        return
    written = ".".join(("++" if slot.per_type else "+").join(slot.roles) for slot in parse_variant(name, ROLES).slots)
    assert written == name
