"""The embedding table: look-up by key, slot vectors, and what the file holds up against."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from ntulm import tensors
from ntulm.embeddings import table
from ntulm.embeddings.table import EmbeddingTable, write_table
from ntulm.errors import UserError

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
    monkeypatch.setattr(tensors, "BLOCK_ROWS", 1)
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
        (content[:40], "not a file of tensors; remove it"),
        (b"", "not a file of tensors"),
        (content.replace(b"ntulm-table-2", b"ntulm-table-1"), "not an embedding table of this version"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=message):
            EmbeddingTable.load(tmp_path)


def test_types_have_key_forms_and_means(tmp_path):
    types, vectors = ["user", "hashtag", "user"], np.arange(6, dtype=np.float32).reshape(3, 2)
    forms = {"user": "user", "place": "verbatim", "hashtag": "hashtag"}
    write_table(tmp_path, types, ["ada", "nlp", "bob"], vectors, forms)
    loaded = EmbeddingTable.load(tmp_path)
    assert loaded.types == forms
    assert list(loaded.types) == sorted(forms)
    assert {name: mean.tolist() for name, mean in loaded.type_means.items()} == {
        "user": [2, 3],
        "hashtag": [2, 3],
        "place": loaded.mean.tolist(),  # no row: the mean of all
    }
    write_table(tmp_path, types, ["ada", "nlp", "bob"], vectors)
    assert EmbeddingTable.load(tmp_path).types == {"user": "verbatim", "hashtag": "verbatim"}


def test_the_rows_of_an_overlay_follow_those_of_the_base(tmp_path):
    base = small_table(tmp_path)
    later = np.arange(9, dtype=np.float32).reshape(3, 3)
    write_table(tmp_path, ["user", "user", "hashtag"], ["eve", "ada", "new"], later, file=table.OVERLAY_FILE)
    loaded = EmbeddingTable.load(tmp_path)
    assert (len(base), len(loaded)) == (4, 7)
    assert loaded.rows("user", ["eve", "ada", "bob", "zoe"]).tolist() == [4, 2, 3, -1]  # the base knows ada
    assert loaded.rows("hashtag", ["new", "nlp", None]).tolist() == [6, 0, -1]
    np.testing.assert_array_equal(loaded.mean, base.mean)
    np.testing.assert_array_equal(loaded.type_means["user"], base.type_means["user"])
    rows = np.array([6, 3, -1, 4])
    expected = np.stack([later[2], base.vectors[3], base.mean, later[0]])
    np.testing.assert_array_equal(loaded.vectors_of(rows), expected)
    slots = loaded.slot_vectors(rows, np.array([0, 3, 4]))
    np.testing.assert_allclose(slots, [expected[:3].mean(0), expected[3]], rtol=1e-6)


def test_an_unknown_ntu_counts_as_what_fills_its_place(tmp_path):
    loaded = small_table(tmp_path)
    fill = np.arange(9, dtype=np.float32).reshape(3, 3)
    slots = loaded.slot_vectors(np.array([-1, 1, -1]), np.array([0, 2, 3, 3]), fill)
    np.testing.assert_allclose(slots, [(fill[0] + loaded.vectors[1]) / 2, fill[2], loaded.mean], rtol=1e-6)


@given(
    posts=st.lists(st.lists(st.tuples(st.sampled_from(["user", "hashtag", "place"]), st.integers(-1, 3)), max_size=4))
)
def test_parts_of_types_equal_a_plain_loop_and_add_up_to_the_slot(tmp_path_factory, posts):
    loaded = small_table(tmp_path_factory.mktemp("table"))
    loaded.type_means["place"] = loaded.mean
    types = ["user", "hashtag", "place"]
    ntus = [ntu for own in posts for ntu in own]
    rows = np.array([row for _, row in ntus], np.int64)
    ordinals = np.array([types.index(name) for name, _ in ntus], np.int64)
    offsets = np.cumsum([0] + [len(own) for own in posts])
    sums, shares = loaded.slot_vectors_by_type(rows, offsets, ordinals, types)
    assert (sums.dtype, shares.dtype) == (np.float32, np.float32)
    assert sums.shape == (len(posts), 3, 3)
    for place, own in enumerate(posts):
        of_post = own or [(name, -1) for name in types]
        for at, name in enumerate(types):
            vectors = [
                loaded.vectors[row] if row >= 0 else loaded.type_means[name] for kind, row in of_post if kind == name
            ]
            np.testing.assert_allclose(
                sums[place, at], np.sum(vectors, axis=0) / len(of_post) if vectors else 0, atol=1e-6
            )
            assert shares[place, at] == np.float32(len(vectors) / len(of_post))
    fill = np.stack([loaded.type_means[name] for name, _ in ntus]) if ntus else None
    whole = loaded.slot_vectors(rows, offsets, fill)
    filled = np.diff(offsets) > 0
    np.testing.assert_allclose(sums.sum(axis=1)[filled], whole[filled], atol=1e-6)


def test_an_overlay_of_another_table_is_refused(tmp_path):
    write_table(tmp_path, ["user"], ["ada"], np.ones((1, 4), np.float32), {"user": "user"})
    write_table(tmp_path, ["user"], ["bob"], np.ones((1, 1), np.float32), {"user": "user"}, "overlay.safetensors")
    with pytest.raises(UserError, match="vectors of length 1; those of the table have 4"):
        EmbeddingTable.load(tmp_path)
    write_table(tmp_path, ["user"], ["bob"], np.ones((1, 4), np.float32), {"user": "domain"}, "overlay.safetensors")
    with pytest.raises(UserError, match="keys of user in the form 'domain'"):
        EmbeddingTable.load(tmp_path)


@pytest.mark.parametrize("file", [table.TABLE_FILE, table.OVERLAY_FILE])
@pytest.mark.parametrize(("place", "offset"), [(-2, 1 << 40), (-2, -9), (-1, 1 << 40), (-1, 1)])
def test_names_outside_of_the_file_are_a_user_error(tmp_path, file, place, offset):
    small_table(tmp_path)
    write_table(tmp_path, ["user"], ["new"], np.ones((1, 3), np.float32), file=table.OVERLAY_FILE)
    found, metadata = tensors.map_tensors(tmp_path / file)
    changed = {name: np.array(tensor) for name, tensor in found.items()}
    changed["name_offsets"][place] = offset
    tensors.write_tensors(tmp_path / file, changed, metadata)
    with pytest.raises(UserError, match=f"{file}: damaged: name_offsets do not ascend"):
        EmbeddingTable.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("vectors", lambda tensor: tensor[:-1]),
        ("vectors", lambda tensor: tensor[0]),
        ("hashes", lambda tensor: tensor.astype(np.int64)),
        ("hash_rows", lambda tensor: tensor[1:]),
        ("mean", lambda tensor: tensor[:1]),
        ("type_means", lambda tensor: tensor[:1]),
    ],
)
def test_tensors_that_do_not_belong_together_are_a_user_error(tmp_path, name, change):
    small_table(tmp_path)
    found, metadata = tensors.map_tensors(tmp_path / table.TABLE_FILE)
    changed = {key: np.array(tensor) for key, tensor in found.items()}
    tensors.write_tensors(tmp_path / table.TABLE_FILE, changed | {name: change(changed[name])}, metadata)
    with pytest.raises(UserError, match=f"{table.TABLE_FILE}: "):
        EmbeddingTable.load(tmp_path)


@pytest.mark.parametrize("row", [-1, 4, 1 << 60])
def test_a_row_beyond_the_table_is_a_user_error_where_it_is_met(tmp_path, row):
    small_table(tmp_path)
    found, metadata = tensors.map_tensors(tmp_path / table.TABLE_FILE)
    changed = {key: np.array(tensor) for key, tensor in found.items()}
    changed["hash_rows"][:] = row
    tensors.write_tensors(tmp_path / table.TABLE_FILE, changed, metadata)
    with pytest.raises(UserError, match="the embedding table is damaged"):
        EmbeddingTable.load(tmp_path).rows("user", ["bob"])


@pytest.mark.parametrize("types", ["[", "[]", "3", '{"user": 3}', "[" * 9000])
def test_types_that_are_none_are_a_user_error(tmp_path, types):
    small_table(tmp_path)
    found, metadata = tensors.map_tensors(tmp_path / table.TABLE_FILE)
    changed = {key: np.array(tensor) for key, tensor in found.items()}
    tensors.write_tensors(tmp_path / table.TABLE_FILE, changed, metadata | {"types": types})
    with pytest.raises(UserError, match=f"{table.TABLE_FILE}: "):
        EmbeddingTable.load(tmp_path)


def test_a_header_that_nests_without_end_is_a_user_error(tmp_path):
    header = b"[" * 9000
    (tmp_path / table.TABLE_FILE).write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match="not a file of tensors"):
        EmbeddingTable.load(tmp_path)
