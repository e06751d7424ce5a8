"""PyTorch-BigGraph in several processes over loopback: as good as one, and one that fails ends all."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import test_embeddings
from conftest import two_free_ports
from planted_graph import HASHTAGS, USERS, config, figures, write_planted

from ntulm.embeddings import pbg
from ntulm.embeddings.machines import Share
from ntulm.embeddings.table import EmbeddingTable
from ntulm.layout import Layout

PATIENCE = 900  # seconds; the machine may be busy
LAYOUT = Layout()


@pytest.fixture(scope="module")
def pbg_input(tmp_path_factory) -> Path:
    return write_planted(tmp_path_factory.mktemp("planted"))


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_learn_as_well_as_one(pbg_input, tmp_path, processes):
    settings = config(partitions=2 * processes, epochs=4)
    found = []
    for each in (1, processes):
        work = tmp_path / str(each)
        work.mkdir()
        model, losses = pbg.train(settings, pbg_input, work, lambda *_: None, Share(each=each))
        assert len(losses) == 4
        assert losses[-1] < losses[0]
        assert {kind: len(rows) for kind, rows in model.nodes.items()} == {"user": USERS, "hashtag": HASHTAGS}
        assert np.abs(model.relations).sum(axis=1).all()
        found.append(figures(model))
    one, several = found
    assert one["mrr"] > 2 * one["popularity"]["mrr"]
    assert several["mrr"] > 0.8 * one["mrr"]  # who trains what first is decided by the clock
    assert not workers_of(os.getpid())


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project with its graph."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        test_embeddings.planted_graph(test_embeddings.RELATIONS)
    changes = {"dimension": 16, "epochs": 3, "batch_size": 200, "batch_negatives": 20, "uniform_negatives": 20}
    values = [f"embeddings.{name}={value}" for name, value in {**changes, "partitions": 4}.items()]
    command = [sys.executable, "-m", "ntulm", "configure", "quickstart", *values]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def clone(project: Path, folder: Path, *changes: str) -> Path:
    """Another machine's copy of the project."""
    (folder / "data").mkdir(parents=True)
    (folder / LAYOUT.graph).symlink_to(project / LAYOUT.graph)
    (folder / "params.yaml").write_text((project / "params.yaml").read_text())
    if changes:
        command = [sys.executable, "-m", "ntulm", "configure", ".", *changes]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@contextmanager
def machines(*folders: Path, each: int = 1) -> Iterator[list[subprocess.Popen[str]]]:
    """`ntulm embeddings` on a machine per folder."""
    where = {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(two_free_ports())}
    processes = []
    for number, folder in enumerate(folders):
        told = {"NTULM_RANKS": str(each), "PET_NNODES": str(len(folders)), "PET_NODE_RANK": str(number), **where}
        command = [sys.executable, "-m", "ntulm", "embeddings"]
        pipe: Any = subprocess.PIPE
        one = subprocess.Popen(command, cwd=folder, env=os.environ | told, stdout=pipe, stderr=pipe, text=True)
        processes.append(one)
    try:
        yield processes
    finally:
        for one in processes:
            one.kill()
            one.communicate()


def workers_of(process: int) -> list[psutil.Process]:
    return [one for one in psutil.Process(process).children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]


def test_two_machines_train_and_the_first_writes(project, tmp_path):
    folders = [clone(project, tmp_path / name) for name in ("first", "second")]
    with machines(*folders) as processes:
        said = [one.communicate(timeout=PATIENCE) for one in processes]
    assert [one.returncode for one in processes] == [0, 0], said
    assert [error for _, error in said] == ["", ""]
    assert said[0][0].splitlines()[0] == "embeddings: 2 processes on 2 machines"
    assert "epoch 3 of 3, loss" in said[0][0]
    assert said[1][0] == "embeddings: machine 1 of 2; machine 0 writes the results\n"
    first, second = folders
    metrics = json.loads((first / LAYOUT.metrics("embeddings")).read_text())
    assert metrics["mrr"] > metrics["popularity"]["mrr"]
    table = EmbeddingTable.load(first / LAYOUT.embeddings)
    assert len(table.vectors) == sum(metrics["nodes"].values())
    assert sorted(path.name for path in (first / "data").iterdir()) == ["embeddings", "graph"]
    assert [path.name for path in (second / "data").iterdir()] == ["graph"]
    assert not (second / "metrics").exists()


@pytest.mark.parametrize("failing", [0, 1])
def test_a_process_that_is_killed_ends_all_on_both_machines(project, tmp_path, failing):
    folders = [clone(project, tmp_path / name, "embeddings.epochs=10000") for name in ("first", "second")]
    with machines(*folders) as processes:
        assert processes[0].stdout is not None
        for line in processes[0].stdout:
            if "epoch 1 of" in line:
                break
        every = [one for process in processes for one in workers_of(process.pid)]
        trainers = psutil.Process(processes[failing].pid).children()
        assert len(trainers) == 1
        trainers[0].kill()
        said = [one.communicate(timeout=PATIENCE)[1] for one in processes]
    assert all(one.returncode == 1 for one in processes)
    assert f"the process of rank {failing} of 2 was ended by SIGKILL" in said[failing]
    assert f"machine {failing} has ended or is out of reach" in said[1 - failing]
    assert [len(one.strip().splitlines()) for one in said] == [1, 1], said
    until = time.monotonic() + 20
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in every):
        assert time.monotonic() < until, every
        time.sleep(0.2)
    assert [[path.name for path in (folder / "data").iterdir()] for folder in folders] == [["graph"], ["graph"]]


def test_machines_with_other_parameters_are_refused(project, tmp_path):
    folders = [clone(project, tmp_path / "first"), clone(project, tmp_path / "second", "embeddings.seed=1")]
    with machines(*folders) as processes:
        said = [one.communicate(timeout=PATIENCE)[1] for one in processes]
    assert all(one.returncode == 1 for one in processes)
    assert all("machine 1 has another graph, parameters, number or NTULM_RANKS than machine 0" in one for one in said)
