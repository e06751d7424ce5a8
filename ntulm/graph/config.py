"""The section `graph` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from ntulm.section import Count, Positive, Section


class MinDegree(Section):
    user: Positive
    hashtag: Positive


class Graph(Section):
    relations: Annotated[list[Literal["authored", "favorited", "reposted", "co_mentioned"]], Field(min_length=1)]
    min_degree: MinDegree
    max_count: Positive
    held_out_share: Annotated[float, Field(ge=0, lt=0.5)]
    seed: Count
    memory_limit: Annotated[str, Field(pattern=r"^\d+(\.\d+)?(MB|GB)$")]
