"""Training on planted communities: the vectors find them, the bytes repeat, and nothing is left of a failed run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from ntulm.embeddings import pbg
from ntulm.embeddings import stage as embeddings
from ntulm.embeddings.config import Embeddings
from ntulm.embeddings.operators import Operators
from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.graph import stage as graph
from ntulm.graph.config import Graph, Relation
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme, Role
from ntulm.resources import told

LAYOUT = Layout()
SCHEME = NtuScheme(
    {"user": "user", "hashtag": "hashtag", "domain": "domain"},
    {
        "author": Role("user", "author"),
        "mention": Role("user", "mentions"),
        "hashtag": Role("hashtag", "hashtags"),
        "url": Role("domain", "urls"),
    },
)
RELATIONS = {
    "authored": Relation(left="author", right="hashtag"),
    "co_mentioned": Relation(left="mention", right="hashtag"),
}
COMMUNITIES, USERS, HASHTAGS = 2, 30, 20  # users and hashtags of each community


def config(**changes: Any) -> Embeddings:
    values: dict[str, Any] = {
        "engine": "pbg",
        "dimension": 16,
        "epochs": 12,
        "learning_rate": 0.2,
        "batch_size": 200,
        "batch_negatives": 20,
        "uniform_negatives": 20,
        "partitions": 1,
        "workers": 1,
        "ranked_edges": 1000,
        "seed": 0,
    }
    return Embeddings(**values | changes)


def planted_graph(relations: dict[str, Relation]) -> None:
    """Users of a community use its hashtags, mention its users, and now and then stray."""
    random = np.random.default_rng(0)
    posts: list[dict[str, Any]] = []
    for place in range(1500):
        home = int(random.integers(COMMUNITIES))
        topic = home if random.random() < 0.95 else int(random.integers(COMMUNITIES))
        author, mention = (f"u{home}-{int(random.integers(USERS))}" for _ in range(2))
        tags = sorted({f"t{topic}-{int(tag)}" for tag in random.integers(HASHTAGS, size=2)})
        posts.append({"post_id": str(place), "author": author, "mentions": [mention], "hashtags": tags})
    LAYOUT.corpus.mkdir(parents=True)
    table = pa.Table.from_pylist(posts)
    table = table.append_column("urls", pa.array([[]] * len(posts), pa.list_(pa.string())))
    table = table.append_column("created_at", pa.array(range(len(posts)), pa.timestamp("us", "UTC")))
    pq.write_table(table, LAYOUT.posts)
    pq.write_table(pa.table({"post_id": table["post_id"], "graph": [True] * len(posts)}), LAYOUT.splits)
    kinds = [
        ("user", pa.string()),
        ("post_id", pa.string()),
        ("kind", pa.string()),
        ("created_at", pa.timestamp("us", "UTC")),
    ]
    pq.write_table(pa.schema(kinds).empty_table(), LAYOUT.engagements)
    graph.run(
        Graph(
            engine="duckdb",
            relations=relations,
            min_degree=dict.fromkeys(SCHEME.types, 1),
            max_count=2,
            held_out_share=0.1,
            seed=0,
            memory_limit="500MB",
        ),
        SCHEME,
        LAYOUT,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder in which both stages ran, from an unfriendly caller: main module and standard input are no files."""
    folder = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        planted_graph(RELATIONS)
    code = (
        "from ntulm.embeddings import config, stage; from ntulm.layout import Layout; "
        f"stage.run(config.Embeddings(**{config().model_dump()!r}), Layout())"
    )
    command = f'exec {sys.executable} -c "$CODE" <&-'
    subprocess.run(["/bin/sh", "-c", command], cwd=folder, env=os.environ | {"CODE": code}, check=True, timeout=120)
    return folder


def all_bytes() -> dict[str, bytes]:
    paths = [*sorted(LAYOUT.embeddings.rglob("*")), LAYOUT.metrics("embeddings")]
    return {str(path): path.read_bytes() for path in paths}


def test_neighbours_are_of_the_same_community(trained):
    table = EmbeddingTable.load(trained / LAYOUT.embeddings)
    names = [("hashtag", f"t{home}-{place}") for home in range(COMMUNITIES) for place in range(HASHTAGS)]
    names += [("user", f"u{home}-{place}") for home in range(COMMUNITIES) for place in range(USERS)]
    rows = np.concatenate([table.rows(kind, [key]) for kind, key in names])
    assert (rows >= 0).all()
    vectors = table.vectors[rows] - table.mean
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = vectors @ vectors.T - 2 * np.eye(len(rows))
    home = np.array([key[1] for _, key in names])
    nearest = np.argsort(-similarity, axis=1)[:, :5]
    assert (home[nearest] == home[:, None]).mean() > 0.95


