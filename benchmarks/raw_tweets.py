"""Seeded raw posts as the Twitter API v1.1 gives them: about 3 kB an object, most of it never read."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

REPOSTS = 0.3  # of the objects embed another one
TIME_FORMAT = "%a %b %d %H:%M:%S +0000 %Y"
WORDS = [
    f"{first}{second}" for first in ("ba", "ke", "lo", "mi", "ru", "ta") for second in ("n", "rd", "st", "ve", "x")
]
PROFILE: dict[str, Any] = {
    **dict.fromkeys(["protected", "verified", "contributors_enabled", "is_translator", "geo_enabled"], False),
    **dict.fromkeys(["utc_offset", "time_zone", "following", "follow_request_sent", "notifications", "url"]),
    **dict.fromkeys(
        ["profile_background_image_url", "profile_image_url"], "http://pbs.example.com/images/themes/1.png"
    ),
    **dict.fromkeys(["profile_banner_url", "profile_image_url_https"], "https://pbs.example.com/banners/1/1382490161"),
    **dict.fromkeys(["profile_link_color", "profile_sidebar_fill_color", "profile_text_color"], "DDEEF6"),
    "location": "Staten Island, New York",
    "description": "Reads, writes, and \u201cthinks\u201d about it \u2014 in that order",
}
REST: dict[str, Any] = {
    "source": '<a href="http://example.com/download" rel="nofollow">an app</a>',
    "truncated": False,
    **dict.fromkeys(["in_reply_to_status_id", "in_reply_to_user_id", "in_reply_to_screen_name", "geo", "coordinates"]),
    **dict.fromkeys(["place", "contributors"]),
    **dict.fromkeys(["favorited", "retweeted", "possibly_sensitive"], False),
}


def write_tweets(path: Path, number: int, seed: int = 0) -> None:
    """One object per line; a tenth of the reposts embed the same original as another."""
    random = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8") as file:
        originals: list[dict[str, Any]] = []
        for place in range(number):
            made = tweet(place, random)
            if random.random() < REPOSTS:
                if not originals or random.random() < 0.9:
                    originals.append(tweet(number + place, random))
                original = originals[-1]
                made |= {"retweeted_status": original, "text": f"RT @x: {original['text']}"[:140]}
                made["entities"] = original["entities"]
            file.write(json.dumps(made, separators=(",", ":")) + "\n")


def tweet(number: int, random: np.random.Generator) -> dict[str, Any]:
    """One object without an embedded one."""
    places = random.integers(len(WORDS), size=12)
    tags = [f"Tag{place}" for place in (500 * random.random(random.integers(3)) ** 2).astype(int)]
    mentioned = [f"{place}" for place in random.integers(5000, size=random.integers(3))]
    links = [f"http://t.co/{number:x}"] * int(random.random() < 0.4)
    words = [*(WORDS[place] for place in places), *(f"#{tag}" for tag in tags), *links]
    stamp = int(random.integers(365 * 86400))
    return {
        "created_at": (datetime(2015, 1, 1, tzinfo=UTC) + timedelta(seconds=stamp)).strftime(TIME_FORMAT),
        "id": number,
        "id_str": str(number),
        "text": " ".join([*words, "caf\u00e9 &amp; more" if number % 4 == 0 else "so"]),
        "user": user(str(int(20_000 * random.random() ** 2))),
        "entities": {
            "hashtags": [{"text": tag, "indices": [64, 80]} for tag in tags],
            "symbols": [],
            "urls": [{"url": link, "expanded_url": f"{link}/long", "indices": [112, 134]} for link in links],
            "user_mentions": [{"screen_name": "x", "name": "X", "id": int(one), "id_str": one} for one in mentioned],
        },
        "retweet_count": 0,
        "lang": "en",
        **REST,
    }


def user(key: str) -> dict[str, Any]:
    """An author."""
    counts = dict.fromkeys(["followers_count", "friends_count", "listed_count", "statuses_count"], 105)
    created = "Sat Sep 14 19:34:05 +0000 2013"
    return {"id": int(key), "id_str": key, "name": f"Name {key}", "screen_name": f"n{key}", **counts, **PROFILE,
            "created_at": created}  # fmt: skip
