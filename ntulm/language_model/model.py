"""The NTU-enriched language model (§3.2, §3.3): any supported Hugging Face encoder with an MLM head, and slots.

Library only; `ntulm/adapt.py`, `ntulm/pretrain.py` and `ntulm/encode.py` train and apply it.

Shapes:
    B posts   L tokens   S slots   P positions: L + S, the slots stand last, in their order
    H hidden   E embedded token (= H but in ELECTRA)   D NTU vector   V vocabulary   M masked tokens
    C channels: one per slot, or one per type of a slot with a projection per type

    input_ids [B, L] ─ embedding module ─► [B, L, E] ─┐                        ┌─ gather [M, H] ─ head ─► logits [M, V]
                                                      ├► [B, P, E] ─ encoder ─► [B, P, H]
    slot [B, C, D] ──── projections ─────► [B, S, E] ─┘                        └─ mean of P ─► post embedding [B, H]

Each channel c has a linear layer with W_c and b_c of its own. With its vectors x_c and shares s_c (1 where a slot has
one projection, `ntulm/language_model/slots.py`), and the typical norm z of the slot's vectors, the slot's position is

    Σ_c  W_c (x_c / z) + s_c b_c        over the channels of the slot; the paper's has one, and is W (x / z) + b

Slots have no position and no token-type embedding, so they join after the embedding module, which adds them (§3.2).
What follows the attention of the last layer is computed at the M gathered positions alone: nobody reads the others.
"""

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import MaskedLMOutput

from ntulm.errors import UserError
from ntulm.language_model.start import start_head, start_projections

if TYPE_CHECKING:
    from ntulm.language_model.config import Slot

# Where a family's MLM head keeps its dense layer and its decoder, whose weight is tied to the token embeddings.
HEADS = {
    "bert": ("cls.predictions.transform.dense", "cls.predictions.decoder"),
    "camembert": ("lm_head.dense", "lm_head.decoder"),
    "distilbert": ("vocab_transform", "vocab_projector"),
    "electra": ("generator_predictions.dense", "generator_lm_head"),
    "roberta": ("lm_head.dense", "lm_head.decoder"),
    "xlm-roberta": ("lm_head.dense", "lm_head.decoder"),
}
LEFT_OUT = "left_out"  # of `NtulmConfig.slot_unknown`
IGNORED = -100  # the target of a padded place in `positions`


def channel_count(slot: dict[str, Any]) -> int:
    """How many channels a slot of `NtulmConfig.slots` has."""
    return len(slot["types"]) if slot["per_type"] else 1


class NtulmConfig(PreTrainedConfig):
    """What is needed to rebuild the model.

    Attributes:
        backbone: the Hugging Face configuration of the encoder with its head, `model_type` included.
        variant: what the slots hold, see `ntulm/variants.py` (`text`: there is none).
        slots: per slot its `roles`, their `types`, and `per_type`: whether each type has a projection of its own.
        slot_width: D; 0 for a model without slots.
        slot_norms: per slot the typical norm of its NTU vectors. They are divided by it before the projection, a fixed
            scalar that a linear projection could learn, so that a table's scale does not act as a learning rate.
        slot_layer_norm: whether the embedding module's LayerNorm is applied to the projected slots.
        slot_weight: the slots' share of the post embedding, all together; None: each has that of any other position, as
            in the paper (§3.3).
        slot_unknown: what a slot of whose NTUs none is known holds: `mean`, the mean row (§3.2; so do configurations
            that do not say it), or `left_out`, nothing: the slot is not attended to and has no share of the embedding.
    """

    model_type = "ntulm"

    def __init__(
        self,
        backbone: dict[str, Any] | None = None,
        variant: str = "text",
        slots: list[dict[str, Any]] | None = None,
        slot_width: int = 0,
        slot_norms: list[float] | None = None,
        slot_layer_norm: bool = False,
        slot_weight: float | None = None,
        slot_unknown: str = "mean",
        **settings: Any,
    ) -> None:
        self.backbone = backbone or {"model_type": "bert"}
        self.variant = variant
        self.slots = slots or []
        self.slot_width = slot_width
        self.slot_norms = slot_norms or []
        self.slot_layer_norm = slot_layer_norm
        self.slot_weight = slot_weight
        self.slot_unknown = slot_unknown
        super().__init__(**settings)

    @property
    def channels(self) -> list[int]:
        """Per slot, how many channels it has."""
        return [channel_count(slot) for slot in self.slots]

    @property
    def leaves_out(self) -> bool:
        """Whether a slot of whose NTUs none is known is left out: then the model is to be given a `slot_mask`."""
        return self.slot_unknown == LEFT_OUT


