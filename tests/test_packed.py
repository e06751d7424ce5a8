import types

import pytest
import torch
from torch import nn

from ntulm.language_model import packed
from ntulm.language_model.packed import PackedLinear, packs, speed_up


class Encoder(nn.Module):
    """A stack of linear layers with the one method that `speed_up` calls."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64)) for _ in range(2)])

    def set_attn_implementation(self, name):
        self.attention = name


@pytest.fixture(autouse=True)
def asked_anew():
    packs.cache_clear()
    yield
    packs.cache_clear()


def missing(weight, rows):
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_reorder_linear_weight'")


def refused(weight, rows):
    raise RuntimeError("bf16 path needs the cpu support avx512bw\nmore lines")


def plain_product(scale):
    return lambda input, weight, bias, *_: scale * nn.functional.linear(input, weight, bias)


@pytest.mark.parametrize(
    ("reorder", "product", "reason"),
    [
        (missing, plain_product(1.0), "no attribute '_reorder_linear_weight'"),
        (refused, plain_product(1.0), "bf16 path needs the cpu support avx512bw\n"),
        (lambda weight, rows: weight, plain_product(1.5), "Tensor-likes are not close"),
        (lambda weight, rows: weight, lambda input: input, "positional argument"),
    ],
)
def test_without_the_operators_layers_stay_plain_and_it_is_said_once(monkeypatch, capsys, reorder, product, reason):
    operators = types.SimpleNamespace(_reorder_linear_weight=reorder, _linear_pointwise=product)
    monkeypatch.setattr(packed.torch, "ops", types.SimpleNamespace(mkldnn=operators))
    for encoder in (Encoder(), Encoder()):
        speed_up(encoder, encoder.layers)
        assert encoder.attention == packed.ATTENTION
        assert not any(isinstance(layer, PackedLinear) for layer in encoder.layers.modules())
    said = capsys.readouterr().err
    assert said.count("encoding without packed weights, which is slower") == said.count("\n") == 1
    assert reason in said


def test_with_operators_that_agree_with_plain_layers_all_are_packed(monkeypatch, capsys):
    operators = types.SimpleNamespace(
        _reorder_linear_weight=lambda weight, rows: weight, _linear_pointwise=plain_product(1.0)
    )
    monkeypatch.setattr(packed.torch, "ops", types.SimpleNamespace(mkldnn=operators))
    encoder = Encoder()
    speed_up(encoder, encoder.layers)
    assert not any(type(layer) is nn.Linear for layer in encoder.layers.modules())
    assert capsys.readouterr().err == ""


def test_the_check_draws_no_random_number():
    state = torch.get_rng_state()
    packs(torch.float32)
    assert torch.equal(torch.get_rng_state(), state)
