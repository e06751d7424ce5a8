"""The settings of `ntulm train-classifier`: `classifier.yaml` beside this file, or a file of the user's."""

from typing import Annotated

from pydantic import Field

from ntulm.probe.config import Probe
from ntulm.section import Count, Positive, Section, Share


class TrainClassifier(Section):
    folds: Annotated[int, Field(ge=2)]
    validation_share: Annotated[float, Field(gt=0, le=0.5)]
    least_posts: Annotated[int, Field(ge=4)]
    hidden_share: Share
    apart: bool
    resamples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    min_posts: Positive
    seed: Count
    probe: Probe
