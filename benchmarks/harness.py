"""Ours and its peers in turn (A B A B …) on the same input, each time in a fresh process; the outcome as Markdown.

Library of the scripts in this folder. A script describes its loop as a `Benchmark` and ends with `run(BENCHMARK)`:

    python -m benchmarks.NAME              # one size, all sides in turn; a Markdown section on standard output
    python -m benchmarks.NAME --growth     # ours at three sizes: does the time grow faster than the input?

A side's time is what it measures itself, so that imports and preparation do not count. The peaks of the machine (a
large matrix product, a memory copy) are measured in the same run: machines that are shared change from hour to hour.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LONG_ENOUGH = 5.0  # seconds for a peak: products in bfloat16 take that long where they are emulated


@dataclass(frozen=True)
class Outcome:
    """What one side measured."""

    seconds: float
    amount: float  # how much was done, in the benchmark's unit
    evidence: Any = None  # goes to `same`, as JSON
    flops: float = 0.0  # floating-point operations that the task needs, where that is its limit
    moved: float = 0.0  # bytes that the task has to read or write, where that is its limit
    peak: float = 0.0  # bytes of memory at most; filled in by `run`


@dataclass(frozen=True)
class Benchmark:
    """One loop."""

    module: str  # benchmarks.NAME
    title: str
    unit: str
    prepare: Callable[[Path, int], None]  # writes the input of that size into the folder
    sides: Mapping[str, Callable[[Path], Outcome]]  # ours first
    same: Callable[[Mapping[str, Any]], str]  # evidence by side -> how they are equal; raises if they are not
    size: int
    growth: tuple[int, int, int]
    precision: str = "bfloat16"  # of the matrix product that `flops` is compared with, if it is ahead of float32
    rounds: int = 3
    limit: str = ""  # what limits ours now
    notes: list[str] = field(default_factory=list)
    arguments: tuple[str, ...] = ()  # of the module, before its options


def run(benchmark: Benchmark) -> None:
    """The command line of a script."""
    parser = argparse.ArgumentParser(description=benchmark.title)
    parser.add_argument("--size", type=int, default=benchmark.size, help=f"{benchmark.unit} of the input")
    parser.add_argument("--rounds", type=int, default=benchmark.rounds)
    parser.add_argument("--growth", action="store_true", help="ours at three sizes, and the exponent")
    parser.add_argument("--side", choices=list(benchmark.sides), help=argparse.SUPPRESS)
    parser.add_argument("--input", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        outcome = benchmark.sides[arguments.side](arguments.input)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
        peak = max(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024.0)
        print(json.dumps(asdict(outcome) | {"peak": peak}))
    elif arguments.growth:
        print(_growth(benchmark, arguments.rounds))
    else:
        print(_section(benchmark, arguments.size, arguments.rounds))


def machine_peaks() -> dict[str, float]:
    """Operations a second of a large matrix product by precision; bytes read and written a second by a copy."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    peaks = {}
    for name in ("float32", "bfloat16"):
        side = 8192 if device == "cuda" else 2048
        left, right = (torch.randn(side, side, device=device).to(getattr(torch, name)) for _ in range(2))
        peaks[name] = 2 * side**3 / _best(partial(torch.matmul, left, right), device)
    source = torch.zeros(2**26 if device == "cpu" else 2**28, device=device)
    target = torch.empty_like(source)
    peaks["copy"] = 2 * source.nbytes / _best(partial(target.copy_, source), device)
    return peaks


def _best(action: Callable[[], object], device: str) -> float:
    import torch

    times: list[float] = []
    while len(times) < 10 and sum(times) < LONG_ENOUGH:
        started = time.perf_counter()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times)


def _measure(benchmark: Benchmark, side: str, folder: Path) -> Outcome:
    command = [sys.executable, "-m", benchmark.module, *benchmark.arguments, "--side", side, "--input", str(folder)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    outcome = Outcome(**json.loads(done.stdout.splitlines()[-1]))
    print(f"{benchmark.module}: {side}: {outcome.seconds:.2f} s", file=sys.stderr, flush=True)
    return outcome


def _section(benchmark: Benchmark, size: int, rounds: int) -> str:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        benchmark.prepare(Path(name), size)
        turns = [{side: _measure(benchmark, side, Path(name)) for side in benchmark.sides} for _ in range(rounds)]
        sense = benchmark.same({side: outcome.evidence for side, outcome in turns[-1].items()})
        peaks = machine_peaks()
    rows = [_row(benchmark, side, turns, peaks) for side in benchmark.sides]
    unit = benchmark.unit
    command = f"`python -m {' '.join([benchmark.module, *benchmark.arguments])} --size {size} --rounds {rounds}`"
    lines = [f"## {benchmark.title}", "", f"{command}: {size:,} {unit}.", ""]
    lines += [
        f"| side | {unit}/s | ours is times as fast | memory | share of peak |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += rows
    lines += ["", f"Same result: {sense}.", "", f"Limit: {benchmark.limit}"]
    lines += [*(["", *benchmark.notes] if benchmark.notes else []), ""]
    return "\n".join(lines)


def _row(benchmark: Benchmark, side: str, turns: list[dict[str, Outcome]], peaks: Mapping[str, float]) -> str:
    ours = next(iter(benchmark.sides))
    rates = [turn[side].amount / turn[side].seconds for turn in turns]
    ratios = [turn[ours].amount / turn[ours].seconds / rate for turn, rate in zip(turns, rates, strict=True)]
    middle, peak = statistics.median(ratios), max(turn[side].peak for turn in turns)
    ratio = "" if side == ours else f"**{middle:.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
    last = turns[-1][side]
    precision = max("float32", benchmark.precision, key=lambda name: peaks[name])  # emulated products are no peak
    shares = []
    seconds = statistics.median(turn[side].seconds for turn in turns)
    if last.flops:
        shares.append(f"{last.flops / seconds / peaks[precision]:.0%} of {precision} product")
    if last.moved:
        shares.append(f"{last.moved / seconds / peaks['copy']:.1%} of copy")
    rate = f"{_short(statistics.median(rates))} ({_short(min(rates))} to {_short(max(rates))})"
    return f"| {side} | {rate} | {ratio} | {peak / 2**20:,.0f} MiB | {', '.join(shares)} |"


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _growth(benchmark: Benchmark, rounds: int) -> str:
    """Ours at three sizes; the exponent is the slope between the smallest and the largest in double logarithms."""
    ours = next(iter(benchmark.sides))
    lines = [f"### Growth: {benchmark.title}", "", f"| {benchmark.unit} | seconds | memory |", "| ---: | ---: | ---: |"]
    seconds = []
    for size in benchmark.growth:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            benchmark.prepare(Path(name), size)
            outcomes = [_measure(benchmark, ours, Path(name)) for _ in range(rounds)]
        seconds.append(statistics.median(outcome.seconds for outcome in outcomes))
        lines.append(f"| {size:,} | {seconds[-1]:.2f} | {max(one.peak for one in outcomes) / 2**20:,.0f} MiB |")
    exponent = math.log(seconds[-1] / seconds[0]) / math.log(benchmark.growth[-1] / benchmark.growth[0])
    return "\n".join([*lines, "", f"Growth exponent: {exponent:.2f} (1 is linear).", ""])
