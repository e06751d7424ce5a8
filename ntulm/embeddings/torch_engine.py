"""A step of the engine `torch`: the objective of ntulm/embeddings/pbg.py in few large matrix products (§3.1, App. B).

Library of `ntulm/embeddings/torch_training.py`, which says which edges are learnt when, and where.

The loss is that of PyTorch-BigGraph 1.0.0 (model.py, losses.py, row_adagrad.py there), so that one set of parameters
means the same in both. A batch holds edges of one relation. Each chunk of `batch_negatives` edges (u, r, v) has its own
`uniform_negatives` nodes of the type on the left and as many of that on the right; with s = u · (v + r) and
n = batch_negatives + uniform_negatives,

    loss of an edge = 2 softplus(-s)  +  1/n Σ softplus(u' · (v + r))  +  1/n Σ softplus(u · (v' + r))

where u' are the left nodes of the chunk's other edges and its uniform ones, v' likewise. Negatives that happen to be
edges count, as they do in PBG. What is different is how it is computed:

- u_i · (v_j + r) is the score of a negative u_i for edge j and of a negative v_j for edge i: one product of the
  chunk's left nodes with its right ones serves both sides, three blocks of scores are made instead of four.
- The gradient is written out: sigmoid of the scores, with the positives' own on the diagonal. No graph, no masks.
- Products are in bfloat16 where the hardware has it; tables, sums of squares and updates are in float32.
- Each row is updated once per batch, however often the batch names it, on the left and, where both sides have one
  type, on the right; denormals count as zero.

Legend: b edges of a batch, C chunks, P = batch_negatives, U = uniform_negatives, D dimension, N rows of a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    lhs: Tensor  # int64 [b]
    rhs: Tensor  # int64 [b]


class Gradients(NamedTuple):
    """Of n times the loss, for the vectors that `chunk_gradients` got, and in their shapes."""

    lhs: Tensor
    rhs: Tensor
    other_lhs: Tensor
    other_rhs: Tensor


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

    sides: Mapping[int, tuple[Table, Table]]  # relation -> left and right, the same object where they are one
    relations: Tensor  # float32 [R, D]
    relation_squares: Tensor  # float32 [R, D]; plain Adagrad, as in PBG
    config: Embeddings
    arithmetic: torch.dtype  # of the matrix products
    random: torch.Generator  # of the uniform negatives, on the device of the products

    def step(self, batch: Batch, with_loss: bool) -> float | None:
        """Train on a batch; the sum of its edges' losses before the step, if asked for."""
        size, chunk = len(batch.lhs), self.config.batch_negatives
        chunks = -(-size // chunk)
        left, right = self.sides[batch.relation]
        lhs, lhs_places = self._with_uniform(batch.lhs, chunks, len(left.vectors))
        rhs, rhs_places = self._with_uniform(batch.rhs, chunks, len(right.vectors))
        lhs_rows = left.rows(lhs).to(self.arithmetic)
        # The relation is the same for the whole batch, so it is added to each right node once.
        rhs_rows = (right.rows(rhs) + self.relations[batch.relation]).to(self.arithmetic)
        vectors = lhs_rows.index_select(0, lhs_places), rhs_rows.index_select(0, rhs_places)
        gradients, loss = batch_gradients(*vectors, size, chunk, self.config.uniform_negatives, with_loss)
        weight = 1 / (chunk + self.config.uniform_negatives)
        lhs_gradients = summed(gradients[0], lhs_places, len(lhs), self.relations.dtype).mul_(weight)
        rhs_gradients = summed(gradients[1], rhs_places, len(rhs), self.relations.dtype).mul_(weight)
        self._update_relation(batch.relation, rhs_gradients.sum(0))
        if left is right:
            both, places = torch.unique(torch.cat([lhs, rhs]), return_inverse=True)
            both_gradients = torch.cat([lhs_gradients, rhs_gradients])
            left.update(
                both, summed(both_gradients, places, len(both), both_gradients.dtype), self.config.learning_rate
            )
        else:
            left.update(lhs, lhs_gradients, self.config.learning_rate)
            right.update(rhs, rhs_gradients, self.config.learning_rate)
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
    lhs: Tensor, rhs: Tensor, size: int, chunk: int, uniform: int, with_loss: bool
) -> tuple[tuple[Tensor, Tensor], float | None]:
    """Gradients of n times the summed loss of a batch of b = `size` edges, of which the last chunk may be shorter.

    Args:
        lhs: [b + C U, D], those of the edges, then the uniform ones chunk by chunk; rhs likewise, moved by r.

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
        own_lhs, own_rhs = (side[edges].view(chunks, length, -1) for side in (lhs, rhs))
        other_lhs, other_rhs = (side[others].view(chunks, uniform, -1) for side in (lhs, rhs))
        vectors = (own_lhs, own_rhs, other_lhs, other_rhs)
        found.append(chunk_gradients(*vectors, chunk + uniform, with_loss))
    losses = [loss for _, loss in found if loss is not None]
    flat = [Gradients(*(one.flatten(0, 1) for one in gradients)) for gradients, _ in found]
    lhs_gradients = torch.cat([one.lhs for one in flat] + [one.other_lhs for one in flat])
    rhs_gradients = torch.cat([one.rhs for one in flat] + [one.other_rhs for one in flat])
    return (lhs_gradients, rhs_gradients), sum(losses) if losses else None


def chunk_gradients(
    lhs: Tensor, rhs: Tensor, other_lhs: Tensor, other_rhs: Tensor, negatives: int, with_loss: bool
) -> tuple[Gradients, float | None]:
    """Gradients of n times the summed loss of C chunks, and the summed loss.

    Args:
        lhs, rhs: [C, P, D], the edges', rhs moved by the relation.
        other_lhs, other_rhs: [C, U, D], the uniform negatives.
        negatives: n.
    """
    length = lhs.shape[1]
    candidates = torch.cat([rhs, other_rhs], dim=1)
    scores = torch.bmm(lhs, candidates.transpose(1, 2))  # [C, P, P + U]
    other_scores = torch.bmm(rhs, other_lhs.transpose(1, 2))  # [C, P, U]
    loss = _loss(scores.float(), other_scores.float(), length, negatives) if with_loss else None
    positives = scores.diagonal(dim1=1, dim2=2)
    own = (torch.sigmoid(positives) - 1) * negatives  # the positive counts once for each side, as its block does
    slopes, other_slopes = scores.sigmoid_(), other_scores.sigmoid_()
    positives.copy_(own)
    # Within the chunk each score counts for both sides: doubled here, in the few rows, and not in the many scores.
    candidates[:, :length] *= 2
    lhs_gradients = torch.bmm(slopes, candidates)
    candidate_gradients = torch.bmm(slopes.transpose(1, 2), lhs)
    within, other_rhs_gradients = candidate_gradients.split([length, other_rhs.shape[1]], dim=1)
    rhs_gradients = torch.bmm(other_slopes, other_lhs).add_(within, alpha=2)
    other_lhs_gradients = torch.bmm(other_slopes.transpose(1, 2), rhs)
    return Gradients(lhs_gradients, rhs_gradients, other_lhs_gradients, other_rhs_gradients), loss


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
