"""Stage `report`: the tables and figures for people.

Reads `data/evaluate/`, `data/graph/`, `data/embeddings/` and the metrics of earlier stages. Writes `reports/`:
`results.html` (one file that opens offline), `results.md` (Tables 2 to 5 with the paper's figures), the figures,
`coverage.html` (an Evidently page) and `curves.json` (the learning curves for `dvc plots`).
Command: `ntulm report`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ntulm.embeddings.table import EmbeddingTable
from ntulm.files import read_json, whole_directory, write_json
from ntulm.layout import Layout
from ntulm.report.markdown import results_page
from ntulm.report.tables import Record, load_paper, load_results

if TYPE_CHECKING:
    from ntulm.report.config import Report


def run(config: Report, layout: Layout) -> None:
    """Write the reports of the last evaluation.

    Raises:
        UserError: nothing has been evaluated yet.
    """
    results = load_results(layout)
    # Evidently and matplotlib take seconds to import: not before it is known that there is something to report.
    from ntulm.report.coverage_page import write_coverage_page
    from ntulm.report.neighbours import looks
    from ntulm.report.page import write_page
    from ntulm.report.plots import draw_figures

    with whole_directory(layout.reports) as directory:
        curves = _curves(results.settings, layout)
        figures = draw_figures(results, curves, directory)
        write_json(directory / "curves.json", _points(curves))
        page = results_page(results, load_paper(), figures)
        found = looks(layout.nodes, EmbeddingTable.load(layout.embeddings), results.settings["types"], directory)
        write_page(results, page, found, directory, directory / "results.html", layout)
        if write_coverage_page(results, config.min_coverage, directory / "coverage.html", layout):
            page += "\nNTU coverage and scores by slice as a page: [coverage.html](coverage.html).\n"
        (directory / "results.md").write_text(page, encoding="utf-8")


def _curves(settings: Record, layout: Layout) -> list[Record]:
    """What `pretrain` recorded of each variant and seed of the run."""
    paths = [
        layout.metrics("pretrain", variant, seed) for variant in settings["variants"] for seed in settings["seeds"]
    ]
    return [read_json(path) for path in paths if path.exists()]


def _points(curves: list[Record]) -> list[Record]:
    """The learning curves as flat records."""
    return [
        {"variant": curve["variant"], "seed": curve["seed"], "step": one["step"], "bits": one["validation_bits"]}
        for curve in curves
        for one in curve.get("history", [])
    ]
