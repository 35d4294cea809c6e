"""`certwright organisations …` and `certwright cases …` against a running product."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command, Running, command, product_database, running
from tests.organisations.desk import PDF

__all__ = ["command", "product_database", "running"]

ADD = (
    "organisations", "add", "Beispiel GmbH", "--kind", "company", "--number", "HRB 1", "--jurisdiction", "DE",
    "--street", "Hauptstraße 1", "--city", "Berlin", "--country", "DE", "--phone", "+49 30 1234567",
    "--phone-source", "Das Örtliche", "--contact", "Max Muster <max@beispiel.example> IT", "--json",
)  # fmt: skip


@pytest.fixture
def signed_in(running: Running, command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("CERTWRIGHT_URL", running.url)
    monkeypatch.setenv("CERTWRIGHT_TOKEN", running.token)
    monkeypatch.setenv("CERTWRIGHT_CA_FILE", str(running.root))
    return command


def test_an_organisation_is_added_edited_shown_and_deleted(signed_in: Command) -> None:
    made = json.loads(signed_in(*ADD).out)
    assert made["contacts"] == [{"name": "Max Muster", "email": "max@beispiel.example", "phone": "", "role": "IT"}]
    edited = signed_in("organisations", "edit", "Beispiel GmbH", "--set", "city=Potsdam", "--json")
    assert json.loads(edited.out)["address"] | {"city": "Potsdam"} == json.loads(edited.out)["address"]
    assert json.loads(edited.out)["address"]["street"] == "Hauptstraße 1"
    shown = signed_in("organisations", "show", made["id"])
    assert "Potsdam" in shown.out
    assert made["id"] in signed_in("organisations", "list").out
    assert signed_in("organisations", "delete", made["id"], "--yes").code == 0
    assert signed_in("organisations", "show", made["id"]).code == 1


def test_wrong_use_says_what_is_right(signed_in: Command) -> None:
    assert signed_in("organisations", "edit", "x", "--set", "colour=red").code == 2
    assert signed_in("organisations", "edit", "x").code == 2
    wrong = signed_in(*[word if word != "DE" else "XX" for word in ADD])
    assert wrong.code == 1
    assert "country_unknown" in wrong.out + wrong.err
    assert signed_in("organisations", "add", *ADD[2:-2], "Max").code == 2


def test_kinds_and_empty_lists_are_shown(signed_in: Command) -> None:
    assert "unlisted" in signed_in("organisations", "kinds").out
    assert json.loads(signed_in("organisations", "verifications", "--json").out) == {"items": []}
    assert json.loads(signed_in("cases", "list", "--mine", "--json").out) == {"items": []}


@pytest.mark.parametrize(
    "words",
    [
        ("organisations", "progress", "ovc_x"),
        ("organisations", "choose", "ovc_x", "phone"),
        ("organisations", "send", "ovc_x", "a.pdf"),
        ("organisations", "fetch", "ovc_x", "ovd_x", "-o", "out.pdf"),
        ("cases", "show", "ovc_x"),
        ("cases", "claim", "ovc_x"),
        ("cases", "release", "ovc_x"),
        ("cases", "check", "ovc_x", "phone", "passed", "--source", "directory"),
        ("cases", "ask", "ovc_x", "Papers."),
        ("cases", "attach", "ovc_x", "a.pdf"),
        ("cases", "fetch", "ovc_x", "ovd_x", "-o", "out.pdf"),
        ("cases", "approve", "ovc_x", "--revision", "1"),
        ("cases", "return", "ovc_x", "Again."),
        ("cases", "refuse", "ovc_x", "--reason", "No.", "--yes"),
    ],
    ids=" ".join,
)
def test_every_command_reaches_its_door(signed_in: Command, words: tuple[str, ...]) -> None:
    Path("a.pdf").write_bytes(PDF)
    refused = signed_in(*words)
    assert refused.code == 1
    # The case is not there: the request itself was understood.
    assert "There is no" in refused.err
    assert "ovc_x" in refused.err
    assert not Path("out.pdf").exists()
