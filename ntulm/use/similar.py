"""`ntulm similar`: what is near in the spaces of a model, by cosine, exactly.

ntulm similar '#tag'            the hashtags near a hashtag in the embedding table
ntulm similar @somebody         the users near a user
ntulm similar POST --store F    the posts of a store near a post: a text, or with --id one of the store
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.inference.directory import Settings, find
from ntulm.inference.model import load
from ntulm.inference.search import key_of, nearest_ntus, nearest_posts, vector_of
from ntulm.inference.version import version_of
from ntulm.printable import json_line
from ntulm.text import KEY_FORMS, user_key

SIGNS = {"#": "hashtag", "@": "user", "$": "cashtag"}  # before a key of that form
SHOWN_SIGNS = {form: sign for sign, form in SIGNS.items()}


def run(
    query: str, model_name: str | None, default: str, store: Path | None, by_id: bool, author: str | None, top: int
) -> None:
    """Print what is nearest, a JSON object a line.

    Args:
        query: `#hashtag`, `@user`, or a post.
        model_name: of the model; None: not said, then `default`, where one is needed.
        default: a model directory.
        store: where posts are looked for; None: NTUs are looked for in the table of the model.
        by_id: whether the query is the id of a post of the store.
        author: of the post.
        top: how many.

    Raises:
        UserError: something that is not there, or a post without a store.
    """
    if top < 1:
        raise UserError(f"--top {top}: expected at least 1")
    if store is None:
        found = ntus_near(query, model_name or default, top)
    elif by_id:
        version = None if model_name is None else version_of(find(model_name))
        vector, own = vector_of(store, version, query)
        found = [{"post_id": name, "cosine": cosine} for name, cosine in nearest_posts(store, own, vector, top, query)]
    else:
        found = posts_near(query, author, model_name or default, store, top)
    for one in found:
        sys.stdout.write(json_line(one | {"cosine": round(float(str(one["cosine"])), 4)}) + "\n")


def ntus_near(query: str, model_name: str, top: int) -> list[dict[str, object]]:
    """The NTUs of the query's own type that are nearest to it."""
    form = SIGNS.get(query[:1])
    if form is None or not query[1:].strip():
        raise UserError(f"{query!r}: expected #hashtag or @user, or --store FILE to look for posts near a text")
    directory = find(model_name)
    settings, table = Settings.read(directory), EmbeddingTable.load(directory)
    types = [name for name, own in settings.scheme.types.items() if own == form]
    keys = [user_key(query, settings.source.casefold_users)] if form == "user" else KEY_FORMS[form](query)
    places = [(name, row) for name in types for row in table.rows(name, keys) if row >= 0]
    if not places:
        raise UserError(f"{query!r}: not in the table of {model_name}, which has {len(table):,} NTUs")
    name, row = places[0]
    vector = table.vectors_of(np.array([row]))[0]
    found = nearest_ntus(table, vector, [name], top, [f"{name}\0{key}" for key in keys])
    return [{"ntu": SHOWN_SIGNS[form] + key_of(one), "cosine": cosine} for one, cosine in found]


def posts_near(text: str, author: str | None, model_name: str, store: Path, top: int) -> list[dict[str, object]]:
    """The posts of the store that are nearest to a post."""
    directory = find(model_name)
    vector = load(directory).encode([{"text": text, "author": author}])[0]
    found = nearest_posts(store, version_of(directory), vector, top)
    return [{"post_id": name, "cosine": cosine} for name, cosine in found]
