"""Checkpoints of a training run: what it needs to go on after a kill as if nothing had happened.

A directory of `state.safetensors` (tensors by name) and `state.json`, written whole, without pickle. It belongs to one
fingerprint of settings and data; anything else found there is ignored and replaced. A damaged one is set aside as
`….damaged`, with a line. Library of `training.py`.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ntulm.files import sha256, whole_directory

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
            content = {"fingerprint": self.fingerprint, "sha256": sha256(partial / TENSORS), "state": state}
            content["digest"] = fingerprint(content)
            (partial / STATE).write_text(json.dumps(content), encoding="utf-8")

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors and the state, or None if there is no whole checkpoint of this fingerprint."""
        if not self.path.exists():
            return None
        try:
            content = json.loads((self.path / STATE).read_text(encoding="utf-8"))
            digest = content.pop("digest")
            if digest != fingerprint(content) or content["sha256"] != sha256(self.path / TENSORS):
                raise ValueError("not what was written")
            return (load_file(self.path / TENSORS), content["state"]) if self._is_own(content) else None
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError, SafetensorError) as error:
            self._set_aside(error)
            return None

    def _is_own(self, content: dict[str, Any]) -> bool:
        return bool(content["fingerprint"] == self.fingerprint)

    def _set_aside(self, error: Exception) -> None:
        damaged = self.path.with_name(f"{self.path.name}.damaged")
        shutil.rmtree(damaged, ignore_errors=True)
        self.path.replace(damaged)
        reason = " ".join(str(error).split())[:200]
        print(f"{self.path}: damaged checkpoint ({reason}); now {damaged.name}, training starts anew", file=sys.stderr)

    def remove(self) -> None:
        """Remove the checkpoint, what a killed write left, and a damaged one."""
        shutil.rmtree(self.path, ignore_errors=True)
        for left in (f".partial-{self.path.name}", f"{self.path.name}.damaged"):
            shutil.rmtree(self.path.with_name(left), ignore_errors=True)


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
