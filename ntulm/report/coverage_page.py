"""NTU coverage and scores by slice as an Evidently page: one HTML file with its scripts and fonts inside.

Evidently writes labels into a script and into markup without escaping them: each label from data passes `_harmless`.
"""

import os

os.environ.setdefault("DO_NOT_TRACK", "1")  # read when Evidently is imported

from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from evidently import Dataset
from evidently import Report as EvidentlyReport
from evidently.core.metric_types import (
    BoundTest,
    DataframeCalculation,
    DataframeMetric,
    DataframeValue,
    SingleValue,
    SingleValueCalculation,
    SingleValueMetric,
)
from evidently.core.report import Context, Snapshot
from evidently.legacy.renderers.html_widgets import (
    CounterData,
    WidgetSize,
    counter,
    header_text,
    plotly_figure,
    table_data,
)
from evidently.tests import gte

from ntulm.layout import Layout
from ntulm.production.monitoring import Line, Panel, keep
from ntulm.report.plots import COLORS, SPARE_COLORS
from ntulm.report.tables import (
    ANY,
    SLICE_NAMES,
    SYNTHETIC,
    TOKEN_NAMES,
    Record,
    Results,
    gain,
    marked,
    share,
)

HISTORY = "runs"  # the name of the project in the Evidently workspace
HARMLESS = str.maketrans({"<": "‹", ">": "›"})


class KnownNtuShare(SingleValueMetric):
    """The share of a data set's test posts with at least one NTU that the embedding table knows."""

    family: str
    dataset: str
    min_coverage: float

    def _default_tests(self, context: Context) -> list[BoundTest]:
        return [gte(self.min_coverage, is_critical=False).bind_single(self.get_fingerprint())]


class KnownNtuShareCalculation(SingleValueCalculation[KnownNtuShare]):
    """Looks the share up in the coverage table that the report runs on."""

    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> SingleValue:
        frame = current_data.as_dataframe()
        own = frame[
            (frame["family"] == self.metric.family)
            & (frame["dataset"] == self.metric.dataset)
            & (frame["split"] == "test")
            & (frame["type"] == ANY)
        ]
        value = float(own["share_known"].iloc[0])
        result = self.result(value)
        title = f"{self.metric.family}: {self.metric.dataset}"
        number = CounterData(label="test posts with a known NTU", value=share(value))
        result.widget = [counter(title=title, counters=[number], size=WidgetSize.HALF)]
        return result

    def display_name(self) -> str:
        return f"{self.metric.family}, {self.metric.dataset}: share of test posts with a known NTU"


class CoverageTable(DataframeMetric):
    """Table 5: posts, NTUs and shares by data set, split and NTU type."""


class CoverageTableCalculation(DataframeCalculation[CoverageTable]):
    """Formats the coverage table that the report runs on."""

    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> DataframeValue:
        frame = current_data.as_dataframe()
        table = pd.DataFrame(
            {
                "family": frame["family"],
                "data set": frame["dataset"],
                "split": frame["split"],
                "NTUs": frame["type"],
                "posts": frame["posts"].map("{:,}".format),
                "unique NTUs": frame["ntus"].map("{:,}".format),
                "posts with ≥ 1": frame["share_any"].map(_share),
                "posts with ≥ 1 known": frame["share_known"].map(_share),
                "known among those with any": frame["share_known_of_any"].map(_share),
            }
        )
        result = self.result(table)
        result.widget = [
            plotly_figure(title="Test posts with a known NTU", figure=coverage_figure(frame)),
            _table(self.display_name(), table),
        ]
        return result

    def display_name(self) -> str:
        return "NTU coverage by data set and split (Table 5)"


class ScoresBySlice(DataframeMetric):
    """The main metric of every data set by system and slice, with the gain over the baseline."""


class ScoresBySliceCalculation(DataframeCalculation[ScoresBySlice]):
    """Formats the table of scores that the report got as additional data."""

    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> DataframeValue:
        table = context.additional_data["scores"].as_dataframe()
        result = self.result(table)
        result.widget = [_table(self.display_name(), table)]
        return result

    def display_name(self) -> str:
        return "Score by system and slice, gain over text with its interval"


class Score(SingleValueMetric):
    """The score of a system on a measure, over all posts and data sets of its family."""

    measure: str
    system: str


class ScoreCalculation(SingleValueCalculation[Score]):
    """Looks the score up in the table of measures that the report got; only the history shows it."""

    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> SingleValue:
        frame = context.additional_data["measures"].as_dataframe()
        own = frame[(frame["measure"] == self.metric.measure) & (frame["system"] == self.metric.system)]
        result = self.result(float(own["value"].iloc[0]))
        result.widget = []
        return result

    def display_name(self) -> str:
        return f"{self.metric.measure}: {self.metric.system}"


