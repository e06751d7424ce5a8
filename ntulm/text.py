"""What a hashtag, a mention, a link, a cashtag and a user key are: the one place where texts are read.

Sources, tasks, the tokeniser's view, arriving posts and new posts all use these functions, so that a text means the
same NTUs everywhere. Where SQL reads texts for speed it takes its patterns from here (`SQL_PATTERNS`, `SPACES`), and tests
prove that both say the same. Standard library only: machines that only embed posts use it.

What is inside a link is neither a hashtag nor a mention. Places are half-open: text[start:end].
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

# White space as `str.isspace` has it; the engine of DuckDB has fewer of them in its `\s`.
SPACES = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
# Letters in both cases and no flag for them: in DuckDB's engine, as in ours, a long s would be an s. `\b` is ASCII's.
_FULL_LINK_PATTERN = rf"[hH][tT][tT][pP][sS]?://[^{SPACES}]+"
_LINK_PATTERN = rf"{_FULL_LINK_PATTERN}|\b[wW][wW][wW]\.[^.{SPACES}][^{SPACES}]*"
_NAME = "[A-Za-z0-9_]+"
_HANDLE_PATTERN = rf"{_NAME}(?:[.-]+{_NAME})*(?:@[A-Za-z0-9]+(?:[.-]+[A-Za-z0-9]+)*)?"
SQL_PATTERNS = {
    "written_pattern": f"[^{SPACES}]",
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


@dataclass(frozen=True)
class Fields:
    """What a text says by itself, in the forms in which posts have it, distinct, in order of appearance."""

    hashtags: list[str]
    mentions: list[str]
    urls: list[str]


def readable(raw: str, reading: Reading) -> str:
    """A raw text as posts have it: without HTML tags where the source writes HTML, HTML entities resolved."""
    return unescaped(plain_text(raw) if reading.html else raw)


def fields_of(text: str, reading: Reading) -> Fields:
    """The hashtags, mentions and links of a text (a `readable` one), as the corpus takes them where none are given."""
    named = mentions(text, reading.mention_hosts) if reading.mentions_in_text else []
    return Fields(extract(text), _distinct(user_key(name, reading.casefold_users) for name in named), links(text))


# Hashtags

_SIGNS = "#＃"
_SIGN = re.compile(f"[{_SIGNS}]")
_WORD = re.compile(r"\w*")
_JOINERS = "\u200c\u200d"  # inside words of Persian, Sinhala and others; between emoji too, which are no words


@lru_cache(1 << 16)  # few hashtags are most of those used
def normalise(tag: str) -> str:
    """The form that posts, graph and tasks compare: NFKC, casefolded, without the sign; idempotent."""
    while (form := unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", tag).casefold())) != tag:
        tag = form
    bare = tag.strip().lstrip(_SIGNS)
    return bare if bare == tag else normalise(bare)


def hashtag_spans(text: str) -> list[Span]:
    """The hashtags of a text with their places, the sign included, in order of appearance.

    As on Twitter: a sign that does not follow a letter, digit, `&` or `/`, then letters, marks, digits and
    underscores, at least one of them a letter.
    """
    if "#" not in text and "＃" not in text:
        return []
    text = _without_links(text)
    spans = []
    for sign in _SIGN.finditer(text):
        start, end = sign.end(), _token_end(text, sign.end())
        before = text[sign.start() - 1] if sign.start() else " "
        if end == start or text[start] in _JOINERS or _in_word(before) or before in "&/":
            continue
        token = text[start:end]
        if any(character.isalpha() for character in token):
            spans.append((sign.start(), end, normalise(token)))
    return spans


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

_LINK = re.compile(_LINK_PATTERN, re.ASCII)
_FULL_LINK = re.compile(_FULL_LINK_PATTERN)
_AFTER_LINK = ".,;:!?)]}\"'…"  # the sentence's own


def links(text: str) -> list[str]:
    """The links of a text, with `http(s)://` or `www.`, distinct; the punctuation that ends them is the sentence's."""
    return _distinct(found[0].rstrip(_AFTER_LINK) for found in _links(text))


def without_full_links(text: str) -> str:
    """The text with nothing in the place of links with `http(s)://`.

    For telling whether two texts are the same: every copy has another shortened link, but the same `www.` typed by hand.
    """
    return _FULL_LINK.sub("", text) if "://" in text else text


def domain(link: str) -> str:
    """The host of a link, in lower case, without `www.`, port and user; empty where there is none."""
    match = re.match(r"(?:[a-z][a-z0-9+.-]*://)?(?:[^/?#@\s]*@)?([^/?#:\s]+)", link.strip(), re.IGNORECASE)
    return match[1].lower().removeprefix("www.").strip(".") if match else ""


def _links(text: str) -> Iterator[re.Match[str]]:
    return _LINK.finditer(text) if _may_have_links(text) else iter(())


def _may_have_links(text: str) -> bool:
    return "://" in text or "www." in text.lower()


def _without_links(text: str) -> str:
    """The same text at the same places, with spaces where links are."""
    return _LINK.sub(lambda found: " " * len(found[0]), text) if _may_have_links(text) else text


