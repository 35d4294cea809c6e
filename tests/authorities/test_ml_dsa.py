"""Hierarchies with ML-DSA keys (RFC 9881): what they sign is right, they are labelled, and nobody else is offered them.

Judged by the library's own path building: Debian's openssl (3.0) doesn't know ML-DSA; where it does, it is asked, too.
"""

from __future__ import annotations

import re
import ssl
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.x509 import ocsp as library
from cryptography.x509 import verification

from certwright.kernel.problems import Invalid, Problem
from certwright.rooms import authorities
from certwright.rooms.authorities.words import LeafRequest
from certwright.x509 import _der, ocsp
from certwright.x509.certificates import facts_of, to_pem
from certwright.x509.crl import read_crl
from certwright.x509.csr import read_csr, read_csr_key
from certwright.x509.issue import issuer_facts
from certwright.x509.keys import ExperimentalAlgorithm, KeyAlgorithm, judge_public_key
from certwright.x509.ocsp import Question
from tests.authorities.test_hierarchy import BELOW, do, leaf, look, make, openssl_verifies, pem_files
from tests.conftest import Api, World

# RFC 9881 section 2: the OID and nothing behind it.
IDENTIFIERS = {
    "ML_DSA_65": bytes.fromhex("300b0609608648016503040312"),
    "ML_DSA_87": bytes.fromhex("300b0609608648016503040313"),
}
ALL = tuple(IDENTIFIERS)


def verified(world: World, root: bytes, *chain: bytes, name: str = "a.example.com") -> list[x509.Certificate]:
    """The path from the first of the chain to the root, as the library finds and checks it."""
    certificates = [x509.load_der_x509_certificate(der) for der in chain]
    store = verification.Store([x509.load_der_x509_certificate(root)])
    policy = verification.PolicyBuilder().store(store).time(world.clock.now())
    verifier = policy.build_server_verifier(x509.DNSName(name))
    return list(verifier.verify(certificates[0], certificates[1:]))


def openssl_knows_ml_dsa() -> bool:
    said = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"OpenSSL (\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= (3, 5)


@pytest.mark.parametrize("algorithm", ALL)
def test_a_hierarchy_its_leaves_lists_and_answers_verify(world: World, tmp_path: Path, algorithm: str) -> None:
    kind = {"key_algorithm": algorithm}
    root = make(world, path_len=1, **kind)
    low = make(world, BELOW, parent_id=root.id, ocsp_enabled=True, **kind)
    made = leaf(world, low.id)
    assert root.certificate_der
    assert low.certificate_der
    assert len(verified(world, root.certificate_der, made.der, low.certificate_der)) == 3
    broken = bytearray(low.certificate_der)
    broken[-1] ^= 1
    with pytest.raises(verification.VerificationError):
        verified(world, root.certificate_der, made.der, bytes(broken))
    if openssl_knows_ml_dsa():
        pem_files(tmp_path, root=root.certificate_der, chain=low.certificate_der, leaf=made.der)
        assert openssl_verifies(tmp_path, world) == "leaf.pem: OK"

    # The identifier stands inside and outside of what is signed, and says nothing but the OID.
    for der in (root.certificate_der, low.certificate_der, made.der):
        tbs, outer, _ = _der.elements(der)
        assert outer == IDENTIFIERS[algorithm]
        assert outer in tbs
    name = algorithm.replace("_", "-")
    assert (low.key_algorithm, low.hash_name, low.experimental) == (name, "none", True)
    assert facts_of(made.der).key_algorithm == "EC P-256"
    usage = x509.load_der_x509_certificate(low.certificate_der).extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.key_encipherment, usage.digital_signature) == (
        True, True, False, False,
    )  # fmt: skip

    world.run(authorities.revoke_leaf(world.services, world.actor, low.id, made.id, "superseded"))
    world.drain()
    crl = world.run(authorities.newest_crl(world.services, low.id)).der
    assert made.serial in read_crl(crl, issuer=issuer_facts(low.certificate_der)).entries
    with pytest.raises(Invalid):
        read_crl(crl, issuer=issuer_facts(root.certificate_der))

    digests = ocsp.issuer_digests(issuer_facts(low.certificate_der), "sha256")
    said = library.load_der_ocsp_response(
        world.run(authorities.answer(world.services, low.id, Question("sha256", *digests, int(made.serial, 16)))).der
    )
    assert said.certificate_status is library.OCSPCertStatus.REVOKED
    # The responder has an EC key; that it may answer, the CA has signed with its own.
    (responder,) = said.certificates
    responder.verify_directly_issued_by(x509.load_der_x509_certificate(low.certificate_der))


