"""A tiny model directory and what it is made from, for the tests of `model`, `inference`, `challenge` and the README.

The task `topic` asks which side a post's author is on: only the author tells.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from ruamel.yaml import YAML

from ntulm import encode, model
from ntulm.configure import configured
from ntulm.files import write_json
from ntulm.language_model.backbone import load_backbone, save_model
from ntulm.language_model.config import Slot
from ntulm.language_model.slots import describe_slots
from ntulm.layout import Layout
from ntulm.params import Params, check_params
from ntulm.posts import Posts
from ntulm.probe import stage as probe
from ntulm.variants import parse_variant

SOURCE: dict[str, Any] = {"casefold_users": True, "mention_hosts": False, "html": False, "mentions_in_text": True}
SLOT = Slot(
    layer_norm=False,
    scale=1.0,
    learning_rate_factor=1.0,
    weight=0.3,
    unknown="mean",
    dropout=0.0,
    hidden_posts=0.0,
    hide_masked=False,
)
SETTINGS = ["run.tasks=[topic]", "challenge.tasks=[topic]", "probe.trials=2", "evaluate.resamples=200"]
CLASSES = ["left", "right"]
SECRETS = ("apple", "stone")  # of the fixture `lm_project`


def params_of(*changes: str, variant: str = "author+hashtag") -> Params:
    """The quickstart's parameters for one task and one variant beside `text`."""
    settings = [*SETTINGS, f"run.variants=[text, {variant}]", f"model.variant={variant}"]
    values = YAML(typ="safe", pure=True).load(configured("quickstart", [*settings, *changes]))
    return check_params(values, "params.yaml")


def write_corpus(layout: Layout, source: dict[str, bool] | None = None) -> None:
    """What the stage model reads of the corpus, beside what the fixture `lm_project` wrote."""
    posts = pq.read_table(layout.posts)
    pq.write_table(posts.append_column("lang", pa.array(["en"] * len(posts))), layout.posts)
    write_json(layout.reading, source or SOURCE)
    splits = {"train": 700, "validation": 100, "test": 100, "none": 0, "graph": 700}
    span = {"first": "2020-01-01T00:00:00+00:00", "last": "2020-02-01T00:00:00+00:00"}
    write_json(layout.metrics("corpus"), {"format": "synthetic", "posts": 900, "authors": 8, "splits": splits, **span})


def corpus_posts(layout: Layout, first: int, count: int) -> list[dict[str, Any]]:
    """Posts of the corpus as a user would give them, without the words that tell the side."""
    columns = ["post_id", "text", "author", "hashtags"]
    posts = pq.read_table(layout.posts, columns=columns).slice(first, count).to_pylist()
    return [post | {"text": " ".join(word for word in post["text"].split() if word not in SECRETS)} for post in posts]


def write_task(params: Params, layout: Layout, kind: str = "single") -> None:
    """The task `topic` of 600 posts of the corpus."""
    given = corpus_posts(layout, 100, 600)
    fields = {name: [post[name] for post in given] for name in given[0]}
    sides = [int((author or "").startswith("right")) for author in fields["author"]]
    labels = [[side] for side in sides] if kind == "single" else [sorted({0, side}) for side in sides]
    posts = Posts.of(
        params.ntus.scheme,
        fields,
        split=["train"] * 360 + ["validation"] * 120 + ["test"] * 120,
        labels=pa.array(labels, pa.list_(pa.int32())),
    )
    layout.task("topic").mkdir(parents=True, exist_ok=True)
    pq.write_table(posts.table, layout.task("topic") / "side.parquet")
    metrics = ["macro_f1"] if kind == "single" else ["map"]
    about = {"family": "Toy", "kind": kind, "classes": CLASSES, "metric": metrics[0], "metrics": metrics}
    write_json(layout.task("topic") / "datasets.json", {"side": about})


def write_language_model(params: Params, backbone: str, layout: Layout) -> None:
    """An untrained language model of the params' variant."""
    name, scheme = params.model.variant, params.ntus.scheme
    variant = parse_variant(name, scheme.of_posts)
    network, tokenizer, _ = load_backbone(backbone, 0, torch.device("cpu"))
    if variant.slots:
        slot = SLOT.model_copy(update={"unknown": params.pretrain.slot.unknown})
        network.add_slots(name, describe_slots(scheme, variant), 4, [1.0] * len(variant.slots), slot, seed=0)
    directory = layout.pretrain(name, 0)
    directory.mkdir(parents=True, exist_ok=True)
    save_model(network, tokenizer, directory)
    (directory / "test_losses.safetensors").write_bytes(b"for the stage evaluate")


def run_stages(params: Params, layout: Layout) -> None:
    """Encode and probe."""
    name, scheme = params.model.variant, params.ntus.scheme
    encode.run(params.encode, params.batches, scheme, name, 0, "topic", layout)
    probe.run(params.probe, name, 0, "topic", layout)


def write_tables(params: Params, layout: Layout) -> None:
    """Figures as the stage evaluate writes them."""
    about = {"system": params.model.variant, "value": 0.9, "value_low": 0.85, "value_high": 0.95, "posts": 120}
    about |= {"gain": 5.0, "low": 1.0, "high": 9.0, "verdict": "better"}
    of = {"task": "topic", "dataset": "side", "family": "Toy", "metric": "macro_f1", "main": True, "slice": "overall"}
    datasets = [of | about, of | about | {"slice": "overlap", "value": 0.99}, of | about | {"system": "text"}]
    perplexity = [about | {"tokens": "all", "value": 4.2, "value_low": 4.1, "value_high": 4.3}]
    settings = {"confidence": 0.95, "seeds": [0]}
    layout.evaluate.mkdir(parents=True, exist_ok=True)
    tables = {"settings": settings, "datasets": datasets, "perplexity": perplexity}
    write_json(layout.evaluate / "tables.json", tables)


def write_model_directory(params: Params, layout: Layout) -> None:
    """The stage model."""
    write_tables(params, layout)
    sections = (params.model, params.batches, params.ntus.scheme, params.adapt.backbone, params.run.tasks)
    model.run(*sections, layout, fold_in=model.folding(params.fold_in, params.graph))


_BUILT: dict[str, tempfile.TemporaryDirectory[str]] = {}  # snapshots of what was built in this session


def build(params: Params, backbone: str, layout: Layout, kind: str = "single") -> None:
    """All of it; the second time a copy of the first."""
    key = f"{kind} {params.model_dump_json()}"
    if key in _BUILT:
        shutil.copytree(_BUILT[key].name, layout.root, dirs_exist_ok=True)
        return
    write_corpus(layout)
    write_task(params, layout, kind)
    write_language_model(params, backbone, layout)
    run_stages(params, layout)
    write_model_directory(params, layout)
    _BUILT[key] = tempfile.TemporaryDirectory()
    for name in ("data", "metrics"):
        shutil.copytree(layout.root / name, Path(_BUILT[key].name) / name)
