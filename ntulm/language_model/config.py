"""The sections `batches`, `adapt`, `pretrain` and `encode` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from ntulm.section import Count, Positive, Rate, Section, Share


class Batches(Section):
    max_length: Annotated[int, Field(ge=4)]
    mask_urls: bool
    mask_mentions: bool


class Training(Section):
    """What the two fine-tuning stages share."""

    max_posts: Count
    max_validation_posts: Positive
    epochs: Positive
    patience: Positive
    evaluations_per_epoch: Positive
    batch_size: Positive
    learning_rate: Rate
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_share: Share
    mask_share: Annotated[float, Field(gt=0, lt=1)]


class Adapt(Training):
    backbone: str
    seed: Count


class Slot(Section):
    """How slots start, learn and count."""

    layer_norm: bool
    scale: Rate
    learning_rate_factor: Rate
    weight: Annotated[float, Field(ge=0, lt=1)] | None
    unknown: Literal["mean", "left_out"]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    hidden_posts: Annotated[float, Field(ge=0, lt=1)]
    hide_masked: bool


class Pretrain(Training):
    max_test_posts: Positive
    slot: Slot


class Encode(Section):
    batch_size: Positive
    dtype: Literal["float16", "float32"]
    hidden_share: Annotated[float, Field(ge=0, lt=1)]
    apart: bool
    post_concat: str
