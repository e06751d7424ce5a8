"""`ntulm.load`: a model directory as one object that encodes new posts and predicts their labels.

It needs torch, transformers, tokenizers, safetensors, numpy and pyarrow alone, and the network only for a model of the
Hugging Face hub. Posts are read as the corpus was, encoded as the stage `encode` does it, and scored as `probe` does
it: the same post has the same vector and the same scores in the pipeline and here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from ntulm import pseudonyms
from ntulm.device import choose_device
from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.inference import auto  # noqa: F401 (registers the classes)
from ntulm.inference.added import Added, fold_in, save
from ntulm.inference.directory import CLASSIFIERS, Settings, find
from ntulm.inference.reading import read_posts
from ntulm.language_model.backbone import load_model
from ntulm.language_model.encoder import Encoder, freeze
from ntulm.ntus import rows_of
from ntulm.onnx.network import GRAPH, load_graph
from ntulm.posts import Posts
from ntulm.probe.classifier import Classifier, load_classifier
from ntulm.variants import parse_variant

BATCH_SIZE = 64  # posts encoded at a time; changes nothing beyond rounding


class Ntu(NamedTuple):
    """A non-textual unit of a post."""

    role: str
    type: str
    key: str


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one post."""

    labels: list[str]  # the likeliest class; of several labels all from the threshold on, the likeliest first
    probabilities: dict[str, float]  # of every class
    known: bool  # whether the table knows an NTU of the post that the model looks at


