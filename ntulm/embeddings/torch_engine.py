"""A step of the engine `torch`: the objective of ntulm/embeddings/pbg.py in few large matrix products (§3.1, App. B).

Library of `ntulm/embeddings/torch_training.py`, which says which edges are learnt when, and where.

The loss is that of PyTorch-BigGraph 1.0.0 (model.py, losses.py, row_adagrad.py there), so that one set of parameters
means the same in both. A batch holds edges of one relation. Each chunk of `batch_negatives` edges (u, r, v) has its own
`uniform_negatives` users and hashtags; with s = u · (v + r) and n = batch_negatives + uniform_negatives,

    loss of an edge = 2 softplus(-s)  +  1/n Σ softplus(u' · (v + r))  +  1/n Σ softplus(u · (v' + r))

where u' are the users of the chunk's other edges and its uniform users, v' likewise. Negatives that happen to be edges
count, as they do in PBG. What is different is how it is computed:

- u_i · (v_j + r) is the score of a negative user for edge j and of a negative hashtag for edge i: one product of the
  chunk's users with its hashtags serves both sides, three blocks of scores are made instead of four.
- The gradient is written out: sigmoid of the scores, with the positives' own on the diagonal. No graph, no masks.
- Products are in bfloat16 where the hardware has it; tables, sums of squares and updates are in float32.
- Each row is read and updated once a batch, however often the batch names it; denormals count as zero.

Legend: b edges of a batch, C chunks, P = batch_negatives, U = uniform_negatives, D dimension, N rows of a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ntulm.device import to_device

if TYPE_CHECKING:
    from ntulm.embeddings.config import Embeddings

EPSILON = 1e-10  # PBG's, in the denominator of Adagrad


class Batch(NamedTuple):
    """Edges of one relation."""

    relation: int
    lhs: Tensor  # int64 [b], users
    rhs: Tensor  # int64 [b], hashtags


class Gradients(NamedTuple):
    """Of n times the loss, for the vectors that `chunk_gradients` got, and in their shapes."""

    users: Tensor
    hashtags: Tensor
    other_users: Tensor
    other_hashtags: Tensor


@dataclass(frozen=True)
class Table:
    """Vectors with their row-wise Adagrad: on the device of the products, or in the memory of the host."""

    vectors: Tensor  # float32 [N, D]
    squares: Tensor  # float32 [N], the sum of mean squared gradients

    def rows(self, ids: Tensor) -> Tensor:
        """float32 [n, D] on the device of the int64 [n] ids."""
        if self.vectors.device == ids.device:
            return self.vectors.index_select(0, ids)
        return to_device(self.vectors.index_select(0, ids.to(self.vectors.device)), ids.device)

    def update(self, ids: Tensor, gradients: Tensor, learning_rate: float) -> None:
        """One step; int64 [n] ids, each of them once, and float32 [n, D]."""
        ids, gradients = ids.to(self.vectors.device), gradients.to(self.vectors.device)
        sums = self.squares.index_select(0, ids) + gradients.square().mean(1)
        self.squares.index_copy_(0, ids, sums)
        steps = gradients * (-learning_rate / (sums.sqrt_() + EPSILON)).unsqueeze(1)
        self.vectors.scatter_add_(0, ids.unsqueeze(1).expand_as(steps), steps)  # half the time of index_add_


@dataclass(frozen=True)
class Engine:
    """Everything that one batch changes, and what it needs to know."""

    users: Table
    hashtags: Table
    relations: Tensor  # float32 [R, D]
    relation_squares: Tensor  # float32 [R, D]; plain Adagrad, as in PBG
    config: Embeddings
    arithmetic: torch.dtype  # of the matrix products
    random: torch.Generator  # of the uniform negatives, on the device of the products

    def step(self, batch: Batch, with_loss: bool) -> float | None:
        """Train on a batch; the sum of its edges' losses before the step, if asked for."""
        size, chunk = len(batch.lhs), self.config.batch_negatives
        chunks = -(-size // chunk)
        users, user_places = self._with_uniform(batch.lhs, chunks, len(self.users.vectors))
        hashtags, hashtag_places = self._with_uniform(batch.rhs, chunks, len(self.hashtags.vectors))
        user_rows = self.users.rows(users).to(self.arithmetic)
        # The relation is the same for the whole batch, so it is added to each hashtag once.
        hashtag_rows = (self.hashtags.rows(hashtags) + self.relations[batch.relation]).to(self.arithmetic)
        vectors = user_rows.index_select(0, user_places), hashtag_rows.index_select(0, hashtag_places)
        gradients, loss = batch_gradients(*vectors, size, chunk, self.config.uniform_negatives, with_loss)
        weight = 1 / (chunk + self.config.uniform_negatives)
        user_gradients = summed(gradients[0], user_places, len(users), self.relations.dtype).mul_(weight)
        hashtag_gradients = summed(gradients[1], hashtag_places, len(hashtags), self.relations.dtype).mul_(weight)
        self._update_relation(batch.relation, hashtag_gradients.sum(0))
        self.users.update(users, user_gradients, self.config.learning_rate)
        self.hashtags.update(hashtags, hashtag_gradients, self.config.learning_rate)
        return loss

    def _with_uniform(self, ids: Tensor, chunks: int, rows: int) -> tuple[Tensor, Tensor]:
        """The distinct rows of a batch's edges and uniform negatives, and int64 [b + C U]: where each one's row is."""
        drawn = torch.randint(
            rows, (chunks * self.config.uniform_negatives,), generator=self.random, device=self.random.device
        )
        distinct, places = torch.unique(torch.cat([ids, drawn]), return_inverse=True)
        return distinct, places

    def _update_relation(self, relation: int, gradient: Tensor) -> None:
        squares = self.relation_squares[relation].addcmul_(gradient, gradient)
        self.relations[relation].addcdiv_(gradient, squares.sqrt() + EPSILON, value=-self.config.learning_rate)


def batch_gradients(
    users: Tensor, hashtags: Tensor, size: int, chunk: int, uniform: int, with_loss: bool
) -> tuple[tuple[Tensor, Tensor], float | None]:
    """Gradients of n times the summed loss of a batch of b = `size` edges, of which the last chunk may be shorter.

    Args:
        users: [b + C U, D], those of the edges, then the uniform ones chunk by chunk; hashtags likewise, moved by r.

    Returns:
        Gradients in the shapes of the two, and the summed loss.
    """
    whole = size // chunk
    parts = [(0, whole, chunk)] if whole else []
    if size % chunk:
        parts.append((whole, 1, size % chunk))
    found = []
    for first, chunks, length in parts:
        edges = slice(first * chunk, first * chunk + chunks * length)
        others = slice(size + first * uniform, size + (first + chunks) * uniform)
        own_users, own_hashtags = (side[edges].view(chunks, length, -1) for side in (users, hashtags))
        other_users, other_hashtags = (side[others].view(chunks, uniform, -1) for side in (users, hashtags))
        vectors = (own_users, own_hashtags, other_users, other_hashtags)
        found.append(chunk_gradients(*vectors, chunk + uniform, with_loss))
    losses = [loss for _, loss in found if loss is not None]
    flat = [Gradients(*(one.flatten(0, 1) for one in gradients)) for gradients, _ in found]
    user_gradients = torch.cat([one.users for one in flat] + [one.other_users for one in flat])
    hashtag_gradients = torch.cat([one.hashtags for one in flat] + [one.other_hashtags for one in flat])
    return (user_gradients, hashtag_gradients), sum(losses) if losses else None


def chunk_gradients(
    users: Tensor, hashtags: Tensor, other_users: Tensor, other_hashtags: Tensor, negatives: int, with_loss: bool
) -> tuple[Gradients, float | None]:
    """Gradients of n times the summed loss of C chunks, and the summed loss.

    Args:
        users, hashtags: [C, P, D], the edges', hashtags moved by the relation.
        other_users, other_hashtags: [C, U, D], the uniform negatives.
        negatives: n.
    """
    length = users.shape[1]
    candidates = torch.cat([hashtags, other_hashtags], dim=1)
    scores = torch.bmm(users, candidates.transpose(1, 2))  # [C, P, P + U]
    other_scores = torch.bmm(hashtags, other_users.transpose(1, 2))  # [C, P, U]
    loss = _loss(scores.float(), other_scores.float(), length, negatives) if with_loss else None
    positives = scores.diagonal(dim1=1, dim2=2)
    own = (torch.sigmoid(positives) - 1) * negatives  # the positive counts once for each side, as its block does
    slopes, other_slopes = scores.sigmoid_(), other_scores.sigmoid_()
    positives.copy_(own)
    # Within the chunk each score counts for both sides: doubled here, in the few rows, and not in the many scores.
    candidates[:, :length] *= 2
    user_gradients = torch.bmm(slopes, candidates)
    candidate_gradients = torch.bmm(slopes.transpose(1, 2), users)
    within, other_hashtag_gradients = candidate_gradients.split([length, other_hashtags.shape[1]], dim=1)
    hashtag_gradients = torch.bmm(other_slopes, other_users).add_(within, alpha=2)
    other_user_gradients = torch.bmm(other_slopes.transpose(1, 2), hashtags)
    return Gradients(user_gradients, hashtag_gradients, other_user_gradients, other_hashtag_gradients), loss


def summed(gradients: Tensor, places: Tensor, rows: int, dtype: torch.dtype) -> Tensor:
    """[rows, D]: the gradients of each row added up."""
    total = torch.zeros(rows, gradients.shape[1], dtype=dtype, device=gradients.device)
    return total.index_add_(0, places, gradients.to(dtype))


@contextmanager
def no_denormals() -> Iterator[None]:
    """Numbers below 1e-38 count as zero: gradients of settled edges get there, where a CPU is far slower."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _loss(scores: Tensor, other_scores: Tensor, length: int, negatives: int) -> float:
    """Of [C, P, P + U] and [C, P, U]; the positives stand on the diagonal."""
    positives = scores.diagonal(dim1=1, dim2=2)
    within = F.softplus(scores[:, :, :length]).sum() - F.softplus(positives).sum()
    uniform = F.softplus(scores[:, :, length:]).sum() + F.softplus(other_scores).sum()
    return float(2 * F.softplus(-positives).sum() + (2 * within + uniform) / negatives)
