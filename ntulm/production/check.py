"""`ntulm check [PROJECT] [--exports PATH]`: may the arriving posts be trained on? Evidently tests, limits in `check`.

PROJECT is a folder laid out like this one that holds `data/corpus` and `data/model` of the model in production;
its training window is what the new posts are compared with. New are the posts of `data/corpus`, or of the raw exports
at PATH, that the corpus in PROJECT does not hold. Without PROJECT, the test posts are compared with the train posts of
`data/corpus`, and nothing is said of known NTUs.

Writes `data/check/checks.json`, `checks.html` and `verdict.json`, and adds the run to the Evidently workspace
`monitoring`: `evidently ui --workspace monitoring` shows the history. Exits with 1 where a check fails, and where fewer
than `check.min_posts` records have arrived since the model in production: then nothing is checked, and the verdict is
`quiet`.
"""

from __future__ import annotations

import os
import shutil

os.environ.setdefault("DO_NOT_TRACK", "1")  # read when Evidently is imported

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from evidently import DataDefinition, Dataset
from evidently import Report as EvidentlyReport
from evidently.core.metric_types import Metric
from evidently.core.report import Snapshot
from evidently.metrics import CategoryCount, MeanValue, ValueDrift
from evidently.tests import gte, lte

from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.files import whole_directory, write_json
from ntulm.inference.directory import Settings
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme
from ntulm.params import check_challenge
from ntulm.production.arriving import (
    POST,
    REJECT,
    Records,
    found_records,
    frame,
    most_used_words,
    posts_per_day,
    read_records,
)
from ntulm.production.monitoring import Line, Panel, keep
from ntulm.production.verdict import write_alone, write_verdict

if TYPE_CHECKING:
    from ntulm.params import Params
    from ntulm.production.config import Check

HISTORY = "arriving posts"  # the name of the project in the Evidently workspace
DRIFT = "wasserstein"  # in standard deviations of the reference; does not grow with the number of posts
PANELS = [
    Panel(title, [Line(column, metric, {"column": column}) for column in columns])
    for title, metric, columns in (
        ("Share of arriving posts", "MeanValue", ["has_hashtag", "knows_any"]),
        ("Drift in standard deviations of the training window", "ValueDrift", ["length", "common_words"]),
    )
]


@dataclass(frozen=True)
class Rule:
    """One check: what it is called, the Evidently metric that carries its test, and its limit in words."""

    name: str
    metric: Metric
    limit: str
    reference: float | None = None
    percent: bool = False

    def shown(self, value: float | None) -> str:
        """A value as the check's unit wants it."""
        if value is None:
            return "–"
        return f"{value:.1%}" if self.percent else f"{value:,.2f}".removesuffix(".00")


def run(params: Params, project: Path | None, exports: Path | None, layout: Layout) -> None:
    """Compare, write what was found, and say it.

    Raises:
        UserError: too little is new, or a check failed; the message names each with value and limit.
    """
    check_challenge(params)  # here, because the flow `retrain` builds only after this
    shutil.rmtree(layout.check, ignore_errors=True)  # what an earlier run found must not be taken for this one's
    champion = None if project is None else Layout(project)
    arriving, reference = compared(params, champion, exports, layout)
    refuse_too_few(params.check, arriving, champion is not None, layout)
    table, scheme = None, params.ntus.scheme
    if champion is not None:  # what its table knows is asked for as it was written
        scheme, table = Settings.read(champion.model).scheme, EmbeddingTable.load(champion.model)
    roles = [role for role in params.evaluate.overlap if role in scheme.of_posts]
    snapshot, checks = examine(params.check, arriving, reference, table, scheme, roles)
    failed = [line(check) for check in checks if not check["passed"]]
    with whole_directory(layout.check) as directory:
        snapshot.save_html(str(directory / "checks.html"))
        write_json(directory / "checks.json", checks)
        write_verdict(directory, "failed" if failed else "passed", "; ".join(failed) or "all checks passed")
    keep(snapshot, HISTORY, PANELS, layout)
    print("\n".join(line(check) for check in checks))
    if failed:
        raise UserError("; ".join(failed))


def compared(params: Params, champion: Layout | None, exports: Path | None, layout: Layout) -> tuple[Records, Records]:
    """The arriving records and the posts of the training window."""
    if champion is None:
        return read_records(layout, "test"), read_records(layout, "train")
    found = found_records(params, exports, champion, layout)
    return found.without(read_records(champion)), read_records(champion, "train")


