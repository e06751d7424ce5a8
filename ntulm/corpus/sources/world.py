"""The world file of the format `synthetic`: its keys, and what makes one wrong.

Reads `worlds/*.yaml`: one top key, `synthetic_world`; what a key means stands beside it in `worlds/quickstart.yaml`.
"""

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from ntulm.errors import UserError
from ntulm.section import Count, Positive, Section, Share
from ntulm.yaml_file import read_yaml

TOP_KEY = "synthetic_world"
INVENTED_SYLLABLES = 3  # of an invented hashtag

Kind = Literal["topical", "resolved", "ambiguous", "neutral"]
Weight = Annotated[float, Field(ge=0)]
Words = Annotated[list[str], Field(min_length=1)]


class Kinds(Section):
    topical: Weight
    resolved: Weight
    ambiguous: Weight
    neutral: Weight


class Community(Section):
    nouns: Words
    verbs: Words


class World(Section):
    """The file. What a key means stands beside it in `worlds/quickstart.yaml`."""

    seed: Count
    posts: Positive
    start: date
    end: date
    periods: Positive
    language: str
    authors: Positive
    activity_exponent: Weight
    second_community_share: Share
    newcomer_share: Share
    off_topic_share: Share
    kinds: Kinds
    second_topic_share: Share
    follow_noise: Share
    hashtags_per_community: Positive
    opaque_hashtag_share: Share
    hashtag_exponent: Weight
    hashtag_drift: Weight
    late_hashtag_share: Share
    no_hashtag_share: Share
    global_hashtag_share: Share
    loyal_hashtag_share: Share
    mention_share: Share
    favorites_per_post: Weight
    reposts_per_post: Weight
    lost_originals_share: Share
    same_community_share: Share
    url_share: Share
    capitals_share: Share
    duplicates: Count
    communities: Annotated[dict[str, Community], Field(min_length=2)]
    senses: Annotated[dict[str, dict[str, Words]], Field(min_length=1)]
    shared_hashtags: dict[str, Words]
    global_hashtags: Words
    hashtag_suffixes: Words
    hashtag_syllables: Annotated[list[str], Field(min_length=8)]
    phrases: dict[str, Words]
    templates: dict[Kind, Words]

    @model_validator(mode="after")
    def _names_are_defined(self) -> "World":
        named = [name for group in (*self.senses.values(), *self.shared_hashtags.values()) for name in group]
        slots = {"noun", "verb", "word", "follow", *self.phrases}
        used = {slot for lines in self.templates.values() for line in lines for slot in re.findall(r"{(.*?)}", line)}
        for wrong, what in (
            (sorted(set(named) - set(self.communities)), "not a community"),
            (sorted(used - slots), "a slot of a template that is not in `phrases`"),
            (sorted(set(Kinds.model_fields) - set(self.templates)), "a kind without templates"),
            ([word for word, senses in self.senses.items() if len(senses) < 2], "a word of one sense is not ambiguous"),
        ):
            if wrong:
                raise ValueError(f"{wrong[0]!r}: {what}")
        if self.end <= self.start:
            raise ValueError(f"end {self.end} is not after start {self.start}")
        if self.authors < len(self.communities):
            raise ValueError(f"authors {self.authors} are fewer than the {len(self.communities)} communities")
        nouns = min(len(set(community.nouns)) for community in self.communities.values())
        room = nouns * len(set(self.hashtag_suffixes)) if self.opaque_hashtag_share < 1 else self._invented_names()
        if self.hashtags_per_community > room // 2:  # names are drawn until enough differ
            raise ValueError(
                f"hashtags_per_community {self.hashtags_per_community}: the words make {room} names at most"
            )
        if not any(self.kinds.model_dump().values()):
            raise ValueError("kinds: all weights are 0")
        return self

    def _invented_names(self) -> int:
        return int(len(set(self.hashtag_syllables)) ** INVENTED_SYLLABLES)


def load_world(path: Path) -> World:
    """Read and check a world file.

    Raises:
        UserError: the file is missing or not YAML, or a key is unknown, missing or of the wrong type or value.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; expected a world file such as worlds/quickstart.yaml")
    values = read_yaml(path)
    if not isinstance(values, dict) or set(values) != {TOP_KEY}:
        raise UserError(f"{path}: expected the one top key `{TOP_KEY}`, as in worlds/quickstart.yaml")
    try:
        return World.model_validate(values[TOP_KEY])
    except ValidationError as error:
        item = error.errors()[0]
        key = ".".join([TOP_KEY, *map(str, item["loc"])])
        said = "unknown key" if item["type"] == "extra_forbidden" else item["msg"]
        got = "" if isinstance(item["input"], dict) else f", got {item['input']!r}"
        raise UserError(f"{path}: {key}: {said}{got}") from error
