"""What a run shows in the Prefect UI: results, coverage, the link to the report, progress.

All of it is read from the outputs of the DVC stages, and is shown beside them, never instead of them.
"""

import json
import os
import re
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

RESULTS = Path("reports/results.md")
REPORT = Path("reports/coverage.html")
TABLES = Path("data/evaluate/tables.json")
REPORTS_ADDRESS = "NTULM_REPORTS_ADDRESS"  # where `make up` serves reports/
RELATIVE_LINK = re.compile(r"(?<=\]\()(?=[\w./-]+\))(?!/)")


class Progress:
    """A progress artifact that counts stages."""

    def __init__(self, stages: int) -> None:
        self.stages = stages
        self.done = 0
        artifact = create_progress_artifact(progress=0.0, key="progress", description=f"0 of {stages} stages")
        assert isinstance(artifact, UUID)
        self.artifact = artifact

    def advance(self, stage: str) -> None:
        """Count one more stage."""
        self.done += 1
        description = f"{self.done} of {self.stages} stages; last: {stage}"
        update_progress_artifact(self.artifact, progress=100 * self.done / self.stages, description=description)


def publish_results(root: Path) -> None:
    """Show what the last stages wrote; a pipeline without such outputs shows nothing."""
    address = os.environ.get(REPORTS_ADDRESS, (root / "reports").as_uri()).rstrip("/")
    if (root / RESULTS).is_file():
        text = with_absolute_links((root / RESULTS).read_text(encoding="utf-8"), address)
        create_markdown_artifact(text, key="results", description="Results")
    if (root / REPORT).is_file():
        create_link_artifact(
            f"{address}/{REPORT.name}",
            link_text="coverage report",
            key="coverage-report",
            description="Coverage of NTUs, and each metric by slice",
        )
    if (root / TABLES).is_file():
        rows = coverage_rows(json.loads((root / TABLES).read_text(encoding="utf-8")))
        create_table_artifact(rows, key="coverage", description="Posts and NTUs that the embedding table knows")


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
