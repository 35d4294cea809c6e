"""The catalogue: every code used is in it. That each has its page in the guide: tests/docs."""

from __future__ import annotations

import ast
from pathlib import Path

from certwright.x509.workshop.words import CODES, REPAIRS

ROOT = Path(__file__).resolve().parents[3]
WORKSHOP = ROOT / "src" / "certwright" / "x509" / "workshop"


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
