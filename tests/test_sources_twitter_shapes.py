"""Twitter's exports in rarer shapes: what their posts, engagements and counts become."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntulm.corpus import records
from ntulm.corpus.records import read_export

Record = dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """What an export became."""

    posts: dict[str, Record]
    counts: dict[str, int]
    engagements: list[tuple[str, str]]
    left_out: dict[str, int]
    rejects: dict[str, int]


def corpus(path: Path, expected: str) -> Corpus:
    with read_export(path, "auto", None, [], "id", path.parent / "spill") as reader:
        assert reader.detection.format == expected
        told = {
            column: {reason: number for reason, number, _, _ in records.reasons(reader.connection, column)}
            for column in ("left_out", "reject")
        }
        posts = reader.connection.sql("FROM post ORDER BY post_id").to_arrow_table().to_pylist()
        engagements = reader.connection.sql('SELECT "user", post_id FROM engagement ORDER BY ALL').fetchall()
        by_id = {post["post_id"]: post for post in posts}
        return Corpus(by_id, reader.counts, engagements, told["left_out"], told["reject"])


def written(path: Path, *records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


# Version 2


def tweet(number: int, by: int = 1, text: str = "good beans", **changes: Any) -> Record:
    return {
        "id": str(number),
        "author_id": str(by),
        "created_at": f"2021-05-10T17:30:{number:02}.000Z",
        "text": text,
        "lang": "en",
        "conversation_id": str(number),
        **changes,
    }


def retweet(number: int, by: int, original: int, text: str) -> Record:
    return tweet(number, by, text, referenced_tweets=[{"type": "retweeted", "id": str(original)}])


def page(*tweets: Record, **includes: Any) -> Record:
    return {"data": list(tweets), "includes": includes}


WHOLE = tweet(9, 2, "a long story of #beans and #coffee")


def test_an_original_is_read_whole_from_whichever_page_has_it(tmp_path):
    cut = [retweet(11, 1, 9, "RT @user2: a long story of #beans and #cof…")]
    partial = page(*cut, users=[{"id": "2", "username": "user2"}])
    whole = page(retweet(12, 3, 9, cut[0]["text"]), tweets=[WHOLE])
    for name, pages in {"before": [partial, whole], "after": [whole, partial]}.items():
        found = corpus(written(tmp_path / name, *pages), "twitter_v2")
        (post,) = found.posts.values()
        assert (post["author"], post["text"], post["hashtags"]) == ("2", WHOLE["text"], ["beans", "coffee"])
        assert post["created_at"].second == 9
        assert found.engagements == [("1", "9"), ("3", "9")]


def test_retweets_do_not_bring_back_the_posts_of_protected_accounts(tmp_path):
    users = [{"id": "2", "username": "User2", "protected": True}]
    known = page(retweet(11, 1, 9, "RT @user2: a secret"), users=users, tweets=[WHOLE])
    by_name = page(retweet(12, 1, 9, "RT @user2: a secret"), users=users)
    flat = {**WHOLE, "type": "retweeted", "author": users[0]}
    within = tweet(13, 1, "RT @user2: a secret", referenced_tweets=[flat])
    quoting = tweet(14, 1, "see this", referenced_tweets=[{**flat, "type": "quoted"}])
    found = corpus(written(tmp_path / "a", known, by_name, within, quoting), "twitter_v2")
    assert list(found.posts) == ["14"]
    assert found.left_out == {"visibility: protected": 3}
    assert found.engagements == []


# Version 1


def status(number: int, by: int = 1, text: str = "good beans", **changes: Any) -> Record:
    return {
        "id": number,
        "id_str": str(number),
        "created_at": f"Wed Mar 31 14:00:{number:02} +0000 2021",
        "text": text,
        "lang": "en",
        "user": {"id": by, "id_str": str(by), "screen_name": f"user{by}", "protected": False},
        "entities": {"hashtags": [], "urls": [], "user_mentions": [], "symbols": []},
        **changes,
    }


def test_retweets_of_protected_accounts_in_version_1(tmp_path):
    secret = status(9, 2, "a secret")
    secret["user"]["protected"] = True
    open_one = status(12, text="RT @user3: for all", retweeted_status=status(8, 3, "for all"))
    found = corpus(written(tmp_path / "a", status(11, text="RT @x", retweeted_status=secret), open_one), "twitter_v1")
    assert list(found.posts) == ["8"]
    assert found.left_out == {"visibility: protected": 1}
