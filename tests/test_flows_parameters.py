"""What the form of the UI offers, and that what it sends is data."""

import pytest
from pydantic import TypeAdapter, ValidationError

from flows.build import build
from flows.parameters import AS_IT_STANDS, Change, FromStage, Recipe
from ntulm.configure import recipes

HOSTILE = ["x; rm -rf /", "../../etc/passwd", "--help", "", "quickstart\n", "$(touch pwned)", "Quickstart"]


def test_the_form_shows_choices_and_descriptions():
    fields = build.parameters.model_dump()["properties"]
    assert fields["recipe"]["enum"] == [AS_IT_STANDS, *recipes()]
    assert {"corpus", "pretrain", "report"} < set(fields["from_stage"]["enum"])
    assert all(fields[name]["description"] for name in ("recipe", "changes", "from_stage", "force", "side_by_side"))
    assert fields["force"]["type"] == "boolean"
    assert fields["side_by_side"]["minimum"] == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_only_known_recipes_and_stages_pass_and_the_wrong_one_is_named(text):
    with pytest.raises(ValidationError, match="unknown; there are") as error:
        TypeAdapter(Recipe).validate_python(text)
    assert repr(text) in str(error.value)
    with pytest.raises(ValidationError):
        TypeAdapter(FromStage).validate_python(text)


@pytest.mark.parametrize(
    "text", ["pretrain.epochs=2", "data=../posts", "run.variants=[text, author+hashtag]", "tasks.a-b.seed=1"]
)
def test_changes_are_key_and_value(text):
    assert TypeAdapter(Change).validate_python(text) == text


@pytest.mark.parametrize("text", ["--help", "-x=1", "epochs", "=2", "a b=1", "a=1\nb: 2", "a;b=1", "x" * 3000 + "=1"])
def test_what_is_no_change_is_refused(text):
    with pytest.raises(ValidationError):
        TypeAdapter(Change).validate_python(text)
