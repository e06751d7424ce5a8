"""What `ntulm arrivals` keeps of the posts that arrive: paths and how they are read. Library only.

vectors.parquet                 the store (`ntulm/inference/store.py`); `ntulm similar --store` searches it
posts.parquet                   INDEX: when each post was written, by whom, and which run first embedded it
labels/TASK.DATASET.parquet     what each classifier of the model says (`ntulm/production/labels.py`)
reference/VERSION/              vectors and labels of the posts that arriving ones are compared with
run.json                        what the last run did, in figures
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ntulm.inference.store import open_store

MOMENT = pa.timestamp("us", tz="UTC")
INDEX = pa.schema([("post_id", pa.string()), ("created_at", MOMENT), ("author", pa.string()), ("arrived", MOMENT)])


@dataclass(frozen=True)
class Kept:
    """A folder with a store of vectors and their labels."""

    folder: Path

    @property
    def store(self) -> Path:
        """The vectors."""
        return self.folder / "vectors.parquet"

    @property
    def posts(self) -> Path:
        """The posts that arrived, see INDEX."""
        return self.folder / "posts.parquet"

    @property
    def labels(self) -> Path:
        """A file per classifier."""
        return self.folder / "labels"

    @property
    def run(self) -> Path:
        """The figures of the last run."""
        return self.folder / "run.json"

    @property
    def references(self) -> Path:
        """A folder per version of a model."""
        return self.folder / "reference"

    def reference(self, version: str) -> Kept:
        """The posts that arriving ones are compared with, as a version sees them."""
        return Kept(self.references / version)

    def index(self) -> pa.Table:
        """The posts that arrived so far."""
        return pq.read_table(self.posts, schema=INDEX) if self.posts.is_file() else INDEX.empty_table()

    def stored(self, version: str | None = None) -> pa.Array:
        """The ids of the posts with a vector, under one version or under any."""
        if not self.store.is_file():
            return pa.array([], pa.string())
        rows = open_store(self.store).read(columns=["post_id", "model"])
        return pc.unique((rows if version is None else rows.filter(pc.equal(rows["model"], version)))["post_id"])
