"""Which column of a table is what: from the usual names of columns, tried on the first values.

Names say what a column may be, values decide among several: dates that can be read, authors that are written as the
mentions are, lists that are no objects. Library of `ntulm inspect`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ntulm.corpus.config import TableMapping
from ntulm.inspect.dates import TimeFormat, time_format
from ntulm.inspect.names import NAMES, OF_ANY_SOURCE, WHOLE_TEXTS, candidates, plain_name
from ntulm.inspect.values import Values

REQUIRED = ("created_at", "text", "author")
USERS = ("author", "reposted_author", "mentions", "favorited_by", "reply_to", "quoted")
POSTS = ("reply_to_post", "quoted_post", "reposted_id")
LISTS = ("hashtags", "mentions", "favorited_by", "urls", "cashtags")
FLAGS = {"0", "1", "0.0", "1.0", "true", "false", "t", "f", "yes", "no", "y", "n"}
KINDS = {
    "retweet", "retweeted", "repost", "reposted", "reblog", "share", "tweet", "original", "post", "status", "toot",
    "reply", "replied_to", "quote", "quoted", "comment",
}  # fmt: skip
VISIBILITIES = {"public", "unlisted", "home", "private", "followers", "specified", "direct", "local", "protected"}
FEDIVERSE = ("account.acct", "accountacct", "acct", "account")  # of authors: handles have hosts, texts are HTML
ATPROTO = ("author.handle", "handle")  # of authors: handles have hosts
# The shares are of values: of most, of a part that no accident gives, and of nearly all.
MOST, SOME, NEARLY_ALL = 0.5, 0.3, 0.9

ITEM = re.compile(r"[^\s,;|\"'\[\]]+")  # as `items` of corpus/sources/table.py
HANDLE = re.compile(r"(?!x?\d+$)[@＠]?[\w.\-]*[^\W\d][\w.\-]*(@[\w.\-]+)?")
ID = re.compile(r"\d+|did:\S+")
CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?( ?[ap]\.?m\.?)?", re.IGNORECASE)
ROUNDED = re.compile(r"\d(\.\d{0,8})?e\+?\d+", re.IGNORECASE)  # ten digits are a second
TAG = re.compile(r"</?(p|br|a|span|div)\b[^>]*>", re.IGNORECASE)
MENTION = re.compile(r"(?<!\w)[@＠](\w+)")
CUT = re.compile(r"(…|\.\.\.)(\s*https?://\S+)?\s*$")
OBJECT = re.compile(r"\s*\[?\s*(\{|[A-Za-z_][\w.]*\(\w+=)")  # as Python and pandas write them: {'id': 1}, User(id=1)
ADDRESS = re.compile(r"https?://", re.IGNORECASE)
AT_IDS = re.compile(r"did:|at://")  # of ATProto, whose handles have hosts
HOST = re.compile(r"[@＠]?[\w\-]+(\.[\w\-]+)+|[@＠]?[\w.\-]+@[\w\-]+(\.[\w\-]+)+")


@dataclass(frozen=True)
class Guess:
    """A mapping, or what is missing for one, and what has to be said of how it was found."""

    mapping: TableMapping | None
    missing: tuple[str, ...] = ()  # of REQUIRED
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # of what would be read wrong


def likely_columns(columns: Sequence[str]) -> list[str]:
    """Every column with a usual name."""
    return list(dict.fromkeys(column for wanted in _wanted() for column in candidates(columns, wanted)))


def _wanted() -> list[str]:
    return [name for name in NAMES if name in TableMapping.model_fields]


def guess(columns: Sequence[str], values: Values) -> Guess:
    """A mapping of a table's columns.

    Args:
        columns: the names, in their order.
        values: of `likely_columns`, as far as they are known.
    """
    notes: list[str] = []
    warnings: list[str] = []
    times = candidates(columns, "created_at")
    written = _time(times, values, notes)
    warnings += _inexact(written[0], times, values)
    found: dict[str, str | None] = {"created_at": written[0], "text": _text(columns, values, warnings)}
    if found["text"]:
        found["mentions"] = _mentions(columns, values)
        found["author"] = _author(columns, values, found["text"], found["mentions"], notes)
    missing = tuple(name for name in REQUIRED if not found.get(name))
    if missing:
        return Guess(None, missing, notes, warnings)
    for name in _wanted():
        if name not in found:
            found[name] = _fitting(name, columns, values, found)
    texts = values.get(str(found["text"]), [])
    author = str(found["author"])
    if _share(ID.fullmatch, values.get(author, [])) >= NEARLY_ALL:
        users = (column for column in candidates(columns, "author") if column != author)
        found["author_handle"] = next((column for column in users if _are_handles(values.get(column, []))), None)
    settings: dict[str, Any] = {
        "time_format": written[1],
        "html": plain_name(author) in FEDIVERSE or _share(TAG.search, texts) >= SOME,
        "casefold_users": True,
        "mention_hosts": plain_name(author) in FEDIVERSE + ATPROTO
        or _share(HOST.fullmatch, values.get(author, [])) >= NEARLY_ALL
        or any(_share(AT_IDS.match, values.get(str(found[name]), [])) >= MOST for name in ("author", "post_id")),
    }
    if _are_addresses(values.get(author, [])):
        warnings.append(
            f"{author}: authors are addresses ({values[author][0][:40]}): no mention is one of them, so whoever writes "
            "and is mentioned is two users; name a column of user names (corpus.table.author), or make one"
        )
    return Guess(TableMapping.model_validate({**found, **settings}), (), notes, warnings)


def _time(columns: list[str], values: Values, notes: list[str]) -> tuple[str | None, str | None]:
    """The column of times and their format: the first column that can be read without doubt, else the first."""
    read = {column: found for column in columns if (found := time_format(values.get(column, [])))}
    if not columns:
        return None, None
    plain = [column for column, found in read.items() if found.format is None or found.or_else is None]
    column = (plain or list(read) or columns)[0]
    found = read.get(column)
    if found is None:
        example = next(iter(values.get(column, [])), None)
        if example is not None:
            notes.append(
                f"{column}: dates like {example[:40]!r} are neither ISO 8601 nor Unix time and no usual format: "
                "set time_format, as in strptime"
            )
        return column, None
    if found.format is not None:
        notes.append(_about(column, found))
    return column, found.format


def _inexact(column: str | None, columns: list[str], values: Values) -> list[str]:
    """What is to be said of times that are less exact than they could be."""
    own = values.get(column or "", [])
    if any(ROUNDED.fullmatch(value) for value in own):
        return [f"{column}: numbers like {own[0]} are rounded, and so are the times: write the table with all digits"]
    if not own or any(":" in value or value.isdigit() for value in own):
        return []
    clock = (other for other in columns if _share(CLOCK.fullmatch, values.get(other, [])) >= NEARLY_ALL)
    return [
        f"the column {column} has no times of day, the column {other} has: all posts of a day are at 00:00; write the "
        "table with one column of both (2021-03-31 14:05)"
        for other in clock
    ][:1]


def _about(column: str, found: TimeFormat) -> str:
    tried = f"tried on {found.values:,} values"
    if found.or_else is None:
        return f"{column}: dates are read as {found.format} ({tried})"
    return (
        f"{column}: dates are read as {found.format}, but {found.or_else} would do as well ({tried}): "
        "look at the dates below, and change time_format if day and month are exchanged"
    )


def _text(columns: Sequence[str], values: Values, warnings: list[str]) -> str | None:
    """The first with text in most rows: of posts of which only the title is filled, the title.

    Whole texts rather than those beside them that are cut, where as many rows have them.
    """
    found = candidates(columns, "text")
    most = max((len(values.get(column, [])) for column in found), default=0)
    chosen = next((column for column in found if len(values.get(column, [])) >= MOST * most), None)
    texts = values.get(chosen or "", [])
    for whole in (column for column in found if plain_name(column) in WHOLE_TEXTS and column != chosen):
        filled = len(values.get(whole, []))
        if texts and filled >= len(texts):
            return whole
        if filled and any(CUT.search(text) for text in texts):
            warnings.append(
                f"{chosen}: some texts are cut and stand whole in {whole}, which most rows lack: write "
                "the table with one column of whole texts"
            )
    return chosen


def _mentions(columns: Sequence[str], values: Values) -> str | None:
    usable = [column for column in candidates(columns, "mentions") if _is_list(values.get(column, []))]
    filled = [column for column in usable if values.get(column)]
    return (filled or usable or [None])[0]  # type: ignore[list-item]


def _author(columns: Sequence[str], values: Values, text: str, mentions: str | None, notes: list[str]) -> str | None:
    """The column of authors that is written as the mentions are; the same user has one key then."""
    named = candidates(columns, "author")
    found = [column for column in named if not _are_objects(values.get(column, []))]
    if named and not found:
        notes.append(
            f"{named[0]}: the cells are objects ({values[named[0]][0][:40]}), of which no author can be taken: write "
            "the table with a column of user names or ids"
        )
    if any(_are_addresses(values.get(column, [])) for column in found):
        found = [column for column in found if _are_users(values.get(column, []))] or found
    if len(found) < 2:
        return found[0] if found else None
    given = [item for value in values.get(mentions or "", []) for item in ITEM.findall(value)]
    ids = bool(given) and not _are_handles(given)
    mentioned = {_bare(name) for name in given or (n for t in values.get(text, []) for n in MENTION.findall(t))}

    def fits(column: str) -> tuple[bool, int]:
        users = {_bare(user) for user in values.get(column, [])}
        alike = _share(str.isdigit, list(users)) >= NEARLY_ALL if ids else _are_handles(list(users))
        return bool(users) and alike, len(users & mentioned)

    chosen = max(found, key=lambda column: (*fits(column), -found.index(column)))
    if chosen != found[0] and fits(chosen) > fits(found[0]):
        kind = "ids" if ids else "handles"
        notes.append(f"author: {chosen} rather than {found[0]}, because mentions are {kind}: a user has one key then")
    return chosen


def _fitting(name: str, columns: Sequence[str], values: Values, found: dict[str, str | None]) -> str | None:
    """The first column whose values are of the kind that the key wants."""
    for column in candidates(columns, name):
        own = values.get(column, [])
        texts, authors = values.get(str(found["text"]), []), values.get(str(found["author"]), [])
        if column in found.values() or (name in LISTS and not _is_list(own)):
            continue
        if name == "repost_flag" and not all(value.casefold() in FLAGS | KINDS for value in own):
            continue
        if name == "visibility" and own and not _are_visibilities(column, own):
            continue  # how far one could see, or how many saw it
        handles = _are_handles(_items(own)) if own else not plain_name(column).endswith(("id", "idstr"))
        if name in USERS and authors and handles != _are_handles(authors):
            continue  # an id beside handles would be a second key of the same user
        if name not in LISTS and any(OBJECT.match(value) or value.startswith("[") for value in own):
            continue
        if name in (*POSTS, *USERS, "places") and not _is_told(name, column, own, values, found):
            continue
        if plain_name(column) == "tags" and not _are_hashtags(own, texts):
            continue  # somebody's keywords
        return column
    return None


def _is_told(name: str, column: str, own: list[str], values: Values, found: dict[str, str | None]) -> bool:
    """Whether what a column says of another post is known to be what the key wants."""
    flag, ids = found.get("repost_flag"), values.get(found.get("post_id") or "", [])
    plain = plain_name(column)
    if plain == "place" and not own:  # where there are some, they may be objects
        return False
    if plain == "replyto":  # a user, or a post: told by its ids alone
        return bool(own) and bool(ids) and all(_kind(value) == _kind(ids[0]) for value in own)
    if name == "reposted_id" and flag and own:  # addresses beside ids name no post of the table
        return _are_addresses(own) == _are_addresses(ids)
    return bool(flag) or not plain.startswith(OF_ANY_SOURCE)


def _kind(post_id: str) -> str:
    return post_id.split(":")[0] if ":" in post_id else "digits" if post_id.isdigit() else "other"


def _are_visibilities(column: str, values: list[str]) -> bool:
    words = FLAGS if "protected" in plain_name(column) else VISIBILITIES
    return _share(lambda value: value.casefold() in words, values) >= MOST


def _is_list(values: list[str]) -> bool:
    """No objects: `[{"tag": "x"}]` or `[User(id=1)]` in a cell is not a list of names."""
    return not any("{" in value or OBJECT.match(value) for value in values)


def _are_objects(values: list[str]) -> bool:
    return _share(OBJECT.match, values) >= SOME


def _are_addresses(values: list[str]) -> bool:
    return _share(ADDRESS.match, values) >= SOME


def _are_users(values: list[str]) -> bool:
    """Handles or ids, not addresses or names of people."""
    return _share(lambda value: HANDLE.fullmatch(value) or value.isdigit(), values) >= NEARLY_ALL


def _are_hashtags(values: list[str], texts: list[str]) -> bool:
    items = {item.casefold().lstrip("#") for item in _items(values)}
    in_texts = {tag.casefold() for text in texts for tag in re.findall(r"[#＃](\w+)", text)}
    return not items or len(items & in_texts) >= SOME * len(items)


def _items(values: list[str]) -> list[str]:
    return [item for value in values for item in ITEM.findall(value)]


def _are_handles(users: list[str]) -> bool:
    return _share(HANDLE.fullmatch, users) >= NEARLY_ALL


def _bare(user: str) -> str:
    return user.strip().lstrip("@＠").casefold()


def _share(test: Any, values: Sequence[str]) -> float:
    return sum(bool(test(value)) for value in values) / len(values) if values else 0.0
