"""Print the results of the last run in the terminal: the paper's Table 2 with intervals, and Table 4.

Reads `data/evaluate/tables.json`; writes nothing. Command: `ntulm results`; `make repro` ends with it.
"""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ntulm.layout import Layout
from ntulm.report.tables import (
    ABSENT,
    LEGEND,
    MARKS,
    SLICE_NAMES,
    SYNTHETIC,
    Record,
    Results,
    gain,
    load_results,
    number,
)

PLAIN_WIDTH = 110  # of a pipe or a log, which has no width of its own
COLORS = {"better": "green", "worse": "red", "no difference shown": "yellow", "too few posts": "dim", None: ""}


def run(layout: Layout) -> None:
    """Print the tables of the last run and where its reports are.

    Raises:
        UserError: nothing has been evaluated yet; `dvc repro` comes first.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    show(load_results(layout), layout, console)


def show(results: Results, layout: Layout, console: Console) -> None:
    """Print tables, verdict, legend and the paths of the reports."""
    label = " · SYNTHETIC data" if results.synthetic else ""
    for table in (summary_table(results, label), slice_table(results, label)):
        if table.row_count:
            console.print(table)
    console.print(Text(results.sentence(), style="bold"))
    for finding in results.findings():
        console.print(Text(f"· {finding}"), soft_wrap=True)
    console.print(Text(f"{LEGEND}.\n{results.method()}."), soft_wrap=True)
    if results.synthetic:
        console.print(Text(SYNTHETIC, style="bold red"))
    for path in (layout.reports / name for name in ("results.html", "results.md", "coverage.html")):
        if path.exists():
            console.print(Text(f"{path}"), soft_wrap=True)


def summary_table(results: Results, label: str = "") -> Table:
    """Table 2, one row per measure and system: posts, score, gain over the baseline with interval, verdict."""
    table = _table(
        f"Scores on the test posts (Table 2){label}", ["measure", "system"], ["posts", "score", "gain over text"]
    )
    table.add_column("verdict")
    for measure, records in results.comparisons():
        if all(record.get("main", True) for record in records):
            _add_group(table, measure, records)
    return table


def slice_table(results: Results, label: str = "") -> Table:
    """Table 4: the gain of NTULM and of post-concat by slice; empty where neither was run beside the baseline."""
    systems = results.compared
    table = _table(f"Gain over text by slice (Table 4){label}", ["measure", "slice"], ["posts", *systems])
    for family in results.main_families:
        for name, title in SLICE_NAMES.items():
            records = {r["system"]: r for r in results.of_family(family) if r["slice"] == name}
            cells = [records.get(system) for system in systems]
            if any(cell and cell["gain"] is not None for cell in cells):
                posts = next(f"{record['posts']:,}" for record in records.values())
                first = Text(family if name == "overall" else "")
                table.add_row(first, title, posts, *map(_gain_cell, cells), end_section=name == "non_overlap")
    return table


def _add_group(table: Table, measure: str, records: list[Record]) -> None:
    for position, record in enumerate(records):
        verdict = record["verdict"]
        table.add_row(
            Text(measure if position == 0 else ""),
            Text(record["system"]),
            f"{record['posts']:,}",
            number(record["value"]),
            gain(record),
            Text(f"{MARKS[verdict]} {verdict or ''}".strip(), style=COLORS[verdict]),
            end_section=position == len(records) - 1,
        )


def _gain_cell(record: Record | None) -> Text:
    if record is None or record["gain"] is None:
        return Text(ABSENT)
    return Text(f"{gain(record)} {MARKS[record['verdict']]}", style=COLORS[record["verdict"]])


def _table(title: str, left: list[str], right: list[str]) -> Table:
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    return table
