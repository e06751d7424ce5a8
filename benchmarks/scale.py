"""What a size costs: time, memory, disk and money per stage and engine, on paper, from measured constants.

    python -m benchmarks.scale > docs/scale.md

Nothing is measured here. CONSTANTS says what was measured, where and by which command, and the tables multiply. The
rates of two cores are taken to grow with the cores, which nobody measured beyond two.
"""

from __future__ import annotations

from typing import NamedTuple

CORES = 2  # of the machine of the measurements
MACHINE = 16  # cores of a machine in the tables
CLUSTER = 8  # machines of a cluster in the tables
CORE_HOUR, GPU_HOUR = 0.05, 3.50  # USD, assumed: what a core, and a GPU with its machine, cost per hour
EPOCHS = 10  # of the graph embedding
DIMENSION = 200  # the paper's
EDGES_PER_NODE = 9e9 / (255e6 + 60e6)  # the paper's graph, section 3.1
GPU_MEMORY = 139e9  # bytes of an H200
EDGE_BYTES = 24  # in the files of PyTorch-BigGraph: two nodes and a relation, 8 bytes each
POSTS = (1e6, 1e8, 1e9)
EDGES = (1e7, 1e9, 1e10)
SAMPLES = (40_000, 1_000_000)  # posts that a language model learns from: the recipes', the paper's


class Constant(NamedTuple):
    """What was measured."""

    value: float
    unit: str
    what: str
    where: str
    command: str


CPU = "2 cores (Xeon with AMX)"
GPU = "H200, 16 cores"
LAST_KNOWN = "[last known](benchmarks-gpu.md)"
CONSTANTS = {
    "corpus": Constant(27_197, "posts/s", "`corpus`", CPU, "`benchmarks.many_posts`, 10 M posts"),
    "graph": Constant(186_678, "posts/s", "`graph`, DuckDB", CPU, "`benchmarks.spark_graph`, 3 M posts"),
    "edges per post": Constant(1.6574, "edges", "edges per post of that generator", CPU, "the same"),
    "spark": Constant(14_731, "posts/s", "`graph`, Spark, `local[2]`", CPU, "the same"),
    "pbg": Constant(29_150, "edges/s", "`embeddings`, `pbg`", CPU, "`benchmarks.graph_embedding`"),
    "torch": Constant(113_383, "edges/s", "`embeddings`, `torch`, batches of 1,000", CPU, "the same"),
    "torch, GPU": Constant(14.1e6, "edges/s", "the same, batches of 100,000", GPU, LAST_KNOWN),
    "pretrain": Constant(96.1, "posts/s", "`adapt` and `pretrain`, MiniLM", CPU, "`benchmarks.pretrain`"),
    "pretrain, GPU": Constant(4_560, "posts/s", "the same", GPU, LAST_KNOWN),
    "encode": Constant(886, "posts/s", "`encode` and `ntulm embed`, MiniLM", CPU, "`benchmarks.encode`"),
    "encode, GPU": Constant(9_014, "posts/s", "the same", GPU, LAST_KNOWN),
}


class Cost(NamedTuple):
    """Of one stage."""

    hours: float
    dollars: float

    def __str__(self) -> str:
        return f"{_time(self.hours)}, {_money(self.dollars)}"


def on_cores(constant: str, items: float, machines: int = 1) -> Cost:
    """Items at a rate of CORES cores, on machines of MACHINE cores: hours = items / (rate × cores / CORES) / 3600."""
    cores = MACHINE * machines
    hours = items / (CONSTANTS[constant].value * cores / CORES) / 3600
    return Cost(hours, hours * cores * CORE_HOUR)


def on_gpu(constant: str, items: float) -> Cost:
    """Items at the rate of one GPU: hours = items / rate / 3600."""
    hours = items / CONSTANTS[constant].value / 3600
    return Cost(hours, hours * GPU_HOUR)


def table_bytes(edges: float) -> float:
    """Of the table and its optimizer: per node DIMENSION numbers of float32, and one of Adagrad for the row."""
    return edges / EDGES_PER_NODE * (DIMENSION + 1) * 4


def partitions(edges: float, memory: float) -> int:
    """The least even number with which two partitions of each of two types take half of the memory."""
    number = 1
    while table_bytes(edges) / number * 2 > memory / 2 and number < 1 << 20:
        number = max(2, number * 2)
    return number


def _time(hours: float) -> str:
    for limit, factor, unit in ((1 / 60, 3600, "s"), (1, 60, "min"), (72, 1, "h")):
        if hours < limit:
            return f"{hours * factor:,.0f} {unit}"
    return f"{hours / 24:,.0f} days"


def _money(dollars: float) -> str:
    return f"${dollars:,.0f}" if dollars >= 10 else f"${dollars:.2f}"


def _size(number: float) -> str:
    for limit, factor, unit in ((1e12, 1e9, "GB"), (float("inf"), 1e12, "TB")):
        if number < limit:
            return f"{number / factor:,.3g} {unit}"
    raise AssertionError


