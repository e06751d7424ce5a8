"""Seeded exports of other formats, made of the objects of `benchmarks/raw_tweets.py` and of what they never read."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.raw_tweets import PROFILE, REPOSTS, TIME_FORMAT, tweet

PAGE = 100  # posts of a page of Twitter's API v2
AVATAR = "https://files.example.com/accounts/avatars/000/000/001/original/0123456789abcdef.png"


def write(path: Path, megabytes: int, shape: Callable[[Iterator[dict]], Iterator[dict]], seed: int = 0) -> None:
    """JSON lines of about that size: what `shape` makes of made-up tweets."""
    random = np.random.default_rng(seed)
    endless = (_with_repost(place, random) for place in range(1 << 40))
    size = 0
    with path.open("w", encoding="utf-8") as file:
        for record in shape(endless):
            size += file.write(json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n")
            if size >= megabytes * 1_000_000:
                return


def _with_repost(place: int, random: np.random.Generator) -> dict[str, Any]:
    made = tweet(place, random)
    if random.random() < REPOSTS:
        made["retweeted_status"] = tweet((1 << 40) + place, random)
    return made


def moment(made: dict[str, Any]) -> datetime:
    """When a tweet was written."""
    return datetime.strptime(made["created_at"], TIME_FORMAT).replace(tzinfo=UTC)


def iso(made: dict[str, Any]) -> str:
    """The same, as the newer interfaces write it."""
    return f"{moment(made):%Y-%m-%dT%H:%M:%S}.000Z"


def twitter_v2(tweets: Iterator[dict]) -> Iterator[dict]:
    """Pages of the API, as twarc2 writes them."""
    while True:
        page = [next(tweets) for _ in range(PAGE)]
        originals = [made["retweeted_status"] for made in page if "retweeted_status" in made]
        users = {one["user"]["id_str"]: _user(one["user"]) for one in [*page, *originals]}
        yield {
            "data": [_tweet(made) for made in page],
            "includes": {"users": list(users.values()), "tweets": [_tweet(one) for one in originals]},
            "meta": {"result_count": PAGE, "newest_id": page[0]["id_str"], "oldest_id": page[-1]["id_str"]},
        }


def _tweet(made: dict[str, Any]) -> dict[str, Any]:
    entities = made["entities"]
    counts = dict.fromkeys(["retweet_count", "reply_count", "like_count", "quote_count"], 0)
    found: dict[str, Any] = {
        "id": made["id_str"],
        "created_at": iso(made),
        "text": made["text"],
        "author_id": made["user"]["id_str"],
        "lang": made["lang"],
        "conversation_id": made["id_str"],
        "public_metrics": counts,
        "possibly_sensitive": False,
        "reply_settings": "everyone",
        "source": "an app",
        "context_annotations": [{"domain": {"id": "46", "name": "Brand"}, "entity": {"id": "1", "name": "Thing"}}],
        "entities": {
            "hashtags": [{"start": 64, "end": 80, "tag": one["text"]} for one in entities["hashtags"]],
            "mentions": [
                {"start": 0, "end": 2, "username": "x", "id": one["id_str"]} for one in entities["user_mentions"]
            ],
            "urls": [{"start": 1, "end": 9, **one} for one in entities["urls"]],
        },
    }
    if original := made.get("retweeted_status"):
        found["referenced_tweets"] = [{"type": "retweeted", "id": original["id_str"]}]
        found["text"] = f"RT @x: {original['text']}"[:140]
    return found


def _user(user: dict[str, Any]) -> dict[str, Any]:
    rest = {key: PROFILE[key] for key in ("description", "location", "verified", "protected")}
    return {"id": user["id_str"], "username": user["screen_name"], "name": user["name"], **rest}


def mastodon(tweets: Iterator[dict]) -> Iterator[dict]:
    """Statuses of the API, one per line, boosts among them."""
    for made in tweets:
        status = _status(made)
        if original := made.get("retweeted_status"):
            status |= {"content": "", "tags": [], "mentions": [], "reblog": _status(original)}
        yield status


def _status(made: dict[str, Any]) -> dict[str, Any]:
    entities, name = made["entities"], made["user"]["screen_name"]
    address = f"https://social.example/@{name}"
    words = "".join(f"<p>{line}</p>" for line in made["text"].split(" so"))
    for one in entities["hashtags"]:
        link = f'<a href="https://social.example/tags/{one["text"]}" class="mention hashtag" rel="tag">'
        words = words.replace(f"#{one['text']}", f"{link}#<span>{one['text']}</span></a>", 1)
    for one in entities["urls"]:
        link = f'<a href="{one["expanded_url"]}" rel="nofollow noopener"><span class="invisible">http://</span>'
        words = words.replace(one["url"], f'{link}<span class="ellipsis">{one["url"][7:]}</span></a>', 1)
    return {
        "id": made["id_str"],
        "created_at": iso(made),
        "in_reply_to_id": None,
        "in_reply_to_account_id": None,
        "sensitive": False,
        "spoiler_text": "",
        "visibility": "public",
        "language": made["lang"],
        "uri": f"https://social.example/users/{name}/statuses/{made['id_str']}",
        "url": f"{address}/{made['id_str']}",
        **dict.fromkeys(["replies_count", "reblogs_count", "favourites_count"], 0),
        "content": words,
        "reblog": None,
        "account": {
            "id": made["user"]["id_str"],
            "username": name,
            "acct": name,
            "display_name": made["user"]["name"],
            "note": f"<p>{PROFILE['description']}</p>",
            "url": address,
            "uri": f"https://social.example/users/{name}",
            **dict.fromkeys(["avatar", "avatar_static", "header", "header_static"], AVATAR),
            "fields": [{"name": "Home", "value": "<p>here</p>", "verified_at": None}],
        },
        "media_attachments": [],
        "mentions": [
            {"id": one["id_str"], "username": f"n{one['id_str']}", "url": f"https://social.example/@n{one['id_str']}",
             "acct": f"n{one['id_str']}"} for one in entities["user_mentions"]
        ],
        "tags": [
            {"name": one["text"], "url": f"https://social.example/tags/{one['text']}"} for one in entities["hashtags"]
        ],
        "emojis": [],
        "card": None,
        "poll": None,
    }  # fmt: skip


def bluesky(tweets: Iterator[dict]) -> Iterator[dict]:
    """Events of Jetstream: posts, and reposts of other posts."""
    for made in tweets:
        yield _event(made, "app.bsky.feed.post", _record(made))
        if original := made.get("retweeted_status"):
            subject = {"cid": "bafyreib2rxk3rh6kzwq", "uri": _uri(original)}
            record = {"$type": "app.bsky.feed.repost", "createdAt": iso(made), "subject": subject}
            yield _event(made, "app.bsky.feed.repost", record)


def _uri(made: dict[str, Any]) -> str:
    return f"at://did:plc:{made['user']['id_str']:0>24}/app.bsky.feed.post/{made['id_str']:0>13}"


def _event(made: dict[str, Any], collection: str, record: dict[str, Any]) -> dict[str, Any]:
    seen = moment(made) + timedelta(seconds=1)
    return {
        "did": f"did:plc:{made['user']['id_str']:0>24}",
        "time_us": int(seen.timestamp() * 1_000_000),
        "kind": "commit",
        "commit": {
            "rev": "3l3qo2vutsw2b",
            "operation": "create",
            "collection": collection,
            "rkey": f"{made['id_str']:0>13}",
            "record": record,
            "cid": "bafyreidwaivazkwu67xztlmuobx35hs2lnfh3kolmgfmucldvhd3sgzcqi",
        },
    }


def _record(made: dict[str, Any]) -> dict[str, Any]:
    text, facets = made["text"], []
    for one in made["entities"]["hashtags"]:
        facets.append(_facet(text, f"#{one['text']}", {"$type": "app.bsky.richtext.facet#tag", "tag": one["text"]}))
    for one in made["entities"]["urls"]:
        link = {"$type": "app.bsky.richtext.facet#link", "uri": one["expanded_url"]}
        facets.append(_facet(text, one["url"], link))
    for one in made["entities"]["user_mentions"]:
        did = {"$type": "app.bsky.richtext.facet#mention", "did": f"did:plc:{one['id_str']:0>24}"}
        facets.append(_facet(text, "so", did))
    return {"$type": "app.bsky.feed.post", "createdAt": iso(made), "langs": ["en"], "text": text, "facets": facets}


def _facet(text: str, part: str, feature: dict[str, Any]) -> dict[str, Any]:
    start = len(text[: max(text.find(part), 0)].encode())
    return {"features": [feature], "index": {"byteStart": start, "byteEnd": start + len(part.encode())}}


def reddit(tweets: Iterator[dict]) -> Iterator[dict]:
    """Comments, as the dumps have them."""
    flags = dict.fromkeys(["archived", "can_gild", "collapsed", "edited", "is_submitter", "locked", "no_follow"], False)
    for made in tweets:
        yield {
            "id": made["id_str"],
            "author": made["user"]["screen_name"],
            "author_fullname": f"t2_{made['user']['id_str']}",
            "body": made["text"],
            "created_utc": int(moment(made).timestamp()),
            "link_id": "t3_abc",
            "name": f"t1_{made['id_str']}",
            "parent_id": f"t1_{made['id'] // 2}",
            "permalink": f"/r/place/comments/abc/title/{made['id_str']}/",
            "subreddit": f"place{made['id'] % 50}",
            "subreddit_id": "t5_xyz",
            "subreddit_type": "public",
            "score": 1,
            "author_flair_richtext": [],
            "all_awardings": [],
            **flags,
        }
