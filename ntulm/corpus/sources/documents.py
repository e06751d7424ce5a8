"""JSON that is not one record per line: arrays (of arrays too), pretty-printed objects, a list under a key of one
document (`{"orderedItems": [...]}`), and an assignment in front of them (`window.YTD.tweets.part0 = [...]`).

Library of the sources; not a format. A file is read once, in parts, and held one record at a time. A damaged record is
one reject, and reading goes on where the next one begins: `docs/decisions/0042-reading-exports.md`.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from ntulm.corpus.sources.brackets import whole_objects
from ntulm.errors import UserError

BLOCK_CHARACTERS = 1 << 22  # of records in a table
MAX_RECORD_CHARACTERS = 1 << 24  # no record is longer: a list that is not found must not fill the memory
MAX_SKIPPED = 1 << 20  # characters behind a damage in which the next record has to begin
SHORTEST = 1 << 10  # characters that show whether there is an assignment in front
MAX_LISTS = 8  # one in the other, whose elements are records; a deeper one is itself a record
MAX_DEPTH = 100  # of a cut object that is closed for the detection

_ASSIGNMENT = re.compile(r"(?:(?:var|let|const)\s+)?[A-Za-z_$][\w.$]{0,200}\s*=\s*(?=[\[{])", re.ASCII)
# Not every bracket begins an array: the first line of a table may too.
_ARRAY = re.compile(r'(?:\[\s*)+(?:\{|\]|(?:null|true|false|-?\d[\d.eE+-]*|"(?:[^"\\\n]|\\.)*+")\s*[,\]])')
_SOLID = re.compile(r"[^ \t\r\n]")
_FIRST_KEY = re.compile(r'\{\s*("(?:[^"\\]|\\.)*+")\s*:')
# An error that has no more than this behind it may be but the end of what was read.
_CUT = re.compile(r'[^{}\[\],:"]{0,16}\Z')
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[{}\[\],]', re.DOTALL)
# A line break in a string is for the reader of the record to judge. Python refuses long numbers: those stay text.
_DECODER = json.JSONDecoder(strict=False)
_DECODER_OF_LONG_NUMBERS = json.JSONDecoder(strict=False, parse_int=str)

Record = tuple[str | None, str | None]  # content, reject: one of the two


class _DamagedError(Exception):
    """No value could be read; the offset where it went wrong, and why."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


def is_document(start: bytes, items: tuple[str, ...] = ()) -> bool:
    """Whether the records of a file that starts so are not one per line."""
    text = _text(start)
    if _ASSIGNMENT.match(text) or _ARRAY.match(text):
        return True
    if text[:1] != "{":
        return False
    end = text.find("\n")
    second = _SOLID.search(text, end) if end >= 0 else None
    try:
        value, stop = json.JSONDecoder(parse_int=str).raw_decode(text)
    except json.JSONDecodeError as error:
        if second is None:
            return _is_cut(error, text)
        return error.pos > second.start() and not _is_object(text[second.start() :].split("\n", 1)[0])
    except (RecursionError, ValueError):
        return False
    rest = _SOLID.search(text, stop)
    if "\n" in text[:stop] or any(isinstance(value.get(key), list) for key in items):
        return True
    return rest is not None and (end < 0 or rest.start() < end) and rest.group() in "{,"


def objects(start: bytes, most: int) -> list[dict[str, Any]]:
    """The first JSON objects of a file, whatever its shape; the only one if it is cut, as far as it goes.

    Of a document whose records stand in a list that is the document, with the list as far as it goes.
    """
    text = _text(start)
    if not is_document(start):
        found = [value for line in text.split("\n")[:most] if (value := _parsed(line)) is not None]
        return found or _repaired(text)
    match = _ASSIGNMENT.match(text)
    at = match.end() if match else 0
    found = []
    while len(found) < most and (solid := _SOLID.search(text, at)):
        at = solid.start()
        if text[at] in ",;[]":
            at += 1
            continue
        try:
            value, at = json.JSONDecoder(strict=False).raw_decode(text, at)
        except (ValueError, RecursionError):
            return found or _repaired(text[at:])
        if isinstance(value, dict):
            found.append(value)
    return found


def document_tables(parts: Iterable[bytes], name: str, items: tuple[str, ...] = ()) -> Iterator[pa.Table]:
    """The records of a JSON document: `line` (the record's number), `content` and `reject`, one of the two null.

    Args:
        parts: the content of the file, UTF-8.
        name: of the file, for messages.
        items: keys of a document whose lists hold the records. A document without any of them is one record.

    Raises:
        UserError: a record is too long, or after a damage no further one is found.
    """
    records: list[Record] = []
    first, size = 1, 0
    for content, reject in _Document(parts, name, items).records():
        if content is not None and (fault := _fault(content)):
            content, reject = None, fault
        records.append((content, reject))
        size += len(content or "")
        if size >= BLOCK_CHARACTERS:
            yield _table(records, first)
            first, size, records = first + len(records), 0, []
    if records:
        yield _table(records, first)


