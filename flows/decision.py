"""What `retrain` and `monitor` decided, in words, for people: Prefect artifacts beside the results of `build`.

Reads what `ntulm check` and `ntulm challenge` wrote. Only figures and names of checks and data sets stand in it.
"""

import json
import os
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.workspace import Workspace

CHECKS = Path("data/check/checks.json")
PAGE = Path("data/check/checks.html")
CHALLENGE = Path("data/challenge/challenge.json")
CHECKS_ADDRESS = "NTULM_CHECKS_ADDRESS"  # where the folder data/check is served


def publish_checks(workspace: Workspace) -> None:
    """Show the checks as a table and link to the Evidently page; nothing where the checks did not come that far."""
    if not (workspace.root / CHECKS).is_file():
        return
    rows = json.loads((workspace.root / CHECKS).read_text(encoding="utf-8"))
    create_table_artifact(rows, key="checks", description="Arriving posts against the training window in production")
    address = os.environ.get(CHECKS_ADDRESS, (workspace.root / PAGE.parent).as_uri()).rstrip("/")
    create_link_artifact(f"{address}/{PAGE.name}", link_text="arriving posts (Evidently)", key="checks-page")


def publish_decision(decision: str) -> None:
    """Show the decision in words."""
    create_markdown_artifact(f"# Decision\n\n{_harmless(decision)}\n", key="decision", description="Decision")


def read_challenge(root: Path) -> dict[str, Any]:
    """What `ntulm challenge` decided."""
    decision: dict[str, Any] = json.loads((root / CHALLENGE).read_text(encoding="utf-8"))
    return decision


def publish_challenge(challenge: dict[str, Any]) -> None:
    """Show champion and challenger by data set."""
    rows = [{"dataset": "all", **challenge["overall"]}, *challenge["datasets"]]
    create_table_artifact(
        [_rounded(row) for row in rows], key="challenge", description="Challenger against champion, newest posts"
    )


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}


def _harmless(text: str) -> str:
    """A reason can quote a file name or a value: none of it is markup."""
    return text.translate(str.maketrans("<>[]`!", "‹›()'."))
