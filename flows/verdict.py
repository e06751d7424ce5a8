"""What `ntulm check` and `ntulm drift` came to: `verdict.json` in the folder of their results."""

import json
from dataclasses import dataclass
from pathlib import Path

FILE = "verdict.json"


@dataclass(frozen=True)
class Verdict:
    """`verdict` is passed, quiet (too few posts to say anything) or failed; `reason` says why in words."""

    verdict: str
    reason: str


def read_verdict(folder: Path) -> Verdict | None:
    """The verdict in a folder, or None where the command did not come that far."""
    path = folder / FILE
    return Verdict(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
