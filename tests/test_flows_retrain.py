"""What `retrain` and `monitor` decide in which order; DVC, ntulm and the registry are faked here."""

import json
import re
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.logging import disable_run_logger

from flows import monitor as monitor_module
from flows import retrain as module
from flows.decision import _harmless
from flows.failure import CommandError
from flows.pipeline import Pipeline
from flows.registry import Version
from flows.stage import StageError
from flows.verdict import Verdict
from flows.workspace import Workspace

CHAMPION = Version("v3.0.0", "c" * 40, datetime(2026, 1, 2, tzinfo=UTC), "md5.dir")
PIPELINE = Pipeline({"corpus": frozenset(), "graph": frozenset({"corpus"}), "report": frozenset({"graph"})})
NOT_WORSE = {"promote": True, "reason": "+1.0 %: a loss of more than 5 % is ruled out", "overall": {}, "datasets": []}
LAST = ["status --quiet", "push"]
PASSED, QUIET = Verdict("passed", "all checks passed"), Verdict("quiet", "new posts: 3")
WORSE = {"promote": False, "reason": "-9.0 %: worse", "overall": {}, "datasets": []}


class Fakes:
    """Stands for everything that `retrain` calls, and notes what it called."""

    def __init__(self, monkeypatch, champion=CHAMPION, challenge=NOT_WORSE, failing=(), verdicts=()):
        self.calls: list[str] = []
        self.shown: list[str] = []
        self.failing = dict(failing)
        self.verdicts = dict(verdicts)
        fakes = {
            "production": lambda root: champion,
            "open_workspace": self.open_workspace,
            "read_pipeline": lambda root: PIPELINE,
            "run_pipeline": lambda pipeline, *rest: self.note(f"stages {' '.join(pipeline.stages)}"),
            "fetch": lambda *rest, **options: self.note("fetch") or Path("data/champion"),
            "checked": lambda workspace, *arguments: self.verdict(" ".join(["check", *arguments])),
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

    def note(self, call):
        self.calls.append(call)
        failure = next((self.failing[key] for key in self.failing if call.startswith(key)), None)
        if failure is not None:
            raise failure

    def verdict(self, call):
        self.note(call)
        return self.verdicts.get(call.split()[0], PASSED)


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
        ("check", CommandError("params.yaml: not valid"), "check data/champion", "refused: params.yaml: not valid"),
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
    assert state.name == "Refused"
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


def test_posts_that_fail_their_checks_are_refused(monkeypatch):
    fakes = Fakes(monkeypatch, verdicts={"check": Verdict("failed", "drift of language: 2")})
    state = retrained()
    assert fakes.calls[-1] == "check data/champion"
    assert (state.name, state.is_failed()) == ("Refused", True)
    assert state.message.startswith("refused: the arriving posts fail their checks: drift of language: 2; v3.0.0")


def test_a_month_without_new_posts_is_quiet_and_nothing_is_trained(monkeypatch):
    fakes = Fakes(monkeypatch, verdicts={"check": QUIET})
    state = retrained()
    assert fakes.calls[-1] == "check data/champion"
    assert (state.name, state.is_completed()) == ("Quiet", True)
    assert state.message.startswith("nothing to train on: new posts: 3; v3.0.0")
    assert fakes.shown == [state.message]


def monitored(monkeypatch, tmp_path, champion=CHAMPION, failing=(), **verdicts):
    fakes = Fakes(monkeypatch, champion=champion, failing=failing, verdicts=verdicts)
    (tmp_path / "params.yaml").write_text("corpus: {path: exports}\n")
    monkeypatch.chdir(tmp_path)
    for name in ("production", "open_workspace", "fetch", "checked", "publish_decision"):
        monkeypatch.setattr(monitor_module, name, getattr(module, name))
    monkeypatch.setattr(monitor_module, "compared", lambda workspace, champion: fakes.verdict(f"drift {champion}"))
    with disable_run_logger():
        return monitor_module.monitor.fn(), fakes


FAILED = Verdict("failed", "drift of language: 2")
UNSEEN = Verdict("quiet", "0 arriving posts with vectors")


@pytest.mark.parametrize(
    ("verdicts", "name", "said"),
    [
        ({}, "Completed", "The arriving posts fit v3.0.0: all checks passed"),
        ({"check": FAILED}, "Drifted", "do not fit v3.0.0: drift of language: 2"),
        ({"drift": FAILED}, "Drifted", "do not fit v3.0.0: drift of language: 2"),
        ({"check": QUIET, "drift": FAILED}, "Drifted", "drift of language: 2"),
        ({"check": QUIET, "drift": UNSEEN}, "Quiet", "Nothing can be said of v3.0.0: new posts: 3"),
        ({"drift": UNSEEN}, "Completed", "of vectors and labels nothing can be said yet: 0 arriving posts"),
    ],
)
def test_monitor_trains_nothing_and_its_state_says_what_it_found(monkeypatch, tmp_path, verdicts, name, said):
    state, fakes = monitored(monkeypatch, tmp_path, **verdicts)
    assert fakes.calls == ["fetch", "check data/champion --exports=exports", "drift data/champion"]
    assert (state.name, state.is_failed()) == (name, name == "Drifted")
    assert said in state.message
    assert fakes.shown == [state.message]


def test_monitor_without_a_model_says_so_and_is_not_red(monkeypatch, tmp_path):
    state, fakes = monitored(monkeypatch, tmp_path, champion=None)
    assert (state.name, state.is_completed(), fakes.calls) == ("NoModel", True, [])
    assert "`retrain` promotes the first model" in state.message


def test_a_check_that_cannot_be_made_is_a_failure_and_no_drift(monkeypatch, tmp_path):
    state, fakes = monitored(monkeypatch, tmp_path, failing={"check": CommandError("no space left")})
    assert (state.name, fakes.calls[-1]) == ("Failed", "check data/champion --exports=exports")
    assert state.message == "v3.0.0: the arriving posts could not be checked: no space left"
    assert fakes.shown == [state.message]


class Running:
    """A workspace whose command leaves a verdict, and perhaps fails."""

    def __init__(self, root, leaves, failure=None):
        self.root, self.leaves, self.failure = root, leaves, failure

    def run(self, command, log):
        assert not (self.root / "data/check").exists()  # the verdict of an earlier run
        if self.leaves:
            (self.root / "data/check").mkdir(parents=True)
            text = json.dumps({"verdict": self.leaves, "reason": "so it is"})
            (self.root / "data/check/verdict.json").write_text(text)
        if self.failure:
            raise self.failure


def running(*given) -> Any:
    """In the place of a workspace."""
    return Running(*given)


@pytest.mark.parametrize("failure", [None, CommandError("new posts: 3")])
def test_the_verdict_of_a_check_is_read_whether_its_command_failed_or_not(tmp_path, failure):
    (tmp_path / "data/check").mkdir(parents=True)
    (tmp_path / "data/check/verdict.json").write_text('{"verdict": "passed", "reason": "of yesterday"}')
    with disable_run_logger():
        found = monitor_module.checked(running(tmp_path, "quiet", failure), "data/champion")
    assert found == Verdict("quiet", "so it is")


def test_without_a_verdict_the_failure_of_the_command_counts(tmp_path):
    with disable_run_logger(), pytest.raises(CommandError, match="killed by signal 9"):
        monitor_module.checked(running(tmp_path, None, CommandError("killed by signal 9")), "data/champion")
    with disable_run_logger(), pytest.raises(CommandError, match="no verdict"):
        monitor_module.checked(running(tmp_path, None), "data/champion")


def test_a_pipeline_up_to_a_stage_has_all_that_it_needs():
    needs = {"posts.dvc": frozenset[str](), "corpus": frozenset({"posts.dvc"}), "other": frozenset({"posts.dvc"})}
    assert Pipeline(needs).up_to("corpus").stages == ("posts.dvc", "corpus")


def test_a_reason_is_shown_as_words_whatever_stands_in_it():
    assert _harmless("x <img> [a](b) ![c](d) `e`") == "x ‹img› (a)(b) .(c)(d) 'e'"
