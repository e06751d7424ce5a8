"""What is installed here, under which licences, and how it got here: for whoever has to answer for it.

    python -m deploy.audit [FOLDER]    # `make audit`

Writes licences.md and sbom.json into FOLDER, build/audit by default. Reads the metadata of the installed packages and
constraints.txt, and asks osv.dev for known vulnerabilities (`advisories.py`); where it cannot be reached, that is said.
Ends with exit code 1 where a package is under a strong copyleft that nobody accepted, has no known licence, is of
another version than constraints.txt has, or has a known vulnerability.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from deploy import advisories

ROOT = Path(__file__).resolve().parent.parent
OWN = "ntulm"
STRONG = re.compile(r"\b(A?GPL|GNU (Affero )?General Public|EUPL|CPAL|OSL-|SSPL|RPL-)", re.I)
WEAK = re.compile(r"\b(LGPL|GNU L(esser|ibrary)|MPL|Mozilla Public|EPL-|Eclipse Public|CDDL)", re.I)
LONGEST = 100  # a field `License` that is longer holds the whole text: its first line then
NONE = "unknown"
# Strong copyleft that was looked at, and why it is no obligation of a user of ntulm.
ACCEPTED: Mapping[str, str] = {}


@dataclass(frozen=True)
class Package:
    """An installed package."""

    name: str  # as the index writes it, lower case with hyphens
    version: str
    licence: str
    needs: frozenset[str]

    @property
    def copyleft(self) -> str:
        """`strong`, `weak` or empty; a choice that has a permissive licence in it counts as that one."""
        kinds = [_kind(part) for part in re.split(r"\s+OR\s+|\s*/\s*", self.licence)]
        return min(kinds, key=("", "weak", "strong").index)


def _kind(licence: str) -> str:
    if WEAK.search(licence):
        return "weak"
    return "strong" if STRONG.search(licence) else ""


def normal(name: str) -> str:
    """The one way to write a name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> list[Package]:
    """What can be imported here, ourselves left out, by name."""
    found = {}
    for one in metadata.distributions():
        name = normal(one.metadata["Name"] or "")
        needs = frozenset(normal(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in one.requires or [])
        if name and name != OWN:
            found[name] = Package(name, one.version, licence_of(one.metadata), needs)
    return [found[name] for name in sorted(found)]


def licence_of(about: Any) -> str:
    """The licence as the package states it: an expression, else the field, else the classifiers."""
    stated = (about.get("License-Expression") or "").strip()
    field = (about.get("License") or "").strip()
    classified = [
        line.rpartition("::")[2].strip() for line in about.get_all("Classifier") or [] if line.startswith("License ::")
    ]
    classified = [one for one in classified if one != "OSI Approved"]
    if not stated and (not field or len(field) > LONGEST or field.upper() == "UNKNOWN") and classified:
        return " AND ".join(sorted(set(classified)))
    return stated or (field if field.upper() != "UNKNOWN" else "").split("\n")[0][:LONGEST] or NONE


def pinned(text: str) -> dict[str, str]:
    """Name to version, of a file of constraints."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return {normal(name): version.strip() for name, _, version in (line.partition("==") for line in lines if line)}


def faults(packages: Iterable[Package], pins: Mapping[str, str]) -> list[str]:
    """What somebody has to look at, a line each."""
    found = []
    for one in packages:
        if one.copyleft == "strong" and one.name not in ACCEPTED:
            found.append(f"{one.name} {one.version}: {one.licence}: a strong copyleft that nobody accepted")
        if one.licence == NONE:
            found.append(f"{one.name} {one.version}: its metadata name no licence")
        pin = pins.get(one.name, one.version)
        if pin.split("+")[0] != one.version.split("+")[0]:  # what follows a + says how it was built
            found.append(f"{one.name} {one.version}: constraints.txt has {pin}")
    return found


def table(packages: list[Package]) -> str:
    """Licences in Markdown, copyleft first, with who needs the package."""
    users = {one.name: sorted(other.name for other in packages if one.name in other.needs) for one in packages}
    order = sorted(packages, key=lambda one: (-("", "weak", "strong").index(one.copyleft), one.name))
    rows = [
        f"| {one.name} | {one.version} | {_cell(one.licence)} | {one.copyleft or '–'} | {', '.join(users[one.name])} |"
        for one in order
    ]
    head = ["# Licences of what is installed", "", "| package | version | licence | copyleft | needed by |"]
    return "\n".join([*head, "| --- | --- | --- | --- | --- |", *rows, ""])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def bill_of_materials(packages: list[Package]) -> dict[str, Any]:
    """The packages as CycloneDX 1.5."""
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{one.name}@{one.version}",
            "name": one.name,
            "version": one.version,
            "purl": f"pkg:pypi/{one.name}@{one.version}",
            "licenses": [{"license": {"name": one.licence}}],
        }
        for one in packages
    ]
    there = {one.name: f"pkg:pypi/{one.name}@{one.version}" for one in packages}
    needs = [
        {"ref": there[one.name], "dependsOn": sorted(there[name] for name in one.needs if name in there)}
        for one in packages
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "components": components,
        "dependencies": needs,
    }


def vulnerable(packages: Iterable[Package]) -> list[str]:
    """Known vulnerabilities, a line for each package; says how it went."""
    versions = {one.name: one.version for one in packages}
    try:
        found = advisories.known(list(versions.items()), advisories.ADDRESS)
    except advisories.UnreachableError as error:
        print(f"known vulnerabilities: not reachable: {advisories.ADDRESS}: {error}; nothing was checked")
        return []
    print(f"known vulnerabilities: in {len(found)} of {len(versions)} packages, as osv.dev has them")
    return [f"{name} {versions[name]}: known vulnerabilities: {', '.join(ids)}" for name, ids in found.items()]


def main() -> int:
    """Write both files, and say what has to be looked at."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/audit"
    packages, pins = installed(), pinned((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "licences.md").write_text(table(packages), encoding="utf-8")
    (folder / "sbom.json").write_text(json.dumps(bill_of_materials(packages), indent=1) + "\n", encoding="utf-8")
    kinds = [one.copyleft for one in packages]
    print(
        f"{len(packages)} packages: {kinds.count('weak')} under a weak copyleft, {kinds.count('strong')} under a strong"
    )
    print(
        f"hashes: constraints.txt has {len(pins)} exact versions and no hashes; `make lock` makes a file that has them"
    )
    print(f"written: {folder}/licences.md, {folder}/sbom.json")
    found = faults(packages, pins) + vulnerable(packages)
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
