"""What a hashtag, a mention, a link, a cashtag and a user key are: the one place where texts are read.

Sources, tasks, the tokeniser's view, arriving posts and new posts all use these functions, so that a text means the
same NTUs everywhere. What SQL needs for speed it takes from here (`SQL_PATTERNS`, `SPACES`), and tests prove that both
say the same. Standard library only: machines that only embed posts use it.

What is inside a link is neither a hashtag nor a mention. Places are half-open: text[start:end].
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

# White space as `str.isspace` has it; the engine of DuckDB has fewer of them in its `\s`.
SPACES = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_NAME = "[A-Za-z0-9_]+"
_HANDLE_PATTERN = rf"{_NAME}(?:[.-]+{_NAME})*(?:@[A-Za-z0-9]+(?:[.-]+[A-Za-z0-9]+)*)?"
SQL_PATTERNS = {
    "written_pattern": f"[^{SPACES}]",  # a text has one at least
    "repost_pattern": rf"^(?:RT|rt) [@＠]{_HANDLE_PATTERN}:[{SPACES}]*",  # before the text of a repost typed by hand
}

Span = tuple[int, int, str]  # start, end, normal form or what stands there instead


@dataclass(frozen=True)
class Reading:
    """How a source writes users and texts: what its posts have been read by, and a new post has to be read by."""

    casefold_users: bool  # users are handles, the same in any case
    mention_hosts: bool  # in texts, `@name@host` and `@name.domain` are whole handles
    html: bool  # texts are HTML
    mentions_in_text: bool  # mentions in texts are written as users are; not so where users are ids
    pseudonyms: str | None = None  # users are pseudonyms: the fingerprint of the key (`ntulm/pseudonyms.py`)


@dataclass(frozen=True)
class Fields:
    """What a text says by itself, in the forms in which posts have it, distinct, in order of appearance."""

    hashtags: list[str]
    mentions: list[str]
    urls: list[str]
    cashtags: list[str]


def readable(raw: str, reading: Reading) -> str:
    """A raw text as posts have it: without HTML tags where the source writes HTML, HTML entities resolved."""
    return unescaped(plain_text(raw) if reading.html else raw)


def fields_of(text: str, reading: Reading) -> Fields:
    """The hashtags, mentions and links of a text (a `readable` one), as the corpus takes them where none are given."""
    named = mentions(text, reading.mention_hosts) if reading.mentions_in_text else []
    users = _distinct(user_key(name, reading.casefold_users) for name in named)
    return Fields(extract(text), users, links(text), _distinct(cashtags(text)))


# Hashtags

_SIGNS = "#＃"
_SIGN = re.compile(f"[{_SIGNS}]")
_WORD = re.compile(r"\w*")
_JOINERS = "\u200c\u200d"  # inside words of Persian, Sinhala and others; between emoji too, which are no words


@lru_cache(1 << 16)  # few hashtags are most of those used
def normalise(tag: str) -> str:
    """The form that posts, graph and tasks compare: NFKC, casefolded, without the sign; idempotent."""
    while (form := _folded(tag).lstrip(_SIGNS + SPACES).rstrip()) != tag:
        tag = form
    return tag


def _folded(tag: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", tag).casefold())


def hashtag_spans(text: str) -> list[Span]:
    """The hashtags of a text with their places, the sign included, in order of appearance.

    As on Twitter: a sign that does not follow a letter, digit, `&` or `/`, then letters, marks, digits and
    underscores, at least one of them a letter.
    """
    return _hashtags(_without_links(text)) if _has_any(text, _SIGNS) else []


def _hashtags(text: str) -> list[Span]:
    spans = []
    for sign in _SIGN.finditer(text):
        start, end = sign.end(), _token_end(text, sign.end())
        before = text[sign.start() - 1] if sign.start() else " "
        if end == start or text[start] in _JOINERS or _in_word(before) or before in "&/":
            continue
        token = text[start:end]
        if token.isalpha() or any(character.isalpha() for character in token):
            spans.append((sign.start(), end, normalise(token)))
    return spans


def _has_any(text: str, signs: str) -> bool:
    return signs[0] in text or signs[1] in text


def extract(text: str) -> list[str]:
    """The hashtags of a text in normal form, distinct, in order of appearance."""
    return _distinct(tag for _, _, tag in hashtag_spans(text))


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
    end = _word_end(text, start)
    while end < len(text) and (
        _is_mark(text[end]) or (text[end] in _JOINERS and end + 1 < len(text) and _in_word(text[end + 1]))
    ):
        end = _word_end(text, end + 1)
    return end


def _word_end(text: str, start: int) -> int:
    found = _WORD.match(text, start)
    assert found is not None  # it matches the empty string
    return found.end()


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_" or _is_mark(character)


def _is_mark(character: str) -> bool:
    # Marks belong to the letter before them (vowel signs, accents). Variation selectors only choose a glyph, and
    # enclosing marks make signs: the `#` and digits of keycaps.
    if character < "\u0300":
        return False
    return unicodedata.category(character) in ("Mn", "Mc") and not "\ufe00" <= character <= "\ufe0f"


# Links

# No flag for the case: with it, a long s is an s.
_FULL_LINK = re.compile(r"[hH][tT][tT][pP][sS]?://\S+")
_ANY_LINK = re.compile(rf"{_FULL_LINK.pattern}|(?a:\b)[wW][wW][wW]\.[^.\s]\S*")
_AFTER_LINK = ".,;:!?)]}\"'…"  # the sentence's own


def links(text: str) -> list[str]:
    """The links of a text, with `http(s)://` or `www.`, distinct; the punctuation that ends them is the sentence's."""
    return _distinct(text[start:end].rstrip(_AFTER_LINK) for start, end in _link_places(text))


