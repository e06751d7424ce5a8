"""`build` through the API, on the embedded sample: the results are those of `dvc repro`."""

import json

import pytest
from conftest import local
from test_end_to_end import call, metrics


@pytest.fixture(scope="module")
def built(api, changes):
    """The first build, in cpu-pool: its id."""
    run, state = api.run("build/build-cpu", {"recipe": "quickstart", "changes": changes})
    assert state["type"] == "COMPLETED", f"{state['message']}\n{api.log(run)[-3000:]}"
    return run


def test_the_results_are_those_of_dvc_repro(built, project, undisturbed):
    assert metrics(project) == undisturbed
    assert "up to date" in call("dvc", "status", cwd=project).stdout


def test_each_stage_is_a_task_of_its_name(built, api, project):
    stages = call("dvc", "stage", "list", "--name-only", cwd=project).stdout.split()
    tasks = api.tasks(built)
    assert sorted(task["name"] for task in tasks) == sorted(stages)
    assert {task["state"]["type"] for task in tasks} == {"COMPLETED"}
    assert "Running stage 'pretrain@author+hashtag-0'" in api.log(built)


def test_the_artifacts_show_results_coverage_report_and_progress(built, api):
    artifacts = api.artifacts(built)
    assert set(artifacts) == {"results", "results-page", "coverage", "coverage-report", "progress"}
    assert "SYNTHETIC" in artifacts["results"]
    assert {"dataset", "split", "type", "posts", "share_known"} <= set(json.loads(artifacts["coverage"])[0])
    assert artifacts["progress"] == 100
    link = artifacts["coverage-report"].partition("](")[2].rstrip(")")
    page = api.client.get(link)
    assert page.is_success
    assert "<html" in page.text.lower()


def test_a_second_build_runs_nothing_wherever_it_runs(built, api):
    _, state = api.run("build/build-gpu")
    assert state["type"] == "COMPLETED"
    assert "unchanged" in state["message"]
    assert "ran" not in state["message"].replace("unchanged", "")


def test_from_stage_and_force_run_that_stage_and_what_follows(built, api, project, undisturbed):
    run, state = api.run("build/build-cpu", {"from_stage": "evaluate", "force": True})
    assert state["message"] == "3 stages: 3 ran"
    assert sorted(task["name"] for task in api.tasks(run)) == ["evaluate", "model", "report"]
    assert metrics(project) == undisturbed


@pytest.mark.parametrize(
    "parameters",
    [
        {"recipe": "x; rm -rf /"},
        {"recipe": "../secrets"},
        {"from_stage": "$(touch pwned)"},
        {"recipe": "quickstart", "changes": ["--help"]},
        {"recipe": "quickstart", "changes": "epochs"},
        {"side_by_side": 0},
    ],
)
def test_what_the_form_does_not_offer_is_refused_before_a_run_exists(api, parameters):
    identity = api.deployment("build/build-cpu")["id"]
    answer = api.send("POST", f"/deployments/{identity}/create_flow_run", {"parameters": parameters}, check=False)
    wrong = list(parameters.values())[-1]
    assert answer.status_code == 409
    assert str(wrong[0] if isinstance(wrong, list) else wrong) in answer.json()["detail"]


def test_an_unknown_parameter_ends_the_run_before_it_does_anything(built, api):
    run, state = api.run("build/build-cpu", {"shell": "true"})
    assert state["type"] == "CRASHED"  # Prefect's own refusal: the flow was never called
    assert "provided with parameters ['shell']" in api.log(run)
    assert api.tasks(run) == []


def test_a_change_is_data_and_not_shell(built, api, project):
    before = (project / "params.yaml").read_text()
    change = 'run.variants=["text; touch pwned"]'
    run, state = api.run("build/build-cpu", {"recipe": "quickstart", "changes": [change]})
    assert state["type"] == "FAILED"
    assert "run.variants" in state["message"]
    assert (project / "params.yaml").read_text() == before
    assert not (project / "pwned").exists()
    assert api.tasks(run) == []


def test_a_failed_stage_tells_its_own_reason(built, api, project, changes):
    world = project / "broken.yaml"
    world.write_text("posts: many\n")
    _, state = api.run("build/build-cpu", {"recipe": "quickstart", "changes": [*changes, "corpus.path=broken.yaml"]})
    world.unlink()
    call("git", "checkout", "params.yaml", cwd=project)
    assert state["type"] == "FAILED"
    assert "corpus: " in state["message"]
    assert "broken.yaml" in state["message"]


def test_up_again_starts_nothing_new(built, api, project):
    records = {path.name: path.read_text() for path in (project / ".prefect/run").iterdir()}
    assert api.address in local("up", project, 1)  # the port of the running server counts, not the one asked for
    assert {path.name: path.read_text() for path in (project / ".prefect/run").iterdir()} == records
