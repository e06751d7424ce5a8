"""The run as one HTML file that opens offline: the verdict, pictures, posts, a map, tables, and where it comes from.

The tables are those of `results.md`, turned into HTML; pictures stand inside the file, which has no script. Whatever
comes from data is escaped in the Markdown already (`ntulm.report.markdown.escaped`), or by the template.
"""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt

from ntulm.files import read_json
from ntulm.layout import Layout
from ntulm.report.examples import Turned
from ntulm.report.neighbours import Look
from ntulm.report.ntu_map import FONT, HEIGHT, WIDTH, ZOOMS, Layer
from ntulm.report.plots import COLORS, SPARE_COLORS
from ntulm.report.provenance import SHORT, Before, Provenance
from ntulm.report.tables import ABSENT, LEGEND, SYNTHETIC, Record, Results, number

TITLE = "NTULM: results of a run"
FIGURES = "Figures"  # the section of the Markdown page whose pictures stand at the top of this one
OPEN = ("Gains",)  # sections that are unfolded at first
LAYER_COLORS = (COLORS["author+hashtag"], COLORS["author"], *SPARE_COLORS)


@dataclass(frozen=True)
class Fact:
    """A line of "what was run"."""

    name: str
    value: str


@dataclass(frozen=True)
class Picture:
    """A figure with its file inside."""

    address: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the Markdown page under its heading, as HTML."""

    title: str
    body: str

    @property
    def open(self) -> bool:
        """Whether it is unfolded at first."""
        return self.title.startswith(OPEN)


@dataclass(frozen=True)
class Content:
    """What the page shows beside the results.

    `markdown` is the page of `ntulm.report.markdown`; `pictures` (file, caption); `turned` is None where no post is to
    be quoted or compared; `headlines` are those of this run.
    """

    markdown: str
    pictures: Sequence[tuple[Path, str]]
    turned: Turned | None
    layers: Sequence[Layer]
    looks: Sequence[Look]
    provenance: Provenance
    headlines: Record
    before: Before | None

    def without_posts(self) -> "Content":
        """The same, quoting no post."""
        return replace(self, turned=self.turned and replace(self.turned, right=[], wrong=[]))


def page(results: Results, content: Content, folder: Path, layout: Layout) -> str:
    """The whole page.

    Args:
        results: what `evaluate` wrote.
        content: the rest.
        folder: where the page will lie; the address of the run before is relative to it.
        layout: where the metrics of the stages are.
    """
    text = files("ntulm.report").joinpath("page.html").read_text("utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(text)
    return template.render(
        title=TITLE,
        synthetic=SYNTHETIC if results.synthetic else None,
        ntulm=results.ntulm,
        sentence=results.sentence(),
        findings=results.findings(),
        source=source(content.provenance),
        before=_before(content, folder),
        figures=[Picture(data_uri(path), caption) for path, caption in content.pictures],
        turned=content.turned,
        layers=content.layers,
        colors=LAYER_COLORS,
        zooms=ZOOMS,
        font=FONT,
        width=WIDTH,
        height=HEIGHT,
        method=f"{results.method()}. {LEGEND}.",
        sections=sections(content.markdown),
        looks=content.looks,
        facts=facts(results, layout) + _facts_of(content.provenance),
    )


def sections(markdown: str) -> list[Section]:
    """Our own Markdown as HTML by its headings; what stands before the first is left out, and so are the figures."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    parts = (part.partition("\n") for part in markdown.split("\n## ")[1:])
    return [Section(title, str(parser.render(text))) for title, _, text in parts if title != FIGURES]


def data_uri(path: Path) -> str:
    """A PNG file as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def source(own: Provenance) -> list[str]:
    """Where a run comes from, in a line."""
    commit = f"commit {own.commit[:SHORT]}" if own.commit else "no commit"
    return [
        own.date.replace("T", " ").replace("+00:00", " UTC"),
        commit + (f" and {len(own.changed):,} changed files" if own.changed else ""),
        f"recipe {own.recipe}" if own.recipe else "no recipe",
        f"posts {own.data[:SHORT]}" if own.data else "no posts",
    ]


def facts(results: Results, layout: Layout) -> list[Fact]:
    """What was run, from the metrics of the stages that left some."""
    settings = results.settings
    found = [
        Fact("Variants", ", ".join(settings["variants"])),
        Fact("Seeds", ", ".join(map(str, settings["seeds"]))),
        Fact("Tasks", ", ".join(settings["tasks"])),
    ]
    if corpus := _metrics(layout.metrics("corpus")):
        span = f"{corpus['first'][:10]} to {corpus['last'][:10]}"
        found.append(Fact("Corpus", f"{corpus['posts']:,} posts of {corpus['authors']:,} authors, {span}"))
    if graph := _metrics(layout.metrics("graph")):
        nodes = "".join(f"{count:,} {node_type} nodes, " for node_type, count in graph["nodes"].items())
        found.append(Fact("Graph", f"{nodes}{graph['edges']:,} edges"))
    if embeddings := _metrics(layout.metrics("embeddings")):
        ranks = f"{number(embeddings['mrr'])} (by popularity {number(embeddings['popularity']['mrr'])})"
        edges = f"MRR {ranks} on {embeddings['edges']:,} held-out edges"
        found.append(Fact("Embedding table", f"dimension {embeddings['dimension']}, {edges}"))
    if adapt := _metrics(layout.metrics("adapt")):
        found.append(Fact("Adaptation", f"{adapt['train_posts']:,} posts, then each variant on its own budget"))
    return found


def _facts_of(own: Provenance) -> list[Fact]:
    return [
        Fact("Date", own.date),
        Fact("Commit", own.commit or ABSENT),
        Fact("Changed since", ", ".join(own.changed) or "nothing"),
        Fact("Recipe", own.recipe or ABSENT),
        Fact("sha256 of params.yaml", own.params or ABSENT),
        Fact("sha256 of the posts", own.data or ABSENT),
    ]


def _before(content: Content, folder: Path) -> dict[str, Any] | None:
    """The run before: where its page is, where it came from, and what is different now."""
    before = content.before
    if before is None:
        return None
    names = dict.fromkeys([*content.headlines, *before.headlines])
    changes = [(name, _figure(before.headlines.get(name)), _figure(content.headlines.get(name))) for name in names]
    address = Path(os.path.relpath(before.page, folder)).as_posix()
    return {"address": address, "source": source(before.provenance), "changes": changes}


def _figure(value: float | None) -> str:
    return f"{value:,}" if isinstance(value, int) else number(value)


def _metrics(path: Path) -> Record | None:
    return read_json(path) if path.exists() else None
