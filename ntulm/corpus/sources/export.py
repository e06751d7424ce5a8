"""An export as the files that it is made of, wherever they lie: what every reader is given.

Library of the sources; not a format.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ntulm.errors import UserError


@dataclass(frozen=True)
class File:
    """One file of an export. `str(file)` is its name: messages, rejects and notes use that, never the path."""

    path: Path  # where its bytes lie now
    name: str  # as a person would find it: the path that was given, or ARCHIVE/MEMBER

    @classmethod
    def of(cls, path: Path) -> File:
        """A file that lies where it was given."""
        return cls(path, str(path))

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Export:
    """The files of an export, in the order of their names, and what has to be said of how they were opened."""

    name: str  # as it was given
    files: list[File]
    notes: list[str] = field(default_factory=list)


@contextmanager
def opened(path: str | Path, spill: Path) -> Iterator[Export]:
    """The files of a file or folder; hidden ones are left out.

    Args:
        path: what `corpus.path` names.
        spill: a folder that need not be there, for what has to be unpacked or fetched first.

    Raises:
        UserError: there is no such file or folder, or it has no files.
    """
    del spill
    yield Export(str(path), [File.of(file) for file in _files(Path(path))])


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.exists():
        raise UserError(f"{path}: not found; `corpus.path` names a file or a folder of raw exports")
    files = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not files:
        raise UserError(f"{path}: the folder has no files; `corpus.path` names a file or a folder of raw exports")
    return files
