"""The tables of the stage `evaluate`, read back for people: look-ups, and how figures, gains and verdicts are written.

Reads `data/evaluate/tables.json`, `metrics/corpus.json` (whether the posts are synthetic) and `paper_scores.json` (the
paper's Tables 2 to 5). Library only; `report` and `results` use it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from ntulm.files import read_json
from ntulm.layout import Layout

Record = dict[str, Any]

MARKS = {"better": "▲", "worse": "▼", "no difference shown": "=", "too few posts": "?", None: ""}
LEGEND = "▲ better, ▼ worse, = no difference shown, ? too few posts for a verdict"
SYNTHETIC = "SYNTHETIC data: these figures show that the pipeline works, not that NTUs help on real posts."
SLICE_NAMES = {"overall": "overall", "overlap": "overlap", "non_overlap": "non-overlap"}
TOKEN_NAMES = {
    "all": "all masked tokens",
    "in_hashtag": "tokens inside hashtags",
    "other": "the other tokens",
    "seen_under_10": "of these, seen under 10 times",
    "seen_under_100": "10 to 99 times",
    "seen_under_1000": "100 to 999 times",
    "seen_more": "1,000 times or more",
}
BITS_NAMES = {
    "all": "Perplexity (bits)",
    "in_hashtag": "Bits, tokens in hashtags",
    "other": "Bits, the other tokens",
    "seen_under_10": "Bits, others seen < 10 times",
    "seen_under_100": "Bits, others seen 10 to 99 times",
    "seen_under_1000": "Bits, others seen 100 to 999 times",
    "seen_more": "Bits, others seen ≥ 1,000 times",
}
POST_CONCAT = "post-concat"  # what Table 4 compares NTULM with
SHUFFLED = "shuffled"  # the control: a variant with the NTUs of other posts
ANY = "any"  # in the coverage records: of any type
ABSENT = "–"


@dataclass(frozen=True)
class Results:
    """What `evaluate` wrote; the records are described in `ntulm.evaluate.stage`."""

    settings: Record
    perplexity: list[Record]
    families: list[Record]
    datasets: list[Record]
    coverage: list[Record]
    familiarity: list[Record]
    synthetic: bool

    @property
    def baseline(self) -> str:
        return str(self.settings["baseline"])

    @property
    def ntulm(self) -> str:
        """The variant that stands for NTULM: the paper's, or the one of this run that comes nearest to it."""
        return str(self.settings["ntulm"])

    @property
    def compared(self) -> list[str]:
        """The two systems that Table 4 compares, as far as they were run."""
        return [system for system in (self.ntulm, POST_CONCAT) if system in self.systems]

    @property
    def systems(self) -> list[str]:
        """Every system that has a figure, baseline first, in the order of the tables."""
        return distinct(record["system"] for record in self.families + self.perplexity)

    @property
    def main_families(self) -> list[str]:
        return distinct(record["family"] for record in self.families if record["main"])

    def measures(self, every_metric: bool = False) -> list[tuple[str, list[Record]]]:
        """The headline comparisons: (measure, one record per system) for perplexity and each family's main metric."""
        measures = self._token_measures("all")
        overall = [r for r in self.families if r["slice"] == "overall" and (r["main"] or every_metric)]
        for family, metric in dict.fromkeys((record["family"], record["metric"]) for record in overall):
            own = [record for record in overall if (record["family"], record["metric"]) == (family, metric)]
            measures.append((f"{family} ({metric})", own))
        return measures

    def comparisons(self) -> list[tuple[str, list[Record]]]:
        """Everything that is compared over all posts: perplexity by token group, then every metric of each family."""
        bits = [measure for tokens in TOKEN_NAMES for measure in self._token_measures(tokens)]
        return bits + [(name, of) for name, of in self.measures(every_metric=True) if "family" in of[0]]

    def _token_measures(self, tokens: str) -> list[tuple[str, list[Record]]]:
        records = [record for record in self.perplexity if record["tokens"] == tokens]
        return [(BITS_NAMES[tokens], records)] if records else []

    def of_family(self, family: str, metric: str | None = None) -> list[Record]:
        """The records of a family by its main metric, or by another."""
        return [
            record
            for record in self.families
            if record["family"] == family and (record["main"] if metric is None else record["metric"] == metric)
        ]

    def sentence(self) -> str:
        """The verdict on NTULM in one sentence."""
        records = [record for _, of in self.measures() for record in of if record["system"] == self.ntulm]
        given = [record["verdict"] for record in records if record["verdict"] is not None]
        if not given:
            return f"Nothing to compare: no variant was run beside `{self.baseline}`, or `{self.baseline}` was not run."
        counts = [f"{verdict} on {given.count(verdict)}" for verdict in MARKS if verdict in given]
        return f"{self.ntulm} against {self.baseline}, of {_many(len(given), 'measure')}: {', '.join(counts)}."

    def findings(self) -> list[str]:
        """What else the same tables show, a sentence each: who is ahead, posts without known NTUs, controls."""
        return [one for one in (self._ahead(), self._without_ntus(), self._controls()) if one]

    def _ahead(self) -> str:
        """Which systems have a better figure than NTULM; the baseline aside, of which the verdict speaks."""
        better: dict[str, list[str]] = {}
        measures, others = 0, False
        for measure, records in self.measures():
            values = {one["system"]: one["value"] for one in records if one["value"] is not None}
            own = values.pop(self.ntulm, None)
            values.pop(self.baseline, None)
            if own is None:
                continue
            measures, others = measures + 1, others or bool(values)
            sign = 1 if "family" in records[0] else -1  # fewer bits are better
            for system, value in values.items():
                if sign * (value - own) > 0:
                    named = records[0].get("family", measure)
                    better.setdefault(system, []).append(f"{named} {number(value)} against {number(own)}")
        if not better:
            return f"No other system has a better figure than {self.ntulm} on any measure." if others else ""
        shown = sorted(better.items(), key=lambda item: -len(item[1]))
        parts = (f"{system} on {len(of)} of {measures} ({', '.join(of)})" for system, of in shown)
        return f"Ahead of {self.ntulm}: {'; '.join(parts)}. Of these differences no interval was measured."

    def _without_ntus(self) -> str:
        """What NTUs do to posts that have none that the table knows, by verdict."""
        records = [
            record
            for family in self.main_families
            for record in self.of_family(family)
            if record["system"] == self.ntulm and record["slice"] == "non_overlap" and record["verdict"] is not None
        ]
        parts = []
        for verdict in MARKS:
            own = [f"{one['family']} {gain(one)}" for one in records if one["verdict"] == verdict]
            parts += [f"{verdict} on {', '.join(own)}"] if own else []
        return f"Posts without a known NTU, {self.ntulm} against {self.baseline}: {'; '.join(parts)}." if parts else ""

    def _controls(self) -> str:
        """Whether NTUs of other posts help too, where that was run: they must not."""
        given = [(name, one["verdict"]) for name, of in self.measures() for one in of if one["system"] == SHUFFLED]
        better = [name for name, verdict in given if verdict == "better"]
        if better:
            return f"The control {SHUFFLED} (NTUs of other posts) gains too, on {', '.join(better)}: something leaks."
        return f"The control {SHUFFLED} (NTUs of other posts) gains on no measure, as it must." if given else ""

    def method(self) -> str:
        """How the intervals were made, in a line."""
        settings = self.settings
        seeds = _many(len(settings["seeds"]), "seed")
        if len(settings["seeds"]) == 1:
            seeds += ", so the chance in training is not in them"
        return (
            f"{settings['confidence']:.0%} intervals of the gain over {self.baseline}: paired bootstrap over test posts"
            f"{' and seeds' if len(settings['seeds']) > 1 else ''}, {settings['resamples']:,} resamples, "
            f"{seeds}; no verdict under {settings['min_posts']} posts. A positive gain is an improvement, in bits too"
        )


