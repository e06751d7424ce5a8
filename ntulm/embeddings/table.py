"""The embedding table on disk: one vector per NTU known to the graph, looked up by key, memory-mapped.

Reads and writes `table.safetensors` in a directory (`data/embeddings` for the stage `embeddings`), and beside it, where
there is one, `overlay.safetensors`: NTUs that came later, in the same format, whose means are not used, and `edges`
[N] int64 beside: how many edges a row was folded in from (fold_in.py), 0 for one that was trained. Library only;
the stages `pretrain`, `encode` and `evaluate` load it. It needs numpy and pyarrow alone, so it runs on a bare GPU
machine.

Tensors of a file (N NTUs, D dimension, K types, S bytes of names):
    vectors [N, D] float32      rows in the order of node ids; those of the overlay go on from N
    mean [D] float32            stands for an unknown NTU and for a post without one (§3.2)
    type_means [K, D] float32   the mean of each type, in the order of `types`
    hashes [N] uint64           64-bit hashes of the names, ascending
    hash_rows [N] int64         the row that each hash belongs to
    name_offsets [N + 1] int64  where each row's name starts in `name_bytes`
    name_bytes [S] uint8        `type NUL key` of every row, UTF-8
Metadata: `format`, and `types`: JSON of the key form of each type (ntulm/text.py), in the order of their names.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ntulm.errors import UserError
from ntulm.files import whole_file
from ntulm.tensors import blocks, map_tensors, write_tensors

TABLE_FILE = "table.safetensors"
OVERLAY_FILE = "overlay.safetensors"
FORMAT = "ntulm-table-2"


@dataclass(frozen=True)
class Part:
    """The NTUs of one file."""

    vectors: np.ndarray  # [N, D] float32, memory-mapped
    hashes: np.ndarray  # [N] uint64, ascending
    hash_rows: np.ndarray  # [N] int64
    names: pa.LargeBinaryArray  # [N] `type NUL key`
    edges: np.ndarray | None = None  # [N] int64, of an overlay: what a row was folded in from; 0: trained

    @classmethod
    def of(cls, tensors: Mapping[str, np.ndarray]) -> "Part":
        """From the tensors of a file."""
        offsets, content = tensors["name_offsets"], tensors["name_bytes"]
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(content)]
        names = pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)
        return cls(tensors["vectors"], tensors["hashes"], tensors["hash_rows"], names, tensors.get("edges"))

    def __len__(self) -> int:
        return len(self.vectors)

    def find(self, names: list[bytes]) -> np.ndarray:
        """Rows int64 [n] of names; a row counts only where the stored name is the same, whatever the hash says."""
        hashes = _hashes(names)
        wanted = pa.array(names, pa.large_binary())
        rows = np.full(len(names), -1, np.int64)
        places = np.searchsorted(self.hashes, hashes)
        open_ = np.arange(len(names))
        while len(open_):  # a second round only for names that share their hash with others
            open_ = open_[places[open_] < len(self)]
            open_ = open_[self.hashes[places[open_]] == hashes[open_]]
            candidates = self.hash_rows[places[open_]]
            if len(candidates) and not 0 <= candidates.min() <= candidates.max() < len(self):
                raise UserError("the embedding table is damaged: hash_rows beyond its rows; write or copy it again")
            same = pc.equal(self.names.take(pa.array(candidates)), wanted.take(pa.array(open_))).to_numpy(False)
            rows[open_[same]] = candidates[same]
            open_ = open_[~same.astype(bool)]
            places[open_] += 1
        return rows


@dataclass(frozen=True)
class EmbeddingTable:
    """The vectors of all known NTUs; made by `EmbeddingTable.load`."""

    base: Part
    overlay: Part | None
    mean: np.ndarray  # [D] float32
    type_means: dict[str, np.ndarray]  # type -> [D] float32
    types: dict[str, str]  # type -> the name of its key form

    @classmethod
    def load(cls, directory: Path) -> "EmbeddingTable":
        """Map the table of `directory` into memory, with its overlay; vectors are not read before they are looked up.

        Raises:
            UserError: there is no table, or a file is damaged.
        """
        tensors, types = _read(directory / TABLE_FILE)
        later = directory / OVERLAY_FILE
        overlay = Part.of(_read(later)[0]) if later.is_file() else None
        if overlay is not None:
            _refuse_other(later, tensors["vectors"], overlay.vectors, types, _read(later)[1])
        means = dict(zip(types, np.array(tensors["type_means"]), strict=True))
        return cls(Part.of(tensors), overlay, np.array(tensors["mean"]), means, types)

    @property
    def vectors(self) -> np.ndarray:
        """float32 [N, D], memory-mapped; without the overlay, which `vectors_of` knows."""
        return self.base.vectors

    @property
    def dimension(self) -> int:
        """D, the length of a vector."""
        return int(self.base.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.base) + (0 if self.overlay is None else len(self.overlay))

    def rows(self, ntu_type: str, keys: Iterable[str | None]) -> np.ndarray:
        """The row of each NTU.

        Args:
            ntu_type: the type of all of them.
            keys: n keys, in the key form of the type; None is unknown.

        Returns:
            int64 [n]; -1 where the table does not know the NTU.
        """
        code_of: dict[str | None, int] = {}  # each distinct key is hashed once
        codes = np.fromiter((code_of.setdefault(key, len(code_of)) for key in keys), np.int64)
        known = {code: _name(ntu_type, key) for key, code in code_of.items() if key is not None}
        rows = np.full(len(code_of), -1, np.int64)
        if known and len(self):
            rows[list(known)] = self._find(list(known.values()))
        return rows[codes]

    def vectors_of(self, rows: np.ndarray, fill: np.ndarray | None = None) -> np.ndarray:
        """The vectors of rows, whichever file they stand in.

        Args:
            rows: int64 [n], -1 for an unknown NTU.
            fill: float32 [n, D], what an unknown NTU counts as; None: the mean row (§3.2).

        Returns:
            float32 [n, D]
        """
        unknown = rows < 0
        vectors = self.base.vectors[np.clip(rows, 0, len(self.base) - 1)]
        if self.overlay is not None:
            later = rows >= len(self.base)
            vectors[later] = self.overlay.vectors[rows[later] - len(self.base)]
        vectors[unknown] = self.mean if fill is None else fill[unknown]
        return vectors

    def slot_vectors(self, rows: np.ndarray, offsets: np.ndarray, fill: np.ndarray | None = None) -> np.ndarray:
        """The mean NTU vector of each post (§3.2).

        Args:
            rows: int64 [n], the NTUs of all posts one after the other, -1 for an unknown one.
            offsets: int64 [B + 1]; post b owns rows[offsets[b] : offsets[b + 1]].
            fill: float32 [n, D], what an unknown NTU counts as; None: the mean row.

        Returns:
            float32 [B, D]; a post without any NTU counts as the mean row.
        """
        counts = np.diff(offsets)
        slots = np.tile(self.mean, (len(counts), 1))
        filled = np.flatnonzero(counts)
        if len(filled):
            sums = np.add.reduceat(self.vectors_of(rows, fill), np.asarray(offsets)[filled], axis=0)
            slots[filled] = sums / counts[filled, None].astype(np.float32)
        return slots

    def slot_vectors_by_type(
        self, rows: np.ndarray, offsets: np.ndarray, ordinals: np.ndarray, types: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """What each type adds to the mean NTU vector of a post, for a projection per type before the mean.

        Args:
            rows: int64 [n], the NTUs of all posts one after the other, -1 for an unknown one.
            offsets: int64 [B + 1]; post b owns rows[offsets[b] : offsets[b + 1]].
            ordinals: int64 [n], the place of each NTU's type in `types`.
            types: K types.

        Returns:
            sums float32 [B, K, D]: of the vectors of a post's NTUs of a type, over the number of all its NTUs; and
            shares float32 [B, K]: of its NTUs that are of the type. An unknown NTU counts as the mean of its type
            (the mean row for a type that the table does not have), a post without any as one unknown NTU of each type.
        """
        size, means = len(types), np.stack([self.type_means.get(name, self.mean) for name in types])
        counts = np.diff(offsets)
        cells = np.repeat(np.arange(len(counts)), counts) * size + ordinals  # of the [B, K] results
        per_cell = np.bincount(cells, minlength=len(counts) * size)
        sums = np.zeros((len(per_cell), self.dimension), np.float32)
        filled = np.flatnonzero(per_cell)
        if len(filled):
            order = np.argsort(cells, kind="stable")
            starts = (np.cumsum(per_cell) - per_cell)[filled]
            sums[filled] = np.add.reduceat(self.vectors_of(rows, means[ordinals])[order], starts, axis=0)
        totals = np.maximum(counts, 1).astype(np.float32)[:, None]
        sums = sums.reshape(len(counts), size, self.dimension) / totals[:, :, None]
        shares = (per_cell.reshape(len(counts), size) / totals).astype(np.float32)
        sums[counts == 0], shares[counts == 0] = means / np.float32(size), 1 / size
        return sums, shares

    def with_overlay(self, rows: "Later") -> "EmbeddingTable":
        """The table with other rows in the place of its overlay; nothing else changes, and nothing is written."""
        if not len(rows.keys):
            return replace(self, overlay=None)
        overlay = Part.of(_tensors(rows.types, rows.keys, rows.vectors, self.types)[0] | {"edges": rows.edges})
        return replace(self, overlay=overlay)

    def later(self) -> "Later":
        """The rows of the overlay; none where there is none."""
        part = self.overlay
        if part is None:
            return Later([], [], np.empty((0, self.dimension), np.float32), np.empty(0, np.int64))
        pairs = [name.decode("utf-8", "surrogatepass").split("\0", 1) for name in part.names.to_pylist()]
        edges = np.zeros(len(part), np.int64) if part.edges is None else np.array(part.edges)
        return Later([kind for kind, _ in pairs], [key for _, key in pairs], np.array(part.vectors), edges)

    def _find(self, names: list[bytes]) -> np.ndarray:
        """Rows int64 [n] of names, of the base first."""
        rows = self.base.find(names)
        if self.overlay is not None:
            missing = np.flatnonzero(rows < 0)
            later = self.overlay.find([names[place] for place in missing])
            rows[missing] = np.where(later < 0, -1, later + len(self.base))
        return rows


class Later(NamedTuple):
    """The rows of an overlay: N NTUs that came after the training."""

    types: list[str]
    keys: list[str]
    vectors: np.ndarray  # [N, D] float32
    edges: np.ndarray  # [N] int64, what each was folded in from; 0: trained


def _refuse_other(
    path: Path, base: np.ndarray, overlay: np.ndarray, types: Mapping[str, str], later: Mapping[str, str]
) -> None:
    """An overlay has to be one of its table.

    Raises:
        UserError: its vectors are of another length, or a type has another key form.
    """
    if overlay.shape[1] != base.shape[1]:
        raise UserError(f"{path}: vectors of length {overlay.shape[1]}; those of the table have {base.shape[1]}")
    for name, form in later.items():
        if types.get(name, form) != form:
            raise UserError(f"{path}: keys of {name} in the form {form!r}; those of the table are {types[name]!r}")


def write_table(
    directory: Path,
    types: Sequence[str],
    keys: Sequence[str],
    vectors: np.ndarray,
    key_forms: Mapping[str, str] | None = None,
    file: str = TABLE_FILE,
) -> None:
    """Write the table of N NTUs into an existing directory; the same input gives the same bytes.

    Args:
        directory: where.
        types: N types; a list or an Arrow array, as `keys`.
        keys: N keys, distinct within a type.
        vectors: float32 [N, D], row i belongs to types[i], keys[i].
        key_forms: of each type, of which there may be more than rows have; where none is given: `verbatim`.
        file: OVERLAY_FILE for NTUs that come later.

    Raises:
        ValueError: no row, lengths that differ, or an NTU that stands twice.
    """
    tensors, forms = _tensors(types, keys, vectors, key_forms)
    write_tensors(directory / file, tensors, {"format": FORMAT, "types": json.dumps(forms)})


def write_overlay(directory: Path, table: EmbeddingTable) -> None:
    """Write the overlay of a table beside its file, or remove the one that is there where the table has none."""
    path, rows = directory / OVERLAY_FILE, table.later()
    if not len(rows.keys):
        path.unlink(missing_ok=True)
        return
    tensors, forms = _tensors(rows.types, rows.keys, rows.vectors, table.types)
    metadata = {"format": FORMAT, "types": json.dumps(forms)}
    with whole_file(path) as partial:
        write_tensors(partial, tensors | {"edges": rows.edges}, metadata)


def _tensors(
    types: Sequence[str], keys: Sequence[str], vectors: np.ndarray, key_forms: Mapping[str, str] | None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a file, and the key form of each type."""
    if not len(types) == len(keys) == len(vectors) or not len(vectors):
        raise ValueError(f"{len(types)} types, {len(keys)} keys and {len(vectors)} vectors; want the same, not zero")
    kinds, strings = (_binary(part) for part in (types, keys))
    found = {name.decode() for name in pc.unique(kinds).to_pylist()}
    forms = dict(sorted((dict.fromkeys(found, "verbatim") | dict(key_forms or {})).items()))
    names = pc.binary_join_element_wise(kinds, strings, pa.scalar(b"\0", pa.large_binary()))
    hashes = _hashes(name.as_py() for name in names)
    order = np.argsort(hashes, kind="stable")
    _refuse_duplicates(names, hashes[order], order)
    _, offsets, content = names.buffers()
    mean = _mean(vectors)
    return {
        "vectors": vectors,
        "mean": mean,
        "type_means": _type_means(vectors, kinds, list(forms), mean),
        "hashes": hashes[order],
        "hash_rows": order.astype(np.int64),
        "name_offsets": np.frombuffer(offsets, np.int64, len(names) + 1),
        "name_bytes": np.frombuffer(content, np.uint8) if content else np.empty(0, np.uint8),
    }, forms


