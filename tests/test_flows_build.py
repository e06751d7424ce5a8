"""The scheduling of `build`: order, how many at once, what happens after a failure. Prefect and DVC are faked here."""

import ast
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from flows import build as module
from flows.build import run_pipeline, summary
from flows.pipeline import Pipeline, stage_families
from flows.stage import Outcome, StageError, outcome_of, stage_task
from flows.workspace import Workspace

ROOT = Path(__file__).parent.parent
DIAMOND = Pipeline(
    {
        "corpus": frozenset(),
        "left": frozenset({"corpus"}),
        "right": frozenset({"corpus"}),
        "third": frozenset({"corpus"}),
        "report": frozenset({"left", "right", "third"}),
    }
)


class FakeFuture:
    def __init__(self, future: Future[object]) -> None:
        self.future = future

    def add_done_callback(self, function):
        self.future.add_done_callback(lambda _: function(self))

    def result(self, raise_on_failure=True):
        return self.future.result()


class FakeStages:
    """Stands for the Prefect tasks: notes who ran when, fails where told to."""

    def __init__(self, failing=()):
        self.pool = ThreadPoolExecutor(8)
        self.failing = failing
        self.started: list[str] = []
        self.now = 0
        self.most = 0
        self.lock = threading.Lock()

    def task(self, name):
        return self

    def submit(self, name, force, workspace, wait_for):
        assert all(future.future.done() for future in wait_for)
        return FakeFuture(self.pool.submit(self.work, name))

    def work(self, name):
        with self.lock:
            self.started.append(name)
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.05)
        with self.lock:
            self.now -= 1
        return StageError(f"{name}: no posts") if name in self.failing else Outcome.RAN


class FakeProgress:
    def __init__(self, stages):
        pass

    def advance(self, stage):
        pass

    def close(self):
        pass


def run(monkeypatch, side_by_side=2, failing=()):
    stages = FakeStages(failing)
    monkeypatch.setattr(module, "stage_task", stages.task)
    monkeypatch.setattr(module, "Progress", FakeProgress)
    workspace = Workspace(ROOT, -1)
    try:
        outcomes = run_pipeline(DIAMOND, workspace, False, side_by_side)
    except StageError as failure:
        return stages, failure, workspace
    return stages, outcomes, workspace


@pytest.mark.parametrize("side_by_side", [1, 2, 8])
def test_stages_run_in_order_and_side_by_side_as_far_as_allowed(monkeypatch, side_by_side):
    stages, outcomes, _ = run(monkeypatch, side_by_side)
    assert stages.started[0] == "corpus"
    assert stages.started[-1] == "report"
    assert sorted(stages.started) == sorted(DIAMOND.stages)
    assert stages.most == min(side_by_side, 3)
    assert outcomes == dict.fromkeys(DIAMOND.stages, Outcome.RAN)


def test_after_a_failure_nothing_starts_and_what_runs_may_finish(monkeypatch):
    stages, failure, workspace = run(monkeypatch, 2, failing=["left", "right"])
    assert sorted(stages.started) == ["corpus", "left", "right"]
    assert str(failure) in ("left: no posts; right: no posts", "right: no posts; left: no posts")
    assert workspace.stop.is_set()


def test_an_interrupted_run_asks_its_stages_to_stop(monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "stage_task", interrupted)
    monkeypatch.setattr(module, "Progress", FakeProgress)
    workspace = Workspace(ROOT, -1)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(DIAMOND, workspace, False, 2)
    assert workspace.stop.is_set()


def test_a_task_has_the_name_of_its_stage_and_no_cache_of_its_own():
    for name in stage_families(ROOT):
        task = stage_task(f"{name}@x-0")
        assert task.name == name
        assert not task.persist_result


def test_what_dvc_did_is_read_from_its_output():
    assert outcome_of(["Running stage 'corpus':", "> python -m ntulm corpus"]) is Outcome.RAN
    assert outcome_of(["Stage 'corpus' is cached - skipping run, checking out outputs"]) is Outcome.RESTORED
    assert outcome_of(["Stage 'corpus' didn't change, skipping"]) is Outcome.UNCHANGED
    assert summary({"a": Outcome.RAN, "b": Outcome.UNCHANGED, "c": Outcome.RAN}) == "3 stages: 2 ran, 1 unchanged"


def test_flows_know_ntulm_only_through_commands_and_stages():
    for path in (ROOT / "flows").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "ntulm"], path
