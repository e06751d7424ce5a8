"""The reason of a failed command is its own."""

import pytest

from flows.failure import BusyError, CommandError, failure_of, reason

DVC = "ERROR: failed to reproduce 'graph': failed to run: ntulm graph, exited with {code}"
TRACE = ["Traceback (most recent call last):", '  File "stage.py", line 3', "    f()", "ValueError: no posts", ""]
KILLED = "killed by signal 9 (SIGKILL); out of memory, or killed by somebody"
CLOSED = "ERROR: failed to transfer '0ab1' - Connection was closed before we received a valid response"
NOT_PUSHED = "ERROR: failed to push data to the cloud - 2 files failed to upload"
UNREACHED = "unexpected error - Could not connect to the endpoint URL: http://store/b"
MISSING = "failed to reproduce 'graph': missing data 'source': data/corpus"


@pytest.mark.parametrize(
    ("lines", "code", "expected"),
    [
        (["error: data/corpus: not found", DVC.format(code=1)], 255, "data/corpus: not found"),
        ([*TRACE, DVC.format(code=1)], 255, "ValueError: no posts"),
        ([*TRACE[:-1], "During handling:", *TRACE[:3], "KeyError: 'x'", DVC.format(code=1)], 255, "KeyError: 'x'"),
        ([DVC.format(code=7)], 255, "exit code 7"),
        ([DVC.format(code=-9)], 255, KILLED),
        (["error: an old one", DVC.format(code=137)], 255, KILLED),
        ([DVC.format(code=-15)], 255, "killed by signal 15 (SIGTERM)"),
        ([f"ERROR: {MISSING}"], 255, MISSING),
        ([CLOSED, NOT_PUSHED, "Having any troubles?"], 1, f"{NOT_PUSHED[7:]}: {CLOSED.partition(' - ')[2]}"),
        ([CLOSED, f"ERROR: {UNREACHED}"], 255, UNREACHED),
        ([], 2, "exit code 2"),
    ],
)  # fmt: skip
def test_the_reason_is_the_stages_own(lines, code, expected):
    assert reason(lines, code) == expected


def test_a_busy_workspace_is_told_apart_because_it_heals():
    busy = ["ERROR: 'data/graph' is busy, it is being blocked by:", "  (PID 7): dvc repro"]
    assert isinstance(failure_of(busy, 255), BusyError)
    assert not isinstance(failure_of([DVC.format(code=1)], 255), BusyError)
    assert isinstance(failure_of([DVC.format(code=1)], 255), CommandError)
