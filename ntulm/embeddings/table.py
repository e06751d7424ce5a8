"""The embedding table on disk: one vector per NTU known to the graph, looked up by key, memory-mapped.

Reads and writes `table.safetensors` in a directory (`data/embeddings` for the stage `embeddings`). Library only; the
stages `pretrain`, `encode` and `evaluate` load it. It needs numpy and pyarrow alone, so it runs on a bare GPU machine.

Tensors of the file (N NTUs, D dimension, S bytes of names):
    vectors [N, D] float32      rows in the order of node ids
    mean [D] float32            stands for an unknown NTU and for a post without one (§3.2)
    hashes [N] uint64           64-bit hashes of the names, ascending
    hash_rows [N] int64         the row that each hash belongs to
    name_offsets [N + 1] int64  where each row's name starts in `name_bytes`
    name_bytes [S] uint8        `type NUL key` of every row, UTF-8
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ntulm.errors import UserError

TABLE_FILE = "table.safetensors"
FORMAT = "ntulm-table-1"
BLOCK_ROWS = 1 << 16  # rows copied at a time, so that a table larger than memory can be written


@dataclass(frozen=True)
class EmbeddingTable:
    """The vectors of all known NTUs; made by `EmbeddingTable.load`."""

    vectors: np.ndarray  # [N, D] float32, memory-mapped
    mean: np.ndarray  # [D] float32
    hashes: np.ndarray  # [N] uint64, ascending
    hash_rows: np.ndarray  # [N] int64
    names: pa.LargeBinaryArray  # [N] `type NUL key`

    @classmethod
    def load(cls, directory: Path) -> "EmbeddingTable":
        """Map the table of `directory` into memory; nothing is read before it is looked up.

        Raises:
            UserError: there is no table, or the file is damaged.
        """
        tensors = _map_tensors(directory / TABLE_FILE)
        offsets, content = tensors["name_offsets"], tensors["name_bytes"]
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(content)]
        names = pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)
        mean = np.array(tensors["mean"])
        return cls(tensors["vectors"], mean, tensors["hashes"], tensors["hash_rows"], names)

    @property
    def dimension(self) -> int:
        """D, the length of a vector."""
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def type_means(self) -> dict[str, np.ndarray]:
        """The mean vector float32 [D] of each type."""
        types = pc.list_element(pc.split_pattern(self.names.cast(pa.large_string()), "\0", max_splits=1), 0)
        kinds = types.to_numpy(False).astype(str)
        return {name: np.array(self.vectors[kinds == name]).mean(axis=0) for name in sorted(set(kinds))}

    def rows(self, ntu_type: str, keys: Iterable[str | None]) -> np.ndarray:
        """The row of each NTU.

        Args:
            ntu_type: the node type, `user` or `hashtag`.
            keys: n keys, normalised as in the posts table; None is unknown.

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

    def slot_vectors(self, rows: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """The mean NTU vector of each post (§3.2).

        Args:
            rows: int64 [n], the NTUs of all posts one after the other, -1 for an unknown one.
            offsets: int64 [B + 1]; post b owns rows[offsets[b] : offsets[b + 1]].

        Returns:
            float32 [B, D]; an unknown NTU and a post without any count as the mean row.
        """
        counts = np.diff(offsets)
        slots = np.tile(self.mean, (len(counts), 1))
        filled = np.flatnonzero(counts)
        if len(filled):
            vectors = self.vectors[np.maximum(rows, 0)]
            vectors[rows < 0] = self.mean
            sums = np.add.reduceat(vectors, np.asarray(offsets)[filled], axis=0)
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
            vectors = self.vectors[np.maximum(rows, 0)]
            vectors[rows < 0] = means[ordinals[rows < 0]]
            order = np.argsort(cells, kind="stable")
            sums[filled] = np.add.reduceat(vectors[order], (np.cumsum(per_cell) - per_cell)[filled], axis=0)
        totals = np.maximum(counts, 1).astype(np.float32)[:, None]
        sums = sums.reshape(len(counts), size, self.dimension) / totals[:, :, None]
        shares = (per_cell.reshape(len(counts), size) / totals).astype(np.float32)
        sums[counts == 0], shares[counts == 0] = means / np.float32(size), 1 / size
        return sums, shares

    def _find(self, names: list[bytes]) -> np.ndarray:
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
            same = pc.equal(self.names.take(pa.array(candidates)), wanted.take(pa.array(open_))).to_numpy(False)
            rows[open_[same]] = candidates[same]
            open_ = open_[~same.astype(bool)]
            places[open_] += 1
        return rows


def ntu_rows(
    table: EmbeddingTable,
    authors: Sequence[str | None],
    hashtags: Sequence[Sequence[str] | None],
    names: Sequence[str],
) -> tuple[np.ndarray, np.ndarray]:
    """The NTUs of posts as rows of the table.

    Args:
        authors: B users; None contributes no NTU.
        hashtags: the hashtags of each of the B posts; None is as good as none.
        names: which NTUs count, of "author" and "hashtag".

    Returns:
        rows int64 [n] (a post's author first, then its hashtags; -1 for an unknown NTU) and offsets int64 [B + 1].
    """
    with_author = "author" in names
    tags = [list(tags) if tags is not None else [] for tags in hashtags] if "hashtag" in names else [[]] * len(authors)
    has_author = np.fromiter((with_author and author is not None for author in authors), bool, len(authors))
    offsets = np.zeros(len(authors) + 1, np.int64)
    np.cumsum([len(own) for own in tags] + has_author, out=offsets[1:])
    rows = np.empty(offsets[-1], np.int64)
    is_author = np.zeros(len(rows), bool)
    is_author[offsets[:-1][has_author]] = True
    if with_author:
        rows[is_author] = table.rows("user", (author for author in authors if author is not None))
    rows[~is_author] = table.rows("hashtag", (tag for own in tags for tag in own))
    return rows, offsets


def write_table(directory: Path, types: Sequence[str], keys: Sequence[str], vectors: np.ndarray) -> None:
    """Write the table of N NTUs into an existing directory; the same input gives the same bytes.

    Args:
        types: N node types (`user`, `hashtag`); a list or an Arrow array, as `keys`.
        keys: N keys, distinct within a type.
        vectors: float32 [N, D], row i belongs to types[i], keys[i].

    Raises:
        ValueError: no row, lengths that differ, or an NTU that stands twice.
    """
    if not len(types) == len(keys) == len(vectors) or not len(vectors):
        raise ValueError(f"{len(types)} types, {len(keys)} keys and {len(vectors)} vectors; want the same, not zero")
    kinds, strings = (_binary(part) for part in (types, keys))
    names = pc.binary_join_element_wise(kinds, strings, pa.scalar(b"\0", pa.large_binary()))
    hashes = _hashes(name.as_py() for name in names)
    order = np.argsort(hashes, kind="stable")
    _refuse_duplicates(names, hashes[order], order)
    _, offsets, content = names.buffers()
    tensors = {
        "vectors": vectors,
        "mean": _mean(vectors),
        "hashes": hashes[order],
        "hash_rows": order.astype(np.int64),
        "name_offsets": np.frombuffer(offsets, np.int64, len(names) + 1),
        "name_bytes": np.frombuffer(content, np.uint8) if content else np.empty(0, np.uint8),
    }
    _write_tensors(directory / TABLE_FILE, tensors)


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
    for block in _blocks(vectors):
        total += block.sum(axis=0, dtype=np.float64)
    return (total / len(vectors)).astype(np.float32)


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(array), BLOCK_ROWS):
        yield array[start : start + BLOCK_ROWS]


