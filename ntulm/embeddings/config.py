"""The section `embeddings` of params.yaml."""

from typing import Literal

from pydantic import model_validator

from ntulm.section import Count, Positive, Rate, Section


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
        if self.engine == "pbg" and self.partitions > 1:
            raise ValueError("partitions must be 1 with the engine pbg; `engine: torch` has them")
        return self
