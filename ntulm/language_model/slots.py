"""The NTUs of posts as input of a model's slots (§3.2), looked up batch by batch. Library only.

Shapes:
    N posts   B posts of a batch   n NTUs of a slot   D NTU vector   K types of a slot   T tokens of all posts
    C channels: a slot has one, or one per type if it has a projection per type

A slot's NTUs of a post with m of them count 1 / m each. A slot with one projection takes their mean, where the mean of
the whole table stands for an unknown NTU and for a post without any: the paper's. A slot with a projection per type
takes, per type, the sum of the vectors of that type over m, and the share of the NTUs that have it; the mean of a type
stands for an unknown NTU of it, and a post without any has 1 / K of each type's mean.

Where a model leaves slots out (`NtulmConfig.slot_unknown`), one is shown only to posts of which it knows an NTU; what
it holds is the same as ever.

The NTUs of all slots are numbered one after the other, slot by slot; draws and hiding go by these numbers.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from ntulm.device import to_device
from ntulm.embeddings.table import EmbeddingTable
from ntulm.language_model.tokens import Tokens
from ntulm.ntus import NtuScheme, rows_of
from ntulm.variants import Variant

NORM_POSTS = 8192  # posts whose slot vectors tell the typical norm
Hide = Callable[[np.ndarray], np.ndarray]  # of numbers int64 [m] of NTUs: which do not count, bool [m]


def describe_slots(scheme: NtuScheme, variant: Variant) -> list[dict[str, Any]]:
    """The slots of a variant as JSON values, as they stand in a model's configuration."""
    return [
        {"roles": list(slot.roles), "types": types_of(scheme, slot.roles), "per_type": slot.per_type}
        for slot in variant.slots
    ]


def types_of(scheme: NtuScheme, roles: Sequence[str]) -> list[str]:
    """The types of roles, each once, in the order of the roles."""
    return list(dict.fromkeys(scheme.roles[role].type for role in roles))


@dataclass(frozen=True)
class SlotNtus:
    """The NTUs of N posts in one slot."""

    first: int  # number of the first NTU
    rows: np.ndarray  # int64 [n], rows of the table, -1 for an unknown NTU
    offsets: np.ndarray  # int64 [N + 1]; post p has the NTUs offsets[p] to offsets[p + 1]
    places: np.ndarray  # int64 [n], the place of each among all NTUs of the posts, in whatever slot
    types: tuple[str, ...] = ()  # of the channels; without any there is one channel for all types
    channels: np.ndarray | None = None  # int64 [n], the channel of each; None without `types`

    def vectors(
        self, table: EmbeddingTable, posts: np.ndarray, hide: Hide | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """float32 [B, C, D] of `posts` int64 [B], and float32 [B, C], the share of the NTUs that each channel has."""
        chosen, offsets = self._chosen(posts, hide)
        if self.channels is None:
            return table.slot_vectors(self.rows[chosen], offsets)[:, None], None
        return table.slot_vectors_by_type(self.rows[chosen], offsets, self.channels[chosen], self.types)

    def known(self, posts: np.ndarray, hide: Hide | None) -> np.ndarray:
        """Whether the table knows one of the NTUs that count, bool [B] of `posts` int64 [B]."""
        chosen, offsets = self._chosen(posts, hide)
        counted = np.concatenate([[0], np.cumsum(self.rows[chosen] >= 0)])
        return np.diff(counted[offsets]) > 0

    def _chosen(self, posts: np.ndarray, hide: Hide | None) -> tuple[np.ndarray, np.ndarray]:
        """The places int64 [m] of the NTUs that count, post by post, and where each post's begin, int64 [B + 1]."""
        starts, counts = self.offsets[posts], np.diff(self.offsets)[posts]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        chosen = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts) + np.repeat(starts, counts)
        if hide is None:
            return chosen, offsets
        shown = ~hide(chosen + self.first)
        return chosen[shown], np.concatenate([[0], np.cumsum(shown)])[offsets]