def load_results(layout: Layout) -> Results:
    """Read what the last run of `evaluate` wrote.

    Raises:
        UserError: nothing has been evaluated yet.
    """
    tables = read_json(layout.evaluate / "tables.json")
    corpus = layout.metrics("corpus")
    return Results(**tables, synthetic=corpus.exists() and read_json(corpus).get("format") == "synthetic")


def load_paper() -> Record:
    """The paper's Tables 2 to 5; see `source` and `notes` in `paper_scores.json`."""
    paper: Record = json.loads(files("ntulm.report").joinpath("paper_scores.json").read_text(encoding="utf-8"))
    return paper


def dig(values: Any, *path: str) -> Any:
    """values[path[0]][path[1]]…, or None where a key is absent."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def distinct(values: Iterable[str]) -> list[str]:
    """Without repeats, in order of appearance."""
    return list(dict.fromkeys(values))


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where it is undefined."""
    return ABSENT if value is None else f"{value:,.{digits}f}"


def share(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage."""
    return ABSENT if value is None else f"{100 * value:.{digits}f} %"


def gain(record: Record) -> str:
    """A gain in % with its interval: `+4.9 % [+1.2, +8.0]`; an unbounded side is a dash."""
    if record["gain"] is None:
        return ""
    low, high = (ABSENT if record[side] is None else f"{record[side]:+z.1f}" for side in ("low", "high"))
    return f"{record['gain']:+z.1f} % [{low}, {high}]"


def marked(record: Record, digits: int = 3) -> str:
    """A figure with the mark of its verdict."""
    return f"{number(record['value'], digits)} {MARKS[record['verdict']]}".rstrip()


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
