"""Reading an export into raw records: a format's reader against a plain loop of the same meaning.

    python -m benchmarks.readers FORMAT [--growth]

FORMAT is a key of FORMATS. The loop is what one writes first: `json.loads` line by line, a walk through the
dictionaries, and one Arrow table. It judges nothing; ours rejects, counts and numbers records as well. A loop runs on
one core, ours on as many as there are.
"""

import hashlib
import html
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from benchmarks import raw_exports
from benchmarks.harness import Benchmark, Outcome, run
from benchmarks.raw_tweets import write_tweets
from ntulm.text import plain_text

TWEETS_PER_MEGABYTE = 475
COLUMNS = ("post_id", "created_at", "lang", "text", "author", "mentions", "hashtags", "urls", "reposted")
_REPOSTED = pa.struct([("post_id", pa.string()), ("text", pa.string()), ("hashtags", pa.list_(pa.string()))])
_LINK = re.compile(r"(?i)<a\s[^>]*>")


class Format(NamedTuple):
    """How a format is measured."""

    reader: str  # of ntulm/corpus/sources
    write: Callable[[Path, int], None]  # a file of about that many megabytes
    rows: Callable[[Any], list[tuple]]  # of COLUMNS, from a parsed line: the plain loop
    mapping: Mapping[str, Any] | None = None


def _tweets(path: Path, megabytes: int) -> None:
    write_tweets(path, megabytes * TWEETS_PER_MEGABYTE)


def _table_rows(record: Any) -> list[tuple]:
    entities = record.get("entities") or {}
    row = (
        record.get("id_str"),
        datetime.strptime(record["created_at"], "%a %b %d %H:%M:%S %z %Y").astimezone(UTC),
        record.get("lang"),
        record.get("text"),
        (record.get("user") or {}).get("id_str"),
        [one.get("id_str") for one in entities.get("user_mentions") or []],
        [one.get("text") for one in entities.get("hashtags") or []],
        [one.get("expanded_url") for one in entities.get("urls") or []],
    )
    return [(*row, None)]


def _twitter_v1_rows(record: Any) -> list[tuple]:
    def content(tweet: Any) -> tuple:
        entities = tweet["entities"]
        return (
            tweet["id_str"],
            datetime.strptime(tweet["created_at"], "%a %b %d %H:%M:%S %z %Y").astimezone(UTC),
            tweet["lang"],
            tweet["text"],
            tweet["user"]["id_str"],
            [one["id_str"] for one in entities["user_mentions"]],
            [one["text"] for one in entities["hashtags"]],
            [one["expanded_url"] for one in entities["urls"]],
        )

    original = record.get("retweeted_status")
    return [(*content(record), _reposted(content(original)) if original else None)]


def _twitter_v2_rows(page: Any) -> list[tuple]:
    def content(tweet: Any) -> tuple:
        entities = tweet.get("entities") or {}
        return (
            tweet["id"],
            datetime.fromisoformat(tweet["created_at"]),
            tweet.get("lang"),
            tweet["text"],
            tweet["author_id"],
            [one["id"] for one in entities.get("mentions") or []],
            [one["tag"] for one in entities.get("hashtags") or []],
            [one["expanded_url"] for one in entities.get("urls") or []],
        )

    included = {tweet["id"]: tweet for tweet in page["includes"].get("tweets") or []}
    rows = []
    for tweet in page["data"]:
        ids = [one["id"] for one in tweet.get("referenced_tweets") or [] if one["type"] == "retweeted"]
        original = included.get(ids[0]) if ids else None
        rows.append((*content(tweet), _reposted(content(original)) if original else None))
    return rows


def _mastodon_rows(status: Any) -> list[tuple]:
    def handle(account: Any) -> str:
        name: str = account["acct"].lower()
        return name if "@" in name else f"{name}@{account['url'].split('/')[2]}"

    def links(markup: str) -> list[str] | None:
        if "<a " not in markup:
            return None  # the text is asked
        tags = [tag for tag in _LINK.findall(markup) if not re.search(r'class="[^"]*\b(mention|hashtag)\b', tag)]
        return [html.unescape(found.group(1)) for tag in tags if (found := re.search(r'href="(https?://[^"]*)"', tag))]

    def content(one: Any) -> tuple:
        return (
            one["uri"],
            datetime.fromisoformat(one["created_at"]),
            one["language"],
            plain_text(one["content"]),
            handle(one["account"]),
            [handle(account) for account in one["mentions"]],
            [tag["name"] for tag in one["tags"]],
            links(one["content"]),
        )

    if original := status["reblog"]:
        moment = datetime.fromisoformat(status["created_at"])
        about = (status["uri"], moment, None, None, handle(status["account"]), None, None, None)
        return [(*about, _reposted(content(original)))]
    return [(*content(status), None)]


