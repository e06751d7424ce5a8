"""The run as one HTML file that opens offline: what was run, the verdict, tables, figures, and a look at the table.

Tables and figures are those of `results.md`, turned into HTML; figures stand inside the file. Whatever comes from data
is escaped in the Markdown already (`ntulm.markdown.escaped`), and again by the template for what it adds.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment
from markdown_it import MarkdownIt
from markdown_it.token import Token

from ntulm.files import read_json
from ntulm.layout import Layout
from ntulm.report.neighbours import Look
from ntulm.report.tables import LEGEND, SYNTHETIC, Record, Results, number

TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


OPEN = ("Gains", "Table 2", "Figures")  # sections that are unfolded at first


@dataclass(frozen=True)
class Fact:
    """A line of "what was run"."""

    name: str
    value: str


@dataclass(frozen=True)
class Section:
    """A part of the Markdown page under its heading, as HTML."""

    title: str
    body: str

    @property
    def open(self) -> bool:
        """Whether it is unfolded at first."""
        return self.title.startswith(OPEN)


def write_page(
    results: Results, markdown: str, looks: Sequence[Look], directory: Path, target: Path, layout: Layout
) -> None:
    """Write the page.

    Args:
        results: what `evaluate` wrote.
        markdown: the page of `ntulm.report.markdown`, whose images lie in `directory`.
        looks: at the node types of the embedding table.
        directory: where the figures are.
        target: the file to write.
        layout: where the metrics of the stages are.
    """
    template = Environment(autoescape=True).from_string(files("ntulm.report").joinpath("page.html").read_text("utf-8"))
    page = template.render(
        title="NTULM: results of a run",
        synthetic=SYNTHETIC if results.synthetic else None,
        sentence=results.sentence(),
        facts=facts(results, layout),
        method=f"{results.method()}. {LEGEND}.",
        sections=sections(markdown, directory),
        looks=[(look, data_uri(look.map) if look.map else None) for look in looks],
    )
    target.write_text(page, encoding="utf-8")


def sections(markdown: str, directory: Path) -> list[Section]:
    """Our own Markdown as HTML by its headings, its images inside; what stands before the first is left out."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    found = []
    for part in markdown.split("\n## ")[1:]:
        title, _, text = part.partition("\n")
        tokens = parser.parse(text)
        for token in _walk(tokens):
            if token.type == "image":
                token.attrs["src"] = data_uri(directory / str(token.attrs["src"]))
        found.append(Section(title, str(parser.renderer.render(tokens, parser.options, {}))))
    return found


def data_uri(path: Path) -> str:
    """A picture as an address that holds it; in `img` the scripts of an SVG file do not run."""
    return f"data:{TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


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


def _metrics(path: Path) -> Record | None:
    return read_json(path) if path.exists() else None


def _walk(tokens: Sequence[Token]) -> list[Token]:
    return [one for token in tokens for one in [token, *_walk(token.children or [])]]
