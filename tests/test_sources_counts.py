"""The table of counts in docs/sources.md: each format's test export, detected and read at the first go."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import repositories
import test_sources_bluesky as bluesky
import test_sources_mastodon as mastodon
import test_sources_reddit as reddit
import test_sources_twitter as twitter

from ntulm.corpus.config import TableMapping
from ntulm.corpus.records import FATES, read_export

PAGE = Path(__file__).parent.parent / "docs/sources.md"
MAPPING = TableMapping(created_at="at", text="text", author="by", repost_flag="copy", visibility="seen")


def lines(folder: Path, *records: Any) -> Path:
    file = folder / "export.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return file


def v1_objects(folder: Path) -> Path:
    def tweet(number: int, **changes: Any) -> dict[str, Any]:
        own = {"id_str": str(number), "id": number, "lang": "en", "text": f"beans, part {number}"}
        own |= {"created_at": "Sat Feb 18 12:33:11 +0000 2023", "user": {"id_str": "1", "screen_name": "one"}}
        return own | {"entities": {"hashtags": [], "user_mentions": [], "urls": [], "symbols": []}, **changes}

    notices = [{"delete": {"status": {"id_str": "7"}}}, {"limit": {"track": 3}}]
    hidden = tweet(3, user={"id_str": "2", "protected": True})
    return lines(folder, tweet(1), tweet(2, retweeted_status=tweet(9)), tweet(1), hidden, *notices, {"odd": 1})


def v2_pages(folder: Path) -> Path:
    original = twitter.tweet(90, 2, twitter.WHOLE, entities=twitter.WHOLE_TAGS)
    users = [twitter.user(1), twitter.user(2), twitter.user(3, protected=True)]
    page = twitter.page(twitter.tweet(1), twitter.retweet(2, 90), twitter.tweet(3, 3), users=users, referred=[original])
    return lines(folder, page, {"meta": {"result_count": 0}})


def v2_flat(folder: Path) -> Path:
    original = twitter.tweet(90, 2, twitter.WHOLE)
    copy = twitter.retweet(2, 90) | {"referenced_tweets": [{"type": "retweeted", **original}]}
    return lines(
        folder, twitter.tweet(1), copy, twitter.user(1) | {"name": "One", "created_at": "2020-01-01T00:00:00.000Z"}
    )


def mastodon_statuses(folder: Path) -> Path:
    boost = mastodon.status(3, "", mastodon.BOB, reblog=mastodon.status(9))
    hidden = [mastodon.status(4, visibility="direct"), mastodon.status(5, visibility="private")]
    picture = mastodon.status(6, "", media_attachments=[{"id": "1"}])
    return lines(folder, mastodon.status(1), mastodon.status(2), boost, *hidden, picture, {"odd": 1})


def jetstream(folder: Path) -> Path:
    posts = [bluesky.event(bluesky.record(f"hello {key}"), rkey=key) for key in ("3ka", "3kc")]
    like = bluesky.event(bluesky.subject("like"), "like", rkey="3kd")
    copy = bluesky.event(bluesky.subject("repost"), "repost", rkey="3ke")
    gone = bluesky.event(None, operation="delete", rkey="3kc")
    follow = bluesky.event({"$type": "app.bsky.graph.follow"}, "app.bsky.graph.follow", rkey="3kf")
    liked = bluesky.view(bluesky.record("said by Bob"))
    return lines(folder, *posts, {"kind": "commit", **_as_event(liked)}, like, copy, gone, follow)


def _as_event(view: dict[str, Any]) -> dict[str, Any]:
    return {**bluesky.event(view["record"], rkey="3kb"), "did": bluesky.BOB}


def repository(folder: Path) -> Path:
    records = {
        "app.bsky.actor.profile/self": {"$type": "app.bsky.actor.profile", "displayName": "Ann"},
        "app.bsky.feed.like/3kd": bluesky.subject("like"),
        "app.bsky.feed.post/3ka": bluesky.record("hello 3ka"),
        "app.bsky.feed.post/3kc": bluesky.record("hello 3kc"),
        "app.bsky.feed.repost/3ke": bluesky.subject("repost"),
    }
    file = folder / "repo.car"
    file.write_bytes(repositories.repository(records))
    return file


def views(folder: Path) -> Path:
    return lines(folder, bluesky.view(bluesky.record("said by Bob")), bluesky.view(bluesky.record("", embed={})))


def dumps(folder: Path) -> Path:
    removed = reddit.comment(2, body="[removed]")
    private = reddit.submission(3, subreddit_type="private")
    copy = reddit.submission(2, title="What flies 1", crosspost_parent_list=[reddit.submission(1)], is_self=False)
    return lines(folder, reddit.submission(1), reddit.comment(1), removed, private, copy)


def table(folder: Path) -> Path:
    rows = ["2024-05-01,a first post,ann,0,public", "2024-05-02,a second one,bob,0,", "2024-05-03,a first post,bob,1,"]
    rows += ["2024-05-04,for friends,ann,0,private", "yesterday,no date,ann,0,"]
    file = folder / "export.csv"
    file.write_text("\n".join(["at,text,by,copy,seen", *rows]) + "\n", encoding="utf-8")
    return file


EXPORTS: dict[tuple[str, str], Callable[[Path], Path]] = {
    ("twitter_v1", "objects and notices"): v1_objects,
    ("twitter_v2", "pages"): v2_pages,
    ("twitter_v2", "flattened"): v2_flat,
    ("twitter_v2", "academictwitteR's folder"): twitter.academic_folder,
    ("twitter_archive", "folder"): twitter.archive,
    ("bluesky", "Jetstream"): jetstream,
    ("bluesky", "post views"): views,
    ("bluesky", "repository (CAR)"): repository,
    ("mastodon", "statuses"): mastodon_statuses,
    ("mastodon", "archive"): lambda folder: mastodon.archive(folder / "archive", mastodon.ANNS),
    ("reddit", "dump"): dumps,
    ("table", "CSV"): table,
}


def counted() -> dict[tuple[str, str], list[int]]:
    """The rows of the page: format and export -> read and the fates."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^\| `(\w+)` \| ([^|]+) \|((?: \d+ \|){7})$", text, re.MULTILINE)
    return {(name, export): [int(one) for one in re.findall(r"\d+", counts)] for name, export, counts in found}


@pytest.mark.parametrize("case", EXPORTS, ids=" ".join)
def test_the_page_says_what_becomes_of_the_records(tmp_path, case):
    mapping = MAPPING if case[0] == "table" else None
    path = EXPORTS[case](tmp_path)
    with read_export(path, "auto", mapping, [], "id", tmp_path.parent / "spill") as export:
        assert export.detection.format == case[0]
        assert [export.counts[name] for name in ("read", *FATES)] == counted()[case]


def test_the_page_has_no_other_rows():
    assert counted().keys() == EXPORTS.keys()
