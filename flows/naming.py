"""What a run is called in a list, flow, recipe and commit, such as `build stocknet @f4ca41f`; and its tags."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from flows.artifacts import beside
from flows.parameters import AS_IT_STANDS

PARAMS = Path("params.yaml")
FIRST_WORDS = re.compile(r"# ([a-z][a-z0-9_-]*): ")  # how a recipe begins, and the params.yaml written from it
CODE = ("ntulm", "flows", "dvc.yaml")  # an edit of these is not in the commit
SHORT = 7  # digits of a commit, of an id
EDITED = "+"
MADE_UP = re.compile(r"[a-z]+-[a-z]+")  # as Prefect calls runs that nobody gave a name, such as `brave-otter`
GIT_SECONDS = 10


def run_name() -> str:
    """The name of this run, unless somebody gave it one; Prefect calls this when the run begins."""
    given = flow_run.get_name()
    if given and not MADE_UP.fullmatch(given):
        return str(given)
    return called(flow_run.get_flow_name() or "flow", flow_run.get_parameters(), Path.cwd())


def called(flow: str, parameters: Mapping[str, Any], root: Path) -> str:
    """Flow, recipe and commit, as far as they are known."""
    commit = commit_of(root)
    return " ".join(part for part in (flow, recipe_of(parameters, root), commit and f"@{commit}") if part)


def owner() -> str:
    """Who holds a workspace: the name and, as names repeat, the beginning of the id."""
    return f"flow run {flow_run.get_name()} ({str(flow_run.get_id())[:SHORT]})"


def recipe_of(parameters: Mapping[str, Any], root: Path) -> str:
    """The recipe that the run asks for, or the one that params.yaml was written from; empty where that is not known."""
    asked = parameters.get("recipe", AS_IT_STANDS)
    if asked != AS_IT_STANDS:
        return str(asked)
    try:
        with (root / PARAMS).open(encoding="utf-8", errors="replace") as file:
            found = FIRST_WORDS.match(file.readline())
    except OSError:
        return ""
    return found[1] if found else ""


def commit_of(root: Path) -> str:
    """The commit of the code, with a + where the code was edited since; empty without git, as in an image."""
    try:
        commit = _git(root, "rev-parse", f"--short={SHORT}", "HEAD")
        if commit.returncode:
            return ""
        edited = _git(root, "diff", "--quiet", "HEAD", "--", *CODE).returncode
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return commit.stdout.strip() + EDITED * bool(edited)


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        ["git", "-C", str(root), *arguments],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
        timeout=GIT_SECONDS,
    )


def tag_run() -> None:
    """Add recipe, commit and trigger to the tags of this run, so that lists can be filtered by them."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    run, root = context.flow_run, Path.cwd()
    found = {"recipe": recipe_of(flow_run.get_parameters(), root), "commit": commit_of(root)}
    found["trigger"] = trigger(run.auto_scheduled, run.deployment_id)
    tags = sorted({*run.tags, *(f"{name}:{value}" for name, value in found.items() if value)})
    with beside("tags"), get_client(sync_client=True) as client:
        client.update_flow_run(run.id, tags=tags)


def trigger(scheduled: bool, deployment: UUID | None) -> str:
    """Who started a run."""
    if scheduled:
        return "schedule"
    return "shell" if deployment is None else "request"  # the UI, the API, an automation
