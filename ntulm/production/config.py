"""The sections `check`, `challenge` and `arrivals` of params.yaml."""

from typing import Annotated

from pydantic import Field

from ntulm.section import Count, Positive, Rate, Section, Share


class Check(Section):
    min_posts: Positive
    min_rate: Share
    max_reject_share: Share
    min_known_share: Share
    min_hashtag_ratio: Share
    max_length_drift: Rate
    max_language_drift: Rate
    common_words: Positive


class Challenge(Section):
    tasks: Annotated[list[str], Field(min_length=1)]
    max_loss: Annotated[float, Field(ge=0)]


class Arrivals(Section):
    backlog_per_run: Count
    reference_posts: Positive
    compared_posts: Positive
    min_posts: Positive
    max_vector_drift: Share
    max_label_drift: Share
