"""YAML that people write: what cannot be read is a user error in one line, with its place. Library only."""

import re
from datetime import date
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from ntulm.errors import UserError

DATE = re.compile(r"\b(\d{4})-(\d{1,2})-(\d{1,2})")  # what YAML takes for one, whether it is in the calendar or not


def read_yaml(path: Path) -> Any:
    """The values of a file.

    Raises:
        UserError: it is not text, not YAML, nested too deeply, or a date in it is in no calendar.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from error


def parse_yaml(text: str, where: str) -> Any:
    """The values of a text; `where` names its source.

    Raises:
        UserError: it is not YAML, nested too deeply, or a date in it is in no calendar.
    """
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UserError(f"{where}: not valid YAML: nested too deeply") from error
    except ValueError as error:  # YAML makes a date or a number of a value that has the look of one
        raise UserError(f"{where}: {_impossible_date(text) or f'not valid YAML: {error}'}") from error
    except (LookupError, AttributeError, TypeError) as error:  # of a value with a tag, such as `!!bool maybe`
        raise UserError(f"{where}: not valid YAML: a tag (!!…) on what is none of its kind") from error


def _impossible_date(text: str) -> str:
    """The first date that is in no calendar, with its line; empty where there is none."""
    for number, line in enumerate(text.splitlines(), start=1):
        for found in DATE.finditer(line):
            try:
                date(*map(int, found.groups()))
            except ValueError as error:
                return f"line {number}: {found[0]}: no such date: {error}"
    return ""
