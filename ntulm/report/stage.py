"""Stage `report`: the tables and figures for people.

Reads `data/evaluate/`, `data/graph/`, `data/embeddings/`, `data/tasks/`, `data/probe/`, the posts (their hash alone)
and the metrics of earlier stages. Writes `reports/`: `results.html` (one file that opens offline), `results.md` (Tables
2 to 5 with the paper's figures), the figures, `coverage.html` (an Evidently page) and `curves.json` (learning curves
for `dvc plots`); `metrics/report.json`, the headlines, which `dvc metrics show` prints; and a page of each run under
`data/runs/`, which is no output. Command: `ntulm report`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ntulm.embeddings.table import EmbeddingTable
from ntulm.evaluate.scores import read_datasets
from ntulm.files import read_json, whole_directory, write_json
from ntulm.layout import Layout
from ntulm.report.headlines import headlines
from ntulm.report.markdown import results_page
from ntulm.report.tables import Record, load_paper, load_results

if TYPE_CHECKING:
    from pathlib import Path

    from ntulm.ntus import NtuScheme
    from ntulm.params import Run
    from ntulm.report.config import Report
    from ntulm.report.page import Content
    from ntulm.report.tables import Results


def run(config: Report, run: Run, scheme: NtuScheme, layout: Layout) -> None:
    """Write the reports of the last evaluation.

    Raises:
        UserError: nothing has been evaluated yet.
    """
    results = load_results(layout)
    # Evidently and matplotlib take seconds to import: not before it is known that there is something to report.
    from ntulm.report.coverage_page import write_coverage_page
    from ntulm.report.page import page
    from ntulm.report.plots import draw_figures
    from ntulm.report.provenance import keep_run

    with whole_directory(layout.reports) as directory:
        curves = _curves(results.settings, layout)
        figures = draw_figures(results, curves, directory)
        write_json(directory / "curves.json", _points(curves))
        markdown = results_page(results, load_paper(), figures)
        pictures = [(directory / name, caption) for name, caption in figures]
        content = _content(config, run, scheme, results, markdown, pictures, layout)
        whole = page(results, content, layout.reports, layout)
        (directory / "results.html").write_text(whole, encoding="utf-8")
        kept = page(results, content.without_posts(), layout.runs, layout)
        if write_coverage_page(results, config.min_coverage, directory / "coverage.html", layout):
            markdown += "\nNTU coverage and scores by slice as a page: [coverage.html](coverage.html).\n"
        (directory / "results.md").write_text(markdown, encoding="utf-8")
    write_json(layout.metrics("report"), content.headlines)
    keep_run(kept, content.provenance, content.headlines, layout)


def _content(
    config: Report,
    run: Run,
    scheme: NtuScheme,
    results: Results,
    markdown: str,
    pictures: list[tuple[Path, str]],
    layout: Layout,
) -> Content:
    """What the page shows beside the results."""
    from ntulm.report.examples import turned
    from ntulm.report.neighbours import looks, most_used
    from ntulm.report.ntu_map import layers
    from ntulm.report.page import Content
    from ntulm.report.provenance import provenance, run_before

    table, types = EmbeddingTable.load(layout.embeddings), results.settings["types"]
    nodes = most_used(layout.nodes, table)
    return Content(
        markdown=markdown,
        pictures=pictures,
        turned=turned(read_datasets(run, layout), results.ntulm, table, scheme, config.examples, layout),
        layers=layers(nodes, types),
        looks=looks(nodes, types),
        provenance=provenance(layout),
        headlines=headlines(results, layout),
        before=run_before(layout),
    )


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
