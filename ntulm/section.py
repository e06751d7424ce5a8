"""The base of every section of params.yaml, and the types of values that sections share.

A section is frozen and strict: unknown keys, wrong types and missing keys are errors. No section carries a default: a
default here would be invisible to DVC. What a key means stands as a comment beside it in `ntulm/recipes/*.yaml`.
"""

from datetime import date, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]

Positive = Annotated[int, Field(gt=0)]

Count = Annotated[int, Field(ge=0)]

Rate = Annotated[float, Field(gt=0)]


def _date_as_text(value: Any) -> Any:
    """YAML makes a date of 2016-10-01 without quotes."""
    return value.isoformat() if type(value) is date else value


def _in_the_calendar(value: str) -> str:
    try:
        datetime.fromisoformat(value)
    except ValueError as error:
        raise ValueError(f"no such date: {error}") from error
    return value


Cut = Annotated[
    Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}Z)?$"), AfterValidator(_in_the_calendar)]
    | Share,
    BeforeValidator(_date_as_text),
]


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]  # of types, roles and relations


class Section(BaseModel):
    """A part of params.yaml: frozen, strict, without defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _ordered(ends: list[float]) -> list[float]:
    if ends[0] > ends[1]:
        raise ValueError(f"the low end {ends[0]} is above the high end {ends[1]}")
    return ends


Range = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ordered)]

RateRange = Annotated[list[Rate], Field(min_length=2, max_length=2), AfterValidator(_ordered)]  # drawn in log space

DropoutRange = Annotated[
    list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2), AfterValidator(_ordered)
]
