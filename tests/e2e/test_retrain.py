"""`retrain` and `monitor` on real months: a first model, a month that arrives, and months that are broken.

The posts are read in place, thinned out into a temporary folder, and never printed.
"""

import csv
import gzip
import json
import os
import random
import re
from pathlib import Path

import pytest
from conftest import copy_with_flows, local, processes_in, two_free_ports
from prefect_api import PrefectApi
from test_end_to_end import ROOT, call

import ntulm

IRA = Path(os.environ.get("NTULM_DATA", ROOT.parent / "shared/data")) / "ira/posts"
MONTHS = ["2015-08", "2015-09", "2015-10", "2015-11", "2015-12"]
ARRIVING, BROKEN = "2016-01", "2016-02"
ROWS = 2000  # of a month
PATIENCE = 1500  # seconds
TASK = (
    "{kind: hashtag, path: data/corpus, classes: 40, balanced: true, split: corpus, seed: 0, remove_target: true, "
    "max_posts: {train: 1500, validation: 300, test: 600}}"
)
SETTINGS = [
    "run.variants=[text, author+hashtag]",
    "run.tasks=[hashtag]",
    f"tasks={{hashtag: {TASK}}}",
    "corpus.path=posts",
    "corpus.splits.graph_from=0.0",
    "corpus.splits.graph_until=0.7",
    "corpus.splits.train_from=0.1",
    "corpus.splits.validation_from=0.7",
    "corpus.splits.test_from=0.82",
    "embeddings.dimension=32",
    "embeddings.epochs=5",
    "adapt.max_posts=300",
    "adapt.max_validation_posts=100",
    "pretrain.max_posts=300",
    "pretrain.max_validation_posts=100",
    "pretrain.max_test_posts=200",
    "probe.trials=3",
    "probe.max_epochs=6",
    "evaluate.resamples=200",
    "check.min_posts=200",
    "challenge.max_loss=30",
]
GERMAN = (
    "der die das und ist nicht ein eine ich du sie wir haben sein mit auf von zu im dem den als auch es an werden aus "
    "er hat dass nach wird bei noch wie einem über heute morgen immer wieder neue leute sagen gegen ohne weil"
)

pytestmark = pytest.mark.skipif(not IRA.is_dir(), reason=f"{IRA} is not there: the real months are kept apart")


