"""ntulm/language_model/model.py: the slot of §3.2, the post embedding of §3.3, and what survives a save."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM, BertForMaskedLM

from ntulm.errors import UserError
from ntulm.language_model.model import HEADS, NtulmForMaskedLM, check_family
from ntulm.language_model.packed import PackedLinear, speed_up

WIDTH = 6
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SHAPES = {
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "electra": {**SMALL, "embedding_size": 16},
}
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def make_backbone(family):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=60, max_position_embeddings=40, **SHAPES.get(family, SMALL))
    # Random weights as small as the library's (0.02) would hide a wrong position behind rounding.
    return AutoModelForMaskedLM.from_config(config, attn_implementation="eager").apply(_spread).eval()


@torch.no_grad()
def _spread(module):
    for parameter in module.parameters(recurse=False):
        parameter.add_(0.2 * torch.randn(parameter.shape))


def make_inputs(backbone):
    ids = torch.randint(5, 59, MASK.shape, generator=torch.Generator().manual_seed(1))
    return ids.masked_fill(MASK == 0, backbone.config.pad_token_id)


def with_slot(backbone, layer_norm=False):
    model = NtulmForMaskedLM.around(backbone)
    model.add_slot("author", WIDTH, norm=2.0, scale=1.0, layer_norm=layer_norm, seed=0)
    return model.eval()


def slots(seed=2):
    return torch.randn(len(MASK), WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", HEADS)
def test_without_slot_it_is_the_backbone(family):
    backbone = make_backbone(family)
    ids = make_inputs(backbone)
    model = NtulmForMaskedLM.around(backbone).eval()
    expected = backbone(ids, attention_mask=MASK).logits[MASK.bool()]
    torch.testing.assert_close(model(ids, MASK).logits[MASK.bool()], expected)


@pytest.mark.parametrize("family", HEADS)
def test_a_masked_slot_changes_nothing_and_a_shown_one_does(family):
    backbone = make_backbone(family)
    ids = make_inputs(backbone)
    model = with_slot(backbone)
    expected = backbone(ids, attention_mask=MASK).logits[MASK.bool()]
    hidden = model(ids, MASK, slots(), slot_mask=torch.zeros(2)).logits[MASK.bool()]
    torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-4)
    assert (model(ids, MASK, slots()).logits[MASK.bool()] - expected).abs().max() > 1e-3


@pytest.mark.parametrize("family", HEADS)
def test_save_and_load_keep_everything_but_non_persistent_buffers_which_are_filled(family, tmp_path):
    backbone = make_backbone(family)
    ids = make_inputs(backbone)
    model = with_slot(backbone)
    model.save_pretrained(tmp_path)
    loaded = NtulmForMaskedLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(
        loaded(ids, MASK, slots()).logits, model(ids, MASK, slots()).logits, rtol=1e-4, atol=1e-4
    )
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(loaded.get_buffer(name), buffer)
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in model.parameters())  # still tied
    assert (loaded.config.variant, loaded.config.slot_width, loaded.config.slot_norm) == ("author", WIDTH, 2.0)
    assert [path.name for path in tmp_path.glob("*.bin")] == []


@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_slot_stands_last_without_position_or_token_type(layer_norm):
    model = with_slot(make_backbone("bert"), layer_norm)
    ids = make_inputs(model.backbone)
    seen = []
    model.encoder.encoder.layer[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(ids, MASK, slots())
    model(ids[:, :3], MASK[:, :3], slots())
    long, short = seen
    expected = model.slot(slots() / 2.0)
    expected = model.encoder.embeddings.LayerNorm(expected) if layer_norm else expected
    assert long.shape == (2, 6, 32)
    torch.testing.assert_close(long[:, -1], expected)
    torch.testing.assert_close(short[:, -1], expected)  # the same wherever it stands: no position
    torch.testing.assert_close(long[:, :3], short[:, :3])


def test_the_encoder_does_not_know_where_the_slot_stands():
    model = with_slot(make_backbone("bert"))
    ids = make_inputs(model.backbone)[:1]
    embedded = torch.cat([model.encoder.embeddings(input_ids=ids), model._project(slots()[:1])], dim=1)
    last = model.encoder.encoder(embedded).last_hidden_state
    first = model.encoder.encoder(embedded.roll(1, dims=1)).last_hidden_state
    torch.testing.assert_close(first.roll(-1, dims=1), last)


def test_projected_slots_start_with_the_norm_of_tokens_times_the_scale():
    model = NtulmForMaskedLM.around(make_backbone("bert"))
    vectors = 7.0 * torch.nn.functional.normalize(torch.randn(500, WIDTH), dim=1)
    model.add_slot("author", WIDTH, norm=7.0, scale=0.5, layer_norm=False, seed=0)
    tokens = model.encoder.embeddings(input_ids=torch.arange(60).unsqueeze(1)).norm(dim=-1).mean()
    assert float((model._project(vectors).norm(dim=-1).mean() / tokens).detach()) == pytest.approx(0.5, rel=0.2)


def test_a_slot_starts_with_the_angles_of_the_ntu_vectors():
    model = with_slot(make_backbone("bert"))
    vectors = slots()
    projected = model._project(vectors)[:, 0].detach()
    expected = torch.nn.functional.cosine_similarity(vectors[:1], vectors)
    torch.testing.assert_close(torch.nn.functional.cosine_similarity(projected[:1], projected), expected)


@pytest.mark.parametrize("family", HEADS)
def test_a_slot_starts_where_the_first_layer_reads_little(family):
    model = with_slot(make_backbone(family))
    attention = model.layers[0].attention
    reader = attention.k_lin if family == "distilbert" else attention.self.key

    def read(slot):
        if hasattr(model.encoder, "embeddings_project"):
            slot = model.encoder.embeddings_project(slot) - model.encoder.embeddings_project.bias
        return (reader(slot) - reader.bias).norm(dim=-1).mean().item()

    quiet = model._project(slots()).detach()
    drawn = torch.randn(quiet.shape, generator=torch.Generator().manual_seed(3))
    assert read(quiet) < read(drawn * quiet.norm() / drawn.norm())


@pytest.mark.parametrize("family", HEADS)
def test_what_follows_the_last_attention_is_applied_to_the_masked_positions_alone(family):
    model = with_slot(make_backbone(family))
    ids = make_inputs(model.backbone)
    positions, targets = torch.tensor([1, 7, 0]), torch.tensor([9, 8, -100])
    output = model(ids, MASK, slots(), positions=positions, targets=targets)
    everywhere = model(ids, MASK, slots()).logits.reshape(-1, 60)
    torch.testing.assert_close(output.logits, everywhere[positions], rtol=1e-4, atol=1e-4)
    expected = torch.nn.functional.cross_entropy(everywhere[positions[:2]], targets[:2])
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize("family", HEADS)
def test_a_fresh_head_can_start_at_the_frequencies_of_tokens(family):
    model = NtulmForMaskedLM.around(make_backbone(family))
    counts = torch.arange(60)
    model.start_head(counts)
    logits = model.predict(torch.zeros(1, 32))
    dense, decoder = (model.backbone.get_submodule(name) for name in HEADS[family])
    torch.testing.assert_close(decoder.bias.softmax(0), (counts + 0.1) / (counts + 0.1).sum())
    assert logits.shape == (1, 60)
    assert torch.equal(dense.weight, torch.eye(*dense.weight.shape))


def test_post_embedding_is_the_mean_of_all_real_positions():
    model = with_slot(make_backbone("bert"))
    ids = make_inputs(model.backbone)
    hidden, _ = model.encode(ids, MASK, slots())
    embedding = model.post_embedding(ids, MASK, slots())
    torch.testing.assert_close(embedding[0], hidden[0].mean(0))
    torch.testing.assert_close(embedding[1], hidden[1][[0, 1, 2, 5]].mean(0))


def test_the_slot_can_have_a_share_of_its_own():
    model = with_slot(make_backbone("bert"))
    model.config.slot_weight = 0.25
    ids = make_inputs(model.backbone)
    hidden, _ = model.encode(ids, MASK, slots())
    embedding = model.post_embedding(ids, MASK, slots())
    torch.testing.assert_close(embedding[0], 0.75 * hidden[0, :-1].mean(0) + 0.25 * hidden[0, -1])
    torch.testing.assert_close(embedding[1], 0.75 * hidden[1, :3].mean(0) + 0.25 * hidden[1, -1])
    shown = torch.tensor([1, 0])
    hidden, _ = model.encode(ids, MASK, slots(), shown)
    torch.testing.assert_close(model.post_embedding(ids, MASK, slots(), shown)[1], hidden[1, :3].mean(0))


def test_padding_changes_nothing():
    model = with_slot(make_backbone("bert"))
    ids = make_inputs(model.backbone)
    alone = model.post_embedding(ids[1:, :3], MASK[1:, :3], slots()[1:])
    torch.testing.assert_close(model.post_embedding(ids, MASK, slots())[1:], alone, rtol=1e-4, atol=1e-5)


def test_eager_and_sdpa_agree():
    model = with_slot(make_backbone("bert"))
    ids = make_inputs(model.backbone)
    expected = model.post_embedding(ids, MASK, slots())
    model.set_attn_implementation("sdpa")
    assert model.encoder.config._attn_implementation == "sdpa"
    torch.testing.assert_close(model.post_embedding(ids, MASK, slots()), expected, rtol=1e-4, atol=1e-4)


def test_a_slot_that_is_missing_or_too_many_is_refused():
    model = NtulmForMaskedLM.around(BertForMaskedLM(make_backbone("bert").config))
    with pytest.raises(ValueError, match="text"):
        model(MASK, MASK, slots())
    model.add_slot("author", WIDTH, 1.0, 1.0, False, 0)
    with pytest.raises(ValueError, match="author"):
        model(MASK, MASK)


def test_other_families_are_refused_by_name():
    with pytest.raises(UserError, match=r"gpt2.*bert.*roberta"):
        check_family("gpt2")
    albert = AutoModelForMaskedLM.from_config(AutoConfig.for_model("albert", **SMALL, vocab_size=9, embedding_size=8))
    with pytest.raises(UserError, match="albert"):
        NtulmForMaskedLM.around(albert)


@pytest.mark.parametrize("family", HEADS)
def test_a_model_made_fast_for_inference_gives_the_same_embeddings(family):
    backbone = make_backbone(family)
    ids = make_inputs(backbone)
    model = with_slot(backbone)
    with torch.inference_mode():
        expected = model.post_embedding(ids, MASK, slots())
        speed_up(model.encoder, model.layers)
        torch.testing.assert_close(model.post_embedding(ids, MASK, slots()), expected)
    layers = list(model.layers.modules())
    assert any(isinstance(layer, PackedLinear) for layer in layers)
    assert not any(isinstance(layer, torch.nn.Linear) for layer in layers)
