"""The section `probe` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from ntulm.section import Count, DropoutRange, Positive, Rate, RateRange, Section


class FixedProbe(Section):
    epochs: Positive
    learning_rate: Rate
    weight_decay: Annotated[float, Field(ge=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    batch_size: Positive


class Probe(Section):
    search: bool
    trials: Positive
    trials_at_once: Positive
    startup_trials: Positive
    warmup_epochs: Count
    max_epochs: Positive
    patience: Positive
    averaged_epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    learning_rate: RateRange
    weight_decay: RateRange
    dropout: DropoutRange
    batch_size: Annotated[list[Positive], Field(min_length=1)]
    fixed: FixedProbe
    baselines: list[Literal["tfidf", "author-id", "tfidf+author-id", "tfidf+ntu", "history"]]
    baseline_strengths: Annotated[list[Rate], Field(min_length=1)]