@dataclass(eq=False)
class Model:
    """A loaded model directory; made by `load`. A pickle of it is the name of its directory, and loads it again.

    Only `add` changes it. Copies share what it added, and a pickle does not have it: `save` keeps it.
    """

    settings: Settings
    encoder: Encoder
    table: EmbeddingTable
    classifiers: dict[str, Classifier]  # by TASK.DATASET
    directory: Path  # that it was loaded from
    stored: EmbeddingTable = field(init=False)  # the table as it was loaded

    def __post_init__(self) -> None:
        self.stored = self.table

    def __repr__(self) -> str:
        return f"ntulm.load({str(self.directory)!r})"

    def __deepcopy__(self, memo: Any) -> Model:
        """The model itself: its weights are not held twice."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return load, (str(self.directory.absolute()), str(self.encoder.model.device))

    @property
    def tasks(self) -> list[str]:
        """What `predict` can be asked for: a task, or TASK.DATASET where a task has several data sets."""
        of_task = [classifier.about["task"] for classifier in self.classifiers.values()]
        return [
            task if of_task.count(task) == 1 else name for name, task in zip(self.classifiers, of_task, strict=True)
        ]

    def classes(self, task: str) -> list[str]:
        """The classes of a task."""
        return self._classifier(task).classes

    def kind(self, task: str) -> str:
        """Whether posts have one label of a task (`single`) or several (`multi`)."""
        return str(self._classifier(task).about["kind"])

    def read(self, posts: Any) -> Posts:
        """New posts as the model reads them (see `ntulm/inference/reading.py`); `Posts` are read already."""
        return posts if isinstance(posts, Posts) else read_posts(posts, self.settings.scheme, self.settings.source)

    def encode(self, posts: Any) -> np.ndarray:
        """The post embeddings of N posts, float32 [N, H].

        Args:
            posts: a list of texts and dicts (`text` and, where known, `author`, `hashtags`, `mentions`, `urls`,
                `places`, `cashtags`, `community`, and the users `reply_to` and `quoted`), or a pandas, polars or
                pyarrow table with such columns.

        Raises:
            UserError: a post without a text, or a field that is unknown or of a wrong type; names the post.
        """
        return self.encoder.encode(self.read(posts))

    def predict(self, posts: Any, task: str) -> list[Prediction]:
        """The labels of N posts and the probabilities of all classes.

        Args:
            posts: as in `encode`.
            task: one of `tasks`.

        Raises:
            UserError: as `encode`, or there is no such task.
        """
        read = self.read(posts)
        self.classes(task)  # no such task: said before the work
        return self.label(read, self.encoder.encode(read), task)

    def label(self, read: Posts, vectors: np.ndarray, task: str) -> list[Prediction]:
        """`predict` for posts that were read and encoded: `vectors` float32 [N, H]."""
        known = self.encoder.known(read)
        return predictions(self._classifier(task), vectors, known)

    def known(self, posts: Any) -> list[list[Ntu]]:
        """The NTUs of each of N posts that the table knows, whichever of them the variant looks at."""
        return self._ntus(posts, known=True)

    def unknown(self, posts: Any) -> list[list[Ntu]]:
        """The NTUs of each of N posts that the table does not know; beside `known`: how much it knows of a post."""
        return self._ntus(posts, known=False)

    def _ntus(self, posts: Any, known: bool) -> list[list[Ntu]]:
        read, scheme = self.read(posts), self.settings.scheme
        found: list[list[Ntu]] = [[] for _ in range(len(read))]
        rows, offsets, places = rows_of(self.table, scheme, read.ntus, list(scheme.of_posts))
        owners = np.repeat(np.arange(len(read)), np.diff(offsets))
        pairs = read.ntus.flatten().to_pylist()
        for row, owner, place in zip(rows, owners, places, strict=True):
            if (row >= 0) == known:
                role, key = pairs[place]["role"], pairs[place]["key"]
                found[owner].append(Ntu(role, scheme.roles[role].type, key))
        return found

    def add(self, posts: Any) -> Added:
        """Give new authors, hashtags … of posts a vector, from the known NTUs that they meet in these posts.

        The rows are in memory; from now on `known`, `encode` and `predict` use them, and `save` keeps them. Nothing
        else changes: trained rows stay as they are, the order of the posts does not count, and the same posts again
        change nothing. An NTU that was added earlier is solved anew where these posts alone have more edges of it than
        its row rests on; edges of earlier calls are not remembered.

        Args:
            posts: as in `encode`; copies of a post count as often as they are there.

        Returns:
            How many of each type were added, solved anew, left as they were, or had too few edges.

        Raises:
            UserError: as `encode`, or the model was made before models could do this.
        """
        return self.add_parts([self.read(posts)])

    def add_parts(self, parts: Iterable[Posts]) -> Added:
        """`add` for posts that were read, a part at a time; all of them count together."""
        table, report = fold_in(self.table, self.settings, self.directory, parts)
        self.table, self.encoder = table, replace(self.encoder, table=table)
        return report

    def save(self, directory: str | Path) -> None:
        """Write a copy of the model directory with what `add` added; another version than the one it was loaded from.

        Raises:
            UserError: there is something at `directory` already.
        """
        save(self.directory, Path(directory), self.table)

    def push_to_hub(self, name: str, private: bool = True) -> str:
        """Upload the directory to the Hugging Face hub as `owner/name`; returns the address of the commit.

        The table names known users: a repository is private unless that is given up. Raises as `hub.push` does.
        """
        from ntulm.inference.hub import push

        return push(self.directory, name, private)

    def _classifier(self, task: str) -> Classifier:
        for name, short in zip(self.classifiers, self.tasks, strict=True):
            if task in (name, short):
                return self.classifiers[name]
        raise UserError(f"task {task!r}: not in this model; it has {', '.join(self.tasks) or 'no classifier'}")


def predictions(classifier: Classifier, vectors: np.ndarray, known: np.ndarray) -> list[Prediction]:
    """What a classifier says of N posts by their vectors float32 [N, H]; `known` bool [N]: whose NTUs were known."""
    scores = classifier.scores(vectors, known)
    chosen, classes = classifier.chosen(scores, known), classifier.classes
    return [
        Prediction(
            labels=[classes[place] for place in np.argsort(-row, kind="stable") if own[place]],
            probabilities=dict(zip(classes, row.tolist(), strict=True)),
            known=bool(is_known),
        )
        for row, own, is_known in zip(scores, chosen, known, strict=True)
    ]


def load(source: str | Path, device: str | None = None) -> Model:
    """Load a model directory.

    Args:
        source: the directory; `production` or a version like `v3.0.0` that was fetched; or `hf://owner/name` on the
            Hugging Face hub (`ntulm/inference/directory.py`).
        device: a name that torch knows; None: the GPU if there is one.

    Raises:
        UserError: there is no such model, or something of it is missing or damaged.
    """
    directory = find(source)
    settings = Settings.read(directory)
    pseudonyms.of(settings.source)  # a key that is missing is told before anything is loaded
    table = EmbeddingTable.load(directory)
    network, tokenizer = _network(directory, device)
    variant = parse_variant(settings.variant, settings.scheme.of_posts)
    encoder = Encoder(network, tokenizer, table, settings.scheme, variant, cast(Any, settings.batches), BATCH_SIZE)
    paths = sorted((directory / CLASSIFIERS).glob("*.json"))
    classifiers = {path.name.removesuffix(".json"): load_classifier(path.with_suffix("")) for path in paths}
    return Model(settings, encoder, table, classifiers, directory)


def _network(directory: Path, device: str | None) -> tuple[Any, Any]:
    """What computes vectors, ready for it, and the tokenizer."""
    if (directory / GRAPH).is_file():
        if device not in (None, "cpu"):
            raise UserError(f"{directory}: an exported model runs on the CPU; expected device='cpu', not {device!r}")
        return load_graph(directory)
    network, tokenizer = load_model(directory, "model", choose_device() if device is None else torch.device(device))
    return freeze(network), tokenizer