def test_kinds_of_keys_may_stand_in_one_hierarchy(world: World) -> None:
    root = make(world, key_algorithm="ML_DSA_87", path_len=2)
    middle = make(world, BELOW, name="Middle", parent_id=root.id, path_len=1, hash_name="sha384")
    low = make(world, BELOW, parent_id=middle.id, key_algorithm="ML_DSA_65")
    made = leaf(world, low.id)
    ders = [low.certificate_der, middle.certificate_der, root.certificate_der]
    assert all(ders)
    assert len(verified(world, ders[2] or b"", made.der, ders[0] or b"", ders[1] or b"")) == 4
    assert (middle.hash_name, middle.experimental) == ("sha384", False)


def test_a_parent_outside_signs_the_request_of_an_ml_dsa_key(world: World) -> None:
    waiting = make(world, BELOW, outside=True, key_algorithm="ML_DSA_65")
    assert waiting.csr_der
    request = x509.load_der_x509_csr(waiting.csr_der)
    assert request.is_signature_valid
    assert isinstance(request.public_key(), mldsa.MLDSA65PublicKey)
    done = do(world, "delete", waiting.id)
    assert done.state == "deleted"


def test_there_is_no_hash_to_choose(world: World) -> None:
    for changes in ({"key_algorithm": "ML_DSA_65", "hash_name": "sha256"}, {"hash_name": "none"}):
        with pytest.raises(Invalid) as refused:
            make(world, **changes)
        assert refused.value.code == "unsupported_hash"
    assert world.run(authorities.list_authorities(world.services, world.actor)) == []


def test_the_hsm_makes_no_such_key(world: World) -> None:
    with pytest.raises(Invalid) as refused:
        make(world, key_algorithm="ML_DSA_65", key_store="hsm")
    assert refused.value.code == "hsm_algorithm"


APPLICANT = {"applicant": {"name": "Ann", "email": "ann@example.com", "phone": "+49 30 1"}}


def test_programs_that_do_not_know_ml_dsa_still_read_the_file_with_all_roots(world: World, tmp_path: Path) -> None:
    new, old = make(world, key_algorithm="ML_DSA_87"), make(world, name="Old", path_len=1)
    low = make(world, BELOW, parent_id=old.id)
    made = leaf(world, low.id)
    assert new.certificate_der
    assert old.certificate_der
    assert low.certificate_der
    pem_files(tmp_path, chain=low.certificate_der, leaf=made.der)
    roots = to_pem(new.certificate_der) + to_pem(old.certificate_der)
    (tmp_path / "root.pem").write_text(roots)
    assert openssl_verifies(tmp_path, world) == "leaf.pem: OK"
    context = ssl.create_default_context(cafile=str(tmp_path / "root.pem"))
    assert len(context.get_ca_certs(binary_form=True)) == 2


