"""Hand-made outputs of the stages before `evaluate`, for the tests of `evaluate`, `report` and `results`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from ntulm.embeddings.table import write_table
from ntulm.evaluate.config import Evaluate
from ntulm.files import write_json
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme, Role, ntus_of
from ntulm.params import Run

VARIANTS = ("text", "author", "hashtag", "author+hashtag")
SKILL = {"text": 1.0, "author": 1.15, "hashtag": 1.4, "author+hashtag": 1.8, "post-concat": 1.5}
EVALUATE = Evaluate(resamples=200, confidence=0.95, seed=0, min_posts=30, overlap=["author", "hashtag"])
SCHEME = NtuScheme(
    {"user": "user", "hashtag": "hashtag"}, {"author": Role("user", "author"), "hashtag": Role("hashtag", "hashtags")}
)
HERE = Layout()  # of the working directory


def run_of(tasks, variants=VARIANTS, seeds=(0,)):
    """The section `run` of a fake run."""
    return Run(variants=list(variants), seeds=list(seeds), tasks=list(tasks))


def write_embeddings(users=200, hashtags=50):
    """A table that knows the users u0… and the hashtags h0…."""
    HERE.embeddings.mkdir(parents=True)
    keys = [f"u{i}" for i in range(users)] + [f"h{i}" for i in range(hashtags)]
    types = ["user"] * users + ["hashtag"] * hashtags
    vectors = np.random.default_rng(0).standard_normal((len(keys), 4)).astype(np.float32)
    write_table(HERE.embeddings, types, keys, vectors)
    HERE.graph.mkdir(parents=True)
    degrees = pa.array(range(1, len(keys) + 1), pa.int64())
    pq.write_table(pa.table({"type": types, "key": keys, "degree": degrees}), HERE.nodes)


def write_task(task, datasets, test_posts=300, seed=0):
    """A task whose test posts have an author that the table of `write_embeddings` knows in half of the cases.

    `datasets` maps names to (family, metric, metrics, classes).
    """
    random = np.random.default_rng(seed)
    directory = HERE.task(task)
    directory.mkdir(parents=True)
    about = {}
    for name, (family, metric, metrics, classes) in datasets.items():
        posts = {"train": test_posts * 2, "validation": test_posts // 2, "test": test_posts}
        multi = metric == "map"
        about[name] = {"family": family, "kind": "multi" if multi else "single", "metric": metric, "metrics": metrics}
        about[name] |= {"classes": [f"class <{i}>" for i in range(classes)], "posts": posts}
        total = sum(posts.values())
        hashtags = [[f"h{tag}" for tag in random.integers(0, 100, random.integers(0, 3))] for _ in range(total)]
        labels = random.integers(0, classes, total)
        authors = [f"u{user}" if user < 600 else None for user in random.integers(0, 620, total)]
        table = pa.table(
            {
                "post_id": [f"{name}-{i}" for i in range(total)],
                "split": [split for split, count in posts.items() for _ in range(count)],
                "text": ["a post"] * total,
                "author": authors,
                "ntus": ntus_of(SCHEME, {"author": authors, "hashtags": hashtags}),
                "labels": pa.array([[int(label)] for label in labels], pa.list_(pa.int32())),
            }
        )
        pq.write_table(table, directory / f"{name}.parquet")
    write_json(directory / "datasets.json", about)


def write_corpus(graph_posts=400):
    """A corpus: graph posts of 2020, of u0 to u39, and the test posts of all tasks in the 200 days after it."""
    end = datetime(2020, 12, 31, tzinfo=UTC)
    rows = [
        {"post_id": f"g{place}", "author": f"u{place % 40}", "created_at": end - timedelta(hours=place), "graph": True}
        for place in range(graph_posts)
    ]
    for path in sorted(HERE.data("tasks").glob("*/*.parquet")):
        table = pq.read_table(path, columns=["post_id", "author", "split"]).to_pylist()
        test = [row for row in table if row["split"] == "test"]
        for place, row in enumerate(test):
            when = end + timedelta(days=200 * place / len(test), hours=1)
            rows.append({"post_id": row["post_id"], "author": row["author"], "created_at": when, "graph": False})
    HERE.posts.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows).drop_columns(["graph"]), HERE.posts)
    pq.write_table(pa.table({"graph": [row["graph"] for row in rows]}), HERE.splits)


def write_scores(task, variants=VARIANTS, seeds=(0,), skill=None):
    """Test scores: noise that every system shares, plus a signal of the strength that `skill` gives the system."""
    skill = skill or SKILL
    datasets = sorted(HERE.task(task).glob("*.parquet"))
    for path in datasets:
        rows = [row for row in pq.read_table(path).to_pylist() if row["split"] == "test"]
        labels = np.array([row["labels"][0] for row in rows])
        truth = np.eye(labels.max() + 1, dtype=np.float32)[labels]
        shared = np.random.default_rng(1).normal(size=truth.shape)
        for variant in variants:
            for seed in seeds:
                random = np.random.default_rng([seed, len(variant)])
                directory = HERE.scores(variant, seed, task)
                directory.mkdir(parents=True, exist_ok=True)
                for system in (variant, "post-concat") if variant == "text" else (variant,):
                    noise = shared + 0.2 * random.normal(size=truth.shape)
                    scores = 1 / (1 + np.exp(-(noise + skill[system] * truth)))
                    save_file({"scores": scores.astype(np.float16)}, directory / f"{system}.{path.stem}.safetensors")


def write_pretrain(variants=VARIANTS, seeds=(0,), posts=200, factors=None):
    """Test losses on the same masks for all variants, and the metrics with a learning curve."""
    factors = factors or {"text": 1.0, "author": 0.99, "hashtag": 0.97, "author+hashtag": 0.95}
    random = np.random.default_rng(0)
    post = np.sort(random.integers(0, posts, posts * 3)).astype(np.int32)
    bits = random.gamma(2.0, 2.0, len(post))
    token = random.integers(0, 1000, len(post)).astype(np.int32)
    in_hashtag = random.random(len(post)) < 0.2
    count = 10 ** (token % 4)
    for variant in variants:
        for seed in seeds:
            directory = HERE.pretrain(variant, seed)
            directory.mkdir(parents=True)
            noise = np.random.default_rng([seed, len(variant)]).normal(1, 0.02, len(post))
            own = (bits * factors[variant] * noise).astype(np.float32)
            tensors = {"post": post, "token": token, "bits": own, "in_hashtag": in_hashtag, "train_count": count}
            save_file(tensors, directory / "test_losses.safetensors")
            curve = [4 * factors[variant] + 3 * np.exp(-step / 3) for step in range(8)]
            history = [
                {"step": 50 * step, "train_bits": bits + 0.1 if step else None, "validation_bits": bits}
                for step, bits in enumerate(curve)
            ]
            metrics = {"variant": variant, "seed": seed, "perplexity_bits": float(own.mean()), "history": history}
            write_json(HERE.metrics("pretrain", variant, seed), metrics)


def write_corpus_metrics(format="synthetic"):
    """What the report takes from the stage `corpus`."""
    span = {"first": "2020-01-01T00:00:00+00:00", "last": "2020-02-01T00:00:00+00:00"}
    write_json(HERE.metrics("corpus"), {"format": format, "posts": 1000, "authors": 50, **span})


def write_all(directory: Path, test_posts=300, seeds=(0,), format="synthetic"):
    """Everything that `evaluate` and `report` read, for three tasks of three families, under `directory`.

    Returns the section `run` of it; the caller changes into `directory` first.
    """
    assert Path.cwd() == directory
    write_corpus_metrics(format)
    write_embeddings()
    write_pretrain(seeds=seeds)
    write_task("topic", {"topic": ("Topic", "map", ["map"], 8)}, test_posts)
    write_task("hashtag", {"hashtag": ("Hashtag", "recall@10", ["recall@10", "macro_f1"], 40)}, test_posts, seed=1)
    tweeteval = {
        "irony": ("TweetEval", "f1_1", ["f1_1", "macro_f1"], 2),
        "emotion": ("TweetEval", "macro_f1", ["macro_f1"], 4),
    }
    write_task("tweeteval", tweeteval, test_posts, seed=2)
    for task in ("topic", "hashtag", "tweeteval"):
        write_scores(task, seeds=seeds)
    return run_of(("topic", "hashtag", "tweeteval"), seeds=seeds)
