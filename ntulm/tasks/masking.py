"""Taking out of a post what gives its label away literally, so that a topic task asks for more than spelling (§4.1)."""

import re
import unicodedata
from collections.abc import Iterable

from ntulm.text import mask_links, without_cashtags

_LEGAL_FORM = re.compile(
    r"[\s,&]+(?:inc|incorporated|corp|corporation|co|company|ltd|limited|plc|p\.l\.c|llc|l\.p|lp|n\.v|s\.a|se|ag|sa/nv|group"
    r"|holdings?|international)\.?$",
    re.IGNORECASE,
)


class Mask:
    """What to take out of texts and hashtags.

    Args:
        cashtags: whether to take out `$SYMBOL`.
        words: words and phrases to take out: any case, whole words, also behind `#`, `@` or `$`, also written
            together (`#ConsumerGoods`); a company's name also without its legal form (`Acme Inc.`, `Acme`).
    """

    def __init__(self, cashtags: bool, words: Iterable[str]) -> None:
        self.cashtags = cashtags
        literals = sorted({form for word in words for form in spellings(word)}, key=lambda form: (-len(form), form))
        self.words = _pattern(literals) if literals else None

    def text(self, text: str) -> str:
        """The text in NFKC without cashtags and label words, its links as `http`; white space is joined.

        Links hold symbols and names, too; to take those alone out would leave the rest as odd words.
        """
        text = mask_links(unicodedata.normalize("NFKC", text))
        if self.cashtags:
            text = without_cashtags(text)
        if self.words:
            text = self.words.sub(" ", text)
        return " ".join(text.split())

    def hashtags(self, tags: list[str]) -> list[str]:
        """The hashtags without those that are, or contain between `_`, a label word."""
        return [tag for tag in tags if not (self.words and self.words.search(tag))]


def spellings(word: str) -> set[str]:
    """The ways in which a word or phrase may be written that count as the same."""
    bare = " ".join(unicodedata.normalize("NFKC", word).casefold().split()).lstrip("$#@ ")
    forms = {bare, bare.removeprefix("the ")}
    while (shorter := _LEGAL_FORM.sub("", bare)) != bare:
        bare = shorter.rstrip(" ,.&")
        forms |= {bare, bare.removeprefix("the ")}
    forms |= {"".join(filter(str.isalnum, form)) for form in forms}
    return {form for form in forms if form}


def _pattern(literals: list[str]) -> re.Pattern[str]:
    words = "|".join(r"[\s_-]+".join(map(re.escape, re.split(r"[\s_-]+", literal))) for literal in literals)
    # `_` separates words in hashtags. The t of "don't" is not the symbol T; a word in quotes is a word.
    return re.compile(rf"(?<![^\W_])(?<![^\W_]['’])[#@$]?(?:{words})(?![^\W_])", re.IGNORECASE)
