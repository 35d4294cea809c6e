"""The guide tells what is there: settings, alarms, checks, commands, addresses and codes; its links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import typer

from certwright.entry.api import API_PREFIX, create_app
from certwright.entry.cli.app import app as cli
from certwright.platform.config import Settings
from certwright.platform.telemetry import REGISTRY
from certwright.rooms import access, watch
from certwright.rooms.watch.metrics import AuthorityGauges, EndpointGauges

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GUIDE = DOCS / "guide"
PAGES = sorted(GUIDE.glob("*.md"))
WRITTEN = [*(page for page in PAGES if page.name != "codes.md"), *sorted((GUIDE / "findings").glob("*.md"))]
LINKED = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def words_of(page: str) -> str:
    return (GUIDE / page).read_text()


def anchors_of(path: Path) -> set[str]:
    """What GitHub makes of the headings outside code: lower case, spaces to hyphens, other signs dropped."""
    text = _FENCE.sub("", path.read_text())
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_setting_is_in_the_guide_and_no_other() -> None:
    text = words_of("settings.md")
    rows = set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE))
    assert rows == set(Settings.model_fields)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_default_in_the_guide_is_the_default(name: str) -> None:
    row = re.search(rf"^\| `{name}` \| ([^|]+) \|", words_of("settings.md"), re.MULTILINE)
    assert row is not None
    default = Settings.model_fields[name].default
    if isinstance(default, str):
        assert row[1] == f"`{default}`"
    elif isinstance(default, bool):
        assert row[1] == ("yes" if default else "no")
    elif isinstance(default, (int, float)):
        assert float(row[1]) == default


def test_every_alarm_is_in_the_guide() -> None:
    text = words_of("watch.md")
    for kind, entry in watch.CATALOGUE.items():
        assert f"| {kind} | {entry.name} | {', '.join(entry.severities)} |" in text


def test_every_explanation_of_a_check_has_a_line_that_says_what_to_do() -> None:
    rules = ROOT / "src" / "certwright" / "rooms" / "validation" / "rules.py"
    used = set(re.findall(r'"((?:dns|file|caa)_[a-z0-9_]+)"', rules.read_text()))
    assert "dns_no_such_name" in used
    explained = set()
    for row in re.findall(r"^\| (`(?:dns|file|caa)_[^|]+) \|", words_of("validate.md"), re.MULTILINE):
        explained |= set(re.findall(r"`([a-z0-9_]+)`", row))
    assert used <= explained


def test_every_system_policy_is_in_the_guide() -> None:
    for policy in access.SYSTEM_POLICIES.values():
        assert f"| {policy.name} |" in words_of("access.md")


@pytest.mark.parametrize("page", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", page.read_text())):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors_of(target), f"{link}: there is no such heading"


def test_every_page_is_on_the_map() -> None:
    linked = {link.partition("#")[0] for link in _LINK.findall(words_of("index.md"))}
    assert linked == {page.name for page in PAGES} - {"index.md"}


# --- commands ---------------------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, str]]:
    """(page, command line) of every `certwright …` in a shell block, and inside backticks in the text."""
    for page in WRITTEN:
        text = page.read_text()
        lines = [
            line
            for language, body in _FENCE.findall(text)
            if language == "sh"
            for line in re.sub(r"\\\n", " ", body).splitlines()
        ]
        lines += re.findall(r"`(certwright [^`]+)`", _FENCE.sub("", text).replace("\n", " "))
        for line in lines:
            called = re.sub(r"^((sudo|[A-Z_]+=(\S+|'[^']*'))\s+)+", "", line.strip())
            if called.startswith("certwright ") and not called.startswith("certwright …"):
                yield page.name, re.split(r"\s(?:[<>|]|&&)\s", called)[0]


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_commands_in_the_guide_exist_with_their_options(page: str, line: str) -> None:
    command: Any = typer.main.get_command(cli)
    words = shlex.split(line)[1:]
    while words and hasattr(command, "commands"):
        if words[0].startswith("-"):
            break
        assert words[0] in command.commands, f"{page}: {line}"
        command = command.commands[words.pop(0)]
    known = {"--help"} | {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
    for word in words:
        if word.startswith("-") and word != "-":
            assert word.partition("=")[0] in known, f"{page}: {line}"


# --- addresses --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def served() -> set[tuple[str, str]]:
    made: Any = create_app(None)  # type: ignore[arg-type]  # its description needs no services
    return {(method.upper(), path) for path, item in made.openapi()["paths"].items() for method in item}


def addresses() -> Iterator[tuple[str, str, str]]:
    for page in WRITTEN:
        text = _FENCE.sub("", page.read_text())
        for method, path in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`?\s]*)", text):
            yield page.name, method, path


@pytest.mark.parametrize(("page", "method", "path"), sorted(set(addresses())))
def test_addresses_in_the_guide_are_served(page: str, method: str, path: str) -> None:
    known = served()
    assert (method, API_PREFIX + path) in known or (method, path) in known, page


_COLLECTORS = (REGISTRY, EndpointGauges([]), AuthorityGauges([]))


def test_metrics_in_the_guide_are_counted() -> None:
    named = set()
    for row in re.findall(r"^\| (`(?:certwright|probe|x509)_[^|]+) \|", words_of("watch.md"), re.MULTILINE):
        named |= set(re.findall(r"`([a-z0-9_]+)`", row))
    counted = {family.name for collector in _COLLECTORS for family in collector.collect()}
    assert {name.removesuffix("_total") for name in named} == counted


# --- codes ------------------------------------------------------------------------------------------------------------


def script(name: str) -> Any:
    """A module of `scripts/`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up by name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_of_codes_is_what_the_source_says() -> None:
    made = script("list_codes")
    found = made.all_codes()
    assert len({said.code for said in found}) > 200
    assert words_of("codes.md") == made.page(found), "run: python scripts/list_codes.py"


@pytest.mark.parametrize("page", ["troubleshooting.md", "deploy-nginx.md"])
def test_codes_named_in_the_guide_exist(page: str) -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "src" / "certwright").rglob("*.py"))
    text = _FENCE.sub("", words_of(page))
    named = {
        code
        for row in re.findall(r"^\| ((?:`[a-z0-9_]+`(?:, )?)+)(?: \([^|]*\))? \|", text, re.MULTILINE)
        for code in re.findall(r"`([a-z0-9_]+_[a-z0-9_]+)`", row)
    }
    assert named
    assert not {code for code in named if f'"{code}"' not in source}
