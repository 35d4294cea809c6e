"""Certificate status: openssl asks and believes the answers, and what isn't a question gets no signature."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp as library
from hypothesis import example, given
from hypothesis import strategies as st

from certwright.kernel.problems import Invalid, Problem
from certwright.x509 import _der, certificates, crl, issue, ocsp
from certwright.x509.keys import KeyAlgorithm, PrivateKey, generate
from certwright.x509.ocsp import Answer, Failure, Question, Status
from tests.x509.factory import NOW, Hierarchy, hierarchy, openssl

H = hierarchy()
LEAF_SERIAL = int(certificates.facts_of(H.leaf).serial, 16)
NEXT = NOW + timedelta(days=3)
GOOD = Answer(Status.GOOD, NOW, NEXT)
REVOKED = Answer(Status.REVOKED, NOW, NEXT, NOW - timedelta(hours=1), "key_compromise")


@cache
def responder(algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256) -> tuple[bytes, PrivateKey]:
    """Certificate and key of a responder the issuing CA delegated to."""
    key = generate(algorithm)
    start, end = issue.validity(issue.OCSP_SIGNER, H.issuer, at=NOW)
    linted = issue.approve(
        issue.draft_certificate(
            profile=issue.OCSP_SIGNER, subject=issue.Subject(common_name="Responder"), names=(),
            public_key=key.public_key(), issuer=H.issuer, serial=issue.new_serial(), not_before=start, not_after=end,
        ),
        at=NOW,
    )  # fmt: skip
    return issue.assemble(linted, issue.sign_with_key(H.issuing_key, linted.tbs)), key


def asked(hash_name: str = "sha256", nonce: bytes | None = None, serial: int = LEAF_SERIAL) -> Question:
    return Question(hash_name, *ocsp.issuer_digests(H.issuer, hash_name), serial, nonce)


def answered(
    answer: Answer = GOOD, question: Question | None = None, algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256
) -> bytes:
    der, key = responder(algorithm)
    draft = ocsp.draft_answer(question or asked(), answer, der)
    return ocsp.assemble(draft, issue.sign_with_key(key, draft.tbs, draft.hash_name))


def files(folder: Path, h: Hierarchy = H) -> list[str]:
    for name, der in (("ca", h.issuing), ("root", h.root), ("leaf", h.leaf)):
        (folder / f"{name}.pem").write_bytes(
            x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
        )
    return ["-issuer", str(folder / "ca.pem"), "-CAfile", str(folder / "root.pem"), "-cert", str(folder / "leaf.pem")]


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384, KeyAlgorithm.RSA_2048])
@pytest.mark.parametrize(("answer", "says"), [(GOOD, "good"), (REVOKED, "revoked")], ids=["good", "revoked"])
def test_openssl_believes_the_answer_of_a_delegated_responder(
    tmp_path: Path, algorithm: KeyAlgorithm, answer: Answer, says: str
) -> None:
    (tmp_path / "answer").write_bytes(answered(answer, asked("sha1"), algorithm))
    out = openssl(
        "ocsp", *files(tmp_path), "-respin", str(tmp_path / "answer"), "-no_nonce", "-attime",
        str(int(NOW.timestamp())),
    )  # fmt: skip
    assert f"leaf.pem: {says}".encode() in out
    assert (b"Reason: keyCompromise" in out) == (says == "revoked")


@pytest.mark.parametrize("hash_name", ["sha1", "sha256"])
@pytest.mark.parametrize("nonce", [True, False])
def test_a_question_of_openssl_is_read(tmp_path: Path, hash_name: str, nonce: bool) -> None:
    asking = files(tmp_path)
    openssl(
        "ocsp", f"-{hash_name}", *asking[:2], *asking[4:], "-reqout", str(tmp_path / "question"),
        "-nonce" if nonce else "-no_nonce",
    )  # fmt: skip
    question = ocsp.read_question((tmp_path / "question").read_bytes())
    assert question == replace(asked(hash_name), nonce=question.nonce)
    assert (question.nonce is not None) == nonce


def test_an_answer_says_what_was_asked_and_echoes_the_nonce() -> None:
    response = library.load_der_ocsp_response(answered(REVOKED, asked("sha384", b"n" * 32)))
    assert (response.serial_number, response.hash_algorithm.name) == (LEAF_SERIAL, "sha384")
    assert (response.this_update_utc, response.next_update_utc) == (NOW, NEXT)
    assert response.revocation_time_utc == REVOKED.revoked_at
    assert response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == b"n" * 32
    assert response.responder_key_hash is not None


def test_an_unspecified_reason_is_said_by_silence_and_unknown_has_no_time() -> None:
    revoked = library.load_der_ocsp_response(answered(replace(REVOKED, reason="unspecified")))
    assert (revoked.certificate_status, revoked.revocation_reason) == (library.OCSPCertStatus.REVOKED, None)
    unknown = library.load_der_ocsp_response(answered(replace(GOOD, status=Status.UNKNOWN)))
    assert (unknown.certificate_status, unknown.revocation_time_utc) == (library.OCSPCertStatus.UNKNOWN, None)


@pytest.mark.parametrize("reason", sorted(crl.REASON_FLAGS))
def test_every_reason_survives(reason: str) -> None:
    response = library.load_der_ocsp_response(answered(replace(REVOKED, reason=reason)))
    assert response.revocation_reason is crl.REASON_FLAGS[reason]


@pytest.mark.parametrize(
    "answer",
    [
        replace(GOOD, next_update=NOW),
        replace(GOOD, revoked_at=NOW),
        replace(REVOKED, revoked_at=None),
        replace(REVOKED, reason="remove_from_crl"),
    ],
    ids=["no time to live", "good since", "revoked never", "a reason that doesn't exist"],
)
def test_an_answer_that_contradicts_itself_is_not_drafted(answer: Answer) -> None:
    with pytest.raises(Invalid):
        ocsp.draft_answer(asked(), answer, responder()[0])


def test_a_signature_of_another_key_is_not_assembled() -> None:
    draft = ocsp.draft_answer(asked(), GOOD, responder()[0])
    with pytest.raises(Invalid) as refusal:
        ocsp.assemble(draft, issue.sign_with_key(H.issuing_key, draft.tbs))
    assert refusal.value.code == "signature_mismatch"


def test_the_ca_itself_and_its_delegate_may_answer_and_nobody_else() -> None:
    other = hierarchy(KeyAlgorithm.EC_P384)
    assert ocsp.is_responder_of(H.issuing, H.issuer)
    assert ocsp.is_responder_of(responder()[0], H.issuer)
    assert not ocsp.is_responder_of(responder()[0], other.issuer)
    assert not ocsp.is_responder_of(H.leaf, H.issuer)
    found = x509.load_der_x509_certificate(responder()[0]).extensions
    assert found.get_extension_for_class(x509.OCSPNoCheck) is not None


def der_question(*, nonce: bytes | None = None, algorithm: hashes.HashAlgorithm | None = None) -> bytes:
    digest = algorithm or hashes.SHA256()
    name, key = ocsp.issuer_digests(H.issuer, digest.name)
    builder = library.OCSPRequestBuilder().add_certificate_by_hash(name, key, LEAF_SERIAL, digest)
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(serialization.Encoding.DER)


def path_of(der: bytes) -> str:
    return base64.b64encode(der).decode()


PATHS = {
    "as RFC 6960 writes it": quote(path_of(der_question()), safe=""),
    "not percent-encoded": path_of(der_question()),
    "with a slash before it": "/" + path_of(der_question()),
    "without padding": path_of(der_question(nonce=b"12")).rstrip("="),
}


@pytest.mark.parametrize("how", PATHS)
def test_a_question_in_a_path_is_read(how: str) -> None:
    assert ocsp.question_from_path(PATHS[how]).serial == LEAF_SERIAL


@given(st.integers(0, 2**152 - 1), st.booleans())
@example(2**152 - 1, True)  # ends in a slash
@example(2**152 - 1, False)
def test_a_question_in_a_path_is_read_whatever_the_serial(random_bits: int, encoded: bool) -> None:
    serial = 1 << 152 | random_bits  # as long as those of our own certificates
    name, key = ocsp.issuer_digests(H.issuer, "sha1")
    asked = library.OCSPRequestBuilder().add_certificate_by_hash(name, key, serial, hashes.SHA1()).build()
    path = path_of(asked.public_bytes(serialization.Encoding.DER))
    assert ocsp.question_from_path(quote(path, safe="") if encoded else path).serial == serial


OIDS = {
    "sha1": "1.3.14.3.2.26", "sha256": "2.16.840.1.101.3.4.2.1", "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3", "md5": "1.2.840.113549.2.5", "sha3_256": "2.16.840.1.101.3.4.2.8",
}  # fmt: skip
KNOWN = frozenset(("sha1", "sha256", "sha384", "sha512"))
NONCE, ANOTHER = "1.3.6.1.5.5.7.48.1.2", "1.2.3.4"


def written_out(
    hash_name: str, digests: tuple[bytes, bytes], serial: int, *, null: bool = True, nonce: bytes | None = None,
    another: bool | None = None,
) -> bytes:  # fmt: skip
    """A question as any client may write it; `another` adds an extension of its own, critical or not."""
    algorithm = _der.sequence(_der.object_identifier(OIDS[hash_name]), b"\x05\x00" if null else b"")
    octets = [_der.tlv(_der.OCTET_STRING, digest) for digest in digests]
    asked = _der.sequence(_der.sequence(_der.sequence(algorithm, *octets, _der.integer(serial))))
    extensions = []
    if nonce is not None:
        value = _der.tlv(_der.OCTET_STRING, _der.tlv(_der.OCTET_STRING, nonce))
        extensions.append(_der.sequence(_der.object_identifier(NONCE), value))
    if another is not None:
        critical = b"\x01\x01\xff" if another else b""
        value = _der.tlv(_der.OCTET_STRING, b"\x05\x00")
        extensions.append(_der.sequence(_der.object_identifier(ANOTHER), critical, value))
    return _der.sequence(_der.sequence(asked, _der.tlv(0xA2, _der.sequence(*extensions)) if extensions else b""))


@given(
    hash_name=st.sampled_from(sorted(OIDS)),
    digests=st.tuples(st.binary(max_size=64), st.binary(max_size=64)),
    serial=st.integers(-(2**167), 2**167) | st.integers(-300, 300),
    null=st.booleans(),
    nonce=st.none() | st.binary(max_size=140),
    another=st.none() | st.booleans(),
)
@example("sha1", (b"n", b"k"), -128, True, None, None)
def test_any_question_is_read_as_it_is_meant_or_is_none_and_its_answer_names_the_same_certificate(
    hash_name: str, digests: tuple[bytes, bytes], serial: int, null: bool, nonce: bytes | None, another: bool | None
) -> None:
    asked = written_out(hash_name, digests, serial, null=null, nonce=nonce, another=another)
    if hash_name not in KNOWN or another or (nonce is not None and not 1 <= len(nonce) <= 128):
        with pytest.raises(Invalid):
            ocsp.read_question(asked)
        return
    question = ocsp.read_question(asked)
    assert question == Question(hash_name, *digests, serial, nonce)
    answer = library.load_der_ocsp_response(answered(GOOD, question))
    said = (answer.hash_algorithm.name, answer.issuer_name_hash, answer.issuer_key_hash, answer.serial_number)
    assert said == (hash_name, *digests, serial)
    echoed = [extension.value.nonce for extension in answer.extensions if isinstance(extension.value, x509.OCSPNonce)]
    assert echoed == ([] if nonce is None else [nonce])


NO_QUESTIONS = {
    "nothing": b"",
    "garbage": b"\x30\x03\x02\x01",
    "a certificate": H.leaf,
    "more than a KiB": der_question() + b"\0" * 1024,
    "an empty nonce": der_question(nonce=b""),
    "a nonce of 129 octets": der_question(nonce=b"n" * 129),
    "a digest nobody uses": der_question(algorithm=hashes.SHA224()),
    "a digest from before": written_out("md5", (b"n" * 16, b"k" * 16), 5),
    "a demand nobody understands": written_out("sha1", (b"n" * 20, b"k" * 20), 5, another=True),
}


@pytest.mark.parametrize("what", NO_QUESTIONS)
def test_no_question_is(what: str) -> None:
    with pytest.raises(Invalid) as refusal:
        ocsp.read_question(NO_QUESTIONS[what])
    assert refusal.value.code == "ocsp_question"


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_problem(data: bytes) -> None:
    with pytest.raises(Problem):
        ocsp.read_question(data)


@given(st.text(max_size=300))
def test_no_path_raises_anything_but_a_problem(path: str) -> None:
    with pytest.raises(Problem):
        ocsp.question_from_path(path)


@pytest.mark.parametrize("kind", Failure)
def test_a_failure_carries_no_signature(kind: Failure) -> None:
    response = library.load_der_ocsp_response(ocsp.failure(kind))
    assert response.response_status.name.lower() == kind
    with pytest.raises(ValueError, match="not successful"):
        _ = response.signature
