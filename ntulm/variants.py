"""What each variant sees of a post: the text, and which NTUs, in slots (§3.2) or as words. Library only.

A variant's name is its meaning. `text` has no slot: the baseline, the paper's "BERT (MLM fine-tuned)". Else

    variant = slot { "." slot }        several slots stand side by side, each with a projection of its own
    slot    = role { "+" role }        one projection of the mean of the vectors: the paper's
            | role "++" role { "++" role }   each type has a projection of its own, before the mean (limitation 1)

where a role is one of `ntus.roles` that comes from a field of the post. `author`, `hashtag` and `author+hashtag` are
the paper's NTULM; `author.hashtag` has two slots. These signs mean nothing to shells, YAML lists, paths and DVC.

Three more answer what a reviewer would ask: `words` writes author and hashtags into the text instead of a slot,
`unadapted` is the backbone as it was found, and `shuffled` is `author+hashtag` with the NTUs of another post: its gain
must vanish if nothing leaks.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ntulm.errors import UserError

SHUFFLE_SEED = 0
ROLE = r"[a-z][a-z0-9_]*"
BOTH = "author+hashtag"  # of `shuffled`, `words`


@dataclass(frozen=True)
class Slot:
    """One input position: the roles whose NTUs it takes the mean of."""

    roles: tuple[str, ...]
    per_type: bool = False  # a projection for each type, before the mean


@dataclass(frozen=True)
class Variant:
    """One way to present a post to the language model."""

    slots: tuple[Slot, ...] = ()  # without any there is no NTU
    words: tuple[str, ...] = ()  # roles whose keys stand before the text
    shuffled: bool = False  # each post has the NTUs of another one
    trained: bool = True  # fine-tuned on posts

    @property
    def roles(self) -> tuple[str, ...]:
        """All roles of all slots, each once."""
        return tuple(dict.fromkeys(role for slot in self.slots for role in slot.roles))


NAMED = ("text", "shuffled", "words", "unadapted")  # no role may be called so


def parse_variant(name: str, roles: Mapping[str, Any]) -> Variant:
    """The variant of a name.

    Args:
        name: see above.
        roles: the roles that slots can take: those of `ntus.roles` that come from a field of a post.

    Raises:
        UserError: not of the grammar, or a role that is not there or stands twice.
    """
    if name == "text":
        return Variant()
    if name == "unadapted":
        return Variant(trained=False)
    if name == "words":
        return Variant(words=_slot(name, BOTH, roles).roles)
    if name == "shuffled":
        return Variant(slots=(_slot(name, BOTH, roles),), shuffled=True)
    slots = tuple(_slot(name, part, roles) for part in name.split("."))
    used = [role for slot in slots for role in slot.roles]
    if len(set(used)) < len(used):
        raise UserError(f"variant {name!r}: a role stands twice; expected each once")
    return Variant(slots=slots)


def _slot(variant: str, text: str, roles: Mapping[str, Any]) -> Slot:
    match = re.fullmatch(rf"{ROLE}(?:(\+\+?){ROLE}(?:\1{ROLE})*)?", text)
    if match is None:
        raise UserError(
            f"variant {variant!r}: {text!r} is no slot; expected roles joined by + (one projection of their mean) or "
            f"by ++ (a projection per type), slots by a dot, or one of {', '.join(NAMED)}"
        )
    own = tuple(re.findall(ROLE, text))
    for role in own:
        if role not in roles:
            raise UserError(f"variant {variant!r}: unknown role {role!r}; ntus.roles has {', '.join(roles)}")
    return Slot(own, per_type=match[1] == "++")
