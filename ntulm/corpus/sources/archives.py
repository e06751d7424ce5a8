"""Archives as folders: the data files in zip and tar (plain or packed), told by content, extracted under limits;
of a CAR file its records.

Library of the sources; not a format. An archive is hostile input: what is extracted is named by a number, so no name in
it reaches the file system; links, devices and names that lead out of it are not extracted; direct messages are not
opened. An archive may hold archives, those may not.
"""

from __future__ import annotations

import io
import lzma
import mmap
import re
import shutil
import struct
import tarfile as tar_files
import zipfile
import zlib
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO, Any

import zstandard

from ntulm.corpus.sources import car
from ntulm.corpus.sources.content import FREE_BYTES, MAX_EXPANSION, raw_head, unpacked
from ntulm.corpus.sources.export import File
from ntulm.errors import UserError

MAX_MEMBERS = 1_000_000  # with pictures: an account's archive has some ten thousand
MAX_DATA_MEMBERS = 50_000  # that are extracted: one file per day, account and kind for decades
MAX_TOTAL_BYTES = 1 << 38  # 256 GiB; the largest monthly dumps of whole platforms have less
SPARE_BYTES = 1 << 28  # of the disk that are left free
MAX_HEADER_BYTES = 1 << 20  # of a member of a tar file, which Python reads into memory
UNPACK = "unpack it yourself and give the folder"
MAX_KINDS = 8  # of files not opened that a note names
COPY_BYTES = 1 << 20
DATA_ENDINGS = frozenset(
    ["", *"js json jsonl ndjson csv tsv txt tab parquet car gz zst bz2 xz zip tar tgz".split()]  # noqa: SIM905
)
# Of the archives of X: messages are not meant for others, and deleted posts were taken back.
PRIVATE = re.compile(r"(?:direct-message|deleted-(?:tweet|note))[\w-]*\.js", re.IGNORECASE)
FAULTS = (
    zipfile.BadZipFile, tar_files.TarError, zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError,
    ValueError, struct.error, OverflowError, RuntimeError,
)  # fmt: skip
LONG_HEADERS = (
    tar_files.GNUTYPE_LONGNAME, tar_files.GNUTYPE_LONGLINK, tar_files.XHDTYPE, tar_files.XGLTYPE,
    tar_files.SOLARIS_XHDTYPE,
)  # fmt: skip
ZIP, EMPTY_ZIP, TAR, TAR_PLACE = b"PK\x03\x04", b"PK\x05\x06", b"ustar", 257


def kind(file: File) -> str | None:
    """`zip`, `car`, `tar` or None, by content."""
    start = raw_head(file, TAR_PLACE + len(TAR))
    if start.startswith((ZIP, EMPTY_ZIP)):
        return "zip"
    if car.is_car(start):
        return "car"
    return "tar" if start[TAR_PLACE:] == TAR else None


def is_private(name: str) -> bool:
    """Whether a file's name says that it holds what must not be read."""
    return PRIVATE.fullmatch(PurePosixPath(name).name) is not None


Members = Generator[tuple[str, IO[bytes]], None, None]


