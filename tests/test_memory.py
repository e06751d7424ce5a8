"""The memory of a training run does not grow with its steps, however their batches are shaped."""

import multiprocessing
import resource
from pathlib import Path

import numpy as np
import pytest

from ntulm.language_model.config import Adapt

STEPS, EVERY = 150, 10
SETTINGS = Adapt(
    backbone="minilm",
    max_posts=600,
    max_validation_posts=1,
    epochs=2,
    patience=1,
    evaluations_per_epoch=1,
    batch_size=8,
    learning_rate=1e-4,
    weight_decay=0.01,
    warmup_share=0.1,
    mask_share=0.15,
    seed=0,
)


def train_and_watch(folder: str) -> list[float]:
    """The peak of the memory in MiB after every tenth step; in a process of its own, which starts from nothing."""
    from ntulm.device import choose_device
    from ntulm.language_model import training
    from ntulm.language_model.backbone import load_backbone
    from ntulm.language_model.batches import Masking, training_order
    from ntulm.language_model.dropout import replace_dropout
    from ntulm.language_model.tokens import Tokens

    random = np.random.default_rng(0)
    lengths = random.integers(5, 100, 600)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = random.integers(2000, 20000, offsets[-1]).astype(np.int32)
    posts = training.Examples(Tokens(ids, offsets, np.full(len(ids), -1), []))
    model, tokenizer, _ = load_backbone("minilm", 0, choose_device())
    replace_dropout(model)
    job = training.Job("memory", model, posts, posts, Masking(tokenizer, 0.15, 128), SETTINGS, 0, None, Path(folder))
    optimizer = training.make_optimizer(model, job.settings, None)
    order = [batch for epoch in range(2) for batch in training_order(lengths, 8, 0, epoch)]
    peaks = []
    for step, batch in enumerate(order[:STEPS], start=1):
        training.train_step(job, optimizer, batch, 0, step, 0.01)
        if step % EVERY == 0:
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return peaks


@pytest.mark.slow
def test_many_shapes_of_batches_do_not_add_up(tmp_path):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peaks = pool.apply(train_and_watch, (str(tmp_path),))
    assert len(peaks) == STEPS // EVERY
    assert peaks[-1] < 1.1 * peaks[len(peaks) // 2], peaks
