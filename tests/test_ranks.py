"""ntulm/language_model/ranks.py and launch.py: two processes over gloo train as one does, and end together."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest
import torch
from conftest import write_lm_project
from safetensors.numpy import load_file
from schemes import SCHEME, slot_settings
from test_training import make_job, weights
from tiny_backbone import write_backbone

from ntulm import adapt, device, pretrain
from ntulm.errors import UserError
from ntulm.language_model import launch, training
from ntulm.language_model.config import Batches, Pretrain
from ntulm.language_model.launch import processes
from ntulm.language_model.ranks import ALONE, LostError, Ranks, joined
from ntulm.language_model.training import evaluate, train_model
from ntulm.layout import Layout

BATCHES = Batches(max_length=24, mask_urls=True, mask_mentions=True)
ROOT = Path(__file__).parent.parent
PATIENCE = 240  # seconds; the machine may be busy
PRETRAIN = {
    **{"max_posts": 60, "max_validation_posts": 40, "max_test_posts": 50, "epochs": 2, "patience": 5},
    **{"evaluations_per_epoch": 1, "batch_size": 16, "learning_rate": 5e-3, "weight_decay": 0.01},
    **{"warmup_share": 0.1, "mask_share": 0.3},
}


def start(rank: int) -> None:
    """In a process of the pair: what torchrun would tell it, but for the port."""
    torch.set_num_threads(1)
    told = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    os.environ.update({**told, "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"})


def run_at(port, function, *arguments):
    os.environ["MASTER_PORT"] = str(port)
    return function(*arguments)


class Pair:
    """Two processes that last for all tests of this file: importing torch takes longer than what they do."""

    def __init__(self):
        context = multiprocessing.get_context("spawn")
        pools = (ProcessPoolExecutor(1, context, initializer=start, initargs=(rank,)) for rank in range(2))
        self.pools = list(pools)

    def start(self, function, *arguments):
        """Call a function of this file in both; gives what will be returned."""
        self.store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        return [pool.submit(run_at, self.store.port, function, *arguments) for pool in self.pools]

    def run(self, function, *arguments):
        """What both return."""
        return [future.result(PATIENCE) for future in self.start(function, *arguments)]


@pytest.fixture(scope="module")
def pair():
    pair = Pair()
    yield pair
    for pool in pair.pools:
        pool.shutdown()


@pytest.fixture(scope="module")
def steady_backbone(tmp_path_factory):
    """The tiny backbone without dropout, which each process draws for itself."""
    directory = tmp_path_factory.mktemp("steady") / "backbone"
    write_backbone(directory)
    config = json.loads((directory / "config.json").read_text())
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def train(backbone, folder, changes, killed_at=None):
    """History, weights, held-out losses and first step of a run by the processes there are; None if it is killed."""
    plain = training.train_step
    steps = []

    def watched(job, optimizer, posts, epoch, step, factor):
        if step == killed_at:
            raise InterruptedError
        steps.append(step)
        return plain(job, optimizer, posts, epoch, step, factor)

    exact = pytest.MonkeyPatch()  # in bfloat16, another order of sums makes more than a rounding error of float32
    exact.setattr(device, "has_bf16", lambda _: False)
    exact.setattr(training, "has_bf16", lambda _: False)
    exact.setattr(training, "train_step", watched)
    try:
        with joined() as ranks:
            job = replace(make_job(backbone, folder, **changes), ranks=ranks)
            outcome = train_model(job)
            losses = evaluate(job, job.validation)
    except InterruptedError:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        return None
    finally:
        exact.undo()
    return outcome.history, weights(job.model), losses.places, losses.bits, steps[0]


def assert_as_one(found, expected):
    """Two ranks agree bit by bit, and with one process within rounding."""
    (history, tensors, places, bits, _), other = found
    assert history == other[0]
    assert [entry["step"] for entry in history] == [entry["step"] for entry in expected[0]]
    for entry, wanted in zip(history, expected[0], strict=True):
        assert entry == pytest.approx(wanted, rel=1e-4)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, other[1][name]), name
        torch.testing.assert_close(tensor, expected[1][name], rtol=5e-3, atol=5e-4)
    np.testing.assert_array_equal(places, expected[2])
    np.testing.assert_allclose(bits, expected[3], rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(bits, other[3])


@pytest.fixture(scope="module")
def undisturbed(steady_backbone, tmp_path_factory):
    """What one process finds."""
    return train(steady_backbone, tmp_path_factory.mktemp("one"), {})


def test_two_processes_train_as_one(pair, steady_backbone, tmp_path, undisturbed):
    assert_as_one(pair.run(train, steady_backbone, tmp_path, {}), undisturbed)


def test_batches_of_fewer_posts_than_processes(pair, steady_backbone, tmp_path):
    changes = {"batch_size": 1, "epochs": 1, "evaluations_per_epoch": 3, "learning_rate": 1e-3}
    expected = train(steady_backbone, tmp_path / "one", changes)
    assert_as_one(pair.run(train, steady_backbone, tmp_path / "two", changes), expected)


@pytest.mark.parametrize("first", [1, 2])
def test_a_run_goes_on_with_another_number_of_processes(pair, steady_backbone, tmp_path, undisturbed, first):
    folder = tmp_path / "shared"
    killed: tuple[Any, ...] = (steady_backbone, folder, {}, 9)
    assert (train(*killed) if first == 1 else pair.run(train, *killed)[0]) is None
    assert (folder / "checkpoint").exists()
    again: tuple[Any, ...] = (steady_backbone, folder, {})
    found = pair.run(train, *again) if first == 1 else [train(*again)] * 2
    assert_as_one(found, undisturbed)
    assert [one[-1] for one in found] == [7, 7]  # where the last checkpoint was written


def test_dropout_is_drawn_by_each_process_and_ends_near(pair, tiny_backbone, tmp_path):
    expected = train(tiny_backbone, tmp_path / "one", {})
    found, again = (pair.run(train, tiny_backbone, tmp_path / name, {})[0] for name in ("two", "again"))
    assert found[0] == again[0]
    assert found[0] != expected[0]
    assert found[0][-1]["validation_bits"] == pytest.approx(expected[0][-1]["validation_bits"], rel=0.15)


def run_stage(stage, root, *sections):
    """A stage by its name, in the project at `root`."""
    {"adapt": adapt, "pretrain": pretrain}[stage].run(*sections, Layout(root))


def test_stages_write_once_what_one_process_writes(pair, steady_backbone, adapt_settings, tmp_path):
    slot = slot_settings(dropout=0.2, hide_masked=True, hidden_posts=0.1)
    sections = (Pretrain(**cast(Any, PRETRAIN), slot=slot), BATCHES, SCHEME, str(steady_backbone))
    adapting = adapt_settings(backbone=str(steady_backbone), max_validation_posts=24)
    found = {}
    for count, run in {1: lambda *given: given[0](*given[1:]), 2: pair.run}.items():
        layout = Layout(tmp_path / str(count))
        write_lm_project(layout.root)
        run(run_stage, "adapt", layout.root, adapting, BATCHES)
        run(run_stage, "pretrain", layout.root, *sections, "author+hashtag", 0)
        run(run_stage, "pretrain", layout.root, *sections, "unadapted", 0)
        metrics = [json.loads(path.read_text()) for path in sorted((layout.root / "metrics").rglob("*.json"))]
        found[count] = metrics, load_file(layout.pretrain("author+hashtag", 0) / pretrain.TEST_LOSSES)
        assert not list((layout.root / "data/checkpoints").rglob("*.json"))
    assert len(found[1][0]) == 3
    for one, two in zip(found[1][0], found[2][0], strict=True):
        assert one.keys() == two.keys()
        for entry, other in zip(one.get("history", []), two.get("history", []), strict=True):
            assert entry == pytest.approx(other, rel=1e-3)
        assert one.get("masked_tokens") == two.get("masked_tokens")
    for name, values in found[1][1].items():
        np.testing.assert_allclose(found[2][1][name], values, rtol=5e-3, atol=5e-3)


def exchange(case):
    with joined() as ranks:
        if case == "gather":
            return ranks.gather(torch.arange(3 * ranks.own)).tolist(), ranks.share(np.arange(5)).tolist()
        if case == "from_first":
            mine = {"half": torch.ones(2, 2).half(), "number": torch.tensor(7)}, {"text": "é", "none": None}
            nothing = ranks.from_first(None)
            found = ranks.from_first(mine if ranks.leads else None)
            assert found is not None
            return nothing, {name: (str(value.dtype), value.tolist()) for name, value in found[0].items()}, found[1]
        if case == "differ":
            ranks.check_same("same", "posts")
            ranks.check_same("abc" if ranks.leads else "abd", "posts")
        elif ranks.own == 1:
            os._exit(0)
        return ranks.gather(torch.zeros(1)).tolist()


def test_what_ranks_exchange(pair):
    assert pair.run(exchange, "gather") == [([0, 1, 2], [0, 2, 4]), ([0, 1, 2], [1, 3])]
    first, second = pair.run(exchange, "from_first")
    assert first == second
    assert first == (
        None,
        {"half": ("torch.float16", [[1.0, 1.0], [1.0, 1.0]]), "number": ("torch.int64", 7)},
        {"text": "é", "none": None},
    )


def test_one_process_exchanges_nothing():
    numbers = torch.arange(3)
    assert ALONE.gather(numbers) is numbers
    assert ALONE.share([1, 2, 3]) == [1, 2, 3]
    assert ALONE.from_first(None) is None
    assert ALONE.leads
    assert not ALONE.several
    with joined() as ranks:
        assert ranks is ALONE


def test_parts_of_a_batch_are_all_of_it():
    posts = np.arange(11)
    parts = [Ranks(own, 4, torch.device("cpu")).share(posts) for own in range(4)]
    assert sorted(np.concatenate(parts).tolist()) == posts.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) == 1


@pytest.mark.parametrize(
    ("wanted", "gpus", "count"), [("1", 0, 1), ("3", 0, 3), ("2", 2, 2), ("all", 4, 4), ("all", 0, 1)]
)
def test_how_many_processes(wanted, gpus, count):
    assert processes(wanted, gpus) == count


@pytest.mark.parametrize(("wanted", "gpus"), [("0", 0), ("-1", 0), ("two", 0), ("", 0), ("²", 0), ("3", 2)])
def test_no_number_of_processes(wanted, gpus):
    with pytest.raises(UserError, match="NTULM_RANKS"):
        processes(wanted, gpus)


def test_torch_is_told_to_be_quiet_before_it_is_imported():
    """It reads its level once; later, the agent of a machine that ends last would warn that the first has gone."""
    program = (
        "import os, sys; import ntulm.cli; from ntulm.language_model import launch; "
        "launch._gpus = lambda: print('torch' in sys.modules, os.environ['TORCH_CPP_LOG_LEVEL']) or 1; "
        "launch.launched()"
    )
    plain = {name: value for name, value in os.environ.items() if name not in launch.QUIET}
    environment = {**plain, "PYTHONPATH": str(ROOT), "NTULM_RANKS": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False ERROR\n"


def command(kind, **environment):
    """The command of `ranks_program.py`, begun."""
    told = {"NTULM_RANKS": "2", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests/ranks_program.py"), "fault", kind],
        env={**os.environ, "PYTHONPATH": str(ROOT), **told},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("mistake", ["error: a mistake; expected none"]),
        pytest.param("same mistake", ["error: a mistake; expected none"], marks=pytest.mark.slow),
        ("killed", ["error: the process of rank 1 was ended by SIGKILL; the machine may have run out of memory"]),
    ],
)
def test_a_fault_of_one_process_ends_all_with_one_line(kind, told):
    process = command(kind)
    _, error = process.communicate(timeout=PATIENCE)
    assert error.splitlines() == told
    assert process.returncode == 1


@pytest.mark.slow
def test_a_bug_is_told_once():
    process = command("bug")
    _, error = process.communicate(timeout=PATIENCE)
    assert error.splitlines()[-1].endswith("ValueError: a bug")
    assert error.count("Traceback") == 1
    assert process.returncode == 1


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_no_process_outlives_the_command(number):
    process = command("endless")
    assert process.stdout is not None
    seen = {process.stdout.readline() for _ in range(2)}
    assert seen == {"rank 0 of 2\n", "rank 1 of 2\n"}
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    assert process.wait(PATIENCE) == -number
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert len(children) == 2
    assert alive == []


@pytest.mark.slow
def test_two_machines_over_loopback():
    port = str(free_port())
    machines = {"NTULM_RANKS": "1", "PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port}
    agents = [command("none", **machines, PET_NODE_RANK=str(rank)) for rank in range(2)]
    said = [agent.communicate(timeout=PATIENCE) for agent in agents]
    assert said == [("rank 0 of 2\n[0, 0, 1]\n", ""), ("rank 1 of 2\n", "")]
    assert [agent.returncode for agent in agents] == [0, 0]


def free_port():
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return own.getsockname()[1]


# The last ones: the second breaks the pair.
def test_ranks_that_differ_are_refused_on_all(pair):
    for future in pair.start(exchange, "differ"):
        with pytest.raises(UserError, match="posts of rank 1 differ"):
            future.result(PATIENCE)


def test_a_lost_rank_is_a_mistake_that_says_so(pair):
    for pool in pair.pools:
        pool.submit(torch.distributed.destroy_process_group).result(PATIENCE)
    first, _ = pair.start(exchange, "lost")
    with pytest.raises(LostError, match="another process of this run has ended"):
        first.result(PATIENCE)
