"""Start-up: how long a user waits before anything happens.

Run: `python -m benchmarks.start_up`. Each side is a command; the peer of an import is that of torch alone.
The pipeline of the side `dvc repro` holds eight stages that have run already.
"""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Benchmark, Outcome, run

BIN = Path(sys.executable).parent
HELP = [sys.executable, "-c", "from ntulm.cli import main; main()", "--help"]
LIMITS = {"ntulm --help": 0.5, "dvc repro, nothing to do": 5.0}  # seconds
STAGES = 8


def prepare(folder: Path, size: int) -> None:
    """Write a repository whose stages have run."""
    del size
    stage = "  stage{0}:\n    cmd: cp source.txt out{0}.txt\n    deps: [source.txt]\n    outs: [out{0}.txt]\n"
    stages = "".join(stage.format(number) for number in range(STAGES))
    (folder / "dvc.yaml").write_text(f"stages:\n{stages}")
    (folder / "source.txt").write_text("posts")
    for command in (["git", "init", "--quiet"], [BIN / "dvc", "init", "--quiet"], [BIN / "dvc", "repro", "--quiet"]):
        subprocess.run([str(part) for part in command], cwd=folder, check=True, stdout=sys.stderr)


def command(arguments: list[str], inside: bool, folder: Path) -> Outcome:
    """Run a command once before, so that its files are in memory, and once with the clock."""
    for _ in range(2):
        started = time.perf_counter()
        subprocess.run(arguments, cwd=folder if inside else ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
    return Outcome(seconds, 1, seconds)


def same(evidence: Any) -> str:
    """What has a limit stays within it."""
    for side, limit in LIMITS.items():
        if evidence[side] > limit:
            sys.exit(f"{side}: {evidence[side]:.2f} s, the limit is {limit} s")
    return ", ".join(f"{side} {seconds:.2f} s" for side, seconds in evidence.items())


if __name__ == "__main__":
    run(
        Benchmark(
            module="benchmarks.start_up",
            title="Start-up",
            unit="starts",
            prepare=prepare,
            sides={
                "ntulm --help": partial(command, HELP, False),
                "dvc repro, nothing to do": partial(command, [str(BIN / "dvc"), "repro"], True),
                "import ntulm.pretrain": partial(command, [sys.executable, "-c", "import ntulm.pretrain"], False),
                "import torch": partial(command, [sys.executable, "-c", "import torch"], False),
            },
            same=same,
            size=1,
            growth=(1, 1, 1),
            limit="the imports of torch and of the library's models; `--help` and a repro without work need neither.",
        )
    )
