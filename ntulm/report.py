"""Stage `report`: the tables and figures for people.

Reads `data/evaluate/`, `metrics/corpus.json` and `metrics/pretrain/*.json`. Writes `reports/`: `results.md` (Tables 2
to 5 with the paper's figures), PNG figures and `coverage.html` (an Evidently page that opens offline).
Command: `ntulm report`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ntulm import layout
from ntulm.files import read_json, whole_directory
from ntulm.markdown import results_page
from ntulm.result_tables import Record, load_paper, load_results

if TYPE_CHECKING:
    from ntulm.config import Report


def run(config: Report) -> None:
    """Write the reports of the last evaluation.

    Raises:
        UserError: nothing has been evaluated yet.
    """
    results = load_results()
    # Evidently and matplotlib take seconds to import: not before it is known that there is something to report.
    from ntulm.evidently_report import write_coverage_page
    from ntulm.plots import draw_figures

    with whole_directory(layout.REPORTS) as directory:
        figures = draw_figures(results, _curves(results.settings), directory)
        page = results_page(results, load_paper(), figures)
        if write_coverage_page(results, config.min_coverage, directory / "coverage.html"):
            page += "\nNTU coverage and scores by slice as a page: [coverage.html](coverage.html).\n"
        (directory / "results.md").write_text(page, encoding="utf-8")


def _curves(settings: Record) -> list[Record]:
    """What `pretrain` recorded of each variant and seed of the run."""
    paths = [
        layout.metrics("pretrain", variant, seed) for variant in settings["variants"] for seed in settings["seeds"]
    ]
    return [read_json(path) for path in paths if path.exists()]