class Unpacking:
    """What is extracted of one export, into one folder."""

    def __init__(self, folder: Path, notes: list[str]) -> None:
        self.folder = folder
        self.notes = notes
        self.extracted = 0  # files
        self.written = 0  # bytes

    def files(self, archive: File, outer: int = MAX_TOTAL_BYTES, nested: bool = False) -> Iterator[File]:
        """The data files in an archive, in the order of their names; what is left out is noted.

        Raises:
            UserError: it is damaged, encrypted, or more than the limits of this file comes of it.
        """
        skipped: Counter[str] = Counter()
        found: list[File] = []
        opened = {"zip": self._zip, "car": self._car, "tar": self._tar}[kind(archive) or "tar"]
        limit = min(outer, self.written + self._limit(archive))
        try:
            with closing(opened(archive, skipped)) as members:
                for name, stream in members:
                    found.append(self._extracted(archive, name, stream, limit))
        except FAULTS as error:
            raise UserError(f"{archive}: damaged or cut off archive ({error}); copy it again") from error
        except OSError as error:  # a place that is none, or a disk that is full
            raise UserError(f"{archive}: damaged, or cannot be unpacked here ({error.strerror or error})") from error
        for file in sorted(found, key=lambda one: one.name):
            if kind(file) is None:
                yield file
            elif nested:
                skipped["archives in archives in archives"] += 1
            else:
                yield from self.files(file, limit, nested=True)
                file.path.unlink()
        if skipped:
            what = ", ".join(f"{count:,} {reason}" for reason, count in skipped.most_common(MAX_KINDS))
            self.notes.append(f"{archive}: not opened: {what}")

    def _limit(self, archive: File) -> int:
        """How many bytes may come of an archive."""
        return max(FREE_BYTES, MAX_EXPANSION * archive.path.stat().st_size)

    def _zip(self, archive: File, skipped: Counter[str]) -> Members:
        with archive.path.open("rb") as start:
            if start.read(2) != ZIP[:2]:
                raise UserError(f"{archive}: a zip file that is packed again; unpack it once yourself")
        with zipfile.ZipFile(archive.path) as packed:
            members = packed.infolist()
            _refuse_many(archive, len(members))
            for member in members:
                link = (member.external_attr >> 16) & 0o170000 not in (0, 0o100000)  # a file system's kind of file
                if member.is_dir() or not _wanted(member.filename, not link, skipped):
                    continue
                if member.flag_bits & 1:
                    raise UserError(f"{archive}: encrypted; unpack it yourself with its password")
                with packed.open(member) as stream:
                    yield member.filename, stream

    def _tar(self, archive: File, skipped: Counter[str]) -> Members:
        stream = io.BufferedReader(_Content(unpacked(archive)), COPY_BYTES)
        with tar_files.open(fileobj=stream, mode="r|", tarinfo=_Member) as packed:
            for number, member in enumerate(packed):
                packed.members = []  # type: ignore[attr-defined]  # else it keeps all of them
                _refuse_many(archive, number)
                regular = member.isreg() and not member.issparse()
                if member.isdir() or not _wanted(member.name, regular, skipped):
                    continue
                content = packed.extractfile(member)
                assert content is not None, member
                yield member.name, content

    def _car(self, archive: File, skipped: Counter[str]) -> Members:
        path = self.folder / "repository"
        with path.open("wb") as target:
            for part in unpacked(archive):
                self._refuse_full(archive)
                target.write(part)
        try:
            with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield "records", io.BufferedReader(_Content(car.events(content, skipped)), COPY_BYTES)
        finally:
            path.unlink()

    def _extracted(self, archive: File, name: str, stream: IO[bytes], limit: int) -> File:
        self.extracted += 1
        if self.extracted > MAX_DATA_MEMBERS:
            raise UserError(f"{archive}: more than {MAX_DATA_MEMBERS:,} data files; unpack it and give the folder")
        path = self.folder / f"{self.extracted:06}"
        with path.open("wb") as target:
            while part := stream.read(COPY_BYTES):
                self.written += len(part)
                self._refuse_much(archive, name, limit)
                target.write(part)
        return File(path, f"{archive.name}/{name}")

    def _refuse_much(self, archive: File, name: str, limit: int) -> None:
        if self.written > limit:
            much = f"{MAX_TOTAL_BYTES >> 30} GiB" if limit == MAX_TOTAL_BYTES else f"{MAX_EXPANSION} times its size"
            raise UserError(f"{archive}: unpacks to more than {much} (at {name}); if it is to be read, {UNPACK}")
        self._refuse_full(archive)

    def _refuse_full(self, archive: File) -> None:
        if shutil.disk_usage(self.folder).free < SPARE_BYTES:
            raise UserError(f"{archive}: no space left to unpack it in {self.folder}; {UNPACK}")


def _refuse_many(archive: File, members: int) -> None:
    if members > MAX_MEMBERS:
        raise UserError(f"{archive}: more than {MAX_MEMBERS:,} files; {UNPACK}")


def _wanted(name: str, regular: bool, skipped: Counter[str]) -> bool:
    """Whether a member is a data file; what is not is counted by its kind. Hidden ones are as if not there."""
    path = PurePosixPath(name.replace("\\", "/"))
    reason = None
    if any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in path.parts):
        return False
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        reason = "with a name that leads out of the archive"
    elif not regular:
        reason = "links and devices"
    elif is_private(name):
        reason = "with direct messages or deleted posts"
    elif path.suffix[1:].lower() not in DATA_ENDINGS:
        reason = f"{path.suffix[:9].lower()} files"
    if reason:
        skipped[reason] += 1
    return reason is None


class _Member(tar_files.TarInfo):
    """A member of a tar file; what Python would pass over or read into memory without a limit is a fault."""

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> Any:
        """The next member. Python takes a damaged header for the end of the archive."""
        try:
            return super().fromtarfile(tarfile)
        except tar_files.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tar_files.HeaderError as error:
            raise tar_files.ReadError(str(error) or "no end of the archive") from None

    def _proc_member(self, tarfile: Any) -> Any:
        if self.type in LONG_HEADERS and self.size > MAX_HEADER_BYTES:
            raise tar_files.ReadError("a header of more than 1 MB")
        if self.type == tar_files.GNUTYPE_SPARSE:
            raise tar_files.ReadError("sparse files")
        return super()._proc_member(tarfile)  # type: ignore[misc]


class _Content(io.RawIOBase):
    """Parts of bytes as a stream."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self.parts = parts
        self.rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        if not self.rest:
            self.rest = memoryview(next(self.parts, b""))
        size = min(len(target), len(self.rest))
        target[:size] = self.rest[:size]
        self.rest = self.rest[size:]
        return size