class NtulmForMaskedLM(PreTrainedModel):
    """A backbone with its MLM head and, unless the variant is `text`, the projections of its slots."""

    config: NtulmConfig
    config_class = NtulmConfig
    base_model_prefix = "backbone"
    _supports_sdpa = True

    def __init__(self, config: NtulmConfig) -> None:
        super().__init__(config)
        check_family(config.backbone.get("model_type"))
        settings = {key: value for key, value in config.backbone.items() if key != "model_type"}
        backbone_config = AutoConfig.for_model(config.backbone["model_type"], **settings)
        implementation = config._attn_implementation or "eager"
        self.backbone = AutoModelForMaskedLM.from_config(backbone_config, attn_implementation=implementation)
        self.projections = nn.ModuleList()  # one per channel
        self._add_projections()
        self.post_init()

    @classmethod
    def around(cls, backbone: PreTrainedModel, attention: str = "eager") -> "NtulmForMaskedLM":
        """Wrap a loaded masked language model, whose weights are copied; there are no slots yet.

        Args:
            backbone: the model.
            attention: `eager` or `sdpa`.

        Raises:
            UserError: the family of the backbone is not supported.
        """
        config = NtulmConfig(backbone=backbone.config.to_dict())
        config._attn_implementation = attention
        model = cls(config)
        model.backbone.load_state_dict(backbone.state_dict())
        return model

    @property
    def encoder(self) -> Any:
        """The backbone without its MLM head (the parts of a backbone have no common type)."""
        return self.backbone.base_model

    @property
    def leaves_out(self) -> bool:
        """See `NtulmConfig.leaves_out`."""
        return self.config.leaves_out

    @property
    def embedded_width(self) -> int:
        """E, the width of an embedded token."""
        return int(self.encoder.embeddings.word_embeddings.embedding_dim)

    def _add_projections(self) -> None:
        layers = [nn.Linear(self.config.slot_width, self.embedded_width) for _ in range(sum(self.config.channels))]
        self.projections.extend(layers)

    def add_slots(
        self,
        variant: str,
        slots: list[dict[str, Any]],
        width: int,
        norms: list[float],
        settings: "Slot",
        seed: int,
    ) -> None:
        """Give a text model its slots, with fresh projections (`ntulm/language_model/start.py`).

        Args:
            variant: the name of the variant.
            slots: as in `NtulmConfig`.
            width: D, the length of an NTU vector.
            norms: per slot the typical norm of its vectors.
            settings: `scale`: the projected slots start with this many times the typical norm of an embedded token;
                `layer_norm`: apply the embedding module's LayerNorm, which then sets the norm; `weight` and `unknown`
                as in `NtulmConfig`.
            seed: draws the projections.
        """
        config = self.config
        config.variant, config.slots, config.slot_width, config.slot_norms = variant, slots, width, norms
        config.slot_layer_norm, config.slot_weight = settings.layer_norm, settings.weight
        config.slot_unknown = settings.unknown
        self._add_projections()
        self.projections.to(self.device)
        start_projections(self, settings.scale, seed)

    def start_head(self, counts: Tensor) -> None:
        """Start a fresh MLM head; `counts` [V] says how often each token occurs in the posts to come."""
        dense, decoder = (self.backbone.get_submodule(name) for name in HEADS[self.config.backbone["model_type"]])
        start_head(dense, decoder, counts)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        slot: Tensor | None = None,
        slot_shares: Tensor | None = None,
        slot_mask: Tensor | None = None,
        positions: Tensor | None = None,
        targets: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> MaskedLMOutput:
        """Predict masked tokens (§3.2).

        Args:
            input_ids: int64 [B, L].
            attention_mask: int64 or bool [B, L], 1 for a real token; None: all are.
            slot: float [B, C, D], the NTU vectors of each post by channel; None leaves the slots out.
            slot_shares: float [B, C], the share of a slot's NTUs that each channel has; None: 1.
            slot_mask: like attention_mask, [B, S]: 0 hides a slot of a post; None hides none.
            positions: int64 [M], flat places in [B, L]; None stands for all of them.
            targets: int64 [M], the true token at each place, -100 where the place does not count.
            token_type_ids: int64 [B, L], for backbones that have them; None: 0.
            labels: int64 [B, L], as `targets` for all positions.

        Returns:
            logits float [M, V] ([B, L, V] without positions), and with targets or labels the mean loss in nats.
        """
        embedded = self._embed(input_ids, attention_mask, slot, slot_shares, slot_mask, token_type_ids)
        if positions is None:
            hidden = self._run(embedded)[:, : input_ids.shape[1]]
        else:
            hidden = self._run_at(positions, input_ids.shape[1], embedded)
        logits = self.predict(hidden)
        targets = labels if targets is None else targets
        loss = None
        if targets is not None:
            losses = token_losses(logits.flatten(0, -2), targets.flatten())
            loss = losses.sum() / (targets != IGNORED).sum().clamp(min=1)
        return MaskedLMOutput(loss=cast(Any, loss), logits=cast(Any, logits))

    def post_embedding(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        slot: Tensor | None = None,
        slot_shares: Tensor | None = None,
        slot_mask: Tensor | None = None,
    ) -> Tensor:
        """The mean over all real output positions, special tokens and slots included (§3.3): float32 [B, H].

        With `slot_weight` w in the config, the slots have the share w, evenly among those shown, and the other
        positions share the rest evenly.
        """
        hidden, mask = self.encode(input_ids, attention_mask, slot, slot_shares, slot_mask)
        weights = mask.to(torch.float32)
        if slot is not None and self.config.slot_weight is not None:
            odds = self.config.slot_weight / (1 - self.config.slot_weight)
            tokens, slots = weights.split([input_ids.shape[1], weights.shape[1] - input_ids.shape[1]], dim=1)
            slots *= odds * tokens.sum(1, keepdim=True) / slots.sum(1, keepdim=True).clamp(min=1)
        weights = weights.unsqueeze(-1)
        return (hidden.float() * weights).sum(1) / weights.sum(1).clamp(min=1e-6)

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        slot: Tensor | None = None,
        slot_shares: Tensor | None = None,
        slot_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run the encoder: hidden states [B, P, H] and the mask [B, P] of its positions, the slots last."""
        embedded = self._embed(input_ids, attention_mask, slot, slot_shares, slot_mask)
        return self._run(embedded), embedded.mask

    def _run(self, embedded: "Embedded") -> Tensor:
        hidden = embedded.hidden
        for layer in self.layers:
            hidden = layer(hidden, embedded.attention)
        return hidden

    def _run_at(self, positions: Tensor, length: int, embedded: "Embedded") -> Tensor:
        """The hidden states [M, H] at flat places in [B, L]."""
        hidden, more = embedded.hidden, embedded.mask.shape[1] - length
        for layer in self.layers[:-1]:
            hidden = layer(hidden, embedded.attention)
        return _last_layer(self.layers[-1], hidden, embedded.attention, positions + positions // length * more)

    @property
    def layers(self) -> nn.ModuleList:
        """The encoder's layers; each takes hidden states and the attention mask."""
        stack = self.encoder.transformer if hasattr(self.encoder, "transformer") else self.encoder.encoder
        return cast(nn.ModuleList, stack.layer)

    def _embed(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        slot: Tensor | None,
        slot_shares: Tensor | None,
        slot_mask: Tensor | None,
        token_type_ids: Tensor | None = None,
    ) -> "Embedded":
        embeddings = self.encoder.embeddings
        typed = token_type_ids is not None and hasattr(embeddings, "token_type_embeddings")  # DistilBERT has none
        hidden = embeddings(input_ids=input_ids, **({"token_type_ids": token_type_ids} if typed else {}))
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mask = real.to(torch.bool)
        if slot is not None:
            hidden = torch.cat([hidden, self._project(slot, slot_shares).to(hidden.dtype)], dim=1)
            count = len(self.config.slots)
            shown = mask.new_ones(len(mask), count) if slot_mask is None else slot_mask.to(torch.bool)
            mask = torch.cat([mask, shown], dim=1)
        if hasattr(self.encoder, "embeddings_project"):  # ELECTRA with E != H
            hidden = self.encoder.embeddings_project(hidden)
        # The skip looks at the mask's values, which on a GPU would wait for the device in every step.
        attention = create_bidirectional_mask(
            config=self.encoder.config, inputs_embeds=hidden, attention_mask=mask, allow_is_bidirectional_skip=False
        )
        return Embedded(hidden, mask, attention)

    def predict(self, hidden: Tensor) -> Tensor:
        """The backbone's MLM head: [..., H] to logits [..., V]."""
        backbone: Any = self.backbone
        family = self.config.backbone["model_type"]
        if family == "bert":
            return backbone.cls(hidden)
        if family == "distilbert":
            return backbone.vocab_projector(
                backbone.vocab_layer_norm(backbone.activation(backbone.vocab_transform(hidden)))
            )
        if family == "electra":
            return backbone.generator_lm_head(backbone.generator_predictions(hidden))
        return backbone.lm_head(hidden)

    def _project(self, slot: Tensor, shares: Tensor | None = None) -> Tensor:
        """[B, C, D] and [B, C] to [B, S, E]; see the head of this file."""
        if slot.shape[1:] != (len(self.projections), self.config.slot_width):
            raise ValueError(
                f"variant {self.config.variant!r}: slot vectors {list(slot.shape)}; expected [posts, "
                f"{len(self.projections)}, {self.config.slot_width}]"
            )
        projected, channel = [], 0
        for count, norm in zip(self.config.channels, self.config.slot_norms, strict=True):
            own = range(channel, channel + count)
            parts = [self._project_channel(c, slot[:, c] / norm, None if count == 1 else shares) for c in own]
            projected.append(sum(parts[1:], start=parts[0]))
            channel += count
        stacked = torch.stack(projected, dim=1)
        return self.encoder.embeddings.LayerNorm(stacked) if self.config.slot_layer_norm else stacked

    def _project_channel(self, channel: int, vectors: Tensor, shares: Tensor | None) -> Tensor:
        """[B, D] and, unless the channel's share is 1, [B, C] to [B, E]."""
        layer = cast(nn.Linear, self.projections[channel])
        vectors = vectors.to(layer.weight.dtype)
        if shares is None:
            return cast(Tensor, layer(vectors))
        return F.linear(vectors, layer.weight) + shares[:, channel, None].to(layer.bias.dtype) * layer.bias


