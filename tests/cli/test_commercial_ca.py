"""`certwright cas` for CAs that sell."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Command, Running
from tests.servers.certcentral import fake_certcentral


@pytest.fixture
def signed_in(running: Running, command: Command) -> Command:
    assert (
        command("login", running.url, "--token-stdin", "--ca-file", str(running.root), stdin=running.token + "\n").code
        == 0
    )
    return command


def test_a_ca_that_sells_is_added_with_its_key_shown_edited_and_forgotten(signed_in: Command) -> None:
    with fake_certcentral() as ca:
        with open("root.pem", "w") as file:
            file.write(ca.root_pem)
        added = signed_in(
            "cas", "add", "shop", ca.base_url, "--kind", "certcentral", "--root", "root.pem", "--api-key-stdin",
            "--product", "ov/single=ssl_plain", "--setting", "years=2", "--setting", "skip_approval=false",
            "--setting", "caa_identifiers=a.example, b.example", stdin=ca.key + "\n",
        )  # fmt: skip
        assert added.code == 0, added.err
        assert "ov/single=ssl_plain" in added.out
        shown = signed_in("cas", "show", "shop", "--json")
        assert ca.key not in added.out + added.err + shown.out
        settings = json.loads(shown.out)["settings"]
        assert (settings["years"], settings["skip_approval"]) == (2, False)
        assert settings["caa_identifiers"] == ["a.example", "b.example"]
        edited = signed_in("cas", "edit", "shop", "--api-key-stdin", "--setting", "years=1", stdin="some-other-key\n")
        assert edited.code == 1
        assert "ca_key_refused" in edited.err or "doesn't take the API key" in edited.err
        assert json.loads(signed_in("cas", "show", "shop", "--json").out)["settings"]["years"] == 1
    assert signed_in("cas", "delete", "shop", "--yes").code == 0


def test_without_a_terminal_the_key_comes_from_standard_input_or_not_at_all(signed_in: Command) -> None:
    refused = signed_in("cas", "add", "shop", "https://127.0.0.1:1/", "--kind", "certcentral")
    assert refused.code == 2
    assert "--api-key-stdin" in refused.err
