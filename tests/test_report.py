"""The stage `report`: what it writes, and that nothing from data can break it."""

import re

import pytest
from fake_run import (
    EVALUATE,
    HERE,
    SCHEME,
    SKILL,
    run_of,
    write_all,
    write_corpus_metrics,
    write_embeddings,
    write_pretrain,
    write_scores,
    write_task,
)

from ntulm.errors import UserError
from ntulm.evaluate import stage as evaluate
from ntulm.files import read_json, write_json
from ntulm.report import stage as report
from ntulm.report.config import Report
from ntulm.report.headlines import headlines
from ntulm.report.markdown import escaped, results_page, table_2, table_3, table_4, table_5
from ntulm.report.plots import colors_of, draw_figures
from ntulm.report.tables import Results, load_paper, load_results

HOSTILE = "</script><script>alert(1)</script>|`$x$`"


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rename(old, new):
    """Rename a family and its data set in what `evaluate` wrote."""
    path = HERE.evaluate / "tables.json"
    tables = read_json(path)
    for part in ("families", "datasets", "coverage"):
        for record in tables[part]:
            if record["family"] == old:
                record |= {"family": new} | ({"dataset": new} if "dataset" in record else {})
    write_json(path, tables)


@pytest.mark.slow
def test_the_whole_stage_with_hostile_names(project):
    run = write_all(project)
    evaluate.run(EVALUATE, run, SCHEME, HERE)
    rename("Topic", HOSTILE)
    report.run(Report(min_coverage=0.05, examples=5), run, SCHEME, HERE)
    assert {path.name for path in HERE.reports.iterdir()} == {
        "results.md",
        "results.html",
        "curves.json",
        "coverage.html",
        "figure3.png",
        "figure4.png",
        "figure5.png",
        "perplexity.png",
        "learning_curves.png",
    }
    markdown = (HERE.reports / "results.md").read_text()
    assert "<script" not in markdown
    assert "SYNTHETIC" in markdown
    page = (HERE.reports / "coverage.html").read_text()
    assert "script><script>alert" not in page
    assert "SYNTHETIC" in page
    whole = (HERE.reports / "results.html").read_text()
    assert "<script" not in whole
    assert "SYNTHETIC" in whole
    assert whole.count("data:image/") == 5
    # Both open offline: nothing is loaded from elsewhere.
    for one in (page, whole):
        assert re.findall(r"<script[^>]+src=|<link[^>]+href=|<img[^>]+src=.http|url\(.?https?:", one) == []


@pytest.mark.slow
def test_low_coverage_is_a_warning(project):
    from evidently.legacy.tests.base_test import TestStatus

    from ntulm.report.coverage_page import coverage_snapshot

    run = write_all(project)
    evaluate.run(EVALUATE, run, SCHEME, HERE)
    high, low = (coverage_snapshot(load_results(HERE), share) for share in (0.9, 0.05))
    assert [test.status for test in high.tests_results] == [TestStatus.WARNING] * 4
    assert [test.status for test in low.tests_results] == [TestStatus.SUCCESS] * 4


@pytest.mark.slow
def test_a_run_without_tasks_still_has_a_report():
    write_corpus_metrics("table")
    write_embeddings()
    write_pretrain(variants=("text", "author"))
    run = run_of([], variants=("text", "author"))
    evaluate.run(EVALUATE, run, SCHEME, HERE)
    report.run(Report(min_coverage=0.05, examples=5), run, SCHEME, HERE)
    names = {path.name for path in HERE.reports.iterdir()}
    pages = {"results.md", "results.html", "curves.json"}
    assert names == pages | {"perplexity.png", "learning_curves.png"}
    assert "SYNTHETIC" not in (HERE.reports / "results.md").read_text()


def test_nothing_was_evaluated():
    with pytest.raises(UserError, match="dvc repro"):
        report.run(Report(min_coverage=0.05, examples=5), run_of([]), SCHEME, HERE)
    assert not HERE.reports.exists()


def test_the_paper_stands_beside_ours_where_it_measured_the_same(project):
    run = write_all(project)
    evaluate.run(EVALUATE, run, SCHEME, HERE)
    results, paper = load_results(HERE), load_paper()
    header, _, text, *_ = table_2(results, paper).splitlines()
    columns = [cell.split("<br>")[0].strip() for cell in header.split("|")]
    cells = dict(zip(columns, text.split("|"), strict=True))
    assert "paper 4.425" in cells["Perplexity (bits)"]
    assert "paper 0.327" in cells["Topic (map)"]
    assert "paper 0.577" in cells["TweetEval (macro\\_f1)"]
    assert "paper" not in cells["TweetEval (official)"]
    assert "paper" not in cells["Hashtag (macro\\_f1)"]
    assert "paper 0.388" in table_3(results, paper)
    assert "+34.7 %" in table_4(results, paper)  # post-concat, Topic, overlap
    assert "(paper 14.2 %)" in table_5(results, paper)  # users of the topic test posts