def test_link_prediction_beats_popularity(trained):
    metrics = json.loads((trained / LAYOUT.metrics("embeddings")).read_text())
    assert metrics["edges"] > 100
    assert metrics["mrr"] > 1.3 * metrics["popularity"]["mrr"]
    assert metrics["hits@10"] > metrics["popularity"]["hits@10"]
    assert metrics["history"][0]["loss"] > metrics["final_loss"] > 0
    assert len(metrics["history"]) == 12
    assert metrics["nodes"] == {"user": COMMUNITIES * USERS, "hashtag": COMMUNITIES * HASHTAGS}
    assert metrics["sides"]["hashtag"]["candidates"] == COMMUNITIES * HASHTAGS


def test_relations_and_table_are_whole(trained):
    assert sorted(path.name for path in (trained / LAYOUT.embeddings).iterdir()) == [
        "relations.safetensors",
        "table.safetensors",
    ]
    with safe_open(trained / LAYOUT.embeddings / "relations.safetensors", "numpy") as file:
        assert json.loads(file.metadata()["names"]) == ["authored", "co_mentioned"]
        assert json.loads(file.metadata()["types"]) == [["user", "hashtag"]] * 2
        assert file.get_tensor("vectors").shape == (2, 16)
    operators = Operators.load(trained / LAYOUT.embeddings)
    assert dict(operators.nodes) == {
        "hashtag": (0, COMMUNITIES * HASHTAGS),
        "user": (COMMUNITIES * HASHTAGS, COMMUNITIES * USERS),
    }
    edges = pq.read_table(trained / LAYOUT.edges).to_pylist()
    there = {(one["rel"], one["lhs"], one["rhs"]) for one in edges if not one["held_out"]}
    for name, (lhs, rhs) in zip(operators.names, operators.sampled, strict=True):
        assert {(name, *ends) for ends in zip(lhs.tolist(), rhs.tolist(), strict=True)} <= there
    assert not list((trained / "data").glob(".partial-*"))


def test_one_worker_gives_the_same_bytes(trained, monkeypatch, capfd):
    monkeypatch.chdir(trained)
    before = all_bytes()
    embeddings.run(config(), LAYOUT)
    assert all_bytes() == before
    printed = capfd.readouterr()
    assert printed.out.splitlines()[0].startswith("embeddings: epoch 1 of 12, loss ")
    assert len(printed.out.splitlines()) == 12
    assert printed.err == ""


def test_the_engine_torch_writes_the_same_table(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / LAYOUT.graph).symlink_to(trained / LAYOUT.graph)
    embeddings.run(config(engine="torch"), LAYOUT)
    ours, reference = (EmbeddingTable.load(folder / LAYOUT.embeddings) for folder in (tmp_path, trained))
    assert ours.vectors.shape == reference.vectors.shape
    assert ours.rows("user", ["u0-0", "u1-7"]).tolist() == reference.rows("user", ["u0-0", "u1-7"]).tolist()
    files = (folder / LAYOUT.metrics("embeddings") for folder in (tmp_path, trained))
    mrr, expected = (json.loads(file.read_text())["mrr"] for file in files)
    assert mrr > 0.9 * expected


