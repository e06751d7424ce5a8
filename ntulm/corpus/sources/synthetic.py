"""Format `synthetic`: a small YAML file that describes a social world is read as if it were an export of its posts.

Reads `worlds/*.yaml` (one top key, `synthetic_world`; every key is explained in `worlds/quickstart.yaml`) and yields
raw records. `file` is the world's file name, `line` the running number of the record. One seeded generator draws
everything in order of time, so the same file gives the same records.

    ntulm inspect worlds/quickstart.yaml
"""

from __future__ import annotations

import re
from bisect import bisect
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import RAW_SCHEMA, Sample
from ntulm.corpus.sources.world import INVENTED_SYLLABLES, TOP_KEY, Kind, World, load_world
from ntulm.errors import UserError
from ntulm.text import Reading

if TYPE_CHECKING:
    from ntulm.corpus.config import TableMapping

BATCH_ROWS = 4096
FAVOURITE_HASHTAGS = 3
FIRST_ARRIVAL = 0.2  # share of the time in which nobody and nothing new appears
REPOSTABLE = 300  # reposts are of the latest so many originals
SITES = ("https://news.example/a/", "https://pics.example/p/", "https://blog.example/")  # say nothing about the topic

Record = dict[str, Any]


def confidence(sample: Sample) -> float:
    """Sure where the first line that is neither blank nor a comment opens a world."""
    for line in sample.head.splitlines():
        if line.strip() and not line.lstrip().startswith(b"#"):
            return float(line.startswith(f"{TOP_KEY}:".encode()))
    return 0.0


def facts(mapping: TableMapping | None) -> Reading:
    """Users are handles without hosts."""
    del mapping
    return Reading(casefold_users=True, mention_hosts=False, html=False, mentions_in_text=True)


