"""A new NTU type and a relation are a few lines of params.yaml: they reach graph, table, slot and loaded figures."""

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from ntulm import adapt, pretrain
from ntulm.configure import configured
from ntulm.corpus import stage as corpus
from ntulm.embeddings import stage as embeddings
from ntulm.embeddings.table import EmbeddingTable
from ntulm.files import read_json
from ntulm.graph import stage as graph
from ntulm.layout import Layout
from ntulm.params import Params, check_params

SECRETS = {"news": "apple", "shop": "stone"}  # the word that only a post's link decides
FILLERS = ["today", "i", "like", "the", "very", "much", "and", "so", "on", "we", "see", "it", "again"]
YAML_OF_A_USER = """
ntus:
  types: {domain: {key: domain}}
  roles: {url: {type: domain, field: urls}}
graph:
  relations: {linked: {left: author, right: url}}
  min_degree: {domain: 1}
"""


def export(path: Path) -> None:
    """Posts whose links are of one of two kinds of sites; an author links to one kind only."""
    random = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "created_at", "text", "author"])
        for number in range(1600):
            kind = str(random.choice(list(SECRETS)))
            author = f"{kind}fan{random.integers(40)}"
            site = f"https://www.{kind}{random.integers(6)}.example/{number}"
            words = [str(word) for word in random.choice(FILLERS, int(random.integers(2, 6)))]
            moment = f"2020-01-{1 + number // 60:02d}T{number % 60 // 3:02d}:{number % 3:02d}:00Z"
            writer.writerow([number, moment, " ".join([*words, SECRETS[kind], site]), author])


def merged(values: dict, changes: dict) -> dict:
    """`values` with nested `changes`."""
    return {
        key: merged(values[key], changes[key]) if key in values and isinstance(changes.get(key), dict) else new
        for key, new in {**values, **changes}.items()
    }


def params(folder: Path, backbone: Path) -> Params:
    """The recipe `own` with the user's lines, small."""
    table = (
        "{post_id: id, created_at: created_at, time_format: null, text: text, author: author, lang: null, "
        "repost_flag: null, reposted_id: null, reposted_author: null, favorited_by: null, hashtags: null, "
        "mentions: null, html: false, casefold_users: true, mention_hosts: false}"
    )
    changes = [f"data={folder / 'export.csv'}", f"corpus.table={table}", "corpus.duplicates=id"]
    changes += ["run.variants=[text]", "model.variant=text", f"adapt.backbone={backbone}", "adapt.max_posts=0"]
    changes += ["embeddings.engine=torch", "embeddings.dimension=8", "embeddings.epochs=20"]
    changes += ["embeddings.batch_size=100", "embeddings.batch_negatives=20", "embeddings.uniform_negatives=20"]
    changes += ["pretrain.max_posts=1100", "pretrain.epochs=6", "pretrain.batch_size=16", "pretrain.mask_share=0.3"]
    changes += ["pretrain.learning_rate=2.0e-3", "pretrain.slot.scale=3.0", "pretrain.max_test_posts=200"]
    values = YAML(typ="safe", pure=True).load(configured("own", changes))
    lines = YAML(typ="safe", pure=True).load(YAML_OF_A_USER)
    return check_params(merged(merged(values, lines), {"run": {"variants": ["text", "url"]}}), "test")


@pytest.mark.slow
def test_domains_by_yaml_alone(tmp_path, tiny_backbone):
    export(tmp_path / "export.csv")
    made, layout = params(tmp_path, tiny_backbone), Layout(tmp_path / "project")
    scheme = made.ntus.scheme
    corpus.run(made.corpus, layout)
    graph.run(made.graph, scheme, layout)
    nodes = pq.read_table(layout.nodes).to_pylist()
    assert {node["key"] for node in nodes if node["type"] == "domain"} == {
        f"{kind}{number}.example" for kind in SECRETS for number in range(6)
    }
    assert set(pq.read_table(layout.edges, columns=["rel"])["rel"].to_pylist()) == {"linked"}
    embeddings.run(made.embeddings, layout)
    table = EmbeddingTable.load(layout.embeddings)
    assert table.types["domain"] == "domain"
    assert (table.rows("domain", ["news0.example", "nowhere.example"]) >= 0).tolist() == [True, False]
    adapt.run(made.adapt, made.batches, layout)
    bits = {}
    for variant in ("text", "url"):
        pretrain.run(made.pretrain, made.batches, scheme, made.adapt.backbone, variant, 0, layout)
        bits[variant] = read_json(layout.metrics("pretrain", variant, 0))["perplexity_bits"]
    config = read_json(layout.pretrain("url", 0) / "config.json")
    assert config["slots"] == [{"roles": ["url"], "types": ["domain"], "per_type": False}]
    assert bits["url"] < bits["text"] - 0.1  # the secret word is one token in six; half of it is one bit
