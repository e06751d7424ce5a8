"""The checks of arriving posts: what is new, which check catches what, and that no post leaves the machine."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ntulm.configure import configured
from ntulm.embeddings.table import EmbeddingTable, write_table
from ntulm.errors import UserError
from ntulm.inference.directory import READING, Batches, Settings
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme, Role
from ntulm.params import check_params, load_params
from ntulm.production import check
from ntulm.production.arriving import Records, frame, most_used_words, posts_per_day, words
from ntulm.text import Reading

HERE, CHAMPION = Layout(), Layout(Path("champion"))
ENGLISH = "the of and to a in is you that it he was for on are as with his they i at be this have from or one had"
SPANISH = "de la que el en y los se del las por un para con no una su al lo como más pero sus le ya este sí"
START = datetime(2020, 1, 1, tzinfo=UTC)
SETTINGS = ["check.min_posts=50", "run.variants=[text, author+hashtag]", "corpus.format=table"]
SETTINGS += [
    "corpus.table={post_id: id, created_at: time, time_format: null, text: text, author: author, lang: null, "
    "repost_flag: null, reposted_id: null, reposted_author: null, favorited_by: null, hashtags: null, mentions: null, "
    "html: false, casefold_users: true, mention_hosts: false}"
]


def posts(number, start=0, vocabulary=ENGLISH, tagged=0.6, length=8, authors=20, seed=0):
    random = np.random.default_rng([seed, start])
    rows = [
        {
            "post_id": f"p{start + place}",
            "created_at": START + timedelta(minutes=20 * (start + place)),
            "text": " ".join(random.choice(vocabulary.split(), int(random.integers(length // 2, 2 * length)))),
            "author": f"secret-author-{place % authors}",
            "hashtags": ["tag"] if random.random() < tagged else [],
            **{name: [] for name in ("mentions", "urls", "places")},
        }
        for place in range(number)
    ]
    types = [pa.string(), pa.timestamp("us", tz="UTC"), pa.string(), pa.string(), *[pa.list_(pa.string())] * 4]
    return pa.Table.from_pylist(rows, pa.schema(list(zip(rows[0], types, strict=True))))


def rejects(number, file="old.csv"):
    return pa.table({"file": pa.array([file] * number, pa.string()), "line": pa.array(range(number), pa.int64())})


def write_project(layout, own_posts, own_rejects, train=None):
    layout.corpus.mkdir(parents=True, exist_ok=True)
    pq.write_table(own_posts, layout.posts)
    pq.write_table(own_rejects, layout.rejects)
    names = ["train"] * (train or len(own_posts))
    names += ["test"] * (len(own_posts) - len(names))
    pq.write_table(pa.table({"post_id": own_posts["post_id"], "split": names}), layout.splits)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    write_table(folder, ["user"] * 10, [f"secret-author-{n}" for n in range(10)], np.eye(10, 4).astype(np.float32))
    return EmbeddingTable.load(folder)


@pytest.fixture
def project(tmp_path, monkeypatch, table):
    """A project whose model in production, in `champion`, was trained on its first 2,000 posts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(configured("quickstart", SETTINGS))
    write_project(CHAMPION, posts(2000), rejects(4), train=1500)
    CHAMPION.model.mkdir()
    keys = [f"secret-author-{n}" for n in range(10)]
    write_table(CHAMPION.model, ["user"] * 10, keys, np.eye(10, 4).astype(np.float32))
    params = load_params(HERE.params)
    write_settings(params.ntus.scheme)
    return params


def write_settings(scheme):
    """How the model in production reads posts."""
    source = Reading(casefold_users=True, mention_hosts=False, html=False, mentions_in_text=True)
    Settings("author+hashtag", 0, scheme, Batches(48, True, True), source).write(CHAMPION.model / READING)


