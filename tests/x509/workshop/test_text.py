"""Cosmetic damage in any combination leaves the blocks as they were, and is told."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.x509.workshop import text
from certwright.x509.workshop.words import REPAIRS

Damage = Callable[[str], str]


def pem(*bodies: bytes, width: int = 64) -> str:
    out = ""
    for body in bodies:
        line = base64.b64encode(body).decode()
        lines = "\n".join(line[i : i + width] for i in range(0, len(line), width))
        out += f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"
    return out


DAMAGES: dict[str, Damage] = {
    "crlf": lambda s: s.replace("\n", "\r\n"),
    "trailing_spaces": lambda s: re.sub(r"(\r?\n)", r" \1", s),
    "indentation": lambda s: re.sub(r"^(?=.)", "   ", s, flags=re.MULTILINE),
    "dashes": lambda s: s.replace("-----", "\u2014\u2013-"),
    "text_around": lambda s: f"subject=/CN=x\n{s}that was it\n",
    "invisible_characters": lambda s: re.sub(r"(\r?\n)", "\u200b\\1", s),
}
BODIES = st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=4)


@given(BODIES)
def test_canonical_text_is_read_as_it_is(bodies: list[bytes]) -> None:
    found = text.scan(pem(*bodies).encode(), "certificate")
    assert [b.block.body for b in found.blocks] == bodies
    assert found.repairs == []
    assert found.findings == []


@given(BODIES, st.permutations(sorted(DAMAGES)), st.integers(0, len(DAMAGES)), st.sampled_from(["utf-8", "utf-16"]))
def test_any_damage_in_any_order_is_repaired_and_told(
    bodies: list[bytes], order: list[str], count: int, encoding: str
) -> None:
    damaged = pem(*bodies)
    for name in order[:count]:
        damaged = DAMAGES[name](damaged)
    found = text.scan(damaged.encode(encoding), "certificate")
    assert [b.block.body for b in found.blocks] == bodies
    assert found.findings == []
    told = {repair.code for repair in found.repairs}
    assert set(order[:count]) <= told
    assert told <= set(REPAIRS)
    assert ("utf16" in told) == (encoding == "utf-16")


@given(BODIES, st.integers(1, 300))
def test_lines_of_any_width_hold_the_same(bodies: list[bytes], width: int) -> None:
    found = text.scan(pem(*bodies, width=width).encode(), "certificate")
    assert [b.block.body for b in found.blocks] == bodies


@given(BODIES, st.data())
def test_the_line_of_a_wrong_character_is_named(bodies: list[bytes], data: st.DataObject) -> None:
    lines = pem(*bodies).splitlines()
    number = data.draw(st.sampled_from([n for n, line in enumerate(lines) if not line.startswith("-")]))
    column = data.draw(st.integers(0, len(lines[number]) - 1))
    lines[number] = lines[number][:column] + "!" + lines[number][column + 1 :]
    found = text.scan(("\n".join(lines) + "\n").encode(), "certificate")
    (finding,) = found.findings
    assert (finding.code, finding.where.line) == ("bad_base64", number + 1)
    assert len(found.blocks) == len(bodies) - 1


@given(st.text(alphabet="-BEGINDCRTA \n\r\\=:>\u2014", max_size=300))
def test_scraps_of_pem_end_in_blocks_or_findings(scrap: str) -> None:
    found = text.scan(scrap.encode(), "certificate")
    assert found.blocks or found.findings


@pytest.mark.parametrize(
    ("given_text", "sentence"),
    [
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", "no matching END"),
        ("AAAA\n-----END CERTIFICATE-----\n", "no BEGIN line"),
        ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "is empty"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END X509 CERTIFICATE-----\n", "no matching END"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\n", "PuTTY"),
        ("C:\\certs\\www.pem", "name of a file"),
        ("/etc/ssl/www.pem\n", "name of a file"),
        ("-----BEGIN CERT", "no whole BEGIN line"),
        ("some words about nothing much, in a text\nof two lines", "neither PEM nor"),
    ],
)
def test_what_is_no_block_is_called_by_its_name(given_text: str, sentence: str) -> None:
    messages = [finding.message for finding in text.scan(given_text.encode(), "certificate").findings]
    assert any(sentence in message for message in messages), messages
