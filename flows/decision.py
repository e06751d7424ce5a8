"""What `retrain`, `monitor` and `embed` decided or did, for people: Prefect artifacts beside the results of `build`.

Reads what `ntulm check`, `drift`, `challenge` and `arrivals` wrote. Only figures and names of checks, data sets and
classifiers stand in it.
"""

import json
import os
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.workspace import Workspace

CHECK, DRIFT = Path("data/check"), Path("data/drift")
CHALLENGE = Path("data/challenge/challenge.json")
ARRIVALS = Path("data/arrivals/run.json")
CHECKS_ADDRESS = "NTULM_CHECKS_ADDRESS"  # where the folder data/check is served
DRIFT_ADDRESS = "NTULM_DRIFT_ADDRESS"  # where the folder data/drift is served


def publish_checks(workspace: Workspace) -> None:
    """Show the checks as a table and link to the Evidently page; nothing where the checks did not come that far."""
    _publish(
        workspace.root / CHECK, "checks", CHECKS_ADDRESS, "Arriving posts against the training window in production"
    )


def publish_drift(workspace: Workspace) -> None:
    """Show the drift of vectors and labels, as the checks."""
    _publish(workspace.root / DRIFT, "drift", DRIFT_ADDRESS, "Arriving posts as the model in production sees them")


def _publish(folder: Path, name: str, served: str, description: str) -> None:
    rows, page = folder / f"{name}.json", folder / f"{name}.html"
    if not rows.is_file():
        return
    create_table_artifact(json.loads(rows.read_text(encoding="utf-8")), key=name, description=description)
    address = os.environ.get(served, folder.as_uri()).rstrip("/")
    create_link_artifact(
        f"{address}/{page.name}", link_text=f"{name} of arriving posts (Evidently)", key=f"{name}-page"
    )


def read_arrivals(root: Path) -> dict[str, Any]:
    """What `ntulm arrivals` did."""
    done: dict[str, Any] = json.loads((root / ARRIVALS).read_text(encoding="utf-8"))
    return done


def publish_arrivals(done: dict[str, Any], version: str) -> None:
    """Show what was embedded and labelled, in posts."""
    rows = [
        ("new", done["embedded"]),
        ("embedded anew after a promotion", done["backlog"]),
        ("left to be embedded anew", done["backlog_left"]),
        ("of earlier versions, no longer among the exports", done["gone"]),
        (f"stored under {version}", done["stored"]),
        *((f"labelled now: {name}", count) for name, count in done["labelled"].items()),
    ]
    table = [{"posts": name, "number": count} for name, count in rows]
    create_table_artifact(table, key="arrivals", description=f"Arriving posts as {version} sees them")


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
