"""The model card: what the model directory says of itself to people and to the Hugging Face hub.

Library of `ntulm/model.py`. Figures are those of `data/evaluate/tables.json`, with their intervals and numbers of
posts; what is not known is said to be not known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntulm.inference.directory import Settings

# Name on the hub and licence of the backbones that the recipes name.
BACKBONES = {
    "minilm": ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0"),
    "bert-base-uncased": ("google-bert/bert-base-uncased", "apache-2.0"),
}
NOT_KNOWN = "not known"
HUB_NAME = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)?")
LANGUAGE = re.compile(r"[a-z]{2,3}")
USE = """import ntulm
model = ntulm.load(".")  # this directory, wherever it lies
posts = ["a post #tag", {"text": "another post", "author": "@somebody", "hashtags": ["tag"]}]
vectors = model.encode(posts)
labels = {task: [post.labels for post in model.predict(posts, task)] for task in model.tasks}
"""
USE_ELSEWHERE = """from sentence_transformers import SentenceTransformer
vectors = SentenceTransformer(".", trust_remote_code=True).encode(posts)  # the same; the code is that of `ntulm`
"""
ELSEWHERE = f"\n\nWith sentence-transformers:\n\n```python\n{USE_ELSEWHERE}```"
LIMITS = """- It is made for posts like the ones it was trained on, in their languages and their time. An author or a
  hashtag that the table does not know counts as the average one, and adds nothing.
- The figures are of test posts of the same source. Posts of another network or of later years can fare worse;
  `known` tells of which posts the table knows something.
- Where a task hides from its texts what gives the label away (the target hashtag, cashtags, words of the label), the
  classifier learnt from such texts; new posts are read as they stand.
- Who wrote a post is evidence here: of two posts with the same words, those of different authors can get different
  labels. It must not be used to decide about people."""


@dataclass(frozen=True)
class Facts:
    """What a card is made of."""

    settings: Settings
    backbone: str  # as params.yaml has it: `minilm`, a directory, or a name on the hub
    corpus: Mapping[str, Any]  # metrics of the stage corpus
    languages: Sequence[str]  # codes of the posts, the most frequent first
    ntus: Mapping[str, int]  # type -> how many the table knows
    tables: Mapping[str, Any]  # of the stage evaluate
    classifiers: Sequence[Mapping[str, Any]]  # what each is about


def card(facts: Facts) -> str:
    """The text of README.md: metadata as YAML between dashes, then Markdown."""
    # JSON is YAML: each value is written as JSON, so that nothing in it can be taken for another key.
    metadata = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in metadata_of(facts).items())
    variant = facts.settings.variant
    parts = [
        f"---\n{metadata}\n---",
        f"# NTULM, variant `{variant}`",
        "Embeddings of social posts that know who wrote the post and which hashtags it carries "
        "([Li et al. 2022](https://aclanthology.org/2022.wnut-1.7/)), and classifiers on them. "
        f"Fine-tuned from {backbone_of(facts.backbone)[0]} with the code of `ntulm`.",
        f"## Use\n\n```python\n{USE}```{ELSEWHERE}",
        f"## Trained on\n\n{trained_on(facts)}",
        f"## Figures\n\n{figures(facts)}",
        f"## Limits\n\n{LIMITS}",
        f"## Licences\n\n{licences(facts)}",
        f"## Personal data\n\n{personal_data(facts)}",
    ]
    return "\n\n".join(parts) + "\n"


def metadata_of(facts: Facts) -> dict[str, Any]:
    """The front matter, as the hub has it."""
    name, _ = backbone_of(facts.backbone)
    languages = [code for code in facts.languages if LANGUAGE.fullmatch(code) and code != "und"]
    metadata: dict[str, Any] = {"language": languages} if languages else {}
    metadata |= {"license": "unknown" if licence_of(facts) == NOT_KNOWN else licence_of(facts)}
    metadata |= {"library_name": "ntulm", "pipeline_tag": "feature-extraction"}
    metadata |= {"tags": ["ntulm", "sentence-transformers", "social-media", "post-embeddings", "text-classification"]}
    if "/" in name:
        metadata["base_model"] = name
    shown = [record for record in records(facts) if record["value"] is not None]
    metadata["metrics"] = sorted({record["metric"] for record in shown})
    results = [
        {
            "task": {"type": "text-classification", "name": record["task"]},
            "dataset": {"type": record["dataset"], "name": f"{record['family']}, {record['posts']} test posts"},
            "metrics": [{"type": record["metric"], "name": record["metric"], "value": round(record["value"], 4)}],
        }
        for record in shown
    ]
    return metadata | {"model-index": [{"name": f"ntulm {facts.settings.variant}", "results": results}]}


def backbone_of(backbone: str) -> tuple[str, str]:
    """The backbone's name and licence; a directory's name is a path of the machine, and not said."""
    if backbone in BACKBONES:
        return BACKBONES[backbone]
    is_name = HUB_NAME.fullmatch(backbone) is not None and not Path(backbone).is_dir()
    return (backbone if is_name else "a backbone of a local directory"), NOT_KNOWN


def licence_of(facts: Facts) -> str:
    """The licence of the whole, where that of the backbone and that of the data are known."""
    return backbone_of(facts.backbone)[1] if facts.corpus["format"] == "synthetic" else NOT_KNOWN


def trained_on(facts: Facts) -> str:
    """Posts, dates, format, NTUs."""
    corpus = facts.corpus
    said = (
        f"{corpus['posts']:,} posts of {corpus['authors']:,} authors, {corpus['first'][:10]} to {corpus['last'][:10]}, "
        f"source format `{corpus['format']}`"
    )
    if corpus["format"] == "synthetic":
        said += ": a **synthetic** world, whose figures show that the code works and nothing of real posts"
    parts = ", ".join(f"{count:,} {part}" for part, count in corpus["splits"].items() if part in ("train", "graph"))
    ntus = ", ".join(f"{count:,} of type {name}" for name, count in facts.ntus.items())
    languages = ", ".join(facts.languages) or NOT_KNOWN
    return f"{said}. Of these in use: {parts}.\n\nLanguages: {languages}. NTUs in the table: {ntus}."


def records(facts: Facts) -> list[dict[str, Any]]:
    """The main figure of each data set, of the model's variant on all test posts."""
    variant = facts.settings.variant
    return [
        record
        for record in facts.tables["datasets"]
        if record["system"] == variant and record["slice"] == "overall" and record["main"]
    ]


