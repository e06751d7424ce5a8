"""`ntulm configure RECIPE [key=value…]`: write params.yaml from a complete, commented recipe; `.` changes it.

Reads `ntulm/recipes/RECIPE.yaml`, replaces the placeholder DATA by the argument `data=FOLDER`, applies the other
`key=value` arguments (dotted keys, values in YAML), checks the whole and writes it, comments kept.
"""

import copy
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.comments import CommentedMap

from ntulm import layout
from ntulm.errors import UserError
from ntulm.files import whole_file
from ntulm.params import check_params

PLACEHOLDER = "DATA"
OLD = layout.PARAMS.with_name("params.yaml.old")
PRESENT = "."  # in place of a recipe: params.yaml as it is


def run(recipe: str, changes: Sequence[str]) -> None:
    """Write params.yaml in the working directory and say so."""
    text = configured(recipe, changes)
    before = layout.PARAMS.read_text(encoding="utf-8") if layout.PARAMS.is_file() else text
    kept = ""
    if text != before:
        OLD.write_text(before, encoding="utf-8")
        kept = f" ({OLD} has what was there)"
    with whole_file(layout.PARAMS) as partial:
        partial.write_text(text, encoding="utf-8")
    source = "changed" if recipe == PRESENT else f"recipe {recipe}"
    print(f"{layout.PARAMS}: {source}" + "".join(f", {change}" for change in changes) + f"{kept}; now run `dvc repro`")


def configured(recipe: str, changes: Sequence[str]) -> str:
    """Return the recipe's text with the changes applied.

    Raises:
        UserError: unknown recipe or key, a change that is not `key=value`, a value that does not fit its key, a recipe
            that needs `data=FOLDER` and did not get it, or a folder that does not exist.
    """
    assignments = dict(_assignment(change) for change in changes)
    text = _recipe_text(recipe)
    data = assignments.pop("data", None)
    placeholder = recipe != PRESENT and PLACEHOLDER in text
    if placeholder and data is None:
        raise UserError(f"recipe {recipe} needs the folder of its data: ntulm configure {recipe} data=FOLDER")
    if data is not None and not placeholder:
        raise UserError(f"data={data}: recipe {recipe} reads no outside data; set corpus.path=… instead")
    yaml = YAML()
    yaml.width = 160
    yaml.representer.add_representer(type(None), lambda representer, _: _null(representer))
    values = yaml.load(text)
    if data is not None:
        if not Path(data).exists():
            raise UserError(f"data={data}: no such file or folder")
        _fill(values, data.rstrip("/"))
    for key, value in assignments.items():
        _assign(values, key, value)
    check_params(YAML(typ="safe", pure=True).load(_dump(yaml, values)), f"recipe {recipe}")
    return _dump(yaml, values)


def recipes() -> list[str]:
    """Names of the shipped recipes, sorted."""
    names = (item.name for item in resources.files("ntulm.recipes").iterdir())
    return sorted(Path(name).stem for name in names if name.endswith(".yaml"))


def _recipe_text(recipe: str) -> str:
    if recipe == PRESENT:
        if not layout.PARAMS.is_file():
            raise UserError(
                f"{layout.PARAMS}: not found; `{PRESENT}` changes the file that is there, a recipe writes one"
            )
        return layout.PARAMS.read_text(encoding="utf-8")
    if recipe not in recipes():
        raise UserError(f"recipe {recipe!r}: unknown; there are {', '.join(recipes())}")
    return resources.files("ntulm.recipes").joinpath(f"{recipe}.yaml").read_text(encoding="utf-8")


def _assignment(change: str) -> tuple[str, str]:
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise UserError(f"{change!r}: expected key=value, e.g. pretrain.epochs=2")
    return key, value


def _fill(node: Any, data: str) -> None:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        if isinstance(value, str) and (value == PLACEHOLDER or value.startswith(PLACEHOLDER + "/")):
            node[key] = data + value[len(PLACEHOLDER) :]
        elif isinstance(value, dict | list):
            _fill(value, data)


def _assign(values: Any, key: str, text: str) -> None:
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise UserError(f"{key}={text}: the value is not valid YAML") from error
    *parents, last = key.split(".")
    node = values
    for part in parents:
        if isinstance(node, CommentedMap) and any(merged.get(part) is node.get(part) for merged in node.merge):
            node[part] = copy.deepcopy(node.get(part))  # what another task lends it stays as it is there
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        raise UserError(f"{key}: unknown key; the recipe's keys are those of params.yaml, e.g. pretrain.epochs")
    node[last] = value


def _null(representer: Any) -> Any:
    """Null is written out: an empty value beside a comment reads like an oversight."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _dump(yaml: YAML, values: Any) -> str:
    stream = io.StringIO()
    yaml.dump(values, stream)
    return stream.getvalue()
