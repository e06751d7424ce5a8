"""tokens.py: what the tokenizer itself gives, and which token stands in which hashtag, in one process or in several."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from ntulm.language_model import tokens as module
from ntulm.language_model.config import Batches
from ntulm.language_model.tokens import Tokens, processes_for_texts, tokenise
from ntulm.text import masked

BATCHES = Batches(max_length=24, mask_urls=True, mask_mentions=True)
PIECES = [
    "like",
    "it",
    "#so",
    "#हिन्दी",
    "#a#b",
    "#",
    "@bob",
    "http://x.y/z",
    "[MASK]",
    "＃like",
    "\n",
    "日本",
    "😀",
    "#it's",
]
TEXTS = st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join) | st.text(max_size=60), max_size=6)


@pytest.fixture(scope="module")
def tokenizer(tiny_backbone):
    return AutoTokenizer.from_pretrained(tiny_backbone)


def one_by_one(texts, tokenizer):
    """Post by post and token by token: ids, and the hashtag of each token."""
    ids: list[list[int]] = []
    tags: list[int] = []
    hashtags: list[str] = []
    for text in texts:
        shown, found = masked(text, BATCHES.mask_urls, BATCHES.mask_mentions)
        encoded = tokenizer(shown, truncation=True, max_length=BATCHES.max_length, return_offsets_mapping=True)
        ids.append(encoded["input_ids"])
        for start, end in encoded["offset_mapping"]:
            over = [
                place for place, (first, last, _) in enumerate(found) if start < end and start < last and end > first
            ]
            tags.append(len(hashtags) + over[-1] if over else -1)
        hashtags += [tag for _, _, tag in found]
    return ids, tags, hashtags


def equal(one: Tokens, other: Tokens) -> bool:
    return one.hashtags == other.hashtags and all(
        (getattr(one, name) == getattr(other, name)).all() and getattr(one, name).dtype == getattr(other, name).dtype
        for name in ("ids", "offsets", "hashtag")
    )


@given(TEXTS)
def test_tokens_are_those_of_the_tokenizer_and_hashtags_those_of_the_text(tiny_backbone, texts):
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    ids, tags, hashtags = one_by_one(texts, tokenizer)
    tokens = tokenise(texts, tokenizer, BATCHES)
    assert [part.tolist() for part in np.split(tokens.ids, tokens.offsets[1:-1])] == (ids or [[]])
    assert tokens.hashtag.tolist() == tags
    assert tokens.hashtags == hashtags


def test_several_parts_and_several_processes_give_the_same(tokenizer, monkeypatch):
    texts = [f"{' '.join(PIECES[n % 14 :])} #tag{n}" if n % 3 else "like it" for n in range(50)]
    whole = tokenise(texts, tokenizer, BATCHES)
    assert len(set(whole.hashtag)) > 50
    monkeypatch.setattr(module, "AT_ONCE", 16)
    assert equal(tokenise(texts, tokenizer, BATCHES), whole)
    monkeypatch.setattr(module, "WORTH_PROCESSES", 1)
    assert equal(tokenise(texts, tokenizer, BATCHES, processes=2), whole)


def test_what_was_asked_of_the_tokenizer_before_does_not_matter(tiny_backbone):
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    before = tokenise(["like it " * 20, "so"], tokenizer, BATCHES)
    tokenizer(["like", "it so"], padding=True, truncation=True, max_length=5, return_tensors="pt")
    assert equal(tokenise(["like it " * 20, "so"], tokenizer, BATCHES), before)
    assert before.lengths.tolist() == [BATCHES.max_length, 3]


def test_ranks_of_a_machine_share_its_cores(monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 12)
    assert processes_for_texts() == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert processes_for_texts() == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert processes_for_texts() == 1  # three of them gain nothing on the tokenizer's own threads
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert processes_for_texts() == 1


def test_a_hashtag_of_any_script_is_whole_and_in_its_place_after_masking(tokenizer):
    tokens = tokenise(["https://t.co/long/link @somebody@b.example #so #हिन्दी http://x"], tokenizer, BATCHES)
    words = tokenizer.convert_ids_to_tokens(tokens.ids.tolist())
    assert tokens.hashtags == ["so", "हिन्दी"]
    assert "".join(word for word, tag in zip(words, tokens.hashtag, strict=True) if tag == 0).replace("##", "") == "#so"
    assert tokens.in_hashtag.sum() > (tokens.hashtag == 0).sum()


def test_tokens_know_whether_they_stand_in_a_hashtag(tokenizer):
    tokens = tokenise(["i #likeit so # 1", "", "#so"], tokenizer, BATCHES)
    first = slice(tokens.offsets[0], tokens.offsets[1])
    words = tokenizer.convert_ids_to_tokens(tokens.ids[first].tolist())
    inside = [word for word, flag in zip(words, tokens.in_hashtag[first], strict=True) if flag]
    assert "".join(inside).replace("##", "") == "#likeit"
    assert tokens.lengths.tolist()[1:] == [2, 4]
    assert tokens.ids.dtype == np.int32
    assert tokenizer.convert_ids_to_tokens(tokens.ids[tokens.offsets[1] : tokens.offsets[2]].tolist()) == [
        "[CLS]",
        "[SEP]",
    ]


@given(st.lists(st.text(max_size=60), max_size=4))
def test_hostile_texts_become_bounded_posts(tiny_backbone, texts):
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    tokens = tokenise(texts, tokenizer, BATCHES)
    assert len(tokens) == len(texts)
    assert len(tokens.ids) == len(tokens.in_hashtag) == tokens.offsets[-1]
    assert ((tokens.lengths >= 2) & (tokens.lengths <= BATCHES.max_length)).all()