def write_coverage_page(results: Results, min_coverage: float, path: Path, layout: Layout) -> bool:
    """Write the page and keep the run in the history; False if no task was run, so that there is nothing to show.

    Args:
        results: what `evaluate` wrote.
        min_coverage: the share of test posts with a known NTU under which a data set gets a warning.
        path: the HTML file to write.
        layout: where the history is.
    """
    if not results.coverage:
        return False
    snapshot = coverage_snapshot(results, min_coverage)
    snapshot.save_html(str(path))
    keep(snapshot, HISTORY, panels(results), layout)
    return True


def panels(results: Results) -> list[Panel]:
    """What the history shows of each run: the measures by system, and the coverage by data set."""
    tested = (one for one in results.coverage if one["split"] == "test" and one["type"] == ANY)
    labels = [_harmless({"family": one["family"], "dataset": one["dataset"]}) for one in tested]
    shares = [Line(f"{one['family']}: {one['dataset']}", "KnownNtuShare", one) for one in labels]
    by_measure: dict[str, list[Line]] = {}
    for one in _measured(results):
        label = {"measure": one["measure"], "system": one["system"]}
        by_measure.setdefault(one["measure"], []).append(Line(one["system"], "Score", label))
    scores = [Panel(measure, lines) for measure, lines in by_measure.items()]
    return [*scores, Panel("Share of test posts with a known NTU", shares)]


def _measured(results: Results) -> list[Record]:
    return [
        _harmless({"measure": measure, "system": one["system"], "value": one["value"]})
        for measure, records in results.measures()
        for one in records
        if one["value"] is not None
    ]


def coverage_snapshot(results: Results, min_coverage: float) -> Snapshot:
    """The Evidently report on the coverage table, with its tests; warnings, for low coverage is no error."""
    coverage = pd.DataFrame([_harmless(record) for record in results.coverage])
    tested = coverage[(coverage["split"] == "test") & (coverage["type"] == ANY)]
    shares = [
        KnownNtuShare(family=row["family"], dataset=row["dataset"], min_coverage=min_coverage)
        for _, row in tested.iterrows()
    ]
    measured = pd.DataFrame(_measured(results), columns=["measure", "system", "value"])
    scores = [Score(measure=row["measure"], system=row["system"]) for _, row in measured.iterrows()]
    report = EvidentlyReport([CoverageTable(), *shares, ScoresBySlice(), *scores], include_tests=True)
    additional = {"scores": scores_frame(results), "measures": measured}
    snapshot = report.run(coverage, None, additional_data=additional)
    if results.synthetic:
        # Evidently's page has no place for a notice, so the notice is its first widget.
        snapshot._widgets.insert(0, header_text(label=SYNTHETIC))
    return snapshot


def scores_frame(results: Results) -> pd.DataFrame:
    """The rows of `ScoresBySlice`, formatted; perplexity first, its token groups in the place of slices."""
    rows = [
        _score_row("Perplexity", "test posts", "bits", TOKEN_NAMES[record["tokens"]], record)
        for record in results.perplexity
    ]
    rows += [
        _score_row(record["family"], record["dataset"], record["metric"], SLICE_NAMES[record["slice"]], record)
        for record in results.datasets
        if record["main"]
    ]
    return pd.DataFrame(rows or [_score_row("", "", "", "", None)])


def coverage_figure(frame: pd.DataFrame) -> go.Figure:
    """The share of test posts with a known NTU of each type, and of any, by data set."""
    test = frame[frame["split"] == "test"]
    types = [name for name in dict.fromkeys(test["type"]) if name != ANY]
    colors = dict(zip(types, (COLORS["hashtag"], COLORS["author"], *SPARE_COLORS * len(types)), strict=False))
    figure = go.Figure()
    for name in (*types, ANY):
        own = test[test["type"] == name]
        figure.add_bar(
            x=[f"{row['family']}: {row['dataset']}" for _, row in own.iterrows()],
            y=own["share_known"],
            name=" or ".join(types) if name == ANY else name,
            marker_color=colors.get(name, COLORS["overlap"]),
        )
    figure.update_layout(barmode="group", yaxis={"tickformat": ".0%", "range": [0, 1]})
    return figure


def _score_row(family: str, dataset: str, metric: str, of: str, record: Record | None) -> Record:
    row = {"family": family, "data set": dataset, "metric": metric, "slice": of}
    row |= {"system": record["system"] if record else "", "posts": f"{record['posts']:,}" if record else ""}
    row |= {"score": marked(record) if record else "", "gain over text": gain(record) if record else ""}
    row |= {"verdict": (record["verdict"] or "") if record else ""}
    return _harmless(row)


def _table(title: str, table: pd.DataFrame) -> Any:
    return table_data(title=title, column_names=list(table.columns), data=table.to_numpy().tolist())


def _share(value: float) -> str:
    return share(None if pd.isna(value) else value)


def _harmless(record: Record) -> Record:
    return {key: value.translate(HARMLESS) if isinstance(value, str) else value for key, value in record.items()}
