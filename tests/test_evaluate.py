"""The stage `evaluate` on hand-made outputs of the stages before it."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_run import (
    EVALUATE,
    HERE,
    SCHEME,
    SKILL,
    run_of,
    write_all,
    write_embeddings,
    write_pretrain,
    write_scores,
    write_task,
)
from safetensors.numpy import load_file, save_file

from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.evaluate import stage as evaluate
from ntulm.evaluate.bootstrap import BETTER, NO_DIFFERENCE, TOO_FEW
from ntulm.evaluate.coverage import coverage_of_types
from ntulm.evaluate.scores import in_order, shown_variant
from ntulm.files import read_json
from ntulm.ntus import NtuScheme, Role, ntus_of
from ntulm.probe.metrics import metric

TOPIC = {"topic": ("Topic", "macro_f1", ["macro_f1", "accuracy"], 4)}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tables():
    return read_json(HERE.evaluate / "tables.json")


def records(of, **wanted):
    return [record for record in of if all(record[key] == value for key, value in wanted.items())]


def test_the_whole_stage(project):
    run = write_all(project, seeds=(0, 1))
    evaluate.run(EVALUATE, run, SCHEME, HERE)
    written = tables()
    [topic] = records(written["families"], family="Topic", system="author+hashtag", slice="overall")
    assert topic["verdict"] == BETTER
    assert topic["low"] < topic["gain"] < topic["high"]
    assert topic["posts"] == 300
    assert {record["system"] for record in written["datasets"]} == {
        "text",
        "author",
        "hashtag",
        "author+hashtag",
        "post-concat",
    }
    [bits] = records(written["perplexity"], system="author+hashtag", tokens="all")
    assert bits["gain"] == pytest.approx(5, abs=1)
    assert bits["verdict"] == BETTER
    assert written["settings"]["seeds"] == [0, 1]


def test_slices_add_up_and_the_plot_records_are_the_main_metrics(project):
    run = write_all(project)
    evaluate.run(EVALUATE, run, SCHEME, HERE)
    written = tables()
    sizes = {r["slice"]: r["posts"] for r in records(written["datasets"], dataset="topic", system="text")}
    assert sizes["overlap"] + sizes["non_overlap"] == sizes["overall"] == 300
    plot = read_json(HERE.evaluate / "slices.json")
    assert len(plot) == 4 * 4 * 3  # data sets, systems beside text, slices
    assert set(plot[0]) == {"family", "dataset", "system", "slice", "posts", "value", "gain", "low", "high"}
    headlines = read_json(HERE.metrics("evaluate"))
    assert set(headlines) == {"perplexity_bits", "Topic", "Hashtag", "TweetEval"}
    assert "gain" not in headlines["Topic"]["text"]


def test_values_are_those_of_the_metric_on_the_slice():
    write_embeddings()
    write_task("topic", TOPIC)
    write_scores("topic")
    evaluate.run(EVALUATE, run_of(["topic"]), SCHEME, HERE)
    rows = [row for row in pq.read_table(HERE.task("topic") / "topic.parquet").to_pylist() if row["split"] == "test"]
    known = np.array(
        [
            (row["author"] is not None and int(row["author"][1:]) < 200)
            or any(int(ntu["key"][1:]) < 50 for ntu in row["ntus"] if ntu["role"] == "hashtag")
            for row in rows
        ]
    )
    labels = np.eye(4, dtype=bool)[[row["labels"][0] for row in rows]]
    scores = load_file(HERE.scores("author", 0, "topic") / "author.topic.safetensors")["scores"].astype(np.float32)
    [record] = records(tables()["datasets"], system="author", slice="overlap", metric="macro_f1")
    assert record["posts"] == known.sum()
    assert record["value"] == pytest.approx(metric("macro_f1", labels[known], scores[known]))


def test_identical_systems_show_no_difference():
    write_embeddings()
    write_task("topic", TOPIC)
    write_scores("topic")
    for variant in ("author", "hashtag"):
        same = load_file(HERE.scores("text", 0, "topic") / "text.topic.safetensors")
        save_file(same, HERE.scores(variant, 0, "topic") / f"{variant}.topic.safetensors")
    evaluate.run(EVALUATE, run_of(["topic"]), SCHEME, HERE)
    for record in records(tables()["datasets"], system="author"):
        assert (record["gain"], record["low"], record["high"], record["verdict"]) == (0, 0, 0, NO_DIFFERENCE)


def test_of_an_error_less_is_the_gain():
    write_embeddings()
    write_task("points", {"points": ("Points", "macro_f1", ["macro_f1", "macro_mae"], 4)})
    write_scores("points")
    evaluate.run(EVALUATE, run_of(["points"]), SCHEME, HERE)
    for of in ("datasets", "families"):
        base, own = (
            records(tables()[of], system=system, metric="macro_mae", slice="overall")[0]
            for system in ("text", "author+hashtag")
        )
        assert own["value"] < base["value"]  # the made-up variant is the better one
        assert own["gain"] == pytest.approx(100 * (base["value"] - own["value"]) / base["value"])
        assert own["verdict"] == BETTER


def test_small_slices_get_no_verdict():
    write_embeddings()
    write_task("topic", TOPIC, test_posts=40)
    write_scores("topic")
    evaluate.run(EVALUATE, run_of(["topic"]), SCHEME, HERE)
    written = tables()
    for record in records(written["datasets"], system="author+hashtag", metric="macro_f1"):
        assert (record["verdict"] == TOO_FEW) == (record["posts"] < 30)
    [family] = records(written["families"], system="author+hashtag", metric="macro_f1", slice="non_overlap")
    assert family["verdict"] == TOO_FEW


def test_a_family_leaves_out_data_sets_whose_slice_is_too_small():
    write_embeddings()
    write_task("topic", TOPIC)
    write_scores("topic")
    run = run_of(["topic"])
    [large] = evaluate.read_datasets(run, HERE)
    known = np.ones(300, dtype=bool)
    known[:5] = False
    bootstrap = evaluate.Bootstrap(100, 0)
    small = evaluate.dataset_figures(large, known, bootstrap)
    half = evaluate.dataset_figures(large, np.arange(300) % 2 == 0, bootstrap)
    other = evaluate.ScoredDataset(**(large.__dict__ | {"name": "other"}))
    found = evaluate.family_records(
        [large, other], {("topic", "topic"): small, ("topic", "other"): half}, EVALUATE, run.variants
    )
    [non_overlap] = records(found, system="author", slice="non_overlap", metric="macro_f1")
    assert (non_overlap["datasets"], non_overlap["of_datasets"], non_overlap["posts"]) == (1, 2, 150)


def test_without_text_there_are_scores_but_no_gains():
    write_embeddings()
    write_task("topic", TOPIC)
    write_scores("topic", variants=("author",))
    write_pretrain(variants=("author",))
    evaluate.run(EVALUATE, run_of(["topic"], variants=("author",)), SCHEME, HERE)
    written = tables()
    assert {record["verdict"] for record in written["families"] + written["perplexity"]} == {None}
    assert all(record["value"] is not None for record in written["families"])


def test_perplexity_alone_is_enough():
    write_embeddings()
    write_pretrain()
    evaluate.run(EVALUATE, run_of(["topic"]), SCHEME, HERE)
    written = tables()
    assert written["families"] == []
    posts = {
        record["tokens"]: record["masked_tokens"] for record in written["perplexity"] if record["system"] == "text"
    }
    assert list(posts)[:3] == ["all", "in_hashtag", "other"]
    assert posts["all"] == posts["in_hashtag"] + posts["other"]
    assert posts["other"] == sum(posts[name] for name in evaluate.FREQUENCIES) > 0


def test_two_tasks_of_one_family_are_not_averaged():
    write_embeddings()
    for task in ("topic", "topic-by-author"):
        write_task(task, TOPIC)
        write_scores(task)
    evaluate.run(EVALUATE, run_of(["topic", "topic-by-author"]), SCHEME, HERE)
    assert {record["family"] for record in tables()["families"]} == {"Topic (topic)", "Topic (topic-by-author)"}


def test_a_mixed_family_has_its_official_mean_and_the_shared_metric(project):
    run = write_all(project)
    evaluate.run(EVALUATE, run, SCHEME, HERE)
    tweeteval = records(tables()["families"], family="TweetEval", system="text", slice="overall")
    assert [(record["metric"], record["main"]) for record in tweeteval] == [("official", True), ("macro_f1", False)]
    irony, emotion = (
        records(tables()["datasets"], dataset=name, system="text", slice="overall", main=True)[0]["value"]
        for name in ("irony", "emotion")
    )
    assert tweeteval[0]["value"] == pytest.approx((irony + emotion) / 2)


def test_an_undefined_metric_is_null():
    write_embeddings()
    # f1_1 is undefined where class 1 neither occurs nor is predicted.
    write_task("sense", {"sense": ("Sense", "f1_1", ["f1_1"], 2)}, test_posts=40)
    write_scores("sense")
    path = HERE.task("sense") / "sense.parquet"
    table = pq.read_table(path)
    zeros = pa.array([[0]] * len(table), pa.list_(pa.int32()))
    pq.write_table(table.set_column(table.schema.get_field_index("labels"), "labels", zeros), path)
    for path in HERE.scores("text", 0, "sense").parent.parent.parent.rglob("*.safetensors"):
        save_file({"scores": np.tile(np.array([1, 0], np.float16), (40, 1))}, path)
    evaluate.run(EVALUATE, run_of(["sense"]), SCHEME, HERE)
    assert {record["value"] for record in tables()["datasets"]} == {None}
    assert {record["verdict"] for record in tables()["datasets"]} == {None}
    json.loads((HERE.evaluate / "tables.json").read_text(), parse_constant=pytest.fail)


def test_results_do_not_depend_on_what_else_was_run(project):
    run = write_all(project)
    evaluate.run(EVALUATE, run, SCHEME, HERE)
    [whole] = records(tables()["families"], family="Topic", system="author", slice="overall")
    evaluate.run(EVALUATE, run_of(["topic"], variants=("text", "author")), SCHEME, HERE)
    [alone] = records(tables()["families"], family="Topic", system="author", slice="overall")
    assert whole == alone


def test_nothing_was_run():
    write_embeddings()
    with pytest.raises(UserError, match="dvc repro"):
        evaluate.run(EVALUATE, run_of(["topic"]), SCHEME, HERE)
    assert not HERE.evaluate.exists()


def test_other_masks_are_refused():
    write_embeddings()
    write_pretrain()
    path = HERE.pretrain("author", 0) / "test_losses.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"token": tensors["token"] + 1}, path)
    with pytest.raises(UserError, match="masked tokens"):
        evaluate.run(EVALUATE, run_of(["topic"]), SCHEME, HERE)


def test_scores_of_another_data_set_are_refused():
    write_embeddings()
    write_task("topic", TOPIC)
    write_scores("topic")
    path = HERE.scores("author", 0, "topic") / "author.topic.safetensors"
    save_file({"scores": load_file(path)["scores"][:-1].copy()}, path)
    with pytest.raises(UserError, match="shape"):
        evaluate.run(EVALUATE, run_of(["topic"]), SCHEME, HERE)


def test_seeds_that_only_some_systems_have_are_left_out():
    write_embeddings()
    write_task("topic", TOPIC)
    write_scores("topic", seeds=(0, 1))
    (HERE.scores("author", 1, "topic") / "author.topic.safetensors").unlink()
    evaluate.run(EVALUATE, run_of(["topic"], seeds=(0, 1)), SCHEME, HERE)
    assert {record["seeds"] for record in tables()["datasets"]} == {1}


MORE = NtuScheme(dict(SCHEME.types), {**SCHEME.roles, "mention": Role("user", "mentions")})


def test_coverage_counts_posts_with_at_least_one_known_ntu_by_type_of_the_roles():
    write_embeddings(users=2, hashtags=2)
    table = EmbeddingTable.load(HERE.embeddings)
    fields: dict[str, list[Any]] = {
        "author": ["u0", "u9", None, "u1"],
        "hashtags": [["h0", "h8"], ["h9"], [], ["h9"]],
        "mentions": [[], ["u1", "u0"], [], ["u1"]],
    }
    ntus = ntus_of(MORE, fields)
    hashtag, user, both = coverage_of_types(table, MORE, ntus, ["author", "hashtag"])
    assert hashtag == {
        "type": "hashtag",
        "posts": 4,
        "ntus": 3,
        "share_any": 0.75,
        "share_known": 0.25,
        "share_known_of_any": pytest.approx(1 / 3),
    }
    assert (user["type"], user["ntus"], user["share_any"], user["share_known"]) == ("user", 3, 0.75, 0.5)
    assert (both["type"], both["ntus"], both["share_any"], both["share_known"]) == ("any", 6, 0.75, 0.5)
    users, _ = coverage_of_types(table, MORE, ntus, ["author", "mention"])
    assert (users["ntus"], users["share_known"]) == (3, 0.75)  # one type, two roles
    none = coverage_of_types(table, MORE, ntus[:0], ["hashtag"])[0]
    assert (none["posts"], none["share_any"], none["share_known_of_any"]) == (0, None, None)


def test_two_slots_stand_for_ntulm_where_the_papers_variant_was_not_run():
    variants = ("text", "author.hashtag", "author")
    write_embeddings()
    write_task("topic", {"topic": ("Topic", "map", ["map"], 8)})
    write_scores("topic", variants, skill=SKILL | {"author.hashtag": 1.9})
    evaluate.run(EVALUATE, run_of(["topic"], variants), SCHEME, HERE)
    written = tables()
    systems = list(dict.fromkeys(record["system"] for record in written["families"]))
    assert systems == ["text", "author.hashtag", "author", "post-concat"]
    [topic] = records(written["families"], family="Topic", system="author.hashtag", slice="overall")
    assert topic["verdict"] == BETTER
    assert shown_variant(["text", "author", "author.hashtag", "shuffled"]) == "author.hashtag"
    assert shown_variant(["text", "words"]) == "words"
    assert shown_variant(["author+hashtag", "author"]) == shown_variant(["text"]) == "author+hashtag"


def test_systems_stand_in_the_order_of_the_run_with_the_baseline_first():
    found = {"tfidf", "ntu", "post-concat", "b", "author", "text", "author++hashtag", "a"}
    variants = ["author++hashtag", "text", "author"]
    assert in_order(found, variants) == [
        "text", "author++hashtag", "author", "post-concat", "ntu", "tfidf", "a", "b",
    ]  # fmt: skip


def test_the_slices_are_cut_by_the_roles_of_overlap():
    write_embeddings()
    write_task("topic", TOPIC)
    write_scores("topic")
    by_author = EVALUATE.model_copy(update={"overlap": ["author"]})
    evaluate.run(by_author, run_of(["topic"]), SCHEME, HERE)
    rows = [row for row in pq.read_table(HERE.task("topic") / "topic.parquet").to_pylist() if row["split"] == "test"]
    known = sum(row["author"] is not None and int(row["author"][1:]) < 200 for row in rows)
    [record] = records(tables()["datasets"], system="author", slice="overlap", metric="macro_f1")
    assert record["posts"] == known
    assert {record["type"] for record in tables()["coverage"]} == {"user", "any"}