def _binary(values: Sequence[str]) -> pa.LargeBinaryArray:
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, pa.large_string())
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return array.cast(pa.large_string()).cast(pa.large_binary())


def _name(ntu_type: str, key: str) -> bytes:
    # A lone surrogate can stand in a query read from JSON; no table holds one, so it is merely unknown.
    return f"{ntu_type}\0{key}".encode("utf-8", "surrogatepass")


def _hash(name: bytes) -> bytes:
    return hashlib.blake2b(name, digest_size=8).digest()


def _hashes(names: Iterable[bytes]) -> np.ndarray:
    """uint64 [n]"""
    return np.frombuffer(b"".join(map(_hash, names)), "<u8")


def _refuse_duplicates(names: pa.LargeBinaryArray, hashes: np.ndarray, order: np.ndarray) -> None:
    shared = np.flatnonzero(hashes[1:] == hashes[:-1])  # same hash: nearly always the same name
    suspects = np.union1d(shared, shared + 1)
    seen: set[bytes] = set()
    for row in order[suspects]:
        name = names[int(row)].as_py()
        if name in seen:
            raise ValueError(f"the NTU {name!r} stands twice in the table")
        seen.add(name)


def _mean(vectors: np.ndarray) -> np.ndarray:
    total = np.zeros(vectors.shape[1], np.float64)
    for block in blocks(vectors):
        total += block.sum(axis=0, dtype=np.float64)
    return (total / len(vectors)).astype(np.float32)


