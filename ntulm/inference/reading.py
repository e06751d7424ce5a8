"""New posts of any make to `Posts`, read as the corpus that the model was trained on was read.

A post is a text, or a dict or a row of a table with the fields of FIELDS. Fields that are not given or null are read
from the text by the code of the corpus (`ntulm/text.py`). Library only; a mistake is an error that names the row.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ntulm import pseudonyms
from ntulm.errors import UserError
from ntulm.ntus import LISTS, USERS, NtuScheme
from ntulm.posts import Posts
from ntulm.text import Reading, cashtag_key, fields_of, normalise, readable, user_key

FIELDS = ("post_id", "text", *USERS, *LISTS, "community", "created_at", "lang")
UNUSED = ("created_at", "lang")  # of a post, but nothing in the model looks at them


def read_posts(posts: Any, scheme: NtuScheme, source: Reading) -> Posts:
    """N posts.

    Args:
        posts: a list of texts and dicts, or a pandas, polars or pyarrow table.
        scheme: the NTUs of the model.
        source: how the model's source writes users and texts.

    Raises:
        UserError: not a list or table of posts, or a post without a text, with an unknown field or with a value of a
            wrong type. An empty list is 0 posts. Or the source has pseudonyms, and the environment not their key.
    """
    columns: dict[str, list[Any]] = {name: [] for name in FIELDS if name not in UNUSED}
    for number, given in enumerate(_rows(posts)):
        post = _read(number, {"text": given} if isinstance(given, str) else given, source)
        for name, values in columns.items():
            values.append(post[name])
    hidden = pseudonyms.of(source)
    return Posts.of(scheme, columns if hidden is None else hidden.fields(columns))


def _rows(posts: Any) -> Iterable[Any]:
    if isinstance(posts, str | bytes | Mapping):
        raise UserError(f"posts: one {type(posts).__name__}; expected a list of posts, e.g. [post]")
    if isinstance(posts, pa.Table | pa.RecordBatch):
        return posts.to_pylist()
    if hasattr(posts, "to_arrow"):  # polars
        return posts.to_arrow().to_pylist()
    if type(posts).__module__.split(".")[0] == "pandas" and hasattr(posts, "columns"):
        try:
            return pa.Table.from_pandas(posts, preserve_index=False).to_pylist()
        except pa.ArrowException as error:
            raise UserError(f"posts: a column holds values of several types ({error})") from error
    if not isinstance(posts, Iterable):
        raise UserError(f"posts: {type(posts).__name__}; expected a list of texts or dicts, or a table")
    return posts


def _read(number: int, given: Any, source: Reading) -> dict[str, Any]:
    """The fields of one post in the form of the posts table of the corpus."""
    where = f"posts[{number}]"
    if not isinstance(given, Mapping):
        raise UserError(f"{where}: {type(given).__name__}; expected a text, or a dict with at least `text`")
    unknown = [str(name) for name in given if name not in FIELDS]
    if unknown:
        raise UserError(f"{where}: unknown field {unknown[0]!r}; a post has {', '.join(FIELDS)}")
    text = readable(_text(where, given.get("text")), source)
    _moment(where, given.get("created_at"))
    _one(where, "lang", given.get("lang"))
    post_id, community = (_one(where, name, given.get(name)) for name in ("post_id", "community"))
    users = {name: _one(where, name, given.get(name)) for name in USERS}
    mentions, hashtags, urls, places, cashtags = (_many(where, name, given.get(name)) for name in LISTS)
    found = fields_of(text, source)

    def user(name: str) -> str:
        return user_key(name, source.casefold_users)

    post: dict[str, Any] = {"post_id": str(number) if post_id is None else post_id, "text": text}
    post |= {name: None if value is None else user(value) or None for name, value in users.items()}
    post["mentions"] = found.mentions if mentions is None else [user(name) for name in mentions]
    post["hashtags"] = found.hashtags if hashtags is None else [normalise(tag) for tag in hashtags]
    post["urls"] = found.urls if urls is None else urls
    post["places"] = places or []
    post["cashtags"] = found.cashtags if cashtags is None else [cashtag_key(symbol) for symbol in cashtags]
    post["community"] = community
    return post


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}.text: {_shown(value)}; expected a text that is not empty")
    if not _is_unicode(value):
        raise UserError(f"{where}.text: half a character (a lone surrogate) or a NUL; expected Unicode text")
    return value


def _one(where: str, name: str, value: Any) -> str | None:
    """A string; a whole number, as ids often are, is one."""
    if _is_missing(value):
        return None
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not _is_unicode(value):
        raise UserError(f"{where}.{name}: {_shown(value)}; expected a string or null")
    return value


def _many(where: str, name: str, value: Any) -> list[str] | None:
    if _is_missing(value):
        return None
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        raise UserError(f"{where}.{name}: {_shown(value)}; expected a list of strings or null")
    return [one for item in value if (one := _one(where, name, item)) is not None]


def _moment(where: str, value: Any) -> None:
    if not _is_missing(value) and not isinstance(value, str | int | float | datetime.date | np.datetime64):
        raise UserError(f"{where}.created_at: {_shown(value)}; expected a date or null")


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _is_unicode(value: str) -> bool:
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