# safetensors' own reader copies each tensor into memory and its writer wants them all there at once; the format is
# simple enough (length, JSON header, raw little-endian data) to map and to stream. Its library reads these files.
_CODES = {"F32": "<f4", "U64": "<u8", "I64": "<i8", "U8": "u1"}
_DTYPES: dict[str, np.dtype[Any]] = {code: np.dtype(name) for code, name in _CODES.items()}


def _write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    codes = {dtype: code for code, dtype in _DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": FORMAT}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": codes[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            for block in _blocks(tensor):
                file.write(np.ascontiguousarray(block).tobytes())


def _map_tensors(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"{path}: not found; run `dvc repro embeddings` first, which writes it")
    with path.open("rb") as file:
        header = _read_header(path, file)
        base = file.tell()
    size = path.stat().st_size - base
    tensors: dict[str, np.ndarray] = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        if end > size:
            raise UserError(f"{path}: cut short; remove it and run `dvc repro embeddings` again")
        dtype: np.dtype[Any] = _DTYPES[entry["dtype"]]
        shape = tuple(entry["shape"])
        empty = start == end  # an empty range can not be mapped
        tensors[name] = np.empty(shape, dtype) if empty else np.memmap(path, dtype, "r", base + start, shape)
    return tensors


def _read_header(path: Path, file: BinaryIO) -> dict[str, Any]:
    try:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        if header.pop("__metadata__")["format"] == FORMAT:
            return dict(header)
    except (ValueError, KeyError, OverflowError, MemoryError):
        pass
    raise UserError(f"{path}: not an embedding table of this version; remove it and run `dvc repro embeddings` again")