def _bluesky_rows(event: Any) -> list[tuple]:
    commit, did = event["commit"], event["did"]
    record = commit["record"]
    seen = datetime.fromtimestamp(event["time_us"] / 1e6, UTC)
    moment = min(datetime.fromisoformat(record["createdAt"]), seen)
    uri = f"at://{did}/{commit['collection']}/{commit['rkey']}"
    if commit["collection"] == "app.bsky.feed.repost":
        original = {"post_id": record["subject"]["uri"], "text": None, "hashtags": None}
        return [(uri, moment, None, None, did, None, None, None, original)]
    features = [feature for facet in record.get("facets") or [] for feature in facet["features"]]
    named = {key: [feature[key] for feature in features if key in feature] for key in ("did", "tag", "uri")}
    lang = record["langs"][0].split("-")[0].lower()
    tags, links = (named["tag"], named["uri"]) if features else (None, None)  # the text is read where there is nothing
    return [(uri, moment, lang, record["text"], did, named["did"], tags, links, None)]


def _reddit_rows(comment: Any) -> list[tuple]:
    body = comment["body"]
    users = re.findall(r"(?:^|[^\w/.-])/?u/([\w-]{3,20})", body.lower()) if "u/" in body else []
    moment = datetime.fromtimestamp(int(comment["created_utc"]), UTC)
    return [(comment["name"], moment, None, body.strip(), comment["author"].lower(), users, None, None, None)]


def _reposted(content: tuple) -> dict[str, Any]:
    return {"post_id": content[0], "text": content[3], "hashtags": content[6]}


FORMATS = {
    "table": Format(
        "table",
        _tweets,
        _table_rows,
        {
            "post_id": "id_str",
            "created_at": "created_at",
            "time_format": "%a %b %d %H:%M:%S %z %Y",
            "lang": "lang",
            "text": "text",
            "author": "user.id_str",
            "mentions": "entities.user_mentions.id_str",
            "hashtags": "entities.hashtags.text",
            "urls": "entities.urls.expanded_url",
        },
    ),
    "twitter_v1": Format("twitter_v1", _tweets, _twitter_v1_rows),
    "twitter_v2": Format("twitter_v2", partial(raw_exports.write, shape=raw_exports.twitter_v2), _twitter_v2_rows),
    "mastodon": Format("mastodon", partial(raw_exports.write, shape=raw_exports.mastodon), _mastodon_rows),
    "bluesky": Format("bluesky", partial(raw_exports.write, shape=raw_exports.bluesky), _bluesky_rows),
    "reddit": Format("reddit", partial(raw_exports.write, shape=raw_exports.reddit), _reddit_rows),
}


def ours(of: Format, folder: Path) -> Outcome:
    """The reader of the format, all its batches."""
    from ntulm.corpus.config import TableMapping
    from ntulm.corpus.sources import formats

    mapping = None if of.mapping is None else TableMapping.model_validate(of.mapping)
    reader = formats.source(of.reader)
    started = time.perf_counter()
    with formats.opened(folder / "export", folder / "spill") as export:
        batches = list(reader.read(export.files, mapping))
    seconds = time.perf_counter() - started
    return _outcome(folder, seconds, pa.Table.from_batches(batches).select(COLUMNS))


def loop(of: Format, folder: Path) -> Outcome:
    """json.loads, line by line."""
    started = time.perf_counter()
    with (folder / "export").open(encoding="utf-8") as file:
        rows = [row for line in file for row in of.rows(json.loads(line))]
    table = pa.table(dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True)))
    return _outcome(folder, time.perf_counter() - started, table)


def same(evidence: Mapping[str, Any]) -> str:
    """The same values in every column."""
    first, *others = evidence.values()
    assert all(other == first for other in others), evidence
    return f"the same {first['rows']:,} rows, {first['digest'][:12]}"


def _outcome(folder: Path, seconds: float, table: pa.Table) -> Outcome:
    digest = hashlib.sha256()
    for row in _rows(table):
        digest.update(json.dumps(row).encode())
    size = (folder / "export").stat().st_size
    return Outcome(seconds, size / 1e6, {"rows": len(table), "digest": digest.hexdigest()}, moved=size)


def _rows(table: pa.Table) -> Iterator[list[Any]]:
    for batch in table.to_batches():
        for row in batch.to_pylist():
            yield [_comparable(value) for value in row.values()]


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return [value[field.name] for field in _REPOSTED]
    return value.timestamp() if isinstance(value, datetime) else value


def benchmark(name: str) -> Benchmark:
    """The benchmark of one format."""
    of = FORMATS[name]
    return Benchmark(
        module="benchmarks.readers",
        arguments=(name,),
        title=f"Reading: {name}",
        unit="MB",
        prepare=lambda folder, size: of.write(folder / "export", size),
        sides={"ours": lambda folder: ours(of, folder), "json loop": lambda folder: loop(of, folder)},
        same=same,
        size=200,
        growth=(50, 200, 800),
        limit="parsing JSON, and making the values into types.",
    )


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in FORMATS:
        sys.exit(f"usage: python -m benchmarks.readers FORMAT [--growth]; FORMAT is one of {', '.join(FORMATS)}")
    run(benchmark(sys.argv.pop(1)))
