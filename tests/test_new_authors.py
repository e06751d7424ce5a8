"""docs/how-to/new-authors.md: its blocks run, one after the other, on a model directory."""

import re
from pathlib import Path
from typing import Any

import new_nodes
import numpy as np
import tiny_model
from ruamel.yaml import YAML

from ntulm.configure import configured
from ntulm.layout import Layout

PAGE = (Path(__file__).parent.parent / "docs/how-to/new-authors.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|yaml)\n(.*?)```", PAGE, re.S)
POSTS = [
    {"text": "we see #ltag0 #ltag1", "author": "new"},
    {"text": "we like it #ltag2", "author": "new"},
    {"text": "so it goes", "author": "right1"},
]


def test_the_blocks_run_as_they_stand(lm_project, tiny_backbone, capsys):
    layout = Layout()
    tiny_model.build(tiny_model.params_of(), str(tiny_backbone), layout)
    new_nodes.write_graph(layout.model)
    names: dict[str, Any] = {"posts": POSTS}
    for kind, block in BLOCKS:
        if kind == "python":
            exec(block, names)
    assert "1 folded in (user 1)" in capsys.readouterr().out
    changed = np.abs(names["after"] - names["before"]).max(axis=1) > 1e-4
    assert changed.tolist() == [True, True, False]
    np.testing.assert_array_equal(names["again"].encode(POSTS), names["after"])
    assert names["resting"] == {"new": 3}


def test_the_settings_are_those_of_params():
    (block,) = [block for kind, block in BLOCKS if kind == "yaml"]
    named = YAML(typ="safe", pure=True).load(block)["fold_in"]
    complete = YAML(typ="safe", pure=True).load(configured("quickstart", []))["fold_in"]
    assert named["min_edges"] == complete["min_edges"]
    assert named.keys() <= complete.keys()
    assert (named["embed"], complete["embed"]) == ("batch", "never")
