"""What the UI shows of the results."""

import threading
import time
from types import SimpleNamespace
from uuid import uuid4

import pytest

from flows import artifacts
from flows.artifacts import Progress, coverage_rows, with_absolute_links


def test_relative_links_point_to_where_the_reports_are_served():
    text = "![Figure 3](figure3.png) [page](coverage.html) [web](https://a.org/x.png) [top](#top) [root](/etc/passwd)"
    expected = text.replace("(figure3", "(http://h/figure3").replace("(coverage", "(http://h/coverage")
    assert with_absolute_links(text, "http://h") == expected


def test_coverage_is_a_table_of_names_and_percentages():
    row = {"dataset": "topic", "split": "test", "type": "user", "posts": 150, "ntus": 7, "share_any": 1.0,
           "share_known": 0.7133, "share_known_of_any": None, "family": "Topic"}  # fmt: skip
    assert coverage_rows({"coverage": [row]}) == [
        {"dataset": "topic", "split": "test", "type": "user", "posts": 150, "ntus": 7,
         "share_any": "100.0%", "share_known": "71.3%"}
    ]  # fmt: skip


@pytest.fixture
def said(monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(artifacts, "get_run_logger", lambda: SimpleNamespace(warning=lines.append))
    monkeypatch.setattr(artifacts, "SECONDS_BETWEEN", 0.01)
    return lines


def test_a_locked_database_delays_no_stage_and_fails_no_run(monkeypatch, said):
    held = threading.Event()

    def locked(*arguments, **values):
        held.wait(30)
        raise RuntimeError("database is locked")

    monkeypatch.setattr(artifacts, "create_progress_artifact", locked)
    monkeypatch.setattr(artifacts, "LAST_WORD_SECONDS", 0.1)
    started = time.monotonic()
    progress = Progress(100)
    for number in range(100):
        progress.advance(f"stage {number}")
    progress.close()
    assert time.monotonic() - started < 20
    held.set()
    progress._thread.join(10)
    assert said[0] == "progress: not shown in the UI: database is locked"


def test_the_last_state_of_the_progress_arrives(monkeypatch, said):
    sent = []
    artifact = uuid4()

    def create(**values):
        sent.append(values)
        return artifact

    monkeypatch.setattr(artifacts, "create_progress_artifact", create)
    monkeypatch.setattr(artifacts, "update_progress_artifact", lambda one, **values: sent.append(values | {"of": one}))
    progress = Progress(2)
    time.sleep(0.1)
    progress.advance("corpus")
    progress.advance("graph")
    progress.close()
    assert sent[0]["progress"] == 0
    assert sent[-1] == {"progress": 100, "description": "2 of 2 stages; last: graph", "of": artifact}
    assert said == []


def test_results_that_cannot_be_shown_fail_no_run(monkeypatch, said, tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/results.html").write_text("<html>")
    links = []
    monkeypatch.setattr(artifacts, "create_link_artifact", lambda address, **values: links.append(address))
    artifacts.publish_results(tmp_path)
    assert links == [(tmp_path / "reports").as_uri() + "/results.html"]

    def refused(*arguments, **values):
        raise ConnectionError("no server")

    monkeypatch.setattr(artifacts, "create_link_artifact", refused)
    artifacts.publish_results(tmp_path)
    assert said == ["results: not shown in the UI: no server"]
