"""Names as a person types them, judged by RFC 1035, 5890, 6125 and 6761."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.kernel import names
from certwright.kernel.names import (
    DnsName,
    covers,
    is_internal,
    is_public_suffix,
    looks_like_ip,
    parse_dns_name,
    parse_ip,
    registrable_domain,
)
from certwright.kernel.problems import Invalid


@pytest.mark.parametrize(
    ("typed", "ascii_form", "unicode_form"),
    [
        ("www.Example.COM", "www.example.com", "www.example.com"),
        ("example.com.", "example.com", "example.com"),
        (" example.com ", "example.com", "example.com"),
        ("*.example.com", "*.example.com", "*.example.com"),
        ("bücher.example", "xn--bcher-kva.example", "bücher.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example", "bücher.example"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah", "例え.テスト"),
        ("straße.de", "xn--strae-oqa.de", "straße.de"),
        ("a" * 63 + ".example.com", "a" * 63 + ".example.com", "a" * 63 + ".example.com"),
        ("1password.com", "1password.com", "1password.com"),
    ],
)
def test_a_name_is_held_as_a_labels_in_lower_case(typed: str, ascii_form: str, unicode_form: str) -> None:
    name = parse_dns_name(typed)
    assert (name.ascii, name.unicode) == (ascii_form, unicode_form)


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        pytest.param("", "name_empty", id="nothing"),
        pytest.param("   ", "name_empty", id="only spaces"),
        pytest.param("https://example.com", "name_is_url", id="a web address"),
        pytest.param("example.com/path", "name_is_url", id="a path"),
        pytest.param("example.com:443", "name_bad_character", id="a port"),
        pytest.param("a@example.com", "name_bad_character", id="an e-mail address"),
        pytest.param("a b.example.com", "name_bad_character", id="a space inside"),
        pytest.param("a..example.com", "name_empty_label", id="two dots in a row"),
        pytest.param(".example.com", "name_empty_label", id="a dot in front"),
        pytest.param("-a.example.com", "label_hyphen", id="a hyphen in front"),
        pytest.param("a-.example.com", "label_hyphen", id="a hyphen at the end"),
        pytest.param("a_b.example.com", "label_bad_character", id="an underscore"),
        pytest.param("a" * 64 + ".com", "label_too_long", id="a label of 64"),
        pytest.param(".".join(["a" * 60] * 5), "name_too_long", id="more than 253 characters"),
        pytest.param("x" * 5000, "name_too_long", id="far too long"),
        pytest.param("*", "bad_wildcard", id="only a wildcard"),
        pytest.param("*.*.example.com", "bad_wildcard", id="two wildcards"),
        pytest.param("a*.example.com", "bad_wildcard", id="part of a label"),
        pytest.param("ab--c.example.com", "idna_invalid", id="hyphens in places 3 and 4"),
        pytest.param("☃.example.com", "idna_invalid", id="a symbol"),
        pytest.param("xn--a.example.com", "idna_invalid", id="broken Punycode"),
        pytest.param("1.2.3.4", "name_numeric_tld", id="an IPv4 address"),
        pytest.param("example.123", "name_numeric_tld", id="a number at the end"),
    ],
)
def test_a_name_is_refused_for(typed: str, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_dns_name(typed, field="names[3]")
    assert (caught.value.code, caught.value.field) == (code, "names[3]")
    assert caught.value.fix
    assert len(caught.value.message) < 400


@given(st.text(max_size=400))
def test_any_text_is_a_name_or_a_problem_and_a_name_reads_back_as_itself(text: str) -> None:
    try:
        name = parse_dns_name(text)
    except Invalid:
        return
    assert name.ascii == name.ascii.lower()
    assert name.ascii.isascii()
    assert len(name.ascii) <= 253
    assert parse_dns_name(name.ascii).ascii == name.ascii
    assert parse_dns_name(name.unicode).ascii == name.ascii


@pytest.mark.parametrize(
    "name",
    ["localhost", "shop.demo.localhost", "printer.local", "db.internal", "a.test", "x.example", "host", "a.home.arpa",
     "1.0.0.127.in-addr.arpa", "abc.onion", "web.corp"],
)  # fmt: skip
def test_internal_and_reserved_names_are_known(name: str) -> None:
    assert is_internal(parse_dns_name(name))


@pytest.mark.parametrize("name", ["example.com", "*.example.co.uk", "bücher.de", "a.b.c.org"])
def test_public_names_are_not_internal(name: str) -> None:
    assert not is_internal(parse_dns_name(name))


def test_only_the_icann_section_makes_a_public_suffix() -> None:
    assert is_public_suffix(parse_dns_name("*.co.uk"))
    assert not is_public_suffix(parse_dns_name("*.github.io"))


@pytest.mark.parametrize(
    ("name", "expected"), [("a.b.example.co.uk", "example.co.uk"), ("example.com", "example.com"), ("host.corp", None)]
)
def test_the_registrable_domain_is_one_label_below_the_public_suffix(name: str, expected: str | None) -> None:
    assert registrable_domain(parse_dns_name(name)) == expected


@pytest.mark.parametrize(
    ("pattern", "name", "good"),
    [
        ("example.com", "EXAMPLE.com", True),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", "example.com", False),
        ("*.example.com", ".example.com", False),
        ("*.example.com", "*.example.com", True),
        ("a.example.com", "b.example.com", False),
    ],
)
def test_a_wildcard_stands_for_exactly_one_label(pattern: str, name: str, good: bool) -> None:
    assert covers(pattern, name) is good


def test_addresses_are_told_from_names() -> None:
    assert looks_like_ip("192.0.2.7")
    assert looks_like_ip(" 2001:db8::7 ")
    assert not looks_like_ip("example.com")
    with pytest.raises(Invalid) as caught:
        parse_ip("192.0.2.700")
    assert caught.value.code == "ip_invalid"


_TYPED = st.text("ab0-.*xnB ü_", max_size=20) | st.from_regex(
    r"(\*\.)?([a-z0-9-]{1,64}\.){0,5}[a-z0-9-]{1,64}", fullmatch=True
)


@given(_TYPED)
def test_plain_names_are_read_at_a_glance_and_no_other_is(typed: str) -> None:
    def read(how: Callable[[str, str], DnsName]) -> DnsName | str:
        try:
            return how(typed, "name")
        except Invalid as problem:
            return problem.code

    assert read(names._read) == read(names._read_whatever)
