import math
import os
from pathlib import Path

import pytest

from ntulm.errors import UserError
from ntulm.files import read_json, whole_directory, whole_file, write_json


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), whole_directory(tmp_path / "out") as partial:
        (partial / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    for text in ("first", "second"):
        with whole_directory(tmp_path / "out") as partial:
            (partial / text).write_text(text)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["second"]


def test_what_a_killed_run_left_is_cleared_by_the_next(tmp_path):
    (tmp_path / ".partial-out").mkdir()
    (tmp_path / ".partial-out" / "stale").write_text("x")
    with whole_directory(tmp_path / "out") as partial:
        (partial / "fresh").write_text("x")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["fresh"]


def test_a_file_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": math.nan})
    with pytest.raises(RuntimeError), whole_file(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"a": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["value.json"]


def test_a_missing_output_says_what_writes_it(tmp_path):
    with pytest.raises(UserError, match="dvc repro"):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_an_output_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, kind):
    order: list[tuple[str, str]] = []
    replace, flush = os.replace, os.fsync

    def replaced(source, target):
        order.append(("rename", Path(target).name))
        replace(source, target)

    def flushed(handle):
        order.append(("flush", Path(f"/proc/self/fd/{handle}").readlink().name))
        flush(handle)

    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(os, "fsync", flushed)
    if kind == "file":
        with whole_file(tmp_path / "out") as partial:
            partial.write_text("x")
        assert order == [("flush", ".partial-out"), ("rename", "out"), ("flush", tmp_path.name)]
    else:
        with whole_directory(tmp_path / "out") as partial:
            (partial / "one").write_text("x")
        assert order == [("flush", "one"), ("flush", ".partial-out"), ("rename", "out"), ("flush", tmp_path.name)]


@pytest.mark.parametrize("content", [b"{", b"[" * 9000, b"\xff", b""])
def test_a_damaged_output_is_one_line(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: damaged .*; remove it and run `dvc repro` again"):
        read_json(path)
