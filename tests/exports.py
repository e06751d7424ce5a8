"""Exports as the readers are given them, for the tests of sources."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from ntulm.corpus.config import TableMapping
from ntulm.corpus.sources import formats
from ntulm.corpus.sources.export import File


def files(path: Path) -> list[File]:
    """The files of a plain file or folder."""
    with formats.opened(path, path.parent / "spill") as export:
        return export.files


def detect(path: Path) -> str:
    """The format of an export."""
    with formats.opened(path, path.parent / "spill") as export:
        return formats.detect(export).format


def batches(
    path: Path, name: str = "auto", mapping: TableMapping | None = None, labels: Sequence[str] = ()
) -> list[pa.RecordBatch]:
    """Every record of an export."""
    with formats.opened(path, path.parent / "spill") as export:
        return list(formats.read(formats.detect(export, name), mapping, labels))
