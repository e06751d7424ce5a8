"""Paths to the values in JSON records: `author.handle` through objects, `entities.tags.name` through lists of objects.

Library of `ntulm/corpus/sources/table.py`; not a format. What a path leads to is decided record by record: a key that a
record lacks is null there, and a list of objects may stand anywhere on the way. A key that holds dots is one step where
it is a key of the record itself. An object is never taken for text.
"""

# ruff: noqa: S608 - what stands in the queries are names of ours; what users and posts bring are parameters

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

MAX_DEPTH = 6  # of the objects and lists in a record whose paths are listed
Connection = duckdb.DuckDBPyConnection

# A JSON value is kept as its text: `"a"`, `17`, `null`, `{…}`, `[…]`, without blanks between.
MACROS = r"""
CREATE MACRO scalar(value) AS json_extract_string(value, '$');
CREATE MACRO members(list) AS json_extract(list, '$[*]')::VARCHAR[];
CREATE MACRO is_nested(value) AS starts_with(value, '{') OR starts_with(value, '[');
CREATE MACRO one_item(value) AS CASE WHEN value IS NOT NULL THEN [value] END;
-- One step further from each value: into an object, or into every object of a list.
CREATE MACRO step(found, pointer, inner_path) AS flatten(list_transform(found, lambda one: CASE
    WHEN starts_with(one, '[') THEN json_extract(one, inner_path)::VARCHAR[]
    ELSE [json_extract(one, pointer)::VARCHAR] END));
-- Lists that lie in a list are opened; what is missing or null is left out.
CREATE MACRO leaves(found) AS list_filter(flatten(list_transform(found, lambda one: CASE
    WHEN starts_with(one, '[') THEN members(one) ELSE [one] END)), lambda one: one IS NOT NULL AND one <> 'null');
-- `leaf`: what a path leads to where that is one value; `inner`: where it is a list or lies in one.
CREATE MACRO only_value(leaf, found) AS CASE
    WHEN found IS NULL THEN CASE WHEN NOT starts_with(leaf, '{') THEN scalar(leaf) END
    WHEN len(found) = 1 AND NOT is_nested(found[1]) THEN scalar(found[1])
END;
CREATE MACRO is_several(leaf, found) AS
    coalesce(starts_with(leaf, '{') OR len(found) > 1 OR is_nested(found[1]), false);
CREATE MACRO values_of(found) AS CASE
    WHEN len(list_filter(found, lambda one: NOT is_nested(one))) > 0 OR len(found) = 0
    THEN list_transform(list_filter(found, lambda one: NOT is_nested(one)), lambda one: scalar(one))
END;
CREATE MACRO has_objects(leaf, found) AS
    coalesce(starts_with(leaf, '{') OR len(list_filter(found, lambda one: is_nested(one))) > 0, false);
"""


def paths(values: Iterable[Mapping[str, Any]]) -> list[str]:
    """The paths to the values of some records, in order of appearance; none to an object or a list of objects."""
    found: dict[str, bool] = {}  # path -> whether a value was seen there, not only a null or an empty list
    for value in values:
        for path, firm in _paths(value, MAX_DEPTH):
            found[path] = found.get(path, False) or firm
    inside = {path[:at] for path in found for at, character in enumerate(path) if character == "."}
    return [path for path, firm in found.items() if firm or path not in inside]


def _paths(value: Mapping[str, Any], depth: int) -> Iterator[tuple[str, bool]]:
    for key, inner in value.items():
        objects = [inner] if isinstance(inner, dict) else _objects(inner)
        if depth > 1:
            for one in objects:
                yield from ((f"{key}.{path}", firm) for path, firm in _paths(one, depth - 1))
        if not objects:
            yield key, inner is not None and inner != []
        elif not any(objects):
            yield key, False


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


