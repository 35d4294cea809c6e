"""The guide in the console: what is shipped is shown, and nothing in it can do anything."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from certwright.entry.cli.app import app as cli
from certwright.entry.console import guide
from certwright.entry.console.pages_access import browser_of
from certwright.x509.workshop.words import CODES, REPAIRS
from tests.console.test_assets import hook

__all__ = ["hook"]

SignIn = Callable[[Any], Any]
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide"
NAMES = sorted(path.relative_to(GUIDE).with_suffix("").as_posix() for path in GUIDE.rglob("*.md"))


def test_links_between_pages_stay_in_the_console_and_lead_to_pages_and_headings() -> None:
    assert len(NAMES) > 50
    ids = {name: set(re.findall(r'id="([^"]+)"', guide.page(name).body)) for name in NAMES if guide.page(name)}
    assert set(ids) == set(NAMES)
    for name in NAMES:
        for href in re.findall(r'<a href="([^"]*)"', guide.page(name).body):  # type: ignore[union-attr]
            if href.startswith("https://"):
                continue
            place, _, anchor = href.partition("#")
            target = name
            if place:
                assert place.startswith("/guide"), f"{name}: {href}"
                target = place.removeprefix("/guide").strip("/") or "index"
                target = target if target in ids else f"{target}/index"
            assert target in ids, f"{name}: {href}"
            assert not anchor or anchor in ids[target], f"{name}: {href}"


def test_pages_are_called_by_their_titles_not_by_their_files() -> None:
    for name in NAMES:
        assert not re.search(r"<a [^>]*>[a-z/-]+\.md</a>", guide.page(name).body), name  # type: ignore[union-attr]
    home = guide.page("index")
    assert home is not None
    assert '<a href="/guide/upload-findings">What is wrong with this file</a>' in home.body


@pytest.mark.parametrize(
    ("text", "forbidden"),
    [
        ("<script>alert(1)</script>", "<script"),
        ("[a](javascript:alert(1))", "href"),
        ("[a](data:text/html,x)", "href"),
        ("[a](http://elsewhere.example/)", "href"),
        ("[a](../../../etc/passwd)", "href"),
        ("[a](//elsewhere.example/x.md)", "href"),
        ("![a](https://elsewhere.example/x.png)", "<img"),
        ("<b onclick='x()'>y</b>", "<b "),
        ("| a |\n|--:|\n| b |", "style"),
    ],
    ids=["script", "script link", "data link", "plain http", "out of the guide", "other host", "image", "markup",
         "alignment"],
)  # fmt: skip
def test_a_page_can_hold_nothing_that_runs_loads_or_leads_astray(text: str, forbidden: str) -> None:
    assert forbidden not in guide.rendered("x", "# Title\n\n" + text).body


def test_every_finding_and_repair_has_an_address() -> None:
    for code in (*CODES, *REPAIRS):
        assert guide.address(code).startswith("/guide/findings/"), code
    assert guide.address("never_heard_of") == ""
    assert dict(guide.findings())["expired"] == "it is over"


def test_pages_open_for_the_signed_in_and_unknown_ones_do_not(api: Any, web: SignIn) -> None:
    me = web(api.world.actor)
    page = me.get("/guide/findings/ec_parameters_only")
    assert page.status_code == 200
    assert page.text.count("<h1") == 1
    assert "EC PARAMETERS" in page.text
    for name in ("/guide/nothing", "/guide/findings/nothing", "/guide/..%2f..%2fetc", "/guide/findings/..%2findex"):
        assert me.get(name).status_code == 404, name
    assert web(None).get("/guide").status_code == 303


def test_the_wheel_takes_the_guide_along_and_a_checkout_reads_it_where_it_lies(hook: ModuleType) -> None:
    for version, included in (("standard", {"docs/guide": "certwright/guide"}), ("editable", {})):
        data: dict[str, Any] = {"force_include": {}, "artifacts": []}
        hook.CustomBuildHook.initialize(object.__new__(hook.CustomBuildHook), version, data)
        assert data["force_include"] == included


def test_a_finding_is_explained_on_the_command_line() -> None:
    said = CliRunner().invoke(cli, ["x509", "explain", "chain_missing"])
    assert said.output.startswith("# `chain_missing`: the intermediate is not there")
    assert "line ends of Windows" in CliRunner().invoke(cli, ["x509", "explain", "crlf"]).output
    refused = CliRunner().invoke(cli, ["x509", "explain", "../start"])
    assert refused.exit_code == 2 or "There is no finding" in str(refused.exception)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Safari/537.36",
         "Chrome, Linux"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64) AppleWebKit/537.36 Chrome/131.0 Safari/537.36 Edg/131.0",
         "Edge, Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Mobile Safari/604.1", "Safari, iPhone"),
        ("something of my own", "something of my own"),
        ("", ""),
    ],
)  # fmt: skip
def test_sessions_are_told_apart_by_what_people_call_their_browsers(said: str, shown: str) -> None:
    assert browser_of(said) == shown