def test_tables_have_as_many_cells_in_each_row(project):
    run = write_all(project)
    evaluate.run(EVALUATE, run, SCHEME, HERE)
    rename("Topic", HOSTILE)
    for table in re.split(r"\n\n", results_page(load_results(HERE), load_paper(), [])):
        if table.startswith("|"):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_escaped():
    assert escaped("a|b\n<i>*c*</i>") == "a\\|b &lt;i&gt;\\*c\\*&lt;/i&gt;"


def test_the_papers_tables_agree_with_one_another():
    paper = load_paper()
    for family in ("Topic", "Hashtag", "TweetEval", "SemEval 1", "SocialMediaIE"):
        datasets = paper["table3"][family].values()
        means = {s: sum(of[s] for of in datasets) / len(datasets) for s in ("text", "author+hashtag", "post-concat")}
        assert paper["table2"]["families"][family]["text"] == pytest.approx(means["text"], abs=0.001)
        for system in ("author+hashtag", "post-concat"):
            gain = 100 * (means[system] - means["text"]) / means["text"]
            assert paper["table4"][family]["overall"][system] == pytest.approx(gain, abs=0.15)


@pytest.mark.slow
def test_the_history_has_every_run_and_a_figure_for_every_line_of_its_panels(project):
    from evidently.ui.workspace import Workspace

    from ntulm.report.coverage_page import HISTORY, panels, write_coverage_page

    evaluate.run(EVALUATE, write_all(project), SCHEME, HERE)
    results = load_results(HERE)
    for _ in range(2):
        assert write_coverage_page(results, 0.05, project / "coverage.html", HERE)
    workspace = Workspace(str(HERE.monitoring))
    (history,) = workspace.search_project(HISTORY)
    snapshots = [workspace.get_run(history.id, run) for run in workspace.list_runs(history.id)]
    assert len(snapshots) == 2
    assert [panel.title for panel in history.dashboard.model().panels] == [panel.title for panel in panels(results)]
    for line in (line for panel in panels(results) for line in panel.lines):
        for snapshot in snapshots:
            (value,) = (one.value for one in snapshot.metric_results.values() if is_of(one, line))
            assert 0 < value < 10


def is_of(result, line):
    """Whether a figure of a snapshot belongs to a line of a panel."""
    params = result.metric_value_location.metric.params
    return params["type"].endswith(f":{line.metric}") and line.labels.items() <= params.items()


def test_the_sentence_is_on_a_variant_and_never_on_a_baseline():
    records = [
        {"family": "Topic", "metric": "map", "main": True, "slice": "overall", "system": system, "verdict": verdict}
        for system, verdict in [("text", None), ("author", "better"), ("ntu", "worse"), ("tfidf", "worse")]
    ]
    settings = {"baseline": "text", "ntulm": "author", "variants": ["text", "author"]}
    results = Results(settings, [], records, [], [], [], synthetic=False)
    assert results.sentence() == "author against text, of 1 measure: better on 1."


def test_of_an_error_the_least_is_bold():
    write_corpus_metrics()
    write_embeddings()
    write_task("points", {"points": ("Points", "macro_f1", ["macro_f1", "macro_mae"], 4)})
    write_scores("points")
    evaluate.run(EVALUATE, run_of(["points"]), SCHEME, HERE)
    results = load_results(HERE)
    own = {r["system"]: r["value"] for r in results.datasets if (r["slice"], r["metric"]) == ("overall", "macro_mae")}
    header, _, _, error = table_3(results, load_paper()).splitlines()
    bold = [name for name, cell in zip(header.split("|"), error.split("|"), strict=True) if "**" in cell]
    assert [name.strip() for name in bold] == [min(own, key=lambda name: own[name])]


