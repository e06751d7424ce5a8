"""`ntulm drift PROJECT`: do arriving posts still look to the model in production like those that it was measured on?

Compares what `ntulm arrivals` wrote: the newest arriving posts that the corpus in PROJECT does not hold, with test
posts of that corpus, both as this version of the model sees them. Evidently tests, limits in the section `arrivals`:

- the vectors, by Evidently's `EmbeddingsDrift`: a classifier learns on one half of the vectors to tell new from old,
  and the area under its ROC curve on the other half is the drift;
- the predicted labels of each classifier, by the Jensen-Shannon distance of their shares. Of several labels of a post
  the likeliest counts; no label is a label too.

Writes `data/drift/drift.json`, `drift.html` and `verdict.json`, and adds the run to the Evidently workspace
`monitoring`. Exits with 1 where something has drifted. Where there are too few posts, the verdict is `quiet`.
"""

from __future__ import annotations

import os
import shutil

os.environ.setdefault("DO_NOT_TRACK", "1")  # read when Evidently is imported

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from evidently import DataDefinition, Dataset
from evidently import Report as EvidentlyReport
from evidently.core.report import Snapshot
from evidently.metrics import EmbeddingsDrift, ValueDrift
from evidently.metrics.embeddings import ModelDriftMethod
from evidently.tests import lte

from ntulm.errors import UserError
from ntulm.files import whole_directory, write_json
from ntulm.inference.store import GROUP_ROWS, open_store
from ntulm.inference.version import version_of
from ntulm.layout import Layout
from ntulm.production.arriving import read_records
from ntulm.production.check import Rule, line, results
from ntulm.production.kept import Kept
from ntulm.production.monitoring import Line, Panel, keep
from ntulm.production.verdict import write_alone, write_verdict

if TYPE_CHECKING:
    from ntulm.params import Params
    from ntulm.production.config import Arrivals

HISTORY = "drift of arriving posts"  # the name of the project in the Evidently workspace
VECTORS = "vectors"
DISTANCE = "jensenshannon"
NO_LABEL = "(none)"
UNMARKED = str.maketrans("<>&", "‹›+")  # names of classes come from data, and the page is HTML


@dataclass(frozen=True)
class Seen:
    """N posts as a version of a model sees them."""

    vectors: np.ndarray  # float32 [N, H]
    labels: dict[str, list[str]]  # by classifier, N labels

    def __len__(self) -> int:
        return len(self.vectors)


def run(params: Params, project: Path, layout: Layout) -> None:
    """Compare, write what was found, and say it.

    Raises:
        UserError: something has drifted; the message names it with value and limit. Or there is no model in PROJECT.
    """
    shutil.rmtree(layout.drift, ignore_errors=True)  # what an earlier run found must not be taken for this one's
    champion, kept, config = Layout(project), Kept(layout.arrivals), params.arrivals
    version = version_of(champion.model)
    arriving = seen(kept, version, newest(kept, version, read_records(champion).posts, config.compared_posts))
    reference = kept.reference(version)
    past = seen(reference, version, reference.stored(version))
    if min(len(arriving), len(past)) < config.min_posts:
        reason = (
            f"{len(arriving):,} arriving posts with vectors of model {version}, {len(past):,} to compare them with; "
            f"nothing can be said below arrivals.min_posts ({config.min_posts:,})"
        )
        write_alone(layout.drift, "quiet", reason)
        print(f"drift: {reason}")
        return
    snapshot, found = examine(config, arriving, past)
    failed = [line(record) for record in found if not record["passed"]]
    with whole_directory(layout.drift) as directory:
        snapshot.save_html(str(directory / "drift.html"))
        write_json(directory / "drift.json", found)
        write_verdict(directory, "failed" if failed else "passed", "; ".join(failed) or "no drift")
    keep(snapshot, HISTORY, panels(list(arriving.labels)), layout)
    print("\n".join(line(record) for record in found))
    if failed:
        raise UserError("; ".join(failed))


