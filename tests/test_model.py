"""ntulm/language_model/model.py: the slot of §3.2, the post embedding of §3.3, and what survives a save."""

from typing import Any, cast

import pytest
import torch
from schemes import slot_settings
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


ONE = [{"roles": ["author"], "types": ["user"], "per_type": False}]
BOTH = [{"roles": ["author", "hashtag"], "types": ["user", "hashtag"], "per_type": False}]
TWO = [*ONE, {"roles": ["hashtag"], "types": ["hashtag"], "per_type": False}]
PER_TYPE = [{**BOTH[0], "per_type": True}]
MIXED = [{"roles": ["mention"], "types": ["user"], "per_type": False}, *PER_TYPE]
LAYOUTS = {"author": ONE, "author.hashtag": TWO, "author++hashtag": PER_TYPE, "mention.author++hashtag": MIXED}


def with_slot(backbone, layer_norm=False, variant="author", scale=1.0, norm=2.0):
    model = NtulmForMaskedLM.around(backbone)
    slots = LAYOUTS[variant]
    model.add_slots(variant, slots, WIDTH, [norm] * len(slots), slot_settings(layer_norm=layer_norm, scale=scale), 0)
    return model.eval()


def slots(seed=2, channels=1):
    return torch.randn(len(MASK), channels, WIDTH, generator=torch.Generator().manual_seed(seed))


def shares(channels, seed=4):
    return torch.rand(len(MASK), channels, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def with_biases(model):
    """The biases of the projections start at 0, which would hide an error."""
    for projection in model.projections:
        torch.nn.init.normal_(projection.bias, generator=torch.Generator().manual_seed(5))
    return model


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
    hidden = model(ids, MASK, slots(), slot_mask=torch.zeros(2, 1)).logits[MASK.bool()]
    torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-4)
    assert (model(ids, MASK, slots()).logits[MASK.bool()] - expected).abs().max() > 1e-3


def test_each_of_several_slots_can_be_masked_for_each_post():
    model = with_biases(with_slot(make_backbone("bert"), variant="author.hashtag"))
    ids, vectors = make_inputs(model.backbone), slots(channels=2)
    shown = model(ids, MASK, vectors, slot_mask=torch.tensor([[1, 0], [0, 1]])).logits
    for post, slot in ((0, 1), (1, 0)):
        other = vectors.clone()
        other[post, slot] = 100.0
        again = model(ids, MASK, other, slot_mask=torch.tensor([[1, 0], [0, 1]])).logits
        torch.testing.assert_close(again, shown)
    hidden = model(ids, MASK, vectors, slot_mask=torch.zeros(2, 2)).logits
    torch.testing.assert_close(hidden, model(ids, MASK).logits, rtol=1e-4, atol=1e-4)
    assert (hidden - shown).abs().max() > 1e-3


@pytest.mark.parametrize("family", HEADS)
def test_it_can_be_called_as_any_masked_language_model(family):
    backbone = make_backbone(family)
    ids = make_inputs(backbone)
    model = with_slot(backbone, variant="author.hashtag")
    whole = torch.ones_like(ids)
    labels = ids.masked_fill(torch.rand(ids.shape, generator=torch.Generator().manual_seed(3)) < 0.5, -100)
    expected = backbone(ids, attention_mask=whole, labels=labels)
    given = model(input_ids=ids, attention_mask=whole, token_type_ids=torch.zeros_like(ids), labels=labels)
    torch.testing.assert_close(given.logits, expected.logits)
    torch.testing.assert_close(given.loss, expected.loss)
    torch.testing.assert_close(model(ids).logits, expected.logits)
    torch.testing.assert_close(
        model.post_embedding(ids, MASK), NtulmForMaskedLM.around(backbone).eval().post_embedding(ids, MASK)
    )


def test_token_types_reach_the_backbone():
    backbone = make_backbone("bert")
    ids, types = make_inputs(backbone), torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]])
    model = NtulmForMaskedLM.around(backbone).eval()
    expected = backbone(ids, attention_mask=MASK, token_type_ids=types).logits[MASK.bool()]
    torch.testing.assert_close(model(ids, MASK, token_type_ids=types).logits[MASK.bool()], expected)


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
    assert (loaded.config.variant, loaded.config.slot_width, loaded.config.slot_norms) == ("author", WIDTH, [2.0])
    assert loaded.config.slots == ONE
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
    expected = model.projections[0](slots()[:, 0] / 2.0)
    expected = model.encoder.embeddings.LayerNorm(expected) if layer_norm else expected
    assert long.shape == (2, 6, 32)
    torch.testing.assert_close(long[:, -1], expected)
    torch.testing.assert_close(short[:, -1], expected)  # the same wherever it stands: no position
    torch.testing.assert_close(long[:, :3], short[:, :3])


@pytest.mark.parametrize("variant", LAYOUTS)
def test_a_slot_is_the_sum_over_its_channels(variant, tmp_path):
    model = with_biases(with_slot(make_backbone("bert"), variant=variant))
    about: Any = LAYOUTS[variant]
    channels = len(model.projections)
    vectors, share, c = slots(channels=channels), shares(channels), 0
    expected: list[torch.Tensor] = []
    for slot in about:
        position = torch.zeros(())
        for _ in range(len(slot["types"]) if slot["per_type"] else 1):
            layer = model.projections[c]
            full = share[:, c, None] if slot["per_type"] else 1.0
            position = position + (vectors[:, c] / 2.0) @ layer.weight.T + full * layer.bias
            c += 1
        expected.append(position)
    torch.testing.assert_close(model._project(vectors, share), torch.stack(expected, 1))
    model.save_pretrained(tmp_path)
    loaded = NtulmForMaskedLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded._project(vectors, share), model._project(vectors, share))
    ids = make_inputs(model.backbone)
    positions = torch.tensor([1, 7, 0])
    everywhere = model(ids, MASK, vectors, share).logits.reshape(-1, 60)
    at = model(ids, MASK, vectors, share, positions=positions).logits
    torch.testing.assert_close(at, everywhere[positions], rtol=1e-4, atol=1e-4)


