"""A look at the embedding table: the nearest hashtags of frequent ones, and a map of hashtags in two dimensions.

Reads `data/graph/nodes.parquet` and `data/embeddings/`. Library of the stage `report`.
"""

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

SHOWN, NEAREST = 12, 8  # hashtags with their neighbourhood, and neighbours of each
MAPPED = 150  # hashtags on the map
CANDIDATES = 5000  # the most used hashtags, among which neighbours are looked for
HASHTAG = "hashtag"  # the type of node to look at; a graph without it has no neighbourhoods and no map
LONGEST = 24  # characters of a name on the map


@dataclass(frozen=True)
class Neighbourhood:
    """A hashtag and those whose vectors have the largest cosine with its own."""

    hashtag: str
    degree: int
    nearest: list[tuple[str, float]]


@dataclass(frozen=True)
class Hashtags:
    """The K most used hashtags of the graph, most used first, with their vectors float32 [K, D] of length 1."""

    names: list[str]
    degrees: list[int]
    vectors: NDArray[np.float32]


def frequent_hashtags(nodes: Path, table: EmbeddingTable) -> Hashtags:
    """The hashtags to look at."""
    read = pq.read_table(nodes, columns=["type", "key", "degree"])
    tags = read.filter(pc.equal(read["type"], HASHTAG)).sort_by([("degree", "descending"), ("key", "ascending")])
    tags = tags.slice(0, CANDIDATES)
    names = tags["key"].to_pylist()
    vectors = table.vectors_of(table.rows(HASHTAG, names))
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return Hashtags(names, tags["degree"].to_pylist(), vectors)


def neighbourhoods(hashtags: Hashtags) -> list[Neighbourhood]:
    """Of the most used hashtags, each with its nearest, itself left out."""
    shown = min(SHOWN, len(hashtags.names))
    cosines = hashtags.vectors[:shown] @ hashtags.vectors.T
    cosines[np.arange(shown), np.arange(shown)] = -np.inf
    found = []
    for place in range(shown):
        nearest = [at for at in np.argsort(-cosines[place], kind="stable")[:NEAREST] if np.isfinite(cosines[place, at])]
        pairs = [(hashtags.names[at], float(cosines[place, at])) for at in nearest]
        found.append(Neighbourhood(hashtags.names[place], hashtags.degrees[place], pairs))
    return found


def draw_map(hashtags: Hashtags, path: Path) -> bool:
    """Draw the most used hashtags by t-SNE as SVG; False where there are too few to lay out."""
    count = min(MAPPED, len(hashtags.names))
    if count < 10:
        return False
    layout = TSNE(2, perplexity=min(15, count // 4), init="pca", metric="cosine", random_state=0)
    places = layout.fit_transform(hashtags.vectors[:count].astype(np.float64))
    figure = Figure(figsize=(12, 9))
    axis = figure.add_axes((0, 0, 1, 1))
    sizes = 6 + 120 * np.sqrt(np.array(hashtags.degrees[:count]) / max(hashtags.degrees))
    axis.scatter(places[:, 0], places[:, 1], s=sizes, alpha=0.25)
    for name, (across, up) in zip(hashtags.names[:count], places, strict=True):
        short = name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
        axis.text(across, up, short.replace("$", r"\$"), fontsize=7, ha="center", va="center")
    axis.set_axis_off()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ntulm"}):  # the reader's fonts know more signs
        figure.savefig(path, metadata={"Date": None})
    return True
