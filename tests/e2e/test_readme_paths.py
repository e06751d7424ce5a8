"""The README's three paths and the tutorial, as written, from a wheel in an environment without the clone.

What the wheel needs comes from the package index, in the versions of constraints.txt. With NTULM_E2E_BORROWED=1 the
packages of this environment stand in for it: minutes less, and nothing is downloaded. The README's paths run with a
tiny backbone and small settings, the tutorial as it stands.
"""

import csv
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_end_to_end import SMALL, smaller

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TUTORIAL = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
OWN = [change for change in SMALL if not change.startswith(("run.tasks", "corpus.path", "tasks.topic"))]
BUILT_FROM = ("ntulm", "pyproject.toml", "README.md", "LICENSE", "dvc.yaml", "worlds")


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and how commands are run in it."""

    bin: Path

    def run(self, *command: str, cwd: Path) -> str:
        """What a command printed; its programs are those of this environment."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        path = os.pathsep.join([str(self.bin), str(Path(sys.executable).parent), os.environ["PATH"]])
        quiet = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=cwd, env=kept | quiet | {"PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr


def wheel(folder: Path) -> Path:
    """The wheel of a copy of the sources: nothing is written into the clone."""
    source = folder / "source"
    source.mkdir()
    for name in BUILT_FROM:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(source)], check=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    made = wheel(folder)
    if os.environ.get("NTULM_E2E_BORROWED"):
        return borrowed(folder, made)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    pip = [folder / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", f"{made}[pipeline]"], check=True)
    return Installed(folder / "venv/bin")


def borrowed(folder: Path, made: Path) -> Installed:
    """The wheel alone, and the packages of this environment beside it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    site = folder / f"venv/lib/python3.{sys.version_info.minor}/site-packages"
    target = ["--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *target, str(made)], check=True)
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    script = folder / "venv/bin/ntulm"
    script.write_text(f"#!{folder}/venv/bin/python\nfrom ntulm.cli import main\nmain()\n")
    script.chmod(0o755)
    return Installed(folder / "venv/bin")


def section(name: str) -> str:
    return README.split(f"\n## {name}\n")[1].split("\n## ")[0]


def commands(text: str) -> list[list[str]]:
    """The lines of a shell, without their comments."""
    return [shlex.split(line, comments=True) for line in re.findall(r"^\$ (.+)$", text, re.M)]


@pytest.fixture(scope="module")
def demo(installed, tmp_path_factory, tiny_backbone) -> Path:
    """The first path: a folder by `ntulm init`, and a whole run in it."""
    folder = tmp_path_factory.mktemp("demo")
    (line,) = [line for line in re.findall(r"^\$ (.+)$", section("Run it on your posts"), re.M) if "ntulm init" in line]
    install, init, change, repro = (shlex.split(part) for part in line.split("&&"))
    assert install == ["pip", "install", "ntulm[pipeline]"]
    installed.run(*init, cwd=folder)
    project = folder / change[1]
    world = project / "worlds/quickstart.yaml"
    world.write_text(smaller(world.read_text(encoding="utf-8")), encoding="utf-8")
    changes = [change for change in SMALL if not change.startswith("corpus.path")]
    installed.run("ntulm", "configure", ".", *changes, f"adapt.backbone={tiny_backbone}", cwd=project)
    installed.run(*repro, cwd=project)
    return project


def test_the_code_is_that_of_the_wheel(installed, tmp_path):
    said = installed.run("python", "-c", "import ntulm; print(ntulm.__file__)", cwd=tmp_path).strip()
    assert Path(said).is_relative_to(installed.bin.parent)
    assert "ntulm" in installed.run("ntulm", "--help", cwd=tmp_path)


def test_the_synthetic_demo_ends_with_tables(demo, installed):
    printed = installed.run("ntulm", "results", cwd=demo)
    assert "SYNTHETIC" in printed
    assert "author+hashtag" in printed
    assert "reports/results.html" in printed
    assert (demo / "reports/results.html").stat().st_size > 10_000


def test_own_posts_become_tables_vectors_and_predictions(installed, tmp_path, tiny_backbone):
    write_export(tmp_path / "exports/posts.csv", 3000)
    write_export(tmp_path / "posts.csv", 20, start=3000)
    lines = commands(section("Run it on your posts"))
    activate, inspect, configure, repro, results, *_ = lines
    assert activate[0] == "."
    printed = installed.run(*inspect, cwd=tmp_path)
    (proposed,) = [shlex.split(line) for line in printed.splitlines() if line.strip().startswith("ntulm configure own")]
    assert proposed[:4] == configure[:4]  # which says that the mapping comes from `inspect`
    # The pipeline comes from `ntulm init`, in the place of the clone that the README has here.
    installed.run("ntulm", "init", ".", cwd=tmp_path)
    installed.run(*proposed, cwd=tmp_path)
    installed.run(
        "ntulm", "configure", ".", *OWN, "run.tasks=[hashtag]", f"adapt.backbone={tiny_backbone}", cwd=tmp_path
    )
    installed.run(*repro, cwd=tmp_path)
    assert "author+hashtag" in installed.run(*results, cwd=tmp_path)
    said = ""
    for line in commands(section("Use it on new posts")):
        said += installed.run(*["hashtag" if word == "topic" else word for word in line], cwd=tmp_path)
    assert "20 posts embedded" in said
    assert (tmp_path / "topics.parquet").stat().st_size > 500


def test_labelled_rows_become_a_classifier_and_predictions(demo, installed):
    (code,) = re.findall(r"```python\n(.*?)```", section("Use it on new posts"), re.S)
    assert installed.run("python", "-c", code, cwd=demo).count("Prediction(") == 3
    write_export(demo / "posts.csv", 20)
    write_labels(demo / "labels.csv", 300)
    for line in commands(section("Use it on new posts")):
        installed.run(*line, cwd=demo)
    train, predict = commands(section("Train a classifier on your own labels"))
    said = installed.run(*train, cwd=demo)
    assert "complaint: 300 rows" in said
    assert "text only" in said
    installed.run(*predict, cwd=demo)
    rows = list(csv.DictReader((demo / "complaints.csv").open(encoding="utf-8")))
    assert len(rows) == 20
    assert {row["labels"] for row in rows} <= {"yes", "no"}


def test_the_tutorial_runs_as_written(installed, tmp_path):
    (script,) = re.findall(r"```python\n(.*?)```", TUTORIAL, re.S)
    folder, said = tmp_path, ""
    for line in re.findall(r"^\$ (.+)$", TUTORIAL, re.M):
        words = shlex.split(line)
        if words[0] == "cd":
            folder /= words[1]
            (folder / "make_posts.py").write_text(script, encoding="utf-8")
        else:
            said += installed.run(*words, cwd=folder)
    assert "posts: 6,000" in said
    assert "10 posts embedded" in said
    assert "group: 300 rows" in said
    rows = list(csv.DictReader((folder / "groups.csv").open(encoding="utf-8")))
    assert {row["labels"] for row in rows} <= {"gardener", "climber", "baker"}
    assert len(rows) == 10


def write_export(path: Path, count: int, start: int = 0) -> None:
    """Made-up posts of forty people with twenty hashtags."""
    drawn = random.Random(start)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "created_at", "author", "text"])
        for number in range(start, start + count):
            person = drawn.randrange(40)
            words = drawn.sample(["we", "like", "it", "so", "again", "today", "much", "see", "on", "very"], 5)
            tag = f"tag{(person + drawn.choice([0, 0, 0, 1, 7])) % 20}"
            day, minute = divmod(number * 30, 1440)
            moment = f"2024-{1 + day // 28:02d}-{1 + day % 28:02d}T{minute // 60:02d}:{minute % 60:02d}:00Z"
            writer.writerow([number, moment, f"person{person}", " ".join([*words, str(number), f"#{tag}"])])


def write_labels(path: Path, count: int) -> None:
    """Texts, authors and labels that the words tell."""
    drawn = random.Random(1)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "author", "label"])
        for _ in range(count):
            label = drawn.choice(["yes", "no"])
            words = drawn.sample(["we", "see", "it", "so", "again", "today", "much", "on"], 4)
            writer.writerow(
                [" ".join([*words, "stone" if label == "yes" else "apple"]), f"sim{drawn.randrange(60):04d}", label]
            )
