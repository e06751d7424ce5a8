"""The version of a model: a hash of what decides its vectors, wherever its directory lies and whatever it is called.

`production`, `v3.0.0` and a directory are the same version where their files are. Classifiers and the card do not
count: who adds a classifier need not embed anything again. Needs nothing beyond the standard library.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from ntulm import files
from ntulm.inference.directory import CARD, MODELING

DIGITS = 16  # of the hash: 64 bits tell the versions of one store apart
NAMELESS = (CARD, MODELING)


def version_of(directory: Path) -> str:
    """The version of a model directory, hexadecimal."""
    total = sha256()
    for path in sorted(directory.iterdir()):
        if path.is_file() and path.name not in NAMELESS and not path.name.startswith("."):
            total.update(f"{path.name}\0{files.sha256(path)}\n".encode())
    return total.hexdigest()[:DIGITS]
