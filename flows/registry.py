"""The registry of promoted models: git tags as GTO writes them and DVC reads them, on commits that reproduce the run.

A promotion is a commit of the tracked files as they were when the model was built, `params.yaml` and `dvc.lock`
included, on the branch `promotions`; the branch, the index and the files that people work with stay as they are. Tags:
`ntulm@v3.0.0` registers the version, `ntulm#production#5` puts it into production. In a shell:

    python -m flows.registry show
    python -m flows.registry rollback [--to v2.0.0]
    dvc artifacts get . ntulm --stage production
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import gto.api
import typer
from dvc.repo import Repo
from gto.exceptions import GTOException
from ruamel.yaml import YAML

from flows.failure import CommandError

MODEL = "ntulm"  # the artifact in dvc.yaml
STAGE = "production"
FIRST = "v1.0.0"
BRANCH = "refs/heads/promotions"
LOCK_FILE, PARAMS_FILE = "dvc.lock", "params.yaml"
CORPUS = "data/corpus"
CHAMPION = Path("data/champion")  # where the model in production is fetched to (flows/champion.py)
AUTHOR = "ntulm retrain"
ADDRESS = "retrain@localhost"
LONGEST_WAIT = 60.0  # seconds: clocks of two machines differ by less, or something is wrong


@dataclass(frozen=True)
class Version:
    """A promoted model: its version, its commit, when it last went into production, on which data."""

    version: str
    commit: str
    since: datetime
    data: str  # md5 of data/corpus, as dvc.lock has it

    def __str__(self) -> str:
        return f"{self.version} (commit {self.commit[:10]}, in production since {self.since:%Y-%m-%d %H:%M} UTC)"


def production(root: Path) -> Version | None:
    """The model in production, or None where nothing was promoted yet, or somebody took it out with `gto deprecate`."""
    assigned = history(root)
    return assigned[-1] if assigned and stage_events(root)[-1]["event"] == "assignment" else None


def history(root: Path) -> list[Version]:
    """What was put into production, the oldest first; a version that was rolled back to stands there again."""
    return [
        Version(event["version"], event["commit"], _moment(event["timestamp"]), corpus_md5(root, event["commit"]))
        for event in stage_events(root)
        if event["event"] == "assignment"
    ]


def stage_events(root: Path) -> list[Mapping[str, Any]]:
    """What GTO knows of the stage, the oldest first: assignments and unassignments."""
    events = gto.api.history(str(root), MODEL, ascending=True)
    return [event for event in events if event["stage"] == STAGE]


def promote(root: Path, reason: str) -> Version:
    """Commit what was built, register it as the next version and put it into production.

    Raises:
        CommandError: git or GTO refuses.
    """
    commit = commit_of_the_run(root, reason)
    registered = any(event["event"] == "registration" for event in gto.api.history(str(root), MODEL))
    options: dict[str, Any] = {"bump_major": True} if registered else {"version": FIRST}
    try:
        event = gto.api.register(
            str(root), MODEL, commit, message=reason, author=AUTHOR, author_email=ADDRESS, **options
        )
    except GTOException as error:
        raise CommandError(f"registry: {error}") from error
    return assign(root, event.version, reason)


def rollback(root: Path, version: str | None = None) -> Version:
    """Put the version that was in production before back there, or the one that is named.

    Raises:
        CommandError: there is no earlier version, or no such one.
    """
    current, earlier = production(root), before(history(root))
    if current is None or (version is None and earlier is None):
        raise CommandError("registry: no earlier version to roll back to")
    target = version or (earlier.version if earlier else "")
    return assign(root, target, f"Roll back from {current.version}")


def before(assigned: list[Version]) -> Version | None:
    """The version under the current one, where a return to an earlier version takes off all that came after it."""
    stack: list[Version] = []
    for item in assigned:
        versions = [other.version for other in stack]
        stack = [*stack[: versions.index(item.version)], item] if item.version in versions else [*stack, item]
    return stack[-2] if len(stack) > 1 else None


def assign(root: Path, version: str, reason: str) -> Version:
    """Tag a registered version as the one in production, and take away the copy of the one before.

    Raises:
        CommandError: GTO refuses, or the last change of the stage lies in the future.
    """
    wait_past(stage_events(root))
    try:
        gto.api.assign(
            str(root), MODEL, STAGE, version=version, message=reason, force=True, author=AUTHOR, author_email=ADDRESS
        )
    except GTOException as error:
        raise CommandError(f"registry: {error}") from error
    # `ntulm.load("production")` looks there: it has to ask for the new one instead of loading the old one.
    shutil.rmtree(root / CHAMPION, ignore_errors=True)
    assigned = production(root)
    assert assigned is not None
    return assigned


def wait_past(events: list[Mapping[str, Any]]) -> None:
    """Until the clock has left the second of the last event: GTO orders its tags by their second.

    Raises:
        CommandError: that event lies further ahead than clocks differ.
    """
    last = _moment(events[-1]["timestamp"]) if events else datetime.min.replace(tzinfo=UTC)
    if (ahead := (last - datetime.now(UTC)).total_seconds()) > LONGEST_WAIT:
        raise CommandError(f"registry: the last change of {STAGE} is {ahead:.0f} s ahead of this machine's clock")
    while datetime.now(UTC).replace(microsecond=0) <= last:
        time.sleep(0.1)


def commit_of_the_run(root: Path, reason: str) -> str:
    """A commit of the tracked files as they are now, with an index of its own; `promotions` then points to it.

    Raises:
        CommandError: not a git repository with a commit, or there is no `dvc.lock` yet.
    """
    head, tip = git(root, "rev-parse", "HEAD"), git(root, "rev-parse", "--verify", "--quiet", BRANCH, check=False)
    with tempfile.TemporaryDirectory() as folder:
        own = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git(root, "read-tree", "HEAD", environment=own)
        git(root, "add", "--update", ":/", environment=own)
        git(root, "add", "--force", PARAMS_FILE, LOCK_FILE, environment=own)
        tree = git(root, "write-tree", environment=own)
    parents = [option for parent in dict.fromkeys([tip, head]) if parent for option in ("-p", parent)]
    commit = git(root, "commit-tree", tree, *parents, "-m", f"Promote {MODEL}: {reason}", environment=_identity())
    git(root, "update-ref", BRANCH, commit, *([tip] if tip else []))
    return commit


def corpus_md5(root: Path, commit: str) -> str:
    """The md5 of `data/corpus` in the `dvc.lock` of a commit."""
    lock = YAML(typ="safe", pure=True).load(git(root, "show", f"{commit}:./{LOCK_FILE}", check=False)) or {}
    outs = [out for stage in lock.get("stages", {}).values() for out in stage.get("outs", [])]
    return next((str(out["md5"]) for out in outs if out["path"] == CORPUS), "unknown")


def model_path(root: Path, commit: str) -> str:
    """Where the model lies in a commit: the path of the artifact in its `dvc.yaml`."""
    with Repo(str(root)) as repo, repo.switch(commit):
        return str(repo.artifacts.get_path(MODEL))


def git(root: Path, *arguments: str, check: bool = True, environment: Mapping[str, str] | None = None) -> str:
    """What a git command prints.

    Raises:
        CommandError: git failed; the message is its own.
    """
    done = subprocess.run(  # noqa: S603
        ["git", *arguments],  # noqa: S607
        cwd=root,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        raise CommandError(f"git {arguments[0]}: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


def _identity() -> dict[str, str]:
    """Who commits: a machine without a name in git's configuration can promote as well."""
    return {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in _NAMES.items()}


_NAMES = {"NAME": AUTHOR, "EMAIL": ADDRESS}


def _moment(value: datetime) -> datetime:
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


app = typer.Typer(help="The registry of promoted models.", no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def show(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Say which model is in production, since when, on which data, by which commit; and what was there before."""
    assigned = history(Path.cwd())
    rows = [
        {"version": item.version, "since": item.since.isoformat(), "commit": item.commit, "corpus_md5": item.data}
        for item in reversed(assigned)
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    typer.echo(f"in production: {production(Path.cwd()) or 'nothing'}")
    for row in rows:
        typer.echo("  ".join(row.values()))


@app.command(name="rollback")
def rollback_command(
    to: Annotated[str | None, typer.Option(help="A version; without one, the one before the current.")] = None,
) -> None:
    """Put an earlier version back into production."""
    typer.echo(f"in production: {rollback(Path.cwd(), to)}")


def main() -> None:
    """Entry point: a refusal is one line."""
    try:
        app()
    except CommandError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
