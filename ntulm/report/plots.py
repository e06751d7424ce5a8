"""Figures 3 to 5 of the paper with intervals, and the learning curves, as PNG (matplotlib without a display).

Every figure is as narrow as a telephone and its bars lie, so that its letters can be read at any width. A bar is pale
where there are too few posts for a verdict. Every figure of synthetic data says so.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntulm.evaluate.familiarity import DAYS, GROUPS, POSTS
from ntulm.report.tables import POST_CONCAT, SLICE_NAMES, TOKEN_NAMES, Record, Results, distinct

# Okabe and Ito's colours, which colour-blind readers tell apart.
COLORS = {
    "text": "#7f7f7f",
    "author": "#E69F00",
    "hashtag": "#56B4E9",
    "author+hashtag": "#0072B2",
    POST_CONCAT: "#D55E00",
    "ntu": "#F0E442",
    "tfidf": "#000000",
    "words": "#8C510A",
    "shuffled": "#CC79A7",
    "unadapted": "#BBBBBB",
    "overall": "#555555",
    "overlap": "#009E73",
    "non-overlap": "#CC79A7",
}
# For variants that are not above, in the order of the run: Paul Tol's muted colours.
SPARE_COLORS = ("#117733", "#882255", "#44AA99", "#999933", "#332288", "#AA4499", "#DDCC77", "#661100")
OTHER_COLOR = "#333333"
DISTANCES = ("#0072B2", "#56B4E9", "#E69F00", "#D55E00")  # of the four groups of a distance
WIDTH = 4.5  # inches: 11 points in it are 12 pixels on a telephone
LETTERS: Any = {
    "font.size": 11,
    "axes.titlesize": 11,
    "legend.fontsize": 10,
    "ytick.labelsize": 10,
    "xtick.labelsize": 10,
}
DOTS_PER_INCH = 200
BAR, THIN, BETWEEN, AROUND = 0.24, 0.13, 0.14, 1.5  # inches: per bar, between groups, for title, axis and legend
NAME_LENGTH, TITLE_LENGTH = 16, 44  # letters per line
PALE, SOLID = 0.3, 1.0

Colors = Mapping[str, str]  # of a system or slice
Bar = tuple[float, float, float, bool]  # value, low, high, solid
Groups = Mapping[str, Mapping[str, Bar]]  # by what is compared, then by system or slice


def draw_figures(results: Results, curves: Sequence[Record], directory: Path) -> list[tuple[str, str]]:
    """Draw what the results have; returns (file name, caption) of each figure that was drawn.

    Args:
        results: what `evaluate` wrote.
        curves: the contents of `metrics/pretrain/*.json`.
        directory: an existing directory for the PNG files.
    """
    kind = " (SYNTHETIC data)" if results.synthetic else ""
    colors, ntulm = colors_of(results.settings["variants"]), results.ntulm
    figures: list[tuple[str, str, Callable[[Results, Colors], Figure | None]]] = [
        ("figure3.png", f"Figure 3: gain of {ntulm} over text, by known NTUs", gain_by_slice),
        ("figure5.png", f"Figure 5: gain over text, {ntulm} and {POST_CONCAT}", ntulm_against_concatenation),
        ("perplexity.png", "Gain in perplexity over text, by where the masked token stands", perplexity_gain),
        (
            "learning_curves.png",
            "Learning curves: bits per masked token",
            lambda _, colors: learning_curves(curves, colors),
        ),
        ("keeping.png", f"Gain of {ntulm} over text, by {DAYS}", partial(gain_by_distance, by=DAYS)),
        ("whom.png", f"Gain of {ntulm} over text, by {POSTS}", partial(gain_by_distance, by=POSTS)),
        ("figure4.png", "Figure 4: scores by system, by known NTUs", score_by_slice),
    ]
    drawn = []
    for name, caption, draw in figures:
        with matplotlib.rc_context(LETTERS):
            figure = draw(results, colors)
            if figure is not None:
                title = textwrap.fill(caption + kind, TITLE_LENGTH)
                figure.suptitle(title, fontsize=11, color="#b00020" if results.synthetic else "black")
                figure.savefig(directory / name, dpi=DOTS_PER_INCH)
                drawn.append((name, caption + kind))
    return drawn


def colors_of(variants: Sequence[str]) -> dict[str, str]:
    """A colour for each system and slice: COLORS, and the spare ones for the variants that those do not hold."""
    others = [variant for variant in variants if variant not in COLORS]
    return COLORS | {name: SPARE_COLORS[place % len(SPARE_COLORS)] for place, name in enumerate(others)}


def gain_by_slice(results: Results, colors: Colors) -> Figure | None:
    """Figure 3: the relative gain of NTULM by family and slice."""
    groups = {
        family: {
            SLICE_NAMES[r["slice"]]: bar
            for r in results.of_family(family)
            if r["system"] == results.ntulm and (bar := _gain(r))
        }
        for family in results.main_families
    }
    return _gain_figure(groups, colors)


def ntulm_against_concatenation(results: Results, colors: Colors) -> Figure | None:
    """Figure 5: the relative gain of NTULM and of post-concat by family, over all posts."""
    groups = {
        family: {
            r["system"]: bar
            for r in results.of_family(family)
            if r["slice"] == "overall" and r["system"] in results.compared and (bar := _gain(r))
        }
        for family in results.main_families
    }
    return _gain_figure(groups, colors)


def gain_by_distance(results: Results, colors: Colors, by: str) -> Figure | None:
    """The relative gain of NTULM by data set, for posts at each distance from the graph."""
    del colors  # of systems and slices
    groups: dict[str, dict[str, Bar]] = {}
    for record in results.familiarity:
        if (record["by"], record["system"]) == (by, results.ntulm) and (bar := _gain(record)):
            groups.setdefault(record["dataset"], {})[record["group"]] = bar
    return _gain_figure(groups, dict(zip((name for _, name in GROUPS[by]), DISTANCES, strict=True)))


def perplexity_gain(results: Results, colors: Colors) -> Figure | None:
    """The relative gain in bits of each variant, for masked tokens inside hashtags and outside them apart."""
    groups: dict[str, dict[str, Bar]] = {title: {} for title in TOKEN_NAMES.values()}
    for record in results.perplexity:
        if bar := _gain(record):
            groups[TOKEN_NAMES[record["tokens"]]][record["system"]] = bar
    return _gain_figure(groups, colors)


def score_by_slice(results: Results, colors: Colors) -> Figure | None:
    """Figure 4, for every family and not for Topic alone: the score of each system by slice."""
    panels = [(family, results.of_family(family)) for family in results.main_families]
    groups = [_scores_by_system(records, results.settings["min_posts"]) for _, records in panels]
    if not any(groups):
        return None
    heights = [max(1, sum(map(len, own.values()))) * THIN + len(own) * BETWEEN for own in groups]
    size = (WIDTH, AROUND + sum(heights) + 0.9 * len(panels))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for axis, (family, records), own in zip(axes.flat, panels, groups, strict=True):
        _draw_bars(axis, own, colors, THIN)
        posts = {SLICE_NAMES[record["slice"]]: record["posts"] for record in records}
        counted = ", ".join(f"{name} {count:,}" for name, count in posts.items())
        axis.set_title(textwrap.fill(f"{_plain(family)}; posts: {counted}", TITLE_LENGTH))
        axis.set_xlabel(_plain(records[0]["metric"]))
    _legend(figure, axes.flat[0])
    return figure


def _scores_by_system(records: Sequence[Record], min_posts: int) -> dict[str, dict[str, Bar]]:
    groups: dict[str, dict[str, Bar]] = {}
    for record in records:
        if bar := _score(record, min_posts):
            groups.setdefault(record["system"], {})[SLICE_NAMES[record["slice"]]] = bar
    return groups


def learning_curves(curves: Sequence[Record], colors: Colors) -> Figure | None:
    """Training (dashed) and validation bits by step, one colour per variant, one line per seed."""
    drawn = [curve for curve in curves if curve.get("history")]
    if not drawn:
        return None
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axis = figure.subplots()
    for curve in drawn:
        color = colors.get(curve["variant"], OTHER_COLOR)
        first = curve["variant"] not in axis.get_legend_handles_labels()[1]
        for key, style in (("train_bits", "--"), ("validation_bits", "-")):
            points = [(one["step"], one[key]) for one in curve["history"] if one.get(key) is not None]
            label = curve["variant"] if first and style == "-" else None
            steps, bits = [step for step, _ in points], [value for _, value in points]
            axis.plot(steps, bits, style, color=color, label=label, marker=".", markersize=4)
    axis.set_xlabel("step (dashed: training, solid: validation)")
    axis.set_ylabel("bits per masked token")
    axis.grid(alpha=0.3)
    _legend(figure, axis)
    return figure


def _gain_figure(groups: Groups, colors: Colors) -> Figure | None:
    groups = {name: bars for name, bars in groups.items() if bars}
    if not groups:
        return None
    height = AROUND + sum(map(len, groups.values())) * BAR + len(groups) * BETWEEN
    figure = Figure(figsize=(WIDTH, max(2.4, height)), layout="constrained")
    axis = figure.subplots()
    _draw_bars(axis, groups, colors)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_xlabel("gain over text, %")
    _limit_to_solid(axis, groups)
    _legend(figure, axis)
    return figure


def _draw_bars(axis: Axes, groups: Groups, colors: Colors, height: float = BAR) -> None:
    """One group of lying bars per key from above, one bar of a height in inches per series, with its interval."""
    series = distinct(name for bars in groups.values() for name in bars)
    at, middles = 0.0, []
    labelled = set()
    for bars in groups.values():
        middles.append(at + (len(bars) - 1) / 2)
        for name in (one for one in series if one in bars):
            value, low, high, solid = bars[name]
            alpha = SOLID if solid else PALE
            label = None if name in labelled else name
            labelled.add(name)
            axis.barh(at, value, 0.85, label=label, color=colors.get(name, OTHER_COLOR), alpha=alpha)
            error = [[max(value - low, 0)], [max(high - value, 0)]]
            # The dot shows a bar that is too short to be seen.
            axis.errorbar(
                value, at, xerr=error, color="black", fmt="o", markersize=2.5, capsize=2, linewidth=1, alpha=alpha
            )
            at += 1
        at += BETWEEN / height
    axis.set_yticks(middles, [textwrap.fill(_plain(name), NAME_LENGTH) for name in groups])
    axis.set_ylim(at - BETWEEN / height - 0.4, -0.6)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)


def _limit_to_solid(axis: Axes, groups: Groups) -> None:
    """Let the bars with enough posts set the scale: the interval of a handful of posts may leave the picture."""
    solid = [bar for bars in groups.values() for bar in bars.values() if bar[3]]
    if solid:
        low, high = min(0.0, *(bar[1] for bar in solid)), max(0.0, *(bar[2] for bar in solid))
        margin = 0.15 * (high - low) or 1.0
        axis.set_xlim(low - (margin if low < 0 else 0), high + (margin if high > 0 else 0))


def _gain(record: Record) -> Bar | None:
    if record["gain"] is None:
        return None
    value = record["gain"]
    return value, _or(record["low"], value), _or(record["high"], value), record["verdict"] != "too few posts"


def _score(record: Record, min_posts: int) -> Bar | None:
    if record["value"] is None:
        return None
    value = record["value"]
    return value, _or(record["value_low"], value), _or(record["value_high"], value), record["posts"] >= min_posts


def _or(bound: float | None, value: float) -> float:
    """An unbounded side is drawn without its whisker: the table says that it is unbounded."""
    return value if bound is None else bound


def _plain(text: str) -> str:
    """Text from data: matplotlib would read `$…$` as mathematics."""
    return text.replace("$", r"\$")


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, max(1, len(labels))), frameon=False)