def failed_checks(arriving, table, reference=None, **changes):
    params = check_params(json_of(configured("quickstart", [])), "quickstart")
    config, roles = params.check.model_copy(update=changes), params.evaluate.overlap
    reference = reference or Records(posts(2000), rejects(0))
    _, found = check.examine(config, arriving, reference, table, params.ntus.scheme, roles)
    return [record["check"] for record in found if not record["passed"]]


def json_of(text):
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(text)


@pytest.mark.parametrize(
    ("arriving", "failing"),
    [
        (Records(posts(400, 5000), rejects(3)), []),
        (Records(posts(60, 5000), rejects(0)), ["new posts"]),
        (Records(posts(400, 5000), rejects(100)), ["rejected records"]),
        (Records(posts(400, 5000, tagged=0), rejects(0)), ["posts with hashtags"]),
        (Records(posts(400, 5000, length=40), rejects(0)), ["drift of text length"]),
        (Records(posts(400, 5000, vocabulary=SPANISH), rejects(0)), ["drift of language"]),
        (Records(posts(400, 5000, authors=200), rejects(0)), ["posts with a known author or hashtag"]),
    ],
)
def test_each_fault_is_caught_by_its_own_check(arriving, failing, table):
    assert failed_checks(arriving, table) == failing


def test_posts_that_arrive_too_slowly_are_too_few(table):
    arriving = Records(posts(400, 5000), rejects(0))
    busy = posts(2000)
    dense = busy.set_column(1, "created_at", pa.array([START] * len(busy), pa.timestamp("us", tz="UTC")))
    assert failed_checks(arriving, table, Records(dense, rejects(0)), min_rate=0.5) == ["new posts"]
    assert posts_per_day(arriving.posts) == (pytest.approx(400 / 6), 6)


def test_without_a_champion_nothing_is_said_of_known_ntus(tmp_path, monkeypatch, project):
    write_project(HERE, posts(2000), rejects(0), train=1500)
    check.run(project, None, None, HERE)
    names = [record["check"] for record in json.loads((HERE.check / "checks.json").read_text())]
    assert "new posts" in names
    assert "posts with a known author or hashtag" not in names


def test_only_what_the_champion_does_not_hold_is_judged(tmp_path, project):
    both = pa.concat_tables([posts(2000), posts(300, 5000, tagged=0)])
    write_project(HERE, both, pa.concat_tables([rejects(4), rejects(2, "new.csv")]))
    with pytest.raises(UserError, match=r"^posts with hashtags: 0\.0%, at least 1\d\.\d% expected$"):
        check.run(project, Path("champion"), None, HERE)
    found = {record["check"]: record for record in json.loads((HERE.check / "checks.json").read_text())}
    assert found["new posts"]["value"] == "300"
    assert found["rejected records"]["value"] == "0.7%"


def test_known_is_what_the_champion_knows_by_its_own_scheme(project):
    keys = [f"secret-author-{n}" for n in range(10)]
    write_table(CHAMPION.model, ["writer"] * 10, keys, np.eye(10, 4).astype(np.float32))
    write_settings(NtuScheme({"writer": "user"}, {"author": Role("writer", "author")}))
    write_project(HERE, pa.concat_tables([posts(2000), posts(300, 5000)]), rejects(4))
    check.run(project, Path("champion"), None, HERE)
    found = {record["check"]: record["value"] for record in json.loads((HERE.check / "checks.json").read_text())}
    assert found["posts with a known author"] == "50.0%"


def test_nothing_new_is_quiet_and_leaves_no_older_result(tmp_path, project):
    HERE.check.mkdir(parents=True)
    (HERE.check / "checks.json").write_text("[]")
    write_project(HERE, posts(2000), rejects(4))
    with pytest.raises(UserError, match="new posts: 0; nothing can be said"):
        check.run(project, Path("champion"), None, HERE)
    assert [path.name for path in HERE.check.iterdir()] == ["verdict.json"]
    assert verdict() == "quiet"


