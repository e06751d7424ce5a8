"""CSV as records: the delimiter, the header, and rows that one open quote cannot swallow.

Library of `ntulm/corpus/sources/table.py`; not a format. A quote that is not closed makes one record of all the rows up
to the next quote, and often a valid one. A record is therefore given up, and its first line is a reject, where it is
malformed, has another number of columns over several lines, or is longer than a post can be; reading goes on with the
next line. Where it is a valid record of lines that are records by themselves, either reading may be meant: each of its
lines is a reject, so that nothing is lost without a count, and nobody's text becomes somebody's post.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.lines import ahead, blocks
from ntulm.errors import UserError

DELIMITERS = ",\t;|"
MAX_RECORD_LINES = 500  # of one record: a text of more lines is none that a person wrote
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*')  # Excel's first line
OPEN_QUOTE = "quote not closed"
Record = tuple[int, str | None, list[str]]  # line, reject, values


class EndlessRecordError(Exception):
    """A record does not end."""


class Lines:
    """The lines of a file, with a way back to those since the start of a record."""

    def __init__(self, blocks_of_text: Iterator[str]) -> None:
        self._blocks = blocks_of_text
        self._held: list[str] = []
        self._dropped = 0  # lines before those held
        self._at = 0  # the next one, among those held
        self._start = 0  # the first one of the record

    def begin(self) -> int:
        """A record starts here; the number of its line, from 1."""
        self._start = self._at
        return self._dropped + self._at + 1

    def back(self, lines: int) -> None:
        """To this many lines after the start of the record."""
        self._at = self._start + lines

    @property
    def taken(self) -> list[str]:
        """The lines since the start of the record."""
        return self._held[self._start : self._at]

    @property
    def count(self) -> int:
        """How many those are."""
        return self._at - self._start

    def __iter__(self) -> Iterator[str]:
        while self._at < len(self._held) or self._more():
            if self._at - self._start >= MAX_RECORD_LINES:
                raise EndlessRecordError
            self._at += 1
            yield self._held[self._at - 1]

    def _more(self) -> bool:
        block = next(self._blocks, None)
        if block is None:
            return False
        del self._held[: self._start]
        self._dropped += self._start
        self._at -= self._start
        self._start = 0
        self._held += io.StringIO(block, newline="\n")
        return True


class Table:
    """A CSV file: its header, and its records."""

    def __init__(self, file: File) -> None:
        """Raises: UserError where the header is not readable."""
        self.file = file
        self._lines = Lines(_texts(file))
        first = self._first_line()
        if separator := SEPARATOR_LINE.fullmatch(first):
            self.delimiter = separator[1]
            self._lines.begin()
        else:
            self._lines.back(0)
            self.delimiter = delimiter(first)
        self.header = self._header()

    def _first_line(self) -> str:
        """The first line that is not blank."""
        for line in self._lines:
            if text := line.strip("\r\n"):
                return text
            self._lines.begin()
        return ""

    def _header(self) -> list[str]:
        line = self._lines.begin()
        try:
            return next(self._reader(), [])
        except (csv.Error, EndlessRecordError) as error:
            raise UserError(
                f"{self.file}:{line}: the names of the columns are not readable: {_reason(error)}"
            ) from error

    def _reader(self) -> Iterator[list[str]]:
        return csv.reader(self._lines, delimiter=self.delimiter, strict=True)

    def records(self, time: int) -> Iterator[Record]:
        """The records after the header; `time` is the column of the date, by which a row is known as one."""
        width = len(self.header)
        faulty = [""] * width
        reader = self._reader()
        lines = self._lines
        while True:
            start = lines.begin()
            try:
                row = next(reader)
            except StopIteration:
                return
            except (csv.Error, EndlessRecordError) as error:
                lines.back(1)
                reader = self._reader()
                yield start, _reason(error), faulty
                continue
            if lines.count > 1:
                if len(row) != width:
                    lines.back(1)
                    reader = self._reader()
                elif self._are_records(lines.taken, row, time):
                    yield from ((start + after, OPEN_QUOTE, faulty) for after in range(lines.count))
                    continue
            if len(row) == width:
                yield start, None, row
            elif row:
                yield start, "wrong number of columns", faulty

    def _are_records(self, lines: list[str], row: list[str], time: int) -> bool:
        """Whether at least two of the lines, and half of them, are rows of the table if quotes mean nothing."""
        shape = _shape(row[time])
        if not shape:
            return False
        alone = [line.rstrip("\r\n").split(self.delimiter) for line in lines]
        alike = sum(len(one) == len(row) and _shape(one[time].strip('"')) == shape for one in alone)
        return alike >= 2 and 2 * alike >= len(lines)


def _shape(date: str) -> str:
    """What dates of one source have in common; of a bare number, how long it is."""
    if date.isdecimal():
        return "9" * len(date)
    return re.sub(r"\d+", "9", re.sub(r"[A-Za-z]+", "a", date))


def delimiter(header: str) -> str:
    """What stands most often between the names of a header."""
    bare = re.sub(r'"[^"]*"', "", header)
    return max(DELIMITERS, key=bare.count)


def _reason(error: Exception) -> str:
    said = str(error)
    if isinstance(error, EndlessRecordError):
        return f"{OPEN_QUOTE}, or a record of more than {MAX_RECORD_LINES} lines"
    if "field larger" in said:
        return f"{OPEN_QUOTE}, or a field of more than {csv.field_size_limit():,} characters"
    return OPEN_QUOTE if "end of data" in said else "invalid CSV"


def _texts(file: File) -> Iterator[str]:
    """Whole lines; bytes that are not UTF-8 are kept for the record to tell."""
    for place, block in enumerate(ahead(blocks(file))):
        text = block.decode("utf-8", "surrogateescape")
        yield text if place else text.removeprefix("\ufeff")


def readable(records: list[Record]) -> list[Record]:
    """The records, those with bytes that are no text as rejects."""
    text = "".join(value for _, _, row in records for value in row)
    if "\0" not in text and _is_utf8(text):
        return records
    return [_judged(record) for record in records]


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _judged(record: Record) -> Record:
    line, reject, row = record
    text = "".join(row)
    fault = "NUL byte" if "\0" in text else None if _is_utf8(text) else "not UTF-8"
    return record if fault is None else (line, reject or fault, [""] * len(row))
