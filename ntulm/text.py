"""What a hashtag is: the one place where texts are searched for hashtags and hashtags are brought to one form.

Every source and every task uses these functions, so that a hashtag means the same node of the graph everywhere.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

_SIGNS = "#＃"
_SIGN = re.compile(f"[{_SIGNS}]")


@lru_cache(1 << 16)  # few hashtags are most of those used
def normalise(tag: str) -> str:
    """The form that posts, graph and tasks compare: NFKC, casefolded, without the sign; idempotent."""
    while (form := unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", tag).casefold())) != tag:
        tag = form
    bare = tag.strip().lstrip(_SIGNS)
    return bare if bare == tag else normalise(bare)


def extract(text: str) -> list[str]:
    """The hashtags of a text in normal form, distinct, in order of appearance.

    As on Twitter: a sign that does not follow a letter, digit, `&` or `/`, then letters, marks, digits and
    underscores, at least one of them a letter.
    """
    if not _SIGN.search(text):
        return []
    tags = []
    for sign in _SIGN.finditer(text):
        before = text[sign.start() - 1] if sign.start() else " "
        token = text[sign.end() : _token_end(text, sign.end())]
        if not (_in_token(before) or before in "&/") and any(character.isalpha() for character in token):
            tags.append(normalise(token))
    return list(dict.fromkeys(tags))


def remove(text: str, tag: str) -> str:
    """The text without any `#tag`, whatever its case, width or composition; other hashtags stay.

    A tag that a source's own list spells with characters that `extract` would stop at is found as well. What stood
    on the two sides of a removed hashtag is kept apart by a space, so that no new one can form.
    """
    target = normalise(tag)
    if not target or not _SIGN.search(text):
        return text
    parts, at = [], 0
    for sign in _SIGN.finditer(text):
        if sign.start() >= at and (end := _end_of(text, sign.end(), target)):
            parts.append(text[at : sign.start()])
            at = end
    return " ".join(" ".join([*parts, text[at:]]).split()) if at else text


def _end_of(text: str, start: int, target: str) -> int:
    """Where the target ends if the text holds it, as a whole token, from `start`; else 0."""
    longest = min(len(text), start + 4 * len(target) + 4)  # composed from up to four characters, marks included
    for end in range(longest, start, -1):
        if _token_end(text, end) == end and normalise(text[start:end]) == target:
            return end
    return 0


def _token_end(text: str, start: int) -> int:
    end = start
    while end < len(text) and _in_token(text[end]):
        end += 1
    return end


def _in_token(character: str) -> bool:
    if character.isalnum() or character == "_":
        return True
    # Marks belong to the letter before them (vowel signs, accents); variation selectors only choose a glyph.
    return unicodedata.category(character)[0] == "M" and not "\ufe00" <= character <= "\ufe0f"


def user_key(name: str, casefold: bool = False) -> str:
    """A user as posts and graph write it: without `@` and white space around it, in lower case where handles are."""
    bare = name.strip().lstrip("@＠").strip()
    return bare.lower() if casefold else bare


def domain(link: str) -> str:
    """The host of a link, in lower case, without `www.`, port and user; empty where there is none."""
    match = re.match(r"(?:[a-z][a-z0-9+.-]*://)?(?:[^/?#@\s]*@)?([^/?#:\s]+)", link.strip(), re.IGNORECASE)
    return match[1].lower().removeprefix("www.").strip(".") if match else ""


_CASHTAG = re.compile(r"(?<![\w$])\$([A-Za-z]{1,6}(?:[._][A-Za-z]{1,2})?)(?!\w)")


def cashtags(text: str) -> list[str]:
    """The stock symbols of a text (`$AAPL`), in lower case, without the sign."""
    return [found.lower() for found in _CASHTAG.findall(text)]


# How the keys of a type of NTU are written: from one value of a post's field to its keys. Idempotent on keys.
KEY_FORMS: dict[str, Callable[[str], list[str]]] = {
    "verbatim": lambda value: [value.strip()],
    "user": lambda value: [user_key(value)],
    "hashtag": lambda value: [normalise(value)],
    "domain": lambda value: [domain(value)],
    "cashtag": cashtags,
}