def test_a_projection_per_type_that_is_the_same_for_all_types_is_the_papers_slot():
    shared, per_type = (
        with_biases(with_slot(make_backbone("bert"), variant=name)) for name in ("author", "author++hashtag")
    )
    with torch.no_grad():
        for projection in per_type.projections:
            projection.load_state_dict(shared.projections[0].state_dict())
    vectors, share = slots(channels=2), torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    torch.testing.assert_close(per_type._project(vectors, share), shared._project(vectors.sum(1, keepdim=True)))


def test_the_encoder_does_not_know_where_the_slot_stands():
    model = with_slot(make_backbone("bert"))
    ids = make_inputs(model.backbone)[:1]
    embedded = torch.cat([model.encoder.embeddings(input_ids=ids), model._project(slots()[:1])], dim=1)
    last = model.encoder.encoder(embedded).last_hidden_state
    first = model.encoder.encoder(embedded.roll(1, dims=1)).last_hidden_state
    torch.testing.assert_close(first.roll(-1, dims=1), last)


def test_projected_slots_start_with_the_norm_of_tokens_times_the_scale():
    model = with_slot(make_backbone("bert"), scale=0.5, norm=7.0)
    vectors = 7.0 * torch.nn.functional.normalize(torch.randn(500, 1, WIDTH), dim=-1)
    tokens = model.encoder.embeddings(input_ids=torch.arange(60).unsqueeze(1)).norm(dim=-1).mean()
    assert float((model._project(vectors).norm(dim=-1).mean() / tokens).detach()) == pytest.approx(0.5, rel=0.2)


def test_a_slot_starts_with_the_angles_of_the_ntu_vectors():
    model = with_slot(make_backbone("bert"))
    vectors = slots()
    projected = model._project(vectors)[:, 0].detach()
    expected = torch.nn.functional.cosine_similarity(vectors[:1, 0], vectors[:, 0])
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


def test_channels_start_in_directions_of_their_own_as_long_as_there_are_enough():
    model = with_slot(make_backbone("bert"), variant="mention.author++hashtag")
    weights = [projection.weight.detach() for projection in model.projections]
    for one in range(3):
        for other in range(one):
            torch.testing.assert_close(weights[one].T @ weights[other], torch.zeros(WIDTH, WIDTH), rtol=0, atol=1e-4)
    alone = with_slot(make_backbone("bert")).projections[0].weight
    assert torch.linalg.matrix_rank(torch.cat(weights, 1)) == 3 * WIDTH
    assert alone.shape == weights[0].shape
    crowded = NtulmForMaskedLM.around(make_backbone("bert"))
    crowded.add_slots("author.hashtag", TWO, 20, [1.0, 1.0], slot_settings(), 0)  # 40 of 32 directions
    first, second = (cast(torch.nn.Linear, projection).weight.detach() for projection in crowded.projections)
    assert torch.linalg.matrix_rank(torch.cat([first, second], 1)) == 20
    assert not torch.equal(first, second)


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
    shown = torch.tensor([[1], [0]])
    hidden, _ = model.encode(ids, MASK, slots(), slot_mask=shown)
    torch.testing.assert_close(model.post_embedding(ids, MASK, slots(), slot_mask=shown)[1], hidden[1, :3].mean(0))


def test_several_slots_divide_their_share_among_those_that_are_shown():
    model = with_slot(make_backbone("bert"), variant="author.hashtag")
    model.config.slot_weight = 0.25
    ids, vectors, shown = make_inputs(model.backbone), slots(channels=2), torch.tensor([[1, 1], [0, 1]])
    hidden, _ = model.encode(ids, MASK, vectors, slot_mask=shown)
    embedding = model.post_embedding(ids, MASK, vectors, slot_mask=shown)
    torch.testing.assert_close(embedding[0], 0.75 * hidden[0, :5].mean(0) + 0.25 * hidden[0, 5:].mean(0))
    torch.testing.assert_close(embedding[1], 0.75 * hidden[1, :3].mean(0) + 0.25 * hidden[1, 6])
    model.config.slot_weight = None
    embedding = model.post_embedding(ids, MASK, vectors, slot_mask=shown)
    torch.testing.assert_close(embedding[0], hidden[0].mean(0))


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


def test_slot_vectors_of_another_shape_are_refused():
    model = NtulmForMaskedLM.around(BertForMaskedLM(make_backbone("bert").config))
    with pytest.raises(ValueError, match=r"text.*expected \[posts, 0, 0\]"):
        model(MASK, MASK, slots())
    model.add_slots("author.hashtag", TWO, WIDTH, [1.0, 1.0], slot_settings(), 0)
    with pytest.raises(ValueError, match=r"author\.hashtag.*\[2, 1, 6\]; expected \[posts, 2, 6\]"):
        model(MASK, MASK, slots())


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
