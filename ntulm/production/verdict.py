"""What `ntulm check` and `ntulm drift` came to, as a file: whoever runs them need not read their output.

`verdict.json` in the folder of their results: `verdict` (passed, quiet, failed) and `reason` in words. Quiet: too few
posts have arrived to say anything, and nothing is wrong. A command that could not do its work leaves no such file.
"""

from pathlib import Path
from typing import Literal

from ntulm.files import whole_directory, write_json

FILE = "verdict.json"
Verdict = Literal["passed", "quiet", "failed"]


def write_verdict(directory: Path, verdict: Verdict, reason: str) -> None:
    """Write it beside the results, into a folder that is there."""
    write_json(directory / FILE, {"verdict": verdict, "reason": reason})


def write_alone(directory: Path, verdict: Verdict, reason: str) -> None:
    """Write it in place of results: there are none."""
    with whole_directory(directory) as partial:
        write_verdict(partial, verdict, reason)
