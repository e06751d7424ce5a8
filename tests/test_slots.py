"""ntulm/language_model/slots.py: NTU vectors by channel, and which NTUs stand for which tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from schemes import MORE
from transformers import AutoTokenizer

from ntulm.embeddings.table import EmbeddingTable, write_table
from ntulm.language_model.config import Batches
from ntulm.language_model.slots import Slots, describe_slots, ntus_of_tokens
from ntulm.language_model.tokens import tokenise
from ntulm.ntus import NtuScheme, Role, ntus_of
from ntulm.variants import parse_variant

USERS, TAGS = ["ada", "bob", "eve"], ["so", "like"]
NAMES = [("user", key) for key in USERS] + [("hashtag", key) for key in TAGS]
VARIANTS = (
    "author+hashtag",
    "author.hashtag",
    "author++hashtag",
    "mention.author++hashtag",
    "author++mention++hashtag",
)
users, tags = st.sampled_from([*USERS, "nobody"]), st.sampled_from([*TAGS, "new"])
posts_of = st.lists(
    st.tuples(st.none() | users, st.lists(users, max_size=3, unique=True), st.lists(tags, max_size=3, unique=True)),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    directory = tmp_path_factory.mktemp("table")
    vectors = np.random.default_rng(0).standard_normal((len(NAMES), 4)).astype(np.float32)
    write_table(directory, [kind for kind, _ in NAMES], [key for _, key in NAMES], vectors)
    return EmbeddingTable.load(directory)


def make(table, variant, posts, scheme=MORE):
    ntus = ntus_of(
        scheme,
        {"author": [a for a, _, _ in posts], "mentions": [m for _, m, _ in posts], "hashtags": [h for *_, h in posts]},
    )
    return Slots.of(table, scheme, parse_variant(variant, scheme.of_posts), ntus), ntus


def plain(table, variant, post, hidden=frozenset()):
    """The vectors and shares of one post, NTU by NTU; `hidden` holds pairs of role and key."""
    means = {
        kind: np.mean([table.vectors[row] for row, name in enumerate(NAMES) if name[0] == kind], 0)
        for kind in ("user", "hashtag")
    }
    author, mentions, hashtags = post
    of_role = {"author": [author] if author else [], "mention": mentions, "hashtag": hashtags}
    vectors, shares = [], []
    for slot in describe_slots(MORE, parse_variant(variant, MORE.of_posts)):
        found = [
            (MORE.roles[role].type, key) for role in slot["roles"] for key in of_role[role] if (role, key) not in hidden
        ]
        for kinds in [[kind] for kind in slot["types"]] if slot["per_type"] else [slot["types"]]:
            fill = means[kinds[0]] if slot["per_type"] else table.mean
            own = [table.vectors[NAMES.index(name)] if name in NAMES else fill for name in found if name[0] in kinds]
            count = len(slot["types"]) if slot["per_type"] else 1
            vectors.append(np.sum(own, 0) / len(found) if own else np.zeros(4) if found else fill / count)
            shares.append(len(own) / len(found) if found else 1 / count)
    return np.stack(vectors), np.array(shares)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=20, deadline=None)
@given(posts=posts_of, seed=st.integers(0, 99))
def test_vectors_and_shares_equal_a_plain_loop(table, variant, posts, seed):
    slots, _ = make(table, variant, posts)
    order = np.random.default_rng(seed).permutation(len(posts))
    vectors, shares = slots.vectors(order)
    expected = [plain(table, variant, posts[row]) for row in order]
    np.testing.assert_allclose(vectors, [one for one, _ in expected], atol=1e-5)
    assert (shares is None) == ("++" not in variant)
    np.testing.assert_allclose(1 if shares is None else shares, [one for _, one in expected], atol=1e-6)
    tensors = slots.tensors(order, torch.device("cpu"))
    assert set(tensors) == ({"slot"} if shares is None else {"slot", "slot_shares"})
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


@pytest.mark.parametrize("variant", VARIANTS)
def test_hidden_ntus_count_as_if_the_post_had_not_used_them(table, variant):
    posts = [("ada", ["bob"], ["so", "new"]), ("bob", [], ["so"]), (None, [], [])]
    slots, ntus = make(table, variant, posts)
    flat = [(ntu["role"], ntu["key"]) for own in ntus.to_pylist() for ntu in own]
    names = [flat[place] for slot in slots.slots for place in slot.places]
    assert [slot.first for slot in slots.slots] == np.cumsum([0, *(len(slot.rows) for slot in slots.slots)])[
        :-1
    ].tolist()
    hidden = {("hashtag", "so")}
    asked = []

    def hide(numbers):
        asked.extend(numbers.tolist())
        return np.array([names[number] in hidden for number in numbers], bool)

    vectors, shares = slots.vectors(np.arange(3), hide)
    assert sorted(asked) == list(range(len(names)))  # each NTU of each slot has a number of its own
    expected = [plain(table, variant, post, hidden) for post in posts]
    np.testing.assert_allclose(vectors, [one for one, _ in expected], atol=1e-5)
    np.testing.assert_allclose(1 if shares is None else shares, [one for _, one in expected], atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=20, deadline=None)
@given(posts=posts_of, hidden=st.sets(st.sampled_from(["ada", "bob", "so"])))
def test_a_slot_is_left_out_where_none_of_its_ntus_is_known(table, variant, posts, hidden):
    shown, ntus = make(table, variant, posts)
    slots = Slots(table, shown.slots, leave_out=True)
    flat = [(post, ntu["role"], ntu["key"]) for post, own in enumerate(ntus.to_pylist()) for ntu in own]
    names = [flat[place] for slot in slots.slots for place in slot.places]

    def hide(numbers):
        return np.array([names[number][2] in hidden for number in numbers], bool)

    order = np.arange(len(posts))[::-1].copy()
    kept = {key for _, key in NAMES} - hidden
    about = describe_slots(MORE, parse_variant(variant, MORE.of_posts))
    expected = [
        [any(p == post and role in slot["roles"] and key in kept for p, role, key in flat) for slot in about]
        for post in order
    ]
    tensors, whole = slots.tensors(order, torch.device("cpu"), hide), shown.tensors(order, torch.device("cpu"), hide)
    assert tensors.pop("slot_mask").tolist() == [[int(one) for one in own] for own in expected]
    assert tensors.keys() == whole.keys()  # what a slot holds is the same
    assert all(torch.equal(tensors[name], whole[name]) for name in whole)
    assert slots.owners(np.arange(len(names))).tolist() == [post for post, *_ in names]
    assert slots.fingerprint() != shown.fingerprint()


def test_the_papers_slot_is_the_tables_mean_of_rows(table):
    slots, _ = make(table, "author+hashtag", [("ada", [], ["so"]), (None, [], []), ("nobody", [], [])])
    vectors, _ = slots.vectors(np.arange(3))
    np.testing.assert_array_equal(vectors[0, 0], table.slot_vectors(np.array([0, 3]), np.array([0, 2]))[0])
    np.testing.assert_array_equal(vectors[1:, 0], [table.mean, table.mean])
    norm = np.sqrt(np.square(vectors[:, 0]).sum(1).mean())
    assert slots.typical_norms() == [pytest.approx(norm)]


def test_typical_norms_are_of_whole_slots(table):
    posts = [("ada", [], ["so"]), ("bob", ["eve"], [])]
    together, _ = make(table, "author+hashtag", posts)
    per_type, _ = make(table, "author++hashtag", posts)
    assert per_type.typical_norms() == pytest.approx(together.typical_norms())
    assert len(make(table, "mention.author++hashtag", posts)[0].typical_norms()) == 2


def test_other_ntus_have_another_fingerprint(table):
    prints = {
        make(table, variant, [(author, [], ["so"])])[0].fingerprint()
        for variant in ("author+hashtag", "author.hashtag", "author++hashtag")
        for author in ("ada", "bob")
    }
    assert len(prints) == 6


@pytest.mark.parametrize("variant", ["author+hashtag", "hashtag.author", "author.hashtag", "mention.author++hashtag"])
def test_each_token_of_a_hashtag_knows_its_ntu(table, tiny_backbone, variant):
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    tokens = tokenise(
        ["so #like it", "#LIKE #so", "plain", "#it"],
        tokenizer,
        Batches(max_length=24, mask_urls=True, mask_mentions=True),
    )
    slots, ntus = make(
        table, variant, [("ada", [], ["like"]), ("bob", ["eve"], ["like", "so"]), ("eve", [], []), (None, [], [])]
    )
    found = ntus_of_tokens(slots, tokens, MORE, parse_variant(variant, MORE.of_posts), ntus)
    assert found.shape == (1, len(tokens.ids))
    flat = [(ntu["role"], ntu["key"]) for own in ntus.to_pylist() for ntu in own]
    names = [flat[place] for slot in slots.slots for place in slot.places]
    owners = np.repeat(np.arange(4), tokens.lengths)
    for token, number in enumerate(found[0]):
        inside = tokens.hashtag[token]
        if inside < 0 or owners[token] == 3:  # the last post does not have its hashtag as an NTU
            assert number == -1
        else:
            assert names[number] == ("hashtag", tokens.hashtags[inside])
    of_post = [set(found[0][owners == post]) - {-1} for post in range(4)]
    assert [len(own) for own in of_post] == [1, 2, 0, 0]
    assert not of_post[0] & of_post[1]


def test_any_role_with_hashtags_knows_its_tokens(table, tiny_backbone):
    scheme = NtuScheme(
        {"user": "user", "topic": "hashtag", "hashtag": "hashtag"},
        {"author": Role("user", "author"), "hashtag": Role("hashtag", "hashtags"), "topic": Role("topic", "hashtags")},
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    tokens = tokenise(["so #like"], tokenizer, Batches(max_length=24, mask_urls=True, mask_mentions=True))
    slots, ntus = make(table, "hashtag.topic", [("ada", [], ["like"])], scheme)
    variant = parse_variant("hashtag.topic", scheme.of_posts)
    found = ntus_of_tokens(slots, tokens, scheme, variant, ntus)
    assert found[:, tokens.in_hashtag].T.tolist() == [[0, 1]] * int(tokens.in_hashtag.sum())
    slots, ntus = make(table, "author", [("ada", [], ["like"])], scheme)
    assert ntus_of_tokens(slots, tokens, scheme, parse_variant("author", scheme.of_posts), ntus).shape == (
        0,
        len(tokens.ids),
    )
