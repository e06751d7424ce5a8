import re
import subprocess
import sys
from pathlib import Path

import pytest

from ntulm import cli
from ntulm.configure import run as configure

NTULM = str(Path(sys.executable).parent / "ntulm")


def ntulm(*arguments, cwd):
    return subprocess.run([NTULM, *arguments], capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["pretrain", "--variant", "autor", "--seed", "0"],
            "--variant autor: unknown; run.variants in params.yaml has",
        ),
        (["probe", "--variant", "text", "--seed", "0", "--task", "x"], "--task x: unknown; `tasks` in params.yaml has"),
        (["configure", "x; rm -rf /"], "recipe 'x; rm -rf /': unknown"),
        (["inspect", "nowhere.jsonl"], "nowhere.jsonl"),
        (["results"], "dvc repro"),
        (["check", "production", "--exports=nowhere.csv"], "nowhere.csv"),
        (["challenge", "production"], "production/data/model: no such directory"),
    ],
)
def test_a_user_error_is_one_line_and_exit_code_1(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    configure("quickstart", [])
    done = ntulm(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_a_model_that_is_not_built_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configure("quickstart", ["run.variants=[text, author]", "model.variant=author"])
    settings = Path("params.yaml").read_text()
    Path("params.yaml").write_text(re.sub(r"(\nmodel:.*\n  variant: )author", r"\1hashtag", settings))
    for command in ("corpus", "model", "params"):
        done = ntulm(command, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "not among run.variants (text, author)" in done.stderr


def test_a_mistake_in_a_task_shows_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("labels.csv").write_text("words,label\nhi,a\n")
    mine = (
        "{kind: table, path: labels.csv, text_column: text, label_column: label, author_column: null, "
        "casefold_users: true, split_column: null, validation_share: 0.1, test_share: 0.1, seed: 0, "
        "max_posts: {train: 9, validation: 9, test: 9}}"
    )
    configure("quickstart", [f"tasks.mine={mine}", "run.tasks=[hashtag, mine]"])
    for command in ("params", "corpus"):
        done = ntulm(command, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "tasks.mine: text_column: 'text' is no column of labels.csv; it has words, label" in done.stderr
    assert not Path("data").exists()


def test_a_stage_outside_a_project_says_what_to_do(tmp_path):
    done = ntulm("corpus", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "ntulm configure RECIPE" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (["corpus"], "pydantic", "pipeline"),
        (["serve", "--model", "."], "uvicorn", "serve"),
        (["export", ".", "--out", "x"], "onnxscript", "onnx"),
    ],
)
def test_a_command_says_how_to_install_what_it_needs(tmp_path, arguments, package, extra):
    """As after `pip install ntulm`, which only reads models."""
    code = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv[1:] = {arguments}; from ntulm.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"{package} is not installed; `pip install 'ntulm[{extra}]'`" in done.stderr


def test_a_missing_module_of_our_own_is_shown_in_full(monkeypatch):
    def fails():
        raise ModuleNotFoundError("No module named 'ntulm.gone'", name="ntulm.gone")

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(ModuleNotFoundError):
        cli.main()


def test_a_task_that_is_not_run_is_not_built(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("exports.csv").write_text("a,b\n")
    configure("own", ["data=exports.csv", "run.tasks=[hashtag]"])
    done = ntulm("tasks", "--task", "hashtag-author", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "tasks.hashtag-author: not in run.tasks, so not built\n")
    assert Path("data/tasks/hashtag-author/datasets.json").read_text().strip() == "{}"
    assert Path("metrics/tasks/hashtag-author.json").read_text().strip() == "{}"
    assert ntulm("tasks", "--task", "hashtag", cwd=tmp_path).returncode == 1  # there is no corpus
