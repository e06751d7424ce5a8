"""The README's three paths and the tutorial with all packages from the package index, in a fresh environment."""

import csv
import re
import shlex
import subprocess
import sys

import pytest
import test_readme_paths
from test_readme_paths import (  # noqa: F401 (the tests are run again, with another `installed`)
    ROOT,
    Installed,
    demo,
    test_labelled_rows_become_a_classifier_and_predictions,
    test_own_posts_become_tables_vectors_and_predictions,
    test_the_code_is_that_of_the_wheel,
    test_the_synthetic_demo_ends_with_tables,
)

TUTORIAL = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Installed:
    """The wheel and what it needs for the pipeline, in the versions of constraints.txt."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    made = test_readme_paths.wheel(folder)
    pip = [folder / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", f"{made}[pipeline]"], check=True)
    return Installed(folder / "venv/bin")


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
    assert "6,000 posts" in said
    assert "10 posts embedded" in said
    assert "group: 300 rows" in said
    rows = list(csv.DictReader((folder / "groups.csv").open(encoding="utf-8")))
    assert {row["labels"] for row in rows} <= {"gardener", "climber", "baker"}
    assert len(rows) == 10
