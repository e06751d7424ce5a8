"""The sections `embeddings` and `fold_in` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ntulm.section import Count, Positive, Rate, Section

MOST_NEGATIVES = 2048  # as many edges of a relation are kept (operators.py)


class Embeddings(Section):
    engine: Literal["pbg", "torch"]
    dimension: Positive
    epochs: Positive
    learning_rate: Rate
    batch_size: Positive
    batch_negatives: Positive
    uniform_negatives: Positive
    partitions: Positive
    workers: Positive
    ranked_edges: Positive
    seed: Count

    @model_validator(mode="after")
    def _batches_are_whole(self) -> "Embeddings":
        if self.batch_size % self.batch_negatives:
            raise ValueError(f"batch_size must be a multiple of batch_negatives ({self.batch_negatives})")
        return self


class FoldIn(Section):
    embed: Literal["never", "batch"]
    min_edges: Positive
    prior: Rate
    negatives: Annotated[int, Field(gt=0, le=MOST_NEGATIVES)]
    steps: Positive
    seed: Count
