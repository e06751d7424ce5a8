"""Triples of a knowledge graph, from a folder in one of two forms, for `benchmarks/triples.py`.

- OpenKE's benchmark files: `train2id.txt`, `valid2id.txt`, `test2id.txt` (a count, then lines `head tail relation` of
  numbers: the relation is last) and `entity2id.txt`, `relation2id.txt` (a count, then lines `name number`).
- Plain: `train.txt`, `valid.txt`, `test.txt`, lines `head<TAB>relation<TAB>tail` of names.

A folder that has both is read as OpenKE's, which also has the entities of no triple.
"""

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ntulm.errors import UserError

PARTS = ("train", "valid", "test")


class Triples(NamedTuple):
    """Each part is int64 [n, 3]: head, relation, tail, as often as the file has it."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    entities: int
    relations: int
    form: str

    @property
    def all(self) -> np.ndarray:
        """int64 [n, 3]: what is true."""
        return np.concatenate([self.train, self.valid, self.test])


def read_triples(folder: Path) -> Triples:
    """The triples of a folder.

    Raises:
        UserError: a file is missing or holds something else; says which line, and what would be right.
    """
    if (folder / "train2id.txt").is_file():
        triples = _openke(folder)
    elif (folder / "train.txt").is_file():
        triples = _plain(folder)
    else:
        raise UserError(f"{folder}: neither train2id.txt (OpenKE's form) nor train.txt (head, relation, tail) is there")
    for name in ("train", "test"):
        if not len(getattr(triples, name)):
            raise UserError(f"{folder}: no triple in the file of {name}; it needs at least one")
    return triples


def remarks(triples: Triples) -> str:
    """One line: how many triples are repeated, and how many of the test say nothing about a model, or too much."""
    distinct = [np.unique(part, axis=0) for part in (triples.train, triples.valid, triples.test)]
    repeated = [len(part) - len(own) for part, own in zip(triples[:3], distinct, strict=True)]
    learnt = len(np.unique(np.concatenate([distinct[0], distinct[2]]), axis=0))
    leaked = len(distinct[0]) + len(distinct[2]) - learnt
    met = np.isin(triples.test[:, [0, 2]], triples.train[:, [0, 2]]).all(axis=1)
    met &= np.isin(triples.test[:, 1], triples.train[:, 1])
    counts = ", ".join(f"{count:,} of {name}" for count, name in zip(repeated, PARTS, strict=True))
    return (
        f"Repeated lines, kept: {counts}. Test triples that are trained on: {leaked:,}; with an entity or a relation "
        f"that is not: {int((~met).sum()):,}."
    )


def _openke(folder: Path) -> Triples:
    entities, relations = (_count_ids(folder / f"{name}2id.txt") for name in ("entity", "relation"))
    train, valid, test = (_numbered(folder / f"{part}2id.txt", entities, relations) for part in PARTS)
    return Triples(train, valid, test, entities, relations, "OpenKE's form")


def _plain(folder: Path) -> Triples:
    entities: dict[str, int] = {}
    relations: dict[str, int] = {}
    found = []
    for part in PARTS:
        path, numbers = folder / f"{part}.txt", array("q")
        for line, text in _lines(path):
            fields = text.split("\t")
            if len(fields) != 3 or not all(fields):
                raise UserError(f"{path}: line {line}: {len(fields)} fields; needed: head, relation, tail between tabs")
            head, relation, tail = fields
            numbers.append(entities.setdefault(head, len(entities)))
            numbers.append(relations.setdefault(relation, len(relations)))
            numbers.append(entities.setdefault(tail, len(entities)))
        found.append(np.array(numbers, np.int64).reshape(-1, 3))
    train, valid, test = found
    return Triples(train, valid, test, len(entities), len(relations), "plain form")


def _numbered(path: Path, entities: int, relations: int) -> np.ndarray:
    """int64 [n, 3]: head, relation, tail, of lines that hold head, tail, relation."""
    numbers = array("q")
    for line, text in _counted(path):
        try:
            head, tail, relation = (int(field) for field in text.split())
        except ValueError:
            raise UserError(f"{path}: line {line}: needed are three numbers: head, tail, relation") from None
        for name, number, size in (
            ("head", head, entities),
            ("tail", tail, entities),
            ("relation", relation, relations),
        ):
            if not 0 <= number < size:
                raise UserError(
                    f"{path}: line {line}: {name} {number}, the third number being the relation; {_below(size)}"
                )
        numbers.extend((head, relation, tail))
    return np.array(numbers, np.int64).reshape(-1, 3)


def _count_ids(path: Path) -> int:
    """How many ids a file of names has: all from 0 on, each of them once."""
    seen = bytearray(sum(1 for _ in _counted(path)))
    for line, text in _counted(path):
        _, _, last = text.rpartition("\t") if "\t" in text else text.rpartition(" ")
        try:
            number = int(last)
        except ValueError:
            raise UserError(f"{path}: line {line}: needed are a name and its number") from None
        if not 0 <= number < len(seen):
            raise UserError(f"{path}: line {line}: number {number}; {_below(len(seen))}, without gaps")
        if seen[number]:
            raise UserError(f"{path}: line {line}: number {number} stands here twice; each has one name")
        seen[number] = 1
    return len(seen)


def _below(size: int) -> str:
    return f"needed are numbers from 0 to {size - 1}"


def _counted(path: Path) -> Iterator[tuple[int, str]]:
    """The lines after the first one, which has to say how many they are."""
    said, found = None, 0
    for line, text in _lines(path):
        if said is not None:
            found += 1
            yield line, text
            continue
        try:
            said = int(text)
        except ValueError:
            raise UserError(f"{path}: line {line}: needed is the number of lines that follow") from None
    if said is None:
        raise UserError(f"{path}: empty; needed is the number of lines that follow, then the lines")
    if said != found:
        raise UserError(f"{path}: the first line says that {said} lines follow, there are {found}; is the file whole?")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their number from 1; empty ones hold nothing."""
    try:
        with path.open(encoding="utf-8") as file:
            for line, text in enumerate(file, 1):
                if text := text.rstrip("\n"):
                    yield line, text
    except FileNotFoundError:
        raise UserError(f"{path}: not found; it belongs to the other files of the folder") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8") from None
