"""Revocation lists: what is drafted reads back, openssl honours it, and what can't be a list is refused."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st
from pkilint import loader, pkix
from pkilint.pkix import crl as pkilint_crl
from pkilint.pkix import extension
from pkilint.pkix import name as pkix_name

from certwright.kernel.problems import Invalid, Problem
from certwright.x509 import certificates, crl, issue
from certwright.x509.crl import RevokedEntry
from certwright.x509.keys import KeyAlgorithm
from tests.x509.factory import CRL_URL, NOW, Hierarchy, hierarchy, openssl

H = hierarchy()
LEAF_SERIAL = int(certificates.facts_of(H.leaf).serial, 16)
NEXT = NOW + timedelta(days=4)


def made(*entries: RevokedEntry, h: Hierarchy = H, number: int = 7, url: str | None = CRL_URL) -> bytes:
    draft = crl.draft_crl(h.issuer, number, NOW, NEXT, entries, url)
    return crl.assemble(draft, issue.sign_with_key(h.issuing_key, draft.tbs))


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384, KeyAlgorithm.RSA_2048])
def test_a_list_reads_back_as_drafted(algorithm: KeyAlgorithm) -> None:
    h = hierarchy(algorithm)
    facts = crl.read_crl(made(RevokedEntry(9, NOW), RevokedEntry(5, NOW, "superseded"), h=h), issuer=h.issuer)
    assert (facts.number, facts.this_update, facts.next_update) == (7, NOW, NEXT)
    assert facts.idp_url == CRL_URL
    assert facts.issuer == certificates.facts_of(h.issuing).subject
    assert facts.aki == certificates.facts_of(h.issuing).ski
    assert facts.entries == {"5": (NOW, "superseded"), "9": (NOW, "unspecified")}


@pytest.mark.parametrize("reason", sorted(crl.REASONS))
def test_every_reason_survives_and_unspecified_is_said_by_silence(reason: str) -> None:
    der = made(RevokedEntry(LEAF_SERIAL, NOW, reason))
    assert crl.read_crl(der).entries[f"{LEAF_SERIAL:x}"] == (NOW, reason)
    (entry,) = x509.load_der_x509_crl(der)
    assert len(entry.extensions) == (0 if reason == "unspecified" else 1)


def test_a_list_without_an_address_carries_no_distribution_point() -> None:
    der = made(url=None)
    assert crl.read_crl(der).idp_url is None
    with pytest.raises(x509.ExtensionNotFound):
        x509.load_der_x509_crl(der).extensions.get_extension_for_class(x509.IssuingDistributionPoint)


def test_the_distribution_point_is_critical() -> None:
    found = x509.load_der_x509_crl(made()).extensions.get_extension_for_class(x509.IssuingDistributionPoint)
    assert found.critical


def test_entries_come_ordered_by_serial_and_parts_of_seconds_are_dropped() -> None:
    at = NOW + timedelta(microseconds=900_000)
    der = made(*(RevokedEntry(serial, at) for serial in (30, 10, 20)))
    assert list(crl.read_crl(der).entries) == ["a", "14", "1e"]
    assert {when for when, _ in crl.read_crl(der).entries.values()} == {NOW}


def test_a_list_of_many_thousands_is_whole() -> None:
    serials = {issue.new_serial() for _ in range(20_000)}
    facts = crl.read_crl(made(*(RevokedEntry(s, NOW, "superseded") for s in serials)), issuer=H.issuer)
    assert {int(s, 16) for s in facts.entries} == serials


@pytest.mark.parametrize("revoked", [True, False])
def test_openssl_refuses_exactly_what_the_list_names(tmp_path: Path, revoked: bool) -> None:
    der = made(RevokedEntry(LEAF_SERIAL if revoked else LEAF_SERIAL + 1, NOW, "key_compromise"))
    (tmp_path / "ca.pem").write_text(certificates.to_pem(H.issuing) + certificates.to_pem(H.root))
    (tmp_path / "crl.pem").write_text(crl.to_pem(der))
    (tmp_path / "leaf.pem").write_text(certificates.to_pem(H.leaf))
    arguments = (
        "verify", "-crl_check", "-attime", str(int(NOW.timestamp()) + 60), "-CAfile", "ca.pem", "-CRLfile", "crl.pem",
        "leaf.pem",
    )  # fmt: skip
    if revoked:
        with pytest.raises(AssertionError, match="certificate revoked"):
            openssl(*arguments, cwd=tmp_path)
    else:
        assert openssl(*arguments, cwd=tmp_path).strip().endswith(b"OK")


def test_pkilint_finds_nothing_in_our_list() -> None:
    judge = pkilint_crl.create_pkix_crl_validator_container(
        [
            pkix.create_attribute_decoder(pkix_name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [
            pkilint_crl.create_issuer_validator_container([]),
            pkilint_crl.create_validity_validator_container([]),
            pkilint_crl.create_extensions_validator_container([]),
        ],
    )
    der = made(RevokedEntry(LEAF_SERIAL, NOW, "superseded"))
    results = judge.validate(loader.RFC5280CertificateListDocumentLoader().load_der_document(der, "list").root)
    assert [d.finding.code for r in results for d in r.finding_descriptions] == []


@pytest.mark.parametrize(
    "changed",
    [
        {"number": 0},
        {"number": 2**159},
        {"next_update": NOW},
        {"next_update": NOW - timedelta(days=1)},
        {"entries": [RevokedEntry(5, NOW), RevokedEntry(5, NOW, "superseded")]},
        {"entries": [RevokedEntry(5, NOW, "certificate_hold")]},
        {"entries": [RevokedEntry(5, NOW, "because")]},
        {"entries": [RevokedEntry(-5, NOW)]},
        {"entries": [RevokedEntry(2**160, NOW)]},
        {"idp_url": "http://münchen.dev/crl"},
        {"issuer": replace(H.issuer, may_sign_crls=False)},
    ],
    ids=[
        "number 0", "number too long", "no time at all", "runs backwards", "a serial twice", "hold", "unknown reason",
        "negative serial", "serial too long", "address not ASCII", "issuer may not",
    ],
)  # fmt: skip
def test_what_makes_a_bad_list_is_refused(changed: dict[str, Any]) -> None:
    facts: dict[str, Any] = {
        "issuer": H.issuer, "number": 1, "this_update": NOW, "next_update": NEXT, "entries": [], "idp_url": CRL_URL,
    }  # fmt: skip
    with pytest.raises(Invalid) as refusal:
        crl.draft_crl(**(facts | changed))
    assert refusal.value.code == "crl_invalid"


def test_a_signature_by_another_key_makes_no_list() -> None:
    draft = crl.draft_crl(H.issuer, 1, NOW, NEXT, [])
    with pytest.raises(Invalid) as refusal:
        crl.assemble(draft, issue.sign_with_key(H.root_key, draft.tbs))
    assert refusal.value.code == "signature_mismatch"


def test_a_list_of_another_ca_is_told_apart() -> None:
    with pytest.raises(Invalid) as refusal:
        crl.read_crl(made(), issuer=hierarchy(KeyAlgorithm.EC_P384).issuer)
    assert refusal.value.code == "crl_not_issuers"


def test_pem_and_der_read_alike() -> None:
    der = made(RevokedEntry(3, NOW))
    assert crl.read_crl(crl.to_pem(der).encode()) == crl.read_crl(der)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "crl_missing"),
        (b"nothing of the kind", "crl_format"),
        (H.leaf, "crl_format"),
        (certificates.to_pem(H.leaf).encode(), "wrong_block"),
        (crl.to_pem(b"\x30\x00").encode(), "crl_format"),
    ],
    ids=["nothing", "prose", "a certificate as der", "a certificate", "noise in a block"],
)
def test_what_is_not_a_list_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(Invalid) as refusal:
        crl.read_crl(data)
    assert refusal.value.code == code


GOOD = made(RevokedEntry(LEAF_SERIAL, NOW, "key_compromise"), RevokedEntry(3, NOW))


@pytest.mark.parametrize("serial", [b"\x00", b"\x80", b"\xff"], ids=["zero", "negative", "minus one"])
@pytest.mark.parametrize("others", [(), (9,), (3, 9)], ids=["alone", "first", "in the middle"])
def test_a_list_with_a_serial_that_is_not_positive_is_refused(serial: bytes, others: tuple[int, ...]) -> None:
    good = made(*(RevokedEntry(one, NOW) for one in (5, *others)))
    assert len(crl.read_crl(good).entries) == 1 + len(others)
    assert good.count(b"\x02\x01\x05\x17") == 1
    with pytest.raises(Invalid) as refusal:
        crl.read_crl(good.replace(b"\x02\x01\x05\x17", b"\x02\x01" + serial + b"\x17"))
    assert refusal.value.code == "crl_format"


@given(st.binary(max_size=400))
def test_any_bytes_end_in_facts_or_a_problem(data: bytes) -> None:
    for text in (data, crl.to_pem(data).encode(), b"-----BEGIN X509 CRL-----" + data):
        with contextlib.suppress(Problem):
            crl.read_crl(text)


@settings(max_examples=300)
@given(st.integers(min_value=0), st.binary(min_size=1, max_size=3))
def test_a_damaged_list_is_never_taken_for_its_cas(place: int, change: bytes) -> None:
    at = place % len(GOOD)
    damaged = GOOD[:at] + change + GOOD[at + len(change) :]
    if damaged != GOOD:
        with contextlib.suppress(Problem):
            crl.read_crl(damaged)
        with pytest.raises(Problem):
            crl.read_crl(damaged, issuer=H.issuer)
