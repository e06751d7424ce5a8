"""Stage `model`: all that is needed to read a new post and answer, as one directory: what is promoted and loaded.

Reads `data/pretrain/VARIANT/SEED/`, `data/embeddings/`, `data/corpus/` (how posts are read, and their languages),
`data/probe/VARIANT/SEED/` and `data/evaluate/tables.json`. Writes `data/model/`, which names no path of this machine;
`ntulm/inference/directory.py` says what is in it. Command: `ntulm model`.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from ntulm.embeddings.fold_in import FoldIn
from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.files import read_json, whole_directory
from ntulm.inference.card import Facts, card
from ntulm.inference.directory import (
    CARD,
    CLASSIFIERS,
    MODELING,
    READING,
    SENTENCE_MODULES,
    Batches,
    Settings,
)
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme
from ntulm.text import Reading
from ntulm.variants import parse_variant

if TYPE_CHECKING:
    from ntulm.embeddings.config import FoldIn as FoldInSection
    from ntulm.graph.config import Graph
    from ntulm.language_model.config import Batches as BatchesSection
    from ntulm.params import Model

LEAST_SHARE = 0.01  # of the posts, for a language to be named
LEFT_OUT = "test_losses.safetensors"  # of the language model's directory: for the stage `evaluate`
SETTINGS = ("config.json", "tokenizer_config.json")
PATHS = ("_name_or_path", "name_or_path")  # keys of transformers' files that say where something was loaded from
CLASSES = {"AutoConfig": "NtulmConfig", "AutoModel": "NtulmModel", "AutoModelForMaskedLM": "NtulmForMaskedLM"}
MODELING_CODE = '''"""For `trust_remote_code=True`; needs the package ntulm."""

from ntulm.inference.auto import NtulmConfig, NtulmForMaskedLM, NtulmModel

__all__ = ["NtulmConfig", "NtulmForMaskedLM", "NtulmModel"]
'''


def run(
    model: Model,
    batches: BatchesSection,
    scheme: NtuScheme,
    backbone: str,
    tasks: list[str],
    layout: Layout,
    *,
    fold_in: FoldIn | None = None,
) -> None:
    """Put the directory together.

    Args:
        model: which variant and seed.
        batches: how texts become tokens.
        scheme: the NTUs.
        backbone: what the language model was fine-tuned from, for the card.
        tasks: whose classifiers go with it.
        layout: where everything is.
        fold_in: how new NTUs get a row, as `folding` puts it together; None: the model cannot do that.

    Raises:
        UserError: an earlier stage has not run, or the variant is not one for new posts.
    """
    if parse_variant(model.variant, scheme.of_posts).shuffled:
        raise UserError(f"model.variant: {model.variant!r} gives posts the NTUs of others; expected another variant")
    settings = Settings(
        variant=model.variant,
        seed=model.seed,
        scheme=scheme,
        batches=Batches(batches.max_length, batches.mask_urls, batches.mask_mentions),
        source=Reading(**read_json(layout.reading)),
        fold_in=fold_in,
    )
    with whole_directory(layout.model) as directory:
        copy_language_model(layout.pretrain(model.variant, model.seed), directory)
        for path in sorted(layout.embeddings.glob("*.safetensors")):
            shutil.copyfile(path, directory / path.name)
        classifiers = copy_classifiers(model, tasks, layout, directory / CLASSIFIERS)
        settings.write(directory / READING)
        (directory / MODELING).write_text(MODELING_CODE, encoding="utf-8")
        for name, value in SENTENCE_MODULES.items():
            (directory / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        facts = Facts(
            settings=settings,
            backbone=backbone,
            corpus=read_json(layout.metrics("corpus")),
            languages=languages(layout.posts),
            ntus=ntu_counts(EmbeddingTable.load(directory)),
            tables=read_json(layout.evaluate / "tables.json"),
            classifiers=classifiers,
        )
        (directory / CARD).write_text(card(facts), encoding="utf-8")
    size = sum(path.stat().st_size for path in layout.model.rglob("*") if path.is_file())
    print(f"model: {model.variant}, seed {model.seed}: {len(classifiers)} classifiers, {size / 1e6:.0f} MB")


def folding(section: FoldInSection, graph: Graph) -> FoldIn:
    """The section `fold_in`, with what of the graph it needs: roles of the relations, and how often an edge counts."""
    relations = {name: (relation.left, relation.right) for name, relation in graph.relations.items()}
    return FoldIn(**section.model_dump(), max_count=graph.max_count, relations=relations)


def copy_language_model(source: Path, target: Path) -> None:
    """Weights, configuration and tokenizer, without where they were loaded from, and with the names of our classes."""
    if not (source / "config.json").is_file():
        raise UserError(f"{source}: no model; run `dvc repro pretrain` first, which writes it")
    module = MODELING.removesuffix(".py")
    more = {"config.json": {"auto_map": {auto: f"{module}.{name}" for auto, name in CLASSES.items()}}}
    for path in sorted(source.iterdir()):
        if path.name in SETTINGS:
            value = without_paths(json.loads(path.read_text(encoding="utf-8"))) | more.get(path.name, {})
            text = json.dumps(value, indent=2, ensure_ascii=False)  # in the order in which it was
            (target / path.name).write_text(text + "\n", encoding="utf-8")
        elif path.is_file() and path.name != LEFT_OUT:
            shutil.copyfile(path, target / path.name)


def without_paths(value: Any) -> Any:
    """A JSON value without the keys of PATHS, at whatever depth."""
    if isinstance(value, dict):
        return {key: without_paths(one) for key, one in value.items() if key not in PATHS}
    return [without_paths(one) for one in value] if isinstance(value, list) else value


def copy_classifiers(model: Model, tasks: list[str], layout: Layout, target: Path) -> list[dict[str, Any]]:
    """The variant's own classifiers as TASK.DATASET; what each is about."""
    target.mkdir()
    found = []
    for task in tasks:
        source = layout.scores(model.variant, model.seed, task) / "classifiers"
        for dataset in sorted(read_json(layout.task(task) / "datasets.json")):
            for suffix in (".safetensors", ".json"):
                path = source / f"{model.variant}.{dataset}{suffix}"
                if not path.is_file():
                    raise UserError(f"{path}: not found; run `dvc repro probe` first, which writes it")
                shutil.copyfile(path, target / f"{task}.{dataset}{suffix}")
            found.append(read_json(target / f"{task}.{dataset}.json"))
    return found


def languages(posts: Path) -> list[str]:
    """The language codes of at least LEAST_SHARE of the posts, the most frequent first."""
    if not posts.is_file():
        raise UserError(f"{posts}: not found; run `dvc repro corpus` first, which writes it")
    codes = pq.read_table(posts, columns=["lang"])["lang"].to_pylist()
    counts = Counter(sorted(code for code in codes if code))  # of equally frequent ones the first by the alphabet
    return [code for code, count in counts.most_common() if count >= LEAST_SHARE * len(codes)]


def ntu_counts(table: EmbeddingTable) -> dict[str, int]:
    """How many NTUs of each type the table knows."""
    counts: Counter[str] = Counter()
    for chunk_start in range(0, len(table.base.names), 1 << 16):
        names = table.base.names[chunk_start : chunk_start + (1 << 16)].to_pylist()
        counts.update(name.split(b"\0", 1)[0].decode() for name in names)
    return dict(sorted(counts.items()))