@dataclass(frozen=True)
class Slots:
    """The NTUs of N posts in all slots of a variant."""

    table: EmbeddingTable
    slots: tuple[SlotNtus, ...]
    leave_out: bool = False  # slots of which nothing is known

    @classmethod
    def of(
        cls, table: EmbeddingTable, scheme: NtuScheme, variant: Variant, ntus: pa.ListArray, leave_out: bool = False
    ) -> "Slots":
        """Look up the NTUs of N posts, N lists of type `ntulm.ntus.NTUS`; `leave_out`: see `NtulmConfig.leaves_out`."""
        slots: list[SlotNtus] = []
        first = 0
        for slot in variant.slots:
            rows, offsets, places = rows_of(table, scheme, ntus, slot.roles)
            types = tuple(types_of(scheme, slot.roles)) if slot.per_type else ()
            channels = None
            if types:
                channel_of = {role: types.index(scheme.roles[role].type) for role in slot.roles}
                roles = ntus.flatten().field("role").take(pa.array(places)).to_pylist()
                channels = np.fromiter((channel_of[role] for role in roles), np.int64, len(roles))
            slots.append(SlotNtus(first, rows, offsets, places, types, channels))
            first += len(rows)
        return cls(table, tuple(slots), leave_out)

    def vectors(self, posts: np.ndarray, hide: Hide | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """The NTU vectors of `posts` int64 [B] by channel.

        Args:
            posts: which posts.
            hide: tells which NTUs do not count: as if the post had not used them. None: all count.

        Returns:
            float32 [B, C, D], and float32 [B, C], the share of a slot's NTUs that each channel has; None if all are 1.
        """
        found = [slot.vectors(self.table, posts, hide) for slot in self.slots]
        vectors = found[0][0] if len(found) == 1 else np.concatenate([one for one, _ in found], axis=1)
        if all(shares is None for _, shares in found):
            return vectors, None
        ones = np.ones((len(posts), 1), np.float32)
        return vectors, np.concatenate([ones if shares is None else shares for _, shares in found], axis=1)

    def known(self, posts: np.ndarray, hide: Hide | None = None) -> np.ndarray:
        """Whether the table knows an NTU of each slot: bool [B, S] of `posts` int64 [B]; `hide` as in `vectors`."""
        return np.stack([slot.known(posts, hide) for slot in self.slots], axis=1)

    def owners(self, numbers: np.ndarray) -> np.ndarray:
        """The post of each NTU by its number: int64 [m]."""
        owners = np.zeros(len(numbers), np.int64)
        for slot in self.slots:
            own = (numbers >= slot.first) & (numbers < slot.first + len(slot.rows))
            owners[own] = np.searchsorted(slot.offsets, numbers[own] - slot.first, side="right") - 1
        return owners

    def tensors(self, posts: np.ndarray, device: torch.device, hide: Hide | None = None) -> dict[str, Tensor]:
        """What `vectors` gives as the arguments of the model that it stands for, on the device."""
        vectors, shares = self.vectors(posts, hide)
        tensors = {"slot": to_device(torch.from_numpy(vectors), device)}
        if shares is not None:
            tensors["slot_shares"] = to_device(torch.from_numpy(shares), device)
        if self.leave_out:
            known = self.known(posts, hide).astype(np.int64)
            tensors["slot_mask"] = to_device(torch.from_numpy(known), device)
        return tensors

    def typical_norms(self) -> list[float]:
        """Per slot, the root mean square norm of its vectors, summed over channels; of some posts spread over all."""
        count = len(self.slots[0].offsets) - 1
        posts = np.unique(np.linspace(0, count - 1, NORM_POSTS).astype(np.int64))
        vectors = (slot.vectors(self.table, posts, None)[0] for slot in self.slots)
        # One channel is not summed, so that its bytes stay.
        sums = (found[:, 0] if found.shape[1] == 1 else found.sum(axis=1) for found in vectors)
        return [max(float(np.sqrt(np.square(found).sum(axis=1).mean())), 1e-6) for found in sums]

    def fingerprint(self) -> str:
        """A hash of the NTUs and of the table: its mean, which any other training changes, and its overlay."""
        digest = hashlib.sha256(self.table.mean.tobytes())
        if self.table.overlay is not None:
            digest.update(self.table.overlay.hashes.tobytes() + self.table.overlay.vectors.tobytes())
        for slot in self.slots:
            digest.update(repr((slot.types, len(slot.rows))).encode() + slot.rows.tobytes() + slot.offsets.tobytes())
            digest.update(b"" if slot.channels is None else slot.channels.tobytes())
        digest.update(b"left out" if self.leave_out else b"")
        return digest.hexdigest()


def ntus_of_tokens(slots: Slots, tokens: Tokens, scheme: NtuScheme, variant: Variant, ntus: pa.ListArray) -> np.ndarray:
    """The NTUs of the slots in whose hashtag each token stands.

    Args:
        slots: the slots of the same posts.
        tokens: of N posts.
        scheme: says which roles have hashtags.
        variant: says which roles each slot takes.
        ntus: N lists of type `ntulm.ntus.NTUS`, from which the slots were made.

    Returns:
        Numbers of NTUs int64 [R, T], -1 for none; R roles of the slots have hashtags.
    """
    pairs = ntus.flatten()
    inside = np.flatnonzero(tokens.in_hashtag)
    owners = np.searchsorted(tokens.offsets, inside, side="right") - 1
    tags = [tokens.hashtags[number] for number in tokens.hashtag[inside]]
    found: list[np.ndarray] = []
    for slot, about in zip(slots.slots, variant.slots, strict=True):
        own = pairs.take(pa.array(slot.places))
        posts = np.repeat(np.arange(len(slot.offsets) - 1), np.diff(slot.offsets))
        for role in about.roles:
            if role not in scheme.hashtag_roles:
                continue
            of_role = np.flatnonzero(pc.equal(own.field("role"), role).to_numpy(False).astype(bool))
            keys = own.field("key").take(pa.array(of_role)).to_pylist()
            numbers = (of_role + slot.first).tolist()
            number_of = dict(zip(zip(posts[of_role].tolist(), keys, strict=True), numbers, strict=True))
            of_token = np.full(len(tokens.ids), -1, np.int64)
            of_token[inside] = [number_of.get(key, -1) for key in zip(owners.tolist(), tags, strict=True)]
            found.append(of_token)
    return np.stack(found) if found else np.zeros((0, len(tokens.ids)), np.int64)
