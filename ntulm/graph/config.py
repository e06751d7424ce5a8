"""The section `graph` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from ntulm.section import Count, Name, Positive, Section


class Relation(Section):
    """Edges from the NTUs of one role of a post to those of another role."""

    left: str
    right: str


class Graph(Section):
    engine: Literal["duckdb", "spark"]
    relations: Annotated[dict[Name, Relation], Field(min_length=1)]
    min_degree: dict[str, Positive]  # per type
    max_count: Positive
    held_out_share: Annotated[float, Field(ge=0, lt=0.5)]
    seed: Count
    memory_limit: Annotated[str, Field(pattern=r"^\d+(\.\d+)?(MB|GB)$")]
