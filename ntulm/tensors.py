"""Tensors on disk: safetensors files that are mapped into memory or streamed to, so that they may be larger than it.

The library safetensors copies each tensor into memory, and its writer wants them all there at once. The format is
simple (length, JSON header, raw little-endian data), and that library reads what is written here. Library only; needs
numpy alone.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ntulm.resources import reserve

BLOCK_ROWS = 1 << 16  # rows copied at a time
_CODES = {"F32": "<f4", "F16": "<f2", "U64": "<u8", "I64": "<i8", "I32": "<i4", "U8": "u1"}
_DTYPES: dict[str, np.dtype[Any]] = {code: np.dtype(name) for code, name in _CODES.items()}


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a file of tensors, in blocks of rows; the same input gives the same bytes."""
    about = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    with path.open("wb") as file:
        file.write(_header(about, metadata)[0])
        for tensor in tensors.values():
            for block in blocks(tensor):
                file.write(np.ascontiguousarray(block).tobytes())


@contextmanager
def open_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype) -> Iterator[dict[str, np.ndarray]]:
    """Create a file and yield its tensors, mapped for writing.

    Raises:
        OSError, UserError: the disk has no room for them.
    """
    header, places = _header({name: (shape, dtype) for name, shape in shapes.items()}, {})
    end = max((end for _, end in places.values()), default=0)
    with path.open("wb") as file:
        file.write(header)
    reserve(path, len(header) + end)
    if end == 0:  # nothing to map
        yield {name: np.empty(shape, dtype) for name, shape in shapes.items()}
        return
    mapped = np.memmap(path, np.uint8, "r+", offset=len(header))
    yield {name: mapped[slice(*places[name])].view(dtype).reshape(shape) for name, shape in shapes.items()}
    mapped.flush()


def map_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a file, mapped for reading, and its metadata; nothing is read before it is used.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no file of tensors, cut short, or says of a tensor what cannot be.
    """
    with path.open("rb") as file:
        header = _read_header(file)
        base = file.tell()
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError("not a file of tensors")
    size = path.stat().st_size - base
    tensors: dict[str, np.ndarray] = {}
    for name, entry in header.items():
        dtype, shape, start, end = _placed(name, entry)
        if end > size:
            raise ValueError("cut short")
        empty = start == end  # an empty range cannot be mapped
        tensors[name] = np.empty(shape, dtype) if empty else np.memmap(path, dtype, "r", base + start, shape)
    return tensors, metadata


def blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """The array, BLOCK_ROWS rows at a time."""
    for start in range(0, len(array), BLOCK_ROWS):
        yield array[start : start + BLOCK_ROWS]


def _header(
    about: Mapping[str, tuple[tuple[int, ...], np.dtype]], metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The first bytes of a file of tensors of these shapes and types, and where each one's data stands after them."""
    codes = {dtype: code for code, dtype in _DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    places, end = {}, 0
    for name, (shape, dtype) in about.items():
        start, end = end, end + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        places[name] = start, end
        header[name] = {"dtype": codes[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, places


def _placed(name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """Data type, shape, start and end of a tensor, as its entry in the header says them."""
    match entry:
        case {"dtype": str(code), "shape": [*shape], "data_offsets": [int(start), int(end)]} if code in _DTYPES:
            sizes = all(type(length) is int and length >= 0 for length in shape)
            if sizes and 0 <= start <= end and end - start == math.prod(shape) * _DTYPES[code].itemsize:
                return _DTYPES[code], tuple(shape), start, end
    raise ValueError(f"tensor {name}: its type, shape and place in the file do not belong together")


def _read_header(file: BinaryIO) -> dict[str, Any]:
    try:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return dict(header)
    except (ValueError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise ValueError("not a file of tensors") from error
