"""`ntulm configure RECIPE [key=value…]`: write a complete, commented params.yaml from a recipe; `.` changes it.

`ntulm/recipes/quickstart.yaml` is complete; every other recipe holds what differs from it. Reads both, replaces the
placeholder DATA by the argument `data=FOLDER`, applies the other `key=value` arguments (dotted keys, values in YAML),
checks the whole and writes it, comments kept.
"""

import copy
import io
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import CommentMark
from ruamel.yaml.tokens import CommentToken

from ntulm.errors import UserError
from ntulm.files import whole_file
from ntulm.layout import Layout
from ntulm.params import MOVED, check_model, check_params
from ntulm.yaml_file import parse_yaml

MASTER = "quickstart"  # the recipe that is complete
OWN_NAMES = ("tasks", "graph.relations")  # a recipe has those that it names, and none of the master's beside them
PLACEHOLDER = "DATA"
PARAMS = Layout().params
OLD = PARAMS.with_name("params.yaml.old")
REMOTE = "://"  # in the address of an export that lies elsewhere
PRESENT = "."  # in place of a recipe: params.yaml as it is


def run(recipe: str, changes: Sequence[str]) -> None:
    """Write params.yaml in the working directory and say so."""
    text = configured(recipe, changes)
    before = PARAMS.read_text(encoding="utf-8") if PARAMS.is_file() else text
    kept = ""
    if text != before:
        OLD.write_text(before, encoding="utf-8")
        kept = f" ({OLD} has what was there)"
    with whole_file(PARAMS) as partial:
        partial.write_text(text, encoding="utf-8")
    source = "changed" if recipe == PRESENT else f"recipe {recipe}"
    print(f"{PARAMS}: {source}" + "".join(f", {change}" for change in changes) + f"{kept}; now run `dvc repro`")


def configured(recipe: str, changes: Sequence[str]) -> str:
    """Return the recipe's text with the changes applied.

    Raises:
        UserError: unknown recipe or key, a change that is not `key=value`, a value that does not fit its key, a recipe
            that needs `data=FOLDER` and did not get it, or a folder that does not exist.
    """
    assignments = dict(_assignment(change) for change in changes)
    text, where = _recipe_text(recipe), str(PARAMS) if recipe == PRESENT else f"recipe {recipe}"
    parse_yaml(text, where)  # a mistake in it is told here
    data = assignments.pop("data", None)
    placeholder = recipe != PRESENT and PLACEHOLDER in text
    if placeholder and data is None:
        raise UserError(f"recipe {recipe} needs the folder of its data: ntulm configure {recipe} data=FOLDER")
    if data is not None and not placeholder:
        raise UserError(f"data={data}: recipe {recipe} reads no outside data; set corpus.path=… instead")
    yaml = YAML()
    values = yaml.load(text)
    if recipe not in (PRESENT, MASTER):
        _complete(values, yaml.load(_recipe_text(MASTER)))
        values = yaml.load(_dump(yaml, values))  # what one task lends another is whole now
    if data is not None:
        if REMOTE not in data and not Path(data).exists():
            raise UserError(f"data={data}: no such file or folder")
        _fill(values, data.rstrip("/"))
    for key, value in assignments.items():
        _assign(values, key, value)
    _as_dvc_writes(values)
    text = _dump(yaml, values)
    check_model(check_params(parse_yaml(text, where), where))
    return text


def recipes() -> list[str]:
    """Names of the shipped recipes, sorted."""
    names = (item.name for item in resources.files("ntulm.recipes").iterdir())
    return sorted(Path(name).stem for name in names if name.endswith(".yaml"))


def _recipe_text(recipe: str) -> str:
    if recipe == PRESENT:
        if not PARAMS.is_file():
            raise UserError(f"{PARAMS}: not found; `{PRESENT}` changes the file that is there, a recipe writes one")
        return PARAMS.read_text(encoding="utf-8")
    if recipe not in recipes():
        raise UserError(f"recipe {recipe!r}: unknown; there are {', '.join(recipes())}")
    return resources.files("ntulm.recipes").joinpath(f"{recipe}.yaml").read_text(encoding="utf-8")


