"""The edges of posts as SQL, made from the relations and roles of params.yaml: tables `own` and `raw_edges`.

Library of the stage `graph`. uses.sql says what an edge is and has what these queries build on. A role whose keys stand
in the posts table is read as it is; for the others a key form of `ntulm/text.py` works on the values of the field.
"""

# ruff: noqa: S608 - what stands in the queries are names of params.yaml, whose pattern allows letters, digits and _ alone

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from ntulm.ntus import LISTS

if TYPE_CHECKING:
    from ntulm.graph.config import Relation
    from ntulm.graph.relational import Relational
    from ntulm.ntus import NtuScheme


def build(database: Relational, relations: dict[str, Relation], scheme: NtuScheme) -> None:
    """Fill the tables own (posts that can have an edge, a list of keys per role) and raw_edges.

    Args:
        database: with views posts, engagements, splits.
        relations: in the order of their index `rel`.
        scheme: the roles that they join.
    """
    database.run(resources.files("ntulm.graph").joinpath("uses.sql").read_text(encoding="utf-8"))
    forms = {form for role in field_roles(relations, scheme) if (form := scheme.key_form(role))}
    with database.key_functions(sorted(forms)):
        database.run(f"CREATE TABLE own AS {own_query(relations, scheme)}")
    uses = "\nUNION ALL\n".join(uses_query(rel, relation, scheme) for rel, relation in enumerate(relations.values()))
    database.run(
        f"""CREATE TABLE raw_edges AS
        SELECT left_key, rel, right_key, count(*) AS count
        FROM (SELECT left_key, rel, unnest(right_keys) AS right_key FROM ({uses}))
        {_where(distinct_nodes(relations, scheme))}
        GROUP BY ALL"""
    )


def roles_of(relations: dict[str, Relation]) -> list[str]:
    """The roles of the relations, each once, the left one first."""
    return list(dict.fromkeys(role for relation in relations.values() for role in (relation.left, relation.right)))


def field_roles(relations: dict[str, Relation], scheme: NtuScheme) -> list[str]:
    """The roles of the relations that come from fields of a post."""
    return [role for role in roles_of(relations) if scheme.roles[role].field is not None]


def own_query(relations: dict[str, Relation], scheme: NtuScheme) -> str:
    """The keys of every role in the posts of the window that have something on both sides of a relation."""
    columns = [f"{keys_expression(role, scheme)} AS {_column(role)}" for role in field_roles(relations, scheme)]
    needed = {
        " AND ".join(f"({filled(role, scheme)})" for role in dict.fromkeys((relation.left, relation.right)))
        for relation in relations.values()
    }
    return f"SELECT {', '.join(['post_id', *columns])} FROM window_posts {_where(' OR '.join(sorted(needed)))}"


def keys_expression(role: str, scheme: NtuScheme) -> str:
    """SQL for the keys of a role in a post: a list of strings, none of them twice or null."""
    field, form = scheme.roles[role].field, scheme.key_form(role)
    values = f"coalesce({field}, [])" if field in LISTS else f"CASE WHEN {field} IS NULL THEN [] ELSE [{field}] END"
    if form is not None:
        return f"keys_of_{form}({values})"
    return f"list_distinct({values})" if field in LISTS else values


def filled(role: str, scheme: NtuScheme) -> str:
    """SQL for whether a post has a value from which keys of the role may come; engagements are not known here."""
    field = scheme.roles[role].field
    return "true" if field is None else f"array_length({field}) > 0" if field in LISTS else f"{field} IS NOT NULL"


def uses_query(rel: int, relation: Relation, scheme: NtuScheme) -> str:
    """Each NTU of the left role in each post, with those of the right role in the same post."""
    joins, keys = [], []
    for alias, role, as_list in (("lhs", relation.left, False), ("rhs", relation.right, True)):
        kind = scheme.roles[role].engagement
        if kind is None:
            keys.append(_column(role) if as_list else f"unnest({_column(role)})")
        else:
            joins.append(f"JOIN {engaged(kind)} AS {alias} USING (post_id)")
            keys.append(f"[{alias}.key]" if as_list else f"{alias}.key")
    return f"SELECT {keys[0]} AS left_key, {rel}::TINYINT AS rel, {keys[1]} AS right_keys FROM own {' '.join(joins)}"


def engaged(kind: str) -> str:
    """SQL for who engaged with which post in one way: a table of post_id and key, each pair once."""
    return f"""(SELECT DISTINCT post_id, "user" AS key FROM timely_engagements WHERE kind = '{kind}')"""


def distinct_nodes(relations: dict[str, Relation], scheme: NtuScheme) -> str:
    """SQL for what an edge between two NTUs of one type has to be; empty where no relation has such edges."""
    conditions = []
    for rel, relation in enumerate(relations.values()):
        if relation.left == relation.right:
            conditions.append(f"(rel <> {rel} OR left_key < right_key)")
        elif scheme.roles[relation.left].type == scheme.roles[relation.right].type:
            conditions.append(f"(rel <> {rel} OR left_key <> right_key)")
    return " AND ".join(conditions)


def count_roles(database: Relational, relations: dict[str, Relation], scheme: NtuScheme) -> dict[str, int]:
    """For each role of the relations, the posts of the window in which some NTU may play it."""
    counts = {}
    for role in roles_of(relations):
        kind = scheme.roles[role].engagement
        source = f"window_posts WHERE {filled(role, scheme)}"
        if kind is not None:
            source = f"window_posts WHERE post_id IN (SELECT post_id FROM {engaged(kind)})"
        ((counts[role],),) = database.rows(f"SELECT count(*) FROM {source}")
    return counts


def _column(role: str) -> str:
    return f'"ntu {role}"'


def _where(condition: str) -> str:
    return f"WHERE {condition}" if condition else ""
