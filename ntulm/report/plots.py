"""Figures 3 to 5 of the paper with intervals, and the learning curves, as PNG (matplotlib without a display).

A bar is pale where there are too few posts for a verdict. Every figure of synthetic data says so.
"""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
WIDEST = 9.0  # inches: a wider figure is shown smaller, and its letters with it
LABEL_LENGTH = 16  # letters per line
PALE, SOLID = 0.3, 1.0
TITLE_SIZE = 11

Colors = Mapping[str, str]  # of a system or slice
Bar = tuple[float, float, float, bool]  # value, low, high, solid


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
        ("figure4.png", "Figure 4: scores by system, by known NTUs", score_by_slice),
        ("figure5.png", f"Figure 5: gain over text, {ntulm} and {POST_CONCAT}", ntulm_against_concatenation),
        ("perplexity.png", "Gain in perplexity over text, by where the masked token stands", perplexity_gain),
        (
            "learning_curves.png",
            "Learning curves: bits per masked token",
            lambda _, colors: learning_curves(curves, colors),
        ),
    ]
    drawn = []
    for name, caption, draw in figures:
        figure = draw(results, colors)
        if figure is not None:
            figure.suptitle(caption + kind, fontsize=TITLE_SIZE, color="#b00020" if results.synthetic else "black")
            figure.savefig(directory / name, dpi=150)
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


def perplexity_gain(results: Results, colors: Colors) -> Figure | None:
    """The relative gain in bits of each variant, for masked tokens inside hashtags and outside them apart."""
    groups: dict[str, dict[str, Bar]] = {title: {} for title in TOKEN_NAMES.values()}
    for record in results.perplexity:
        if bar := _gain(record):
            groups[TOKEN_NAMES[record["tokens"]]][record["system"]] = bar
    return _gain_figure(groups, colors)


def score_by_slice(results: Results, colors: Colors) -> Figure | None:
    """Figure 4, for every family and not for Topic alone: the score of each system by slice."""
    families = results.main_families
    if not families:
        return None
    columns = len(families) if len(families) <= 3 else math.ceil(math.sqrt(len(families)))
    rows = -(-len(families) // columns)
    figure = Figure(figsize=(4.2 * columns + 0.6, 3.1 * rows + 1.1), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for position, axis in enumerate(axes.flat):
        if position >= len(families):
            axis.set_axis_off()
            continue
        records = results.of_family(families[position])
        groups: dict[str, dict[str, Bar]] = {}
        for record in records:
            if bar := _score(record, results.settings["min_posts"]):
                title = f"{SLICE_NAMES[record['slice']]}\n{record['posts']:,} posts"
                groups.setdefault(title, {})[record["system"]] = bar
        _draw_bars(axis, groups, colors)
        axis.set_title(_plain(families[position]), fontsize=TITLE_SIZE)
        axis.set_ylabel(_plain(records[0]["metric"]))
    _legend(figure, axes.flat[0])
    return figure


def learning_curves(curves: Sequence[Record], colors: Colors) -> Figure | None:
    """Training (dashed) and validation bits by step, one colour per variant, one line per seed."""
    drawn = [curve for curve in curves if curve.get("history")]
    if not drawn:
        return None
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
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


def _gain_figure(groups: dict[str, dict[str, Bar]], colors: Colors) -> Figure | None:
    groups = {name: bars for name, bars in groups.items() if bars}
    if not groups:
        return None
    figure = Figure(figsize=(min(max(6.5, 1.6 * len(groups) + 2), WIDEST), 4.2), layout="constrained")
    axis = figure.subplots()
    _draw_bars(axis, {textwrap.fill(_plain(name), LABEL_LENGTH): bars for name, bars in groups.items()}, colors)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_ylabel("gain over text, %")
    _limit_to_solid(axis, groups)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    _legend(figure, axis)
    return figure


def _draw_bars(axis: Axes, groups: dict[str, dict[str, Bar]], colors: Colors) -> None:
    """One group of bars per key, one bar per series, with its interval."""
    series = distinct(name for bars in groups.values() for name in bars)
    width = 0.8 / max(len(series), 1)
    for index, name in enumerate(series):
        for at, bars in enumerate(groups.values()):
            if name not in bars:
                continue
            value, low, high, solid = bars[name]
            place = at + (index - (len(series) - 1) / 2) * width
            alpha = SOLID if solid else PALE
            label = name if name not in axis.get_legend_handles_labels()[1] else None
            axis.bar(place, value, width * 0.92, label=label, color=colors.get(name, OTHER_COLOR), alpha=alpha)
            error = [[max(value - low, 0)], [max(high - value, 0)]]
            # The dot shows a bar that is too low to be seen.
            axis.errorbar(
                place, value, yerr=error, color="black", fmt="o", markersize=2.5, capsize=2, linewidth=1, alpha=alpha
            )
    axis.set_xticks(range(len(groups)), list(groups))
    axis.tick_params(labelsize=8)


def _limit_to_solid(axis: Axes, groups: dict[str, dict[str, Bar]]) -> None:
    """Let the bars with enough posts set the scale: the interval of a handful of posts may leave the picture."""
    solid = [bar for bars in groups.values() for bar in bars.values() if bar[3]]
    if solid:
        low, high = min(0.0, *(bar[1] for bar in solid)), max(0.0, *(bar[2] for bar in solid))
        margin = 0.15 * (high - low) or 1.0
        axis.set_ylim(low - (margin if low < 0 else 0), high + (margin if high > 0 else 0))


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
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(5, max(1, len(labels))), fontsize=8, frameon=False
    )