def _type_means(vectors: np.ndarray, kinds: pa.LargeBinaryArray, types: list[str], mean: np.ndarray) -> np.ndarray:
    """float32 [K, D]; the mean of all rows for a type that has none."""
    ordinals = pc.index_in(kinds, pa.array([name.encode() for name in types], pa.large_binary())).to_numpy(False)
    counts = np.bincount(ordinals, minlength=len(types))
    totals = np.zeros((len(types), vectors.shape[1]), np.float64)
    for rows, of_type in zip(blocks(vectors), blocks(ordinals), strict=True):
        for place in np.unique(of_type):
            totals[place] += rows[of_type == place].sum(axis=0, dtype=np.float64)
    means = (totals / np.maximum(counts, 1)[:, None]).astype(np.float32)
    means[counts == 0] = mean
    return means


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a file of the table, and its types with their key forms."""
    if not path.is_file():
        raise UserError(f"{path}: not found; run `dvc repro embeddings` first, which writes it")
    try:
        tensors, metadata = map_tensors(path)
        if metadata.get("format") != FORMAT:
            raise ValueError("not an embedding table of this version")
        _refuse_misplaced_names(tensors["name_offsets"], tensors["name_bytes"])
        types = json.loads(metadata["types"])
        _refuse_other_shapes(tensors, types)
        _refuse_other_edges(tensors)
        return tensors, types
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: {error}; remove it and run `dvc repro embeddings` again") from error


def _refuse_other_shapes(tensors: Mapping[str, np.ndarray], types: Any) -> None:
    """Refuse tensors that do not belong together."""
    if not isinstance(types, dict) or not all(isinstance(form, str) for form in types.values()):
        raise ValueError("damaged: its types are none")
    count, (rows, dimension) = len(tensors["name_offsets"]) - 1, tensors["vectors"].shape
    expected = {"vectors": (count, dimension), "hashes": (count,), "hash_rows": (count,)}
    expected |= {"mean": (dimension,), "type_means": (len(types), dimension)}
    dtypes = {"hashes": np.dtype("<u8"), "hash_rows": np.dtype("<i8")}
    wrong = [name for name, shape in expected.items() if tensors[name].shape != shape]
    wrong += [name for name, dtype in dtypes.items() if tensors[name].dtype != dtype]
    if wrong or rows != count:
        raise ValueError(f"damaged: {', '.join(wrong)} of another shape or type than belongs to {count} names")


def _refuse_misplaced_names(offsets: np.ndarray, content: np.ndarray) -> None:
    """Refuse places of names that are outside of the bytes: Arrow would look there all the same, and crash."""
    kinds = (offsets.dtype, offsets.ndim, content.dtype, content.ndim)
    if kinds != (np.dtype("<i8"), 1, np.dtype("u1"), 1) or not len(offsets):
        raise ValueError("damaged: name_offsets or name_bytes are of another type or shape")
    if offsets[0] != 0 or offsets[-1] != len(content) or not (offsets[1:] >= offsets[:-1]).all():
        raise ValueError("damaged: name_offsets do not ascend from 0 to the number of name_bytes")


def _refuse_other_edges(tensors: Mapping[str, np.ndarray]) -> None:
    """Refuse numbers of edges that are not one per row."""
    edges = tensors.get("edges")
    if edges is not None and (edges.dtype != np.dtype("<i8") or edges.shape != tensors["vectors"].shape[:1]):
        raise ValueError("damaged: edges are of another type or shape")
    if edges is not None and edges.size and edges.min() < 0:
        raise ValueError("damaged: a row of fewer than no edges")
