"""What the holder of a CA's key asks of octets that somebody else drafted, before it signs them.

Each function reads the octets back, measures them by what the holder knows itself (whose key it is) and gives the same
draft the drafter had; so octets that are no certificate, list, answer or request of this CA never get a signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import ocsp as library_ocsp
from cryptography.x509.oid import ExtensionOID

from certwright.kernel.problems import Refused
from certwright.x509 import _der, ocsp
from certwright.x509._signing import algorithm_identifier, hash_for, seal
from certwright.x509.ca_requests import RequestDraft
from certwright.x509.certificates import tbs_fields
from certwright.x509.crl import CrlDraft
from certwright.x509.issue import (
    BACKDATE,
    BUILT_IN,
    DAY,
    ISSUING,
    ROOT,
    Draft,
    IssuerFacts,
    Linted,
    Profile,
    approve,
    issuer_facts,
)
from certwright.x509.keys import CaPublicKey, spki
from certwright.x509.profiles import describe, read_profile
from certwright.x509.reading import UNREADABLE

# A quarter of a century, as for every CA made here.
_MAX_CA_SECONDS: Final = 9132 * DAY
# What CAs that were brought along and are renewed here may be used for.
_CA_USAGES: Final = frozenset({"key_cert_sign", "crl_sign", "digital_signature", "content_commitment"})
# How far the clocks of drafter and signer may be apart, and how old a draft may be, which says an hour less.
_EARLY, _LATE = timedelta(minutes=5), BACKDATE + timedelta(hours=1)
# A thousand drafts of one moment are signed one after another, by an HSM perhaps.
_DRAFTED: Final = timedelta(minutes=10)
_LONGEST_LIST: Final = timedelta(days=31)
_LONGEST_ANSWER: Final = timedelta(days=8)
_LIST_EXTENSIONS: Final = frozenset(
    {ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.CRL_NUMBER, ExtensionOID.ISSUING_DISTRIBUTION_POINT}
)
_UNREADABLE: Final = (*UNREADABLE, NotImplementedError)


def profile_words(profile: Profile) -> dict[str, Any]:
    """A profile as plain values: by its name where it is built in, else as `read_profile` reads it."""
    if profile.is_ca:
        return {"name": profile.name, "path_len": profile.path_len, "eku": list(profile.eku),
                "max_seconds": profile.max_seconds, "key_usage": sorted(profile.key_usage),
                "policies": list(profile.policy_oids)}  # fmt: skip
    if profile.name in BUILT_IN:
        return {"name": profile.name}
    return {"name": profile.name, "body": describe(profile)}


def profile_of(words: Mapping[str, Any]) -> Profile:
    """The profile that `profile_words` wrote. Raises Refused `signer_refused` and as `read_profile` does."""
    name = words.get("name")
    if name not in (ROOT.name, ISSUING.name):
        body = words.get("body", {})
        if not isinstance(name, str) or not isinstance(body, Mapping):
            raise refused("its profile can't be read")
        return BUILT_IN[name] if name in BUILT_IN else read_profile(name, body)
    path_len, eku, seconds = words.get("path_len"), words.get("eku"), words.get("max_seconds")
    if not (path_len is None or (isinstance(path_len, int) and 0 <= path_len <= 10)):
        raise refused("its path length is none a CA here has")
    if not isinstance(eku, list) or not all(isinstance(oid, str) for oid in eku):
        raise refused("its profile can't be read")
    if not isinstance(seconds, int) or not 0 < seconds <= _MAX_CA_SECONDS:
        raise refused("a CA here doesn't live so long")
    usage, policies = words.get("key_usage"), words.get("policies")
    if not isinstance(usage, list) or not isinstance(policies, list) or not all(isinstance(o, str) for o in policies):
        raise refused("its profile can't be read")
    if "key_cert_sign" not in usage or not _CA_USAGES.issuperset(usage):
        raise refused("a CA here isn't used so")
    return replace(
        BUILT_IN[name], path_len=path_len, eku=tuple(eku), max_seconds=seconds, key_usage=frozenset(usage),
        policy_oids=tuple(policies),
    )  # fmt: skip


def judge_certificate(
    tbs: bytes, *, profile: Profile, issuer: IssuerFacts | None, own_spki_sha256: str, hash_name: str, at: datetime
) -> Linted:
    """A TBSCertificate for the CA `issuer`, or for a root that the key will make of itself (None).

    Raises Refused `signer_refused`, Invalid `lint_failed`, `unsupported_hash`.
    """
    try:
        fields = tbs_fields(tbs)
        public = issuer.public_key if issuer is not None else serialization.load_der_public_key(fields[5])
    except _UNREADABLE:
        raise refused("it isn't a certificate") from None
    if issuer is None and hashlib.sha256(fields[5]).hexdigest() != own_spki_sha256:
        raise refused("it signs for itself but is for another key")
    algorithm = hash_for(public, hash_name)
    assert isinstance(public, CaPublicKey)  # hash_for refuses every other kind
    inner = algorithm_identifier(public, algorithm)
    if fields[1] != inner:
        raise refused("it names another algorithm than it asks to be signed with")
    try:
        return approve(Draft(tbs, inner, profile, issuer, public, algorithm.name), at=at - _DRAFTED)
    except _UNREADABLE:
        raise refused("it isn't a certificate") from None


def judge_renewed_root(
    tbs: bytes, *, profile: Profile, before: IssuerFacts, own_spki_sha256: str, hash_name: str, at: datetime
) -> Linted:
    """A TBSCertificate that a root makes of itself once more: it says what the one before says, but for its serial
    number and its times. Raises as `judge_certificate` does."""
    linted = judge_certificate(
        tbs, profile=profile, issuer=None, own_spki_sha256=own_spki_sha256, hash_name=hash_name, at=at
    )
    fields = tbs_fields(tbs)
    was = tbs_fields(x509.load_der_x509_certificate(before.der).tbs_certificate_bytes)
    if was[2] != was[4] or fields[4] != before.subject_der:
        raise refused("it signs for itself and isn't that root")
    new = issuer_facts(seal(tbs, fields[1], b""))
    if (new.ski, new.limits) != (before.ski, before.limits):
        raise refused("it would make more of a root than it is, or less")
    return linted


def judge_list(tbs: bytes, *, issuer: IssuerFacts, hash_name: str, at: datetime) -> CrlDraft:
    """A TBSCertList of the CA `issuer`. Raises Refused `signer_refused`, Invalid `unsupported_hash`."""
    public = issuer.public_key
    algorithm = hash_for(public, hash_name)
    outer = algorithm_identifier(public, algorithm)
    try:
        crl = x509.load_der_x509_crl(seal(tbs, outer, b""))
        extensions = {e.oid: e.value for e in crl.extensions}
        read_back = crl.tbs_certlist_bytes
        # Version (v2, which extensions need), signature, issuer.
        _, inner, name, *_ = _der.elements(tbs)
        this_update, next_update = crl.last_update_utc, crl.next_update_utc
    except _UNREADABLE:
        raise refused("it isn't a revocation list") from None
    if read_back != tbs or inner != outer or name != issuer.subject_der or not issuer.may_sign_crls:
        raise refused("it isn't a revocation list of this CA")
    aki = extensions.get(ExtensionOID.AUTHORITY_KEY_IDENTIFIER)
    if not isinstance(aki, x509.AuthorityKeyIdentifier) or aki.key_identifier != issuer.ski:
        raise refused("it is a revocation list for another key")
    idp = extensions.get(ExtensionOID.ISSUING_DISTRIBUTION_POINT)
    if extensions.keys() - _LIST_EXTENSIONS or ExtensionOID.CRL_NUMBER not in extensions:
        raise refused("its extensions aren't those of a revocation list")
    if isinstance(idp, x509.IssuingDistributionPoint) and idp.indirect_crl:
        raise refused("it revokes what other CAs issued")
    _judge_times(this_update, next_update, _LONGEST_LIST, at)
    return CrlDraft(tbs, outer, public, algorithm.name)


def judge_answer(
    tbs: bytes, *, responder_der: bytes, issuer: IssuerFacts, hash_name: str, at: datetime
) -> ocsp.OcspDraft:
    """A ResponseData of the responder about one certificate of `issuer`. Raises as `judge_list` does."""
    public = x509.load_der_x509_certificate(responder_der).public_key()
    algorithm = hash_for(public, hash_name)
    assert isinstance(public, CaPublicKey)  # hash_for refuses every other kind
    draft = ocsp.OcspDraft(tbs, algorithm_identifier(public, algorithm), responder_der, public, algorithm.name)
    try:
        answer = library_ocsp.load_der_ocsp_response(ocsp.whole(draft, b""))
        # A single response, or the library says so.
        is_about = ocsp.issuer_digests(issuer, answer.hash_algorithm.name)
        about = answer.issuer_name_hash, answer.issuer_key_hash
        read_back, responder = answer.tbs_response_bytes, answer.responder_key_hash
        this_update, next_update = answer.this_update_utc, answer.next_update_utc
    except _UNREADABLE:
        raise refused("it isn't an answer about a certificate") from None
    bits = next(body for tag, body in _der.children(spki(public)) if tag == _der.BIT_STRING)
    own = hashlib.new("sha1", bits[1:], usedforsecurity=False).digest()  # RFC 6960 section 4.2.1 knows no other digest
    if read_back != tbs or responder != own:
        raise refused("it is the answer of another responder")
    if about != is_about:
        raise refused("it is about a certificate of another CA")
    _judge_times(this_update, next_update, _LONGEST_ANSWER, at)
    return draft


def judge_request(tbs: bytes, *, own_spki_sha256: str, hash_name: str) -> RequestDraft:
    """A CertificationRequestInfo for the key itself. Raises as `judge_list` does."""
    try:
        key = list(_der.elements(tbs))[2]
        public = serialization.load_der_public_key(key)
    except (*_UNREADABLE, IndexError):
        raise refused("it isn't a request") from None
    if hashlib.sha256(key).hexdigest() != own_spki_sha256:
        raise refused("it is a request for another key")
    algorithm = hash_for(public, hash_name)
    assert isinstance(public, CaPublicKey)  # hash_for refuses every other kind
    outer = algorithm_identifier(public, algorithm)
    try:
        read_back = x509.load_der_x509_csr(seal(tbs, outer, b"")).tbs_certrequest_bytes
    except _UNREADABLE:
        raise refused("it isn't a request") from None
    if read_back != tbs:
        raise refused("it isn't a request")
    return RequestDraft(tbs, outer, public, algorithm.name)


def _judge_times(this_update: datetime, next_update: datetime | None, longest: timedelta, at: datetime) -> None:
    if not at - _LATE <= this_update <= at + _EARLY:
        raise refused("it isn't of this hour")
    if next_update is None or not this_update < next_update <= this_update + longest:
        raise refused("it would be good for too long")


def refused(why: str) -> Refused:
    """Of octets that aren't signed; `why` ends the sentence."""
    return Refused(
        "signer_refused", f"The signing process doesn't sign this: {why}.",
        fix="Repeat what you did; if it is refused again, compare the releases of the processes and read their logs.",
    )  # fmt: skip