def without_full_links(text: str) -> str:
    """The text with nothing in the place of links with `http(s)://`.

    For telling copies of a text: each has another shortened link, but the same `www.` typed by hand.
    """
    return _FULL_LINK.sub("", text) if "://" in text else text


def domain(link: str) -> str:
    """The host of a link, in lower case, without `www.`, port and user; empty where there is none."""
    match = re.match(r"(?:[a-z][a-z0-9+.-]*://)?(?:[^/?#@\s]*@)?([^/?#:\s]+)", link.strip(), re.IGNORECASE)
    return match[1].lower().removeprefix("www.").strip(".") if match else ""


def _link_places(text: str) -> list[tuple[int, int]]:
    if "www." in text.lower():
        return [found.span() for found in _ANY_LINK.finditer(text)]
    return [found.span() for found in _FULL_LINK.finditer(text)] if "://" in text else []


def _without_links(text: str) -> str:
    return _blanked(text, _link_places(text))


def _blanked(text: str, places: list[tuple[int, int]]) -> str:
    """The same text, everything else at its place, with spaces in these places."""
    parts, at = [], 0
    for start, end in places:
        parts += [text[at:start], " " * (end - start)]
        at = end
    return "".join([*parts, text[at:]]) if at else text


# Mentions and users

# A name that runs on in accented letters is no handle: those are ASCII, and `@josé` does not mean `@jos`.
_PLAIN = r"[A-Za-z0-9_]++(?![À-ÖØ-öø-ɏ])"
_AT = r"[@＠](?<!\w.)"  # the sign first, which is searched for quickly
_MENTION = re.compile(rf"{_AT}({_PLAIN})")
_MENTION_WITH_HOST = re.compile(rf"{_AT}({_HANDLE_PATTERN})")
# Where the network is not known: a host only where it can be nothing else. `@bob.Thanks` is a sentence's full stop.
_MENTION_ANYWHERE = re.compile(
    rf"{_AT}(?:{_PLAIN}(?![.@-])"  # most are
    rf"|(?>{_NAME}(?:[.-]+{_NAME})*)@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"
    rf"|[A-Za-z0-9-]++(?:\.[a-z0-9-]+)*\.[a-z]{{2,}}(?![\w-])"
    rf"|{_PLAIN})"
)
_TIED = re.compile(r"[@＠][\w.@＠-]*")
_HOST_BEFORE = re.compile(r"\.[A-Za-z]{2,}/$")  # `host.example/@name` is a path
_LONGEST_ENDING = 25  # of a host, with its dot and slash
_AT_SIGNS = "@＠"


