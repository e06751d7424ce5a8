"""probe/perceptron.py: the written-out gradient and update are those of automatic differentiation and torch's AdamW."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ntulm.probe import perceptron
from ntulm.probe.perceptron import Perceptron

POSTS, FEATURES, WIDTH, CLASSES = 20, 7, 5, 3


def start(dropout):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.Tanh(), nn.Dropout(dropout), nn.Linear(WIDTH, CLASSES))


def data(kind):
    features = torch.randn(POSTS, FEATURES, generator=torch.Generator().manual_seed(1))
    classes = torch.arange(POSTS) % CLASSES
    return features, classes if kind == "single" else F.one_hot(classes, CLASSES).float()


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_steps_equal_those_of_automatic_differentiation(kind, dropout, monkeypatch):
    mask = (torch.rand(POSTS, WIDTH) >= dropout) / (1 - dropout)
    monkeypatch.setattr(perceptron, "keep_mask", lambda like, probability, generator: mask)
    features, targets = data(kind)
    model = start(dropout)
    ours = Perceptron(model, learning_rate=0.02, weight_decay=0.1, generator=torch.Generator())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
    averaged: dict[str, torch.Tensor] = {}
    for _ in range(5):
        hidden = torch.tanh(model[0](features)) * (mask if dropout else 1)
        logits = model[3](hidden)
        loss = F.binary_cross_entropy_with_logits if kind == "multi" else F.cross_entropy
        optimizer.zero_grad()
        loss(logits, targets).backward()
        optimizer.step()
        now = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
        averaged = {name: averaged[name].lerp(now[name], 0.25) if averaged else now[name] for name in now}
        ours.step(features, targets, kind, kept=0.75)
    for name, weight in ours.average().items():
        torch.testing.assert_close(weight, averaged[name], rtol=1e-4, atol=1e-5)


def test_an_average_is_not_changed_by_later_steps():
    ours = Perceptron(start(0.0), learning_rate=0.1, weight_decay=0.0, generator=torch.Generator())
    features, targets = data("single")
    ours.step(features, targets, "single", kept=0.5)
    average = ours.average()
    before = {name: weight.clone() for name, weight in average.items()}
    ours.step(features, targets, "single", kept=0.5)
    assert all(torch.equal(average[name], before[name]) for name in before)
