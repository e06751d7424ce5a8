"""Kill every stage, DVC and a flow's engine at random moments, run on to the end, and compare with an undisturbed run.

    PYTHONPATH=. python tests/faults.py [--kills 200] [--seed 0] [--only graph,dvc,flow]    # `make faults`

Works on copies of the project with a tiny world and backbone in a folder of its own. Prints a Markdown table with a row
per fault. Ends with exit code 1 if a rerun failed or gave another result. `tests/test_faults.py` runs a sample.

The moments are drawn from the seed: any time; just after a `.partial-*` appeared (a file or checkpoint is being
written); just after the outputs appeared (DVC hashes, stores and writes `dvc.lock`). The machine decides what happens
in them, so a seed repeats the plan, not the faults.
"""

import argparse
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from test_end_to_end import ENVIRONMENT, ROOT, copy_of_the_project
from tiny_backbone import write_backbone

from flows.mending import mend

ONE_OF_EACH = {  # the instance of a stage that has several
    "tasks": "tasks@hashtag",
    "pretrain": "pretrain@author+hashtag-0",
    "encode": "encode@author+hashtag-0-topic",
    "probe": "probe@author+hashtag-0-hashtag",
}
STAGES = (
    *("corpus", "tasks", "graph", "embeddings", "adapt", "pretrain", "encode", "probe", "evaluate", "model", "report"),
)
OTHERS = ("dvc", "flow")  # DVC between stages that take no time; a flow's engine, which dies alone
NAMED = ("reports/results.html", "reports/coverage.html")  # they carry date, commit and random ids: docs/reliability.md
MOMENTS = ("any", "writing", "committing")
POLL_SECONDS = 0.003
AFTER_SECONDS = {"writing": 0.05, "committing": 0.4}  # at most so long after the sign
SHORT_STAGES = 8
BUILT = "built"
PATIENCE = 3600.0
QUIET = ENVIRONMENT | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
IN_A_FLOW = """
import sys
from pathlib import Path
from flows.workspace import dvc, open_workspace
with open_workspace(Path.cwd(), "faults", print) as workspace:
    workspace.run(dvc("repro", *sys.argv[1:]), print)
"""


@dataclass
class Row:
    """What became of the kills of one kind."""

    fault: str
    kills: int = 0
    survived: int = 0  # the rerun ended well
    identical: int = 0  # with the results of the undisturbed run
    mended: int = 0  # a file of DVC had been left half-written
    reasons: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.kills - self.identical

    def __str__(self) -> str:
        return f"| {self.fault} | {self.kills} | {self.survived} | {self.identical} | {self.mended} | {self.lost} |"


COLUMNS = ("killed", "kills", "survived", "identical", "half-written files of DVC mended", "lost")


def tiny_project(folder: Path) -> Path:
    """A copy of the project with everything built, and checkpoints after every step; the one that is there, if any."""
    backbone, project = folder / "backbone", folder / "project"
    if (folder / BUILT).exists():
        return project
    project.mkdir(parents=True)
    write_backbone(backbone)
    copy_of_the_project(project, backbone)
    loop = project / "ntulm/language_model/training.py"
    text = re.sub(r"(?m)^CHECKPOINT_SECONDS = .*$", "CHECKPOINT_SECONDS = 0.0", loop.read_text(encoding="utf-8"))
    loop.write_text(text, encoding="utf-8")
    run(project, "repro")
    (folder / BUILT).touch()
    return project


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run DVC to its end."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=project, env=QUIET, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        raise RuntimeError(f"dvc {' '.join(arguments)}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done


def results(project: Path) -> dict[str, str]:
    """Output to hash, as `dvc.lock` has it; `reports` file by file, without those that are named."""
    lock = read_lock(project)["stages"]
    found = {out["path"]: out["md5"] for stage in lock.values() for out in stage["outs"] if out["path"] != "reports"}
    for path in sorted((project / "reports").rglob("*")):
        name = path.relative_to(project).as_posix()
        if path.is_file() and name not in NAMED:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def read_lock(project: Path) -> Any:
    return YAML(typ="safe", pure=True).load(project / "dvc.lock")


def forget(project: Path, stage: str) -> list[Path]:
    """As if a stage had never run: its outputs, what DVC knows of it, what it can restore. Returns the outputs."""
    lock = read_lock(project)
    outs = [out["path"] for out in lock["stages"].pop(stage, {"outs": []})["outs"]]
    with (project / "dvc.lock").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(lock, file)
    shutil.rmtree(project / ".dvc/cache/runs", ignore_errors=True)
    for out in outs:
        path = project / out
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return [project / out for out in outs]


def partial_outputs(project: Path) -> Callable[[], bool]:
    """Whether something is being written."""
    folders = [project / "data", project / "metrics", project]

    def seen() -> bool:
        try:
            return any(next(folder.glob(".partial-*"), None) for folder in walked(folders))
        except OSError:  # renamed or removed in this moment
            return False

    return seen


def walked(folders: list[Path]) -> Iterator[Path]:
    """The folders and those below, four deep; not into what is being written, nor below the root itself."""
    for folder in folders[:2]:
        for top, below, _ in os.walk(folder):
            below[:] = [name for name in below if not name.startswith(".")]
            yield Path(top)
    yield folders[2]


def wait_for_moment(process: subprocess.Popen[bytes], seconds: float, sign: Callable[[], bool] | None) -> None:
    """Until the sign was seen and a moment has passed; without a sign, so many seconds; at most until it ends."""
    deadline = time.monotonic() + (PATIENCE if sign else seconds)
    while process.poll() is None and time.monotonic() < deadline:
        if sign is not None and sign():
            time.sleep(seconds)
            return
        time.sleep(POLL_SECONDS)


