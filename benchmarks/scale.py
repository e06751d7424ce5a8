"""How long and how large, on paper: hours, memory and disk per stage from the measured rates, as Markdown.

    python -m benchmarks.scale

The rates are those of docs/benchmarks.md, docs/benchmarks-gpu.md and `benchmarks/many_posts.py`; each stands here with
its source. A stage's time is linear in posts or edges: growth exponents between 0.7 and 1.1 were measured.
"""

from typing import NamedTuple

POSTS = (1_000_000, 100_000_000, 1_000_000_000)
EDGES = (10_000_000, 1_000_000_000, 10_000_000_000)
EDGES_PER_NODE = 28.5  # the paper's graph: 9 billion edges, 315 million nodes (§4.1)
DIMENSION, EPOCHS = 200, 10  # of the table (App. B), and how often an edge is seen
FLOAT, INTEGER = 4, 8  # bytes
VECTOR = 384  # numbers of a post's vector (MiniLM), kept as float16
HOUR = 3600.0


class Rate(NamedTuple):
    """Posts or edges per second on two machines."""

    stage: str
    cpu: float  # two cores
    gpu: float | None  # one H200 with 16 cores; None: the stage uses no GPU
    source: str


OF_POSTS = (
    Rate("corpus", CORPUS, None, "`benchmarks.many_posts`, 10 M posts"),
    Rate("graph", GRAPH, None, "the same"),
    Rate("pretrain, per variant, seed and epoch", 96.1, 4560, "Fine-tuning the language model"),
    Rate("encode", 886, 9014, "Encoding posts"),
)
OF_EDGES = (
    Rate("edges to the input of PyTorch-BigGraph", 786_480, None, "Edges to the input of PyTorch-BigGraph"),
    Rate(f"embeddings, {EPOCHS} epochs, engine `torch`", 113_383 / EPOCHS, 14.1e6 / EPOCHS, "Graph embedding"),
    Rate(f"embeddings, {EPOCHS} epochs, engine `pbg`", 29_150 / EPOCHS, None, "Graph embedding"),
)


def main() -> None:
    """Print the tables."""
    print(table("posts", POSTS, OF_POSTS), table("edges", EDGES, OF_EDGES), sizes(), sep="\n\n")


def table(unit: str, amounts: tuple[int, ...], rates: tuple[Rate, ...]) -> str:
    """Hours of each stage, on two cores / on a GPU machine."""
    heads = [f"{amount:,} {unit}" for amount in amounts]
    lines = [f"| stage | {unit}/s | {' | '.join(heads)} | measured in |", f"| :-- | --: |{' --: |' * len(heads)} :-- |"]
    for rate in rates:
        speeds = [one for one in (rate.cpu, rate.gpu) if one is not None]
        cells = [" / ".join(hours(amount / speed) for speed in speeds) for amount in amounts]
        shown = " / ".join(f"{speed:,.0f}" for speed in speeds)
        lines.append(f"| {rate.stage} | {shown} | {' | '.join(cells)} | {rate.source} |")
    return "\n".join(lines)


def hours(seconds: float) -> str:
    """In the unit that is read most easily."""
    for unit, size in (("days", 24 * HOUR), ("h", HOUR), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:,.3g} {unit}"
    return f"{seconds:,.2g} s"


def sizes() -> str:
    """Bytes of the table, of its training input, and of kept vectors."""
    nodes = [int(edges / EDGES_PER_NODE) for edges in EDGES]
    rows = {
        f"table in memory, d {DIMENSION}": [count * DIMENSION * FLOAT for count in nodes],
        "input of PyTorch-BigGraph on the disk": [edges * 3 * INTEGER for edges in EDGES],
        "vectors of posts, float16": [posts * VECTOR * 2 for posts in POSTS],
    }
    heads = [f"{edges:,} edges, {posts:,} posts" for edges, posts in zip(EDGES, POSTS, strict=True)]
    lines = [f"| what | {' | '.join(heads)} |", f"| :-- |{' --: |' * len(heads)}"]
    lines += [f"| {name} | {' | '.join(f'{size / 1e9:,.3g} GB' for size in found)} |" for name, found in rows.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
