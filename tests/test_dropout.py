"""ntulm/language_model/dropout.py: the distribution of torch's own dropout, from fewer draws."""

import pytest
import torch
from torch import nn

from ntulm.language_model.dropout import Dropout, keep_mask, replace_dropout


@pytest.mark.parametrize(("probability", "dtype"), [(0.1, torch.float32), (0.5, torch.bfloat16)])
def test_dropout_drops_its_share_independently_and_keeps_the_mean(probability, dtype):
    torch.manual_seed(0)
    mask = keep_mask(torch.empty(401, 999, dtype=dtype), probability)
    assert mask.shape == (401, 999)
    assert mask.dtype == dtype
    kept = (mask > 0).float()
    assert kept.mean() == pytest.approx(1 - probability, abs=3e-3)
    assert mask.float().mean() == pytest.approx(1.0, abs=8e-3)
    for distance in (1, 2, 3, 4, 5):  # places of one draw, and of neighbouring ones
        flat = kept.flatten() - (1 - probability)
        assert float((flat[distance:] * flat[:-distance]).mean()) == pytest.approx(0, abs=2e-3)


def test_dropout_follows_the_seed_and_does_nothing_in_evaluation():
    layer, values = Dropout(0.3), torch.ones(33, 7)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(layer(values))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert layer.eval()(values) is values
    assert Dropout(0.0)(values) is values


def test_every_dropout_of_a_model_is_replaced_and_keeps_its_probability():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.2), nn.Tanh()), nn.Dropout(0.4))
    replace_dropout(model)
    found = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert [type(module) for module in found] == [Dropout, Dropout]
    assert [module.p for module in found] == [0.2, 0.4]
