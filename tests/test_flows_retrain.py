"""What `retrain` and `monitor` decide in which order; DVC, ntulm and the registry are faked here."""

import re
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from flows import monitor as monitor_module
from flows import retrain as module
from flows.decision import _harmless
from flows.failure import CommandError
from flows.pipeline import Pipeline
from flows.registry import Version
from flows.stage import StageError
from flows.workspace import Workspace

CHAMPION = Version("v3.0.0", "c" * 40, datetime(2026, 1, 2, tzinfo=UTC), "md5.dir")
PIPELINE = Pipeline({"corpus": frozenset(), "graph": frozenset({"corpus"}), "report": frozenset({"graph"})})
NOT_WORSE = {"promote": True, "reason": "+1.0 %: a loss of more than 5 % is ruled out", "overall": {}, "datasets": []}
LAST = ["status --quiet", "push"]
WORSE = {"promote": False, "reason": "-9.0 %: worse", "overall": {}, "datasets": []}


class Fakes:
    """Stands for everything that `retrain` calls, and notes what it called."""

    def __init__(self, monkeypatch, champion=CHAMPION, challenge=NOT_WORSE, failing=()):
        self.calls: list[str] = []
        self.shown: list[str] = []
        self.failing = dict(failing)
        fakes = {
            "production": lambda root: champion,
            "open_workspace": self.open_workspace,
            "read_pipeline": lambda root: PIPELINE,
            "run_pipeline": lambda pipeline, *rest: self.note(f"stages {' '.join(pipeline.stages)}"),
            "fetch": lambda *rest, **options: self.note("fetch") or Path("data/champion"),
            "refusal": lambda workspace, *arguments: self.note(" ".join(["check", *arguments]), raises=False),
            "read_challenge": lambda root: challenge,
            "publish_challenge": lambda challenge: None,
            "publish_results": lambda root: None,
            "publish_decision": self.shown.append,
            "has_remote": lambda root: True,
            "promote": lambda root, reason: self.note(f"promote {reason}") or "v4.0.0",
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(module, name, fake)

    @contextmanager
    def open_workspace(self, *rest):
        workspace = Workspace(Path(), -1)
        object.__setattr__(workspace, "run", self.run)
        yield workspace

    def run(self, command, log):
        self.note(" ".join(command[1 + command.index("ntulm" if "ntulm" in command else "--wait-for-lock") :]))

    def note(self, call, raises=True):
        self.calls.append(call)
        failure = next((self.failing[key] for key in self.failing if call.startswith(key)), None)
        if failure is not None and raises:
            raise failure
        return str(failure) if failure else None


def retrained(**parameters):
    with disable_run_logger():
        return module.retrain.fn(**parameters)


def test_a_model_that_is_not_worse_is_pushed_and_then_promoted(monkeypatch):
    fakes = Fakes(monkeypatch)
    state = retrained()
    assert fakes.calls == [
        "stages corpus",
        "fetch",
        "check data/champion",
        "stages corpus graph report",
        "challenge data/champion",
        "status --quiet",
        "push",
        f"promote {NOT_WORSE['reason']}",
    ]
    assert state.is_completed()
    assert fakes.shown == [state.message] == [f"promoted v4.0.0: {NOT_WORSE['reason']}"]


def test_the_first_model_has_nothing_to_be_compared_with(monkeypatch):
    fakes = Fakes(monkeypatch, champion=None)
    assert retrained().is_completed()
    assert fakes.calls == ["stages corpus", "check", "stages corpus graph report", *LAST, "promote the first model"]


def test_a_worse_model_is_not_promoted_and_that_is_no_failure(monkeypatch):
    fakes = Fakes(monkeypatch, challenge=WORSE)
    state = retrained()
    assert fakes.calls[-1] == "challenge data/champion"
    assert state.is_completed()
    assert state.message.startswith("not promoted: -9.0 %: worse; v3.0.0 (commit cccccccccc,")


@pytest.mark.parametrize(
    ("call", "failure", "last", "reason"),
    [
        ("stages corpus", StageError("corpus: posts/x.csv.gz: cut short"), "stages corpus", "corpus: posts/x.csv.gz"),
        ("fetch", CommandError("v3.0.0: data/corpus cannot be fetched"), "fetch", "cannot be fetched"),
        ("check", CommandError("new posts: 0"), "check data/champion", "fail their checks: new posts: 0"),
        ("stages corpus graph", StageError("graph: no posts"), "stages corpus graph report", "graph: no posts"),
        ("challenge", CommandError("data/probe: no scores"), "challenge data/champion", "data/probe: no scores"),
        ("status", CommandError("exit code 1"), "status --quiet", "files were edited while the model was built"),
        ("push", CommandError("no room"), "push", "no room"),
    ],
)
def test_whatever_fails_is_refused_with_the_reason_and_nothing_is_promoted(monkeypatch, call, failure, last, reason):
    fakes = Fakes(monkeypatch, failing={call: failure})
    state = retrained()
    assert fakes.calls[-1] == last
    assert state.is_failed()
    assert state.message.startswith("refused: ")
    assert reason in state.message
    assert re.search(r"v3\.0\.0 .*stays in production", state.message)
    assert fakes.shown == [state.message]


def test_changes_need_a_recipe(monkeypatch):
    Fakes(monkeypatch)
    with pytest.raises(ValueError, match="changes need a recipe"):
        retrained(changes=["corpus.path=../posts"])


def test_a_recipe_is_written_first(monkeypatch):
    fakes = Fakes(monkeypatch)
    retrained(recipe="ira", changes=["data=../posts"])
    assert fakes.calls[0] == "configure ira data=../posts"


@pytest.mark.parametrize(("failing", "failed"), [({}, False), ({"check": CommandError("drift of language: 2")}, True)])
def test_monitor_trains_nothing_and_fails_where_a_check_fails(monkeypatch, tmp_path, failing, failed):
    fakes = Fakes(monkeypatch, failing=failing)
    (tmp_path / "params.yaml").write_text("corpus: {path: exports}\n")
    monkeypatch.chdir(tmp_path)
    for name in ("production", "open_workspace", "fetch", "refusal", "publish_decision"):
        monkeypatch.setattr(monitor_module, name, getattr(module, name))
    with disable_run_logger():
        state = monitor_module.monitor.fn()
    assert fakes.calls == ["fetch", "check data/champion --exports=exports"]
    assert state.is_failed() == failed
    assert ("drift of language: 2" in str(state.message)) == failed


def test_monitor_without_a_model_says_so(monkeypatch):
    fakes = Fakes(monkeypatch)
    monkeypatch.setattr(monitor_module, "open_workspace", fakes.open_workspace)
    monkeypatch.setattr(monitor_module, "production", lambda root: None)
    with disable_run_logger(), pytest.raises(CommandError, match="run `retrain` first"):
        monitor_module.monitor.fn()


def test_a_pipeline_up_to_a_stage_has_all_that_it_needs():
    needs = {"posts.dvc": frozenset[str](), "corpus": frozenset({"posts.dvc"}), "other": frozenset({"posts.dvc"})}
    assert Pipeline(needs).up_to("corpus").stages == ("posts.dvc", "corpus")


def test_a_reason_is_shown_as_words_whatever_stands_in_it():
    assert _harmless("x <img> [a](b) ![c](d) `e`") == "x ‹img› (a)(b) .(c)(d) 'e'"
