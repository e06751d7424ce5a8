"""Run every benchmark and write docs/benchmarks.md: `make bench`. It takes about half an hour on two cores."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.harness import ROOT, machine_peaks

MODULES = [
    "extraction",
    "pbg_input",
    "graph_embedding",
    "tokenise",
    "pretrain",
    "encode",
    "probe",
    "start_up",
    "commands",
    "serve",
]
GROWTH = {"extraction", "pbg_input", "graph_embedding"}
TARGET = ROOT / "docs/benchmarks.md"


def main() -> None:
    """Collect the sections; a benchmark that fails stands in the page as failed, and in the exit code."""
    sections, failed = [_header()], False
    for name in MODULES:
        for option in [[], ["--growth", "--rounds", "1"]] if name in GROWTH else [[]]:
            command = ["python", "-m", f"benchmarks.{name}", *option]
            done = subprocess.run([sys.executable, *command[1:]], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            failed |= done.returncode != 0
            sections.append(done.stdout if done.returncode == 0 else f"## `{' '.join(command)}` failed\n")
            print(sections[-1], flush=True)
    new = TARGET.with_suffix(".new")
    new.write_text("\n".join(sections), encoding="utf-8")
    new.replace(TARGET)
    sys.exit(int(failed))


def _header() -> str:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{_processor()}, {os.cpu_count()} cores"
    peaks = machine_peaks()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "duckdb", "torchbiggraph"))
    return "\n".join(
        [
            "# Benchmarks",
            "",
            f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}, on {device}; {versions}.",
            "",
            "Each side runs in a fresh process, in turn with the others (A B A B …), on the same input; the figure is",
            "the median, in brackets the smallest and the largest. *Times as fast* is ours over the side of the row,",
            "turn by turn. *Share of peak* is the work that the task needs, over what a plain loop reaches here:",
            f"matrix product {peaks['float32'] / 1e9:,.0f} GFLOP/s in float32 and {peaks['bfloat16'] / 1e9:,.0f} in",
            f"bfloat16, memory copy {peaks['copy'] / 1e9:.1f} GB/s.",
            "",
            "On a GPU: [benchmarks-gpu.md](benchmarks-gpu.md).",
            "",
        ]
    )


def _processor() -> str:
    names = Path("/proc/cpuinfo")
    lines = names.read_text(encoding="utf-8").splitlines() if names.exists() else []
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )
    units = [flag for flag in ("avx512_bf16", "amx_bf16") if any(flag in line.split() for line in lines)]
    return f"{name} ({', '.join(units) or 'no products in bfloat16'})"


if __name__ == "__main__":
    main()
