"""CONTRIBUTING.md is followed to the letter: its patches, modules and settings, on a copy of the package."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from ntulm.configure import configured
from ntulm.layout import Layout

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow  # it runs five commands in processes of their own
DOCUMENT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PARTS = {part.splitlines()[0]: part for part in re.split(r"^## ", DOCUMENT, flags=re.M)[1:]}
MODULE = r"^`(ntulm/[\w/]+\.py)`[^\n]*\n\n```python\n(.*?)^```$"
MESSAGES = [
    "good morning #coffee https://beans.example/arabica 🌱",
    "is the #coffee ready? https://www.mugs.example/large",
    "@bob says #tea and #coffee are out 🍵",
    "who took my #tea?",
]


def blocks(part: str, language: str) -> list[str]:
    """The code blocks of a part of the document."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PARTS[part], re.M | re.S)


def merge(values: dict[str, Any], more: dict[str, Any]) -> None:
    """Put a block of settings into params.yaml, as a reader would."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            merge(values[key], value)
        else:
            values[key] = value


def edit(folder: Path, patch: str) -> None:
    """Do what an edit in the document says; the lines that it replaces have to stand in the file, once."""
    for file, hunks in re.findall(r"^--- a/(.+)\n\+\+\+ b/\1\n(.*?)(?=^--- a/|\Z)", patch, re.M | re.S):
        text = (folder / file).read_text(encoding="utf-8")
        for hunk in hunks.split("@@\n")[1:]:
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] in " -")
            assert text.count(before) == 1, f"{file}: {before}"
            text = text.replace(before, "".join(line[1:] for line in lines if line[0] in " +"))
        (folder / file).write_text(text, encoding="utf-8")


def ntulm(project: Path, *arguments: str) -> str:
    """What a command prints that runs with the copied package."""
    quiet = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ntulm", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env={**os.environ, **quiet})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project to which everything that the document adds was added, run up to the graph and the task."""
    folder = tmp_path_factory.mktemp("contributed")
    shutil.copytree(ROOT / "ntulm", folder / "ntulm", ignore=shutil.ignore_patterns("__pycache__"))
    for part in PARTS:
        for patch in blocks(part, "diff"):
            edit(folder, patch)
        for file, source in re.findall(MODULE, PARTS[part], re.M | re.S):
            (folder / file).write_text(source, encoding="utf-8")
    values = YAML(typ="safe", pure=True).load(configured("quickstart", []))
    values["run"]["variants"] = ["text", "author+hashtag", "author+hashtag+link", "author+hashtag.link"]
    values["corpus"] |= {"path": "chat.log", "format": "auto", "duplicates": "id", "max_reject_share": 0.1}
    values["challenge"]["tasks"] = ["question"]
    values["tune"]["task"] = "question"
    for part in PARTS:
        for block in blocks(part, "yaml"):
            merge(values, YAML(typ="safe", pure=True).load(block))
    values["graph"] |= {"held_out_share": 0.0}
    values["graph"]["min_degree"] |= {"user": 1, "hashtag": 1}
    YAML().dump(values, folder / "params.yaml")
    days = (f"2024-05-{day:02}T08:{minute:02}:00Z" for day in range(1, 29) for minute in range(20))
    authors = ("alice", "bob", "carol")
    lines = [f"{time} <{authors[at % 3]}> {MESSAGES[at % 4]} {at}" for at, time in enumerate(days)]
    (folder / "chat.log").write_text("\n".join([*lines, "* carol has left"]), encoding="utf-8")
    for command in (["params"], ["corpus"], ["graph"], ["tasks", "--task", "question"]):
        ntulm(folder, *command)
    return folder


def test_the_document_names_its_four_walks():
    assert list(PARTS) == ["Add a source", "Add a task", "Add an NTU type", "Add a relation"]


def test_the_source_is_detected_and_read(project):
    assert "chat" in ntulm(project, "inspect", "chat.log")
    posts = pq.read_table(Layout(project).posts)
    assert len(posts) == 28 * 20
    first = posts.slice(0, 1).to_pylist()[0]
    assert (first["author"], first["hashtags"]) == ("alice", ["coffee"])
    assert first["urls"] == ["https://beans.example/arabica"]
    assert pq.read_table(Layout(project).rejects).to_pylist() == [
        {"file": "chat.log", "line": 28 * 20 + 1, "reason": "not a message"}
    ]


def test_the_example_in_the_document_is_of_the_format():
    (example,) = blocks("Add a source", "text")
    assert example.strip().endswith(MESSAGES[0])


def test_the_task_hides_what_gives_it_away(project):
    task = Layout(project).task("question")
    described = json.loads((task / "datasets.json").read_text(encoding="utf-8"))["question"]
    assert (described["family"], described["classes"]) == ("Question", ["statement", "question"])
    posts = pq.read_table(task / "question.parquet").to_pylist()
    assert {post["labels"][0] for post in posts} == {0, 1}
    assert not any("?" in post["text"] for post in posts)
    carried = {ntu["role"]: ntu["key"] for post in posts for ntu in post["ntus"]}
    assert {"author", "hashtag", "link", "emoji"} <= carried.keys()


def test_the_types_are_nodes_of_the_graph(project):
    nodes = pq.read_table(Layout(project).nodes).to_pylist()
    keys = {kind: {node["key"] for node in nodes if node["type"] == kind} for kind in ("domain", "emoji")}
    assert keys == {"domain": {"beans.example", "mugs.example"}, "emoji": {"🌱", "🍵"}}


def test_the_relations_are_edges_between_their_types(project):
    types = {node["id"]: node["type"] for node in pq.read_table(Layout(project).nodes).to_pylist()}
    edges = pq.read_table(Layout(project).edges).to_pylist()
    sides = {edge["rel"]: (types[edge["lhs"]], types[edge["rhs"]]) for edge in edges}
    assert sides["linked"] == ("user", "domain")
    assert sides["decorated"] == ("hashtag", "emoji")
    assert sides["co_tagged"] == ("hashtag", "hashtag")
    assert sides["authored"] == ("user", "hashtag")
