"""What can be shown in a terminal: posts, keys and file names are hostile input. Standard library only."""

import json
from typing import Any


def printable(text: str) -> str:
    r"""A text in which nothing moves the cursor, changes colours, turns the reading direction or starts a line.

    Such characters are written out, as `\x1b`.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def json_line(value: Any) -> str:
    """JSON in one line, readable where its characters are, escaped where they would act on a terminal."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)