def _count(number: float) -> str:
    return f"{number / 1e9:g} B" if number >= 1e9 else f"{number / 1e6:g} M"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, [":--"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _constants() -> str:
    rows = [[one.what, f"{one.value:,.10g} {one.unit}", one.where, one.command] for one in CONSTANTS.values()]
    return _table(["what", "measured", "on", "by"], rows)


def _posts() -> str:
    """Per number of posts."""
    rows = [
        ["`corpus`, one machine", *(str(on_cores("corpus", posts)) for posts in POSTS)],
        ["`graph`, DuckDB, one machine", *(str(on_cores("graph", posts)) for posts in POSTS)],
        [f"`graph`, Spark, {CLUSTER} machines", *(str(on_cores("spark", posts, CLUSTER)) for posts in POSTS)],
        ["`embed`, one machine", *(str(on_cores("encode", posts)) for posts in POSTS)],
        ["`embed`, one GPU", *(str(on_gpu("encode, GPU", posts)) for posts in POSTS)],
    ]
    return _table(["posts", *map(_count, POSTS)], rows)


def _edges() -> str:
    """Per number of edges."""
    trained = [edges * EPOCHS for edges in EDGES]
    rows = [
        [
            "nodes, as many per edge as in the paper's graph",
            *(_count(round(edges / EDGES_PER_NODE, -5)) for edges in EDGES),
        ],
        [
            "posts of the generator that give them",
            *(_count(round(edges / CONSTANTS["edges per post"].value, -5)) for edges in EDGES),
        ],
        ["table with its optimizer", *(_size(table_bytes(edges)) for edges in EDGES)],
        ["edges on the disk", *(_size(edges * EDGE_BYTES) for edges in EDGES)],
        ["`pbg`, one machine", *(str(on_cores("pbg", edges)) for edges in trained)],
        [f"`pbg`, {CLUSTER} machines", *(str(on_cores("pbg", edges, CLUSTER)) for edges in trained)],
        ["`torch`, one GPU", *(str(on_gpu("torch, GPU", edges)) for edges in trained)],
        ["partitions, so that a GPU's memory suffices", *(str(partitions(edges, GPU_MEMORY)) for edges in EDGES)],
    ]
    return _table(["edges", *map(_count, EDGES)], rows)


def _language_model() -> str:
    """Per number of posts that it learns from."""
    rows = [
        ["one machine", *(str(on_cores("pretrain", posts)) for posts in SAMPLES)],
        ["one GPU", *(str(on_gpu("pretrain, GPU", posts)) for posts in SAMPLES)],
    ]
    return _table(["one training, posts", *(f"{posts:,}" for posts in SAMPLES)], rows)


def page() -> str:
    """The whole page, in Markdown."""
    return PAGE.format(
        constants=_constants(), posts=_posts(), edges=_edges(), language_model=_language_model(),
        machine=MACHINE, cluster=CLUSTER, core=CORE_HOUR, gpu=GPU_HOUR, epochs=EPOCHS, dimension=DIMENSION,
        edge_bytes=EDGE_BYTES, row=(DIMENSION + 1) * 4, cores=CORES,
    )  # fmt: skip


PAGE = """\
# Scale

What a size costs, **on paper**: nobody ran the larger sizes. `python -m benchmarks.scale` writes this page from the
constants below, which were measured. Read the tables as orders of magnitude: posts of yours are longer or shorter
than those of the generator, and rates of two cores are taken to grow with the cores. [When one machine is not
enough](how-to/more-than-one-machine.md) says how each engine is run.

## Measured

{constants}
The generator is that of `benchmarks/many_posts.py`: about 190 bytes per post, a fifth reposts. Real exports have ten
times the bytes per post (Twitter's objects) or as many (tables), and the readers go by bytes as much as by posts
([sources](sources.md)). `corpus` and `graph` were measured beside other work on the same cores, so they are slower
than they need be. Memory at 10 M posts: 2,717 MiB for `corpus`, 2,067 MiB for `graph`, both with 2 GB for DuckDB, which
spills beyond that; at 2.5 M posts 2,304 and 709 MiB. Spark gave the same files as DuckDB, and on two cores took 13
times as long at 3 M posts, 20 times at 1 M: it is for what one machine does not hold, not for speed.

## Formulas

- Time: `items / (rate × cores / {cores}) / 3600` hours on cores, `items / rate / 3600` on a GPU. Tables: machines of
  {machine} cores, clusters of {cluster} such machines. Money: ${core:.2f} per core and hour, ${gpu:.2f} per GPU and
  hour, assumed.
- Graph embedding: edges × {epochs} epochs, dimension {dimension}, 500 negatives of the batch and 500 uniform ones.
  Memory of the table: nodes × {row} bytes (a row of float32, and Adagrad's one number per row). Disk: edges ×
  {edge_bytes} bytes, times `graph.max_count` at most.
- With `partitions: K`, a process holds 2 / K of the table and reads and writes all of it once per pass over the
  buckets, four times per epoch.

## By posts

{posts}
## By edges

{edges}
## The language model

It learns from a sample (`adapt.max_posts`, `pretrain.max_posts`), whatever the number of posts there are: once for
`adapt`, then once per variant and seed.

{language_model}
Beside them the probes: minutes each, on a core.

## What breaks first

- **Posts:** first the time of `corpus`, which runs on one machine (the engine `spark` has `graph` alone). Then disk:
  the export, what DuckDB spills, the outputs, and DVC's cache, which holds them once more unless the file system links.
- **Edges:** first the time of `pbg` on one machine, long before its memory. Then the memory of the first machine,
  which holds the whole table once when the training is done, whatever the number of partitions.
- **Nodes:** first the memory of the GPU, for which there are partitions. Then the table of the model directory,
  nodes × dimension × 4 bytes on each machine that embeds.
- **Vectors of posts:** `ntulm similar` reads all of them, posts × dimension × 4 bytes.
- **Variants and seeds:** each is a training of its own.
"""


if __name__ == "__main__":
    print(page(), end="")