def _complete(values: Any, master: Any, path: str = "") -> None:
    """Put what a recipe leaves to the master into its mapping, in the master's order, with the master's comments.

    A flow mapping such as `{user: 2, hashtag: 3}` is one value. A comment in the recipe replaces the master's.
    """
    if not path:
        _complete_header(values, master)
    for key, value in master.items():
        if key in values:
            values.ca.items[key] = _comments(values.ca.items.get(key), master.ca.items.get(key))
            if _is_block(value) and _is_block(values[key]):
                values[key].ca.comment = None  # the parent has the same
                _complete(values[key], value, f"{path}.{key}".lstrip("."))
        elif path not in OWN_NAMES:
            values[key] = value
            values.ca.items[key] = master.ca.items.get(key) or [None] * 4
        if path not in OWN_NAMES:
            values.move_to_end(key)


def _is_block(value: Any) -> bool:
    return isinstance(value, CommentedMap) and not value.fa.flow_style()


def _complete_header(values: Any, master: Any) -> None:
    """The first block of a recipe's header is of the recipe; what follows it in the master is of every params.yaml."""
    (own, _), (_, general) = _header(values), _header(master)
    values.ca.comment = [None, own + general]


def _header(values: Any) -> tuple[list[Any], list[Any]]:
    lines = values.ca.comment[1]
    end = 1 + next(place for place, line in enumerate(lines) if line.value.endswith("\n\n"))
    return lines[:end], lines[end:]


def _comments(own: Any, master: Any) -> list[Any]:
    """The comments of a key: before it, at the end of its line with the lines that follow it, and below it."""
    own, master = own or [None] * 4, master or [None] * 4
    _, above, _, below = (
        mine if mine and "#" in _text(mine) else other for mine, other in zip(own, master, strict=True)
    )
    return [None, above, _end_of_line(own[2], master[2]), below or None]  # [] of a list would add a line


def _end_of_line(own: Any, master: Any) -> CommentToken | None:
    """One token has the end of a line and all lines up to the next key."""
    line, lines = _split(own)
    usual_line, usual_lines = _split(master)
    text = (line if "#" in line else usual_line) + "\n" + (lines if "#" in lines else usual_lines)
    return CommentToken(text, CommentMark(0), None) if own or master else None


def _split(token: Any) -> tuple[str, str]:
    line, _, lines = ("" if token is None else token.value).partition("\n")
    return line, lines


def _text(comments: Any) -> str:
    return "".join(token.value for token in (comments if isinstance(comments, list) else [comments]))


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
    value = parse_yaml(text, f"{key}={text}")
    *parents, last = key.split(".")
    node = values
    for part in parents:
        if isinstance(node, CommentedMap) and any(merged.get(part) is node.get(part) for merged in node.merge):
            node[part] = copy.deepcopy(node.get(part))  # what another task lends it stays as it is there
        node = node.get(part) if isinstance(node, dict) else None
    known = isinstance(node, dict) and last in node
    if not known and key in MOVED:
        raise UserError(f"{key}: unknown key; it is now {MOVED[key]}")
    if not known and not (isinstance(node, dict) and parents):
        raise UserError(f"{key}: unknown key; the recipe's keys are those of params.yaml, e.g. pretrain.epochs")
    node[last] = value  # a new one, such as a task of yours, is checked with the whole


def _as_dvc_writes(node: Any) -> None:
    """Lists in lines, numbers as Python writes them, nothing lent: the form that DVC gives the whole file when it sets
    one value (`dvc exp run -S`), so that this value is all that it changes. Null is an empty value there.
    """
    for key, value in node.items():
        if isinstance(value, CommentedMap) and value.merge:
            node[key] = value = CommentedMap((name, copy.deepcopy(own)) for name, own in value.items())
        elif isinstance(value, dict) and not isinstance(value, CommentedMap):
            node[key] = value = CommentedMap(value)  # of an assignment
        if isinstance(value, dict):
            _as_dvc_writes(value)
        elif isinstance(value, list):
            node[key] = [float(one) if isinstance(one, float) else one for one in value]
            node.ca.items[key] = _above_a_list(node.ca.items.get(key))
        elif isinstance(value, float):
            node[key] = float(value)


def _above_a_list(comments: Any) -> Any:
    """The comments of a key, without the empty lines that came after its list: below a list DVC keeps nothing."""
    own = comments or [None] * 4
    line, lines = _split(own[2])
    text = "\n".join([line, *(one for one in lines.splitlines() if one.strip())]) + "\n"
    return [*own[:2], CommentToken(text, CommentMark(0), None) if "#" in text else None, own[3]]


def _dump(yaml: YAML, values: Any) -> str:
    stream = io.StringIO()
    yaml.dump(values, stream)
    return re.sub(r"\n{3,}", "\n\n", stream.getvalue())  # two recipes may each end a section with an empty line
