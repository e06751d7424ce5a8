"""`dvc repro graph` with the engine spark, in a process and a Java of its own: the bytes of the engine duckdb."""

from pathlib import Path

from spark_session import need_spark
from test_end_to_end import call, copy_of_the_project


def results(folder: Path) -> dict[str, bytes]:
    paths = [path for path in sorted((folder / "data/graph").rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in [*paths, folder / "metrics/graph.json"]}


def test_a_project_changes_the_engine_and_nothing_else_changes(tmp_path, tiny_backbone):
    need_spark()
    copy_of_the_project(tmp_path, tiny_backbone)
    call("dvc", "repro", "graph", cwd=tmp_path)
    expected = results(tmp_path)
    assert len(expected) == 9
    call("ntulm", "configure", ".", "graph.engine=spark", cwd=tmp_path)
    done = call("dvc", "repro", "graph", cwd=tmp_path)
    assert "Running stage 'graph'" in done.stdout
    assert "Stage 'corpus' didn't change" in done.stdout
    assert results(tmp_path) == expected
    assert "Exception" not in done.stderr
