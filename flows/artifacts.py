"""What a run shows in the Prefect UI: results, coverage, the links to the pages, progress.

All of it is read from the outputs of the DVC stages, and is shown beside them, never instead of them: no stage waits
for it, and a server that does not take it fails no run.
"""

import contextvars
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

RESULTS = Path("reports/results.md")
PAGE = Path("reports/results.html")
REPORT = Path("reports/coverage.html")
TABLES = Path("data/evaluate/tables.json")
REPORTS_ADDRESS = "NTULM_REPORTS_ADDRESS"  # where `make up` serves reports/
RELATIVE_LINK = re.compile(r"(?<=\]\()(?=[\w./-]+\))(?!/)")
SECONDS_BETWEEN = 1.0  # of two looks at what there is to tell
LAST_WORD_SECONDS = 15.0  # that the end of a run waits for the server, at most


@contextmanager
def beside(what: str) -> Iterator[None]:
    """What is only shown in the UI: where the server does not take it, the log says so and the run goes on."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        get_run_logger().warning(f"{what}: not shown in the UI: {reason}")


class Progress:
    """A progress artifact that counts stages. A thread of its own sends it: a busy server delays no stage."""

    def __init__(self, stages: int) -> None:
        self._stages = stages
        self._state = (0, "")  # how many are done, and the last of them; replaced whole
        self._ended = threading.Event()
        context = contextvars.copy_context()  # which run this is
        self._thread = threading.Thread(target=context.run, args=(self._send,), daemon=True)
        self._thread.start()

    def advance(self, stage: str) -> None:
        """Count one more stage."""
        self._state = (self._state[0] + 1, stage)

    def close(self) -> None:
        """Nothing follows: give the last state a moment to arrive."""
        self._ended.set()
        self._thread.join(LAST_WORD_SECONDS)

    def _send(self) -> None:
        artifact: UUID | None = None
        sent: tuple[int, str] | None = None
        ended = False
        while not ended:
            state = self._state
            if state != sent:
                with beside("progress"):
                    artifact = self._shown(artifact, *state)
                sent = state
            ended = self._ended.wait(SECONDS_BETWEEN) and self._state == sent

    def _shown(self, artifact: UUID | None, done: int, last: str) -> UUID:
        """Send a state, and return the artifact that has it."""
        share = 100 * done / self._stages if self._stages else 100.0
        description = f"{done} of {self._stages} stages" + (f"; last: {last}" if last else "")
        if artifact is not None:
            update_progress_artifact(artifact, progress=share, description=description)
            return artifact
        created = create_progress_artifact(progress=share, key="progress", description=description)
        assert isinstance(created, UUID)
        return created


def publish_results(root: Path) -> None:
    """Show what the last stages wrote; a pipeline without such outputs shows nothing."""
    address = os.environ.get(REPORTS_ADDRESS, (root / "reports").as_uri()).rstrip("/")
    with beside("results"):
        _publish_pages(root, address)
    if (root / TABLES).is_file():
        with beside("coverage"):
            rows = coverage_rows(json.loads((root / TABLES).read_text(encoding="utf-8")))
            create_table_artifact(rows, key="coverage", description="Posts and NTUs that the embedding table knows")


def _publish_pages(root: Path, address: str) -> None:
    if (root / RESULTS).is_file():
        text = with_absolute_links((root / RESULTS).read_text(encoding="utf-8"), address)
        create_markdown_artifact(text, key="results", description="Results")
    if (root / PAGE).is_file():
        create_link_artifact(
            f"{address}/{PAGE.name}",
            link_text="results as one page",
            key="results-page",
            description="Scores, gains and their intervals, neighbourhoods of hashtags, the map of NTUs",
        )
    if (root / REPORT).is_file():
        create_link_artifact(
            f"{address}/{REPORT.name}",
            link_text="coverage report",
            key="coverage-report",
            description="Coverage of NTUs, and each metric by slice",
        )


def with_absolute_links(markdown: str, address: str) -> str:
    """Let links and images that are relative to the folder of the reports point to where it is served."""
    return RELATIVE_LINK.sub(f"{address}/", markdown)


def coverage_rows(tables: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the paper's Table 5, shares as percentages, names first."""
    return [_readable(row) for row in tables["coverage"]]


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    names = {key: row[key] for key in ("dataset", "split", "type", "posts", "ntus") if key in row}
    shares = {key: f"{value:.1%}" for key, value in row.items() if key.startswith("share") and value is not None}
    return names | shares
