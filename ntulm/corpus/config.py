"""The section `corpus` of params.yaml."""

from typing import Literal

from ntulm.section import Count, Cut, Section, Share


class TableMapping(Section):
    """Which column of a table is what; null where the table has none."""

    post_id: str | None
    created_at: str
    time_format: str | None
    text: str
    author: str
    lang: str | None
    repost_flag: str | None
    reposted_id: str | None
    reposted_author: str | None
    favorited_by: str | None
    hashtags: str | None
    mentions: str | None
    html: bool
    casefold_users: bool
    mention_hosts: bool
    labels: list[str]


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
    format: Literal["auto", "twitter_v1", "table", "synthetic"]
    table: TableMapping | None
    languages: list[str]
    duplicates: Literal["id", "text"]
    max_reject_share: Share
    pseudonyms: bool
    forget: str
    splits: Splits
