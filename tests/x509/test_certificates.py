"""Certificates: what is read, how chains are ordered, and what verification accepts and refuses."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku
from hypothesis import given, settings
from hypothesis import strategies as st

from certwright.kernel.problems import Invalid, Problem, TooLarge
from certwright.x509 import _der, certificates, keys
from certwright.x509.keys import KeyAlgorithm
from tests.x509.factory import AIA_URL, CRL_URL, NOW, ca, hierarchy, key, name, openssl, raw, san

H = hierarchy()
LEAF_PEM = certificates.to_pem(H.leaf).encode()


# --- reading -----------------------------------------------------------------------------------------------------


def test_the_facts_of_a_leaf_are_what_it_says() -> None:
    facts = certificates.read_certificate(H.leaf)
    assert facts.subject == ""
    assert facts.issuer == "CN=Test issuing CA,O=Tests"
    assert facts.dns_names == ("www.certwright.dev", "*.api.certwright.dev")
    assert facts.ip_addresses == ("192.0.2.7",)
    assert (facts.key_algorithm, facts.signature_algorithm) == ("EC P-256", "ECDSA with SHA-256")
    assert facts.eku == (certificates.SERVER_AUTH,)
    assert (facts.crl_urls, facts.aia_urls) == ((CRL_URL,), (AIA_URL,))
    assert not facts.is_ca
    assert not facts.self_signed
    assert facts.common_name is None
    assert facts.not_before == NOW - timedelta(hours=1)
    assert facts.aki == certificates.read_certificate(H.issuing).ski
    assert facts.spki_sha256 == keys.spki_sha256(H.leaf_key)


def test_fingerprints_and_serial_agree_with_openssl() -> None:
    facts = certificates.read_certificate(H.leaf)
    for option, ours in (("-sha256", facts.sha256), ("-sha1", facts.sha1)):
        said = openssl("x509", "-inform", "DER", "-noout", "-fingerprint", option, stdin=H.leaf).decode()
        assert said.strip().split("=")[1].replace(":", "").lower() == ours
    said = openssl("x509", "-inform", "DER", "-noout", "-serial", stdin=H.leaf).decode()
    assert int(said.strip().split("=")[1], 16) == int(facts.serial, 16)


def test_a_root_is_a_self_signed_ca() -> None:
    facts = certificates.read_certificate(H.root)
    assert facts.is_ca
    assert facts.self_signed
    assert facts.aki == facts.ski


def test_a_leaf_that_only_borrows_its_own_name_as_issuer_is_not_self_signed() -> None:
    assert not certificates.facts_of(raw("a", key(), "a", key(which="other"))).self_signed


READABLE = {
    "der": H.leaf,
    "pem": LEAF_PEM,
    "windows line ends": LEAF_PEM.replace(b"\n", b"\r\n"),
    "byte order mark": b"\xef\xbb\xbf" + LEAF_PEM,
    "utf-16": LEAF_PEM.decode().encode("utf-16"),
    "blank lines": LEAF_PEM.replace(b"\n", b"\n\n"),
    "one line": b"-----BEGIN CERTIFICATE-----" + b"".join(LEAF_PEM.splitlines()[1:-1]) + b"-----END CERTIFICATE-----",
    "literal backslash-n": LEAF_PEM.replace(b"\n", b"\\n"),
    "text around": b"subject=/CN=x\n" + LEAF_PEM + b"\ntrailer",
    "after its key": keys.to_pkcs8_pem(key()) + LEAF_PEM,
    "trusted certificate": openssl("x509", "-inform", "DER", "-trustout", "-addtrust", "serverAuth", stdin=H.leaf),
}


@pytest.mark.parametrize("data", READABLE.values(), ids=READABLE.keys())
def test_every_form_of_a_certificate_is_read(data: bytes) -> None:
    assert certificates.read_certificate(data).der == H.leaf


def test_all_blocks_are_read_in_their_order() -> None:
    text = LEAF_PEM + certificates.to_pem(H.issuing).encode() + certificates.to_pem(H.root).encode()
    assert [c.der for c in certificates.read_certificates(text)] == [H.leaf, H.issuing, H.root]


def labelled(label: str) -> bytes:
    return LEAF_PEM.replace(b"CERTIFICATE", label.encode())


UNREADABLE = {
    "nothing": (b"", "empty"),
    "blanks": (b"\n \n", "empty"),
    "prose": (b"certificate", "not_pem"),
    "no end": (LEAF_PEM[:-20], "not_pem"),
    "strange character": (LEAF_PEM[:50] + b"*" + LEAF_PEM[51:], "bad_base64"),
    "cut short": (b"\n".join(LEAF_PEM.splitlines()[:3]) + b"\n-----END CERTIFICATE-----", "bad_der"),
    "a key": (keys.to_pkcs8_pem(key()), "wrong_block"),
    "a request": (labelled("CERTIFICATE REQUEST"), "wrong_block"),
    "pkcs#7": (labelled("PKCS7"), "wrong_block"),
    "der noise": (b"\x30\x03\x02\x01\x05", "bad_der"),
    "more blocks than any chain": (
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n" * 1001,
        "too_many_blocks",
    ),
}


@pytest.mark.parametrize(("data", "code"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_is_not_a_certificate_is_refused_with_its_own_code(data: bytes, code: str) -> None:
    with pytest.raises(Invalid) as refusal:
        certificates.read_certificate(data)
    assert (refusal.value.code, refusal.value.field) == (code, "certificate")
    assert refusal.value.fix


def test_more_than_a_mebibyte_is_not_looked_at() -> None:
    with pytest.raises(TooLarge):
        certificates.read_certificate(b"\x30" * (1024 * 1024 + 1))


def test_a_certificate_whose_serial_is_not_positive_is_refused() -> None:
    # 02 01 05 is the serial 5; made into 0 and -1 in place, as the signature doesn't matter for reading.
    der = raw("a", key(), "a", key(), serial=5)
    at = der.index(b"\x02\x01\x05")
    for octet in (b"\x00", b"\xff"):
        with pytest.raises(Invalid, match="serial") as refusal:
            certificates.facts_of(der[: at + 2] + octet + der[at + 3 :])
        assert refusal.value.code == "bad_der"


@pytest.mark.parametrize(
    ("oid", "code"),
    [
        ("2a864886f70d010301", "unsupported_key"),
        ("2a8648ce3e0201", "unsupported_key"),
        ("2b0e030202", "unsupported_key"),
    ],
    ids=["diffie-hellman", "diffie-hellman of X9.42", "nobody's"],
)
def test_a_certificate_with_a_key_nobody_can_use_is_refused(oid: str, code: str) -> None:
    three = b"\x02\x01\x03"  # p, g and q; nobody looks at them
    algorithm = _der.sequence(_der.tlv(_der.OBJECT_IDENTIFIER, bytes.fromhex(oid)), _der.sequence(three, three, three))
    fields = certificates.tbs_fields(next(_der.elements(H.leaf)))
    tbs = _der.sequence(b"\xa0\x03\x02\x01\x02", *fields[:5], _der.sequence(algorithm, _der.bit_string(bytes(32))))
    with pytest.raises(Invalid) as refusal:
        certificates.facts_of(_der.sequence(tbs, fields[1], _der.bit_string(bytes(64))))
    assert refusal.value.code == code


def test_a_key_matches_only_its_own_certificate() -> None:
    facts = certificates.facts_of(H.leaf)
    assert certificates.key_matches(H.leaf_key, facts)
    assert not certificates.key_matches(H.root_key, facts)


# --- order -------------------------------------------------------------------------------------------------------


def test_a_shuffled_chain_is_put_in_order_and_strangers_are_set_aside() -> None:
    leaf, issuing, root = (certificates.facts_of(d) for d in (H.leaf, H.issuing, H.root))
    stranger = certificates.facts_of(hierarchy(KeyAlgorithm.EC_P384).issuing)
    ordered, strangers = certificates.order_chain(leaf, [root, stranger, issuing, issuing, leaf])
    assert ordered == (leaf, issuing, root)
    assert strangers == (stranger,)


def test_two_cas_that_certify_each_other_end_after_ten() -> None:
    a, b = key(which="a"), key(which="b")
    crossed = [
        certificates.facts_of(raw(one, own, other, signer, ca()))
        for one, own, other, signer in [("A", a, "B", b), ("B", b, "A", a)] * 10
    ]
    leaf = certificates.facts_of(raw("leaf", key(), "A", a))
    ordered, _ = certificates.order_chain(leaf, crossed)
    assert len(ordered) == certificates.MAX_CHAIN


def test_a_heap_of_look_alikes_is_given_up_instead_of_tried_for_ever() -> None:
    alike = [raw("A", key(which=str(n)), "A", key(which="z"), ca()) for n in range(60)] + [
        raw("A", key(which=str(n)), "A", key(which="y"), ca()) for n in range(60)
    ]
    leaf = raw("leaf", key(), "A", key(which="nobody"))
    with pytest.raises(Invalid) as refusal:
        certificates.order_chain(certificates.facts_of(leaf), [certificates.facts_of(d) for d in alike])
    assert refusal.value.code == "chain_too_complex"
    with pytest.raises(Invalid) as refusal:
        certificates.verify_chain(leaf, alike, [H.root], at=NOW, name=None)
    assert refusal.value.code == "chain_too_complex"


# --- verifying ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384, KeyAlgorithm.RSA_2048])
@pytest.mark.parametrize(
    "wanted", ["www.certwright.dev", "x.api.certwright.dev", "192.0.2.7", "WWW.certwright.dev.", None]
)
def test_a_good_chain_verifies_for_each_of_its_names(algorithm: KeyAlgorithm, wanted: str | None) -> None:
    h = hierarchy(algorithm)
    certificates.verify_chain(h.leaf, [h.issuing], [h.root], at=NOW, name=wanted)


def test_order_duplicates_and_strangers_among_the_intermediates_do_no_harm() -> None:
    stranger = hierarchy(KeyAlgorithm.EC_P384).issuing
    certificates.verify_chain(H.leaf, [H.root, stranger, H.issuing, H.issuing], [stranger, H.root], at=NOW, name=None)


def test_an_intermediate_may_itself_be_the_trusted_one() -> None:
    certificates.verify_chain(H.leaf, [], [H.issuing], at=NOW, name=None)


def refused(leaf: bytes, inter: list[bytes], roots: list[bytes], at: datetime = NOW, wanted: str | None = None) -> str:
    with pytest.raises(Invalid) as refusal:
        certificates.verify_chain(leaf, inter, roots, at=at, name=wanted)
    assert refusal.value.message.endswith(".")
    assert refusal.value.fix
    return refusal.value.code


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ("certwright.dev", "name_mismatch"),
        ("a.b.api.certwright.dev", "name_mismatch"),
        ("api.certwright.dev", "name_mismatch"),
        ("192.0.2.8", "name_mismatch"),
        ("", "name_mismatch"),
    ],
)
def test_a_name_the_certificate_does_not_hold_is_refused(wanted: str, code: str) -> None:
    assert refused(H.leaf, [H.issuing], [H.root], wanted=wanted) == code


LEAF_FACTS = certificates.facts_of(H.leaf)


@pytest.mark.parametrize(
    ("at", "code"),
    [
        (LEAF_FACTS.not_before - timedelta(seconds=1), "not_yet_valid"),
        (LEAF_FACTS.not_before, None),
        (LEAF_FACTS.not_after, None),
        (LEAF_FACTS.not_after + timedelta(seconds=1), "expired"),
    ],
    ids=["a second before", "its first second", "its last second", "a second after"],
)
def test_validity_includes_both_its_ends(at: datetime, code: str | None) -> None:
    if code is None:
        certificates.verify_chain(H.leaf, [H.issuing], [H.root], at=at, name=None)
    else:
        assert refused(H.leaf, [H.issuing], [H.root], at=at) == code


ROOT, MIDDLE, LEAF = key(which="r"), key(which="m"), key(which="l")
TRUSTED = raw("root", ROOT, "root", ROOT, ca())
GOOD_LEAF = raw("leaf", LEAF, "middle", MIDDLE, san("a.dev"))


def middle(*extensions: tuple[x509.ExtensionType, bool], **more: datetime) -> bytes:
    return raw("middle", MIDDLE, "root", ROOT, *extensions, **more)  # type: ignore[arg-type]


def usage(*, key_cert_sign: bool) -> tuple[x509.ExtensionType, bool]:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=key_cert_sign, crl_sign=False, encipher_only=False, decipher_only=False,
    ), True  # fmt: skip


def limits(
    permitted: list[x509.GeneralName] | None, excluded: list[x509.GeneralName] | None
) -> tuple[x509.ExtensionType, bool]:
    return x509.NameConstraints(permitted, excluded), True


def eku(*oids: x509.ObjectIdentifier) -> tuple[x509.ExtensionType, bool]:
    return x509.ExtendedKeyUsage(oids), False


OTHER_DN = x509.DirectoryName(name("someone else"))
UNHEARD_OF = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)
NAMESAKE = raw("middle", key(which="x"), "root", ROOT, ca())
OWN = raw("s", LEAF, "s", LEAF, serial=9)
PATHS = {
    "good": (GOOD_LEAF, [middle(ca())], [TRUSTED], None),
    "path length just enough": (GOOD_LEAF, [middle(ca(0))], [raw("root", ROOT, "root", ROOT, ca(1))], None),
    "permitted subtree": (GOOD_LEAF, [middle(ca(), limits([x509.DNSName("a.dev")], None))], [TRUSTED], None),
    "directory names elsewhere excluded": (GOOD_LEAF, [middle(ca(), limits(None, [OTHER_DN]))], [TRUSTED], None),
    "leaf without purposes": (GOOD_LEAF, [middle(ca(), eku(Eku.SERVER_AUTH))], [TRUSTED], None),
    "issuer missing": (GOOD_LEAF, [], [TRUSTED], "chain_missing"),
    "root missing": (GOOD_LEAF, [middle(ca())], [H.root], "chain_missing"),
    "no roots": (GOOD_LEAF, [middle(ca())], [], "chain_missing"),
    "namesake with another key": (GOOD_LEAF, [NAMESAKE], [TRUSTED], "chain_broken"),
    "root not trusted": (GOOD_LEAF, [middle(ca()), TRUSTED], [H.root], "untrusted_root"),
    "self-signed leaf": (raw("s", LEAF, "s", LEAF, san("a.dev")), [], [TRUSTED], "untrusted_root"),
    "self-signed leaf under another of its name": (OWN, [], [raw("s", LEAF, "s", LEAF)], "not_a_ca"),
    "self-signed leaf that is trusted itself": (OWN, [], [OWN], None),
    "intermediate is no ca": (GOOD_LEAF, [middle()], [TRUSTED], "not_a_ca"),
    "intermediate may not sign": (GOOD_LEAF, [middle(ca(), usage(key_cert_sign=False))], [TRUSTED], "not_a_ca"),
    "path length too short": (GOOD_LEAF, [middle(ca())], [raw("root", ROOT, "root", ROOT, ca(0))], "path_too_long"),
    "intermediate expired": (GOOD_LEAF, [middle(ca(), not_after=NOW - timedelta(seconds=1))], [TRUSTED], "expired"),
    "intermediate from tomorrow": (
        GOOD_LEAF, [middle(ca(), not_before=NOW + timedelta(seconds=1))], [TRUSTED], "not_yet_valid",
    ),
    "outside the permitted subtree": (
        GOOD_LEAF, [middle(ca(), limits([x509.DNSName("b.dev")], None))], [TRUSTED], "name_constraint",
    ),
    "inside an excluded subtree": (
        GOOD_LEAF, [middle(ca(), limits(None, [x509.DNSName("dev")]))], [TRUSTED], "name_constraint",
    ),
    "directory name excluded": (
        GOOD_LEAF, [middle(ca(), limits(None, [x509.DirectoryName(name("leaf"))]))], [TRUSTED], "name_constraint",
    ),
    "ca for another purpose": (
        raw("leaf", LEAF, "middle", MIDDLE, eku(Eku.SERVER_AUTH)),
        [middle(ca(), eku(Eku.CLIENT_AUTH))], [TRUSTED], "eku_not_allowed",
    ),
    "critical extension nobody knows": (
        raw("leaf", LEAF, "middle", MIDDLE, UNHEARD_OF),
        [middle(ca())], [TRUSTED], "unknown_critical_extension",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("leaf", "inter", "roots", "code"), PATHS.values(), ids=PATHS.keys())
def test_each_rule_of_the_path_is_kept(leaf: bytes, inter: list[bytes], roots: list[bytes], code: str | None) -> None:
    if code is None:
        certificates.verify_chain(leaf, inter, roots, at=NOW, name=None)
    else:
        assert refused(leaf, inter, roots) == code


def test_an_address_outside_the_permitted_network_is_refused() -> None:
    within = raw(
        "l",
        LEAF,
        "middle",
        MIDDLE,
        (x509.SubjectAlternativeName([x509.IPAddress(ip_network("10.0.0.1/32").network_address)]), False),
    )
    for network, good in (("10.0.0.0/8", True), ("192.168.0.0/16", False)):
        inter = middle(ca(), limits([x509.IPAddress(ip_network(network))], None))
        if good:
            certificates.verify_chain(within, [inter], [TRUSTED], at=NOW, name="10.0.0.1")
        else:
            assert refused(within, [inter], [TRUSTED]) == "name_constraint"


def test_of_two_certificates_for_one_ca_key_the_one_that_leads_to_a_trusted_root_is_found() -> None:
    elsewhere = raw("middle", MIDDLE, "gone", key(which="gone"), ca())
    expired = middle(ca(), not_after=NOW - timedelta(seconds=1))
    certificates.verify_chain(GOOD_LEAF, [elsewhere, expired, middle(ca())], [TRUSTED], at=NOW, name=None)


def test_a_client_certificate_is_not_good_for_a_server_name() -> None:
    leaf = raw("l", LEAF, "middle", MIDDLE, san("a.dev"), eku(Eku.CLIENT_AUTH))
    assert refused(leaf, [middle(ca())], [TRUSTED], wanted="a.dev") == "no_server_auth"
    certificates.verify_chain(leaf, [middle(ca())], [TRUSTED], at=NOW, name=None)


def test_the_common_name_does_not_count_as_a_name() -> None:
    assert refused(raw("a.dev", LEAF, "middle", MIDDLE), [middle(ca())], [TRUSTED], wanted="a.dev") == "name_mismatch"


def by_openssl(tmp_path: Path, digest: str, bits: str = "rsa:2048") -> tuple[bytes, bytes]:
    """A root and a leaf whose signature has `digest`: our library declines to make weak ones."""
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=old",
        "-sha1", "-days", "9000", cwd=tmp_path,
    )  # fmt: skip
    openssl(
        "req", "-new", "-newkey", bits, "-nodes", "-keyout", "l.key", "-out", "l.csr", "-subj", "/CN=l", cwd=tmp_path
    )
    openssl(
        "x509", "-req", "-in", "l.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "l.pem",
        f"-{digest}", "-days", "8000", cwd=tmp_path,
    )  # fmt: skip
    return tuple(certificates.read_certificate((tmp_path / n).read_bytes()).der for n in ("ca.pem", "l.pem"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("digest", "bits", "code"),
    [
        ("sha256", "rsa:2048", None),
        ("sha1", "rsa:2048", "weak_signature"),
        ("md5", "rsa:2048", "weak_signature"),
        ("sha256", "rsa:1024", "weak_key"),
    ],
)
def test_old_signatures_and_small_keys_are_read_but_not_believed(
    tmp_path: Path, digest: str, bits: str, code: str | None
) -> None:
    root, leaf = by_openssl(tmp_path, digest, bits)
    at = certificates.facts_of(leaf).not_before
    # The root signs itself with SHA-1, which nobody relies on.
    if code is None:
        certificates.verify_chain(leaf, [], [root], at=at, name=None)
    else:
        assert refused(leaf, [], [root], at=at) == code


# --- any bytes at all --------------------------------------------------------------------------------------------


@given(st.binary(max_size=600))
def test_any_bytes_end_in_facts_or_a_problem(data: bytes) -> None:
    for text in (data, b"-----BEGIN CERTIFICATE-----\n" + data + b"\n-----END CERTIFICATE-----", b"\xff\xfe" + data):
        with contextlib.suppress(Problem):
            certificates.read_certificates(text)


@settings(max_examples=400)
@given(st.sampled_from([H.leaf, H.issuing, GOOD_LEAF]), st.integers(min_value=0), st.binary(min_size=1, max_size=3))
def test_a_damaged_certificate_ends_in_a_problem_and_never_verifies(der: bytes, place: int, change: bytes) -> None:
    at = place % len(der)
    damaged = der[:at] + change + der[at + len(change) :]
    if damaged == der:
        return
    with pytest.raises(Problem):
        certificates.verify_chain(damaged, [H.issuing, middle(ca())], [H.root, TRUSTED], at=NOW, name=None)
    with pytest.raises(Problem):
        certificates.verify_chain(H.leaf, [damaged], [], at=NOW, name=None)
