"""Name constraints (RFC 5280 section 4.2.1.10), by a table and against OpenSSL."""

from __future__ import annotations

import ipaddress
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from certwright.x509 import _constraints

DNS, MAIL, URI = x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier


def ip(text: str) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_network(text) if "/" in text else ipaddress.ip_address(text))


def named(common: str | None = None, organization: str | None = None, mailbox: str | None = None) -> x509.Name:
    parts = ((NameOID.ORGANIZATION_NAME, organization), (NameOID.EMAIL_ADDRESS, mailbox), (NameOID.COMMON_NAME, common))
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts if text is not None])


def org(text: str) -> x509.DirectoryName:
    return x509.DirectoryName(named(organization=text))


def is_within(tree: x509.GeneralName, name: x509.GeneralName, *, excluded: bool = False) -> bool:
    """Whether a CA that has just this subtree may certify the name."""
    limits = x509.NameConstraints(None, [tree]) if excluded else x509.NameConstraints([tree], None)
    return _constraints.first_violation(limits, [(type(name), name.value)]) is None


@pytest.mark.parametrize(
    ("tree", "inside", "outside"),
    [
        (DNS("a.example"), [DNS("a.example"), DNS("A.EXAMPLE"), DNS("b.a.example"), DNS("*.a.example")],
         [DNS("example"), DNS("ba.example"), DNS("*.example")]),
        (DNS(".a.example"), [DNS("b.a.example"), DNS("*.a.example")], [DNS("a.example"), DNS("ba.example")]),
        (DNS(""), [DNS("a"), DNS("*.a")], []),
        (MAIL("ann@a.example"), [MAIL("ann@A.example")], [MAIL("bob@a.example"), MAIL("Ann@a.example")]),
        (MAIL("a.example"), [MAIL("ann@a.example")], [MAIL("ann@b.a.example"), MAIL("ann@ba.example")]),
        (MAIL(".a.example"), [MAIL("ann@b.a.example")], [MAIL("ann@a.example")]),
        (URI("a.example"), [URI("https://a.example"), URI("spiffe://A.example/x"), URI("https://a.example:8/?q")],
         [URI("https://b.a.example/"), URI("https://u@a.example/"), URI("https://10.0.0.1/"), URI("urn:a.example"),
          URI("https://b.example\\@a.example/")]),
        (URI(".a.example"), [URI("https://b.a.example/")], [URI("https://a.example/"), URI("https://ba.example/")]),
        (ip("10.0.0.0/8"), [ip("10.1.2.3")], [ip("11.0.0.1"), ip("::a00:1")]),
        (org("Acme Inc"), [org("ACME  inc")], [org("Acme")]),
        (x509.RegisteredID(x509.ObjectIdentifier("1.2.3")), [], [x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))]),
    ],
)  # fmt: skip
def test_a_permitted_subtree_holds_just_these(
    tree: x509.GeneralName, inside: list[x509.GeneralName], outside: list[x509.GeneralName]
) -> None:
    for name in inside:
        assert is_within(tree, name), name
    for name in outside:
        assert not is_within(tree, name), name


@pytest.mark.parametrize(
    ("tree", "barred", "free"),
    [
        (DNS("www.a.example"), [DNS("www.a.example"), DNS("x.www.a.example"), DNS("*.a.example")],
         [DNS("a.example"), DNS("*.example"), DNS("ftp.a.example")]),
        (DNS(".a.example"), [DNS("x.a.example"), DNS("*.a.example"), DNS("*.b.a.example")],
         [DNS("*.example"), DNS("*.ba.example")]),
        (MAIL("ann@a.example"), [MAIL("ann@a.example"), MAIL("ANN@a.example")], [MAIL("bob@a.example")]),
        (URI("a.example"), [URI("https://a.example/"), URI("https://10.0.0.1/"), URI("urn:b"), URI("https://u@b/")],
         [URI("https://b.example/")]),
        (org("Acme Inc"), [org("acme INC "), org("Acme\u00a0Inc")], [org("Acme")]),
    ],
)  # fmt: skip
def test_an_excluded_subtree_bars_whatever_may_lie_in_it(
    tree: x509.GeneralName, barred: list[x509.GeneralName], free: list[x509.GeneralName]
) -> None:
    for name in barred:
        assert not is_within(tree, name, excluded=True), name
    for name in free:
        assert is_within(tree, name, excluded=True), name


