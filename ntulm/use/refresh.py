"""`ntulm refresh`: a model with the table of a newer graph, turned into the space that the model knows.

Nothing is trained: language model and classifiers stay as they are, and authors and hashtags that came since have
vectors. Reads a model directory, the folder of the newer table, and posts to measure on; writes a model directory.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from ntulm.embeddings.alignment import Turn, turn_onto, write_turned
from ntulm.embeddings.operators import Operators
from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.files import whole_directory
from ntulm.inference.directory import CARD, find
from ntulm.inference.model import load
from ntulm.inference.version import version_of
from ntulm.use.compared import Compared, compare, lines_of
from ntulm.use.sample import sample_of

HEADING = "## A newer table"
BEFORE, AFTER = "before", "newer table"


@dataclass(frozen=True)
class Refreshed:
    """What became of the table."""

    turn: Turn
    ntus: int  # of the newer table
    gone: int  # NTUs that the model knew and the newer table does not have
    compared: Compared | None

    def lines(self) -> list[str]:
        """For people, in Markdown."""
        common = self.turn.common
        said = [
            f"{self.ntus:,} NTUs: {common:,} as before, {self.ntus - common:,} new; {self.gone:,} are known no longer.",
            f"Cosine between the rows in common: {self.turn.before:.2f} as trained, {self.turn.after:.2f} turned "
            "(measured on rows that the turn was not fitted to).",
        ]
        return said if self.compared is None else [*said, "", *lines_of(self.compared, BEFORE, AFTER)]


def run(model_name: str, table: Path, out: Path, posts: str | None, task: str | None) -> None:
    """Write a model with the newer table.

    Args:
        model_name: of the model.
        table: the folder of the newer table: `data/embeddings` of a later run, or a model directory.
        out: a directory that is not there yet.
        posts: what the change is measured on (`ntulm/use/sample.py`); None: it is not.
        task: whose labels `posts` has.

    Raises:
        UserError: a name or a file that does not fit, or tables that have too little in common.
    """
    if out.exists() or out.is_symlink():
        raise UserError(f"--out {out}: is there already; name a new directory")
    if task is not None and posts is None:
        raise UserError("--task: says whose labels the posts have; expected --posts with it")
    directory = find(model_name)
    earlier, later = EmbeddingTable.load(directory), EmbeddingTable.load(table)
    Operators.load(table)  # one that is missing is told before the work
    try:
        turn = turn_onto(earlier, later)
    except UserError as error:
        raise UserError(f"--table {table}: {error}") from error
    with whole_directory(out) as target:
        shutil.copytree(directory, target, dirs_exist_ok=True)
        write_turned(target, earlier, table, turn)
        compared = None if posts is None else _compared(directory, target, posts, task)
        found = Refreshed(turn, len(later), len(earlier) - turn.common, compared)
        _add_to_card(target / CARD, version_of(directory), found)
    print(f"{out}: a model directory for --model", *found.lines(), sep="\n")


def _compared(directory: Path, target: Path, posts: str, task: str | None) -> Compared:
    model = load(directory)
    after = replace(model.encoder, table=EmbeddingTable.load(target))
    return compare(model, model.encoder, after, sample_of(posts, task, model), Path(posts).name)


def _add_to_card(card: Path, version: str, found: Refreshed) -> None:
    """Say it at the end of the card, in the place of what an earlier refreshing said."""
    text = card.read_text(encoding="utf-8").partition(f"\n{HEADING}\n")[0] if card.is_file() else ""
    said = (
        f"The embedding table is that of a newer graph, turned into the space of the model of version `{version}`; "
        "figures above are of that model. Nothing was trained."
    )
    card.write_text("\n".join([text, HEADING, "", said, "", *found.lines(), ""]), encoding="utf-8")
