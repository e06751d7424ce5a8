"""Taking out of a post what gives its label away literally, so that a topic task asks for more than spelling (§4.1)."""

import re
import unicodedata
from collections.abc import Iterable

from ntulm.ntus import NtuScheme
from ntulm.posts import Posts
from ntulm.text import mask_links, without_cashtags

_LEGAL_FORM = re.compile(
    r"[\s,&]+(?:inc|incorporated|corp|corporation|co|company|ltd|limited|plc|p\.l\.c|llc|l\.p|lp|n\.v|s\.a|se|ag|sa/nv|group"
    r"|holdings?|international)\.?$",
    re.IGNORECASE,
)


class Mask:
    """What to take out of texts and NTUs.

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

    def gives_away(self, key_form: str, key: str) -> bool:
        """Whether the key of an NTU is, or contains between `_` or other signs, a label word, or is a masked symbol."""
        return (self.cashtags and key_form == "cashtag") or bool(self.words and self.words.search(key))

    def ntus(self, posts: Posts, scheme: NtuScheme) -> Posts:
        """The posts without the NTUs that give a label away; who wrote a post stays, whatever the name."""
        forms = {name: scheme.types[role.type] for name, role in scheme.of_posts.items() if role.field != "author"}
        return posts.replace(
            ntus=[
                [ntu for ntu in own if ntu["role"] not in forms or not self.gives_away(forms[ntu["role"]], ntu["key"])]
                for own in posts.ntus.to_pylist()
            ]
        )


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
