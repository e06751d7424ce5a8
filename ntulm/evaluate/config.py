"""The section `evaluate` of params.yaml."""

from typing import Annotated

from pydantic import Field

from ntulm.section import Count, Positive, Section


class Evaluate(Section):
    resamples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    seed: Count
    min_posts: Positive
    overlap: Annotated[list[str], Field(min_length=1)]
