"""Damage small valid files in every way that comes to mind, and read them: every reader, and all that is read back.

    PYTHONPATH=. python tests/fuzz.py [--minutes 30] [--executions 1000000] [--seed 0] [--only table]    # `make fuzz`

Each execution is a number: the seed of what is damaged and how, so that `--only TARGET --seed N --executions 1` repeats
it. What may come out: a result whose counts add up, or a UserError. All else is a fault: another exception, a signal,
no answer within SECONDS, more than MEGABYTES of memory on top of what the process had. Targets run in processes of
their own. Prints a Markdown table.
`tests/test_fuzz.py` runs a sample.
"""

import argparse
import faulthandler
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz_targets import TARGETS

from ntulm.errors import UserError

SECONDS = 25
MEGABYTES = 1500  # more than the process had before its target: libraries and the data of the examples
MOST_DAMAGES = 4
TOKENS = [
    b"\x00", b"\xff\xfe", b"\x1b[2J", b'"', b"'", b"{", b"}", b"[", b"]", b"[" * 3000, b'{"a":' * 2000, b",", b"\n",
    b"\r", b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"9" * 40, b"2016-02-30", b"infinity", b"\xed\xa0\x80",
    b"# " * 300, b"<script>", b"../../x", b"a; touch X", b"!!python/object:os.system", b"&a [*a]", b": ", b"- ", b"\t",
    b"%s", b"\\u0000", b"A" * 70000,
]  # fmt: skip


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The bytes with up to MOST_DAMAGES changes."""
    data = bytearray(content)
    for _ in range(chance.randint(1, MOST_DAMAGES)):
        at, until = sorted((chance.randrange(len(data) + 1), chance.randrange(len(data) + 1)))
        until = min(until, at + chance.choice((1, 8, 200, len(data))))
        match chance.randrange(7):
            case 0 if data:
                data[min(at, len(data) - 1)] = chance.randrange(256)
            case 1 if data:
                data[min(at, len(data) - 1)] ^= 1 << chance.randrange(8)
            case 2:
                del data[at:until]
            case 3:
                data[at:at] = data[at:until]
            case 4:
                data[at:at] = chance.choice(TOKENS)
            case 5:
                data[at:until] = chance.choice(TOKENS)
            case _:
                del data[at + chance.randrange(3) :]
    return bytes(data)


class FaultError(Exception):
    """What must not come out."""


def execute(read: Callable[[Path], Any], example: Path, work: Path, seed: int) -> bool:
    """Damage a copy of the example and read it; whether it was read, else it was refused.

    Raises:
        FaultError: neither.
    """
    chance = random.Random(seed)
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(example, work)
    files = sorted(path for path in work.rglob("*") if path.is_file())
    for path in chance.sample(files, 1 if chance.random() < 0.8 else min(2, len(files))):
        path.write_bytes(damaged(path.read_bytes(), chance))
    signal.alarm(SECONDS)
    try:
        read(work)
    except UserError as error:
        if "\n" in str(error):
            raise FaultError(f"a message of several lines: {error}") from error
        return False
    except BaseException as error:
        place = "".join(traceback.format_exception(error)[-3:])[-1500:]
        raise FaultError(f"{type(error).__name__}: {error}\n{place}") from error
    finally:
        signal.alarm(0)
    return True


def megabytes() -> float:
    """The most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _too_slow(number: int, frame: Any) -> None:
    raise TimeoutError(f"no answer within {SECONDS} seconds")


@dataclass
class Tally:
    """What came of a target."""

    target: str
    executions: int = 0
    read: int = 0
    faults: int = 0

    def __str__(self) -> str:
        refused = self.executions - self.read - self.faults
        return f"| {self.target} | {self.executions} | {self.read} | {refused} | {self.faults} | {megabytes():.0f} |"


COLUMNS = ("target", "executions", "read", "refused", "faults", "MB")


def run(target: str, folder: Path, seed: int, executions: int, until: float, say: Callable[[str], None]) -> Tally:
    """Executions of one target, with numbers from the seed on."""
    examples, read = TARGETS[target]
    kept = folder / "example"
    kept.mkdir(parents=True)
    examples(kept)
    folders = sorted(path for path in kept.iterdir() if path.is_dir())
    tally, work, last = Tally(target), folder / "work", folder / "last"
    most = megabytes() + MEGABYTES
    signal.signal(signal.SIGALRM, _too_slow)
    for number in range(seed, seed + executions):
        if time.monotonic() > until:
            break
        last.write_text(str(number))  # for whoever finds this process dead
        tally.executions += 1
        try:
            tally.read += execute(read, folders[number % len(folders)], work, number)
            if megabytes() > most:
                raise FaultError(f"{megabytes():.0f} MB in memory")
        except FaultError as fault:
            tally.faults += 1
            say(f"{target}: --seed {number}: {fault}")
    return tally


def alone(target: str, folder: Path, seed: int, executions: int, seconds: float) -> bool:
    """A target in a process of its own, anew after each that dies; whether all went well."""
    done, well, started = 0, True, time.monotonic()
    while done < executions and time.monotonic() - started < seconds:
        place = folder / f"{target}-{done}"
        left = seconds - (time.monotonic() - started)
        given = ["--seed", str(seed + done), "--executions", str(executions - done), "--minutes", str(left / 60)]
        command = [sys.executable, __file__, "--target", target, "--folder", str(place), *given]
        ended = subprocess.run(command, check=False)
        if ended.returncode >= 0:
            return well and not ended.returncode
        last = int((place / "last").read_text())
        print(f"{target}: --seed {last}: the process died of signal {-ended.returncode}", file=sys.stderr, flush=True)
        done, well = last - seed + 1, False
    return well


def main() -> int:
    """Print the table; faults go to standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="in all")
    parser.add_argument("--executions", type=int, default=1_000_000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(TARGETS))
    parser.add_argument("--target", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.target:
        faulthandler.enable()
        until = time.monotonic() + given.minutes * 60
        tally = run(
            given.target, given.folder, given.seed, given.executions, until, lambda line: print(line, file=sys.stderr)
        )
        print(tally, flush=True)
        return 1 if tally.faults else 0
    only = given.only.split(",")
    if not set(only) <= TARGETS.keys():
        parser.error(f"--only: expected some of {', '.join(TARGETS)}")
    print(f"| {' | '.join(COLUMNS)} |", "| --- " * len(COLUMNS) + "|", sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        each = -(-given.executions // len(only)), given.minutes * 60 / len(only)
        well = [alone(target, Path(folder), given.seed, *each) for target in only]
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