@dataclass
class Extraction:
    """What the paths of a mapping lead to in records, by one SQL statement; keeps count of what it has met.

    Names (`text`, `hashtags`, …) are ours and stand in the SQL; paths are the user's and are passed as parameters.
    """

    single: dict[str, str]  # name -> path, of one text each
    several: dict[str, str]  # name -> path, of lists
    faults: dict[str, str]  # name of a single -> the reason for the reject where there is no single text
    split: dict[str, str]  # name of a list -> the macro that takes a text apart
    first: tuple[str, ...] = ()  # names of which several values are no fault: the first counts
    unseen: set[str] = field(default_factory=set)  # names whose path no record had so far
    held_objects: dict[str, int] = field(default_factory=dict)  # name of a list -> records with objects in it
    taken: set[str] = field(default_factory=set)  # names of lists that something was taken from
    records: int = 0

    def __post_init__(self) -> None:
        self.unseen = {*self.single, *self.several}
        self._lock = threading.Lock()
        self._pointers: list[str] = []
        self._parameters: dict[str, Any] = {}
        self._leaf: dict[str, str] = {}  # name -> SQL
        self._inner: dict[str, str] = {}
        self._empty: dict[str, str] = {}  # … that says whether the path may exist behind a null or an empty list
        for name, path in {**self.single, **self.several}.items():
            self._plan(name, path)
        self._parameters["pointers"] = self._pointers
        self._parameters |= {f"fault_{name}": fault for name, fault in self.faults.items()}

    def _plan(self, name: str, path: str) -> None:
        steps = path.split(".")
        ends = [self._place(steps[: length + 1]) for length in range(len(steps))]
        exact = ends.pop()
        self._leaf[name] = f"found[{exact}]" if not ends else f"coalesce(found[{self._place([path])}], found[{exact}])"
        cases = [f"WHEN starts_with(leaf_{name}, '[') THEN leaves([leaf_{name}])"]
        cases += [
            f"WHEN leaf_{name} IS NULL AND found[{end}] = '[]' THEN [] "
            f"WHEN leaf_{name} IS NULL AND starts_with(found[{end}], '[') THEN "
            f"nullif(leaves({self._walk(name, end, steps, length)}), [])"
            for length, end in reversed(list(enumerate(ends, 1)))
        ]
        self._inner[name] = f"CASE {' '.join(cases)} END"
        places = ", ".join(f"found[{end}]" for end in ends)
        behind = f" OR list_has_any([{places}], ['null', '[]'])" if ends else ""
        self._empty[name] = f"{self._leaf[name]} IS NOT NULL{behind}"

    def _walk(self, name: str, start: int, steps: list[str], length: int) -> str:
        """SQL for what the steps after the first `length` lead to from a list."""
        walk = f"[found[{start}]]"
        for place in range(length, len(steps)):
            quoted = steps[place].replace("\\", "\\\\").replace('"', '\\"')
            self._parameters[f"to_{name}_{place}"] = pointer([steps[place]])
            self._parameters[f"in_{name}_{place}"] = f'$[*]."{quoted}"'
            walk = f"step({walk}, $to_{name}_{place}, $in_{name}_{place})"
        return walk

    def _place(self, steps: list[str]) -> int:
        """The place, from 1, of what a pointer leads to."""
        wanted = pointer(steps)
        if wanted not in self._pointers:
            self._pointers.append(wanted)
        return self._pointers.index(wanted) + 1

    def rows(self, connection: Connection, lines: pa.Table) -> pa.Table:
        """The values of records.

        Args:
            connection: with MACROS, and one thread, so that rows keep their order.
            lines: with `reject`, and `content` (JSON) or `nested` (structs); other columns are passed on.
        """
        connection.register("lines", lines)
        rows = connection.sql(self._statement(lines.column_names), params=self._parameters).to_arrow_table()
        self._count(connection, lines, rows)
        return rows.drop_columns([f"odd_{name}" for name in self.several])

    def _parsed(self, names: list[str]) -> str:
        content = "content" if "content" in names else "to_json(nested)::VARCHAR"  # as all names in it, ours
        return (
            "WITH parsed AS (SELECT * REPLACE (CASE WHEN reject IS NOT NULL THEN reject "
            f"WHEN found IS NULL THEN 'invalid JSON' WHEN NOT starts_with(ltrim({content}, ' \t\r\n'), '{{') "
            f"THEN 'not a post object' END AS reject) FROM (SELECT *, CASE WHEN reject IS NULL THEN "
            f"TRY(json_extract({content}, $pointers::VARCHAR[]))::VARCHAR[] END AS found FROM lines)) "
        )

    def _statement(self, names: list[str]) -> str:
        every = [*self.single, *self.several]
        leaf = ", ".join(f"{self._leaf[name]} AS leaf_{name}" for name in every)
        inner = ", ".join(f"{self._inner[name]} AS inner_{name}" for name in every)
        found = {name: f"leaf_{name}, inner_{name}" for name in every}
        found |= {name: f"leaf_{name}, inner_{name}[1:1]" for name in self.first if name in found}
        singles = [f"only_value({found[name]}) AS {name}" for name in self.single]
        faults = [f"CASE WHEN is_several({found[name]}) THEN $fault_{name} END" for name in self.single]
        lists = [
            f"CASE WHEN inner_{name} IS NOT NULL THEN values_of(inner_{name}) "
            f"WHEN NOT starts_with(leaf_{name}, '{{') THEN {self.split[name]}(scalar(leaf_{name})) END AS {name}, "
            f"has_objects(leaf_{name}, inner_{name}) AS odd_{name}"
            for name in self.several
        ]
        kept = [name for name in names if name not in ("content", "nested", "reject")]
        reject = f"coalesce({', '.join(['reject', *faults])}) AS reject"
        return (
            self._parsed(names)
            + f", placed AS (SELECT *, {leaf} FROM parsed), opened AS (SELECT *, {inner} FROM placed) "
            + f"SELECT {', '.join([*kept, reject, *singles, *lists])} FROM opened"
        )

    def _count(self, connection: Connection, lines: pa.Table, rows: pa.Table) -> None:
        met = {name for name in self.unseen if rows[name].null_count < len(rows)}
        odd = {name: pc.sum(rows[f"odd_{name}"]).as_py() or 0 for name in self.several}
        taken = {name for name in self.several if name not in self.taken and _any_item(rows[name])}
        missing = [name for name in self.unseen if name not in met]
        if missing:
            each = ", ".join(f"bool_or({self._empty[name]})" for name in missing)
            statement = self._parsed(lines.column_names) + f"SELECT {each} FROM parsed WHERE reject IS NULL"
            found = connection.execute(statement, {"pointers": self._pointers}).fetchall()[0]
            met |= {name for name, empty in zip(missing, found, strict=True) if empty}
        with self._lock:
            self.unseen -= met
            self.taken |= taken
            self.records += len(lines)
            for name, count in odd.items():
                self.held_objects[name] = self.held_objects.get(name, 0) + count


def _any_item(lists: pa.ChunkedArray) -> bool:
    return bool(pc.any(pc.greater(pc.list_value_length(lists), 0)).as_py())


def pointer(steps: list[str]) -> str:
    """The JSON pointer that goes these steps."""
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
