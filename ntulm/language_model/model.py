"""The NTU-enriched language model (§3.2, §3.3): any supported Hugging Face encoder with an MLM head, and one NTU slot.

Library only; `ntulm/adapt.py`, `ntulm/pretrain.py` and `ntulm/encode.py` train and apply it.

Shapes:
    B posts   L tokens   P positions: L, or L + 1 with the slot, which stands last
    H hidden   E embedded token (= H but in ELECTRA)   D NTU vector   V vocabulary   M masked tokens

    input_ids [B, L] ─ embedding module ─► [B, L, E] ─┐                        ┌─ gather [M, H] ─ head ─► logits [M, V]
                                                      ├► [B, P, E] ─ encoder ─► [B, P, H]
    slot [B, D] ─────── linear ──────────► [B, 1, E] ─┘                        └─ mean of P ─► post embedding [B, H]
    (a post's mean NTU vector)

The slot has no position and no token-type embedding, so it joins after the embedding module, which adds them (§3.2).
What follows the attention of the last layer is computed at the M gathered positions alone: nobody reads the others.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import MaskedLMOutput

from ntulm.errors import UserError

# Where a family's MLM head keeps its dense layer and its decoder, whose weight is tied to the token embeddings.
HEADS = {
    "bert": ("cls.predictions.transform.dense", "cls.predictions.decoder"),
    "camembert": ("lm_head.dense", "lm_head.decoder"),
    "distilbert": ("vocab_transform", "vocab_projector"),
    "electra": ("generator_predictions.dense", "generator_lm_head"),
    "roberta": ("lm_head.dense", "lm_head.decoder"),
    "xlm-roberta": ("lm_head.dense", "lm_head.decoder"),
}
IGNORED = -100  # the target of a padded place in `positions`


class NtulmConfig(PreTrainedConfig):
    """What is needed to rebuild the model.

    Attributes:
        backbone: the Hugging Face configuration of the encoder with its head, `model_type` included.
        variant: which NTU types feed the slot (`text`: none).
        slot_width: D; 0 for a model without a slot.
        slot_layer_norm: whether the embedding module's LayerNorm is applied to the projected slot.
        slot_norm: typical norm of the NTU vectors. They are divided by it before the projection, a fixed scalar that
            a linear projection could learn, so that a table's scale does not act as a learning rate.
        slot_weight: the slot's share of the post embedding; None: that of any other position, as in the paper (§3.3).
    """

    model_type = "ntulm"

    def __init__(
        self,
        backbone: dict[str, Any] | None = None,
        variant: str = "text",
        slot_width: int = 0,
        slot_layer_norm: bool = False,
        slot_norm: float = 1.0,
        slot_weight: float | None = None,
        **settings: Any,
    ) -> None:
        self.backbone = backbone or {"model_type": "bert"}
        self.variant = variant
        self.slot_width = slot_width
        self.slot_layer_norm = slot_layer_norm
        self.slot_norm = slot_norm
        self.slot_weight = slot_weight
        super().__init__(**settings)


class NtulmForMaskedLM(PreTrainedModel):
    """A backbone with its MLM head and, unless the variant is `text`, the projection of the NTU slot."""

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
        self.slot = nn.Linear(config.slot_width, self.embedded_width) if config.slot_width else None
        self.post_init()

    @classmethod
    def around(cls, backbone: PreTrainedModel, attention: str = "eager") -> "NtulmForMaskedLM":
        """Wrap a loaded masked language model, whose weights are copied; there is no slot yet.

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
    def embedded_width(self) -> int:
        """E, the width of an embedded token."""
        return int(self.encoder.embeddings.word_embeddings.embedding_dim)

    def add_slot(self, variant: str, width: int, norm: float, scale: float, layer_norm: bool, seed: int) -> None:
        """Give a text model its slot, with a fresh projection.

        The paper does not say how its projection starts. Ours keeps the angles between NTU vectors, and writes them
        where the first layer's keys read least. To last through the layers and to be found in the mean over positions
        (§3.3), a slot has to be larger than a token; written anywhere, such a slot would draw the attention of all
        tokens to it or away from it (docs/decisions/0003-start-of-the-slot.md).

        Args:
            variant: the name of the variant.
            width: D, the length of an NTU vector.
            norm: typical norm of the table's slot vectors.
            scale: the projected slots start with `scale` times the typical norm of an embedded token.
            layer_norm: apply the embedding module's LayerNorm, which then sets the norm.
            seed: draws the projection.
        """
        self.config.variant, self.config.slot_width = variant, width
        self.config.slot_layer_norm, self.config.slot_norm = layer_norm, norm
        self.slot = nn.Linear(width, self.embedded_width).to(self.device)
        directions = self._quiet_directions(width)
        with torch.no_grad():
            # The input has a norm near 1 (see `slot_norm`), and an orthogonal matrix keeps it.
            empty = torch.empty(directions.shape[1], width)
            orthogonal = nn.init.orthogonal_(empty, generator=torch.Generator().manual_seed(seed)).to(self.device)
            self.slot.weight.copy_(directions @ orthogonal * scale * self._token_norm())
            self.slot.bias.zero_()

    @torch.no_grad()
    def _quiet_directions(self, count: int) -> Tensor:
        """The directions that the first layer's keys read least: orthonormal [E, min(count, E)]."""
        attention: Any = self.layers[0].attention
        keys = attention.k_lin if hasattr(attention, "k_lin") else attention.self.key
        read = keys.weight.double()
        if hasattr(self.encoder, "embeddings_project"):
            read = read @ self.encoder.embeddings_project.weight.double()
        _, directions = torch.linalg.eigh(read.T @ read)  # the least read first
        return directions[:, :count].float()

    @torch.no_grad()
    def start_head(self, counts: Tensor) -> None:
        """Give a fresh MLM head a sensible start: the identity, and the tokens' frequencies as the decoder's bias.

        With the library's random start a small budget goes into learning these (4,000 posts: 9.4 bits instead of 8.3).

        Args:
            counts: [V], how often each token occurs in the posts to come.
        """
        dense, decoder = (self.backbone.get_submodule(name) for name in HEADS[self.config.backbone["model_type"]])
        cast(nn.Linear, dense).weight.copy_(torch.eye(*cast(nn.Linear, dense).weight.shape))
        smoothed = counts.double() + 0.1  # a token never seen keeps a chance
        cast(nn.Linear, decoder).bias.copy_((smoothed / smoothed.sum()).log())

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        slot: Tensor | None = None,
        slot_mask: Tensor | None = None,
        positions: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> MaskedLMOutput:
        """Predict masked tokens (§3.2).

        Args:
            input_ids: int64 [B, L].
            attention_mask: int64 or bool [B, L], 1 for a real token.
            slot: float [B, D], the mean NTU vector of each post; needed if and only if the model has a slot.
            slot_mask: like attention_mask, [B]: 0 hides a post's slot; None hides none.
            positions: int64 [M], flat places in [B, L]; None stands for all of them.
            targets: int64 [M], the true token at each place, -100 where the place does not count.

        Returns:
            logits float [M, V] ([B, L, V] without positions), and with targets the mean cross-entropy in nats.
        """
        if positions is None:
            hidden = self.encode(input_ids, attention_mask, slot, slot_mask)[0][:, : input_ids.shape[1]]
        else:
            hidden = self._encode_at(positions, input_ids, attention_mask, slot, slot_mask)
        logits = self.predict(hidden)
        loss = (
            None if targets is None else token_losses(logits, targets).sum() / (targets != IGNORED).sum().clamp(min=1)
        )
        return MaskedLMOutput(loss=cast(Any, loss), logits=cast(Any, logits))

    def post_embedding(
        self, input_ids: Tensor, attention_mask: Tensor, slot: Tensor | None = None, slot_mask: Tensor | None = None
    ) -> Tensor:
        """The mean over all real output positions, special tokens and the slot included (§3.3): float32 [B, H].

        With `slot_weight` w in the config, the slot has the share w, and the other positions share the rest evenly.
        """
        hidden, mask = self.encode(input_ids, attention_mask, slot, slot_mask)
        weights = mask.to(torch.float32)
        if slot is not None and self.config.slot_weight is not None:
            odds = self.config.slot_weight / (1 - self.config.slot_weight)
            weights[:, -1] *= odds * weights[:, :-1].sum(1)
        weights = weights.unsqueeze(-1)
        return (hidden.float() * weights).sum(1) / weights.sum(1).clamp(min=1e-6)

    def encode(
        self, input_ids: Tensor, attention_mask: Tensor, slot: Tensor | None = None, slot_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the encoder: hidden states [B, P, H] and the mask [B, P] of its positions, the slot last."""
        hidden, mask, attention = self._embed(input_ids, attention_mask, slot, slot_mask)
        for layer in self.layers:
            hidden = layer(hidden, attention)
        return hidden, mask

    def _encode_at(
        self,
        positions: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        slot: Tensor | None,
        slot_mask: Tensor | None,
    ) -> Tensor:
        """The hidden states [M, H] at flat places in [B, L]."""
        hidden, mask, attention = self._embed(input_ids, attention_mask, slot, slot_mask)
        for layer in self.layers[:-1]:
            hidden = layer(hidden, attention)
        length, with_slot = input_ids.shape[1], mask.shape[1]
        return _last_layer(self.layers[-1], hidden, attention, positions + positions // length * (with_slot - length))

    @property
    def layers(self) -> nn.ModuleList:
        """The encoder's layers; each takes hidden states and the attention mask."""
        stack = self.encoder.transformer if hasattr(self.encoder, "transformer") else self.encoder.encoder
        return cast(nn.ModuleList, stack.layer)

    def _embed(
        self, input_ids: Tensor, attention_mask: Tensor, slot: Tensor | None, slot_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Any]:
        """What goes into the first layer [B, P, H], the mask [B, P] of its positions, and the attention mask."""
        embedded = self.encoder.embeddings(input_ids=input_ids)
        mask = attention_mask.to(torch.bool)
        if (self.slot is None) != (slot is None):
            raise ValueError(f"variant {self.config.variant!r}: a slot vector is needed if and only if there is a slot")
        if slot is not None:
            embedded = torch.cat([embedded, self._project(slot).to(embedded.dtype)], dim=1)
            shown = mask.new_ones(len(mask)) if slot_mask is None else slot_mask.to(torch.bool)
            mask = torch.cat([mask, shown.unsqueeze(1)], dim=1)
        if hasattr(self.encoder, "embeddings_project"):  # ELECTRA with E != H
            embedded = self.encoder.embeddings_project(embedded)
        # The skip looks at the mask's values, which on a GPU would wait for the device in every step.
        attention = create_bidirectional_mask(
            config=self.encoder.config, inputs_embeds=embedded, attention_mask=mask, allow_is_bidirectional_skip=False
        )
        return embedded, mask, attention

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

    def _project(self, slot: Tensor) -> Tensor:
        """[B, D] to [B, 1, E]."""
        assert self.slot is not None
        projected = self.slot((slot / self.config.slot_norm).to(self.slot.weight.dtype))
        if self.config.slot_layer_norm:
            projected = self.encoder.embeddings.LayerNorm(projected)
        return projected.unsqueeze(1)

    @torch.no_grad()
    def _token_norm(self) -> float:
        """The mean norm of an embedded token, over the vocabulary's first 4096 tokens at one position."""
        self.eval()
        count = min(4096, int(self.encoder.embeddings.word_embeddings.num_embeddings))
        tokens = torch.arange(count, device=self.device).unsqueeze(1)
        return float(self.encoder.embeddings(input_ids=tokens).norm(dim=-1).mean())


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
