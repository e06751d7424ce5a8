"""Labels of stored posts: beside a store of vectors, a Parquet file per classifier, made from the vectors alone.

A row is a post as one version of a model and one training of a classifier see it:

    post_id string
    model string                        the version of the model, as in the store
    classifier string                   the version of the classifier: another one labels the stored posts anew
    content uint64                      the fingerprint of the post, as in the store
    labels list<string>                 the likeliest first; none where no class reaches the threshold
    probabilities map<string, float>    of every class
    known bool                          whether the table knows an NTU of the post that the model looks at

The labels are those of `Model.predict` for the same posts. Library only; needs no DuckDB and no Evidently.

N posts, H values of a vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ntulm import files
from ntulm.files import whole_file
from ntulm.inference.directory import CLASSIFIERS
from ntulm.inference.model import predictions
from ntulm.inference.store import GROUP_ROWS, KEYS, Ids, digests_of_rows, open_store
from ntulm.inference.version import DIGITS

if TYPE_CHECKING:
    from ntulm.inference.model import Model

SCHEMA = pa.schema(
    [
        pa.field("post_id", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("classifier", pa.string(), nullable=False),
        pa.field("content", pa.uint64(), nullable=False),
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        pa.field("probabilities", pa.map_(pa.string(), pa.float32()), nullable=False),
        pa.field("known", pa.bool_(), nullable=False),
    ]
)
NONE = np.empty(0, "S16")


def label_store(model: Model, store: Path, version: str, folder: Path) -> dict[str, int]:
    """Label the posts of a store under a version with each classifier of the model: those that have no label yet.

    Args:
        model: its classifiers name the files of `folder`, TASK.DATASET.parquet.
        store: of vectors, as `ntulm.inference.store` writes it.
        version: of the model.
        folder: where the labels are; rows of earlier versions stay.

    Returns:
        Per classifier, how many posts were labelled now.
    """
    return {
        name: _Labelling(model, name, store, version, folder / f"{name}.parquet").run() for name in model.classifiers
    }


def classifier_version(directory: Path, name: str) -> str:
    """A hash of the two files of a classifier in a model directory, hexadecimal."""
    path = directory / CLASSIFIERS / name
    total = sha256()
    for suffix in (".json", ".safetensors"):
        total.update(files.sha256(path.with_name(path.name + suffix)).encode())
    return total.hexdigest()[:DIGITS]


class _Labelling:
    """One classifier and the file of its labels."""

    def __init__(self, model: Model, name: str, store: Path, version: str, path: Path) -> None:
        self.classifier, self.roles = model.classifiers[name], model.encoder.variant.roles
        self.mark = classifier_version(model.directory, name)
        self.store, self.version, self.path = store, version, path

    def run(self) -> int:
        """Write the file anew where something is missing in it or out of date; how many posts were labelled."""
        stored = _rows(self.store, self.version)
        there, total = self._there()
        fresh = int((~np.isin(stored, there)).sum())
        stale = total - int(np.isin(there, stored).sum())
        if fresh or stale or not self.path.is_file():
            with whole_file(self.path) as partial, pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
                for table in (*self._kept(stored), *self._added(there)):
                    writer.write_table(table)
        return fresh

    def _there(self) -> tuple[Ids, int]:
        """The posts labelled under this version by this very classifier, and the number of rows of the version."""
        if not self.path.is_file():
            return NONE, 0
        keys = pq.read_table(self.path, columns=[*KEYS, "classifier"])
        keys = keys.filter(pc.equal(keys["model"], self.version))
        return _digests(keys.filter(pc.equal(keys["classifier"], self.mark))), len(keys)

    def _kept(self, stored: Ids) -> Iterator[pa.Table]:
        """The rows of other versions, and those of this one that are up to date."""
        if not self.path.is_file():
            return
        for batch in pq.ParquetFile(self.path).iter_batches(GROUP_ROWS):
            table = pa.Table.from_batches([batch])
            own = pc.equal(table["model"], self.version).to_numpy()
            current = pc.equal(table["classifier"], self.mark).to_numpy() & np.isin(_digests(table), stored)
            yield table.filter(pa.array(~own | current))

    def _added(self, there: Ids) -> Iterator[pa.Table]:
        """The rows of the posts that have no label yet."""
        for batch in open_store(self.store).iter_batches(GROUP_ROWS):
            table = pa.Table.from_batches([batch])
            table = table.filter(pc.equal(table["model"], self.version))
            table = table.filter(pa.array(~np.isin(_digests(table), there)))
            if len(table):
                yield self._labelled(table)

    def _labelled(self, table: pa.Table) -> pa.Table:
        """Rows of a store with their labels."""
        width = table.schema.field("vector").type.list_size
        vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, width)
        known = [any(ntu.partition(":")[0] in self.roles for ntu in own) for own in table["known"].to_pylist()]
        found = predictions(self.classifier, vectors, np.array(known, bool))
        columns = [
            table["post_id"],
            table["model"],
            pa.repeat(self.mark, len(table)),
            table["content"],
            pa.array([one.labels for one in found], pa.list_(pa.string())),
            pa.array([list(one.probabilities.items()) for one in found], pa.map_(pa.string(), pa.float32())),
            pa.array(known, pa.bool_()),
        ]
        return pa.table(columns, schema=SCHEMA)


def _rows(store: Path, version: str) -> Ids:
    """The posts of a store under a version, by id and content."""
    keys = open_store(store).read(columns=KEYS)
    return _digests(keys.filter(pc.equal(keys["model"], version)))


def _digests(keys: pa.Table) -> Ids:
    return digests_of_rows(keys["post_id"].to_pylist(), keys["content"].to_numpy())
