"""What comes from an export made harmless for a terminal: texts, names of columns and files are hostile input.

Library of `ntulm inspect`.
"""

from __future__ import annotations

import unicodedata

TEXT_LENGTH, NAME_LENGTH = 100, 60  # characters that are shown
ELLIPSIS = "…"
REPLACED = "\ufffd"
JOINERS = "\u200c\u200d"  # within words of some scripts, and in emoji
# Control characters (escape sequences begin with one), formats (those that turn the direction of writing among them),
# surrogates, private use, unassigned, separators of lines and paragraphs.
UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def is_harmless(character: str) -> bool:
    """Whether a terminal shows the character and does nothing else."""
    return character in JOINERS or unicodedata.category(character) not in UNSEEN


def harmless(text: str, length: int | None = None) -> str:
    """The text in one line, without anything that a terminal would obey, cut to a length.

    Line breaks, tabs and other white space are a space each; what is left of characters that are not to be seen is `�`.
    """
    short = text if length is None or len(text) <= length else text[: length - 1] + ELLIPSIS
    return "".join(
        " " if character.isspace() else character if is_harmless(character) else REPLACED for character in short
    )
