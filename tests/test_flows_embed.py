"""`embed`: which commands it runs, and how it ends; DVC and ntulm are faked here."""

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger
from test_flows_retrain import CHAMPION

from flows import decision
from flows import embed as module
from flows.failure import CommandError
from flows.workspace import Workspace

DONE = {
    "version": "9f", "embedded": 3, "backlog": 2, "backlog_left": 1000, "gone": 0, "stored": 1234, "reference": 30,
    "labelled": {"topic.side": 5}, "nothing": False,
}  # fmt: skip


def embedded(monkeypatch, tmp_path, champion=CHAMPION, done=DONE, failure=None, **parameters):
    """The state of a run, the commands, and the tables that it showed."""
    commands, shown = [], []
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("corpus: {path: exports}\n")

    def run(command, log):
        commands.append(" ".join(command[command.index("ntulm") + 1 :]))
        if failure:
            raise failure
        (tmp_path / "data/arrivals").mkdir(parents=True)
        (tmp_path / "data/arrivals/run.json").write_text(json.dumps(done))

    @contextmanager
    def open_workspace(*rest):
        workspace = Workspace(tmp_path, -1)
        object.__setattr__(workspace, "run", run)
        yield workspace

    monkeypatch.setattr(module, "open_workspace", open_workspace)
    monkeypatch.setattr(module, "production", lambda root: champion)
    monkeypatch.setattr(module, "fetch", lambda *rest: Path("data/champion"))
    monkeypatch.setattr(decision, "create_table_artifact", lambda rows, **about: shown.append(rows))
    with disable_run_logger():
        return module.embed.fn(**parameters), commands, shown


def test_arriving_posts_are_embedded_by_the_model_in_production(monkeypatch, tmp_path):
    state, commands, shown = embedded(monkeypatch, tmp_path)
    assert commands == ["arrivals data/champion --exports=exports"]
    assert state.name == "Completed"
    assert state.message == (
        "v3.0.0: 3 new posts, 2 embedded anew; 1,000 of the backlog left for the next runs; 1,234 are stored"
    )
    assert {"posts": "labelled now: topic.side", "number": 5} in shown[0]


def test_exports_can_be_named(monkeypatch, tmp_path):
    assert embedded(monkeypatch, tmp_path, exports="a b")[1] == ["arrivals data/champion --exports=a b"]


def test_a_day_without_posts_is_quiet(monkeypatch, tmp_path):
    nothing = DONE | {"embedded": 0, "backlog": 0, "backlog_left": 0, "labelled": {}, "nothing": True}
    state, _, _ = embedded(monkeypatch, tmp_path, done=nothing)
    assert (state.name, state.is_completed()) == ("Quiet", True)
    assert state.message == "no new post for v3.0.0; 1,234 are stored"


def test_without_a_model_in_production_there_is_one_line_and_nothing_red(monkeypatch, tmp_path):
    state, commands, _ = embedded(monkeypatch, tmp_path, champion=None)
    assert (state.name, state.is_completed(), commands) == ("NoModel", True, [])
    assert "\n" not in state.message


def test_a_command_that_fails_fails_the_run_with_its_reason(monkeypatch, tmp_path):
    with pytest.raises(CommandError, match="another process adds to it"):
        embedded(monkeypatch, tmp_path, failure=CommandError("another process adds to it"))
