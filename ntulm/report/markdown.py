"""The results as Markdown: the paper's Tables 2 to 5 with the paper's own figures beside ours. Pure functions.

Whatever comes from data (names of data sets, families, systems) is escaped: no table or page can be broken by a name.
"""

import html
from collections.abc import Iterable, Sequence
from typing import Any

from ntulm.probe.metrics import LOWER_IS_BETTER
from ntulm.report.tables import (
    ABSENT,
    LEGEND,
    MARKS,
    SLICE_NAMES,
    SYNTHETIC,
    Record,
    Results,
    dig,
    distinct,
    gain,
    marked,
    number,
    share,
)


def results_page(results: Results, paper: Record, figures: Sequence[tuple[str, str]]) -> str:
    """The whole page; `figures` are (file name, caption)."""
    label = f"**{SYNTHETIC}**" if results.synthetic else ""
    settings = results.settings
    parts = [
        f"# Results{' (SYNTHETIC data)' if results.synthetic else ''}",
        label,
        f"**{escaped(results.sentence())}**",
        "\n".join(f"- {escaped(finding)}" for finding in results.findings()),
        f"Variants: {', '.join(map(escaped, settings['variants']))}. Seeds: {', '.join(map(str, settings['seeds']))}. "
        f"Tasks: {', '.join(map(escaped, settings['tasks']))}.\n\n{escaped(results.method())}. {LEGEND}. "
        "“paper” is the published figure, of other posts and another backbone: compare gains, not scores.",
        *(["## Figures"] if figures else []),
        *(f"![{escaped(caption)}]({name})\n\n{escaped(caption)}." for name, caption in figures),
        "## Gains over text",
        gains_table(results, paper),
        "## Table 2: perplexity and mean score by family",
        table_2(results, paper),
        "## Table 3: every data set",
        table_3(results, paper),
        "## Table 4: gain over text by slice",
        f"Overlap: posts with at least one NTU ({escaped(' or '.join(settings['overlap']))}) that the embedding table "
        f"knows. Data sets with fewer than {settings['min_posts']} posts in a slice stay out of its mean.",
        table_4(results, paper),
        *familiarity(results),
        "## Table 5: NTU coverage",
        "Shares of posts: with at least one NTU, with at least one known NTU, and the latter among the former. (The "
        "paper's caption says “more than 1”; its figures can only mean at least one.)",
        table_5(results, paper),
        label,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def gains_table(results: Results, paper: Record) -> str:
    """Each comparison with the baseline: posts, both scores, gain with interval, verdict, and the paper's gain."""
    rows = []
    for measure, records in results.comparisons():
        published = _paper_row(paper, records)
        base = next((record["value"] for record in records if record["system"] == results.baseline), None)
        for record in records:
            if record["gain"] is not None:
                cells = [escaped(measure), escaped(record["system"]), f"{record['posts']:,}", number(base)]
                cells += [number(record["value"]), gain(record), _verdict(record)]
                rows.append([*cells, _paper_gain(published, record["system"], "family" not in record)])
    header = ["measure", "system", "posts", "text", "system's score", "gain", "verdict", "paper's gain"]
    return (
        markdown_table(header, rows, "llrrrrlr") if rows else "No comparison: `text` or every other variant is missing."
    )


def table_2(results: Results, paper: Record) -> str:
    """One row per system, one column perplexity and one per family, with the paper's figure below ours."""
    measures = results.measures(every_metric=True)
    header = ["system", *(f"{escaped(name)}<br>{records[0]['posts']:,} posts" for name, records in measures)]
    rows = []
    for system in results.systems:
        cells = []
        for _, records in measures:
            own = next((record for record in records if record["system"] == system), None)
            cells.append(_with_paper(own, dig(_paper_row(paper, records), system)))
        rows.append([escaped(system), *cells])
    return markdown_table(header, rows, "l" + "r" * len(measures))


def table_3(results: Results, paper: Record) -> str:
    """One row per data set and metric, one column per system; the best score is bold, gain and paper below."""
    overall = [record for record in results.datasets if record["slice"] == "overall"]
    systems = [system for system in results.systems if any(r["system"] == system for r in overall)]
    rows = []
    keys = dict.fromkeys((r["family"], r["task"], r["dataset"], r["metric"]) for r in overall)
    for family, task, dataset, metric in keys:
        own = {
            r["system"]: r
            for r in overall
            if (r["family"], r["task"], r["dataset"], r["metric"]) == (family, task, dataset, metric)
        }
        values = [r["value"] for r in own.values() if r["value"] is not None]
        best = (min if metric in LOWER_IS_BETTER else max)(values, default=None)
        first = next(iter(own.values()))
        published = _published(paper, "table3", family, dataset.lower(), metric=metric)
        cells = [_with_gain(own.get(system), dig(published, system), best) for system in systems]
        rows.append([escaped(family), escaped(dataset), metric, f"{first['posts']:,}", *cells])
    return markdown_table(
        ["family", "data set", "metric", "posts", *map(escaped, systems)], rows, "lllr" + "r" * len(systems)
    )


def table_4(results: Results, paper: Record) -> str:
    """One row per family, metric and slice; the gain of NTULM and of post-concat, with the paper's."""
    systems = results.compared
    header = ["family", "metric", "slice", "posts"]
    for system in systems:
        header += [escaped(system), "paper"]
    rows = []
    for family, metric in dict.fromkeys((record["family"], record["metric"]) for record in results.families):
        for name, title in SLICE_NAMES.items():
            own = {r["system"]: r for r in results.of_family(family, metric) if r["slice"] == name}
            if not any(system in own and own[system]["gain"] is not None for system in systems):
                continue
            first = next(iter(own.values()))
            of = "" if first["datasets"] == first["of_datasets"] else f" in {first['datasets']} data sets"
            cells = [escaped(family), metric, title, f"{first['posts']:,}{of}"]
            for system in systems:
                published = _published(paper, "table4", family, name, system, metric=metric)
                cells.append(f"{gain(own[system])} {MARKS[own[system]['verdict']]}" if system in own else ABSENT)
                cells.append(ABSENT if published is None else f"{published:+z.1f} %")
            rows.append(cells)
    return markdown_table(header, rows, "lllr" + "rr" * len(systems)) if rows else "No comparison with `text`."


def familiarity(results: Results) -> list[str]:
    """The gain by how far test posts are from the graph, a table per kind of distance; empty if not measured."""
    parts = []
    for by in distinct(record["by"] for record in results.familiarity):
        own = [record for record in results.familiarity if record["by"] == by]
        rows = []
        for key in dict.fromkeys((r["family"], r["dataset"], r["metric"], r["group"]) for r in own):
            of = {r["system"]: r for r in own if (r["family"], r["dataset"], r["metric"], r["group"]) == key}
            first, base = next(iter(of.values())), of.get(results.baseline)
            cells = [escaped(key[0]), escaped(key[1]), key[2], key[3], f"{first['posts']:,}", share(first["known"])]
            cells.append(ABSENT if base is None else number(base["value"]))
            for system in results.compared:
                shown = system in of and of[system]["gain"] is not None
                cells.append(f"{gain(of[system])} {MARKS[of[system]['verdict']]}" if shown else ABSENT)
            rows.append(cells)
        header = ["family", "data set", "metric", by, "posts", "with a known NTU", escaped(results.baseline)]
        header += [escaped(system) for system in results.compared]
        parts += [f"**By {by}**", markdown_table(header, rows, "llllrrr" + "l" * len(results.compared))]
    return ["## How long a graph keeps, and whom it serves", *parts] if parts else []


def table_5(results: Results, paper: Record) -> str:
    """One row per data set, split and NTU type."""
    columns = ("share_any", "share_known", "share_known_of_any")
    rows = []
    for record in results.coverage:
        place = ("table5", record["family"], record["dataset"].lower(), record["split"], record["type"])
        cells = [escaped(record["family"]), escaped(record["dataset"]), record["split"], record["type"]]
        cells += [f"{record['posts']:,}", f"{record['ntus']:,}"]
        for column in columns:
            published = dig(paper, *place, column)
            cells.append(share(record[column]) + ("" if published is None else f" (paper {share(published)})"))
        rows.append(cells)
    header = ["family", "data set", "split", "NTUs of type", "posts", "unique NTUs", "posts with ≥ 1"]
    return markdown_table([*header, "posts with ≥ 1 known", "known among those with any"], rows, "llllrrrrr")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """A pipe table; `align` has an `l` or `r` for each column. Cells must be escaped already."""
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("--:" if a == "r" else ":--" for a in align) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def escaped(text: str) -> str:
    """Text from data, harmless in Markdown, in a table cell and in the HTML that is made of it."""
    return "".join(f"\\{c}" if c in "\\`*_[]|~" else c for c in html.escape(" ".join(text.split()), quote=False))


def _paper_row(paper: Record, records: Sequence[Record]) -> Record:
    """The paper's Table 2 figures for these records, by system; empty where it has none of this metric."""
    family = records[0].get("family")
    if family is None:
        return dict(dig(paper, "table2", "perplexity_bits")) if records[0]["tokens"] == "all" else {}
    return dict(_published(paper, "table2", "families", family, metric=records[0]["metric"]) or {})


def _published(paper: Record, table: str, *path: str, metric: str) -> Any:
    """What stands in the paper's table, unless the paper measured that family by another metric (§4.1)."""
    family = path[1] if path[0] == "families" else path[0]
    return dig(paper, table, *path) if dig(paper, "metrics", family) == metric else None


def _paper_gain(published: Record | None, system: str, lower_is_better: bool) -> str:
    base, own = dig(published, "text"), dig(published, system)
    if base is None or own is None:
        return ABSENT
    return f"{(-100 if lower_is_better else 100) * (own - base) / base:+z.1f} %"


def _with_paper(record: Record | None, published: float | None) -> str:
    own = ABSENT if record is None else marked(record)
    return own if published is None else f"{own}<br>paper {number(published)}"


def _with_gain(record: Record | None, published: float | None, best: float | None) -> str:
    if record is None:
        return ABSENT
    value = marked(record)
    lines = [f"**{value}**" if record["value"] is not None and record["value"] == best else value, gain(record)]
    lines += [] if published is None else [f"paper {number(published)}"]
    return "<br>".join(line for line in lines if line)


def _verdict(record: Record) -> str:
    return f"{MARKS[record['verdict']]} {record['verdict']}" if record["verdict"] else ABSENT
