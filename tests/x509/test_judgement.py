"""What the holder of a CA's key asks of octets somebody else drafted: good drafts come back as they were, and nothing
that was changed anywhere is taken for one unless it is as good itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import settings as rounds
from hypothesis import strategies as st

from certwright.kernel.problems import Problem
from certwright.x509 import crl, judgement, ocsp
from certwright.x509.ca_requests import draft_request
from certwright.x509.issue import (
    BUILT_IN,
    DAY,
    ISSUING,
    OCSP_SIGNER,
    ROOT,
    SERVER,
    IssuerFacts,
    Profile,
    Subject,
    approve,
    assemble,
    draft_certificate,
    issuer_facts,
    new_serial,
    sign_with_key,
    validity,
)
from certwright.x509.keys import KeyAlgorithm, generate, spki_sha256
from certwright.x509.profiles import read_profile

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Ca(NamedTuple):
    facts: IssuerFacts
    key: Any
    responder_der: bytes


def certificate(profile: Profile, key: Any, issuer: IssuerFacts | None, signer: Any) -> bytes:
    start, end = validity(profile, issuer, at=NOW)
    linted = approve(
        draft_certificate(
            profile=profile, subject=Subject(common_name="T"), names=(), public_key=key.public_key(), issuer=issuer,
            serial=new_serial(), not_before=start, not_after=end,
        ),
        at=NOW,
    )  # fmt: skip
    return assemble(linted, sign_with_key(signer, linted.tbs, linted.hash_name))


@lru_cache
def ca(algorithm: KeyAlgorithm) -> Ca:
    key, responder = generate(algorithm), generate(KeyAlgorithm.EC_P256)
    facts = issuer_facts(certificate(ROOT, key, None, key))
    return Ca(facts, key, certificate(OCSP_SIGNER, responder, facts, key))


def drafts(one: Ca, hash_name: str) -> dict[str, tuple[Any, Callable[[bytes], Any]]]:
    """Each kind of document: a good draft, and the judge of it."""
    start, end = validity(ISSUING, one.facts, at=NOW)
    leaf = draft_certificate(
        profile=ISSUING, subject=Subject(common_name="Below"), names=(),
        public_key=generate(KeyAlgorithm.EC_P256).public_key(), issuer=one.facts, serial=new_serial(),
        not_before=start, not_after=end, hash_name=hash_name,
    )  # fmt: skip
    entries = [crl.RevokedEntry(new_serial(), NOW, "superseded") for _ in range(3)]
    until = NOW + timedelta(days=7)
    listed = crl.draft_crl(one.facts, 5, NOW, until, entries, "http://ca.example/1.crl", hash_name)
    question = ocsp.Question("sha1", *ocsp.issuer_digests(one.facts, "sha1"), 77, b"a nonce")
    answered = ocsp.draft_answer(
        question, ocsp.Answer(ocsp.Status.REVOKED, NOW, NOW + timedelta(days=1), NOW, "superseded"), one.responder_der
    )
    asked = draft_request(Subject(common_name="Below"), one.key.public_key(), 0, hash_name)
    mark = spki_sha256(one.key.public_key())
    return {
        "certificate": (
            leaf,
            lambda tbs: judgement.judge_certificate(
                tbs, profile=ISSUING, issuer=one.facts, own_spki_sha256=mark, hash_name=hash_name, at=NOW
            ),
        ),
        "list": (listed, lambda tbs: judgement.judge_list(tbs, issuer=one.facts, hash_name=hash_name, at=NOW)),
        "answer": (
            answered,
            lambda tbs: judgement.judge_answer(
                tbs, responder_der=one.responder_der, issuer=one.facts, hash_name="sha256", at=NOW
            ),
        ),
        "request": (asked, lambda tbs: judgement.judge_request(tbs, own_spki_sha256=mark, hash_name=hash_name)),
    }


KINDS = ("certificate", "list", "answer", "request")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384, KeyAlgorithm.RSA_2048])
@pytest.mark.parametrize("hash_name", ["sha256", "sha384", "sha512"])
def test_a_good_draft_comes_back_as_it_was(kind: str, algorithm: KeyAlgorithm, hash_name: str) -> None:
    draft, judge = drafts(ca(algorithm), hash_name)[kind]
    judged = judge(draft.tbs)
    assert (judged.tbs, judged.hash_name) == (draft.tbs, draft.hash_name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_no_kind_passes_for_another(kind: str, other: str) -> None:
    if kind == other:
        return
    all_ = drafts(ca(KeyAlgorithm.EC_P256), "sha256")
    with pytest.raises(Problem) as caught:
        all_[other][1](all_[kind][0].tbs)
    assert caught.value.code in ("signer_refused", "lint_failed")


@given(st.data())
@rounds(max_examples=150)
def test_whatever_was_changed_is_refused_or_judged_anew(data: st.DataObject) -> None:
    """Nothing but a Problem comes of it; and what passes is signed as those very octets, by this CA's name."""
    kind = data.draw(st.sampled_from(KINDS))
    draft, judge = _fixed()[kind]
    octets = bytearray(draft.tbs)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(octets) - 1))
        match data.draw(st.sampled_from(("change", "cut", "add"))):
            case "change":
                octets[place] = data.draw(st.integers(0, 255))
            case "cut":
                del octets[place : place + data.draw(st.integers(1, 9))]
            case "add":
                octets[place:place] = data.draw(st.binary(max_size=9))
        if not octets:
            break
    try:
        judged = judge(bytes(octets))
    except Problem:
        return
    assert judged.tbs == bytes(octets)
    assert kind == "answer" or ca(KeyAlgorithm.EC_P256).facts.subject_der in judged.tbs or kind == "request"


