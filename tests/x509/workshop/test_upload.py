"""Judging beyond the vectors: what the account knows, client CAs, completion, and whatever else may come."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from certwright.entry.public_policy import public_policy
from certwright.rooms.validation import rulepack
from certwright.x509 import keys
from certwright.x509.certificates import to_pem
from certwright.x509.keys import KeyAlgorithm
from certwright.x509.workshop import lint, upload
from certwright.x509.workshop.chains import Pool
from certwright.x509.workshop.policy import Blocklist
from certwright.x509.workshop.upload import Known, Options, Purpose, Report
from certwright.x509.workshop.words import CODES, Place, Severity
from tests.vectors import weak
from tests.x509.factory import NOW, ca, hierarchy, key, raw, san
from tests.x509.workshop import hostile

H = hierarchy()
PRIVATE = Options(at=NOW)
PUBLIC = Options(at=NOW, policy=public_policy())
CHAIN = to_pem(H.leaf) + to_pem(H.issuing)
KEY = keys.to_pkcs8_pem(H.leaf_key)


def codes(report: Report, severity: Severity | None = None) -> set[str]:
    return {f.code for f in report.findings if severity in (None, f.severity)}


def repairs(report: Report) -> set[str]:
    return {repair.code for repair in report.repaired}


def test_a_good_upload_gives_everything_that_is_stored() -> None:
    report = upload.check(CHAIN, options=replace(PRIVATE, key_required=True), key=KEY)
    assert report.ok
    assert report.findings == ()
    assert report.leaf is not None
    assert (report.leaf.der, [c.der for c in report.chain]) == (H.leaf, [H.issuing])
    assert report.certificate_pem + report.chain_pem == CHAIN
    assert report.key is not None
    assert keys.spki_sha256(report.key) == report.leaf.spki_sha256


def test_the_chain_may_come_in_a_field_of_its_own_in_any_order() -> None:
    report = upload.check(to_pem(H.leaf), options=PRIVATE, chain=to_pem(H.root) + to_pem(H.issuing))
    assert [c.der for c in report.chain] == [H.issuing]
    assert repairs(report) == {"root_included"}


def test_a_server_upload_needs_its_key_where_that_is_asked() -> None:
    assert codes(upload.check(CHAIN, options=replace(PRIVATE, key_required=True))) == {"key_missing"}
    assert upload.check(CHAIN, options=PRIVATE).ok


def test_swapped_fields_are_told_as_such() -> None:
    report = upload.check(KEY, options=PRIVATE, key=CHAIN)
    assert [f.code for f in report.findings] == ["wrong_block", "wrong_block"]
    assert all("swapped" in f.fix for f in report.findings)


def test_of_several_keys_the_one_that_fits_is_taken() -> None:
    both = keys.to_pkcs8_pem(key(which="other")) + KEY
    report = upload.check(CHAIN, options=PRIVATE, key=both)
    assert report.ok
    assert report.key is not None
    report = upload.check(
        CHAIN, options=PRIVATE, key=keys.to_pkcs8_pem(key(which="a")) + keys.to_pkcs8_pem(key(which="b"))
    )
    assert codes(report) == {"key_format"}


def test_the_certificate_of_the_key_is_the_leaf_wherever_it_stands() -> None:
    other = raw("other", key(which="other"), "Test issuing CA", H.issuing_key, san("other.example.com"))
    report = upload.check(to_pem(other) + CHAIN, options=PRIVATE, key=KEY)
    assert report.leaf is not None
    assert report.leaf.der == H.leaf
    assert codes(report) == {"chain_stranger"}


# --- completion --------------------------------------------------------------------------------------------------


def test_a_missing_intermediate_is_taken_from_the_pool_and_told() -> None:
    known = Known(Pool([H.issuing, H.root]))
    report = upload.check(to_pem(H.leaf), options=PRIVATE, known=known)
    assert report.ok
    assert repairs(report) == {"chain_missing"}
    assert [c.der for c in report.added] == [H.issuing]
    strict = upload.check(to_pem(H.leaf), options=replace(PRIVATE, strict=True), known=known)
    assert codes(strict, Severity.ERROR) == {"chain_missing"}
    assert repairs(strict) == set()
    assert [c.der for c in strict.chain] == [H.issuing]  # offered all the same


def test_without_it_the_report_says_where_it_can_be_fetched() -> None:
    report = upload.check(to_pem(H.leaf), options=PRIVATE)
    assert codes(report) == {"chain_missing"}
    assert report.issuer_urls == ("http://ca.certwright.dev/ca/1.crt",)
    assert upload.check(CHAIN, options=PRIVATE).issuer_urls == ()


def test_a_leaf_right_below_its_root_needs_no_intermediate() -> None:
    own = key(which="direct")
    leaf = raw("direct", own, "Direct root", key(which="droot"), san("direct.example.com"))
    root = raw("Direct root", key(which="droot"), "Direct root", key(which="droot"), ca())
    report = upload.check(to_pem(leaf), options=replace(PRIVATE, strict=True), known=Known(Pool([root])))
    assert report.ok
    assert report.chain == ()


# --- the account -------------------------------------------------------------------------------------------------


def test_what_the_account_knows_becomes_findings() -> None:
    plain = upload.check(CHAIN, options=PRIVATE)
    assert plain.leaf is not None
    there = Known(certificates={plain.leaf.sha256: "shop (scs1)"}, keys={plain.leaf.spki_sha256: "shop (scs1)"})
    report = upload.check(CHAIN, options=PRIVATE, known=there)
    (finding,) = report.findings
    assert (finding.code, finding.severity, "shop (scs1)" in finding.message) == ("duplicate", Severity.ERROR, True)
    allowed = upload.check(CHAIN, options=replace(PRIVATE, duplicates_allowed=True), known=there)
    assert codes(allowed, Severity.WARNING) == {"duplicate"}
    reused = upload.check(CHAIN, options=PRIVATE, known=Known(keys={plain.leaf.spki_sha256: "blog"}))
    assert codes(reused, Severity.WARNING) == {"key_reused"}
    revoked = upload.check(CHAIN, options=PRIVATE, known=Known(revoked={plain.leaf.sha256: "yesterday (superseded)"}))
    assert codes(revoked, Severity.ERROR) == {"revoked"}


def test_rsa_1024_is_a_warning_that_stays_where_a_policy_admits_it() -> None:
    old = raw("old", weak.small_modulus(1024), "Test issuing CA", H.issuing_key, san("old.example.com"))  # type: ignore[arg-type]
    text = to_pem(old)
    assert codes(upload.check(text, options=PRIVATE), Severity.ERROR) == {"weak_key"}
    admitted = upload.check(text, options=replace(PRIVATE, legacy_rsa=True))
    assert admitted.ok
    assert codes(admitted, Severity.WARNING) == {"weak_key", "chain_missing"}
    tiny = raw("tiny", weak.small_modulus(512), "Test issuing CA", H.issuing_key, san("old.example.com"))  # type: ignore[arg-type]
    assert not upload.check(to_pem(tiny), options=replace(PRIVATE, legacy_rsa=True)).ok


@pytest.mark.parametrize("form", ["records", "lines"])
def test_both_forms_of_blocklists_tell_a_listed_key_and_no_other(form: str) -> None:
    import hashlib

    listed, free = key(KeyAlgorithm.RSA_2048, "listed"), key(KeyAlgorithm.RSA_2048, "free")
    assert isinstance(listed, rsa.RSAPrivateKey)
    n = listed.public_key().public_numbers().n
    if form == "records":
        records = [hashlib.sha256(bytes([i])).digest()[:16] for i in range(40)]
        records.append(hashlib.sha256(n.to_bytes(256, "big")).digest()[:15] + b"\7")
        data = b"".join(sorted(records))
    else:
        data = b"# a list\n" + hashlib.sha1(f"Modulus={n:X}\n".encode()).hexdigest()[20:].encode() + b"\n" + b"0" * 20
    blocklist = Blocklist(data)
    assert blocklist.holds(listed.public_key())
    assert not blocklist.holds(free.public_key())
    assert not blocklist.holds(H.leaf_key.public_key())


@pytest.mark.parametrize("data", [b"", b"some words\n", b"\x00" * 15])
def test_what_is_no_blocklist_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a"):
        Blocklist(data)


# --- client CAs --------------------------------------------------------------------------------------------------

CLIENT_CA = replace(PUBLIC, purpose=Purpose.CLIENT_CA)


def test_a_client_ca_is_judged_as_a_ca() -> None:
    report = upload.check(to_pem(H.issuing) + to_pem(H.root), options=CLIENT_CA)
    assert report.ok
    assert report.findings == ()
    assert report.leaf is not None
    assert report.leaf.der == H.issuing
    assert codes(upload.check(CHAIN, options=CLIENT_CA)) == {"not_a_ca"}
    assert codes(upload.check(to_pem(H.issuing).encode() + KEY, options=CLIENT_CA)) == {"wrong_block"}


# --- public rules ------------------------------------------------------------------------------------------------


def test_the_rules_are_those_of_the_rule_pack() -> None:
    policy, pack = public_policy(), rulepack.rule_pack()
    assert [days for _, days in policy.validity] == [step.max for step in pack.public_tls.validity_days]
    assert policy.server_auth_only == pack.public_tls.server_auth_only_eku


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize(
    ("early", "late"), [(0, 0), (1, 0), (0, 1)], ids=["on the day", "a second before", "a second more"]
)
def test_a_life_is_measured_by_the_rule_of_its_day_to_the_second(index: int, early: int, late: int) -> None:
    steps = public_policy().validity
    begins, days = steps[index]
    if early:
        if index == 0:
            return  # before the oldest rule nothing is said; see below
        days = steps[index - 1][1]
    issued = begins - timedelta(seconds=early)
    ends = issued + timedelta(days=days) - timedelta(seconds=1) + timedelta(seconds=late)
    der = raw(
        "a",
        key(which="life"),
        "Test issuing CA",
        H.issuing_key,
        san("a.example.com"),
        not_before=issued,
        not_after=ends,
    )
    report = upload.check(to_pem(der), options=replace(PUBLIC, at=issued))
    assert ("too_long_lived" in codes(report)) == bool(late)


def test_nothing_is_said_of_lives_before_the_oldest_rule() -> None:
    issued = public_policy().validity[0][0] - timedelta(seconds=1)
    der = raw(
        "a",
        key(which="life"),
        "x",
        H.issuing_key,
        san("a.example.com"),
        not_before=issued,
        not_after=issued + timedelta(days=825),
    )
    assert "too_long_lived" not in codes(upload.check(to_pem(der), options=replace(PUBLIC, at=issued)))


def test_pkilint_reports_what_is_missing_as_notes_without_what_was_relaxed() -> None:
    der = raw("www.example.com", key(which="lint"), "x", H.issuing_key, san("www.example.com"))
    found = lint.findings(der, Place("certificate"))
    assert {f.code for f in found} == {"lint"}
    assert {f.severity for f in found} == {Severity.NOTE}
    said = " ".join(f.message for f in found)
    assert "extended_key_usage_extension_absent" in said
    assert not any(rule in said for rule in lint.SUPERSEDED)


@pytest.mark.parametrize("der", [b"", b"0\x80", bytes(100), H.leaf[:-1], bytes(20_000)])
def test_pkilint_on_damage_is_one_note(der: bytes) -> None:
    assert [f.code for f in lint.findings(der, Place("certificate"))] == ["lint"]


# --- whatever comes ----------------------------------------------------------------------------------------------


def test_a_heap_of_look_alikes_is_given_up() -> None:
    leaf = raw("leaf", key(which="lookalike"), "Same", H.issuing_key, san("a.example.com"))
    report = upload.check(to_pem(leaf).encode() + hostile.made("a thousand namesakes"), options=PRIVATE)
    assert "chain_too_complex" in codes(report)


def test_more_than_a_mebibyte_is_not_looked_at() -> None:
    assert codes(upload.check(b"A" * (1024 * 1024 + 1), options=PRIVATE)) == {"too_large"}


GOOD = [H.leaf, H.issuing, H.root, keys.to_pkcs8_der(H.leaf_key)]


@given(st.binary(max_size=400), st.binary(max_size=100), st.one_of(st.none(), st.binary(max_size=20)))
def test_any_bytes_end_in_a_report(data: bytes, second: bytes, passphrase: bytes | None) -> None:
    report = upload.check(data, options=PUBLIC, key=second, chain=second, passphrase=passphrase)
    assert not report.ok
    assert codes(report) <= set(CODES)


@given(st.sampled_from(GOOD), st.integers(0, 2000), st.integers(0, 255), st.booleans())
def test_any_changed_octet_ends_in_a_report(der: bytes, at: int, octet: int, armoured: bool) -> None:
    changed = bytearray(der)
    changed[at % len(der)] = octet
    data = to_pem(bytes(changed)) if armoured else bytes(changed)
    report = upload.check(data, options=PUBLIC, key=bytes(changed))
    assert codes(report) <= set(CODES)


@given(st.lists(st.sampled_from([*GOOD, b"junk"]), max_size=6), st.booleans())
def test_any_heap_of_good_parts_ends_in_a_report(parts: list[bytes], strict: bool) -> None:
    text = "".join(to_pem(part) for part in parts)
    report = upload.check(text, options=replace(PUBLIC, strict=strict), key=text)
    assert codes(report) <= set(CODES)
