"""The model directory: what it holds, how a post is read by it, and where one lies that somebody names.

    config.json, model.safetensors, tokenizer files   the language model, a Hugging Face directory
    modeling_ntulm.py                                 for `trust_remote_code=True` (see `ntulm/inference/auto.py`)
    table.safetensors, overlay.safetensors            the embedding table and the rows that were added to it later
    relations.safetensors                             the relations of the graph, from which such rows are solved
    reading.json                                      how a post becomes input: `Settings`
    classifiers/TASK.DATASET.{safetensors,json}       the classifiers (`ntulm/probe/classifier.py`)
    modules.json, config_sentence_transformers.json   for sentence-transformers (`ntulm/inference/sentence_module.py`)
    README.md                                         the model card

One that `ntulm export` wrote has `model.onnx` in the place of the weights, and nothing for other libraries.

It is self-contained and names no path of the machine that made it. Library only; nothing here needs torch.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ntulm.embeddings.fold_in import FoldIn
from ntulm.errors import UserError
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme
from ntulm.text import KEY_FORMS, Reading

READING, CLASSIFIERS, MODELING, CARD = "reading.json", "classifiers", "modeling_ntulm.py", "README.md"
FORMAT = "ntulm-model-1"
# What makes the directory one of sentence-transformers, as it writes it itself; file -> JSON value.
SENTENCE_MODULES: dict[str, Any] = {
    "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "ntulm.inference.sentence_module.NtulmPosts"}],
    "config_sentence_transformers.json": {
        "model_type": "SentenceTransformer",
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    },
}
HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "*.onnx"]  # no code
PROMOTED = re.compile(r"production|v\d+(?:\.\d+)*")
HUB_NAME = re.compile(r"hf://([\w-][\w.-]*/[\w-][\w.-]*)")


@dataclass(frozen=True)
class Batches:
    """The section `batches` of params.yaml without pydantic: how a text becomes tokens."""

    max_length: int
    mask_urls: bool
    mask_mentions: bool


@dataclass(frozen=True)
class Settings:
    """How a model reads posts: its variant and seed, the NTUs, the text, and how its source writes users and texts."""

    variant: str
    seed: int
    scheme: NtuScheme
    batches: Batches
    source: Reading
    fold_in: FoldIn | None = None  # None: of a directory that was made before there was such a thing

    def write(self, path: Path) -> None:
        """Write a JSON file."""
        value = {"format": FORMAT, "variant": self.variant, "seed": self.seed, "source": asdict(self.source)}
        value |= {"ntus": self.scheme.to_json(), "batches": asdict(self.batches)}
        value |= {} if self.fold_in is None else {"fold_in": asdict(self.fold_in)}
        text = json.dumps(value, indent=2, ensure_ascii=False)  # the roles stand in their order
        path.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Settings:
        """Of a model directory.

        Raises:
            UserError: it is none, or of a later format.
        """
        path = directory / READING
        if not path.is_file():
            raise UserError(f"{directory}: no {READING}; expected a model directory, as the stage `model` writes it")
        try:
            value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if value["format"] != FORMAT:
                raise UserError(f"{path}: format {value['format']!r}; this version of ntulm reads {FORMAT!r}")
            scheme, batches = NtuScheme.from_json(value["ntus"]), Batches(**value["batches"])
            folding = FoldIn.from_json(value["fold_in"]) if "fold_in" in value else None
            found = cls(value["variant"], value["seed"], scheme, batches, Reading(**value["source"]), folding)
            _refuse_other_types(found)
            return found
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}: not the settings of a model directory ({error})") from error


def _refuse_other_types(settings: Settings) -> None:
    """Refuse values of other types than their fields have."""
    scheme, batches, source = settings.scheme, asdict(settings.batches), asdict(settings.source)
    longest, key = batches.pop("max_length"), source.pop("pseudonyms")
    numbers, texts = (longest, settings.seed), [settings.variant, *scheme.types, *scheme.types.values(), *scheme.roles]
    texts += [text for role in scheme.roles.values() for text in (role.type, role.field or "", role.engagement or "")]
    wrong = [value for value in numbers if type(value) is not int or value < 0]
    wrong += [value for value in texts if not isinstance(value, str)]
    wrong += [value for value in (*batches.values(), *source.values()) if not isinstance(value, bool)]
    wrong += [key] if not isinstance(key, str | None) else []
    wrong += [role.type for role in scheme.roles.values() if role.type not in scheme.types]
    wrong += [form for form in scheme.types.values() if form not in KEY_FORMS]
    if wrong:
        raise ValueError(f"{wrong[0]!r} cannot be")


def find(source: str | Path) -> Path:
    """The model directory that a name stands for.

    Args:
        source: a directory; `production` or a version such as `v3.0.0` of the project in the working directory, where
            they were fetched to; or `hf://owner/name` on the Hugging Face hub, the one case that uses the network.

    Raises:
        UserError: there is none; the message names the command that fetches it where one does.
    """
    path, name = Path(source).expanduser(), str(source)
    if path.is_dir():
        return path
    if PROMOTED.fullmatch(name):
        return promoted(name, Layout())
    if on_hub := HUB_NAME.fullmatch(name):
        return download(on_hub[1])
    raise UserError(
        f"{source}: no such directory; expected a model directory, `production`, a version like `v3.0.0`, or "
        "`hf://owner/name` of the Hugging Face hub"
    )


def promoted(name: str, layout: Layout) -> Path:
    """Where a promoted version lies once it was fetched: the one in production where the flows put it.

    Raises:
        UserError: it was not fetched yet.
    """
    in_production = name == "production"
    path = layout.champion.model if in_production else layout.version(name)
    if not path.is_dir():
        which = "--stage production" if in_production else f"--rev {name}"
        raise UserError(f"{name}: not in {path}; `dvc artifacts get . ntulm {which} -o {path}` fetches it there")
    return path


def download(name: str) -> Path:
    """The local copy of a model of the hub, fetched where it is not there yet.

    Raises:
        UserError: the hub cannot be reached or has no such model, and there is no copy.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except (OSError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), "no reason given").split(". ")[0][:200]
        raise UserError(f"hf://{name}: the Hugging Face hub gave nothing ({reason})") from error