class Embedded(NamedTuple):
    """What goes into the first layer."""

    hidden: Tensor  # [B, P, H]
    mask: Tensor  # bool [B, P], which positions count
    attention: Any  # the attention mask that the layers take


def _last_layer(layer: Any, hidden: Tensor, attention: Any, rows: Tensor) -> Tensor:
    """Apply a layer to [B, P, H], and give its output [M, H] at `rows` int64 [M], flat places in [B, P], alone."""
    attend = layer.attention if hasattr(layer, "ffn") else layer.attention.self
    attended = attend(hidden, attention_mask=attention)[0].flatten(0, 1).index_select(0, rows)
    hidden = hidden.flatten(0, 1).index_select(0, rows)
    if hasattr(layer, "ffn"):  # DistilBERT
        attended = layer.sa_layer_norm(attended + hidden)
        return layer.output_layer_norm(layer.ffn(attended) + attended)
    return layer.feed_forward_chunk(layer.attention.output(attended, hidden))


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """-ln p of each target: float32 [M], 0 where the target is -100."""
    return F.cross_entropy(logits.float(), targets, reduction="none", ignore_index=IGNORED)


def check_family(model_type: object) -> None:
    """Refuse a backbone of a family whose parts this file does not know.

    Raises:
        UserError: names the supported families.
    """
    if model_type not in HEADS:
        raise UserError(f"adapt.backbone: {model_type!r} is not supported; supported are {', '.join(HEADS)}")