@dataclass
class Harness:
    """The project, what an undisturbed run gave, and how long each stage takes here."""

    project: Path
    chance: random.Random
    expected: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.expected = self.expected or results(self.project)

    def kill(self, stage: str, moment: str, in_a_flow: bool = False) -> bool:
        """Forget the stage, start it, kill it; whether it was killed before it was done."""
        outs = forget(self.project, stage)
        command = [sys.executable, "-m", "dvc", "repro", "-s", stage]
        if in_a_flow:
            command = [sys.executable, "-c", IN_A_FLOW, "-s", stage]
        signs = {"writing": partial_outputs(self.project), "committing": lambda: outs[-1].exists()}
        longest = AFTER_SECONDS.get(moment) or self.seconds.get(stage, 10.0)
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=self.project, env=QUIET, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        wait_for_moment(process, self.chance.uniform(0.0, longest), signs.get(moment))
        alive = process.poll() is None
        if alive:
            os.kill(process.pid, signal.SIGKILL) if in_a_flow else os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not alive:
            self.seconds[stage] = time.monotonic() - started
        return alive

    def finish(self, row: Row, in_a_flow: bool = False) -> None:
        """Run on to the end as somebody would, and compare."""
        row.kills += 1
        try:
            if in_a_flow:
                command = [sys.executable, "-c", IN_A_FLOW]
                said = subprocess.run(
                    command, cwd=self.project, env=QUIET, capture_output=True, text=True, timeout=PATIENCE, check=True
                ).stdout.splitlines()
                row.mended += sum("half-written" in line for line in said)
            else:
                said = []
                mend(self.project, said.append)
                row.mended += len(said)
                run(self.project, "repro")
        except (RuntimeError, subprocess.SubprocessError) as error:
            row.reasons.append(f"{row.fault}: {error}")
            return
        row.survived += 1
        found = results(self.project)
        paths = found.keys() | self.expected.keys()
        other = sorted(path for path in paths if found.get(path) != self.expected.get(path))
        row.identical += not other
        if other:
            row.reasons.append(f"{row.fault}: other results: {', '.join(other)}")

    def round(self, row: Row, stage: str, moment: str, in_a_flow: bool = False) -> None:
        """One kill and the run after it; one that came too late is drawn again."""
        for _ in range(3):
            if self.kill(stage, moment, in_a_flow):
                break
        else:
            return
        self.finish(row, in_a_flow)


def short_stages(folder: Path) -> Path:
    """A project whose stages take no time, so that a kill meets DVC itself."""
    folder.mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=folder, env=QUIET, check=True)
    stages: dict[str, Any] = {"s0": {"cmd": "echo 0 > f0", "outs": ["f0"]}}
    for number in range(1, SHORT_STAGES):
        of = f"f{number - 1}"
        stages[f"s{number}"] = {"cmd": f"cat {of} > f{number}", "deps": [of], "outs": [f"f{number}"]}
    with (folder / "dvc.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump({"stages": stages}, file)
    run(folder, "repro")
    return folder


def kill_dvc(folder: Path, kills: int, chance: random.Random) -> Row:
    """Kill DVC in a pipeline of short stages, everything forgotten each time."""
    row, expected = Row("dvc"), results(folder)
    started = time.monotonic()
    restart(folder)
    run(folder, "repro", "--force")
    longest = time.monotonic() - started
    while row.kills < kills:
        restart(folder)
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro"], cwd=folder, env=QUIET, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        wait_for_moment(process, chance.uniform(0.0, longest), None)
        if process.poll() is not None:
            longest *= 0.9
            continue
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        harness = Harness(folder, chance, expected)
        harness.finish(row)
    return row


def restart(folder: Path) -> None:
    """As if nothing had run."""
    for name in ("dvc.lock", *(f"f{number}" for number in range(SHORT_STAGES))):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / ".dvc/cache", ignore_errors=True)


def rows(folder: Path, kills: int, seed: int, only: list[str]) -> Iterator[Row]:
    """A row for each kind of fault, as soon as it is known."""
    chance = random.Random(seed)
    each = -(-kills // len(only))
    if "dvc" in only:
        shutil.rmtree(folder / "short", ignore_errors=True)
        yield kill_dvc(short_stages(folder / "short"), each, chance)
    if set(only) <= {"dvc"}:
        return
    harness = Harness(tiny_project(folder), chance)
    for name in (name for name in only if name != "dvc"):
        row = Row(name)
        for number in range(each):
            of = chance.choice(STAGES[:-1]) if name == "flow" else name
            harness.round(row, ONE_OF_EACH.get(of, of), MOMENTS[number % len(MOMENTS)], name == "flow")
        yield row


def main() -> int:
    """Print the table, and what was lost below it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join((*STAGES, *OTHERS)), help="stages, dvc, flow")
    parser.add_argument("--folder", type=Path, help="where to work, and to keep what was built for the next time")
    given = parser.parse_args()
    only = given.only.split(",")
    if not set(only) <= {*STAGES, *OTHERS}:
        parser.error(f"--only: expected some of {', '.join((*STAGES, *OTHERS))}")
    done = []
    with nullcontext(given.folder) if given.folder else tempfile.TemporaryDirectory() as folder:
        print(f"| {' | '.join(COLUMNS)} |", "| --- " * len(COLUMNS) + "|", sep="\n", flush=True)
        for row in rows(Path(folder), given.kills, given.seed, only):
            print(row, *row.reasons, sep="\n", flush=True)
            done.append(row)
    print(f"\n{sum(row.kills for row in done)} kills, {sum(row.lost for row in done)} lost")
    return 1 if any(row.lost for row in done) else 0


if __name__ == "__main__":
    sys.exit(main())
