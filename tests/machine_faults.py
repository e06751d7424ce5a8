"""Fill the disk under every stage, make it read-only, take its memory, set the clock: what is said, what stays.

    PYTHONPATH=. python tests/machine_faults.py [--only graph,encode] [--faults disk,memory,clock] [--folder DIR]

Works on a copy of a tiny project in a file system in memory, in a namespace of its own (`unshare`, Linux). A stage is
run by its command from `dvc.lock`, its outputs in place, as if something had changed. With a fault it has to end in one
line and exit code 1, with every file of the project as it was; then, without the fault, with the same results. Where
the memory of a control group does not suffice, the kernel may end it instead. A clock that is set while it runs must
change nothing. Prints a Markdown table; exit code 1 if anything else happened.
"""

import argparse
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from faults import NAMED, ONE_OF_EACH, QUIET, STAGES, read_lock, tiny_project

from ntulm.resources import CGROUPS

INSIDE = "NTULM_FAULTS_INSIDE"
PAGE = 4096  # what a file system in memory gives
ROOM = {"no room": 0.0, "room for a quarter": 0.25, "room for half": 0.5}  # of what the stage writes
MEMORY = {"memory for three quarters": 0.75, "memory for half": 0.5}  # of the most that the stage takes
CONTROL_GROUPS = (  # of version 1, of version 2: folder, limits, the most that was taken
    ("memory", ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"), "memory.max_usage_in_bytes"),
    ("", ("memory.max", "memory.swap.max"), "memory.peak"),
)
CLOCKS = {"clock set back a day": -86400.0, "clock set a year ahead": 365 * 86400.0}
CALLS_BEFORE = 20  # readings of the clock before it is set
PLENTY = 1 << 30
LEFT_SECONDS, POLL_SECONDS = 30.0, 0.1  # in which the processes of a killed stage have to end
PATIENCE = 600.0
CLOCK = """
import os, time
_real, _left = time.time, [int(os.environ["CLOCK_CALLS"])]
def _set():
    _left[0] -= 1
    return _real() + (float(os.environ["CLOCK_JUMP"]) if _left[0] < 0 else 0.0)
time.time = _set
time.time_ns = lambda: int(_set() * 1e9)
"""


@dataclass
class Outcome:
    """What became of one fault over all stages."""

    fault: str
    tried: int = 0
    survived: int = 0
    untouched: int = 0  # stages that the fault did not reach
    reasons: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lost = self.tried - self.survived
        return f"| {self.fault} | {self.tried} | {self.untouched} | {self.survived} | {lost} |"


@dataclass(frozen=True)
class Disk:
    """A file system in memory with a project on it."""

    project: Path

    def resize(self, size: int) -> None:
        self._remount(f"size={size}")

    def leave(self, room: int) -> None:
        """So many bytes are free."""
        about = os.statvfs(self.project)
        self.resize((about.f_blocks - about.f_bfree) * about.f_frsize + room)

    def writable(self, yes: bool) -> None:
        self._remount("rw" if yes else "ro")

    def _remount(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", self.project], check=True)


@dataclass(frozen=True)
class ControlGroup:
    """What the processes in it may take of the memory."""

    folder: Path
    limits: tuple[str, ...]
    most: str

    def limit(self, size: int) -> None:
        for name in self.limits:
            if (self.folder / name).exists():
                (self.folder / name).write_text("0" if name == "memory.swap.max" else str(size))

    def taken(self) -> int:
        """The most that was taken, in bytes."""
        return int((self.folder / self.most).read_text())

    def left(self) -> list[int]:
        """The processes that are still there after a while; they are killed."""
        deadline = time.monotonic() + LEFT_SECONDS
        while (found := self._processes()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        while self._processes():
            time.sleep(POLL_SECONDS)
        return found

    def _processes(self) -> list[int]:
        return [int(line) for line in (self.folder / "cgroup.procs").read_text().split()]


@contextmanager
def control_group() -> Iterator[ControlGroup]:
    """A new one.

    Raises:
        OSError: none may be made here.
    """
    version = 1 if (CGROUPS / "cgroup.controllers").exists() else 0
    below, limits, most = CONTROL_GROUPS[version]
    made = ControlGroup(Path(tempfile.mkdtemp(prefix="faults-", dir=CGROUPS / below)), limits, most)
    try:
        if not (made.folder / most).exists():
            raise OSError(f"{made.folder}: no control group of the memory")
        yield made
    finally:
        made.left()
        made.folder.rmdir()


def files(project: Path) -> dict[str, str]:
    """Every file that a stage may write, by its content; not the pages that carry a date."""
    found = {}
    for folder in ("data", "metrics", "reports", "monitoring"):
        for path in sorted((project / folder).rglob("*")):
            name = path.relative_to(project).as_posix()
            if path.is_file() and name not in NAMED and not name.startswith(("data/runs", "monitoring")):
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def run_stage(
    project: Path, stage: str, group: ControlGroup | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The commands of a stage up to one that fails, by the Python that runs here."""
    commands = read_lock(project)["stages"][stage]["cmd"]
    into = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group.folder / "cgroup.procs")] if group else []
    for command in [commands] if isinstance(commands, str) else commands:
        done = subprocess.run(
            [*into, sys.executable, *shlex.split(command)[1:]], cwd=project, env=QUIET | environment,
            capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        if done.returncode:
            break
    return done


def size_of_outputs(project: Path, stage: str) -> int:
    paths = [project / out["path"] for out in read_lock(project)["stages"][stage]["outs"]]
    own = [one for path in paths for one in (path.rglob("*") if path.is_dir() else [path]) if one.is_file()]
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in own)


def fault_in(told: str, code: int) -> str | None:
    """What is wrong with how a stage ended that could not go on; None: one line and exit code 1."""
    lines = [line for line in told.splitlines() if line.startswith("error: ")]
    if "Traceback" in told:
        return "a traceback"
    if code != 1 or len(lines) != 1:
        return f"exit code {code}, {len(lines)} lines of error"
    return None


def hindered(disk: Disk, stage: str, outcome: Outcome, expected: dict[str, str]) -> None:
    """Run a stage that the disk hinders, then without hindrance."""
    done = run_stage(disk.project, stage)
    after = files(disk.project)
    disk.writable(True)
    disk.resize(PLENTY)
    if done.returncode == 0 and after == expected:
        outcome.untouched += 1
        return
    judge(disk, stage, outcome, expected, after, done, fault_in(done.stderr, done.returncode))


def short_of_memory(disk: Disk, stage: str, outcome: Outcome, share: float, expected: dict[str, str]) -> None:
    """Run a stage with a share of the memory that it takes at most, then without limits."""
    with control_group() as group:
        run_stage(disk.project, stage, group)
        needed = group.taken()
    with control_group() as group:
        group.limit(int(share * needed) // PAGE * PAGE)
        done = run_stage(disk.project, stage, group)
        left = group.left()
    # What a killed stage had begun is taken away by the next run, after which it is looked for.
    after = {name: content for name, content in files(disk.project).items() if ".partial-" not in name}
    if done.returncode == 0 and after == expected and not left:
        outcome.untouched += 1
        return
    wrong = None if done.returncode == -signal.SIGKILL else fault_in(done.stderr, done.returncode)
    wrong = f"{len(left)} processes are left" if left else wrong
    judge(disk, stage, outcome, expected, after, done, wrong)


def judge(
    disk: Disk,
    stage: str,
    outcome: Outcome,
    expected: dict[str, str],
    after: dict[str, str],
    done: subprocess.CompletedProcess[str],
    wrong: str | None,
) -> None:
    """Nothing is wrong with how the stage ended, its files stayed, and the next run gives what it should."""
    outcome.tried += 1
    changed = sorted(name for name in after.keys() | expected.keys() if after.get(name) != expected.get(name))
    again = run_stage(disk.project, stage)
    if wrong or changed or again.returncode or files(disk.project) != expected:
        what = wrong or (f"changed: {', '.join(changed[:5])}" if changed else f"then: {again.stderr[-500:]}")
        outcome.reasons.append(f"{outcome.fault}, {stage}: {what}\n{done.stderr[-1500:]}")
    else:
        outcome.survived += 1


def clock_set(disk: Disk, stage: str, outcome: Outcome, jump: float, expected: dict[str, str]) -> None:
    """Run a stage while the clock is set."""
    outcome.tried += 1
    own = disk.project.parent / "clock"
    own.mkdir(exist_ok=True)
    (own / "sitecustomize.py").write_text(CLOCK)
    path = f"{own}{os.pathsep}{QUIET['PYTHONPATH']}"
    done = run_stage(disk.project, stage, PYTHONPATH=path, CLOCK_JUMP=str(jump), CLOCK_CALLS=str(CALLS_BEFORE))
    if done.returncode == 0 and files(disk.project) == expected:
        outcome.survived += 1
    else:
        outcome.reasons.append(f"{outcome.fault}, {stage}: exit code {done.returncode}\n{done.stderr[-1500:]}")


def mounted(folder: Path) -> Disk:
    """A built project on a file system in memory."""
    built = tiny_project(folder)
    place = folder / "disk"
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={PLENTY}", "faults", place], check=True)
    shutil.copytree(built, place, symlinks=True, dirs_exist_ok=True)
    return Disk(place)


def of_disk(disk: Disk, stages: list[str]) -> Iterator[Outcome]:
    expected = files(disk.project)
    for name, share in ROOM.items():
        outcome = Outcome(f"disk full: {name} of what the stage writes" if share else "disk full: no room")
        for stage in stages:
            disk.leave(int(share * size_of_outputs(disk.project, stage)) // PAGE * PAGE)
            hindered(disk, stage, outcome, expected)
        yield outcome
    outcome = Outcome("read-only file system")
    for stage in stages:
        disk.writable(False)
        hindered(disk, stage, outcome, expected)
    yield outcome


def of_memory(disk: Disk, stages: list[str]) -> Iterator[Outcome]:
    expected = files(disk.project)
    try:
        with control_group():
            pass
    except OSError as error:
        print(f"memory: not tried: no control group can be made here ({error})", file=sys.stderr)
        return
    for name, share in MEMORY.items():
        outcome = Outcome(f"{name} of what the stage takes")
        for stage in stages:
            short_of_memory(disk, stage, outcome, share, expected)
        yield outcome


def of_clock(disk: Disk, stages: list[str]) -> Iterator[Outcome]:
    expected = files(disk.project)
    for name, jump in CLOCKS.items():
        outcome = Outcome(name)
        for stage in stages:
            clock_set(disk, stage, outcome, jump, expected)
        yield outcome


FAULTS = {"disk": of_disk, "memory": of_memory, "clock": of_clock}


def main() -> int:
    """Print the table, and what went wrong below each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(STAGES), help="stages")
    parser.add_argument("--faults", default=",".join(FAULTS), help="kinds of faults")
    parser.add_argument("--folder", type=Path, help="where to work, and to keep what was built for the next time")
    given = parser.parse_args()
    only, kinds = given.only.split(","), given.faults.split(",")
    for name, chosen, known in (("--only", only, STAGES), ("--faults", kinds, FAULTS)):
        if not set(chosen) <= set(known):
            parser.error(f"{name}: expected some of {', '.join(known)}")
    if INSIDE not in os.environ:
        inside = ["unshare", "--map-root-user", "--mount", sys.executable, *sys.argv]
        os.execvpe(inside[0], inside, os.environ | {INSIDE: "1"})
    lost = 0
    with nullcontext(given.folder) if given.folder else tempfile.TemporaryDirectory() as folder:
        disk = mounted(Path(folder).resolve())
        print("| fault | tried | not reached | survived | lost |", "| --- " * 5 + "|", sep="\n", flush=True)
        try:
            stages = [ONE_OF_EACH.get(stage, stage) for stage in only]
            for outcome in chain.from_iterable(FAULTS[kind](disk, stages) for kind in kinds):
                print(outcome, *outcome.reasons, sep="\n", flush=True)
                lost += outcome.tried - outcome.survived
        finally:
            subprocess.run(["umount", disk.project], check=True)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
