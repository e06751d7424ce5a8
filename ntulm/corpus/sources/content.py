"""The content of a file as UTF-8, whatever it is packed with and however its text is encoded.

Library of the sources; not a format. Compression (gzip, Zstandard, bzip2, xz) is told by the first bytes, never by the
name, and taken off in bounded steps: a small file may hold terabytes. A file that is cut off, damaged or empty is a
UserError: a stage that went on would look complete.
"""

from __future__ import annotations

import bz2
import codecs
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any

import numpy as np
import zstandard

from ntulm.corpus.sources.export import File
from ntulm.errors import UserError

HEAD_BYTES = 1 << 16  # of a file, to tell what it is
READ_BYTES = 1 << 20  # of content a part
GATHERED_BYTES = 1 << 16  # smaller parts are put together
# Zstandard gives all that its input holds: 2 KB are 64 MB at most (a block of 128 KB takes four bytes).
ZSTD_PIECE, OTHER_PIECE = 1 << 11, 1 << 16
ZSTD_WINDOW = 1 << 31  # dumps are packed with --long=31
XZ_MEMORY = 1 << 28
# Posts as JSON or CSV shrink to a fifth or a twentieth, monotonous ones to a fiftieth; zeros to a thousandth and less.
MAX_EXPANSION = 200
FREE_BYTES = 1 << 26  # so much may come of any file
ENCODING_LINES = 3  # with foreign bytes, in a file without any UTF-8: it is another encoding and no damage
# Letters and signs of Western European texts in cp1252, which short texts are otherwise not told by. Those that other
# code pages have in the same places for frequent letters of their own are left out.
WESTERN = frozenset("äöüßÄÖÜéèêëÉàâçñóíáúôîûù“”‘’–—…€£«»¡¿°")
WESTERN_SHARE = 0.95
MARKS = (
    (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
)  # fmt: skip
# What posts are likely to be written in where they are not UTF-8; the first that fits well is taken.
ENCODINGS = (
    "cp1252", "cp1251", "cp1250", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "koi8_r", "cp932", "euc_jp",
    "gb18030", "big5", "cp949", "tis_620",
)  # fmt: skip


@dataclass(frozen=True)
class _Packing:
    magic: bytes
    fresh: Callable[[], Any]
    step: Callable[[Any, bytes], Iterator[bytes]]
    piece: int  # packed bytes a step


def head(file: File, size: int) -> bytes:
    """The first `size` bytes of the content of a file, as UTF-8."""
    return _first(decompressed(file), size)


def raw_head(file: File, size: int) -> bytes:
    """The first `size` bytes of the content of a file as they are; none of an empty one."""
    return _first(_readable(file), size)


def _first(parts: Iterator[bytes], size: int) -> bytes:
    start: list[bytes] = []
    missing = size
    for part in parts:
        start.append(part[:missing])
        missing -= len(start[-1])
        if not missing:
            break
    return b"".join(start)


def decompressed(file: File) -> Iterator[bytes]:
    """The content of a file in parts, as UTF-8; a UserError where it is empty, cut off or damaged."""
    parts = _readable(file)
    first = next(parts, None)
    if first is None:
        raise UserError(f"{file}: empty file; expected posts (remove it if there are none)")
    encoding = file.encoding or marked(first)
    if encoding is None:
        yield first
        yield from parts
    else:
        yield from _transcoded(first, parts, encoding)


def _readable(file: File) -> Iterator[bytes]:
    """What the file is packed with taken off; faults are a UserError with their place."""
    lines = 0
    try:
        for part in unpacked(file):
            lines += line_breaks(part)
            yield part
    except (zlib.error, zstandard.ZstdError, lzma.LZMAError, EOFError) as error:
        raise UserError(
            f"{file}:{lines + 1}: compressed file damaged or cut off here ({error}); copy it again"
        ) from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error


def unpacked(file: File) -> Iterator[bytes]:
    """The content of a file in parts that are not empty, faults as the libraries raise them."""
    with file.path.open("rb") as stream:
        start = stream.read(8)
        stream.seek(0)
        packing = next((one for one in PACKINGS if start.startswith(one.magic)), None)
        if packing is None:
            while part := stream.read(READ_BYTES):
                yield part
            return
        whole = 0
        for part in _gathered(_members(stream, packing)):
            whole += len(part)
            if whole > FREE_BYTES and whole > MAX_EXPANSION * stream.tell():
                raise UserError(
                    f"{file}: unpacks to more than {MAX_EXPANSION} times its size; expected posts. If they are, "
                    "unpack it yourself and give the unpacked file"
                )
            yield part


def _gathered(parts: Iterable[bytes]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= GATHERED_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if size:
        yield b"".join(waiting)


def _members(stream: IO[bytes], packing: _Packing) -> Iterator[bytes]:
    """A file may hold several members, one after the other."""
    decoder: Any = None
    while piece := stream.read(packing.piece):
        while piece:
            if decoder is None:
                piece = piece.lstrip(b"\0")  # tapes pad with NUL bytes
                if not piece:
                    break
                decoder = packing.fresh()
            yield from packing.step(decoder, piece)
            piece = b""
            if decoder.eof:
                piece, decoder = decoder.unused_data, None
    if decoder is not None:
        raise EOFError("end of file before the end of the data")


def _gzip_step(decoder: Any, piece: bytes) -> Iterator[bytes]:
    while True:
        content = decoder.decompress(piece, READ_BYTES)
        yield content
        piece = decoder.unconsumed_tail
        if decoder.eof or (not piece and len(content) < READ_BYTES):
            return


def _zstd_step(decoder: Any, piece: bytes) -> Iterator[bytes]:
    yield decoder.decompress(piece)


def _bounded_step(decoder: Any, piece: bytes) -> Iterator[bytes]:
    while True:
        try:
            yield decoder.decompress(piece, READ_BYTES)
        except OSError as error:  # of bzip2
            raise EOFError(str(error)) from error
        piece = b""
        if decoder.eof or decoder.needs_input:
            return


PACKINGS = (
    _Packing(b"\x1f\x8b", lambda: zlib.decompressobj(31), _gzip_step, OTHER_PIECE),
    _Packing(
        b"\x28\xb5\x2f\xfd",
        lambda: zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj(),
        _zstd_step,
        ZSTD_PIECE,
    ),
    _Packing(b"BZh", bz2.BZ2Decompressor, _bounded_step, OTHER_PIECE),
    _Packing(b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(memlimit=XZ_MEMORY), _bounded_step, OTHER_PIECE),
)


def line_breaks(part: bytes) -> int:
    """How many there are; bytes.count takes ten times as long."""
    return int(np.count_nonzero(np.frombuffer(part, np.uint8) == ord("\n")))


# Encodings


def marked(start: bytes) -> str | None:
    """The encoding that a byte order mark names, other than UTF-8."""
    return next((name for mark, name in MARKS if start.startswith(mark)), None)


def encoding_of(start: bytes) -> str | None:
    """The encoding of a text that is not UTF-8; None for UTF-8 with or without damage, and for what is no text."""
    if mark := marked(start):
        return mark
    if start.isascii() or b"\0" in start:
        return None
    text = start[: len(start) - 3].decode("utf-8", "surrogateescape")  # the last character may be cut
    foreign = sum("\udc80" <= character <= "\udcff" for character in text if character >= "\x80")
    own = sum(character >= "\x80" for character in text) - foreign
    lines = [line for line in text.split("\n") if not _is_plain(line)]
    if foreign <= own or len(lines) < min(ENCODING_LINES, text.count("\n")):
        return None
    telling = "\n".join(lines).encode("utf-8", "surrogateescape")
    western = [character for character in telling.decode("cp1252", "replace") if character >= "\x80"]
    if sum(character in WESTERN for character in western) >= WESTERN_SHARE * len(western):
        return "cp1252"
    from charset_normalizer import from_bytes

    guesses = (from_bytes(some, cp_isolation=list(ENCODINGS)).best() for some in (telling, start))
    best = next((guess for guess in guesses if guess is not None), None)
    if best is None:
        return None
    fitting = {best.encoding, *best.could_be_from_charset}
    return next((name for name in ENCODINGS if name in fitting), best.encoding)


def _is_plain(line: str) -> bool:
    """Whether a line has no byte that is not UTF-8."""
    return line.isascii() or not any("\udc80" <= character <= "\udcff" for character in line)


def _transcoded(first: bytes, parts: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The text as UTF-8. What cannot be decoded stays bytes that are not UTF-8: its line is a reject."""
    wide = encoding.startswith("utf")
    errors = "surrogatepass" if wide else "surrogateescape"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    for part in chain([first], parts):
        yield decoder.decode(part).encode("utf-8", errors)
    try:
        yield decoder.decode(b"", final=True).encode("utf-8", errors)
    except UnicodeDecodeError:
        yield b"\xff"
