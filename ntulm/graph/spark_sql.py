"""The graph's SQL in Spark's dialect: sqlglot translates it, this module what sqlglot cannot know (relational.py).

Library of the engine `spark`. `draw` and `keys_of_FORM` are functions of Spark under the same names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import sqlglot
from sqlglot import exp

# The last of the eight bytes is the most significant: their pairs of digits are turned around. conv() to base -10 gives
# a signed number, shiftrightunsigned() takes its bits.
DRAW = r"""CREATE OR REPLACE TEMPORARY FUNCTION draw(text STRING) RETURNS DOUBLE
    RETURN shiftrightunsigned(cast(conv(
        regexp_replace(left(md5(text), 16), '(..)(..)(..)(..)(..)(..)(..)(..)', '$8$7$6$5$4$3$2$1'), 16, -10
    ) AS BIGINT), 11) / pow(2D, 53D)"""


@dataclass(frozen=True)
class Statement:
    """A table or view that is made, or a table that is dropped."""

    name: str
    does: Literal["table", "view", "drop"]
    query: str = ""
    number: str = ""  # a column that is not in the query yet: a number for each row of the table
    ordered: bool = False  # the query has an order, and the numbers are the places in it


def statements(text: str, variables: Mapping[str, float]) -> Iterator[Statement]:
    """The statements of a text in DuckDB's dialect."""
    for one in sqlglot.parse(text, read="duckdb"):
        if one is None:  # behind the last semicolon
            continue
        table = one.find(exp.Table)
        assert table is not None, one
        if isinstance(one, exp.Drop):
            yield Statement(table.name, "drop")
        else:
            assert isinstance(one, exp.Create), one
            assert one.kind in ("TABLE", "VIEW"), one
            query = one.expression
            number, ordered = _take_number(query)
            does: Literal["table", "view"] = "table" if one.kind == "TABLE" else "view"
            yield Statement(table.name, does, _in_spark(query, variables), number, ordered)


def query(text: str, variables: Mapping[str, float]) -> str:
    """A query in DuckDB's dialect in that of Spark."""
    return _in_spark(sqlglot.parse_one(text, read="duckdb"), variables)


def _take_number(query: exp.Query) -> tuple[str, bool]:
    """Take the column with row_number() out of a query, which gets the order in its place."""
    for column in query.selects:
        window = column.find(exp.Window)
        if window is None:
            continue
        assert isinstance(window.this, exp.RowNumber), column
        assert not window.args.get("partition_by"), column
        order = window.args.get("order")
        counts_from_0 = isinstance(column.this, exp.Sub) and column.this.expression == exp.Literal.number(1)
        assert counts_from_0 if order else column.this is window, column
        column.pop()
        query.set("order", order)
        return column.alias, bool(order)
    return "", False


def _in_spark(query: exp.Expr, variables: Mapping[str, float]) -> str:
    return query.transform(_translated, variables).sql("spark", comments=False)


def _translated(node: exp.Expr, variables: Mapping[str, float]) -> exp.Expr:
    if isinstance(node, exp.ArrayDistinct):  # DuckDB's leaves out null
        return exp.func("array_compact", node)
    if isinstance(node, exp.Anonymous) and node.name.lower() == "getvariable":
        value = variables[node.expressions[0].name]
        return exp.cast(exp.Literal.string(repr(value)), "BIGINT" if isinstance(value, int) else "DOUBLE")
    return node
