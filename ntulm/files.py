"""Outputs appear whole or not at all: written beside their place, flushed to the disk, then renamed.

A stage that is killed leaves at most a `.partial-*` sibling, which the next run of the same stage removes.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ntulm.errors import UserError


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Yield a fresh directory beside `path`; on success it replaces `path`, on an exception it is removed."""
    partial = path.with_name(f".partial-{path.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for file in partial.rglob("*"):
        _to_disk(file)
    _to_disk(partial)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(partial, path)
    _to_disk(path.parent)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it replaces `path`, on an exception it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    try:
        yield partial
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _to_disk(partial)
    os.replace(partial, path)
    _to_disk(path.parent)


def _to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk: a rename that outlives a power cut must not name an empty file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as sorted, indented JSON (NaN is refused: a metric without a value is null)."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with whole_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON output of an earlier stage; a missing or damaged one is a user error that says what to run."""
    if not path.exists():
        raise UserError(f"{path}: not found; run `dvc repro` first, which writes it")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); remove it and run `dvc repro` again") from error


def sha256(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
