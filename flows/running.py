"""What stands between a flow and who started it, a worker or a shell: ends that need no traceback, and cancelling.

`settled` turns what a flow can fail of into a state with the reason in one line. It also watches for a request to
cancel where nobody else does: the worker that started the flow listens for it, but a worker can be killed while its
flow runs on. `main` runs a flow in a shell.
"""

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, cast
from uuid import UUID

import httpx
from prefect import Flow, State
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException, TerminationSignal
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Failed

from flows.failure import CommandError
from flows.naming import tag_run
from flows.stage import StageError

P = ParamSpec("P")

PARENT = os.getppid()  # who started this process, as long as that one lives
POLL_SECONDS = 5.0
UNREACHABLE = (httpx.HTTPError, PrefectException, RuntimeError)  # what Prefect's client raises without its server
FAILED = "Flow run encountered an exception: "  # how Prefect begins the message of such a run


def settled(function: Callable[P, State[Any]]) -> Callable[P, State[Any]]:
    """Let a flow end in a state: failed with its reason, or cancelled although its worker is gone."""

    @functools.wraps(function)
    def run(*arguments: P.args, **values: P.kwargs) -> State[Any]:
        identity = flow_run.get_id()
        if identity is None:  # called as a function, without Prefect
            return function(*arguments, **values)
        asked, ended = threading.Event(), threading.Event()
        watch = threading.Thread(target=_watch, args=(UUID(identity), asked, ended), daemon=True)
        watch.start()
        try:
            tag_run()
            return function(*arguments, **values)
        except (CommandError, StageError) as failure:
            return Failed(message=str(failure))
        except TerminationSignal:
            if not asked.is_set():
                raise
            return Cancelled(message="cancelled; the worker that had started it was gone")
        finally:
            ended.set()

    return run


def _watch(run: UUID, asked: threading.Event, ended: threading.Event) -> None:
    """Once the worker is gone, end this flow as the worker would have done when somebody cancels it."""
    while not ended.wait(POLL_SECONDS):
        if os.getppid() == PARENT:
            continue
        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(run).state
        except UNREACHABLE:  # the server may be back the next time
            continue
        if state is not None and state.is_cancelling() and not ended.is_set():
            asked.set()
            os.kill(os.getpid(), signal.SIGTERM)
            return


def main(flow: Flow[[], Any]) -> None:
    """Run a flow with its defaults; one line on standard error and exit code 1 where it cannot be run or fails."""
    try:
        state = cast(State[Any], flow(return_state=True))  # our flows are not asynchronous
    except UNREACHABLE as error:
        sys.exit(f"error: {flow.name}: {_without_server(error)}")
    except ValueError as error:  # so Prefect says that no server is named
        sys.exit(f"error: {flow.name}: {_without_server(error) if not PREFECT_API_URL.value() else error}")
    if not state.is_completed():
        message = (state.message or "no reason given").removeprefix(FAILED)
        sys.exit(f"error: {flow.name}: {str(state.name).lower()}: {message}")


def _without_server(error: Exception) -> str:
    address = PREFECT_API_URL.value()
    if not address:
        return "no Prefect server is named; `make up` starts one and prints its address, set PREFECT_API_URL to it"
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"the Prefect server at {address} does not answer ({reason}); `make up` starts one"
