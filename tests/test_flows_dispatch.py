"""What a build does about a stage in a pool: waits, sends again, gives up, cancels. Prefect is faked here."""

from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Crashed, Failed, Pending, Running, Scheduled

from flows import dispatch
from flows.dispatch import WORKER_PATIENCE, send
from flows.handover import Handover
from flows.stage import Outcome, StageError
from flows.supervised import StoppedError
from flows.workspace import Workspace

HANDOVER = Handover(builder="b", params="", lock={}, inputs={})


class FakeServer:
    """Gives the states of each run in turn, the last one for ever; notes what it was told."""

    def __init__(self, *runs, worker=WorkerStatus.ONLINE):
        self.runs = [list(states) for states in runs]
        self.worker = worker
        self.started: list[dict] = []
        self.set: list[str] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def run_deployment(self, name, **settings):
        self.started.append({"deployment": name} | settings)
        return FlowRun(id=uuid4(), flow_id=uuid4())

    def read_flow_run(self, run):
        states = self.runs[len(self.started) - 1]
        state = states.pop(0) if len(states) > 1 else states[0]
        if isinstance(state, Exception):
            raise state
        return SimpleNamespace(state=state)

    def read_workers_for_work_pool(self, pool):
        return [SimpleNamespace(status=self.worker)]

    def set_flow_run_state(self, run, state, force=False):
        self.set.append(state.name)


@pytest.fixture
def sent(monkeypatch):
    """Send a stage to a fake server; return what came back and what was warned of."""

    def go(server, workspace=None):
        monkeypatch.setattr(dispatch, "run_deployment", server.run_deployment)
        monkeypatch.setattr(dispatch, "get_client", lambda sync_client: server)
        monkeypatch.setattr(dispatch, "POLL_SECONDS", 0.01)
        monkeypatch.setenv(WORKER_PATIENCE, "0.1")
        warned: list[str] = []
        done = send("pretrain@0", "gpu-pool", HANDOVER, workspace or Workspace(Path(), -1), warned.append)
        return done, warned

    return go


def test_a_stage_is_sent_to_the_deployment_of_its_pool_as_data(sent):
    server = FakeServer([Scheduled(), Pending(), Running(), Completed(message="ran")])
    assert sent(server) == (Outcome.RAN, [])
    assert server.started[0]["deployment"] == "stage/gpu-pool"
    assert server.started[0]["parameters"] == {"name": "pretrain@0", "handover": HANDOVER.model_dump()}


def test_a_crashed_run_is_sent_once_more(sent):
    server = FakeServer([Crashed(message="no heartbeat")], [Completed(message="ran")])
    done, warned = sent(server)
    assert done == "ran"
    assert warned == ["pretrain@0: crashed in gpu-pool: no heartbeat; sending it again"]


@pytest.mark.parametrize(
    ("runs", "starts", "message"),
    [
        ([[Failed(message="no posts")]], 1, "pretrain@0: failed in gpu-pool: no posts"),
        ([[Crashed(message="a")], [Crashed(message="b")]], 2, "pretrain@0: crashed in gpu-pool: b"),
    ],
)
def test_a_failure_names_stage_pool_and_reason(sent, runs, starts, message):
    server = FakeServer(*runs)
    with pytest.raises(StageError) as error:
        sent(server)
    assert str(error.value) == message
    assert len(server.started) == starts


@pytest.mark.parametrize("state", [Scheduled(), Pending()])
def test_without_a_worker_the_build_gives_up_and_takes_the_run_back(sent, state):
    server = FakeServer([state], worker=WorkerStatus.OFFLINE)
    with pytest.raises(StageError, match="pretrain@0: no worker of gpu-pool is online"):
        sent(server)
    assert server.set == ["Cancelled"]


def test_a_run_that_started_is_not_given_up_and_a_silent_server_is_waited_for(sent):
    server = FakeServer(
        [*(Running() for _ in range(30)), httpx.ConnectError("refused"), Completed(message="ran")],
        worker=WorkerStatus.OFFLINE,
    )
    done, warned = sent(server)
    assert done == "ran"
    assert warned == ["pretrain@0: the Prefect server does not answer: refused"]


def test_a_build_that_ends_cancels_its_stage(sent):
    server = FakeServer([Running()])
    workspace = Workspace(Path(), -1)
    workspace.stop.set()
    with pytest.raises(StoppedError):
        sent(server, workspace)
    assert server.set == ["Cancelling"]


class WithoutDeployments(FakeServer):
    def run_deployment(self, name, **settings):
        raise ObjectNotFound(Exception())


def test_a_missing_deployment_is_named(sent):
    with pytest.raises(StageError, match="there is no deployment stage/gpu-pool"):
        sent(WithoutDeployments())
