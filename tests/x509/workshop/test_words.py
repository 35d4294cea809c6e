"""The catalogue: every code used is in it, and the guide tells cause and remedy of each."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from certwright.x509.workshop.words import CODES, REPAIRS

ROOT = Path(__file__).resolve().parents[3]
WORKSHOP = ROOT / "src" / "certwright" / "x509" / "workshop"
GUIDE = ROOT / "docs" / "guide" / "upload-findings.md"


def calls(*names: str) -> set[tuple[str, str]]:
    """(function, first literal argument) of every call of these functions in the workshop."""
    found = set()
    for path in WORKSHOP.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                if called in names:
                    found.add((called, str(node.args[0].value)))
    return found


def rows() -> dict[str, list[str]]:
    text = GUIDE.read_text()
    found = {}
    for row in re.findall(r"^\| `([a-z0-9_]+)` \| (.*) \|$", text, re.MULTILINE):
        found[row[0]] = [cell.strip() for cell in row[1].split(" | ")]
    return found


def test_every_finding_made_is_in_the_catalogue_with_its_severity() -> None:
    made = calls("error", "warning", "note", "_error")
    assert ("error", "key_mismatch") in made
    for function, code in made:
        assert code in CODES, code
        assert function.removeprefix("_") in {severity.value for severity in CODES[code]}, code


def test_every_repair_made_is_in_the_catalogue() -> None:
    made = {code for _, code in calls("Repair", "_note", "_repair")}
    assert made <= set(REPAIRS)
    assert len(made) > 15


def test_the_guide_tells_severity_cause_and_remedy_of_every_code() -> None:
    told = rows()
    assert set(told) == set(CODES) | set(REPAIRS) | {code for code in CODES if code in REPAIRS}
    for code, severities in CODES.items():
        if code in REPAIRS:
            continue  # told twice: as a finding above, as a repair below
        severity, cause, remedy = told[code]
        assert severity == ", ".join(s.value for s in severities), code
        assert len(cause) > 10, code
        assert len(remedy) > 5, code