def user_key(name: str, casefold: bool = False) -> str:
    """A user as posts and graph write it: without `@` and white space around it, in lower case where handles are."""
    bare = name.strip(SPACES).lstrip("@＠").strip(SPACES)
    if not casefold:
        return bare
    # One character for one, as SQL does it; Python alone makes two of a dotted I and looks at where a sigma stands.
    return bare.lower() if bare.isascii() else "".join(character.lower()[0] for character in bare)


def mentions(text: str, hosts: bool) -> list[str]:
    """The users whom a text mentions, as written, without `@`, distinct; e-mail addresses and paths are none.

    Args:
        text: of a post.
        hosts: whether the host in `@name@host` or the domain in `@name.domain` is part of the name; a full stop that
            ends a sentence is not.
    """
    if not _has_any(text, _AT_SIGNS):
        return []
    return _distinct(found[1] for found in _mentions(_MENTION_WITH_HOST if hosts else _MENTION, _without_links(text)))


def _mentions(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    found = list(pattern.finditer(text))
    if "/@" not in text and "/＠" not in text:
        return found
    kept: list[re.Match[str]] = []
    for one in found:
        named = (
            kept and kept[-1].end() == one.start() - 1
        )  # `@eve.example/@bob`: the host is of a handle, not of a path
        if named or not _HOST_BEFORE.search(text, max(0, one.start() - _LONGEST_ENDING), one.start()):
            kept.append(one)
    return kept


# Masked texts


def masked(text: str, links: bool, mentions: bool) -> tuple[str, list[Span]]:
    """A text with links as `http` and mentions, with their hosts, as `@user`, as TweetEval has them; and its hashtags.

    Args:
        text: of a post.
        links: whether to mask links.
        mentions: whether to mask mentions.

    Returns:
        The masked text; the hashtags of the text, at their places in the masked one.
    """
    link_places = _link_places(text)
    words = _blanked(text, link_places)
    hashtags = _hashtags(words) if _has_any(words, _SIGNS) else []
    changes = [(start, end, "http") for start, end in link_places] if links else []
    if mentions and _has_any(words, _AT_SIGNS):
        changes = sorted([*changes, *((*one.span(), "@user") for one in _mentions(_MENTION_ANYWHERE, words))])
    return _changed(text, changes, hashtags) if changes else (text, hashtags)


def _changed(text: str, changes: list[Span], hashtags: list[Span]) -> tuple[str, list[Span]]:
    """The text with something else in some places, and where its hashtags are then; none of them overlap."""
    parts, moved, waiting, at, shift = [], [], iter([*hashtags, (len(text), 0, "")]), 0, 0
    hashtag = next(waiting)
    for start, end, instead in [*changes, (len(text), len(text), "")]:
        while hashtag[0] < start:
            moved.append((hashtag[0] + shift, hashtag[1] + shift, hashtag[2]))
            hashtag = next(waiting)
        parts += [text[at:start], instead]
        at, shift = end, shift + len(instead) - (end - start)
    return "".join(parts), moved


def renamed(text: str, hosts: bool, name: Callable[[str], str], link: Callable[[str], str]) -> str:
    """A text with other names in its mentions, and with other links.

    More than `mentions` counts is replaced, so that no name is left: behind `host/`, and what is tied to a name with
    another `@`.

    Args:
        text: of a post.
        hosts: as in `mentions`.
        name: from a name as `mentions` gives it to the one in its place.
        link: from a link to the one in its place.
    """
    places = _link_places(text)
    changes = [(start, end, link(text[start:end])) for start, end in places]
    if _has_any(text, _AT_SIGNS):
        words, end = _blanked(text, places), 0
        for one in (_MENTION_WITH_HOST if hosts else _MENTION).finditer(words):
            if one.start() >= end:
                end = tied.end() if (tied := _TIED.match(words, one.end())) else one.end()
                changes.append((one.start(1), end, name(one[1])))
        changes.sort()
    return _changed(text, changes, [])[0] if changes else text


def mask_links(text: str) -> str:
    """The text with its links as `http`."""
    return masked(text, links=True, mentions=False)[0]


def mask_mentions(text: str) -> str:
    """The text with its mentions, hosts and all, as `@user`."""
    return masked(text, links=False, mentions=True)[0]


def bare(text: str) -> str:
    """The text with spaces in the place of links, mentions and hashtags: what is left are words."""
    words = _without_links(text)
    places = [(start, end) for start, end, _ in _hashtags(words)]
    return _blanked(words, sorted(places + [one.span() for one in _mentions(_MENTION_ANYWHERE, words)]))


# Cashtags

_CASHTAG = re.compile(r"(?<![\w$])\$([A-Za-z]{1,6}(?:[._][A-Za-z]{1,2})?)(?!\w)")
# Without separators the quantifiers could not backtrack into each other: posts are hostile input.
_LIKE_A_CASHTAG = re.compile(r"[$＄][^\W\d_]\w*(?:[.-]\w+)*")


def cashtags(text: str) -> list[str]:
    """The stock symbols of a text (`$AAPL`), in lower case, without the sign."""
    return [found.lower() for found in _CASHTAG.findall(text)]


def cashtag_key(symbol: str) -> str:
    """A stock symbol as posts have it: in lower case, without the sign."""
    return symbol.strip(SPACES).lstrip("$").lower()


def without_cashtags(text: str) -> str:
    """The text with a space in the place of whatever could be a cashtag: more than `cashtags`, so that none is left."""
    return _LIKE_A_CASHTAG.sub(" ", text)


# Communities

_SUBREDDIT = re.compile(r"^(?:\s*/?r/)+\s*", re.IGNORECASE)


def community_key(name: str) -> str:
    """A subreddit, group or channel: without `r/` and white space around it, in one case."""
    return _SUBREDDIT.sub("", name.strip(SPACES)).casefold()


# HTML

# The address of a quoted post, for those who cannot show the post itself: servers write it, not the author.
_QUOTED = {end: re.compile(rf'<{end[2:-1]} class="quote-inline">.*?{end}', re.DOTALL) for end in ("</p>", "</span>")}
_BREAK = re.compile(r"<(?:br|hr|/p|/div|/li|/blockquote|/pre|/h\d)\b[^>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^>]*>")
_TAG_OR_COMMENT = re.compile(rf"{_TAG.pattern}|<!--.*?-->", re.DOTALL)
_NUMBER_TOO_LONG = re.compile(r"&#[0-9]{1000,};?")  # which no character has and `int` refuses
# Only with the semicolon: `&copy=` in a link is no sign.
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def plain_text(markup: str) -> str:
    """HTML as the words that a browser would show; `&` and its like are taken for what they stand for."""
    # Patterns see only what can end where they look for an end: without one, each `<` would search the whole rest.
    if ' class="quote-inline">' in markup:
        markup = _without_quoted(markup)
    tags, rest = _after_last(">", markup)
    commented, rest = _after_last("-->", _BREAK.sub("\n", tags) + rest)
    tags, rest = _after_last(">", rest)
    words = _TAG_OR_COMMENT.sub("", commented) + _TAG.sub("", tags) + rest
    return html.unescape(_NUMBER_TOO_LONG.sub("\ufffd", words)).strip()


def _without_quoted(markup: str) -> str:
    for end, pattern in _QUOTED.items():
        tags, rest = _after_last(end, markup)
        markup = pattern.sub("", tags) + rest
    return markup


def _after_last(end: str, text: str) -> tuple[str, str]:
    """The text up to its last `end`, that included, and the rest."""
    before, found, rest = text.rpartition(end)
    return before + found, rest


def unescaped(text: str) -> str:
    """A text with its HTML entities resolved."""
    return _ENTITY.sub(lambda found: html.unescape(found[0]), text) if "&" in text else text


# How the keys of a type of NTU are written: from one value of a post's field to its keys. Idempotent on keys.
KEY_FORMS: dict[str, Callable[[str], list[str]]] = {
    "verbatim": lambda value: [value],
    "user": lambda value: [user_key(value)],
    "hashtag": lambda value: [normalise(value)],
    "domain": lambda value: [domain(value)],
    "cashtag": cashtags,
    "community": lambda value: [community_key(value)],
}


def _distinct(items: Iterable[str]) -> list[str]:
    return [item for item in dict.fromkeys(items) if item]
