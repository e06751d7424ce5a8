"""The types of flow parameters: choices that the form of the Prefect UI shows, and that are checked by name.

The choices are read from the project: recipes from `ntulm/recipes/`, stages from `dvc.yaml`. What a form sends is data:
it becomes arguments of a command, never text for a shell.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from flows.pipeline import stage_families

ROOT = Path(__file__).parent.parent
AS_IT_STANDS = "params.yaml as it stands"
WHOLE_PIPELINE = "the whole pipeline"


class OneOf:
    """Marks a string that is one of some names; the names are read when they are needed."""

    def __init__(self, what: str, names: Callable[[], list[str]]) -> None:
        self.what = what
        self.names = names

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"enum": self.names()}

    def _checked(self, value: str) -> str:
        names = self.names()
        if value not in names:
            raise ValueError(f"{self.what} {value!r}: unknown; there are {', '.join(names)}")
        return value


def recipe_choices() -> list[str]:
    """What `recipe` may be."""
    return [AS_IT_STANDS, *sorted(path.stem for path in (ROOT / "ntulm/recipes").glob("*.yaml"))]


def stage_choices() -> list[str]:
    """What `from_stage` may be."""
    return [WHOLE_PIPELINE, *stage_families(ROOT)]


Recipe = Annotated[str, OneOf("recipe", recipe_choices)]
FromStage = Annotated[str, OneOf("from_stage", stage_choices)]
Change = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_-]+)*=[^\x00-\x1f]*$", max_length=2000)]
Exports = Annotated[str, Field(pattern=r"^[^\x00-\x1f]*$", max_length=1000)]
SideBySide = Annotated[int, Field(ge=1, le=64)]
