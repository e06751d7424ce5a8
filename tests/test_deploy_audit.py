"""The audit of what is installed: licences as packages state them in their many ways, copyleft, pins."""

import json
import sys
from email.message import Message
from pathlib import Path

import pytest

from deploy import advisories, audit
from deploy.audit import NONE, Package, bill_of_materials, faults, installed, licence_of, pinned, table

ROOT = Path(__file__).parent.parent


def about(**fields):
    message = Message()
    for name, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            message[name.replace("_", "-")] = value
    return message


def package(licence, name="x", version="1.0", needs=()):
    return Package(name, version, licence, frozenset(needs))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"License_Expression": "MIT", "License": "GPL"}, "MIT"),
        ({"License": "BSD-3-Clause"}, "BSD-3-Clause"),
        ({"License": "x" * 4000, "Classifier": ["License :: OSI Approved :: MIT License"]}, "MIT License"),
        ({"License": "UNKNOWN", "Classifier": ["License :: OSI Approved :: Apache Software License"]},
         "Apache Software License"),
        ({"License": "UNKNOWN"}, NONE),
        ({"Classifier": ["License :: OSI Approved", "Topic :: Text"]}, NONE),
        ({}, NONE),
    ],
)  # fmt: skip
def test_a_licence_is_read_wherever_a_package_states_it(fields, expected):
    assert licence_of(about(**fields)) == expected


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("MIT", ""),
        ("GPL-3.0-or-later", "strong"),
        ("AGPL-3.0", "strong"),
        ("GNU General Public License v2 (GPLv2)", "strong"),
        ("LGPL-2.1", "weak"),
        ("GNU Lesser General Public License v3 (LGPLv3)", "weak"),
        ("MPL-2.0 AND MIT", "weak"),
        ("Apache-2.0 OR GPL-2.0", ""),
        ("GPL-2.0 OR LGPL-3.0", "weak"),
    ],
)
def test_copyleft_is_told_from_what_only_sounds_like_it(licence, kind):
    assert package(licence).copyleft == kind


def test_what_has_to_be_looked_at():
    packages = [package("MIT", "a"), package("GPL-3.0", "b"), package(NONE, "c"), package("MIT", "d", "2.0+cpu")]
    lines = faults(packages, {"a": "1.1", "d": "2.0"})
    assert [line.split(":")[0] for line in lines] == ["a 1.0", "b 1.0", "c 1.0"]
    assert "constraints.txt has 1.1" in lines[0]


def test_the_table_puts_copyleft_first_and_says_who_needs_it():
    text = table([package("MIT", "a", needs=["b"]), package("MPL-2.0 | x", "b")])
    rows = text.splitlines()[4:]
    assert rows == ["| b | 1.0 | MPL-2.0 \\| x | weak | a |", "| a | 1.0 | MIT | – |  |"]


def test_the_real_environment_is_written_whole(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["audit", str(tmp_path)])
    monkeypatch.setattr(advisories, "ADDRESS", "http://127.0.0.1:9/")  # nobody answers there
    code = audit.main()
    packages = installed()
    assert len(packages) > 50
    bill = json.loads((tmp_path / "sbom.json").read_text())
    assert bill == bill_of_materials(packages)
    refs = {one["bom-ref"] for one in bill["components"]}
    assert all(set(one["dependsOn"]) <= refs and one["ref"] in refs for one in bill["dependencies"])
    assert (tmp_path / "licences.md").read_text().count("\n| ") == len(packages) + 2
    pins = pinned((ROOT / "constraints.txt").read_text())
    assert pins["prefect"]
    assert "ntulm" not in {one.name for one in packages}
    assert code == (1 if faults(packages, pins) else 0)
    assert "known vulnerabilities: not reachable: http://127.0.0.1:9/: URLError" in capsys.readouterr().out


def test_a_known_vulnerability_has_to_be_looked_at(monkeypatch, capsys):
    monkeypatch.setattr(advisories, "known", lambda packages, address: {"b": ["GHSA-1", "GHSA-2"]})
    found = audit.vulnerable([package("MIT", "a"), package("MIT", "b")])
    assert found == ["b 1.0: known vulnerabilities: GHSA-1, GHSA-2"]
    assert "in 1 of 2 packages" in capsys.readouterr().out
