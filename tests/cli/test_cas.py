"""`certwright cas …` against a running product and an ACME server that does what the test says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.servers.acme import FakeAcme, fake_acme, problem


@pytest.fixture
def ca() -> Iterator[FakeAcme]:
    with fake_acme() as running:
        yield running


@pytest.fixture
def root(ca: FakeAcme, tmp_path: Path) -> str:
    file = tmp_path / "acme-root.pem"
    file.write_text(ca.root_pem)
    return str(file)


def test_a_ca_is_added_tested_edited_rolled_over_and_forgotten(signed_in: Command, ca: FakeAcme, root: str) -> None:
    ca.profiles = {"classic": "The usual one"}
    added = signed_in("cas", "add", "mine", ca.directory_url, "--root", root, "--private", "--contact", "a@example.com",
                      "--json")  # fmt: skip
    assert added.code == 0, added.err
    made = json.loads(added.out)
    assert made["account_url"] in ca.accounts
    assert (made["public"], made["problem"], made["offers"]["profiles"]) == (False, None, {"classic": "The usual one"})

    edited = signed_in("cas", "edit", "mine", "--profile", "classic", "--limit-of", "orders=7/2h", "--json")
    assert edited.code == 0, edited.err
    assert json.loads(edited.out)["limits"]["orders"] == {"count": 7, "seconds": 7200}
    shown = signed_in("cas", "show", "mine")
    assert "orders 7 per 2h" in shown.out
    assert "classic" in shown.out
    assert "BEGIN CERTIFICATE" not in shown.out

    before = ca.accounts[made["account_url"]]["jwk"]
    assert signed_in("cas", "change-key", "mine").code == 2
    assert signed_in("cas", "change-key", "mine", "--yes").code == 0
    assert ca.accounts[made["account_url"]]["jwk"] != before

    assert signed_in("cas", "delete", "mine", "--deactivate", "--yes").code == 0
    assert ca.accounts[made["account_url"]]["status"] == "deactivated"
    assert json.loads(signed_in("cas", "list", "--json").out)["items"] == []


def test_a_failed_test_keeps_the_ca_and_says_what_to_do(signed_in: Command, ca: FakeAcme, root: str) -> None:
    ca.terms = "https://ca.example/terms"
    added = signed_in("cas", "add", "strict", ca.directory_url, "--root", root, "--private")
    assert added.code == 1
    assert "https://ca.example/terms" in added.err
    assert "--agree-terms" in added.err
    assert signed_in("cas", "edit", "strict", "--agree-terms").code == 0
    assert signed_in("cas", "test", "strict").code == 0
    assert signed_in("cas", "delete", "strict", "--yes").code == 0


def test_a_bound_account_takes_its_key_from_standard_input_only(signed_in: Command, ca: FakeAcme, root: str) -> None:
    ca.eab = {"kid-1": b"0123456789abcdef0123456789abcdef"}
    common = ("cas", "add", "bound", ca.directory_url, "--root", root, "--private", "--eab-kid", "kid-1")
    assert signed_in(*common).code == 2
    good = signed_in(*common, "--eab-key-stdin", stdin="MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\n")
    assert good.code == 0, good.err
    assert "MDEyMzQ1" not in good.out + good.err
    assert signed_in("cas", "delete", "bound", "--yes").code == 0


@pytest.mark.parametrize("text", ["orders", "orders=7", "orders=7/h", "orders=x/2h", "orders=7/2w"])
def test_a_limit_that_is_none_is_used_wrongly(signed_in: Command, text: str) -> None:
    wrong = signed_in("cas", "add", "x", "https://ca.example/dir", "--limit-of", text)
    assert wrong.code == 2
    assert "--limit-of" in wrong.err


def test_what_an_acme_ca_wants_to_see_is_printed_without_waiting_for_the_certificate(
    signed_in: Command, ca: FakeAcme, root: str
) -> None:
    assert signed_in("cas", "add", "asks", ca.directory_url, "--root", root, "--private").code == 0
    applied = signed_in("apply", "asks.demo.localhost", "--name", "asked", "--ca", "asks", "--method", "file",
                        "--consent", "--phone", "+49 30 1234567")  # fmt: skip
    assert applied.code == 0, applied.err
    assert "pending_domain_validation" in applied.out
    assert "http://asks.demo.localhost/.well-known/acme-challenge/" in applied.out
    assert "certwright certificates check cert_" in applied.out
    assert signed_in("certificates", "withdraw", "asked").code == 0
    assert signed_in("certificates", "wait", "asked", "--timeout", "30").code == 0
    assert signed_in("certificates", "delete", "asked", "--yes").code == 0
    assert signed_in("cas", "delete", "asks", "--yes").code == 0


def test_a_ca_that_is_away_is_said_with_the_command_that_shows_what_it_wants(
    signed_in: Command, ca: FakeAcme, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("certwright.entry.cli.certificates._CA_ANSWERS_WITHIN", 0.3)
    assert signed_in("cas", "add", "gone", ca.directory_url, "--root", root, "--private").code == 0
    ca.in_the_way["new-order"].extend([problem("serverInternal", "busy", 503)] * 100)
    applied = signed_in("apply", "gone.demo.localhost", "--name", "gone-one", "--ca", "gone", "--method", "file",
                        "--consent", "--phone", "+49 30 1234567")  # fmt: skip
    assert applied.code == 0, applied.err
    assert "The CA hasn't said yet what it wants to see." in applied.out
    assert "certwright certificates show cert_" in applied.out
    assert signed_in("certificates", "withdraw", "gone-one").code == 0
    assert signed_in("certificates", "wait", "gone-one", "--timeout", "30").code == 0
    assert signed_in("certificates", "delete", "gone-one", "--yes").code == 0
    assert signed_in("cas", "delete", "gone", "--yes").code == 0


def test_an_application_names_the_ca_it_goes_to(signed_in: Command, ca: FakeAcme, root: str) -> None:
    assert signed_in("cas", "add", "acme", ca.directory_url, "--root", root, "--private").code == 0
    ca.valid_names.add("cli.demo.localhost")
    applied = signed_in("apply", "cli.demo.localhost", "--ca", "acme", "--method", "file", "--consent", "--phone",
                        "+49 30 1234567", "--wait", "--timeout", "60", "--json")  # fmt: skip
    assert applied.code == 0, applied.err
    certificate = json.loads(applied.out)
    assert certificate["state"] == "issued"
    assert certificate["ca"].startswith("eca_")
    unknown = signed_in("apply", "cli.demo.localhost", "--ca", "nobody", "--consent", "--phone", "+49 30 1234567")
    assert unknown.code == 1
    assert "There is no CA 'nobody'" in unknown.err
    refused = signed_in("cas", "delete", "acme", "--yes")
    assert refused.code == 1
    assert "1 certificates come from acme" in refused.err
