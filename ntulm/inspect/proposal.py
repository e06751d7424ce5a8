"""The command and the lines of YAML that read an export as `ntulm inspect` did: to be pasted as they stand.

Names of columns may hold anything. The value of `corpus.table` is YAML in one line; characters that a terminal would
obey are written as YAML escapes, and the shell is given one quoted word (bash, zsh). Library of `ntulm inspect`.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from ntulm.corpus.config import TableMapping
from ntulm.inspect.shown import is_harmless


def command(path: str, mapping: TableMapping | None) -> str:
    """The call of `ntulm configure` that starts from the recipe `own`."""
    words = ["ntulm", "configure", "own", word(f"data={path}")]
    if mapping is not None:
        inside = ", ".join(f"{key}: {yaml(value)}" for key, value in used(mapping).items())
        words.append(word(f"corpus.table={{{inside}}}"))
    return " ".join(words)


def block(mapping: TableMapping) -> str:
    """The section of params.yaml."""
    lines = [f"    {key}: {yaml(value)}" for key, value in used(mapping).items()]
    return "\n".join(["corpus:", "  table:", *lines])


def used(mapping: TableMapping) -> dict[str, Any]:
    """The keys that say something; those that may be left out, and say nothing, are."""
    fields = TableMapping.model_fields
    return {
        key: value
        for key, value in mapping.model_dump().items()
        if fields[key].is_required() or value != fields[key].default
    }


def yaml(value: Any) -> str:
    """A value in YAML's flow style, in one line: JSON, whose escapes YAML understands."""
    written = json.dumps(value, ensure_ascii=False)
    return "".join(character if is_harmless(character) else _escaped(character) for character in written)


def _escaped(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 1 << 16 else f"\\U{ord(character):08x}"


def word(text: str) -> str:
    """The text as one word of the shell, and nothing in it that a terminal would obey."""
    if all(is_harmless(character) for character in text):
        return shlex.quote(text)
    return "$'" + "".join(_shell(character) for character in text) + "'"


def _shell(character: str) -> str:
    if character in "'\\":
        return "\\" + character
    if is_harmless(character):
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