@lru_cache
def _fixed() -> dict[str, tuple[Any, Callable[[bytes], Any]]]:
    return drafts(ca(KeyAlgorithm.EC_P256), "sha256")


@pytest.mark.parametrize("kind", ["list", "answer"])
@pytest.mark.parametrize(
    ("late", "signs"),
    [
        # It says an hour less than when it was drafted, which may be an hour ago, too.
        (timedelta(minutes=-6), False),
        (timedelta(minutes=-4), True),
        (timedelta(hours=2), True),
        (timedelta(hours=2, seconds=1), False),
    ],
    ids=str,
)
def test_what_is_of_another_hour_is_not_signed(kind: str, late: timedelta, signs: bool) -> None:
    one, at = ca(KeyAlgorithm.EC_P256), NOW + late
    tbs = _fixed()[kind][0].tbs
    judge = {
        "list": lambda: judgement.judge_list(tbs, issuer=one.facts, hash_name="sha256", at=at),
        "answer": lambda: judgement.judge_answer(
            tbs, responder_der=one.responder_der, issuer=one.facts, hash_name="sha256", at=at
        ),
    }[kind]
    if signs:
        assert judge().tbs == tbs
    else:
        with pytest.raises(Problem) as caught:
            judge()
        assert "isn't of this hour" in caught.value.message


@pytest.mark.parametrize(
    "profile",
    [
        *BUILT_IN.values(),
        read_profile("device", {"extended_key_usage": ["1.2.3.4"], "max_days": 10, "names": "any",
                                "extensions": [{"oid": "1.2.3.4.5", "value": "BQA=", "critical": True}]}),
    ],
    ids=lambda profile: profile.name,
)  # fmt: skip
def test_a_profile_is_said_in_plain_words_and_read_back(profile: Profile) -> None:
    assert judgement.profile_of(judgement.profile_words(profile)) == profile


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"name": 7},
        {"name": "server2", "body": "text"},
        {"name": "server2", "body": {"key_usage": ["crl_sign"]}},
        {"name": "issuing", "path_len": -1, "eku": [], "max_seconds": DAY},
        {"name": "issuing", "path_len": 0, "eku": "any", "max_seconds": DAY},
        {"name": "root", "path_len": None, "eku": [], "max_seconds": 30 * 366 * DAY},
        {"name": "root", "path_len": None, "eku": []},
    ],
)
def test_a_profile_nobody_here_could_have_is_refused(words: dict[str, Any]) -> None:
    with pytest.raises(Problem):
        judgement.profile_of(words)


def test_a_built_in_profile_is_what_it_is_here_whatever_else_is_said() -> None:
    assert judgement.profile_of({"name": "server", "body": {"max_days": 3000}, "max_seconds": 1}) == SERVER
