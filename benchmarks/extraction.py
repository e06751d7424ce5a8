"""Raw Twitter v1.1 JSON lines to posts and reposts: the stage `corpus` against a plain loop, pandas and polars.

    python -m benchmarks.extraction [--growth]

Every side picks id, time, language, text, author, mentions, hashtags and links, takes the original of a repost for a
post and the repost for an engagement, resolves HTML entities, brings hashtags to one form, and keeps a post once, by
its own record where there is one. Ours does more: it judges every record and counts fates.
"""

import hashlib
import html
import json
import time
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness import Benchmark, Outcome, run
from benchmarks.raw_tweets import TIME_FORMAT, write_tweets

TWEETS_PER_MEGABYTE = 475
CHUNK = 20_000  # rows of pandas at a time
ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'"}


def prepare(folder: Path, size: int) -> None:
    """One file of about that many megabytes."""
    write_tweets(folder / "tweets.jsonl", size * TWEETS_PER_MEGABYTE)


def ours(folder: Path) -> Outcome:
    """What `corpus.run` does up to its tables of posts and engagements."""
    from ntulm.corpus.records import read_export

    started = time.perf_counter()
    export = read_export(folder / "tweets.jsonl", "twitter_v1", None, [], "id", folder / "spill")
    with export as reader:
        connection = reader.connection
        seconds = time.perf_counter() - started
        posts = connection.execute(
            "SELECT post_id, epoch(created_at)::BIGINT, lang, text, author, mentions, hashtags, urls FROM post"
        ).fetchall()
        reposts = connection.execute('SELECT "user", post_id, epoch(created_at)::BIGINT FROM engagement').fetchall()
    return _outcome(folder, seconds, posts, reposts)


def loop(folder: Path) -> Outcome:
    """json.loads, line by line."""
    started = time.perf_counter()
    posts: dict[str, tuple] = {}
    recovered: dict[str, tuple] = {}
    reposts: dict[str, tuple] = {}
    with (folder / "tweets.jsonl").open(encoding="utf-8") as file:
        for line in file:
            tweet = json.loads(line)
            if original := tweet.get("retweeted_status"):
                recovered.setdefault(original["id_str"], _content(original))
                repost = (tweet["user"]["id_str"], original["id_str"], _seconds(tweet["created_at"]))
                reposts.setdefault(tweet["id_str"], repost)
            else:
                posts.setdefault(tweet["id_str"], _content(tweet))
    posts = recovered | posts
    return _outcome(folder, time.perf_counter() - started, posts.values(), reposts.values())


def pandas(folder: Path) -> Outcome:
    """read_json in chunks; columns where there are any, functions where there are objects."""
    import pandas as pd

    started = time.perf_counter()
    own, embedded, reposts = [], [], []
    options: Any = {"lines": True, "chunksize": CHUNK, "dtype": False, "convert_dates": False}
    for chunk in pd.read_json(folder / "tweets.jsonl", **options):
        is_repost = chunk["retweeted_status"].notna()
        originals = pd.DataFrame(chunk.loc[is_repost, "retweeted_status"].tolist())
        own.append(_frame(chunk[~is_repost]))
        embedded.append(_frame(originals))
        repost = {
            "record": chunk.loc[is_repost, "id_str"].to_numpy(),
            "user": chunk.loc[is_repost, "user"].map(lambda user: user["id_str"]).to_numpy(),
            "post_id": originals["id_str"].to_numpy(),
            "created_at": _epochs(chunk.loc[is_repost, "created_at"]).to_numpy(),
        }
        reposts.append(pd.DataFrame(repost))
    posts = pd.concat([*own, *embedded]).drop_duplicates("post_id")  # own records stand first
    engagements = pd.concat(reposts).drop_duplicates("record").drop(columns="record")
    seconds = time.perf_counter() - started
    return _outcome(folder, seconds, posts.itertuples(index=False), engagements.itertuples(index=False))


def polars(folder: Path) -> Outcome:
    """read_ndjson with a schema, and expressions."""
    import polars as pl

    started = time.perf_counter()
    entities = {
        "hashtags": pl.List(pl.Struct({"text": pl.String})),
        "urls": pl.List(pl.Struct({"expanded_url": pl.String})),
        "user_mentions": pl.List(pl.Struct({"id_str": pl.String})),
    }
    names = ("id_str", "created_at", "lang", "text")
    tweet: dict[str, Any] = dict.fromkeys(names, pl.String)
    tweet |= {"user": pl.Struct({"id_str": pl.String}), "entities": pl.Struct(entities)}
    table = pl.read_ndjson(folder / "tweets.jsonl", schema={**tweet, "retweeted_status": pl.Struct(tweet)})
    is_repost = pl.col("retweeted_status").struct.field("id_str").is_not_null()
    reposted = table.filter(is_repost)
    originals = reposted.select(pl.col("retweeted_status").struct.unnest())
    posts = pl.concat([_columns(table.filter(~is_repost)), _columns(originals)])
    posts = posts.unique("post_id", keep="first", maintain_order=True)
    reposts = reposted.unique("id_str", keep="first", maintain_order=True).select(
        pl.col("user").struct.field("id_str").alias("user"),
        pl.col("retweeted_status").struct.field("id_str").alias("post_id"),
        _moment(pl.col("created_at")),
    )
    return _outcome(folder, time.perf_counter() - started, posts.iter_rows(), reposts.iter_rows())


