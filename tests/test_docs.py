"""The documents: links, decision numbers, the citation, and the packages that the code needs."""

import ast
import re
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md")
    for path in sorted(ROOT.glob(pattern))
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
]
DECISIONS = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
TEXTS = [
    path
    for folder in ("ntulm", "flows", "deploy", "benchmarks", "tests", "docs", ".")
    for path in sorted((ROOT / folder).glob("*" if folder == "." else "**/*"))
    if path.suffix in {".py", ".md", ".yaml", ".toml", ".sql", ".sh"} and path != Path(__file__)
]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAMED_OTHERWISE = {
    "markdown_it": "markdown-it-py",
    "ruamel": "ruamel.yaml",
    "sklearn": "scikit-learn",
    "vl_convert": "vl-convert-python",
}
OURS = {"ntulm", "flows", "deploy", "benchmarks", "tests"} | {path.stem for path in (ROOT / "tests").rglob("*.py")}
BASE = [  # what reads a model directory; it runs without the pipeline's packages
    "inference", "language_model", "ntus.py", "posts.py", "text.py", "variants.py", "tensors.py", "errors.py",
    "files.py", "device.py", "embeddings/table.py", "probe/classifier.py", "__init__.py", "__main__.py", "cli.py",
    "printable.py", *(f"use/{name}.py" for name in ("embed", "predict", "suggest", "similar", "posts", "output")),
]  # fmt: skip


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document):
    text = re.sub(r"^ *```.*?^ *```", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (document.parent / file).resolve() if file else document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_a_decision_has_a_number_of_its_own():
    numbers = Counter(path.name[:4] for path in DECISIONS)
    assert [number for number, count in numbers.items() if count > 1] == []
    for path in DECISIONS:
        assert path.read_text(encoding="utf-8").startswith(f"# {path.name[:4]} "), path


def test_the_index_lists_each_decision_by_its_title():
    index = (ROOT / "docs/decisions/README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\d{4})\]\((.+?)\) \| (.+) \|$", index, re.M)
    titles = [path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") for path in DECISIONS]
    assert listed == [(path.name[:4], path.name, title[5:]) for path, title in zip(DECISIONS, titles, strict=True)]


def test_references_to_decisions_resolve():
    numbers = {decision.name[:4] for decision in DECISIONS}
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        named = {
            number for pair in re.findall(r"\bdecisions? (\d{4})\b|\[(\d{4})\]\(", text) for number in pair if number
        }
        assert named <= numbers, path
        for name in re.findall(r"docs/decisions/(\d{4}[\w.-]*\w)", text):
            assert any((ROOT / "docs/decisions").glob(f"{name}*")), (path, name)


def test_the_glossary_is_linked():
    for path in ("README.md", "docs/architecture.md"):
        assert "glossary.md" in (ROOT / path).read_text(encoding="utf-8")


def test_the_architecture_names_every_module_and_no_other():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table = text.split("## What each file holds")[1].split("## What is as in the paper")[0]
    named = set(re.findall(r"`(\w+\.(?:py|sql))`", table))
    sources = {file.name for file in (ROOT / "ntulm/corpus/sources").glob("*.py")} - {"__init__.py"}
    modules = {path.name for pattern in ("*.py", "*.sql") for path in (ROOT / "ntulm").rglob(pattern)}
    assert modules - sources == named - sources
    walk = set(re.findall(r"`((?:\w+/)*\w+\.(?:py|sql))`", text.split("## One post")[1].split("## What each file")[0]))
    assert {name for name in walk if not (ROOT / "ntulm" / name).exists()} == set()


def test_the_citation_is_of_this_version_and_names_the_paper():
    citation = YAML(typ="safe", pure=True).load(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} < citation.keys()  # the three that CFF 1.2 demands besides
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert [author["family-names"] for author in paper["authors"]] == ["Li", "Mishra", "El-Kishky", "Mehta", "Kulkarni"]


def declared(*extras: str) -> set[str]:
    """The packages that an install with some extras names, extras of ours followed."""
    names: set[str] = set()
    wanted = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    for requirement in (requirement for group in wanted for requirement in group):
        if match := re.fullmatch(r"ntulm\[(.+)\]", requirement):
            names |= declared(*match[1].split(","))
        else:
            names.add(normal(re.split(r"[<>=!~\[ ]", requirement)[0]))
    return names


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def python_files(path: Path) -> list[Path]:
    """A file, or those of a folder."""
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def needed(*paths: Path) -> dict[str, set[str]]:
    """The packages that files import at run time, lazily too, as the names of modules, each with the files."""
    modules: dict[str, set[str]] = {}
    for file in (file for path in paths for file in python_files(path)):
        nodes: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
        while nodes:
            node = nodes.pop()
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                continue
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in (name.split(".")[0] for name in names):
                if name not in sys.stdlib_module_names and name not in OURS:
                    modules.setdefault(name, set()).add(str(file.relative_to(ROOT)))
            nodes.extend(ast.iter_child_nodes(node))
    return modules


def undeclared(names: set[str], *paths: Path) -> dict[str, set[str]]:
    """The modules that files import and that no package of `names` brings, each with the files."""
    modules = needed(*paths)
    return {
        module: files for module, files in modules.items() if normal(NAMED_OTHERWISE.get(module, module)) not in names
    }


def test_the_base_install_names_what_reading_a_model_imports():
    optional = {"pandas", "polars"}  # frames of theirs are taken where they are there
    paths = [file for name in BASE for file in python_files(ROOT / "ntulm" / name) if file.name != "config.py"]
    missing = undeclared(declared(), *paths)
    assert {module: files for module, files in missing.items() if module not in optional} == {}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("ntulm", ["pipeline", "serve", "onnx", "openvino", "spark"]),
        ("flows", ["pipeline"]),
        ("deploy", ["deploy"]),
        ("benchmarks", ["bench"]),
        ("tests", ["dev"]),
    ],
)
def test_everything_imported_is_declared(folder, extras):
    assert undeclared(declared(*extras), ROOT / folder) == {}


def test_no_package_of_the_base_install_is_one_of_the_pipeline():
    assert not declared() & {"prefect", "dvc", "duckdb", "optuna", "evidently", "pandas", "pydantic"}


def test_every_named_package_is_pinned_and_explained():
    pins = {normal(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    every = declared("dev", "bench", "deploy", "serve")
    assert every - {"setuptools"} <= pins
    note = (ROOT / "docs/decisions/0001-dependencies.md").read_text(encoding="utf-8")
    assert {name for name in every if not re.search(rf"\b{re.escape(name)}\b", normal_words(note))} == set()


def normal_words(text: str) -> str:
    return re.sub(r"[_.]", "-", text.lower())
