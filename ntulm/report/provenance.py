"""Where a page comes from: commit, recipe, date, data, and the run before. Library of the stage `report`.

Reads git (of the project's folder), the first line of `params.yaml` and `data/corpus/posts.parquet`. Reads and writes
`data/runs/`: of every run its headlines, and a page that quotes no post. DVC neither keeps nor removes it.
"""

import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ntulm.files import read_json, sha256, whole_file, write_json
from ntulm.layout import Layout
from ntulm.provenance import git, recipe
from ntulm.report.tables import Record

OWN_RECORD = "dvc.lock"  # DVC changes it while a run goes on
SHORT = 12  # digits of a hash that are shown
NAME = "%Y%m%dT%H%M%SZ"  # of kept runs; in the order of time


@dataclass(frozen=True)
class Provenance:
    """What a run was made of; `None` is what could not be found out."""

    date: str  # ISO 8601, UTC
    commit: str | None
    changed: list[str]  # files that differ from the commit
    recipe: str | None
    params: str | None  # sha256 of params.yaml
    data: str | None  # sha256 of the posts


@dataclass(frozen=True)
class Before:
    """The run before this one in the same folder: its page, and what it says of itself."""

    page: Path
    provenance: Provenance
    headlines: Record


def provenance(layout: Layout, now: datetime | None = None) -> Provenance:
    """Of the run that is there now."""
    return Provenance(
        date=(now or datetime.now(UTC)).isoformat(timespec="seconds"),
        commit=_git(layout, "rev-parse", "HEAD"),
        changed=_changed(layout),
        recipe=recipe(layout) or None,
        params=sha256(layout.params) if layout.params.is_file() else None,
        data=sha256(layout.posts) if layout.posts.is_file() else None,
    )


def run_before(layout: Layout) -> Before | None:
    """The latest run that was kept, or None."""
    found = sorted(layout.runs.glob("*.json"))
    if not found:
        return None
    kept = read_json(found[-1])
    return Before(found[-1].with_suffix(".html"), Provenance(**kept["provenance"]), kept["headlines"])


def keep_run(page: str, own: Provenance, headlines: Record, layout: Layout) -> None:
    """Keep a run for the ones that follow.

    Args:
        page: the page without quoted posts: what is kept outlives an author's wish to be forgotten.
        own: of the run.
        headlines: what `metrics/report.json` says.
        layout: where runs are kept.
    """
    path = layout.runs / datetime.fromisoformat(own.date).strftime(NAME)
    with whole_file(path.with_suffix(".html")) as partial:
        partial.write_text(page, encoding="utf-8")
    write_json(path.with_suffix(".json"), {"provenance": asdict(own), "headlines": headlines})


def _changed(layout: Layout) -> list[str]:
    """Files under version control that differ from the commit, DVC's own record aside."""
    lines = (_git(layout, "status", "--porcelain", "--untracked-files=no", "--", ".") or "").splitlines()
    names = [line.split(maxsplit=1)[-1] for line in lines]
    return sorted(name for name in names if Path(name).name != OWN_RECORD)


def _git(layout: Layout, *arguments: str) -> str | None:
    """What git says of the project's folder; None where there is no git, no repository or no commit."""
    try:
        done = git(layout, *arguments)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip("\n") or None if done.returncode == 0 else None