def read(files: Sequence[File], mapping: TableMapping | None, labels: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
    """The posts of a world, as batches of RAW_SCHEMA; `mapping` means nothing here.

    Raises:
        UserError: several worlds, or labels are named: a world has its own.
    """
    del mapping
    if labels:
        raise UserError(f"corpus.labels: {', '.join(labels)}: a synthetic world has labels of its own; expected []")
    if len(files) > 1:  # two worlds would give different posts the same ids
        raise UserError(f"{files[0]}: {len(files)} files; expected one world file, such as worlds/quickstart.yaml")
    return _batches(load_world(files[0].path), files[0].path.name)


def _batches(world: World, file: str) -> Iterator[pa.RecordBatch]:
    rows = ({"file": file, "line": line, **record} for line, record in enumerate(records(world), start=1))
    while chunk := list(islice(rows, BATCH_ROWS)):
        yield pa.RecordBatch.from_pylist(chunk, schema=RAW_SCHEMA)


def records(world: World) -> Iterator[Record]:
    """Every raw record of a world, in order of time: originals, reposts and duplicates."""
    rng = np.random.default_rng(world.seed)
    narrator = Narrator(world, Society(world, rng), rng)
    reposts = round(world.posts * world.reposts_per_post)
    kinds = rng.permutation(np.repeat(["post", "repost", "duplicate"], [world.posts, reposts, world.duplicates]))
    first = int(np.argmax(kinds == "post"))  # nothing can be repeated before it
    kinds[[0, first]] = kinds[[first, 0]]
    for kind, moment in zip(kinds, np.sort(rng.random(len(kinds))), strict=True):
        yield getattr(narrator, kind)(float(moment))


class Draw:
    """Items with weights. A pick costs one uniform number; numpy's own weighted choice is slow one at a time."""

    def __init__(self, items: Sequence[Any], weights: Sequence[float] | None = None):
        self.items = items
        self.cumulative = list(accumulate(weights or [1.0] * len(items)))

    def pick(self, rng: np.random.Generator) -> Any:
        place = rng.random() * self.cumulative[-1]
        return self.items[bisect(self.cumulative, place, hi=len(self.items) - 1)]


@dataclass(frozen=True)
class Author:
    name: str
    communities: tuple[str, ...]
    arrival: float  # moment of the first possible post, in shares of the whole time
    activity: float
    favourites: tuple[str, ...]  # hashtags


@dataclass(frozen=True)
class Hashtag:
    name: str
    popularity: float  # its logarithm has a linear trend
    trend: float
    arrival: float

    def weight(self, moment: float) -> float:
        return float(self.popularity * np.exp(self.trend * (moment - 0.5))) if moment >= self.arrival else 0.0


class Society:
    """Who and which hashtags there are, by community and period. All draws happen when it is made."""

    def __init__(self, world: World, rng: np.random.Generator):
        self._world, self._rng = world, rng
        names = list(world.communities)
        by_community = {name: self._hashtags(name) for name in names}
        by_community[""] = self._popular(world.global_hashtags)
        self._born = {tag.name: tag.arrival for tags in by_community.values() for tag in tags}
        authors = [self._author(number, names, by_community) for number in range(world.authors)]
        moments = [period / world.periods for period in range(world.periods)]
        self.members = [{name: self._present(authors, name, moment) for name in ["", *names]} for moment in moments]
        self.hashtags = [
            {name: Draw(tags, [tag.weight(moment) for tag in tags]) for name, tags in by_community.items()}
            for moment in moments
        ]

    def is_born(self, hashtag: str, moment: float) -> bool:
        return self._born[hashtag] <= moment

    def _arrival(self, late_share: float) -> float:
        late, moment = self._rng.random(2)
        return float(FIRST_ARRIVAL + (1 - FIRST_ARRIVAL) * moment) if late < late_share else 0.0

    def _hashtags(self, community: str) -> list[Hashtag]:
        """A community's hashtags: from its words, invented, its ambiguous words, and those it shares."""
        world, rng = self._world, self._rng
        names = [tag for tag, sharers in world.shared_hashtags.items() if community in sharers]
        names += [word for word, senses in world.senses.items() if community in senses]
        suffixes, syllables = world.hashtag_suffixes, world.hashtag_syllables
        nouns = world.communities[community].nouns
        known = set(names)
        while len(names) < world.hashtags_per_community:
            if rng.random() < world.opaque_hashtag_share:
                name = "".join(rng.choice(syllables, size=INVENTED_SYLLABLES))
            else:
                name = str(rng.choice(nouns)) + str(rng.choice(suffixes))
            if name not in known:
                known.add(name)
                names.append(name)
        return self._popular([names[i] for i in rng.permutation(len(names))])

    def _popular(self, names: Sequence[str]) -> list[Hashtag]:
        world = self._world
        trends = world.hashtag_drift * self._rng.standard_normal(len(names))
        return [
            # The most popular one is always there, so that no period is without a hashtag.
            Hashtag(name, (rank + 1) ** -world.hashtag_exponent, float(trends[rank]), self._late_after(rank))
            for rank, name in enumerate(names)
        ]

    def _late_after(self, rank: int) -> float:
        return self._arrival(self._world.late_hashtag_share) if rank else 0.0

    def _author(self, number: int, names: list[str], hashtags: dict[str, list[Hashtag]]) -> Author:
        world, rng = self._world, self._rng
        home = names[number % len(names)]
        others = [name for name in names if name != home]
        second = (str(rng.choice(others)),) if rng.random() < world.second_community_share else ()
        rank, founder = number // len(names), number < len(names)  # a founder: no community is ever empty
        tags = Draw([tag.name for tag in hashtags[home]], [tag.popularity for tag in hashtags[home]])
        return Author(
            name=f"sim{number:04d}",
            communities=(home, *second),
            arrival=0.0 if founder else self._arrival(world.newcomer_share),
            activity=(rank + 1) ** -world.activity_exponent,
            favourites=tuple(tags.pick(rng) for _ in range(FAVOURITE_HASHTAGS)),
        )

    @staticmethod
    def _present(authors: list[Author], community: str, moment: float) -> Draw:
        """The authors of a community (of all, if "") who have arrived; who has two is half as active in each."""
        present = [a for a in authors if a.arrival <= moment and (not community or community in a.communities)]
        return Draw(present, [a.activity / (len(a.communities) if community else 1) for a in present])


class Narrator:
    """Writes the records. Everything that a post says is drawn from its topic, its author and its period."""

    def __init__(self, world: World, society: Society, rng: np.random.Generator):
        self._world, self._society, self._rng = world, society, rng
        self._latest: deque[tuple[Record, str]] = deque(maxlen=REPOSTABLE)
        self._count = 0
        self._kinds = Draw(list(world.kinds.model_dump()), list(world.kinds.model_dump().values()))
        self._communities = list(world.communities)
        self._senses = [(word, community) for word, senses in world.senses.items() for community in senses]
        self._templates = {
            kind: [re.split(r"{(.*?)}", line) for line in lines] for kind, lines in world.templates.items()
        }
        self._start = datetime(world.start.year, world.start.month, world.start.day, tzinfo=UTC)
        self._seconds = (world.end - world.start).days * 86400

    def post(self, moment: float) -> Record:
        """A new original, which can be reposted from now on."""
        record, community = self._original(moment)
        self._latest.append((record, community))
        return record

    def repost(self, moment: float) -> Record:
        """A repost that embeds its original; the original is sometimes one that was not exported."""
        lost = self._chance(self._world.lost_originals_share)
        original, community = self._original(moment) if lost else self._one(self._latest)
        embedded = {name: value for name, value in original.items() if name in _EMBEDDED}
        return embedded | {
            "post_id": self._next_id(),
            "created_at": self._time(moment),
            "author": self._acquaintance(community, moment).name,
            "text": f"RT @{original['author']}: {original['text']}",
            "mentions": [original["author"], *original["mentions"]],
            "is_repost": True,
            "reposted": embedded,
            "favorited_by": [],
            "labels": [],
        }

    def duplicate(self, moment: float) -> Record:
        """One of the latest originals again: the same record, or its author posted the same text once more."""
        original, _ = self._one(self._latest)
        if self._chance(0.5):
            return original
        return original | {"post_id": self._next_id(), "created_at": self._time(moment), "favorited_by": []}

    def _original(self, moment: float) -> tuple[Record, str]:
        """An original and its main topic."""
        world = self._world
        kind: Kind = self._kinds.pick(self._rng)
        word, community = self._one(self._senses)
        labels = [{"field": "kind", "value": kind}]
        if kind in ("resolved", "ambiguous"):
            labels.append({"field": "sense", "value": f"{word}:{community}"})
        else:
            community = self._one(self._communities)
        topics = [community]
        if kind == "topical" and self._chance(world.second_topic_share):
            topics.append(self._one([name for name in self._communities if name != community]))
        labels += [{"field": "topic", "value": topic} for topic in topics]
        clauses = [self._clause(kind, topic, word) for topic in topics]
        anybody = self._chance(world.off_topic_share)
        author = self._period(self._society.members, moment)["" if anybody else community].pick(self._rng)
        hashtags = self._post_hashtags(author, topics, moment)
        mentions = [self._acquaintance(community, moment).name] if self._chance(world.mention_share) else []
        urls = [self._url()] if self._chance(world.url_share) else []
        record = {
            "post_id": self._next_id(),
            "created_at": self._time(moment),
            "lang": world.language,
            "text": self._text(clauses, mentions, hashtags, urls),
            "author": author.name,
            "mentions": mentions,
            "hashtags": hashtags,
            "urls": urls,
            "places": [],
            "is_repost": False,
            "favorited_by": self._favorited_by(author, community, moment),
            "labels": labels,
        }
        return record, community

    def _clause(self, kind: Kind, community: str, word: str) -> str:
        """One sentence: the parts of a template alternate between text and slot."""
        parts = self._one(self._templates[kind])
        return "".join(self._fill(part, community, word) if i % 2 else part for i, part in enumerate(parts))

    def _fill(self, slot: str, community: str, word: str) -> str:
        if slot == "word":
            return word
        if slot == "follow":
            senses = self._world.senses[word]
            other = [name for name in senses if name != community]
            return str(self._one(senses[self._one(other) if self._chance(self._world.follow_noise) else community]))
        words = self._world.communities[community]
        phrases = {"noun": words.nouns, "verb": words.verbs}.get(slot) or self._world.phrases[slot]
        return str(self._one(phrases))

    def _text(self, clauses: list[str], mentions: list[str], hashtags: list[str], urls: list[str]) -> str:
        said = ". ".join(clauses)
        if self._chance(self._world.capitals_share):
            said = said.upper() if self._chance(0.2) else said[0].upper() + said[1:]
        return " ".join([*(f"@{name}" for name in mentions), said, *(f"#{tag}" for tag in hashtags), *urls])

    def _post_hashtags(self, author: Author, topics: list[str], moment: float) -> list[str]:
        """One to three hashtags as written, distinct whatever their case, or none."""
        if self._chance(self._world.no_hashtag_share):
            return []
        number = 1 + int(self._rng.binomial(2, 0.3))
        names = dict.fromkeys(self._hashtag(author, self._one(topics), moment) for _ in range(number))
        return [self._written(name) for name in names]

    def _hashtag(self, author: Author, topic: str, moment: float) -> str:
        if self._chance(self._world.loyal_hashtag_share):
            favourite = str(self._one(author.favourites))
            if self._society.is_born(favourite, moment):
                return favourite
        pool = "" if self._chance(self._world.global_hashtag_share) else topic
        return str(self._period(self._society.hashtags, moment)[pool].pick(self._rng).name)

    def _written(self, hashtag: str) -> str:
        if not self._chance(self._world.capitals_share):
            return hashtag
        return hashtag.upper() if self._chance(0.3) else hashtag.capitalize()

    def _favorited_by(self, author: Author, community: str, moment: float) -> list[str]:
        number = self._rng.poisson(self._world.favorites_per_post)
        fans = dict.fromkeys(self._acquaintance(community, moment).name for _ in range(number))
        return [name for name in fans if name != author.name]

    def _acquaintance(self, community: str, moment: float) -> Author:
        """Somebody who reacts to a post on the community's topic."""
        pool = community if self._chance(self._world.same_community_share) else ""
        author: Author = self._period(self._society.members, moment)[pool].pick(self._rng)
        return author

    def _period(self, periods: list[dict[str, Draw]], moment: float) -> dict[str, Draw]:
        return periods[int(moment * len(periods))]

    def _url(self) -> str:
        return f"{self._one(SITES)}{self._rng.integers(1 << 32):08x}"

    def _time(self, moment: float) -> datetime:
        return self._start + timedelta(seconds=int(moment * self._seconds))

    def _next_id(self) -> str:
        self._count += 1
        return f"syn{self._count:07d}"

    def _chance(self, share: float) -> bool:
        return bool(self._rng.random() < share)

    def _one(self, items: Sequence[Any]) -> Any:
        return items[int(self._rng.random() * len(items))]


_EMBEDDED = {field.name for field in RAW_SCHEMA.field("reposted").type}
