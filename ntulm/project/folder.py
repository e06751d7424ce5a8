"""`ntulm init [FOLDER]`: from the installed package to a folder in which `dvc repro` runs.

Writes `dvc.yaml` and its templates of plots, `params.yaml` and the quickstart's world, and has git and DVC
initialised. The stages run the installed code (`python -m ntulm STAGE`), which is not in the folder: in the place of
its files a stage depends on `code/STAGE.txt`, their hashes. After an upgrade of the package `ntulm init` writes
dvc.yaml and these anew, and `dvc repro` runs the stages whose code changed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from ruamel.yaml import YAML

import ntulm
from ntulm.configure import configured
from ntulm.errors import UserError
from ntulm.files import sha256, whole_file
from ntulm.layout import Layout

HEAD = "# Written by `ntulm init`, and anew by the next one: it belongs to the installed version of ntulm.\n"
CODE = "ntulm/"  # how deps on code begin
HASHED = (".py", ".sql", ".json", ".html", ".yaml")
RECIPE, WORLD = "quickstart", "worlds/quickstart.yaml"
PLOTS = ("curves.json", "gains.json")  # templates that dvc.yaml names
FORGET = "forget.txt"  # `corpus.forget` of every recipe; an empty list, since the stage corpus depends on it
FORGET_HEAD = "# Who and what is not read again: `author NAME` or `post ID`, one per line. `ntulm forget` adds to it.\n"
IGNORED = ("__pycache__/", "/params.yaml.old", "/monitoring/", "/dvc_plots/", "*.parts/")
GIT, DVC = "git", "dvc"


def run(folder: Path) -> None:
    """Make the folder, or bring the pipeline of one up to the installed version.

    Raises:
        UserError: something else stands in it, or git or DVC is missing or fails.
    """
    pipeline = folder / "dvc.yaml"
    again = pipeline.is_file() and pipeline.read_text(encoding="utf-8").startswith(HEAD)
    params = folder / Layout().params
    taken = [path.name for path in (pipeline, params) if path.exists() and not again]
    if taken or (folder.exists() and not folder.is_dir()):
        raise UserError(
            f"{folder}: {'has ' + ', '.join(taken) if taken else 'a file'}; expected a folder without a project"
        )
    commands = {name: command(name) for name in (GIT, DVC)}
    folder.mkdir(parents=True, exist_ok=True)
    write_pipeline(folder)
    if not params.exists():
        write(params, configured(RECIPE, []))
    if not (folder / WORLD).exists():
        write(folder / WORLD, packaged("world.yaml"))
    if not (folder / FORGET).exists():
        write(folder / FORGET, FORGET_HEAD)
    if not (folder / ".gitignore").exists():
        write(folder / ".gitignore", "".join(f"{line}\n" for line in IGNORED))
    initialise(folder, commands)
    for name in PLOTS:
        write(folder / ".dvc/plots" / name, packaged(name))
    said = "brought up to" if again else "ready for"
    print(f"{folder}: {said} ntulm {ntulm.__version__}; there: `ntulm configure own data=EXPORTS`, or the synthetic")
    print("quickstart as it is; then `dvc repro` and `ntulm results`")


def write(path: Path, text: str) -> None:
    """Write a file whole."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def packaged(name: str) -> str:
    """A file beside this one."""
    return (resources.files("ntulm.project") / name).read_text(encoding="utf-8")


def write_pipeline(folder: Path) -> None:
    """`dvc.yaml` without files of code, and `code/STAGE.txt` with their hashes."""
    yaml = YAML()
    yaml.width = 160
    pipeline = yaml.load(packaged("pipeline.yaml"))
    for stage, about in pipeline["stages"].items():
        body = about.get("do", about)
        listed = Path("code") / f"{stage}.txt"
        write(folder / listed, hashes([dep for dep in body["deps"] if dep.startswith(CODE)]))
        kept = [place for place, dep in enumerate(body["deps"]) if dep.startswith(CODE)]
        for place in reversed(kept):
            del body["deps"][place]
        body["deps"].append(str(listed))
    with whole_file(folder / "dvc.yaml") as partial, partial.open("w", encoding="utf-8") as file:
        file.write(HEAD)
        yaml.dump(pipeline, file)


def hashes(deps: list[str]) -> str:
    """A line per file of the installed code: its hash and its name."""
    root = Path(ntulm.__file__).parent.parent
    files = [path for dep in deps for path in files_of(root / dep)]
    return "".join(f"{sha256(path)}  {path.relative_to(root).as_posix()}\n" for path in sorted(set(files)))


def files_of(path: Path) -> list[Path]:
    """A file, or the code of a folder."""
    if path.is_file():
        return [path]
    return [file for file in path.rglob("*") if file.is_file() and file.suffix in HASHED]


def command(name: str) -> str:
    """The program, that of this environment first.

    Raises:
        UserError: it is not there.
    """
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    found = beside or shutil.which(name)
    if found is None:
        how = "`pip install 'ntulm[pipeline]'` installs it" if name == DVC else "install it"
        raise UserError(f"the program {name} is not there; {how}")
    return found


def initialise(folder: Path, commands: Mapping[str, str]) -> None:
    """git and DVC, where they are not initialised yet; DVC asks nobody about versions and reports nothing."""
    ask = [commands[GIT], "rev-parse", "--show-toplevel"]
    inside = subprocess.run(ask, capture_output=True, text=True, cwd=folder)  # noqa: S603
    if inside.returncode:
        called([commands[GIT], "init", "--quiet"], folder)
    if not (folder / ".dvc").exists():
        top = Path(inside.stdout.strip()) if inside.returncode == 0 else folder
        below = ["--subdir"] if top.resolve() != folder.resolve() else []
        called([commands[DVC], "init", "--quiet", *below], folder)
        for key in ("core.analytics", "core.check_update"):
            called([commands[DVC], "config", key, "false"], folder)


def called(arguments: list[str], folder: Path) -> None:
    """Run a program.

    Raises:
        UserError: it fails; its last line says why.
    """
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=folder)  # noqa: S603
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"{folder}: `{Path(arguments[0]).name} {' '.join(arguments[1:])}` failed: {last}")