def test_a_ca_with_such_a_key_is_not_brought_along(world: World) -> None:
    key = mldsa.MLDSA65PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Elsewhere")])
    now = world.clock.now()
    builder = x509.CertificateBuilder().issuer_name(name).subject_name(name).public_key(key.public_key())
    builder = builder.serial_number(1 << 140).not_valid_before(now).not_valid_after(now + timedelta(days=9))
    certificate = builder.add_extension(x509.BasicConstraints(True, None), True).sign(key, None)
    pem = serialization.Encoding.PEM
    with pytest.raises(Invalid) as refused:
        world.run(
            authorities.import_authority(
                world.services, world.actor, name="Elsewhere", certificate=certificate.public_bytes(pem).decode(),
                private_key=key.private_bytes(
                    pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                ).decode(),
            )
        )  # fmt: skip
    assert (refused.value.field, refused.value.code) == ("private_key", "key_format")


# --- nobody else is offered them -------------------------------------------------------------------------------------


def ml_dsa_csr() -> bytes:
    key = mldsa.MLDSA65PrivateKey.generate()
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.example.com")])
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("a.example.com")]), critical=False)
    return builder.sign(key, None).public_bytes(serialization.Encoding.PEM)


def test_no_request_with_such_a_key_is_taken(world: World) -> None:
    csr = ml_dsa_csr()
    for read in (read_csr, read_csr_key):
        with pytest.raises(Invalid) as refused:
            read(csr)
        assert refused.value.code == "unsupported_key"
    for public in (True, False):
        with pytest.raises(Invalid):
            judge_public_key(x509.load_pem_x509_csr(csr).public_key(), public=public)
    low = make(world, BELOW, parent_id=make(world, key_algorithm="ML_DSA_65").id, key_algorithm="ML_DSA_65")
    asked = LeafRequest("server", ("a.example.com",))
    for changes in ({"csr": csr.decode()}, {"key_algorithm": "ML_DSA_65"}):
        (answer,) = world.run(
            authorities.issue_leaves(world.services, world.actor, low.id, [replace(asked, **changes)])
        )
        assert isinstance(answer, Problem)
        assert answer.code == "unsupported_key"


def test_the_algorithms_of_applications_and_requests_are_the_ordinary_ones(api: Api) -> None:
    world = api.world
    assert not set(KeyAlgorithm) & set(ExperimentalAlgorithm)
    root = make(world)
    low = make(world, BELOW, parent_id=root.id)
    for word in ExperimentalAlgorithm:
        names = {"names": ["a.example.com"], "key_algorithm": word.value}
        for path, body in (
            ("/api/v1/certificates", {"application": names | APPLICANT}),
            (f"/api/v1/authorities/{low.id}/certificates", names),
            ("/api/v1/csrs", names),
        ):
            answer = api.post(path, body)
            assert answer.status_code == 422, path
            assert ("key_algorithm" in answer.text, word.value in answer.text) == (True, True), path


def test_the_api_says_that_it_is_experimental(api: Api) -> None:
    body = {"name": "PQ root", "subject": {"common_name": "PQ root"}, "key_algorithm": "ML_DSA_65"}
    made = api.post("/api/v1/authorities", body)
    assert (made.status_code, made.json()["experimental"], made.json()["hash_name"]) == (201, True, "none")
    assert make(api.world).experimental is False
    # Its certificate is for everybody, like any CA's.
    assert api.anonymous().get(f"/ca/{made.json()['id']}.crt").content == look(
        api.world, made.json()["id"]
    ).certificate_der  # fmt: skip


def test_a_certificate_applied_for_may_come_from_such_a_ca(api: Api) -> None:
    """It is issued and shown like any other; whether a server or its clients can use the chain is theirs to know."""
    world = api.world
    low = make(world, BELOW, parent_id=make(world, key_algorithm="ML_DSA_65").id, key_algorithm="ML_DSA_65")
    made: Any = api.post(f"/api/v1/authorities/{low.id}/certificates", {"names": ["a.example.com"]})
    assert made.status_code == 201, made.text
    shown = api.get(f"/api/v1/certificates/{made.json()['id']}").json()
    assert shown["state"] == "issued", shown