# --- beside OpenSSL --------------------------------------------------------------------------------------------------

_CA_KEY, _KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
_BORN = datetime.now(UTC)
_host = st.lists(st.sampled_from(["a", "b", "A"]), min_size=1, max_size=3).map(".".join)
_below = _host.map(".{}".format)
_mailbox = st.builds("{}@{}".format, st.sampled_from(["u", "v", "U"]), _host)
_uri = st.builds("{}://{}{}".format, st.sampled_from(["https", "spiffe"]), _host, st.sampled_from(["", "/x", ":80"]))
_org = st.sampled_from(["Acme", "ACME", " acme", "Acme Inc", "Acme  Inc", "Other"])
_name = (
    (_host | _host.map("*.{}".format)).map(DNS) | _mailbox.map(MAIL) | _uri.map(URI)
    | st.sampled_from(["10.0.0.1", "10.1.0.1", "::1", "2001:db8::1"]).map(ip)
)  # fmt: skip
_tree = (
    (_host | _below | st.just("")).map(DNS) | (_mailbox | _host | _below).map(MAIL) | (_host | _below).map(URI)
    | st.sampled_from(["10.0.0.0/8", "10.0.0.0/16", "::/0", "2001:db8::/32", "0.0.0.0/0"]).map(ip) | _org.map(org)
)  # fmt: skip


def _certificate(
    subject: x509.Name, public: ec.EllipticCurvePublicKey, extensions: list[tuple[x509.ExtensionType, bool]]
) -> x509.Certificate:
    builder = x509.CertificateBuilder(
        named("CA"), subject, public, x509.random_serial_number(), _BORN - timedelta(1), _BORN + timedelta(9)
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    return builder.sign(_CA_KEY, hashes.SHA256())


@settings(max_examples=40)
@given(
    permitted=st.lists(_tree, max_size=3), excluded=st.lists(_tree, max_size=2),
    names=st.lists(_name, max_size=2, unique=True),
    subject=st.builds(
        named, st.sampled_from([None, "a.b", "p", "a.b.a", "a_b.a", "10.0.0.1", "Ann B."]), st.none() | _org,
        st.sampled_from([None, "u@a.b", "v@b"]),
    ),
)  # fmt: skip
def test_what_openssl_refuses_for_its_name_is_never_within(
    permitted: list[x509.GeneralName], excluded: list[x509.GeneralName], names: list[x509.GeneralName],
    subject: x509.Name,
) -> None:  # fmt: skip
    assume((permitted or excluded) and (names or subject.rdns))
    limits = x509.NameConstraints(permitted or None, excluded or None)
    own = x509.SubjectKeyIdentifier.from_public_key(_CA_KEY.public_key())
    ca = _certificate(
        named("CA"), _CA_KEY.public_key(), [(x509.BasicConstraints(True, None), True), (limits, True), (own, False)]
    )
    san = [(x509.SubjectAlternativeName(names), not subject.rdns)] if names else []
    leaf = _certificate(
        subject, _KEY.public_key(),
        [(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), False), *san],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name, cert in (("ca", ca), ("leaf", leaf)):
            (Path(folder) / name).write_bytes(cert.public_bytes(Encoding.PEM))
        asked = ["openssl", "verify", "-CAfile", "ca", "leaf"]
        done = subprocess.run(asked, cwd=folder, capture_output=True, check=False)
    if done.returncode:
        assert _constraints.first_violation(limits, _constraints.names_of(leaf)) is not None, done.stderr
