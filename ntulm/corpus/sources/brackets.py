"""Where the objects of a JSON list begin and end, found by their quotes and brackets alone, without a parse.

Library of `documents.py`; not a format. It judges no record: it stops where something looks damaged, and leaves that to
the parser.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

QUOTE, BACKSLASH, OPENING, CLOSING = ord('"'), ord("\\"), ord("{"), ord("}")
CASE = 0x20  # the bit between `[` and `{`, `]` and `}`
Places = NDArray[np.intp]


def _table(characters: bytes) -> NDArray[np.bool_]:
    table = np.zeros(256, bool)
    table[list(characters)] = True
    return table


_BEFORE_A_STRING, _AFTER_A_STRING = _table(b" \t\r\n{[,:"), _table(b" \t\r\n,:}]")


def whole_objects(data: bytes) -> list[tuple[int, int]]:
    """Start and end of each of the objects at the beginning of `data` that are whole, one after the other.

    Args:
        data: begins with an object; what stands between two of them is white space, with or without one comma.
    """
    content = np.frombuffer(data + b" ", np.uint8)
    quotes = np.flatnonzero(content == QUOTE)
    quotes = quotes[~_escaped(content, quotes)]
    folded = content | CASE
    brackets = np.flatnonzero((folded == OPENING) | (folded == CLOSING))
    structure = brackets[np.searchsorted(quotes, brackets) % 2 == 0]  # those that stand in no string
    steps = np.where(content[structure] | CASE == OPENING, 1, -1)
    depth = np.cumsum(steps)
    starts = structure[(depth == 1) & (steps == 1)]
    ends = structure[(depth == 0) & (steps == -1)] + 1
    if (depth < 0).any():  # the end of the list that the objects stand in
        last = structure[np.argmax(depth < 0)]
        starts, ends = starts[starts < last], ends[ends <= last]
    first = _first_doubt(content, quotes[::2], quotes[1::2])
    ends = ends[ends <= first]
    starts = starts[: len(ends)]
    found: list[tuple[int, int]] = []
    before = 0
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if data[before:start].strip() not in (b"", b",") or data[start] != OPENING or data[end - 1] != CLOSING:
            break
        found.append((start, end))
        before = end
    return found


def _escaped(content: NDArray[np.uint8], quotes: Places) -> NDArray[np.bool_]:
    """Whether an odd number of backslashes stands before each quote."""
    escaped = np.zeros(len(quotes), bool)
    after = (quotes > 0) & (content[quotes - 1] == BACKSLASH)
    if after.any():
        slashes = np.flatnonzero(content == BACKSLASH)
        runs = np.concatenate([[0], np.flatnonzero(np.diff(slashes) != 1) + 1])  # indices where a run of them begins
        last = np.searchsorted(slashes, quotes[after] - 1)
        escaped[after] = (last - runs[np.searchsorted(runs, last, "right") - 1]) % 2 == 0
    return escaped


def _first_doubt(content: NDArray[np.uint8], opening: Places, closing: Places) -> int:
    """Where a string first begins or ends beside what cannot stand there: a quote is missing before it."""
    wrong = [
        opening[(opening > 0) & ~_BEFORE_A_STRING[content[opening - 1]]],
        closing[~_AFTER_A_STRING[content[closing + 1]]],
    ]
    return min((int(one[0]) for one in wrong if len(one)), default=len(content))