def _table(records: list[Record], first: int) -> pa.Table:
    content, reject = zip(*records, strict=True)
    numbers = pa.array(range(first, first + len(records)), pa.int64())
    return pa.table(
        [numbers, pa.array(content, pa.string()), pa.array(reject, pa.string())], ["line", "content", "reject"]
    )


def _fault(content: str) -> str | None:
    if "\0" in content:
        return "NUL byte"
    try:
        content.encode()
    except UnicodeEncodeError:
        return "not UTF-8"
    return None


class _Document:
    """The records of a document. Offsets count from `at`, so that they stay right when more is read."""

    def __init__(self, parts: Iterable[bytes], name: str, items: tuple[str, ...]) -> None:
        self.parts = iter(parts)
        self.decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.name = name
        self.items = frozenset(items)
        self.text = ""
        self.at = 0  # where what is not yet read begins
        self.ended = False
        self.gap = ""  # the white space before the last record
        self.key = ""  # the first key of the last record
        self.done = 0  # records
        self.scanned = False  # whether the text was looked through for whole objects
        self.damaged = False
        self.cut = False  # the end was reached where there should have been more

    def records(self) -> Iterator[Record]:
        """Every record, in order."""
        while len(self.text) < SHORTEST and self._more():
            pass
        self.text = self.text.removeprefix("\ufeff")
        self._pass_space()
        if match := _ASSIGNMENT.match(self.text, self.at):
            self.at = match.end()
        while character := self._pass_space():
            if character == "[":
                self.at += 1
                yield from self._list()
            elif character == "{" and self.items:
                yield from self._one()
            elif character in ",;" or (self.damaged and character in "]}"):  # what a damage has left of its list
                self.at += 1
            else:
                yield from self._element()

    def _list(self) -> Iterator[Record]:
        """The records up to the end of the list that begins before `at`, those of lists in it too."""
        depth = 1
        while depth and (character := self._pass_space()):
            if character == "[" and depth < MAX_LISTS:
                depth += 1
            elif character == "]":
                depth -= 1
            elif character != ",":
                yield from self._element()
                continue
            self.at += 1
        if depth and not self.cut:  # one reject for one damage
            self.cut = True
            yield self._counted(None, "cut off: the file ends before its list does")

    def _element(self) -> Iterator[Record]:
        """The value at `at`, or the records in its lists; of objects all that are whole in what was read."""
        if not self.scanned and self.text[self.at] == "{":
            self.scanned = True
            found = self._scanned()
            if found:
                yield from found
                return
        try:
            value, end = self._decoded(0)
        except _DamagedError as damage:
            yield self._skipped(damage)
            return
        if isinstance(value, dict) and any(isinstance(value.get(key), list) for key in self.items):
            yield from self._one()
        else:
            yield self._whole(end)

    def _scanned(self) -> list[Record]:
        """The objects from `at` on, without a parse; those that may be pages are left."""
        data = self.text[self.at :].encode("utf-8", "surrogateescape")
        pages = [key for key in (f'"{item}"'.encode() for item in self.items) if key in data]
        found: list[Record] = []
        end = 0
        for start, stop in whole_objects(data):
            content = data[start:stop]
            if any(key in content for key in pages):
                break
            found.append(self._counted(content.decode("utf-8", "surrogateescape"), None))
            end = stop
        if found and (match := _FIRST_KEY.match(found[-1][0] or "")):
            self.key = match.group(1)
        self.at += len(data[:end].decode("utf-8", "surrogateescape"))
        return found

    def _one(self) -> Iterator[Record]:
        """The object at `at`: a record, or what stands in its lists."""
        offset, found = 1, False
        try:
            while True:
                offset, character = self._solid(offset)
                if character == "}":
                    break
                if character == ",":
                    offset += 1
                    continue
                key, offset = self._key(offset)
                if key in self.items and self._character(offset) == "[":
                    found = True
                    self.at += offset + 1
                    yield from self._list()
                    if self.cut:
                        return
                    offset = 0
                    continue
                offset = self._decoded(offset)[1]
                if found:  # nothing of it is needed
                    self.at, offset = self.at + offset, 0
        except _DamagedError as damage:
            yield self._skipped(damage)
            return
        if found:
            self.at += offset + 1
        else:
            yield self._whole(offset + 1)

    def _key(self, offset: int) -> tuple[str, int]:
        """The key at an offset, and the offset of its value."""
        if self._character(offset) != '"':
            raise _DamagedError(offset, "invalid JSON")
        key, offset = self._decoded(offset)
        offset, character = self._solid(offset)
        if character != ":":
            raise _DamagedError(offset, "invalid JSON")
        return key, self._solid(offset + 1)[0]

    def _whole(self, end: int) -> Record:
        content = self.text[self.at : self.at + end]
        if match := _FIRST_KEY.match(content):
            self.key = match.group(1)
        self.at += end
        return self._counted(content, None)

    def _counted(self, content: str | None, reject: str | None) -> Record:
        self.done += 1
        return content, reject

    def _skipped(self, damage: _DamagedError) -> Record:
        """A reject for the record at `at`; goes on at the next one: an object that starts as those before it do."""
        self.damaged = True
        own = _FIRST_KEY.match(self.text, self.at)
        key = self.key or (own.group(1) if own else '"')
        # Where each record begins a line, the next one begins a line in the same column.
        start = re.escape(self.gap) + r"(?=\{)" if "\n" in self.gap else r"[^:\[\s]\s*(?=\{\s*" + re.escape(key) + ")"
        pattern = re.compile(start)
        behind = max(1, damage.offset - len(self.gap) - 2)  # the damage may be that a bracket is missing here
        while not (match := pattern.search(self.text, self.at + behind)):
            if len(self.text) - self.at - behind > MAX_SKIPPED:
                raise UserError(
                    f"{self.name}: record {self.done + 1}: {damage.reason}, and none of the next "
                    f"{MAX_SKIPPED:,} characters begins another record; copy the file again, or remove what is damaged"
                )
            if not self._more():
                self.at = len(self.text)
                self.cut = True
                return self._counted(None, damage.reason)
        self.at = match.end()
        return self._counted(None, "invalid JSON" if damage.reason.startswith("cut off") else damage.reason)

    def _decoded(self, offset: int) -> tuple[Any, int]:
        """The value at an offset, and the offset of its end."""
        while True:
            try:
                value, end = self._raw(self.at + offset)
            except RecursionError:
                raise _DamagedError(offset + 1, "nested too deep") from None
            except json.JSONDecodeError as error:
                place = error.pos - self.at
                cut = _is_cut(error, self.text)
                if not cut or not self._more():
                    reason = "cut off: the file ends inside of this record" if cut else "invalid JSON"
                    raise _DamagedError(max(place, offset + 1), reason) from None
            else:
                size = end - self.at
                if isinstance(value, dict | list) or not _CUT.match(self.text, end) or not self._more():
                    return value, size  # a number at the end of what was read may go on

    def _raw(self, place: int) -> tuple[Any, int]:
        try:
            return _DECODER.raw_decode(self.text, place)
        except json.JSONDecodeError:
            raise
        except ValueError:
            return _DECODER_OF_LONG_NUMBERS.raw_decode(self.text, place)

    def _solid(self, offset: int) -> tuple[int, str]:
        """The offset of the next character that is no white space, and that character."""
        while not (match := _SOLID.search(self.text, self.at + offset)):
            offset = len(self.text) - self.at
            if not self._more():
                raise _DamagedError(offset, "cut off: the file ends inside of this record")
        return match.start() - self.at, match.group()

    def _character(self, offset: int) -> str:
        return self.text[self.at + offset : self.at + offset + 1]

    def _pass_space(self) -> str:
        """Move to the next character that is no white space, and say which it is; none at the end."""
        start = self.at
        while not (match := _SOLID.search(self.text, self.at)):
            self.at = start = len(self.text)
            if not self._more():
                return ""
            start = self.at
        self.gap = self.text[start : match.start()]
        self.at = match.start()
        return match.group()

    def _more(self) -> bool:
        """Read as much again as is held; False at the end of the file."""
        if self.ended:
            return False
        held = [self.text[self.at :]]
        if len(held[0]) > MAX_RECORD_CHARACTERS:
            raise UserError(
                f"{self.name}: record {self.done + 1} has more than {MAX_RECORD_CHARACTERS >> 20} M characters; "
                "expected one record per line, or a list of records"
            )
        wanted, got = max(len(held[0]), 1), 0
        while got < wanted and not self.ended:
            part = next(self.parts, None)
            self.ended = part is None
            held.append(self.decoder.decode(part or b"", final=self.ended))
            got += len(held[-1])
        self.text, self.at, self.scanned = "".join(held), 0, False
        return got > 0


def _text(start: bytes) -> str:
    return start.decode("utf-8", "replace").removeprefix("\ufeff").lstrip()


def _is_cut(error: json.JSONDecodeError, text: str) -> bool:
    """Whether more text could mend the error."""
    return error.msg.startswith("Unterminated") or _CUT.match(text, error.pos) is not None


def _is_object(line: str) -> bool:
    return _parsed(line) is not None


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _repaired(text: str) -> list[dict[str, Any]]:
    """An object that is cut, closed behind the last value that is whole; none if there is no such thing."""
    if text[:1] != "{":
        return []
    closing: list[str] = []
    kept = (0, "")  # how far, and what closes it
    for match in _TOKEN.finditer(text):
        sign = match.group()
        if sign in "{[":
            closing.append("}" if sign == "{" else "]")
        elif sign in "}]" and (not closing or closing.pop() != sign):
            break
        if len(closing) > MAX_DEPTH:
            break
        if sign in "{}[],":
            kept = (match.start() if sign == "," else match.end(), "".join(reversed(closing)))
    value = _parsed(text[: kept[0]] + kept[1])
    return [] if value is None else [value]