@pytest.mark.slow
def test_two_workers_and_another_seed_train_as_well(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(trained)
    before = json.loads(LAYOUT.metrics("embeddings").read_text())["history"][0]["loss"]
    model, losses = pbg.train(config(epochs=1, workers=2, seed=1), LAYOUT.pbg_input, tmp_path, lambda *_: None)
    assert np.isfinite(model.nodes["user"]).all()
    assert losses != [before]


def test_a_failure_shows_the_log_and_leaves_nothing(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / LAYOUT.graph).symlink_to(trained / LAYOUT.graph)
    monkeypatch.setattr(pbg, "_config", lambda *_: {"dimension": 0})
    with pytest.raises(RuntimeError, match="PyTorch-BigGraph ended with code 1; its log ends with"):
        embeddings.run(config(), LAYOUT)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["graph"]
    assert not LAYOUT.metrics("embeddings").exists()


def test_the_first_of_several_errors_of_the_engine_is_told(trained, monkeypatch, tmp_path):
    """h5py raises a second one while it closes a file for which the disk has no room."""
    why = "errno = 28, error message = 'No space left on device', buf = 0x1"
    first = f"OSError: Unable to flush (file write failed: time = now\\n, filename = 'x', {why})\\n"
    said = first + "  File x\\n" * 30 + "RuntimeError: cannot close\\n"
    program = tmp_path / "engine"
    program.write_text(f'#!/bin/sh\nprintf "{said}" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(RuntimeError, match="No space left") as fault:
        pbg.train(config(), trained / LAYOUT.pbg_input, tmp_path, lambda *_: None)
    assert "no space is left on the disk" in (told(fault.value) or "")


def test_what_the_engine_says_needs_no_room_on_the_disk(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(trained)
    monkeypatch.setattr(pbg, "_config", lambda *_: {"dimension": 0})
    with pytest.raises(RuntimeError, match="its log ends with:\nError in the configuration"):
        pbg.train(config(), LAYOUT.pbg_input, tmp_path / "not there", lambda *_: None)


@pytest.mark.slow
def test_the_engine_ends_with_its_parent(trained, tmp_path):
    code = (
        "from pathlib import Path; from ntulm.embeddings import pbg, config; from ntulm.layout import Layout; "
        f"settings = config.Embeddings(**{config(epochs=10_000).model_dump()!r}); "
        "report = lambda *_: print('epoch', flush=True); "
        f"pbg.train(settings, Layout().pbg_input, Path({str(tmp_path)!r}), report)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=trained, stdout=subprocess.PIPE, process_group=0
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"epoch\n"
        os.kill(process.pid, signal.SIGKILL)
    for _ in range(100):
        if not group_members(process.pid):
            return
        time.sleep(0.1)
    pytest.fail(f"still running: {group_members(process.pid)}")


def group_members(group: int) -> list[str]:
    """The processes of a process group that still run."""
    lines = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in lines.splitlines()]
    return [row[2] for row in rows if int(row[0]) == group and not row[1].startswith("Z")]


def test_divergence_is_a_user_error(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / LAYOUT.graph).symlink_to(trained / LAYOUT.graph)
    monkeypatch.setattr(pbg, "train", lambda *_: (None, [1.0, float("nan")]))
    with pytest.raises(UserError, match=r"embeddings.learning_rate: training diverged at 0\.2"):
        embeddings.run(config(), LAYOUT)
    assert not LAYOUT.embeddings.exists()


def test_a_missing_graph_is_a_user_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"nodes.parquet: not found; run `dvc repro graph`"):
        embeddings.run(config(), LAYOUT)


def test_batches_must_be_multiples_of_their_negatives():
    with pytest.raises(ValueError, match=r"batch_size must be a multiple of batch_negatives \(30\)"):
        config(batch_negatives=30)


def test_the_sample_is_drawn_once_and_for_all():
    places = np.arange(100) * 3
    drawn = embeddings.sample(places, 10, seed=4)
    assert drawn.tolist() == embeddings.sample(places, 10, seed=4).tolist()
    assert len(set(drawn.tolist())) == 10
    assert set(drawn.tolist()) <= set(places.tolist())
    assert embeddings.sample(places, 100, seed=4).tolist() == places.tolist()


@pytest.mark.parametrize("engine", ["pbg", "torch"])
def test_relations_within_a_type_and_types_without_edges_train(tmp_path, monkeypatch, engine):
    monkeypatch.chdir(tmp_path)
    planted_graph(
        {
            "mentioned": Relation(left="author", right="mention"),
            "together": Relation(left="hashtag", right="hashtag"),
            "linked": Relation(left="author", right="url"),  # no post has a link
        }
    )
    embeddings.run(config(engine=engine), LAYOUT)
    metrics = json.loads(LAYOUT.metrics("embeddings").read_text())
    assert set(metrics["sides"]) == {"user", "hashtag", "domain"}
    assert metrics["nodes"]["domain"] == metrics["relations"]["linked"]["edges"] == 0
    assert metrics["relations"]["together"]["edges"] + metrics["relations"]["mentioned"]["edges"] == metrics["edges"]
    # The planted mentions are chance; hashtags are used with those of their community.
    together = metrics["relations"]["together"]
    assert together["mrr"] > 1.1 * together["popularity"]["mrr"]
    table = EmbeddingTable.load(LAYOUT.embeddings)
    assert table.types == SCHEME.types
    np.testing.assert_allclose(table.type_means["user"], table.vectors[-COMMUNITIES * USERS :].mean(0), rtol=1e-4)
