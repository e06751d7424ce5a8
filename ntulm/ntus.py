"""Non-textual units as data: which roles a post's NTUs play, of which types they are, and where they stand in a table.

Types and roles are values of the section `ntus` of params.yaml. A role says which field of a post its NTUs come from
(or which engagement with the post) and their type; a type says how its keys are written (`ntulm/text.py`). Library
only; it needs numpy and pyarrow alone.

Posts carry their NTUs as one ragged column, `NTUS`: pairs of role and key, in the order of the roles in params.yaml
and, within a role, of the field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ntulm.text import KEY_FORMS

if TYPE_CHECKING:
    from ntulm.embeddings.table import EmbeddingTable

NTUS = pa.list_(pa.struct([("role", pa.string()), ("key", pa.string())]))
LISTS = ("mentions", "hashtags", "urls", "places", "cashtags")  # fields of a post that hold a list of strings
USERS = (
    "author",
    "reply_to",
    "quoted",
)  # fields that hold a user, or null: the author, and whose post is answered or quoted
FIELDS = (*USERS, *LISTS, "community", "text")  # of a post, from which roles can come
# From which fields the key forms can take keys; a form that is not here takes them from any.
READABLE = {
    "user": (*USERS, "mentions"),
    "hashtag": ("hashtags",),
    "domain": ("urls",),
    "cashtag": ("cashtags", "text"),
    "community": ("community",),
    "verbatim": (*USERS, "mentions", "hashtags", "urls", "places", "community"),
}
# The corpus writes these in their key form already: nothing is left to do.
WRITTEN = {*((field, "user") for field in (*USERS, "mentions")), ("hashtags", "hashtag"), ("cashtags", "cashtag")}


class RoleLike(Protocol):
    """What this module wants of a role: the config class has it, and `Role`, which needs no pydantic."""

    @property
    def type(self) -> str: ...
    @property
    def field(self) -> str | None: ...
    @property
    def engagement(self) -> str | None: ...


@dataclass(frozen=True)
class Role:
    """One way in which an NTU belongs to a post."""

    type: str
    field: str | None = None  # of FIELDS
    engagement: str | None = None  # a kind of engagement, in place of a field: whoever engaged; for the graph alone


@dataclass(frozen=True)
class NtuScheme:
    """The types with their key forms, and the roles, in order."""

    types: Mapping[str, str]  # type -> the name of its key form, of KEY_FORMS
    roles: Mapping[str, RoleLike]

    @property
    def of_posts(self) -> dict[str, RoleLike]:
        """The roles that come from fields of a post."""
        return {name: role for name, role in self.roles.items() if role.field is not None}

    @property
    def hashtag_roles(self) -> set[str]:
        """The roles whose keys are a post's hashtags, however they are written."""
        of_posts = self.of_posts.items()
        return {name for name, role in of_posts if role.field == "hashtags" or self.types[role.type] == "hashtag"}

    def key_form(self, role: str) -> str | None:
        """The key form that turns a value of the role's field into keys; None where the corpus has written keys."""
        about = self.roles[role]
        form = self.types[about.type]
        return None if (about.field, form) in WRITTEN or form == "verbatim" else form  # verbatim changes nothing

    def to_json(self) -> dict[str, Any]:
        """A JSON value, the reverse of `from_json`."""
        roles = {
            name: {key: value for key in ("type", "field", "engagement") if (value := getattr(role, key)) is not None}
            for name, role in self.roles.items()
        }
        return {"types": dict(self.types), "roles": roles}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> NtuScheme:
        """From what `to_json` gave."""
        return cls(dict(value["types"]), {name: Role(**role) for name, role in value["roles"].items()})


def ntus_of(scheme: NtuScheme, fields: Mapping[str, Sequence[Any]]) -> pa.Array:
    """The NTUs of N posts.

    Args:
        scheme: the roles and types.
        fields: N values of each of FIELDS that is there, as in the posts table: a string or None (author, text), or a
            list of strings or None. A field that is not there gives no NTU.

    Returns:
        N lists of type NTUS. A key stands once in a role of a post.
    """
    count = len(next(iter(fields.values())))
    columns = [
        (name, scheme.key_form(name), fields[role.field])
        for name, role in scheme.of_posts.items()
        if role.field is not None and role.field in fields
    ]
    roles: list[str] = []
    keys: list[str] = []
    offsets = np.zeros(count + 1, np.int32)
    for post in range(count):
        for name, form, values in columns:
            own = keys_of(values[post], form)
            roles += [name] * len(own)
            keys += own
        offsets[post + 1] = len(keys)
    pairs = pa.StructArray.from_arrays([pa.array(roles, pa.string()), pa.array(keys, pa.string())], ["role", "key"])
    return pa.ListArray.from_arrays(pa.array(offsets), pairs)


def keys_of(value: Any, form: str | None) -> list[str]:
    """The distinct keys of one value of a field: a string, a list of strings, or None."""
    values = [] if value is None else [value] if isinstance(value, str) else value
    if form is not None:
        values = [key for one in values if one is not None for key in KEY_FORMS[form](one)]
    return list(dict.fromkeys(key for key in values if key))


def rows_of(
    table: EmbeddingTable, scheme: NtuScheme, ntus: pa.Array, roles: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The NTUs of N posts that play one of `roles`, as rows of the table.

    Args:
        table: the embedding table.
        scheme: says the type of each role.
        ntus: N lists of type NTUS.
        roles: which count.

    Returns:
        rows int64 [n], -1 for an unknown NTU, in the order of each post's list; offsets int64 [N + 1]; and for each of
        the n NTUs its place int64 [n] among all NTUs of the posts.
    """
    ntus = ntus.combine_chunks() if isinstance(ntus, pa.ChunkedArray) else ntus
    pairs = ntus.flatten()
    names = pairs.field("role")
    chosen = pc.is_in(names, pa.array(list(roles), pa.string())).to_numpy(False).astype(bool)
    lengths = pc.fill_null(pc.list_value_length(ntus), 0).to_numpy(False)
    owners = np.repeat(np.arange(len(ntus)), lengths)
    offsets = np.zeros(len(ntus) + 1, np.int64)
    np.cumsum(np.bincount(owners[chosen], minlength=len(ntus)), out=offsets[1:])
    places = np.flatnonzero(chosen)
    own = pairs.take(pa.array(places))
    rows = np.full(len(places), -1, np.int64)
    by_type: dict[str, list[str]] = {}
    for role in roles:
        by_type.setdefault(scheme.roles[role].type, []).append(role)
    for ntu_type, of_type in by_type.items():
        where = np.flatnonzero(pc.is_in(own.field("role"), pa.array(of_type)).to_numpy(False).astype(bool))
        rows[where] = table.rows(ntu_type, own.field("key").take(pa.array(where)).to_pylist())
    return rows, offsets, places


def known_posts(table: EmbeddingTable, scheme: NtuScheme, ntus: pa.Array, roles: Sequence[str]) -> np.ndarray:
    """Whether each of N posts has at least one known NTU that plays one of `roles`: bool [N]."""
    rows, offsets, _ = rows_of(table, scheme, ntus, roles)
    owners = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return np.bincount(owners[rows >= 0], minlength=len(offsets) - 1) > 0
