"""Windows, freezes, limits, mass replacement, readiness and rules from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command, Running


@pytest.fixture
def signed_in(command: Command, running: Running, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("CERTWRIGHT_URL", running.url)
    monkeypatch.setenv("CERTWRIGHT_TOKEN", running.token)
    monkeypatch.setenv("CERTWRIGHT_CA_FILE", str(running.root))
    return command


def test_windows_freezes_and_limits_come_and_go(signed_in: Command) -> None:
    made = signed_in("renewals", "add-window", "nights", "22:00", "04:00", "--days", "mon,fri", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["weekdays"] == ["mon", "fri"]
    assert "nights" in signed_in("renewals", "windows").out
    edited = json.loads(signed_in("renewals", "edit-window", "nights", "--to", "05:30", "--days", "sun", "--json").out)
    kept = {"name": "nights", "from": "22:00:00", "to": "05:30:00", "weekdays": ["sun"], "zone": "UTC"}
    assert {field: edited[field] for field in kept} == kept
    assert signed_in("renewals", "edit-window", "nights", "--zone", "Mars").code == 1
    assert signed_in("renewals", "remove-window", "nights").code == 0
    frozen = signed_in(
        "renewals", "freeze", "2098-12-20T00:00:00Z", "2099-01-07T00:00:00Z", "--reason", "Trade", "--json"
    )
    freeze = json.loads(frozen.out)["id"]
    assert "Trade" in signed_in("renewals", "freezes").out
    longer = json.loads(signed_in("renewals", "edit-freeze", freeze, "--to", "2099-01-10T00:00:00Z", "--json").out)
    assert (longer["to"], longer["reason"]) == ("2099-01-10T00:00:00Z", "Trade")
    assert signed_in("renewals", "unfreeze", freeze).code == 0
    assert signed_in("renewals", "set-limit", "builtin", "--per-minute", "30").code == 0
    assert "builtin" in signed_in("renewals", "limits").out
    assert signed_in("renewals", "list").code == 0


def test_a_mass_replacement_asks_before_it_starts(signed_in: Command) -> None:
    seen = signed_in("campaigns", "preview", "--names", "*.nowhere.example")
    assert "0 certificates are replaced" in seen.out
    refused = signed_in("campaigns", "start", "drill", "--reason", "drill", "--names", "*.nowhere.example")
    assert refused.code == 2
    started = signed_in(
        "campaigns", "start", "drill", "--reason", "drill", "--names", "*.nowhere.example", "--yes", "--json"
    )
    assert started.code == 0, started.err
    assert "drill" in signed_in("campaigns", "list").out
    nowhere = signed_in("campaigns", "preview", "--names", "*", "--to-ca", "nobody")
    assert (nowhere.code, "nobody" in nowhere.err) == (1, True)
    assert signed_in("campaigns", "items", "drill").code == 0
    assert signed_in("campaigns", "rate", "drill", "5").code == 0


def test_readiness_says_what_survives(signed_in: Command) -> None:
    said = signed_in("readiness", "--at", "2029-04-01")
    assert said.code == 0, said.err
    assert "lives of 46 days" in said.out
    assert signed_in("readiness", "--at", "soon").code == 1


def test_rules_are_printed_replaced_and_taken_back(signed_in: Command, tmp_path: Path) -> None:
    text = signed_in("rules", "show").out
    file = tmp_path / "rules.yaml"
    file.write_text(text.replace("max: 47", "max: many"))
    wrong = signed_in("rules", "replace", str(file), "--yes")
    assert wrong.code == 1
    assert "Line" in wrong.err
    file.write_text(text.replace("fraction_of_life: 0.6667", "fraction_of_life: 0.5"))
    assert signed_in("rules", "replace", str(file), "--yes").code == 0
    assert "fraction_of_life: 0.5" in signed_in("rules", "show").out
    assert signed_in("rules", "revert", "--yes").code == 0
    assert signed_in("rules", "revert", "--yes").code == 1
