"""The graph that an export would give, and what it would know of later posts, by the settings of the recipe `own`.

Uses the SQL of the stages corpus and graph on the database of an export that was read; writes nothing. Library of
`ntulm inspect`.
"""

# ruff: noqa: S608 - what stands in the queries are queries of our own and names of a shipped recipe

from __future__ import annotations

from dataclasses import dataclass

from ruamel.yaml import YAML

from ntulm.configure import configured
from ntulm.corpus.records import Connection, row
from ntulm.corpus.stage import PARTS, TABLES, assign_splits
from ntulm.graph import uses
from ntulm.graph.duckdb_engine import DuckDb
from ntulm.graph.stage import number_nodes, shape_of, summarise
from ntulm.params import Params, check_params

RECIPE = "own"


@dataclass(frozen=True)
class Preview:
    """Counts of the graph, and of the test posts."""

    nodes: dict[str, int]  # per type
    relations: dict[str, int]  # distinct edges
    dropped: dict[str, int]  # nodes per type, and `edges`, that graph.min_degree leaves out
    parts: dict[str, int]  # posts of train, validation and test
    known: int  # test posts with an NTU that the graph knows
    roles: tuple[str, ...]  # whose NTUs count for that


def settings() -> Params:
    """The recipe `own`."""
    return check_params(YAML(typ="safe", pure=True).load(configured(RECIPE, ["data=."])), f"recipe {RECIPE}")


def preview(connection: Connection, params: Params) -> Preview:
    """What the stages corpus and graph would make of the posts and engagements in a database.

    Args:
        connection: as `read_export` gives it; it is of no other use afterwards.
        params: whose sections `corpus.splits`, `graph`, `ntus` and `evaluate` count.
    """
    assign_splits(connection, params.corpus.splits)
    for name in ("posts", "engagements", "splits"):
        connection.execute(f"CREATE VIEW {name} AS {TABLES[name][0].partition(' ORDER BY ')[0]}")
    scheme, shape = params.ntus.scheme, shape_of(params.graph, params.ntus.scheme)
    database = DuckDb(connection)
    uses.build(database, {name: params.graph.relations[name] for name in shape.relations}, scheme)
    number_nodes(database, params.graph, shape)
    found = summarise(database, shape)
    parts = dict(connection.execute("SELECT split, count(*) FROM splits GROUP BY split").fetchall())
    roles = tuple(params.evaluate.overlap)
    return Preview(
        found["nodes"],
        {name: relation["distinct"] for name, relation in found["relations"].items()},
        found["dropped_by_degree"],
        {part: parts.get(part, 0) for part in PARTS},
        _known(connection, params, roles),
        roles,
    )


def _known(connection: Connection, params: Params, roles: tuple[str, ...]) -> int:
    """Test posts of which a node of the graph plays one of the roles."""
    scheme, types = params.ntus.scheme, shape_of(params.graph, params.ntus.scheme).types
    keys = [
        f"SELECT post_id, {types.index(scheme.roles[role].type)} AS type, "
        f"unnest({uses.keys_expression(role, scheme)}) AS key FROM posts"
        for role in roles
        if scheme.roles[role].type in types
    ]
    query = f"""SELECT count(DISTINCT post_id) FROM ({" UNION ALL ".join(keys)})
        SEMI JOIN nodes USING (type, key) SEMI JOIN (FROM splits WHERE split = 'test') USING (post_id)"""
    return int(row(connection, query)[0]) if keys else 0