def test_every_variant_of_the_grammar_has_its_rows_and_a_colour_of_its_own(project):
    variants = ("text", "author.hashtag", "author")
    write_corpus_metrics()
    write_embeddings()
    write_pretrain(variants, factors={"text": 1.0, "author": 0.99, "author.hashtag": 0.94})
    write_task("topic", {"topic": ("Topic", "map", ["map"], 8)})
    write_scores("topic", variants, skill=SKILL | {"author.hashtag": 1.9})
    evaluate.run(EVALUATE, run_of(["topic"], variants), SCHEME, HERE)
    results, paper = load_results(HERE), load_paper()
    assert results.compared == ["author.hashtag", "post-concat"]
    assert "author.hashtag against text, of 2 measures: better on 2." in results.sentence()
    assert "author.hashtag" in table_3(results, paper).splitlines()[0]
    assert "author.hashtag" in table_4(results, paper).splitlines()[0]
    drawn = draw_figures(results, [], project)
    assert {name for name, _ in drawn} == {"figure3.png", "figure4.png", "figure5.png", "perplexity.png"}
    assert "author.hashtag" in dict(drawn)["figure3.png"]
    names = ["text", "author.hashtag", "author++hashtag", "mention.url"]
    colors = colors_of(names)
    assert len({colors[name] for name in names}) == 4
    assert colors == colors_of(names)


def record(system, value, verdict=None, slice="overall", family="Topic", gain=None):
    """A record of a family, as `evaluate` writes it, as far as sentences need it."""
    about = {"family": family, "metric": "map", "main": True, "slice": slice, "system": system, "posts": 100}
    sides = {"low": None, "high": None} if gain is None else {"low": gain - 1, "high": gain + 1}
    return about | {"value": value, "verdict": verdict, "gain": gain} | sides


def results_of(families, perplexity=(), coverage=()):
    settings = {"baseline": "text", "ntulm": "author", "variants": ["text", "author"]}
    return Results(settings, list(perplexity), families, [], list(coverage), [], synthetic=False)


def test_the_findings_name_who_is_ahead_and_whom_it_costs():
    families = [
        *(record("text", 0.5), record("author", 0.6, "better", gain=20.0), record("post-concat", 0.7, "better")),
        *(record("text", 0.5, family="Mood"), record("author", 0.4, "worse", family="Mood")),
        record("author", 0.3, "worse", "non_overlap", gain=-7.0),
        record("author", 0.3, "too few posts", "non_overlap", "Mood", gain=-1.0),
    ]
    ahead, without = results_of(families).findings()
    assert "Ahead of author: post-concat on 1 of 2 (Topic 0.700 against 0.600)." in ahead
    assert without.startswith(
        "Posts without a known NTU, author against text: worse on Topic -7.0 % [-8.0, -6.0]; too few"
    )


def test_fewer_bits_are_ahead_and_a_control_that_gains_is_told():
    bits = [{"tokens": "all", "system": name, "value": value} for name, value in (("author", 3.0), ("hashtag", 2.5))]
    bits = [one | {"verdict": None, "gain": None} for one in bits]
    families = [record("text", 0.5), record("author", 0.6), record("shuffled", 0.55, "better")]
    ahead, control = results_of(families, bits).findings()
    assert "hashtag on 1 of 2 (Perplexity (bits) 2.500 against 3.000)" in ahead
    assert "something leaks" in control
    families[-1] |= {"verdict": "no difference shown"}
    assert results_of(families).findings()[-1].endswith("gains on no measure, as it must.")


def test_nobody_is_ahead():
    assert results_of([record("text", 0.5), record("author", 0.6)]).findings() == []
    findings = results_of([record("text", 0.5), record("author", 0.6), record("ntu", 0.2)]).findings()
    assert findings == ["No other system has a better figure than author on any measure."]


def test_the_headlines_are_few_and_can_be_read(project):
    run = write_all(project)
    evaluate.run(EVALUATE, run, SCHEME, HERE)
    write_json(HERE.metrics("embeddings"), {"mrr": 0.25})
    found = headlines(load_results(HERE), HERE)
    assert list(found) == [
        *("Perplexity bits", "Perplexity gain %", "Topic map", "Topic gain %", "Hashtag recall@10", "Hashtag gain %"),
        *("TweetEval official", "TweetEval gain %", "known NTU %", "link MRR", "posts"),
    ]
    assert found["Topic map"] == read_json(HERE.metrics("evaluate"))["Topic"]["author+hashtag"]["value"]
    assert 40 < found["known NTU %"] < 90
    assert (found["link MRR"], found["posts"]) == (0.25, 1000)


def test_the_headlines_of_the_baseline_alone():
    found = headlines(results_of([record("text", 0.5)]), HERE)
    assert found == {"Topic map": 0.5}
