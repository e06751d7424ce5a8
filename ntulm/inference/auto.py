"""NTULM for transformers' Auto classes: importing this module registers it, which needs torch and takes seconds.

`AutoConfig`, `AutoModel`, `AutoModelForMaskedLM` and `pipeline("fill-mask")` then load a model directory. Where nothing
of ntulm was imported, they do so with `trust_remote_code=True`: the directory's `modeling_ntulm.py` imports this module
(the package has to be installed; the directory holds no second copy of its code).
"""

from typing import Any, cast

from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM
from transformers.modeling_outputs import BaseModelOutput

from ntulm.language_model.model import NtulmConfig, NtulmForMaskedLM


class NtulmModel(NtulmForMaskedLM):
    """The language model as `AutoModel` gives it: hidden states, no logits."""

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **slots: Any
    ) -> BaseModelOutput:
        """Encode texts, with slots where `slots` has their vectors (see `NtulmForMaskedLM.forward`).

        Args:
            input_ids: int64 [B, L].
            attention_mask: [B, L], 1 for a real token; None: all are.
            slots: `slot`, `slot_shares`, `slot_mask`; token types are not looked at, as where the model was trained.

        Returns:
            `last_hidden_state` float [B, P, H], slots last. Their mean is the post embedding where the config has no
            `slot_weight` (`post_embedding`, §3.3).
        """
        mask = input_ids.new_ones(input_ids.shape) if attention_mask is None else attention_mask
        given = {name: slots[name] for name in ("slot", "slot_shares", "slot_mask") if slots.get(name) is not None}
        hidden, _ = self.encode(input_ids, mask, **given)
        return BaseModelOutput(cast(Any, hidden))


AutoConfig.register(NtulmConfig.model_type, NtulmConfig, exist_ok=True)
AutoModel.register(NtulmConfig, NtulmModel, exist_ok=True)
AutoModelForMaskedLM.register(NtulmConfig, NtulmForMaskedLM, exist_ok=True)
