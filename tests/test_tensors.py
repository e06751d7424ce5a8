"""Files of tensors: what is written is read by the library and by ourselves, whatever its size."""

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ntulm import tensors
from ntulm.tensors import map_tensors, open_tensors, write_tensors

SOME: dict[str, np.ndarray] = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.array([2**63], np.uint64),
    "empty": np.empty((0, 5), np.float16),
    "bytes": np.frombuffer(b"xyz", np.uint8),
}


def test_what_is_written_is_read_by_all(tmp_path, monkeypatch):
    write_tensors(tmp_path / "whole", SOME, {"format": "x"})
    monkeypatch.setattr(tensors, "BLOCK_ROWS", 2)
    write_tensors(tmp_path / "blocks", SOME, {"format": "x"})
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "blocks").read_bytes()
    found, metadata = map_tensors(tmp_path / "whole")
    assert metadata == {"format": "x"}
    library = load_file(tmp_path / "whole")
    for name, tensor in SOME.items():
        np.testing.assert_array_equal(found[name], tensor)
        np.testing.assert_array_equal(library[name], tensor)
    assert isinstance(found["a"], np.memmap)


def test_files_of_the_library_are_mapped(tmp_path):
    save_file(SOME, tmp_path / "some")
    found, metadata = map_tensors(tmp_path / "some")
    assert metadata == {}
    for name, tensor in SOME.items():
        np.testing.assert_array_equal(found[name], tensor)


@pytest.mark.parametrize("rows", [0, 3])
def test_tensors_are_filled_in_place(tmp_path, rows):
    with open_tensors(tmp_path / "file", {"a": (rows, 5), "b": (rows, 2)}, np.dtype(np.float16)) as opened:
        opened["a"][:] = 1
        opened["b"][:] = 2
    found = load_file(tmp_path / "file")
    assert found["a"].tolist() == [[1] * 5] * rows
    assert found["b"].tolist() == [[2] * 2] * rows
    assert found["a"].dtype == np.float16


def test_what_is_no_file_of_tensors_is_refused(tmp_path):
    write_tensors(tmp_path / "file", SOME, {})
    content = (tmp_path / "file").read_bytes()
    for damaged, message in ((content[:-1], "cut short"), (content[:20], "not a file"), (b"\xff" * 99, "not a file")):
        (tmp_path / "file").write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            map_tensors(tmp_path / "file")


def write_header(path, entry, metadata=None):
    header = json.dumps({"a": entry} | ({"__metadata__": metadata} if metadata is not None else {})).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "F99"},
        {"dtype": ["F32"]},
        {"shape": [4, 3]},
        {"shape": [-2, -3]},
        {"shape": [2.0, 3]},
        {"shape": 6},
        {"data_offsets": [24, 0]},
        {"data_offsets": [-8, 16]},
        {"data_offsets": [0, 12]},
        {"data_offsets": [0, 24, 48]},
        {"data_offsets": None},
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path, changes):
    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    write_header(tmp_path / "file", entry)
    assert map_tensors(tmp_path / "file")[0]["a"].shape == (2, 3)
    write_header(tmp_path / "file", entry | changes)
    with pytest.raises(ValueError, match="tensor a: its type, shape and place"):
        map_tensors(tmp_path / "file")


def test_a_header_without_objects_is_refused(tmp_path):
    entries: list[Any] = [None, 1, [], "a"]
    for entry in entries:
        write_header(tmp_path / "file", entry)
        with pytest.raises(ValueError, match="tensor a: its type, shape and place"):
            map_tensors(tmp_path / "file")
    write_header(tmp_path / "file", {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, metadata=["x"])
    with pytest.raises(ValueError, match="not a file of tensors"):
        map_tensors(tmp_path / "file")
