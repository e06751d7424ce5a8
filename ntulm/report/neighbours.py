"""A look at the embedding table, a node type at a time: the nearest of frequent nodes, and a map in two dimensions.

Reads `data/graph/nodes.parquet` and `data/embeddings/`. Library of the stage `report`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from ntulm.embeddings.table import EmbeddingTable

SHOWN, NEAREST = 12, 8  # nodes with their neighbourhood, and neighbours of each
MAPPED = 150  # nodes on the map
CANDIDATES = 5000  # the most used nodes, among which neighbours are looked for
LONGEST = 24  # characters of a key on the map
SIGNS = {"hashtag": "#", "cashtag": "$"}  # before keys of these forms
PEOPLE = "user"  # a key form: no report shows who is near whom


@dataclass(frozen=True)
class Neighbourhood:
    """A node and those of its type whose vectors have the largest cosine with its own."""

    key: str
    degree: int
    nearest: list[tuple[str, float]]


@dataclass(frozen=True)
class Look:
    """What is shown of a node type."""

    node_type: str
    sign: str  # before each key
    neighbourhoods: list[Neighbourhood]
    map: Path | None  # an SVG file


@dataclass(frozen=True)
class Nodes:
    """The K most used nodes of a type, most used first, with their vectors float32 [K, D] of length 1."""

    keys: list[str]
    degrees: list[int]
    vectors: NDArray[np.float32]


def looks(nodes: Path, table: EmbeddingTable, types: Mapping[str, str], directory: Path) -> list[Look]:
    """A look at each node type of the graph whose keys are no users; the maps are drawn into `directory`.

    Args:
        nodes: the node list of the graph.
        table: the embedding table.
        types: the key form of each type.
        directory: where `TYPEs.svg` goes.
    """
    present = set(pc.unique(pq.read_table(nodes, columns=["type"])["type"]).to_pylist())
    found = []
    for node_type in sorted(name for name in present if types.get(name, "") != PEOPLE):
        frequent = frequent_nodes(nodes, table, node_type)
        drawn = directory / f"{node_type}s.svg"
        picture = drawn if draw_map(frequent, drawn) else None
        found.append(Look(node_type, SIGNS.get(types.get(node_type, ""), ""), neighbourhoods(frequent), picture))
    return found


def frequent_nodes(nodes: Path, table: EmbeddingTable, node_type: str) -> Nodes:
    """The nodes of a type to look at."""
    read = pq.read_table(nodes, columns=["type", "key", "degree"])
    own = read.filter(pc.equal(read["type"], node_type)).sort_by([("degree", "descending"), ("key", "ascending")])
    own = own.slice(0, CANDIDATES)
    keys = own["key"].to_pylist()
    vectors = table.vectors_of(table.rows(node_type, keys))
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return Nodes(keys, own["degree"].to_pylist(), vectors)


def neighbourhoods(nodes: Nodes) -> list[Neighbourhood]:
    """Of the most used nodes, each with its nearest, itself left out."""
    shown = min(SHOWN, len(nodes.keys))
    cosines = nodes.vectors[:shown] @ nodes.vectors.T
    cosines[np.arange(shown), np.arange(shown)] = -np.inf
    found = []
    for place in range(shown):
        nearest = [at for at in np.argsort(-cosines[place], kind="stable")[:NEAREST] if np.isfinite(cosines[place, at])]
        pairs = [(nodes.keys[at], float(cosines[place, at])) for at in nearest]
        found.append(Neighbourhood(nodes.keys[place], nodes.degrees[place], pairs))
    return found


def draw_map(nodes: Nodes, path: Path) -> bool:
    """Draw the most used nodes by t-SNE as SVG; False where there are too few to lay out."""
    count = min(MAPPED, len(nodes.keys))
    if count < 10:
        return False
    projection = TSNE(2, perplexity=min(15, count // 4), init="pca", metric="cosine", random_state=0)
    places = projection.fit_transform(nodes.vectors[:count].astype(np.float64))
    figure = Figure(figsize=(12, 9))
    axis = figure.add_axes((0, 0, 1, 1))
    sizes = 6 + 120 * np.sqrt(np.array(nodes.degrees[:count]) / max(nodes.degrees))
    axis.scatter(places[:, 0], places[:, 1], s=sizes, alpha=0.25)
    for name, (across, up) in zip(nodes.keys[:count], places, strict=True):
        short = name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
        axis.text(across, up, short.replace("$", r"\$"), fontsize=7, ha="center", va="center")
    axis.set_axis_off()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ntulm"}):  # the reader's fonts know more signs
        figure.savefig(path, metadata={"Date": None})
    return True
