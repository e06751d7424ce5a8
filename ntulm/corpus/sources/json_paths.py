"""Paths to the values in JSON records: `author.handle` through objects, `tags.name` through lists of objects.

Library of `ntulm/corpus/sources/table.py`; not a format.
"""

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa

MAX_DEPTH = 4  # of the objects in a record that are looked into
HEAD_LINES = 200  # a column that none of them has is a mistake in the mapping


def paths(start: bytes) -> list[str]:
    """The paths to values in the first lines; none to what is an object or holds objects in one of them."""
    found = list(dict.fromkeys(path for value in _values(start) for path, _ in _paths(value)))
    top = keys(start)
    inner = {path.split(".", 1)[0] for path in found if path not in top}
    return [path for path in found if path not in inner]


def lists(start: bytes) -> dict[str, str]:
    """Paths that lead through a list of objects, and the list's own path."""
    return {path: to for value in _values(start) for path, to in _paths(value) if to is not None}


def keys(start: bytes) -> set[str]:
    """The keys of the first records themselves."""
    return {key for value in _values(start) for key in value}


def _values(start: bytes) -> Iterator[dict[str, Any]]:
    for line in start.splitlines()[:HEAD_LINES]:
        try:
            value = json.loads(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield value


def _paths(value: dict[str, Any], depth: int = 0) -> Iterator[tuple[str, str | None]]:
    """Each path to a value that is no object, and the path of the list of objects on its way, if any."""
    for key, inner in value.items():
        if depth == MAX_DEPTH:
            continue
        if isinstance(inner, dict):
            yield from ((f"{key}.{path}", to and f"{key}.{to}") for path, to in _paths(inner, depth + 1))
        elif isinstance(inner, list) and any(isinstance(item, dict) for item in inner):
            objects = [item for item in inner if isinstance(item, dict)]
            yield from ((f"{key}.{name}", key) for item in objects for name in item)
        else:
            yield key, None


def pointer(path: str, top: set[str]) -> str:
    """The JSON pointer of a path; a key of the record that holds dots is one step."""
    steps = [path] if path in top else path.split(".")
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def joined(connection: duckdb.DuckDBPyConnection, values: pa.Array, key: str) -> pa.Array:
    """What the objects of each list have under a key, as `a b`; lists are JSON, or null."""
    connection.register("lists", pa.table({"value": values, "row": pa.array(range(len(values)), pa.int64())}))
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')
    query = """SELECT array_to_string(json_extract_string(value, $path), ' ') AS value FROM lists ORDER BY "row\""""
    found = connection.sql(query, params={"path": f'$[*]."{quoted}"'}).to_arrow_table()
    return found["value"].combine_chunks().cast(pa.string())
