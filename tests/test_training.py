"""ntulm/language_model/training.py: early stopping and schedule as pure logic, the loop, and resuming after a kill."""

import numpy as np
import pytest
import torch

from ntulm.errors import UserError
from ntulm.language_model import training
from ntulm.language_model.backbone import load_backbone
from ntulm.language_model.batches import Masking
from ntulm.language_model.checkpoint import Checkpoint
from ntulm.language_model.config import Adapt, Batches
from ntulm.language_model.tokens import tokenise
from ntulm.language_model.training import (
    EarlyStopping,
    Examples,
    Job,
    Plan,
    evaluate,
    learning_rate_factor,
    plan_posts,
    train_model,
)

BATCHES = Batches(max_length=24, mask_urls=True, mask_mentions=True)
SETTINGS = {
    "backbone": "tiny",
    "max_posts": 100,
    "max_validation_posts": 50,
    "epochs": 2,
    "patience": 3,
    "evaluations_per_epoch": 2,
    "batch_size": 16,
    "learning_rate": 3e-3,
    "weight_decay": 0.01,
    "warmup_share": 0.1,
    "mask_share": 0.15,
    "seed": 0,
}


def make_job(tiny_backbone, tmp_path, **changes):
    model, tokenizer, _ = load_backbone(str(tiny_backbone), 0, torch.device("cpu"))
    random = np.random.default_rng(0)
    texts = [" ".join(["i like it"] * int(random.integers(1, 6))) for _ in range(150)]
    settings = Adapt(**{**SETTINGS, **changes})
    train, validation = (Examples(tokenise(part, tokenizer, BATCHES)) for part in (texts[:100], texts[100:]))
    masking = Masking(tokenizer, settings.mask_share, BATCHES.max_length)
    return Job("test", model, train, validation, masking, settings, 0, None, tmp_path / "checkpoint")


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("losses", "patience", "stops_after", "best"),
    [([3, 2, 1], 1, None, 1), ([3, 4, 2], 1, 2, 3), ([3, 4, 2, 2, 5], 2, 5, 2), ([1, 1], 1, 2, 1)],
)
def test_early_stopping(losses, patience, stops_after, best):
    stopping = EarlyStopping(patience)
    stopped = None
    for count, loss in enumerate(losses, start=1):
        assert stopping.better(loss) == (loss < min(losses[: count - 1], default=np.inf))
        if stopping.stopped:
            stopped = count
            break
    assert (stopped, stopping.best) == (stops_after, best)


def test_learning_rate_rises_and_falls_linearly():
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(100)]
    assert np.argmax(factors) == 10
    assert max(factors) == 1.0
    assert min(factors) > 0
    assert (np.diff(factors[:10]) > 0).all()
    assert (np.diff(factors[10:]) < 0).all()
    assert learning_rate_factor(0, 10, 0.0) == 1.0


@pytest.mark.parametrize(
    ("posts", "evaluations", "expected"), [(100, 2, [3, 7, 10, 14]), (100, 1, [7, 14]), (8, 5, [1, 2])]
)
def test_evaluations_are_spread_and_end_each_epoch(posts, evaluations, expected):
    plan = Plan(posts, 16, 2, evaluations)
    steps = [step for step in range(1, plan.steps + 1) if plan.evaluates_after(step)]
    assert len(steps) == len(expected)
    assert plan.steps_per_epoch in steps
    assert steps[-1] == plan.steps
    assert plan_posts(plan, plan.steps) == 2 * posts


def test_training_learns_and_keeps_the_best_weights(tiny_backbone, tmp_path):
    job = make_job(tiny_backbone, tmp_path)
    before = evaluate(job, job.validation).bits.mean()
    outcome = train_model(job)
    after = evaluate(job, job.validation).bits.mean()
    assert after < 0.8 * before
    assert after == pytest.approx(min(entry["validation_bits"] for entry in outcome.history))
    assert [entry["step"] for entry in outcome.history] == sorted(entry["step"] for entry in outcome.history)
    assert outcome.posts_per_second > 0


