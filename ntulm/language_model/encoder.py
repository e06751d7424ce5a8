"""Posts to vectors with a frozen model (§3.3). Library of the stage `encode`, of `ntulm tune` and of `ntulm.load`."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ntulm.device import attention_without_plans, has_bf16, to_device
from ntulm.embeddings.table import EmbeddingTable
from ntulm.language_model.batches import FIXED, Batch, padded_batches, uniform
from ntulm.language_model.model import NtulmForMaskedLM
from ntulm.language_model.packed import speed_up
from ntulm.language_model.slots import Slots
from ntulm.language_model.tokens import TextSettings, tokenise
from ntulm.ntus import NtuScheme, known_posts
from ntulm.posts import Posts
from ntulm.variants import Variant

HIDING_SEED, HIDING_STREAM = 0, 4  # of the draw of training posts without NTUs; the masks and the slots have 0 to 3


@dataclass(frozen=True)
class Encoder:
    """A frozen variant with what it needs to read posts."""

    model: NtulmForMaskedLM
    tokenizer: PreTrainedTokenizerBase
    table: EmbeddingTable | None  # may be None for a variant without slots
    scheme: NtuScheme
    variant: Variant
    batches: TextSettings
    batch_size: int

    @property
    def width(self) -> int:
        """H, the length of a vector."""
        return int(self.model.encoder.config.hidden_size)

    def known(self, posts: Posts) -> np.ndarray:
        """Whether the table knows an NTU that the variant looks at, of each of N posts: bool [N]."""
        if self.table is None:
            return np.zeros(len(posts), bool)
        return known_posts(self.table, self.scheme, posts.seen_by(self.variant).ntus, self.variant.roles)

    def encode(self, posts: Posts) -> np.ndarray:
        """The post embeddings of N posts as the variant sees them: float32 [N, H]."""
        device = self.model.device
        seen = posts.seen_by(self.variant)
        tokens = tokenise(seen.texts, self.tokenizer, self.batches)
        slots = None
        if self.variant.slots:
            assert self.table is not None
            slots = Slots.of(self.table, self.scheme, self.variant, seen.ntus, self.model.leaves_out)
        vectors = torch.empty(len(posts), self.width, device=device)

        @torch.inference_mode()  # belongs to a thread
        def encode(numbered: tuple[np.ndarray, Batch]) -> None:
            rows, batch = numbered
            more = {} if slots is None else slots.tensors(rows, device)
            input_ids, attention_mask = to_device(batch.input_ids, device), to_device(batch.attention_mask, device)
            with attention_without_plans(device):
                embedded = self.model.post_embedding(input_ids, attention_mask, **more)
            vectors[to_device(torch.from_numpy(rows), device)] = embedded

        padding = int(self.tokenizer.pad_token_id or 0)
        batches = padded_batches(tokens, padding, self.batch_size, self.batches.max_length)
        if device.type == "cpu":  # a batch a core is faster than each batch on all cores (decision 0031)
            with ThreadPoolExecutor(torch.get_num_threads(), initializer=partial(torch.set_num_threads, 1)) as pool:
                list(pool.map(encode, batches))
        else:
            for batch in batches:
                encode(batch)
        return vectors.cpu().numpy()


def freeze(model: NtulmForMaskedLM) -> NtulmForMaskedLM:
    """Make a model ready for encoding, in place: no dropout, and weights in bfloat16 where the hardware has it.

    Autocast would convert activations back and forth around every product; what is lost is rounding (cosine with the
    vectors of float32 above 0.999), and the mean over positions is taken in float32. On a CPU the model can then only
    encode.
    """
    if not has_bf16(model.device):
        return model.eval()
    model = model.eval().to(torch.bfloat16)
    if model.device.type == "cpu":
        speed_up(model.encoder, model.layers)
    return model


def hidden_rows(splits: list[str], start: int, share: float) -> np.ndarray:
    """Which of the rows int64 [n], the first of them being row `start` of the file, are encoded without NTUs."""
    drawn = uniform(np.arange(start, start + len(splits)), HIDING_SEED, FIXED, HIDING_STREAM) < share
    return np.flatnonzero(drawn & (np.array(splits) == "train"))
