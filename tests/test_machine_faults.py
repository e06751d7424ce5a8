"""The harness that fills disks under stages: what it takes for a stage that ended well, and for one that did not."""

import pytest
from machine_faults import fault_in

LINE = "error: data/graph: no space is left on the disk; what was there before is as it was\n"


@pytest.mark.parametrize(
    ("told", "code", "wrong"),
    [
        (LINE, 1, None),
        (f"graph: 100 posts\n{LINE}", 1, None),
        (LINE, 0, "exit code 0, 1 lines of error"),
        (LINE + LINE, 1, "exit code 1, 2 lines of error"),
        ("", -7, "exit code -7, 0 lines of error"),
        (f"Traceback (most recent call last):\n{LINE}", 1, "a traceback"),
    ],
)
def test_a_fault_is_one_line_and_exit_code_1(told, code, wrong):
    assert fault_in(told, code) == wrong