@pytest.mark.parametrize(
    ("new", "bad", "expected", "said"),
    [
        (20, 9, "quiet", r"new posts: 20; new records that are none: 9; nothing can be said below check\.min_posts"),
        (20, 90, "failed", "new posts: 20, at least 50 expected; rejected records: 81.8%"),
        (0, 90, "failed", "new posts: 0; new records that are none: 90; at least 1 expected"),
    ],
)
def test_few_new_records_are_quiet_and_few_posts_among_many_records_are_not(project, new, bad, expected, said):
    arrived = pa.concat_tables([posts(2000), posts(new, 5000)]) if new else posts(2000)
    write_project(HERE, arrived, pa.concat_tables([rejects(4), rejects(bad, "new.csv")]))
    with pytest.raises(UserError, match=said):
        check.run(project, Path("champion"), None, HERE)
    assert verdict() == expected


def test_few_test_posts_before_there_is_a_model_in_production_are_not_quiet(project):
    write_project(HERE, posts(1520), rejects(0), train=1500)
    with pytest.raises(UserError, match="new posts: 20, at least 50 expected"):
        check.run(project, None, None, HERE)
    assert verdict() == "failed"


def verdict():
    return json.loads((HERE.check / "verdict.json").read_text())["verdict"]


def test_raw_exports_are_read_as_the_corpus_would_be(tmp_path, project):
    arriving = posts(200, 5000).to_pylist()
    lines = [
        f"{post['post_id']},{post['created_at'].isoformat()},{post['text']} #tag,{post['author']}" for post in arriving
    ]
    (tmp_path / "month.csv").write_text("\n".join(["id,time,text,author", *lines, "broken"]) + "\n")
    check.run(project, Path("champion"), Path("month.csv"), HERE)
    assert verdict() == "passed"
    found = {record["check"]: record["value"] for record in json.loads((HERE.check / "checks.json").read_text())}
    assert found["new posts"] == "200"
    assert found["rejected records"] == "0.5%"
    assert found["posts with hashtags"] == "100.0%"
    assert not (HERE.corpus).exists()


def test_no_text_and_no_author_in_what_is_written_and_history_is_kept(tmp_path, project):
    write_project(HERE, pa.concat_tables([posts(2000), posts(300, 5000)]), rejects(4))
    check.run(project, Path("champion"), None, HERE)
    check.run(project, Path("champion"), None, HERE)
    runs = list(HERE.monitoring.glob("*/snapshots/*.json"))
    assert len(runs) == 2
    for path in [*runs, *HERE.check.iterdir()]:
        content = path.read_text(encoding="utf-8")
        assert "secret-author" not in content
        assert posts(300, 5000)["text"][0].as_py() not in content


def test_a_section_that_does_not_fit_the_pipeline_is_told_before_anything_runs(project):
    wanted = project.model.model_copy(update={"variant": "author"})
    other = project.model_copy(update={"model": wanted})
    with pytest.raises(UserError, match=r"model: author, seed 0: not among run\.variants"):
        check.run(other, None, None, HERE)


def test_words_are_without_links_mentions_hashtags_and_case():
    assert words("RT @Me: Über https://x.org/a #tag it's 4 Straße") == ["rt", "über", "it", "s", "straße"]
    assert most_used_words(["b a", "b c", "a"], 2) == {"a", "b"}


def test_a_frame_has_a_row_per_record_and_figures_alone(table, project):
    rows = frame(Records(posts(3), rejects(2)), frozenset({"the"}), table, project.ntus.scheme, ["author"])
    assert list(rows["fate"]) == ["post"] * 3 + ["reject"] * 2
    assert set(rows.drop(columns="fate").dtypes.astype(str)) == {"float64"}
    assert rows["length"].isna().sum() == 2
    assert list(rows["knows_any"][:3]) == [1.0] * 3
    by_hashtag = frame(Records(posts(3), rejects(2)), frozenset(), table, project.ntus.scheme, ["hashtag"])
    assert list(by_hashtag["knows_any"][:3]) == [0.0] * 3
