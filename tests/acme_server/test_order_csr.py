"""What of a CSR, beside its names and key, counts when an order is finalized."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certwright.acme.jose import b64url, public_jwk
from certwright.acme.requests import AcmeProblem
from certwright.rooms.acme_server import rules

ACCOUNT = public_jwk(ec.generate_private_key(ec.SECP256R1()))
KEY = ec.generate_private_key(ec.SECP256R1())


def csr(*extensions: x509.ExtensionType) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    for extension in (x509.SubjectAlternativeName([x509.DNSName("www.example")]), *extensions):
        builder = builder.add_extension(extension, critical=False)
    return b64url(builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER))


def test_usages_that_clients_ask_for_by_habit_are_let_be() -> None:
    usages = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH])

    request = rules.read_order_csr(csr(usages), ("www.example",), ACCOUNT)

    assert request.public_key == KEY.public_key()


def test_must_staple_which_would_be_left_out_is_refused() -> None:
    asked = csr(x509.TLSFeature([x509.TLSFeatureType.status_request]))

    assert rules.read_order_csr(asked, ("www.example",), ACCOUNT).must_staple
    rules.judge_must_staple("stapled", has_it=True)
    with pytest.raises(AcmeProblem, match="must-staple") as caught:
        rules.judge_must_staple("server", has_it=False)
    assert caught.value.kind == "badCSR"