def rows_of(month):
    """The header and about ROWS rows of a month, spread over it."""
    with gzip.open(IRA / f"{month}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    return header, rows[:: max(1, len(rows) // ROWS)]


def write_month(folder, month, change=None):
    """Let a month arrive, each text changed."""
    header, rows = rows_of(month)
    place = header.index("content")
    with gzip.open(folder / f"{month}.csv.gz", "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            text = change(row[place]) if change else row[place]
            writer.writerow([*row[:place], text, *row[place + 1 :]])


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("months")
    copy_with_flows(folder, "minilm")
    (folder / "posts").mkdir()
    for month in MONTHS:
        write_month(folder / "posts", month)
    (folder / "data").mkdir()  # what DATA of the recipe stands for; its other tasks are not used
    remote = tmp_path_factory.mktemp("remote")
    call("dvc", "remote", "add", "--default", "store", str(remote), cwd=folder)
    return folder


@pytest.fixture(scope="module")
def api(project):
    port = two_free_ports()
    try:
        local("up", project, port)
        yield PrefectApi(f"http://127.0.0.1:{port}")
    finally:
        local("down", project, port)
    assert processes_in(project) == []


@pytest.fixture(scope="module")
def retrain(api):
    """Runs the deployment with the small settings; more of them by argument."""
    settings = ["data=.", *SETTINGS]

    def start(*changes):
        run = api.start("retrain/retrain", {"recipe": "ira", "changes": [*settings, *changes]})
        state = api.wait(run, patience=PATIENCE)
        return api.artifacts(run), state, api.log(run)

    return start


@pytest.fixture(scope="module")
def first(retrain):
    return retrain()


@pytest.fixture(scope="module")
def arrived(first, retrain, project):
    """The next month, first with a challenger that reads two words of a post, then with one like the champion."""
    write_month(project / "posts", ARRIVING)
    return retrain("model.variant=text", "batches.max_length=4", "challenge.max_loss=5"), retrain()


def registered(project):
    return json.loads(call("python", "-m", "flows.registry", "show", "--json", cwd=project).stdout)


def test_the_first_model_is_promoted_without_a_champion(first, project):
    artifacts, state, log = first
    assert state["type"] == "COMPLETED", f"{state['message']}\n{log[-3000:]}"
    assert state["message"].startswith("promoted v1.0.0 ")
    assert "the first model" in artifacts["decision"]
    checks = {row["check"]: row for row in json.loads(artifacts["checks"])}
    assert all(row["passed"] for row in checks.values())
    assert "posts with a known author or hashtag" not in checks


def test_a_worse_challenger_is_not_promoted(arrived, project):
    (artifacts, state, log), _ = arrived
    assert state["type"] == "COMPLETED", f"{state['message']}\n{log[-3000:]}"
    assert re.search(r"not promoted: -\d.*: worse; v1\.0\.0 .*stays in production", state["message"])
    overall = json.loads(artifacts["challenge"])[0]
    assert overall["challenger"] < overall["champion"]


def test_a_challenger_that_is_not_worse_is_promoted(arrived, project):
    _, (artifacts, state, log) = arrived
    assert state["type"] == "COMPLETED", f"{state['message']}\n{log[-3000:]}"
    assert state["message"].startswith("promoted v2.0.0 ")
    checks = {row["check"]: row["value"] for row in json.loads(artifacts["checks"])}
    assert float(checks["posts with a known author or hashtag"].rstrip("%")) > 20
    lock = call("git", "show", "ntulm@v2.0.0:dvc.lock", cwd=project).stdout
    newest, *older = registered(project)
    assert newest["corpus_md5"] in lock
    assert [row["version"] for row in older] == ["v1.0.0"]


def test_the_promoted_model_can_be_fetched_from_the_remote_alone(arrived, project, tmp_path):
    call("git", "clone", "-q", str(project), "clone", cwd=tmp_path)
    config = (project / ".dvc/config").read_text()
    (tmp_path / "clone/.dvc/config").write_text(config)
    call("dvc", "artifacts", "get", ".", "ntulm", "--stage", "production", "-o", "model", cwd=tmp_path / "clone")
    model = ntulm.load(tmp_path / "clone/model")  # all that a new post needs
    assert len(model.predict(["so it goes #news"], "hashtag")[0].labels) == 1


def emptied(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        header = file.readline()
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(header)


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def untagged(text):
    return re.sub(r"#\w+", "", text)


def german(text):
    """As many German words as there were words; hashtags, mentions and links stay."""
    return " ".join(
        word if word[:1] in "#@" or "://" in word else random.choice(GERMAN.split()) for word in text.split()
    )


QUIET = "empty"
BREAKS = {
    QUIET: (None, emptied, "new posts: 0"),
    "truncated": (None, truncated, BROKEN),
    "without hashtags": (untagged, None, "posts with hashtags: 0.0%"),
    "another language": (german, None, "drift of language"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_month_is_refused_with_the_reason_and_production_stays(name, arrived, retrain, project):
    change, damage, reason = BREAKS[name]
    before, path = registered(project), project / "posts" / f"{BROKEN}.csv.gz"
    write_month(project / "posts", BROKEN, change)
    if damage:
        damage(path)
    artifacts, state, log = retrain()
    path.unlink()
    assert state["name"] == ("Quiet" if name == QUIET else "Refused"), f"{state['message']}\n{log[-3000:]}"
    assert state["message"].startswith("nothing to train on: " if name == QUIET else "refused: ")
    assert reason in state["message"]
    assert re.search(r"v2\.0\.0 .*stays in production", artifacts["decision"])
    assert registered(project) == before


@pytest.mark.parametrize("name", [None, *BREAKS])
def test_monitor_says_whether_a_month_fits_and_trains_nothing(name, arrived, api, project, tmp_path):
    change, damage, reason = BREAKS[name] if name else (None, None, "")
    lock = (project / "dvc.lock").read_text()
    write_month(tmp_path, BROKEN, change)
    if damage:
        damage(tmp_path / f"{BROKEN}.csv.gz")
    run = api.start("monitor/monitor", {"exports": str(tmp_path)})
    state = api.wait(run, patience=PATIENCE)
    expected = "Completed" if name is None else {QUIET: "Quiet", "truncated": "Failed"}.get(name, "Drifted")
    assert state["name"] == expected, f"{state['message']}\n{api.log(run)[-3000:]}"
    assert reason in state["message"]
    assert "v2.0.0" in api.artifacts(run)["decision"]
    assert (project / "dvc.lock").read_text() == lock


def test_what_arrived_is_embedded_and_labelled_and_monitor_compares_it(arrived, api, project, tmp_path):
    write_month(tmp_path, BROKEN)
    first, second = (api.run("embed/embed", {"exports": str(tmp_path)}) for _ in range(2))
    assert first[1]["name"] == "Completed", f"{first[1]['message']}\n{api.log(first[0])[-3000:]}"
    assert re.match(r"v2\.0\.0: [\d,]+ new posts, 0 embedded anew; [\d,]+ are stored", first[1]["message"])
    assert second[1]["name"] == "Quiet"
    run, state = api.run("monitor/monitor", {"exports": str(tmp_path)})
    checks = {row["check"] for row in json.loads(api.artifacts(run)["drift"])}
    assert checks == {"drift of vectors", "drift of labels, hashtag.hashtag"}, (
        f"{state['message']}\n{api.log(run)[-3000:]}"
    )


def test_the_history_of_checks_is_kept_for_evidently(arrived, project):
    assert len(list((project / "monitoring").glob("*/snapshots/*.json"))) >= 3


def test_no_post_and_no_author_in_what_the_runs_show(first, arrived, project):
    header, rows = rows_of(ARRIVING)
    hidden = {row[header.index("author_id")] for row in rows} | {row[header.index("content")] for row in rows}
    shown = [str(part) for run in (first, *arrived) for part in run]
    shown.append((project / "data/check/checks.html").read_text(encoding="utf-8"))
    texts = "\n".join(shown)
    assert not [secret for secret in hidden if len(secret) > 6 and secret in texts]


def test_rolling_back_is_one_command(arrived, project):
    assert "v1.0.0" in call("python", "-m", "flows.registry", "rollback", cwd=project).stdout
    assert [row["version"] for row in registered(project)] == ["v1.0.0", "v2.0.0", "v1.0.0"]
