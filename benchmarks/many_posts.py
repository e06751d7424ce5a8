"""Corpus and graph of many made-up posts: seconds, posts per second and peak memory of each stage, by size.

    python -m benchmarks.many_posts [POSTS ...]

The export is a table of JSON lines, about 250 bytes each, made by DuckDB: a fifth of the rows are reposts, authors and
hashtags are as unevenly used as in real exports. Each stage runs in a process of its own; memory is the most that it
held in RAM (`ru_maxrss`).
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

from benchmarks.harness import ROOT
from ntulm.corpus import stage as corpus
from ntulm.files import read_json
from ntulm.graph import stage as graph
from ntulm.layout import Layout
from ntulm.params import load_params

SIZES = (625_000, 2_500_000, 10_000_000)
ROWS = """
COPY (
    SELECT 'p' || i AS id, strftime(TIMESTAMP '2020-01-01' + to_seconds((i * 3)::BIGINT), '%Y-%m-%dT%H:%M:%SZ') AS at,
        'user' || floor(pow(u, 3) * authors)::BIGINT AS author,
        'word' || (hash(i) % 5000) || ' word' || (hash(i + 1) % 5000) || ' and some more of what people write a day #'
            || tag || CASE WHEN i % 3 = 0 THEN ' #' || other ELSE '' END || ' @user' || (hash(i + 2) % authors) AS body,
        CASE WHEN i % 5 = 0 AND i > 100 THEN 'p' || (i - 1 - hash(i + 3) % 100 // 5 * 5) END AS of,
        CASE WHEN i % 5 = 0 AND i > 100 THEN 'user' || (hash(i + 4) % authors) END AS of_author
    FROM (SELECT i, authors, (hash(i + 5) % 1000000) / 1e6 AS u,
            'tag' || floor(pow((hash(i + 6) % 1000000) / 1e6, 3) * authors / 4)::BIGINT AS tag,
            'tag' || floor(pow((hash(i + 7) % 1000000) / 1e6, 3) * authors / 4)::BIGINT AS other
        FROM (SELECT range AS i, greatest($posts // 20, 100) AS authors FROM range($posts)))
) TO '{path}' (FORMAT json)
"""  # the path is one of ours
TABLE = {
    "post_id": "id", "created_at": "at", "text": "body", "author": "author", "reposted_id": "of",
    "reposted_author": "of_author",
}  # fmt: skip


def main() -> None:
    """Each size, or the stage that a process of its own was started for."""
    if sys.argv[1:2] == ["--stage"]:
        print(json.dumps(_measured(sys.argv[2], Path(sys.argv[3]))))
        return
    sizes = [int(one) for one in sys.argv[1:]] or SIZES
    print("| posts | export | stage | seconds | posts/s | memory | found |")
    print("| --: | --: | :-- | --: | --: | --: | :-- |")
    taken: dict[str, list[float]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            with duckdb.connect() as connection:
                connection.execute(ROWS.format(path=folder / "posts.jsonl"), {"posts": size})
            for stage in ("corpus", "graph"):
                one = run_stage(stage, folder)
                taken.setdefault(stage, []).append(one["seconds"])
                megabytes = (folder / "posts.jsonl").stat().st_size / 1e6
                print(
                    f"| {size:,} | {megabytes:,.0f} MB | {stage} | {one['seconds']:.1f} | "
                    f"{size / one['seconds']:,.0f} | {one['peak'] / 2**20:,.0f} MiB | {one['found']} |",
                    flush=True,
                )
    if len(sizes) > 1:
        for stage, seconds in taken.items():
            exponent = math.log(seconds[-1] / seconds[0]) / math.log(sizes[-1] / sizes[0])
            print(f"\nGrowth exponent of {stage}: {exponent:.2f} (1 is linear).")


def run_stage(stage: str, folder: Path) -> dict:
    """What a stage measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.many_posts", "--stage", stage, str(folder)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    outcome: dict = json.loads(done.stdout.splitlines()[-1])
    return outcome


def _measured(stage: str, folder: Path) -> dict:
    params, layout = load_params(ROOT / "params.yaml"), Layout(folder)
    started = time.perf_counter()
    if stage == "corpus":
        settings = params.corpus.model_dump() | {"path": str(folder / "posts.jsonl"), "format": "table", "table": TABLE}
        settings |= {"forget": str(ROOT / params.corpus.forget), "languages": [], "duplicates": "id"}
        cuts = {"graph_until": 0.7, "train_from": 0.1, "validation_from": 0.8, "test_from": 0.9}
        settings["splits"] |= {"graph_from": 0.0, **cuts}
        corpus.run(type(params.corpus).model_validate(settings), layout)
        counts = read_json(layout.metrics("corpus"))
        found = f"{counts['posts']:,} posts, {counts['reposts']:,} reposts"
    else:
        graph.run(params.graph, params.ntus.scheme, layout)
        counts = read_json(layout.metrics("graph"))
        found = f"{sum(counts['nodes'].values()):,} nodes, {counts['edges']:,} edges"
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0, "found": found}


if __name__ == "__main__":
    main()
