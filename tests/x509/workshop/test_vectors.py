"""Every vector gets the verdict its list says: through the function, and each line of the list has its file."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from certwright.entry.cli.x509_work import Checker, Task
from certwright.x509.workshop.words import CODES, REPAIRS

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Line:
    """One row of the list."""

    name: str
    options: list[str]
    expected: dict[str, list[str]]


def lines() -> list[Line]:
    found = []
    for row in (VECTORS / "README.md").read_text().splitlines():
        if not row.startswith("| ") or row.startswith(("| file", "|---")):
            continue
        name, _, options, *verdict = [cell.strip() for cell in row.strip("|").split(" | ")]
        cells = [sorted(cell.replace("–", "").split()) for cell in verdict]
        expected = dict(zip(("error", "warning", "note", "repaired"), cells, strict=True))
        found.append(Line(name, shlex.split(options.replace("–", "")), expected))
    return found


LINES = lines()


def document_of(line: Line) -> dict[str, Any]:
    """What `certwright x509 check --json` prints for this line."""
    options = list(line.options)
    file, key = line.name, None
    if options[:1] == ["of"]:
        file, key, options = options[1], line.name, options[2:]
    given: dict[str, Any] = {"key": key and str(VECTORS / key)}
    while options:
        match options.pop(0):
            case "--key":
                given["key"] = str(VECTORS / options.pop(0))
            case "--passphrase-file":
                given["passphrase"] = (VECTORS / options.pop(0)).read_bytes().strip()
            case "--purpose":
                given["client_ca"] = options.pop(0) == "client-ca"
            case "--strict":
                given["strict"] = True
            case "--private":
                given["private"] = True
            case "--blocklist":
                given["blocklist"] = str(VECTORS / options.pop(0))
            case "--pool" | "--against" | "--crl" as option:
                given[{"--crl": "crls"}.get(option, option[2:])] = (str(VECTORS / options.pop(0)),)
            case other:
                raise AssertionError(f"unknown option {other}")
    return Checker(Task(at=AT, **given)).check(str(VECTORS / file))


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_a_vector_gets_the_verdict_of_its_line(line: Line) -> None:
    document = document_of(line)
    found = {severity: [] for severity in ("error", "warning", "note")}
    for finding in document["findings"]:
        found[finding["severity"]].append(finding["code"])
    said = {severity: sorted(set(codes)) for severity, codes in found.items()}
    assert said | {"repaired": sorted(document["repaired"])} == line.expected, document["findings"]
    assert document["ok"] == (not line.expected["error"])


def test_every_file_has_a_line_and_every_line_a_file() -> None:
    beside = {"README.md", "make.py", "weak.py", "passphrase.txt", "wrong-passphrase.txt", "blocklist.dat", "keys"}
    files = {path.name for path in VECTORS.iterdir() if not path.name.startswith(("__", "."))} - beside
    assert files == {line.name for line in LINES}


def test_every_code_is_met_by_some_vector() -> None:
    met = {code for line in LINES for kind in ("error", "warning", "note") for code in line.expected[kind]}
    # These need more than 1 MiB, a heap of certificates, pkilint, or a server with other certificates and a network:
    # they have tests of their own.
    elsewhere = {
        "too_large", "chain_too_complex", "key_missing", "lint", "revocation_unknown", "issuer_not_fetched",
        "names_missing", "expires_earlier",
    }  # fmt: skip
    assert set(CODES) - met == elsewhere - met


def test_every_repair_is_met_by_some_vector() -> None:
    assert {code for line in LINES for code in line.expected["repaired"]} == set(REPAIRS)


@pytest.mark.parametrize("line", [line for line in LINES if line.expected["error"]], ids=lambda line: line.name)
def test_each_finding_says_where_and_what_to_do(line: Line) -> None:
    for finding in document_of(line)["findings"]:
        assert finding["where"].split(",")[0] in ("certificate", "key", "chain")
        assert finding["message"].endswith(".")
        assert finding["fix"].strip()


def test_the_line_of_a_damaged_character_is_named() -> None:
    (line,) = [line for line in LINES if line.name == "bad-character.pem"]
    (finding,) = document_of(line)["findings"]
    assert finding["where"] == "certificate, block 1, line 5"
