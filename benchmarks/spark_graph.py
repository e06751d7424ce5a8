"""The stage `graph` by DuckDB and by Spark on made-up posts: seconds, memory, and whether the files are the same.

    python -m benchmarks.spark_graph [POSTS ...]

The posts are those of benchmarks/many_posts.py. Each engine runs in a process of its own; Java's start is part of the
time, imports are not. Spark runs in the cores of this machine, or where SPARK_CONF_DIR says. Memory is the most that
the process and Java held in RAM, each at its own time.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import psutil

from benchmarks.harness import ROOT
from benchmarks.many_posts import ROWS, run_stage
from ntulm.files import read_json
from ntulm.graph import stage as graph
from ntulm.layout import Layout
from ntulm.params import load_params
from ntulm.resources import cores

SIZES = (1_000_000, 3_000_000, 10_000_000)
ENGINES = ("duckdb", "spark")


def main() -> None:
    """Each size and engine, or the engine that a process of its own was started for."""
    if sys.argv[1:2] == ["--engine"]:
        print(json.dumps(_measured(sys.argv[2], Layout(Path(sys.argv[3])))))
        return
    print(f"{cores()} cores; graph.memory_limit {load_params(ROOT / 'params.yaml').graph.memory_limit}\n")
    print("| posts | edges | engine | seconds | posts/s | memory | files |")
    print("| --: | --: | :-- | --: | --: | --: | :-- |")
    for size in [int(one) for one in sys.argv[1:]] or SIZES:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            _size(size, Path(name))


def _size(size: int, folder: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(ROWS.format(path=folder / "posts.jsonl"), {"posts": size})
    run_stage("corpus", folder)
    (folder / "posts.jsonl").unlink()
    digests = []
    for engine in ENGINES:
        command = [sys.executable, "-m", "benchmarks.spark_graph", "--engine", engine, str(folder)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        one = json.loads(done.stdout.splitlines()[-1])
        digests.append(one["digest"])
        print(
            f"| {size:,} | {one['edges']:,} | {engine} | {one['seconds']:.1f} | {size / one['seconds']:,.0f} | "
            f"{one['peak'] / 2**20:,.0f} MiB | {'the same' if one['digest'] == digests[0] else 'OTHERS'} |",
            flush=True,
        )


def _measured(engine: str, layout: Layout) -> dict:
    params = load_params(ROOT / "params.yaml")
    started = time.perf_counter()
    graph.run(params.graph.model_copy(update={"engine": engine}), params.ntus.scheme, layout)
    seconds = time.perf_counter() - started
    own = psutil.Process()
    peak = sum(_most_held(process.pid) for process in (own, *own.children(recursive=True)))
    files = [path for path in sorted(layout.graph.rglob("*")) if path.is_file()]
    digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()
    edges = read_json(layout.metrics("graph"))["edges"]
    return {"seconds": seconds, "peak": peak, "digest": digest, "edges": edges}


def _most_held(process: int) -> int:
    """Bytes in RAM at most."""
    status = Path(f"/proc/{process}/status").read_text()
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    main()
