"""The lines of README.md that use a model on new posts are few, and they run."""

import re
from pathlib import Path

import tiny_model

from ntulm.layout import Layout

README = Path(__file__).parent.parent / "README.md"


def lines_of_the_readme() -> str:
    """The Python of the section "Use it on new posts"."""
    section = README.read_text(encoding="utf-8").split("## Use it on new posts")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.S)
    return code


def test_at_most_five_lines_encode_three_posts_and_predict_labels(lm_project, tiny_backbone, capsys):
    tiny_model.build(tiny_model.params_of(), str(tiny_backbone), Layout())
    code = lines_of_the_readme()
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
    names: dict = {}
    capsys.readouterr()
    exec(code, names)
    assert names["vectors"].shape == (3, 32)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3
    assert all("left" in line and "right" in line for line in printed)