def same(evidence: Mapping[str, Any]) -> str:
    """The same posts with the same entities, and the same reposts."""
    first, *others = evidence.values()
    assert all(other == first for other in others), evidence
    return f"the same {first['posts']:,} posts and {first['reposts']:,} reposts, {first['digest'][:12]}"


def _content(tweet: Mapping[str, Any]) -> tuple:
    entities, text = tweet["entities"], tweet["text"]
    return (
        tweet["id_str"],
        _seconds(tweet["created_at"]),
        tweet["lang"],
        html.unescape(text) if "&" in text else text,
        tweet["user"]["id_str"],
        _distinct(one["id_str"] for one in entities["user_mentions"]),
        _distinct(_form(one["text"]) for one in entities["hashtags"]),
        _distinct(one["expanded_url"] for one in entities["urls"]),
    )


def _frame(tweets: Any) -> Any:
    """A data frame of contents from one of tweets."""
    import pandas as pd

    def items(field: str, key: str) -> Any:
        return tweets["entities"].map(lambda entities: _distinct(one[key] for one in entities[field]))

    columns = {
        "post_id": tweets["id_str"],
        "created_at": _epochs(tweets["created_at"]),
        "lang": tweets["lang"],
        "text": tweets["text"].map(html.unescape),
        "author": tweets["user"].map(lambda user: user["id_str"]),
        "mentions": items("user_mentions", "id_str"),
        "hashtags": items("hashtags", "text").map(lambda tags: _distinct(_form(tag) for tag in tags)),
        "urls": items("urls", "expanded_url"),
    }
    return pd.DataFrame(columns)


def _epochs(times: Any) -> Any:
    import pandas as pd

    moments = pd.to_datetime(times, format=TIME_FORMAT, utc=True)
    return (moments - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(seconds=1)


def _columns(tweets: Any) -> Any:
    """The same in polars."""
    import polars as pl

    def items(field: str, key: str) -> Any:
        every = pl.col("entities").struct.field(field)
        return every.list.eval(pl.element().struct.field(key)).list.unique(maintain_order=True)

    tags = items("hashtags", "text").list.eval(pl.element().str.normalize("NFKC").str.to_lowercase())
    return tweets.select(
        pl.col("id_str").alias("post_id"),
        _moment(pl.col("created_at")),
        "lang",
        pl.col("text").str.replace_many(ENTITIES),
        pl.col("user").struct.field("id_str").alias("author"),
        items("user_mentions", "id_str").alias("mentions"),
        tags.list.unique(maintain_order=True).alias("hashtags"),
        items("urls", "expanded_url").alias("urls"),
    )


def _moment(column: Any) -> Any:
    return column.str.to_datetime(TIME_FORMAT).dt.epoch("s").alias("created_at")


def _seconds(written: str) -> int:
    return int(datetime.strptime(written, TIME_FORMAT).replace(tzinfo=UTC).timestamp())


def _form(tag: str) -> str:
    return unicodedata.normalize("NFKC", tag).casefold()


def _distinct(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _outcome(folder: Path, seconds: float, posts: Iterable[Any], reposts: Iterable[Any]) -> Outcome:
    rows = [sorted(json.dumps([*row]) for row in table) for table in (posts, reposts)]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    size = (folder / "tweets.jsonl").stat().st_size
    evidence = {"posts": len(rows[0]), "reposts": len(rows[1]), "digest": digest}
    return Outcome(seconds, size / 1e6, evidence, moved=size)


BENCHMARK = Benchmark(
    module="benchmarks.extraction",
    title="Extraction",
    unit="MB",
    prepare=prepare,
    sides={"ours": ours, "json loop": loop, "pandas": pandas, "polars": polars},
    same=same,
    size=400,
    growth=(100, 400, 1600),
    limit="two fifths of the processor time is parsing JSON, a third judging records and bringing them to one form, "
    "the rest reading lines and what the tables keep.",
)

if __name__ == "__main__":
    run(BENCHMARK)
