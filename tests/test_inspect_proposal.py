"""The command that `ntulm inspect` proposes, through the shells that it is pasted into, and as YAML."""

import shlex
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ntulm.configure import configured
from ntulm.corpus.config import TableMapping
from ntulm.inspect import command as inspect_command
from ntulm.inspect.inspection import inspect
from ntulm.inspect.proposal import block, command, used, word, yaml
from ntulm.inspect.shown import is_harmless

SHELLS = [shell for shell in ("bash", "zsh") if shutil.which(shell)]
AWKWARD = [
    "it's", 'say "hi"', "a b", "what!", "!!", "$HOME", "`id`", "\\n", "Größe", "日本", "#x", "a: b", "{x}", "*", "~",
    "null", "1", "-", "a\x1b[2Jb", "\u202eabc", "\U000e0041", "a\tb", "a\nb", "", "%", "'\\''", "a'!\x07", "😀",
    "x=y", "@a", "&a",
]  # fmt: skip


def mapping(column):
    """A mapping whose text is a column of that name."""
    values = dict.fromkeys(TableMapping.model_fields) | {
        "created_at": "Created At", "text": column, "author": "who", "html": False, "casefold_users": True,
        "mention_hosts": False, "hashtags": column,
    }  # fmt: skip
    return TableMapping.model_validate(values)


def words_in(shell, line):
    """The words of a command as a shell passes them on; history is on, as where somebody pastes."""
    script = 'ntulm() { printf "%s\\0" "$@"; }\n' + line + "\n"
    flags = ["--norc", "--noprofile", "-i"] if shell == "bash" else ["-f", "-i"]
    done = subprocess.run([shell, *flags], input=script.encode(), capture_output=True, timeout=60)
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_hands_every_name_on_as_it_is(shell):
    for name in AWKWARD:
        words = words_in(shell, command(f"/data/{name}", mapping(name)))
        assert words[:2] == ["configure", "own"], (name, words)
        assert words[2] == f"data=/data/{name}", (name, words)
        key, _, value = words[3].partition("=")
        read = YAML(typ="safe", pure=True).load(value)
        assert (key, read["text"], read["hashtags"]) == ("corpus.table", name, name)


@pytest.mark.parametrize("name", AWKWARD)
def test_the_block_is_yaml(name):
    read = YAML(typ="safe", pure=True).load(block(mapping(name)))
    assert read["corpus"]["table"]["text"] == name
    assert TableMapping.model_validate(read["corpus"]["table"]) == mapping(name)


@given(name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_name_is_one_harmless_word_and_one_harmless_scalar(name):
    assert all(is_harmless(character) for character in word(name) + yaml(name))
    assert YAML(typ="safe", pure=True).load(f"a: {yaml(name)}") == {"a": name}
    if not word(name).startswith("$"):
        assert shlex.split(word(name)) == [name]


def test_only_keys_that_say_something_are_named():
    given_keys = used(mapping("text"))
    assert {"created_at", "text", "author"} <= given_keys.keys()
    required = {name for name, field in TableMapping.model_fields.items() if field.is_required()}
    assert {name for name, value in given_keys.items() if value is None} <= required


def test_what_is_printed_configures_the_recipe(tmp_path):
    path = tmp_path / "my posts'.csv"
    path.write_text('"Created At","Tweet ""Text""!",author,text\n2021-03-31,x,ann,hi $you\n')
    printed = inspect_command.format_inspection(inspect(path))
    line = next(line for line in printed.splitlines() if line.startswith("  ntulm configure"))
    words = words_in(SHELLS[0], line)
    made = YAML(typ="safe", pure=True).load(configured(words[1], words[2:]))
    assert made["corpus"]["path"] == str(path)
    assert made["corpus"]["table"]["created_at"] == "Created At"
    read = YAML(typ="safe", pure=True).load(printed.split("or, in params.yaml:")[1])
    assert read["corpus"]["table"] == made["corpus"]["table"]
