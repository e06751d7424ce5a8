"""A map of the embedding table: the most used NTUs in two dimensions, with labels that do not overlap.

Pure functions; the page draws what they give as SVG without a script: layers (node types) are switched and the map is
zoomed by style sheets alone. Letters keep their size where the map is zoomed, so that more labels fit: a label has the
lowest zoom from which on it is shown, and keeps its place beside its dot from there on.
"""

import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from ntulm.report.neighbours import PEOPLE, SIGNS, Nodes

WIDTH, HEIGHT = 1000.0, 700.0  # of the map, in its own units
MARGIN = 40.0
ZOOMS = (1, 2, 4)
FONT = 15.0  # of labels at zoom 1, in units of the map
LETTER, WIDE_LETTER = 0.62, 1.1  # widths of letters over the font size, on the safe side
LINE = 1.15  # height of a line over the font size
BELOW = 0.25  # how far letters hang below the line that they stand on
USUAL, PEOPLE_SHOWN = 150, 300  # dots of a node type, and of one whose keys are users
FEWEST = 10  # nodes that can be laid out
LONGEST = 24  # characters of a label
SMALLEST, LARGEST = 4.0, 15.0  # diameters of dots, in pixels at any zoom
# Where a label can stand: the anchor of the text and its place beside the dot, over the font size.
SIDES = (("start", 0.55, 0.35), ("end", -0.55, 0.35), ("middle", 0.0, -0.6), ("middle", 0.0, 1.35))

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Dot:
    """An NTU on the map; people have no name here: no report shows who is near whom."""

    x: float
    y: float
    size: float
    degree: int
    name: str | None


@dataclass(frozen=True)
class Label:
    """A name beside a dot: where the text is anchored, shifted by dx and dy times the font size."""

    text: str
    x: float
    y: float
    anchor: str
    dx: float
    dy: float
    zoom: int  # the lowest one at which it is shown


@dataclass(frozen=True)
class Layer:
    """The dots and labels of a node type."""

    node_type: str
    shown: bool  # at first
    dots: list[Dot]
    labels: list[Label]


def layers(nodes: Mapping[str, Nodes], types: Mapping[str, str]) -> list[Layer]:
    """The map; no layers where there are too few nodes to lay out.

    Args:
        nodes: the most used nodes of each type, most used first.
        types: the key form of each type.
    """
    forms = {name: types.get(name, "") for name in nodes}
    used = {name: of.first(PEOPLE_SHOWN if forms[name] == PEOPLE else USUAL) for name, of in nodes.items()}
    ends = np.cumsum([len(of.keys) for of in used.values()])
    if not used or ends[-1] < FEWEST:
        return []
    places = np.split(_places(np.concatenate([of.vectors for of in used.values()])), ends[:-1])
    dots = {name: _dots(used[name], own, forms[name]) for name, own in zip(used, places, strict=True)}
    labels = iter(place_labels([dot for own in dots.values() for dot in own]))
    return [
        Layer(name, forms[name] != PEOPLE, own, [label for _ in own if (label := next(labels))])
        for name, own in dots.items()
    ]


def place_labels(dots: Sequence[Dot]) -> list[Label | None]:
    """A label for as many dots as have room for one at some zoom, those with most edges first."""
    named = sorted((place for place, dot in enumerate(dots) if dot.name), key=lambda place: -dots[place].degree)
    placed: dict[int, Label] = {}
    for zoom in ZOOMS:
        for place in named:
            label = None if place in placed else next(_free(dots[place], zoom, placed.values()), None)
            if label:
                placed[place] = label
    return [placed.get(place) for place in range(len(dots))]


def box(label: Label, zoom: int) -> Box:
    """The room that a label takes at a zoom, in units of the map."""
    size = FONT / zoom
    width = size * sum(WIDE_LETTER if unicodedata.east_asian_width(one) in "WF" else LETTER for one in label.text)
    left = label.x + label.dx * size - {"start": 0.0, "middle": width / 2, "end": width}[label.anchor]
    bottom = label.y + (label.dy + BELOW) * size
    return left, bottom - LINE * size, left + width, bottom


def _free(dot: Dot, zoom: int, others: Collection[Label]) -> Iterator[Label]:
    """Labels of a dot that lie on the map and on no other label, at this zoom and all higher ones: labels that point at
    each other come closer there.
    """
    for anchor, dx, dy in SIDES:
        label = Label(_short(dot.name or ""), dot.x, dot.y, anchor, dx, dy, zoom)
        left, top, right, bottom = box(label, zoom)
        inside = left >= 0 and top >= 0 and right <= WIDTH and bottom <= HEIGHT
        if inside and not any(_overlap(label, other, one) for one in ZOOMS if one >= zoom for other in others):
            yield label


def _overlap(label: Label, other: Label, zoom: int) -> bool:
    (left, top, right, bottom), (a, t, r, b) = box(label, zoom), box(other, zoom)
    return left < r and right > a and top < b and bottom > t


def _places(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """The vectors [N, D] by t-SNE, on the map: [N, 2]."""
    projection = TSNE(2, perplexity=min(15, len(vectors) // 4), init="pca", metric="cosine", random_state=0)
    places = projection.fit_transform(vectors.astype(np.float64))
    low, high = places.min(axis=0), places.max(axis=0)
    room = np.array([WIDTH, HEIGHT]) - 2 * MARGIN
    return np.asarray(MARGIN + room * (places - low) / np.maximum(high - low, 1e-12))


def _dots(nodes: Nodes, places: NDArray[np.float64], form: str) -> list[Dot]:
    sizes = SMALLEST + (LARGEST - SMALLEST) * np.sqrt(np.array(nodes.degrees) / max(1, *nodes.degrees))
    names = [None if form == PEOPLE else SIGNS.get(form, "") + key for key in nodes.keys]
    return [
        Dot(round(float(x), 1), round(float(y), 1), round(float(size), 1), degree, name)
        for (x, y), size, degree, name in zip(places, sizes, nodes.degrees, names, strict=True)
    ]


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
