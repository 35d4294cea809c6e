"""Issuing: drafts, the lint rule by rule, the one-time token, and what openssl and pkilint say of the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from pkilint import finding_filter, loader, validation
from pkilint.cabf import serverauth
from pkilint.cabf.serverauth import serverauth_constants
from pkilint.pkix import certificate, extension
from pkilint.pkix import name as pkix_name

from certwright.kernel.problems import Invalid
from certwright.x509 import _der, certificates, issue, keys
from certwright.x509._signing import outer_algorithm, seal
from certwright.x509.issue import CLIENT, ISSUING, ROOT, SERVER, Draft, NameConstraints, Profile, Subject
from certwright.x509.keys import KeyAlgorithm
from tests.x509.factory import AIA_URL, CRL_URL, NOW, hierarchy, issued, key, openssl

H = hierarchy()
ISSUER = H.issuer
LEAF_KEY = key(which="leaf of issue")
EC_CAS = [KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384]
CAS = [*EC_CAS, KeyAlgorithm.RSA_2048, KeyAlgorithm.RSA_4096]


def draft(**changed: Any) -> Draft:
    """A good server draft but for what is changed."""
    profile = changed.get("profile", SERVER)
    issuer = changed.get("issuer", ISSUER)
    not_before, not_after = issue.validity(profile, issuer, at=NOW)
    facts: dict[str, Any] = {
        "profile": profile,
        "subject": Subject(),
        "names": ["www.certwright.dev"],
        "public_key": LEAF_KEY.public_key(),
        "issuer": issuer,
        "serial": issue.new_serial(),
        "not_before": not_before,
        "not_after": not_after,
        "crl_urls": (CRL_URL,),
        "aia_url": AIA_URL,
    }
    return issue.draft_certificate(**(facts | changed))


def codes(made: Draft) -> set[str]:
    return {finding.code for finding in issue.lint(made, at=NOW)}


def chained(tmp_path: Path, *ders: bytes) -> list[str]:
    paths = []
    for number, der in enumerate(ders):
        path = tmp_path / f"{number}.pem"
        path.write_text(certificates.to_pem(der))
        paths.append(str(path))
    return paths


# --- good ones ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", CAS)
def test_openssl_verifies_a_chain_of_every_ca_algorithm_strictly(algorithm: KeyAlgorithm, tmp_path: Path) -> None:
    h = hierarchy(algorithm)
    root, issuing, leaf = chained(tmp_path, h.root, h.issuing, h.leaf)
    said = openssl(
        "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "www.certwright.dev",
        "-attime", str(int(NOW.timestamp())), "-CAfile", root, "-untrusted", issuing, leaf,
    )  # fmt: skip
    assert said.strip().endswith(b"OK")
    certificates.verify_chain(h.leaf, [h.issuing], [h.root], at=NOW, name="www.certwright.dev")


@pytest.mark.parametrize("algorithm", [*KeyAlgorithm])
def test_a_leaf_may_have_a_key_of_every_algorithm(algorithm: KeyAlgorithm) -> None:
    own = key(algorithm)
    der = issued(SERVER, Subject(), ["a.certwright.dev"], own, H.issuing_key, ISSUER)
    usage = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert usage.key_encipherment == algorithm.name.startswith("RSA")
    assert certificates.key_matches(own, certificates.facts_of(der))


def test_a_client_certificate_names_a_person_and_verifies_for_clients(tmp_path: Path) -> None:
    der = issued(
        CLIENT, Subject("Ada", organization="Tests"), ["ada@certwright.dev", "spiffe://certwright.dev/ada"], LEAF_KEY,
        H.issuing_key, ISSUER,
    )  # fmt: skip
    root, issuing, leaf = chained(tmp_path, H.root, H.issuing, der)
    at = str(int(NOW.timestamp()))
    openssl(
        "verify", "-x509_strict", "-purpose", "sslclient", "-attime", at, "-CAfile", root, "-untrusted", issuing, leaf
    )
    assert certificates.facts_of(der).eku == (certificates.CLIENT_AUTH,)


def test_an_imported_ca_may_use_string_types_of_its_own(tmp_path: Path) -> None:
    # A PrintableString subject must come back octet for octet as the issuer of what is signed; we write UTF8String.
    (tmp_path / "c.cnf").write_text(
        "[req]\ndistinguished_name=d\nstring_mask=default\nprompt=no\nx509_extensions=e\n[d]\nO=Old\nCN=Old CA\n"
        "[e]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n"
    )
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "k.pem", "-out",
        "c.pem", "-config", "c.cnf", "-days", "3650", cwd=tmp_path,
    )  # fmt: skip
    ca_key = keys.read_private_key((tmp_path / "k.pem").read_bytes())
    ca = certificates.read_certificate((tmp_path / "c.pem").read_bytes())
    assert b"\x13\x06Old CA" in ca.der  # 0x13 is PrintableString
    at = ca.not_before + timedelta(days=1)
    leaf = issued(SERVER, Subject(), ["a.certwright.dev"], LEAF_KEY, ca_key, issue.issuer_facts(ca.der), at=at)
    certificates.verify_chain(leaf, [], [ca.der], at=at, name="a.certwright.dev")


def test_validity_is_an_hour_back_and_as_long_as_asked_with_both_ends() -> None:
    start, end = issue.validity(SERVER, None, at=NOW, seconds=90 * issue.DAY)
    assert start == NOW - timedelta(hours=1)
    assert end - start == timedelta(days=90, seconds=-1)


def test_validity_is_cut_by_the_profile_and_by_the_issuer_at_both_ends() -> None:
    start, end = issue.validity(SERVER, None, at=NOW, seconds=10**9)
    assert end - start == timedelta(days=199, seconds=-1)
    start, _ = issue.validity(SERVER, ISSUER, at=ISSUER.not_before)
    assert start == ISSUER.not_before
    _, end = issue.validity(SERVER, ISSUER, at=ISSUER.not_after - timedelta(days=1))
    assert end == ISSUER.not_after


def test_serials_are_positive_twenty_octets_and_never_alike() -> None:
    serials = {issue.new_serial() for _ in range(1000)}
    assert len(serials) == 1000
    assert {s.bit_length() for s in serials} == {153}


# --- written as the library writes it ----------------------------------------------------------------------------

_LABELS = st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True)
_NAMES = st.lists(
    st.one_of(
        st.builds("{}.{}.dev".format, _LABELS, _LABELS), st.ip_addresses().map(str), _LABELS.map("{}@a.dev".format),
        _LABELS.map("spiffe://a.dev/{}".format),
    ),
    max_size=5,
)  # fmt: skip
_PROFILES = st.sampled_from([
    SERVER, CLIENT, issue.SERVER_EV, issue.OCSP_SIGNER, ISSUING,
    replace(
        CLIENT, name="own", key_usage=frozenset({"key_agreement", "decipher_only"}), eku=(), crl_url=False,
        policy_oids=("2.999.4294967296.1", "1.2.840.113549.1.9"),
        extensions=(issue.CustomExtension("1.3.6.1.4.1.311.20.2.3", b"\x0c\x01a", True),),
    ),
])  # fmt: skip
# A common name has 64 octets at most, in UTF-8 four for a character.
_SEEN = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=16)
_KEYS = [key(), key(KeyAlgorithm.EC_P384), key(KeyAlgorithm.RSA_2048), ed25519.Ed25519PrivateKey.generate()]
_TIMES = st.datetimes(datetime(1950, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # naive, as asked


@given(
    profile=_PROFILES, names=_NAMES, own=st.sampled_from(_KEYS), serial=st.integers(1, 2**159 - 1),
    subject=st.builds(
        Subject, common_name=st.none() | _SEEN.filter(str.strip), country=st.sampled_from([None, "DE"]),
        organization=st.none() | _LABELS,
    ),
    times=st.tuples(_TIMES, _TIMES).map(sorted), crl_urls=st.lists(st.just(CRL_URL), max_size=2),
    urls=st.tuples(st.none() | st.just(AIA_URL), st.none() | st.just("http://o.dev/o")), root=st.booleans(),
    limits=st.none() | st.just(NameConstraints(permitted_dns=("a.dev",), excluded_ips=("10.0.0.0/8",))),
)  # fmt: skip
def test_a_draft_is_octet_for_octet_what_the_library_writes(
    profile: Profile, names: list[str], own: Any, serial: int, subject: Subject, times: list[datetime],
    crl_urls: list[str], urls: tuple[str | None, str | None], root: bool, limits: NameConstraints | None,
) -> None:  # fmt: skip
    if root:
        own = LEAF_KEY
    issuer = None if root else ISSUER
    made = draft(
        profile=profile, names=names, public_key=own.public_key(), serial=serial, subject=subject, issuer=issuer,
        not_before=times[0], not_after=times[1], crl_urls=crl_urls, aia_url=urls[0], ocsp_url=urls[1],
        name_constraints=limits,
    )  # fmt: skip
    read = x509.load_der_x509_certificate(seal(made.tbs, made.signature_algorithm, b""))
    builder = x509.CertificateBuilder(
        issuer.subject if issuer is not None else subject.as_name(), subject.as_name(), own.public_key(), serial,
        extensions=list(read.extensions),
    )  # fmt: skip
    builder = builder.not_valid_before(times[0]).not_valid_after(times[1])
    signed = builder.sign(LEAF_KEY if root else H.issuing_key, hashes.SHA256())  # type: ignore[arg-type]
    assert made.tbs == signed.tbs_certificate_bytes
    assert made.signature_algorithm == outer_algorithm(signed.public_bytes(serialization.Encoding.DER))


@pytest.mark.parametrize("algorithm", CAS)
def test_a_draft_names_the_algorithm_its_issuer_signs_with(algorithm: KeyAlgorithm) -> None:
    h = hierarchy(algorithm)
    made = x509.load_der_x509_certificate(h.leaf)
    said = certificates.tbs_fields(made.tbs_certificate_bytes)[1]
    assert said == outer_algorithm(h.leaf)
    signature, tbs = made.signature, made.tbs_certificate_bytes
    public = h.issuing_key.public_key()
    assert made.signature_hash_algorithm is not None
    if isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, tbs, ec.ECDSA(made.signature_hash_algorithm))
    else:
        assert isinstance(public, rsa.RSAPublicKey)
        public.verify(signature, tbs, padding.PKCS1v15(), made.signature_hash_algorithm)


# --- the lint, rule by rule --------------------------------------------------------------------------------------


def test_a_good_draft_has_no_findings() -> None:
    assert issue.lint(draft(), at=NOW) == ()


def ca_facts(**changed: Any) -> issue.IssuerFacts:
    return replace(ISSUER, **changed)


def odd(**flags: Any) -> Profile:
    return replace(SERVER, **flags)


def constrained(**limits: Any) -> issue.IssuerFacts:
    return ca_facts(constraints=NameConstraints(**limits).as_extension())


def below(*above: issue.Limits) -> issue.IssuerFacts:
    """A CA that nothing limits but those above it, its parent first."""
    return ca_facts(path_len=None, ekus=None, above=above)


ROOT_FACTS = issue.issuer_facts(H.root)
DAY = timedelta(days=1)
BAD: dict[str, tuple[str, Callable[[], Draft]]] = {
    "64-bit serial": ("serial_too_short", lambda: draft(serial=2**64)),
    "a serial of exactly 128 bits": ("serial_too_short", lambda: draft(serial=2**128 - 1)),
    "a serial of 21 octets": ("serial_too_long", lambda: draft(serial=2**160)),
    "a second too long": (
        "too_long_lived",
        lambda: draft(not_before=NOW, not_after=NOW + timedelta(days=199)),
    ),
    "longer than the issuer": (
        "outlives_issuer",
        lambda: draft(issuer=ca_facts(not_after=NOW + DAY), not_after=NOW + 2 * DAY),
    ),
    "older than the issuer": (
        "older_than_issuer",
        lambda: draft(issuer=ca_facts(not_before=NOW), not_before=NOW - timedelta(seconds=1)),
    ),
    "back-dated": ("backdated", lambda: draft(not_before=NOW - timedelta(hours=2), not_after=NOW + DAY)),
    "already over": (
        "already_expired",
        lambda: draft(not_before=NOW - timedelta(minutes=9), not_after=NOW - timedelta(minutes=1)),
    ),
    "issuer's subject differs in one octet": (
        "issuer_name_mismatch",
        lambda: replace(draft(), issuer=ca_facts(subject_der=ISSUER.subject_der.replace(b"Tests", b"tests"))),
    ),
    "issuer may not sign": ("issuer_may_not_sign", lambda: draft(issuer=ca_facts(may_sign_certificates=False))),
    "the issuer's own key": ("key_is_issuers", lambda: draft(public_key=H.issuing_key.public_key())),
    "a leaf signed by itself": ("self_signed_leaf", lambda: draft(issuer=None)),
    "a leaf under no issuer": ("issuer_name_mismatch", lambda: replace(draft(), issuer=None)),
    "a CA below path length 0": (
        "path_too_long",
        lambda: draft(profile=ISSUING, subject=Subject("X"), names=[]),
    ),
    "a CA with as much path as its issuer": (
        "path_too_long",
        lambda: draft(profile=replace(ISSUING, path_len=1), issuer=ROOT_FACTS, subject=Subject("X"), names=[]),
    ),
    "secp256k1": (
        "unsupported_curve",
        lambda: draft(public_key=ec.generate_private_key(ec.SECP256K1()).public_key()),
    ),
    "nobody named": ("no_san", lambda: draft(names=[])),
    "only a CN": ("no_san", lambda: draft(names=[], subject=Subject("a.dev"))),
    "a CN that is no SAN": ("cn_not_in_san", lambda: draft(subject=Subject("b.dev"))),
    "a name twice": ("duplicate_name", lambda: draft(names=["a.dev", "a.dev"])),
    "an e-mail address in a server's": ("san_kind", lambda: draft(names=["a.dev", "me@a.dev"])),
    "a URI in a server's": ("san_kind", lambda: draft(names=["a.dev", "https://a.dev/"])),
    "capitals": ("name_not_canonical", lambda: draft(names=["A.dev"])),
    "a trailing dot": ("name_not_canonical", lambda: draft(names=["a.dev."])),
    "underscore": ("label_bad_character", lambda: draft(names=["a_b.dev"])),
    "star inside": ("bad_wildcard", lambda: draft(names=["a.*.dev"])),
    "names in a CA certificate": (
        "san_not_allowed",
        lambda: draft(profile=ISSUING, issuer=ROOT_FACTS, subject=Subject("X"), names=["a.dev"]),
    ),
    "CA where a leaf was asked": (
        "basic_constraints",
        lambda: replace(draft(profile=odd(is_ca=True, path_len=0)), profile=SERVER),
    ),
    "other path length": (
        "basic_constraints",
        lambda: replace(
            draft(profile=ISSUING, issuer=ROOT_FACTS, subject=Subject("X"), names=[]),
            profile=replace(ISSUING, path_len=None),
        ),
    ),
    "key usage of another profile": (
        "key_usage",
        lambda: replace(draft(profile=odd(key_usage=frozenset({"key_agreement"}))), profile=SERVER),
    ),
    "key usage missing a word": ("key_usage", lambda: replace(draft(), profile=odd(key_usage=frozenset({"crl_sign"})))),
    "client where server was asked": ("extended_key_usage", lambda: replace(draft(profile=CLIENT), profile=SERVER)),
    "policy where none was asked": (
        "policies",
        lambda: replace(draft(profile=odd(policy_oids=("2.23.140.1.2.1",))), profile=SERVER),
    ),
    "another CA's key identifier": ("aki_mismatch", lambda: replace(draft(), issuer=ca_facts(ski=bytes(20)))),
    "a CA without key identifier": (
        "ski_missing",
        lambda: replace(draft(), profile=odd(is_ca=True)),
    ),
    "outside the issuer's names": ("name_constraint", lambda: draft(issuer=constrained(permitted_dns=("b.dev",)))),
    "inside an excluded subtree": ("name_constraint", lambda: draft(issuer=constrained(excluded_dns=("dev",)))),
    "an address where only names are permitted": (
        "name_constraint",
        lambda: draft(issuer=constrained(permitted_dns=("certwright.dev",)), names=["192.0.2.7"]),
    ),
    "an address outside the network": (
        "name_constraint",
        lambda: draft(issuer=constrained(permitted_ips=("10.0.0.0/8",)), names=["192.0.2.7"]),
    ),
    "a wildcard that covers an excluded host": (
        "name_constraint",
        lambda: draft(issuer=constrained(excluded_dns=("www.certwright.dev",)), names=["*.certwright.dev"]),
    ),
    "a common name that old clients take for a host": (
        "name_constraint",
        lambda: draft(
            profile=CLIENT, issuer=constrained(permitted_dns=("b.dev",)), names=["ann@a.dev"], subject=Subject("a.dev")
        ),
    ),
    "outside the names of a CA above the issuer": (
        "name_constraint",
        lambda: draft(issuer=below(issue.Limits(None, None, None), constrained(permitted_dns=("b.dev",)).limits)),
    ),
    "a purpose that a CA above the issuer hasn't": (
        "purpose_not_issuers",
        lambda: draft(issuer=below(issue.Limits(None, None, (issue.CLIENT_AUTH,)))),
    ),
    "a purpose that nobody but a CA above limits": (
        "purpose_unlimited",
        lambda: draft(profile=odd(eku=()), issuer=below(issue.Limits(None, None, (issue.CLIENT_AUTH,)))),
    ),
    "a CA where one above the issuer admits no further": (
        "path_too_long",
        lambda: draft(profile=ISSUING, issuer=below(issue.Limits(1, None, None)), subject=Subject("X"), names=[]),
    ),
    "a leaf below more CAs than one above admits": (
        "path_too_long",
        lambda: draft(issuer=below(issue.Limits(None, None, None), issue.Limits(0, None, None))),
    ),
    "a mailbox in quotes": ("name_not_mailbox", lambda: draft(profile=CLIENT, names=['"a b"@a.dev'])),
    "a mailbox whose host ends in a dot": ("name_not_mailbox", lambda: draft(profile=CLIENT, names=["a@a.dev."])),
    "a URI without a host": ("name_not_uri", lambda: draft(profile=CLIENT, names=["file:///a"])),
    "a URI with a user": ("name_not_uri", lambda: draft(profile=CLIENT, names=["https://a:b@a.dev/"])),
    "an extension that its own reader can't write": (
        "unreadable",
        lambda: draft(profile=odd(extensions=(issue.CustomExtension("1.3.6.1.5.5.7.1.24", b"\x30\x00"),))),
    ),
    "ldap CRL address": ("bad_url", lambda: draft(crl_urls=("ldap://ca.dev/crl",))),
    "address without host": ("bad_url", lambda: draft(aia_url="http:///ca.crt")),
    "no revocation told, critically": (
        "no_rev_avail",
        lambda: draft(profile=odd(extensions=(replace(issue.NO_REV_AVAIL, critical=True),))),
    ),
    "no revocation told, with something in it": (
        "no_rev_avail",
        lambda: draft(profile=odd(extensions=(replace(issue.NO_REV_AVAIL, value=b"\x0c\x00"),))),
    ),
    "no revocation told of a CA": (
        "no_rev_avail",
        lambda: draft(
            profile=replace(ISSUING, extensions=(issue.NO_REV_AVAIL,)),
            issuer=issue.issuer_facts(H.root),
            subject=Subject("X"),
            names=[],
        ),
    ),
    "no revocation told, and where it is told": (
        "no_rev_avail",
        lambda: by_hand((x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.56"), b"\x05\x00"), False)),
    ),
    "octets that are no certificate": ("unreadable", lambda: replace(draft(), tbs=b"\x30\x00")),
    "a negative serial": ("unreadable", lambda: _negative(draft())),
}


def _negative(good: Draft) -> Draft:
    at = good.tbs.index(b"\x02\x14") + 2
    return replace(good, tbs=good.tbs[:at] + bytes((good.tbs[at] | 0x80,)) + good.tbs[at + 1 :])


@pytest.mark.parametrize(("code", "make"), BAD.values(), ids=BAD.keys())
def test_the_lint_finds_each_broken_rule_and_no_token_is_minted(code: str, make: Callable[[], Draft]) -> None:
    bad = make()
    assert code in codes(bad)
    with pytest.raises(Invalid) as refusal:
        issue.approve(bad, at=NOW)
    assert refusal.value.code == "lint_failed"
    assert code in {f["code"] for f in refusal.value.extra["findings"]}


def by_hand(*extra: tuple[x509.ExtensionType, bool], san_critical: bool = True, wrong_eku: bool = False) -> Draft:
    """A draft with extensions our own drafter never makes."""
    good = x509.load_der_x509_certificate(H.leaf)
    builder = (
        x509.CertificateBuilder()
        .subject_name(good.subject)
        .issuer_name(good.issuer)
        .public_key(LEAF_KEY.public_key())
        .serial_number(issue.new_serial())
        .not_valid_before(good.not_valid_before_utc)
        .not_valid_after(good.not_valid_after_utc)
    )
    for ext in good.extensions:
        critical = ext.critical
        if isinstance(ext.value, x509.SubjectAlternativeName):
            critical = san_critical
        elif isinstance(ext.value, x509.ExtendedKeyUsage):
            critical = wrong_eku
        builder = builder.add_extension(ext.value, critical)
    for value, critical in extra:
        builder = builder.add_extension(value, critical)
    signed = builder.sign(LEAF_KEY, hashes.SHA256())  # type: ignore[arg-type]
    der = signed.public_bytes(serialization.Encoding.DER)
    return Draft(signed.tbs_certificate_bytes, outer_algorithm(der), SERVER, ISSUER, ISSUER.public_key, "sha256")


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (by_hand(), None),
        (by_hand(san_critical=False), "san_criticality"),
        (by_hand(wrong_eku=True), "extension_criticality"),
        (by_hand((x509.OCSPNoCheck(), False)), "unknown_extension"),
        (by_hand((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"), True)), "unknown_extension"),
    ],
    ids=["as ours", "san not critical", "eku critical", "a stray extension", "a critical unknown one"],
)
def test_extensions_are_exactly_those_of_the_profile(made: Draft, code: str | None) -> None:
    assert codes(made) == ({code} if code else set())


def test_the_lint_reads_the_subject_in_the_octets_themselves() -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.dev\0.b.dev")])
    made = draft(profile=CLIENT, subject=Subject("a.dev"))
    parts = list(_der.elements(made.tbs))
    parts[5] = name.public_bytes()
    assert codes(replace(made, tbs=_der.sequence(*parts))) == {"subject_value"}


@pytest.mark.parametrize(
    "value",
    [
        "\u682a\u5f0f\u4f1a\u793e\u3000\u898b\u672c",  # with a wide space
        "M\u00fcller & S\u00f6hne",
        "\u0646\u0645\u0648\u0646\u0647\u200c\u0647\u0627",  # with a joiner
    ],
)
def test_names_of_every_script_can_be_told(value: str) -> None:
    assert codes(draft(profile=CLIENT, subject=Subject(organization=value))) == set()


def test_a_short_lived_certificate_points_at_no_list_and_no_responder() -> None:
    made = draft(profile=issue.SERVER_SHORT, ocsp_url="http://ca.example/ocsp")
    assert issue.lint(made, at=NOW) == ()
    der = issue.assemble(issue.approve(made, at=NOW), issue.sign_with_key(H.issuing_key, made.tbs, made.hash_name))
    facts = certificates.facts_of(der)
    assert (facts.crl_urls, facts.aia_urls) == ((), (AIA_URL,))
    found = x509.load_der_x509_certificate(der)
    # RFC 9608 section 2; and BR 1.6.1 counts both ends.
    assert (
        found.extensions.get_extension_for_oid(x509.ObjectIdentifier("2.5.29.56")).value.public_bytes() == b"\x05\x00"
    )
    assert found.not_valid_after_utc - found.not_valid_before_utc == timedelta(days=7, seconds=-1)


def test_a_missing_crl_address_is_only_a_warning() -> None:
    made = draft(crl_urls=())
    (finding,) = issue.lint(made, at=NOW)
    assert (finding.code, finding.severity) == ("no_crl_url", "warning")
    assert issue.approve(made, at=NOW).tbs == made.tbs


def test_an_empty_name_constraint_is_refused_and_a_network_with_host_bits_too() -> None:
    for limits in (NameConstraints(), NameConstraints(permitted_ips=("10.0.0.1/8",))):
        with pytest.raises(Invalid) as refusal:
            draft(profile=ISSUING, issuer=ROOT_FACTS, subject=Subject("X"), names=[], name_constraints=limits)
        assert refusal.value.code == "name_constraint_invalid"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"subject": Subject(country="Germany")}, "subject_invalid"),
        ({"subject": Subject("x" * 65)}, "subject_invalid"),
        ({"subject": Subject(organization="x" * 65)}, "subject_invalid"),
        ({"subject": Subject(locality="x" * 129)}, "subject_invalid"),
        ({"subject": Subject("a.dev\0.b.dev")}, "subject_invalid"),
        ({"subject": Subject(organization="Acme\nInc")}, "subject_invalid"),
        ({"subject": Subject("\u202eved.a")}, "subject_invalid"),
        ({"subject": Subject(" ")}, "subject_invalid"),
        ({"serial": -1}, "draft_invalid"),
        ({"names": ["münchen.dev"]}, "draft_invalid"),
        ({"not_before": NOW, "not_after": NOW - DAY}, "draft_invalid"),
    ],
    ids=[
        "country in words",
        "CN of 65",
        "organization of 65",
        "locality of 129",
        "a NUL",
        "a line's end",
        "a turned direction",
        "spaces",
        "negative serial",
        "U-label",
        "ends before it begins",
    ],
)
def test_what_no_certificate_can_hold_is_refused_while_drafting(changed: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid) as refusal:
        draft(**changed)
    assert refusal.value.code == code


def test_a_name_constrained_ca_issues_only_within_its_names(tmp_path: Path) -> None:
    ca_key = key(which="constrained")
    limits = NameConstraints(permitted_dns=("in.certwright.dev",))
    ca = issued(ISSUING, Subject("Constrained"), [], ca_key, H.root_key, ROOT_FACTS, name_constraints=limits)
    facts = issue.issuer_facts(ca)
    leaf = issued(SERVER, Subject(), ["a.in.certwright.dev"], LEAF_KEY, ca_key, facts)
    certificates.verify_chain(leaf, [ca], [H.root], at=NOW, name="a.in.certwright.dev")
    root, issuing, ours = chained(tmp_path, H.root, ca, leaf)
    at = str(int(NOW.timestamp()))
    openssl("verify", "-x509_strict", "-attime", at, "-CAfile", root, "-untrusted", issuing, ours)
    assert codes(draft(issuer=facts)) == {"name_constraint"}


def test_openssl_refuses_what_is_outside_constraints_on_mail_and_uris(tmp_path: Path) -> None:
    ca_key = key(which="constrained")
    limits = NameConstraints(
        permitted_emails=("ann@one.dev", "@two.dev", ".three.dev"), permitted_uris=(".svc.dev",),
        excluded_emails=("old.three.dev",), excluded_uris=("secret.svc.dev",),
    )  # fmt: skip
    ca = issued(ISSUING, Subject("Constrained"), [], ca_key, H.root_key, ROOT_FACTS, name_constraints=limits)
    facts = issue.issuer_facts(ca)
    allowed = ("ann@one.dev", "bob@two.dev", "bob@a.three.dev", "spiffe://a.svc.dev/x")
    outside = ("bob@one.dev", "bob@x.two.dev", "bob@three.dev", "bob@old.three.dev", "spiffe://svc.dev/x",
               "https://secret.svc.dev/")  # fmt: skip
    at = str(int(NOW.timestamp()))
    for name in (*allowed, *outside):
        ours = draft(profile=CLIENT, issuer=facts, subject=Subject("Ann"), names=[name])
        assert codes(ours) == (set() if name in allowed else {"name_constraint"}), name
        # As a thief of its key would sign.
        strange = issued(CLIENT, Subject("Ann"), [name], LEAF_KEY, ca_key, replace(facts, constraints=None))
        paths = chained(tmp_path, H.root, ca, strange)
        verify = ("verify", "-x509_strict", "-attime", at, "-CAfile", paths[0], "-untrusted", *paths[1:])
        if name in allowed:
            openssl(*verify)
        else:
            with pytest.raises(AssertionError, match="subtree violation"):
                openssl(*verify)


# --- the token ---------------------------------------------------------------------------------------------------


def test_what_was_linted_is_what_is_signed() -> None:
    made = draft()
    linted = issue.approve(made, at=NOW)
    der = issue.assemble(linted, issue.sign_with_key(H.issuing_key, linted.tbs))
    assert x509.load_der_x509_certificate(der).tbs_certificate_bytes == linted.tbs == made.tbs


def test_a_token_is_good_for_one_certificate() -> None:
    linted = issue.approve(draft(), at=NOW)
    signature = issue.sign_with_key(H.issuing_key, linted.tbs)
    issue.assemble(linted, signature)
    assert linted.spent
    with pytest.raises(RuntimeError, match="already used"):
        issue.assemble(linted, signature)


def test_nobody_else_mints_tokens() -> None:
    with pytest.raises(TypeError):
        issue.Linted(object(), draft())
    with pytest.raises(AttributeError):
        issue.approve(draft(), at=NOW).tbs = b""  # type: ignore[misc]


@pytest.mark.parametrize(
    "signature",
    [
        lambda tbs: issue.sign_with_key(H.root_key, tbs),
        lambda tbs: issue.sign_with_key(H.issuing_key, tbs + b"\x00"),
        lambda tbs: b"",
        lambda tbs: b"\x30\x06\x02\x01\x01\x02\x01\x01",
    ],
    ids=["another key", "other octets", "empty", "a forged pair"],
)
def test_a_signature_that_does_not_fit_makes_no_certificate(signature: Callable[[bytes], bytes]) -> None:
    linted = issue.approve(draft(), at=NOW)
    with pytest.raises(Invalid) as refusal:
        issue.assemble(linted, signature(linted.tbs))
    assert refusal.value.code == "signature_mismatch"
    assert linted.spent


@pytest.mark.parametrize(
    ("algorithm", "hash_name"),
    [(KeyAlgorithm.EC_P256, "sha256"), (KeyAlgorithm.EC_P384, "sha384"), (KeyAlgorithm.RSA_2048, "sha256")],
)
def test_the_hash_goes_with_the_issuers_key(algorithm: KeyAlgorithm, hash_name: str) -> None:
    assert issue.approve(draft(issuer=hierarchy(algorithm).issuer), at=NOW).hash_name == hash_name


def test_only_a_ca_certificate_makes_an_issuer() -> None:
    with pytest.raises(Invalid) as refusal:
        issue.issuer_facts(H.leaf)
    assert refusal.value.code == "not_a_ca"


def test_an_ed25519_key_cannot_sign_for_a_ca_here() -> None:
    with pytest.raises(Invalid) as refusal:
        issue.sign_with_key(ed25519.Ed25519PrivateKey.generate(), b"x")
    assert refusal.value.code == "unsupported_key"


# --- a second opinion --------------------------------------------------------------------------------------------

# What pkilint 0.13 says of private certificates, and why each saying is accepted here.
ALLOWED = {
    # BR 7.1.2.7.6 calls a subject key identifier in leaves NOT RECOMMENDED; RFC 5280 4.2.1.2 says SHOULD.
    "pkix.certificate_skid_end_entity_missing",
    # RFC 5280 knows no wildcards in names; RFC 6125 6.4.3 and every client do.
    "pkix.invalid_domain_name_syntax",
    # A notice that the identifier is the SHA-256 form of RFC 7093, which we chose over RFC 5280's SHA-1 example.
    "pkix.subject_key_identifier_rfc7093_method_1_identified",
}
# Judged as a public server certificate there is one thing a private one lacks: it claims no CA/Browser Forum policy.
ONLY_PUBLIC = {"cabf.serverauth.subscriber.certificate_policies_extension_absent"}


def pkix_findings(der: bytes) -> set[str]:
    judge = certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(pkix_name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )
    return found(judge.validate(loader.load_der_certificate(der, "draft").root))


def found(results: Any) -> set[str]:
    return {description.finding.code for result in results for description in result.finding_descriptions}


def client() -> bytes:
    return issued(CLIENT, Subject("Ada"), ["ada@certwright.dev"], LEAF_KEY, H.issuing_key, ISSUER)


@pytest.mark.parametrize("der", [H.root, H.issuing, H.leaf, client()], ids=["root", "issuing", "server", "client"])
def test_pkilint_finds_nothing_but_what_we_chose_in_any_built_in_profile(der: bytes) -> None:
    assert pkix_findings(der) <= ALLOWED


def test_pkilint_would_pass_our_server_profile_as_a_public_one_but_for_its_policy() -> None:
    own = issued(SERVER, Subject(), ["www.certwright.dev"], LEAF_KEY, H.issuing_key, ISSUER)
    kind = serverauth_constants.CertificateType.DV_FINAL_CERTIFICATE
    judge = certificate.create_pkix_certificate_validator_container(
        serverauth.create_decoding_validators(), serverauth.create_validators(kind)
    )
    results = judge.validate(loader.load_der_certificate(own, "draft").root)
    results, _ = finding_filter.filter_results(serverauth.create_serverauth_finding_filters(kind), results)
    serious = {
        d.finding.code
        for r in results
        for d in r.finding_descriptions
        if d.finding.severity <= validation.ValidationFindingSeverity.WARNING
    }
    assert serious == ONLY_PUBLIC


def test_the_built_in_profiles_can_be_chosen_by_name() -> None:
    assert set(issue.BUILT_IN) == {
        "root", "issuing", "server", "server_short", "server_ov", "server_ev", "client", "ocsp_signer",
    }  # fmt: skip
    assert issue.BUILT_IN["server"].eku == (ExtendedKeyUsageOID.SERVER_AUTH.dotted_string,)
    assert issue.BUILT_IN["root"] is ROOT
