"""LABELS of `ntulm train-classifier`: a table of texts, authors and one label each. Rows without one are named."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ntulm.errors import UserError
from ntulm.inference.directory import Settings
from ntulm.inference.incoming import Faults, posts_of
from ntulm.inference.rows import USUAL, Fault, Part, columns_of, fields_in, files_of, read_rows
from ntulm.posts import Posts
from ntulm.printable import printable

MANY = 8  # classes that a message names


@dataclass(frozen=True)
class Labelled:
    """N posts with one label each."""

    posts: Posts
    labels: list[str]
    faults: Faults

    @property
    def classes(self) -> list[str]:
        """The C classes, in the order of their names."""
        return sorted(set(self.labels))

    def check(self, least: int) -> None:
        """Refuse labels that nothing can be learnt from.

        Raises:
            UserError: fewer than two classes, or a class of fewer than `least` rows.
        """
        sizes = Counter(self.labels)
        if len(sizes) < 2:
            only = f" ({next(iter(sizes))!r})" if sizes else ""
            raise UserError(f"{len(self.labels)} labelled rows of {len(sizes)} class(es){only}; expected at least two")
        few = sorted((count, name) for name, count in sizes.items() if count < least)
        if few:
            named = ", ".join(f"{name!r} has {count}" for count, name in few[:MANY])
            more = f" and {len(few) - MANY} more classes have too few" if len(few) > MANY else ""
            raise UserError(
                f"a class needs at least {least} rows: {named}{more}; label more of them, or leave the class out"
            )


def read_labels(source: Path, given: dict[str, str | None], settings: Settings) -> Labelled:
    """The labelled posts of a file, read as the model reads posts.

    Args:
        source: CSV, JSON lines or Parquet.
        given: field (`text`, `author`, `label`) -> column, None where it is to be guessed.
        settings: of the model.

    Raises:
        UserError: no such file or column.
    """
    fields = label_fields(source, given)
    faults, labels, tables = Faults(), [], []
    for part in read_rows(source, fields):
        values = [row.pop("label", None) for row in part.rows]
        names = [label_of(value) for value in values]
        rows = [place for place, name in enumerate(names) if name is not None]
        faults.add([Fault(where, "no label") for where, name in zip(part.places, names, strict=True) if name is None])
        kept = Part([part.rows[place] for place in rows], [part.places[place] for place in rows], part.faults)
        read = posts_of(kept, settings)
        faults.add(read.faults)
        labels += [str(names[rows[place]]) for place in read.kept]
        tables.append(read.posts.table)
    return Labelled(Posts(pa.concat_tables(tables)), labels, faults)


def label_fields(source: Path, given: dict[str, str | None]) -> dict[str, str]:
    """Field -> column, and a line that says so."""
    columns = columns_of(files_of(source)[0])
    for option, column in given.items():
        if column is not None and column not in columns:
            raise UserError(f"--{option} {column}: no such column; {source} has {', '.join(columns)}")
    fields = fields_in(columns, [*USUAL]) | {name: column for name, column in given.items() if column is not None}
    for name in ("text", "label"):
        if name not in fields:
            raise UserError(f"{source}: which column has the {name}s? --{name} COLUMN; it has {', '.join(columns)}")
    shown = ", ".join(f"{name}: {column}" for name, column in fields.items())
    unused = [column for column in columns if column not in fields.values()]
    more = f"; not used: {', '.join(unused)}" if unused else ""
    missing = "" if "author" in fields else "; no column of authors (--author COLUMN)"
    print(printable(f"{source}: {shown}{more}{missing}"), file=sys.stderr)
    return fields


def label_of(value: Any) -> str | None:
    """A label as a name: a number without a fraction is written without one; None where there is none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and (value != value or value.is_integer()):
        value = None if value != value else int(value)
    if not isinstance(value, str | int | float):
        return None
    name = printable(str(value).strip())
    return name or None