def test_two_runs_are_equal(tiny_backbone, tmp_path):
    jobs = [make_job(tiny_backbone, tmp_path / name) for name in ("one", "two")]
    outcomes = [train_model(job) for job in jobs]
    assert outcomes[0].history == outcomes[1].history
    for name, weight in weights(jobs[0].model).items():
        assert torch.equal(weight, jobs[1].model.get_parameter(name)), name


class KilledError(Exception):
    pass


def kill_at(monkeypatch, step):
    plain = training.train_step

    def killed(job, optimizer, posts, epoch, current, factor):
        if current == step:
            raise KilledError
        return plain(job, optimizer, posts, epoch, current, factor)

    monkeypatch.setattr(training, "train_step", killed)


@pytest.mark.parametrize(("step", "checkpoint_seconds"), [(4, 300), (7, 300), (9, 300), (5, 0)])
def test_a_resumed_run_equals_an_undisturbed_one(
    tiny_backbone, tmp_path, monkeypatch, capsys, step, checkpoint_seconds
):
    undisturbed = make_job(tiny_backbone, tmp_path / "undisturbed")
    expected = train_model(undisturbed)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", checkpoint_seconds)
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(KilledError):
            train_model(make_job(tiny_backbone, tmp_path))
    resumed = make_job(tiny_backbone, tmp_path)
    outcome = train_model(resumed)
    assert "resumes after step" in capsys.readouterr().err
    assert outcome.history == expected.history
    for name, weight in weights(undisturbed.model).items():
        assert torch.equal(weight, resumed.model.get_parameter(name)), name


def test_a_checkpoint_of_other_settings_is_ignored(tiny_backbone, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        kill_at(patch, 9)
        with pytest.raises(KilledError):
            train_model(make_job(tiny_backbone, tmp_path))
    outcome = train_model(make_job(tiny_backbone, tmp_path, learning_rate=1e-3))
    assert "resumes" not in capsys.readouterr().err
    assert outcome.steps == 14


def flipped(content: bytes) -> bytes:
    """The same tensors but for one bit of the last float."""
    return content[:-2] + bytes([content[-2] ^ 1]) + content[-1:]


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("state.safetensors", lambda _: b"cut"),
        ("state.safetensors", flipped),
        ("state.json", lambda _: b""),
        ("state.json", lambda _: b"[]"),
        ("state.json", lambda _: b"null"),
        ("state.json", lambda _: b"[" * 100_000),
        ("state.json", lambda content: content.replace(b'"step": 1', b'"step": 2')),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_with_a_line(tmp_path, capsys, file, damage):
    checkpoint = Checkpoint(tmp_path / "checkpoint", "print")
    checkpoint.write({"tensor": torch.ones(3)}, {"step": 1})
    found = checkpoint.read()
    assert found is not None
    assert (found[0]["tensor"].tolist(), found[1]) == ([1.0, 1.0, 1.0], {"step": 1})
    path = tmp_path / "checkpoint" / file
    path.write_bytes(damage(path.read_bytes()))
    assert checkpoint.read() is None
    assert "damaged checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "checkpoint").exists()
    assert (tmp_path / "checkpoint.damaged" / file).exists()
    checkpoint.write({"tensor": torch.zeros(3)}, {"step": 3})
    assert checkpoint.read() is not None
    checkpoint.remove()
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_a_number_names_the_step(tiny_backbone, tmp_path, monkeypatch):
    plain = training.train_step

    def broken(job, optimizer, posts, epoch, step, factor):
        loss, masked, norm = plain(job, optimizer, posts, epoch, step, factor)
        return (loss * float("nan") if step == 1 else loss), masked, norm

    monkeypatch.setattr(training, "train_step", broken)
    with pytest.raises(UserError, match="step 2"):
        train_model(make_job(tiny_backbone, tmp_path))


def test_a_run_that_diverges_is_noticed(tiny_backbone, tmp_path):
    with pytest.raises(UserError, match="not a number"):
        train_model(make_job(tiny_backbone, tmp_path, learning_rate=1e38))
