"""An export as the files that it is made of, wherever they lie: what every reader is given.

Library of the sources; not a format.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ntulm.errors import UserError
from ntulm.printable import printable


@dataclass(frozen=True)
class File:
    """One file of an export. `str(file)` is its name: messages, rejects and notes use that, never the path."""

    path: Path  # where its bytes lie now
    name: str  # as a person would find it: the path or address that was given, or ARCHIVE/MEMBER
    encoding: str | None = None  # of its text, where it is neither UTF-8 nor named by a byte order mark

    @classmethod
    def of(cls, path: Path) -> File:
        """A file that lies where it was given."""
        return cls(path, str(path))

    def __str__(self) -> str:
        return printable(self.name)


@dataclass(frozen=True)
class Export:
    """The files of an export, in the order of their names, and what has to be said of how they were opened."""

    name: str  # as it was given, without passwords
    files: list[File]
    notes: list[str] = field(default_factory=list)


@contextmanager
def opened(path: str | Path, spill: Path) -> Iterator[Export]:
    """The files of a file, a folder, an archive or an address; hidden ones are left out, archives are opened.

    Args:
        path: what `corpus.path` names.
        spill: a folder that need not be there, for what has to be unpacked or fetched first. That is gone at the end.

    Raises:
        UserError: there is nothing, an archive is damaged, encrypted or too large, or an address cannot be read.
    """
    from ntulm.corpus.sources import remote

    url = remote.address(path)
    name = str(path) if url is None else remote.shown_address(url)
    notes: list[str] = []
    with _folder(spill) as folder:
        found = _local(Path(path)) if url is None else remote.fetched(url, folder)
        files = list(_data_files(found, folder, notes))
        if not files:
            raise UserError(f"{name}: nothing to read: {'; '.join(notes)}")
        yield Export(name, files, notes)


@contextmanager
def _folder(spill: Path) -> Iterator[Path]:
    """A folder in `spill` that is gone afterwards, and `spill` with it if it was not there."""
    there = spill.exists()
    spill.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="export-", dir=spill) as folder:
            yield Path(folder)
    finally:
        if not there:
            with suppress(OSError):  # somebody else's files are in it
                spill.rmdir()


def _data_files(files: Iterator[File], folder: Path, notes: list[str]) -> Iterator[File]:
    """The files, those in archives instead of the archives."""
    from ntulm.corpus.sources import archives

    inside = folder / "archives"
    inside.mkdir()
    unpacking = archives.Unpacking(inside, notes)
    private = 0
    for file in files:
        if archives.is_private(file.name):
            private += 1
        elif archives.kind(file) is None:
            yield file
        else:
            before = len(notes)
            members = list(unpacking.files(file))
            if not members and len(notes) == before:
                notes.append(f"{file}: an archive without files")
            yield from members
    if private:
        notes.append(f"not opened: {private:,} files with direct messages or deleted posts")


def _local(path: Path) -> Iterator[File]:
    if path.is_file():
        yield File.of(path)
        return
    if not path.exists():
        raise UserError(f"{path}: not found; `corpus.path` names a file or a folder of raw exports")
    found = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not found:
        raise UserError(f"{path}: the folder has no files; `corpus.path` names a file or a folder of raw exports")
    yield from (File.of(file) for file in found)