def newest(kept: Kept, version: str, held: pa.Table, number: int) -> pa.Array:
    """The ids of the newest posts that have a vector and that the corpus of the model does not hold."""
    posts = kept.index()
    posts = posts.filter(pc.is_in(posts["post_id"], kept.stored(version)))
    posts = posts.filter(pc.invert(pc.is_in(posts["post_id"], held["post_id"].combine_chunks())))
    posts = posts.sort_by([("created_at", "descending"), ("post_id", "ascending")])
    return posts["post_id"].slice(0, number).combine_chunks()


def seen(kept: Kept, version: str, wanted: pa.Array) -> Seen:
    """Vectors and labels of some posts."""
    if not len(wanted):
        return Seen(np.empty((0, 0), np.float32), {})
    ids: list[str] = []
    vectors: list[np.ndarray] = []
    for batch in open_store(kept.store).iter_batches(GROUP_ROWS, columns=["post_id", "model", "vector"]):
        own = batch.filter(pc.and_(pc.equal(batch["model"], version), pc.is_in(batch["post_id"], wanted)))
        ids += own["post_id"].to_pylist()
        vectors.append(own["vector"].flatten().to_numpy().reshape(len(own), -1))
    labels = {path.stem: labels_of(path, version, ids) for path in sorted(kept.labels.glob("*.parquet"))}
    return Seen(np.concatenate([part for part in vectors if len(part)]), labels)


def labels_of(path: Path, version: str, ids: list[str]) -> list[str]:
    """What a classifier says of some posts: the likeliest label of each."""
    rows = pq.read_table(path, columns=["post_id", "model", "labels"])
    rows = rows.filter(pc.equal(rows["model"], version))
    said = dict(zip(rows["post_id"].to_pylist(), rows["labels"].to_pylist(), strict=True))
    return [next(iter(said.get(post_id, [])), NO_LABEL).translate(UNMARKED) for post_id in ids]


def examine(config: Arrivals, arriving: Seen, past: Seen) -> tuple[Snapshot, list[dict[str, Any]]]:
    """Run the tests; the Evidently report, and one record per test: name, value, reference, limit, passed."""
    names = [name for name in arriving.labels if name in past.labels]
    chosen = rules(config, names)
    report = EvidentlyReport([rule.metric for rule in chosen], include_tests=True)
    snapshot = report.run(_dataset(arriving, names), _dataset(past, names))
    return snapshot, results(snapshot, chosen)


def rules(config: Arrivals, names: list[str]) -> list[Rule]:
    """The tests with their limits."""
    most, of_labels = config.max_vector_drift, config.max_label_drift
    vectors = EmbeddingsDrift(embeddings_name=VECTORS, drift_method=ModelDriftMethod(threshold=most), tests=[lte(most)])
    return [
        Rule("drift of vectors", vectors, f"at most {most}"),
        *(
            Rule(f"drift of labels, {name}", ValueDrift(column=name, method=DISTANCE, threshold=of_labels),
                 f"below {of_labels}")
            for name in names
        ),
    ]  # fmt: skip


def panels(names: list[str]) -> list[Panel]:
    """What `evidently ui` draws over time."""
    vectors = Line("vectors", "EmbeddingsDrift", {"embeddings_name": VECTORS})
    labels = [Line(name, "ValueDrift", {"column": name}) for name in names]
    told_apart = Panel("Drift of vectors: how well new and old are told apart, 0.5 to 1", [vectors])
    return [told_apart, *([Panel("Drift of predicted labels, 0 to 0.83", labels)] if labels else [])]


def _dataset(posts: Seen, names: list[str]) -> Dataset:
    columns = [f"v{place}" for place in range(posts.vectors.shape[1])]
    frame = pd.DataFrame(posts.vectors.astype(np.float64), columns=columns)
    frame = frame.assign(**{name: posts.labels[name] for name in names})
    definition = DataDefinition(numerical_columns=columns, categorical_columns=names, embeddings={VECTORS: columns})
    return Dataset.from_pandas(frame, definition)
