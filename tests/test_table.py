"""The embedding table: look-up by key, slot vectors, and what the file holds up against."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from ntulm.embeddings import table
from ntulm.embeddings.table import EmbeddingTable, ntu_rows, write_table
from ntulm.errors import UserError
from ntulm.variants import VARIANTS

HOSTILE = [
    "",
    "a",
    "A",
    "ä",
    "a\u0308",
    "'; DROP TABLE posts; --",
    '"',
    "a\nb",
    "\t",
    "\ufeff",
    "🙂",
    "\U0010ffff",
    "x" * 100_000,
]
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)


def make_table(directory: Path, names: list[tuple[str, str]], dimension: int = 3) -> EmbeddingTable:
    directory.mkdir(parents=True, exist_ok=True)
    vectors = np.random.default_rng(0).standard_normal((len(names), dimension)).astype(np.float32)
    write_table(directory, [kind for kind, _ in names], [key for _, key in names], vectors)
    return EmbeddingTable.load(directory)


def small_table(directory: Path) -> EmbeddingTable:
    return make_table(directory, [("hashtag", "nlp"), ("hashtag", "ada"), ("user", "ada"), ("user", "bob")])


def test_a_key_is_looked_up_within_its_type(tmp_path):
    loaded = small_table(tmp_path)
    assert loaded.rows("user", ["bob", "ada", None, "nlp", "bob"]).tolist() == [3, 2, -1, -1, 3]
    assert loaded.rows("hashtag", ["ada", "nlp", "bob"]).tolist() == [1, 0, -1]
    assert loaded.rows("url", ["ada"]).tolist() == [-1]
    assert loaded.rows("user", []).dtype == np.int64
    assert loaded.rows("user", []).tolist() == []


def test_hostile_keys_are_found(tmp_path):
    names = [(kind, key) for kind in ("hashtag", "user") for key in HOSTILE]
    loaded = make_table(tmp_path, names)
    assert loaded.rows("hashtag", HOSTILE).tolist() == list(range(len(HOSTILE)))
    assert loaded.rows("user", HOSTILE).tolist() == list(range(len(HOSTILE), 2 * len(HOSTILE)))
    assert loaded.rows("user", ["\ud800", "a\0", "\0user"]).tolist() == [-1, -1, -1]


@given(known=st.lists(KEYS, min_size=1, unique=True), asked=st.lists(st.none() | KEYS))
def test_equal_hashes_never_give_a_wrong_row(tmp_path_factory, known, asked):
    directory = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "_hash", lambda name: bytes([len(name) % 2]) * 8)  # two hashes for all names
        loaded = make_table(directory, [("user", key) for key in known])
        expected = [known.index(key) if key in known else -1 for key in asked]
        assert loaded.rows("user", asked).tolist() == expected


def test_vectors_are_mapped_and_the_library_reads_them(tmp_path):
    loaded = small_table(tmp_path)
    assert isinstance(loaded.vectors, np.memmap)
    assert loaded.vectors.dtype == loaded.mean.dtype == np.float32
    assert (loaded.dimension, len(loaded)) == (3, 4)
    stored = load_file(tmp_path / table.TABLE_FILE)
    np.testing.assert_array_equal(stored["vectors"], loaded.vectors)
    np.testing.assert_allclose(stored["mean"], loaded.vectors.mean(axis=0), rtol=1e-6)


def test_blocks_give_the_same_bytes(tmp_path, monkeypatch):
    small_table(tmp_path / "a")
    monkeypatch.setattr(table, "BLOCK_ROWS", 1)
    small_table(tmp_path / "b")
    assert (tmp_path / "a" / table.TABLE_FILE).read_bytes() == (tmp_path / "b" / table.TABLE_FILE).read_bytes()


def test_slot_vectors_average_known_unknown_and_no_ntus(tmp_path):
    loaded = small_table(tmp_path)
    slots = loaded.slot_vectors(np.array([3, 0, -1, 1, -1]), np.array([0, 0, 2, 4, 5, 5]))
    mean, vectors = loaded.mean, loaded.vectors
    expected = [mean, (vectors[3] + vectors[0]) / 2, (mean + vectors[1]) / 2, mean, mean]
    np.testing.assert_allclose(slots, expected, rtol=1e-6)
    assert slots.dtype == np.float32
    assert loaded.slot_vectors(np.empty(0, np.int64), np.zeros(3, np.int64)).tolist() == [mean.tolist()] * 2
    assert loaded.slot_vectors(np.empty(0, np.int64), np.zeros(1, np.int64)).shape == (0, 3)


@given(
    posts=st.lists(
        st.tuples(
            st.sampled_from([None, "ada", "bob", "eve"]), st.lists(st.sampled_from(["nlp", "ada", "x"])) | st.none()
        )
    ),
    variant=st.sampled_from(list(VARIANTS)),
)
def test_ntu_rows_equal_a_plain_loop(tmp_path_factory, posts, variant):
    loaded = small_table(tmp_path_factory.mktemp("table"))
    names = VARIANTS[variant].slot
    rows, offsets = ntu_rows(loaded, [author for author, _ in posts], [tags for _, tags in posts], names)
    users, hashtags = {"ada": 2, "bob": 3}, {"nlp": 0, "ada": 1}
    for place, (author, tags) in enumerate(posts):
        expected = [users.get(author, -1)] if "author" in names and author is not None else []
        expected += [hashtags.get(tag, -1) for tag in tags or []] if "hashtag" in names else []
        assert rows[offsets[place] : offsets[place + 1]].tolist() == expected
    assert offsets[-1] == len(rows)


def test_an_ntu_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="twice"):
        make_table(tmp_path, [("user", "ada"), ("user", "bob"), ("user", "ada")])
    with pytest.raises(ValueError, match="2 types, 1 keys and 2 vectors"):
        write_table(tmp_path, ["user", "user"], ["a"], np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="not zero"):
        write_table(tmp_path, [], [], np.zeros((0, 3), np.float32))


def test_a_missing_or_damaged_table_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="not found; run `dvc repro embeddings`"):
        EmbeddingTable.load(tmp_path)
    small_table(tmp_path)
    file = tmp_path / table.TABLE_FILE
    content = file.read_bytes()
    for damaged, message in (
        (content[:-1], "cut short"),
        (content[:40], "not an embedding table"),
        (b"", "not an emb"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=message):
            EmbeddingTable.load(tmp_path)