# Mentions and users

# A name that runs on in accented letters is no handle: those are ASCII, and `@josé` does not mean `@jos`.
_PLAIN = r"[A-Za-z0-9_]++(?![À-ÖØ-öø-ɏ])"
_MENTION = re.compile(rf"(?<!\w)[@＠]({_PLAIN})")
_MENTION_WITH_HOST = re.compile(rf"(?<!\w)[@＠]({_HANDLE_PATTERN})")
# Where the network is not known: a host only where it can be nothing else. `@bob.Thanks` is a sentence's full stop.
_MENTION_ANYWHERE = re.compile(
    rf"(?<!\w)[@＠](?:{_NAME}(?:[.-]+{_NAME})*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"
    rf"|[A-Za-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{{2,}}(?![\w-])|{_PLAIN})"
)
_HOST_BEFORE = re.compile(r"\.[A-Za-z]{2,}/$")  # `host.example/@name` is a path
_LONGEST_ENDING = 25  # of a host, with its dot and slash


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
    if "@" not in text and "＠" not in text:
        return []
    return _distinct(found[1] for found in _mentions(_MENTION_WITH_HOST if hosts else _MENTION, _without_links(text)))


def _mentions(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    for found in pattern.finditer(text):
        start = found.start()
        if text[start - 1 : start] != "/" or not _HOST_BEFORE.search(text[max(0, start - _LONGEST_ENDING) : start]):
            yield found


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
    changes = _changes(text, links, mentions)
    spans = hashtag_spans(text)
    if not changes:
        return text, spans
    parts, at, shift, moved, waiting = [], 0, 0, [], 0
    for start, end, instead in [*changes, (len(text), len(text), "")]:
        while waiting < len(spans) and spans[waiting][0] < end:  # no hashtag holds a link or a mention
            first, last, tag = spans[waiting]
            moved.append((first + shift, last + shift, tag))
            waiting += 1
        parts += [text[at:start], instead]
        at, shift = end, shift + len(instead) - (end - start)
    return "".join(parts), moved


def mask_links(text: str) -> str:
    """The text with its links as `http`."""
    return masked(text, links=True, mentions=False)[0]


def mask_mentions(text: str) -> str:
    """The text with its mentions, hosts and all, as `@user`."""
    return masked(text, links=False, mentions=True)[0]


def bare(text: str) -> str:
    """The text with spaces in the place of links, mentions and hashtags: what is left are words."""
    characters = list(text)
    for start, end, _ in [*_changes(text, True, True), *hashtag_spans(text)]:
        characters[start:end] = " " * (end - start)
    return "".join(characters)


def _changes(text: str, links: bool, mentions: bool) -> list[Span]:
    changes = [(*found.span(), "http") for found in _links(text)] if links else []
    if mentions and ("@" in text or "＠" in text):
        found_mentions = _mentions(_MENTION_ANYWHERE, _without_links(text))
        changes = sorted([*changes, *((*found.span(), "@user") for found in found_mentions)])
    return changes


# Cashtags

_CASHTAG = re.compile(r"(?<![\w$])\$([A-Za-z]{1,6}(?:[._][A-Za-z]{1,2})?)(?!\w)")
# Without separators the quantifiers could not backtrack into each other: posts are hostile input.
_LIKE_A_CASHTAG = re.compile(r"[$＄][^\W\d_]\w*(?:[.-]\w+)*")


def cashtags(text: str) -> list[str]:
    """The stock symbols of a text (`$AAPL`), in lower case, without the sign."""
    return [found.lower() for found in _CASHTAG.findall(text)]


def without_cashtags(text: str) -> str:
    """The text with a space in the place of whatever could be a cashtag: more than `cashtags`, so that none is left."""
    return _LIKE_A_CASHTAG.sub(" ", text)


# HTML

_BREAK = re.compile(r"<(?:br|hr|/p|/div|/li|/blockquote|/pre|/h\d)\b[^>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^>]*>|<!--.*?-->", re.DOTALL)
# Only with the semicolon: `&copy=` in a link is no sign.
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def plain_text(markup: str) -> str:
    """HTML as the words that a browser would show; `&` and its like are taken for what they stand for."""
    return html.unescape(_TAG.sub("", _BREAK.sub("\n", markup))).strip()


def unescaped(text: str) -> str:
    """A text with its HTML entities resolved."""
    return _ENTITY.sub(lambda found: html.unescape(found[0]), text) if "&" in text else text


# How the keys of a type of NTU are written: from one value of a post's field to its keys. Idempotent on keys.
KEY_FORMS: dict[str, Callable[[str], list[str]]] = {
    "verbatim": lambda value: [value.strip()],
    "user": lambda value: [user_key(value)],
    "hashtag": lambda value: [normalise(value)],
    "domain": lambda value: [domain(value)],
    "cashtag": cashtags,
}


def _distinct(items: Iterable[str]) -> list[str]:
    return [item for item in dict.fromkeys(items) if item]
