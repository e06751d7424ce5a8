"""What a run was made of: recipe, parameters, commit of the code. For people; no result depends on it. Library only."""

import json
import re
import subprocess
from typing import Any

from ntulm.errors import UserError
from ntulm.layout import Layout
from ntulm.yaml_file import read_yaml

FIRST_WORDS = re.compile(r"# ([a-z][a-z0-9_-]*): ")  # how a recipe begins, and the params.yaml written from it
CODE = ("ntulm", "dvc.yaml")  # an edit of these is not in the commit
EDITED = "+"
GIT_SECONDS = 10


def provenance(layout: Layout) -> dict[str, str | dict[str, str]]:
    """`commit`, `recipe` and `parameters` (dotted keys, values in JSON) of a project, as far as they are known."""
    found: dict[str, str | dict[str, str]] = {
        "commit": _commit(layout),
        "recipe": recipe(layout),
        "parameters": _parameters(layout),
    }
    return {name: value for name, value in found.items() if value}


def _commit(layout: Layout) -> str:
    """The commit of the code, with a + where it was edited since; empty without git."""
    try:
        commit = git(layout, "rev-parse", "HEAD")
        edited = git(layout, "diff", "--quiet", "HEAD", "--", *CODE)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if commit.returncode else commit.stdout.strip() + EDITED * bool(edited.returncode)


def git(layout: Layout, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What git says of the project's folder.

    Raises:
        OSError, subprocess.TimeoutExpired: there is no git, or it does not answer.
    """
    return subprocess.run(  # noqa: S603
        ["git", "-C", str(layout.root), *arguments],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
        timeout=GIT_SECONDS,
    )


def recipe(layout: Layout) -> str:
    """The recipe that params.yaml was written from; empty where it does not say."""
    try:
        with layout.params.open(encoding="utf-8", errors="replace") as file:
            found = FIRST_WORDS.match(file.readline())
    except OSError:
        return ""
    return found[1] if found else ""


def _parameters(layout: Layout) -> dict[str, str]:
    try:
        return _flat(read_yaml(layout.params)) if layout.params.is_file() else {}
    except UserError:
        return {}


def _flat(value: Any, key: str = "") -> dict[str, str]:
    """Dotted keys to values in JSON; a list is one value."""
    if isinstance(value, dict) and value:
        return {
            name: text
            for part, inner in value.items()
            for name, text in _flat(inner, f"{key}.{part}".lstrip(".")).items()
        }
    return {key: json.dumps(value, ensure_ascii=False, default=str)}
