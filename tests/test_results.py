"""What `ntulm results` prints."""

import subprocess
import sys

import pytest
from fake_run import (
    EVALUATE,
    HERE,
    SCHEME,
    run_of,
    write_all,
    write_corpus_metrics,
    write_embeddings,
    write_scores,
    write_task,
)

from ntulm.errors import UserError
from ntulm.evaluate import stage as evaluate
from ntulm.report import terminal as results


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_was_run():
    with pytest.raises(UserError, match="dvc repro"):
        results.run(HERE)


def test_tables_verdict_label_and_paths(project, capsys):
    run = write_all(project)
    evaluate.run(EVALUATE, run, SCHEME, HERE)
    HERE.reports.mkdir()
    (HERE.reports / "results.md").touch()
    results.run(HERE)
    printed = capsys.readouterr().out
    assert "SYNTHETIC data" in printed
    assert "▲ better" in printed
    assert "author+hashtag against text, of 4 measures: better on 4." in printed
    assert "reports/results.md" in printed
    assert "coverage.html" not in printed
    assert "\x1b" not in printed
    assert "non-overlap" in printed
    assert "…" not in printed  # nothing is cut off in a log


def test_real_posts_are_not_called_synthetic(project, capsys):
    run = write_all(project, format="table")
    evaluate.run(EVALUATE, run, SCHEME, HERE)
    results.run(HERE)
    assert "SYNTHETIC" not in capsys.readouterr().out


def test_without_a_baseline(capsys):
    write_corpus_metrics()
    write_embeddings()
    write_task("topic", {"topic": ("Topic [bold]", "macro_f1", ["macro_f1"], 4)})
    write_scores("topic", variants=("author",))
    evaluate.run(EVALUATE, run_of(["topic"], variants=("author",)), SCHEME, HERE)
    results.run(HERE)
    printed = capsys.readouterr().out
    assert "Nothing to compare" in printed
    assert "Topic [bold]" in printed  # data is not markup


def test_it_is_quick_to_import():
    code = "import sys, ntulm.report.terminal; print({'torch', 'evidently', 'matplotlib', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
