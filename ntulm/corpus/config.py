"""The section `corpus` of params.yaml."""

from typing import Literal

from ntulm.section import Count, Cut, Section, Share


class TableMapping(Section):
    """Which column of a table, or which path in JSON and nested Parquet, is what.

    The one section of which keys may be left out: a mapping is a fact of somebody's export, not a setting of ours, so a
    key that is left out has one meaning: the table has no such column.
    """

    post_id: str | None = None
    created_at: str
    time_format: str | None = None
    text: str
    author: str
    author_handle: str | None = None  # where `author` is an id: what others call the author in mentions
    lang: str | None = None
    community: str | None = None
    visibility: str | None = None
    reply_to: str | None = None  # a user
    reply_to_post: str | None = None
    quoted: str | None = None  # a user
    quoted_post: str | None = None
    repost_flag: str | None = None
    reposted_id: str | None = None
    reposted_author: str | None = None
    favorited_by: str | None = None
    hashtags: str | None = None
    mentions: str | None = None
    urls: str | None = None
    places: str | None = None
    cashtags: str | None = None
    html: bool = False  # with tags in the texts, no hashtag would be found: `ntulm inspect` says so
    # Handles are the same in any case on every network that has them, and ids of digits do not care.
    casefold_users: bool = True
    mention_hosts: bool = False


class Splits(Section):
    by: Literal["time", "author", "random"]
    seed: Count
    graph_from: Cut
    graph_until: Cut
    train_from: Cut
    validation_from: Cut
    test_from: Cut


class Corpus(Section):
    path: str
    format: Literal[
        "auto", "twitter_v1", "twitter_v2", "twitter_archive", "bluesky", "mastodon", "reddit", "table", "synthetic"
    ]
    table: TableMapping | None
    labels: list[str]  # columns of a table, paths in the records of other formats
    languages: list[str]
    duplicates: Literal["id", "text"]
    max_reject_share: Share
    pseudonyms: bool
    forget: str
    splits: Splits