def refuse_too_few(config: Check, arriving: Records, since_production: bool, layout: Layout) -> None:
    """A quiet day is no failure, but nothing can be said of it; without posts nothing can be said at all.

    Raises:
        UserError: so it is here; the verdict beside it tells the two apart.
    """
    posts, rejects = len(arriving.posts), len(arriving.rejects)
    quiet = since_production and posts + rejects < config.min_posts  # many rejects and few posts: something is broken
    if posts and not quiet:
        return
    reason = f"new posts: {posts:,}; "
    if rejects:
        reason += f"new records that are none: {rejects:,}; "
    reason += f"nothing can be said below check.min_posts ({config.min_posts:,})" if quiet else "at least 1 expected"
    write_alone(layout.check, "quiet" if quiet else "failed", reason)
    raise UserError(reason)


def examine(
    config: Check,
    arriving: Records,
    reference: Records,
    table: EmbeddingTable | None,
    scheme: NtuScheme,
    roles: Sequence[str],
) -> tuple[Snapshot, list[dict[str, Any]]]:
    """Run the tests; the Evidently report, and one record per check: name, value, reference, limit, passed."""
    common = most_used_words(reference.posts["text"].to_pylist(), config.common_words)
    current, past = (frame(records, common, table, scheme, roles) for records in (arriving, reference))
    chosen = rules(config, arriving, reference, past, roles if table is not None else ())
    report = EvidentlyReport([rule.metric for rule in chosen], include_tests=True)
    snapshot = report.run(_dataset(current), _dataset(past))
    return snapshot, results(snapshot, chosen)


def rules(config: Check, arriving: Records, reference: Records, past: pd.DataFrame, roles: Sequence[str]) -> list[Rule]:
    """The checks with their limits; `past` is the frame of the training window, `roles` those of known NTUs, if any."""
    (rate, _), (_, days) = posts_per_day(reference.posts), posts_per_day(arriving.posts)
    posts = max(config.min_posts, round(config.min_rate * rate * days))
    hashtag_share = float(past["has_hashtag"].mean())
    hashtags = config.min_hashtag_ratio * hashtag_share
    rejects, own = config.max_reject_share, config.min_known_share
    count = CategoryCount(column="fate", category=POST, tests=[gte(posts)])
    rejected = CategoryCount(column="fate", category=REJECT, share_tests=[lte(rejects)])
    return [
        Rule("new posts", count, f"at least {posts:,}", float(len(reference.posts))),
        Rule("rejected records", rejected, f"at most {rejects:.1%}", percent=True),
        *([_share(f"posts with a known {' or '.join(roles)}", "knows_any", own, past)] if roles else []),
        _share("posts with hashtags", "has_hashtag", hashtags, past),
        _drift("drift of text length", "length", config.max_length_drift),
        _drift("drift of language", "common_words", config.max_language_drift),
    ]


def _share(name: str, column: str, least: float, past: pd.DataFrame) -> Rule:
    metric = MeanValue(column=column, tests=[gte(least)])
    return Rule(name, metric, f"at least {least:.1%}", float(past[column].mean()), percent=True)


def _drift(name: str, column: str, most: float) -> Rule:
    return Rule(name, ValueDrift(column=column, method=DRIFT, threshold=most), f"below {most}")


def results(snapshot: Snapshot, chosen: list[Rule]) -> list[dict[str, Any]]:
    """What Evidently found, one record per check."""
    found = snapshot.dict()
    values = {item["id"]: item["value"] for item in found["metrics"]}
    status = {item["metric_config"]["metric_id"]: item["status"] for item in found["tests"]}
    records = []
    for rule in chosen:
        value = values[rule.metric.metric_id]
        number = float(value["share" if rule.percent else "count"] if isinstance(value, dict) else value)
        shown = {"value": rule.shown(number), "reference": rule.shown(rule.reference), "limit": rule.limit}
        records.append({"check": rule.name, **shown, "passed": status[rule.metric.metric_id] == "SUCCESS"})
    return records


def line(check: dict[str, Any]) -> str:
    """A check in one line."""
    return f"{check['check']}: {check['value']}, {check['limit']}" + ("" if check["passed"] else " expected")


def _dataset(records: pd.DataFrame) -> Dataset:
    numbers = [column for column in records.columns if column != "fate"]
    return Dataset.from_pandas(records, DataDefinition(numerical_columns=numbers, categorical_columns=["fate"]))
