"""Checkpoints of a training run: what it needs to go on after a kill as if nothing had happened.

A directory of `state.safetensors` (tensors by name) and `state.json`, written whole, without pickle. It belongs to one
fingerprint of settings and data; anything else found there is ignored and replaced. Library of `training.py`.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ntulm.files import whole_directory

TENSORS, STATE = "state.safetensors", "state.json"


class Checkpoint:
    """The one checkpoint of a training run."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.fingerprint = fingerprint

    def write(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Replace the checkpoint."""
        with whole_directory(self.path) as partial:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial / TENSORS)
            content = {"fingerprint": self.fingerprint, "state": state}
            (partial / STATE).write_text(json.dumps(content), encoding="utf-8")

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors and the state, or None if there is no readable checkpoint of this fingerprint."""
        try:
            content = json.loads((self.path / STATE).read_text(encoding="utf-8"))
            if content["fingerprint"] != self.fingerprint:
                return None
            return load_file(self.path / TENSORS), content["state"]
        except (OSError, ValueError, KeyError, SafetensorError):
            return None

    def remove(self) -> None:
        """Remove the checkpoint and what a killed write left."""
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.rmtree(self.path.with_name(f".partial-{self.path.name}"), ignore_errors=True)


def fingerprint(*parts: Any) -> str:
    """A hash of JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def weights_fingerprint(model: nn.Module) -> str:
    """A hash of all weights."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def training_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and optimizer state under flat names (a tied weight once)."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        tensors[f"weight.{name}"] = parameter
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value
    return tensors


@torch.no_grad()
def restore_training(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The reverse of `training_tensors`."""
    for name, parameter in model.named_parameters():
        parameter.copy_(tensors[f"weight.{name}"])
        for key in ("step", "exp_avg", "exp_avg_sq"):
            value = tensors.get(f"optimizer.{key}.{name}")
            if value is not None:
                optimizer.state[parameter][key] = value.to(parameter.device)