def figures(facts: Facts) -> str:
    """A table of the figures with their intervals, and of what the classifiers of this directory reach themselves."""
    confidence = f"{facts.tables['settings']['confidence']:.0%}"
    rows = [
        f"| {record['task']}: {record['dataset']} | {record['metric']} | {_figure(record, 'value')} "
        f"[{_figure(record, 'value_low')}, {_figure(record, 'value_high')}] | {_gain(record)} | {record['posts']:,} |"
        for record in records(facts)
    ]
    for record in facts.tables["perplexity"]:
        if record["system"] == facts.settings.variant and record["tokens"] == "all":
            interval = f"[{_figure(record, 'value_low')}, {_figure(record, 'value_high')}]"
            rows.append(
                f"| masked tokens | perplexity in bits | {_figure(record, 'value')} {interval} | {_gain(record)} | "
                f"{record['posts']:,} |"
            )
    head = f"| data set | metric | value [{confidence} interval] | gain over `text` in % | test posts |"
    own = ["| classifier | metric | validation posts | test posts | classes |", "| --- | --- | --- | --- | --- |"]
    own += [
        f"| {about['task']}.{about['dataset']} | {about['metric']} | {_figure(about, 'validation')} "
        f"({about['posts']['validation']:,}) | {_figure(about, 'test')} ({about['posts']['test']:,}) | "
        f"{len(about['classes'])} |"
        for about in facts.classifiers
    ]
    seeds = len(facts.tables["settings"]["seeds"])
    tables = "\n".join([head, "| --- | --- | --- | --- | --- |", *rows])
    return f"Of the variant, over {seeds} seed(s):\n\n{tables}\n\nOf the classifiers in this directory, seed " + (
        f"{facts.settings.seed}:\n\n" + "\n".join(own)
    )


def _figure(record: Mapping[str, Any], key: str) -> str:
    return "undefined" if record[key] is None else f"{record[key]:.3f}"


def _gain(record: Mapping[str, Any]) -> str:
    if record["gain"] is None:
        return ""
    return f"{record['gain']:+.1f} [{record['low']:+.1f}, {record['high']:+.1f}]"


def licences(facts: Facts) -> str:
    """Of backbone, data and code."""
    name, licence = backbone_of(facts.backbone)
    data = "made by the generator of ntulm, free to use" if facts.corpus["format"] == "synthetic" else NOT_KNOWN
    return f"- Backbone ({name}): {licence}\n- Posts: {data}\n- Code (`ntulm`): MIT"


def personal_data(facts: Facts) -> str:
    """What of people stands in the directory."""
    if facts.corpus["format"] == "synthetic":
        return "None: the authors in the table are made up."
    kinds = ", ".join(name for name, form in facts.settings.scheme.types.items() if form == "user")
    if facts.settings.source.pseudonyms is not None:
        return (
            f"Users stand in the table as pseudonyms (types: {kinds}): keyed hashes. Whoever has the key, which is not "
            "in this directory, can tell whose vector is whose, and vectors tell what a user posts about. No text of a "
            "post is in it."
        )
    return (
        f"The table holds a vector for each known user (types: {kinds}) under the user's id or handle as the source "
        "writes it, and vectors tell what a user posts about. That is personal data: pass the directory on only where "
        "that is allowed. No text of a post is in it."
    )
