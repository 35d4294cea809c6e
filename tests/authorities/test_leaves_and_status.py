"""Certificates issued by hand, kinds described as data, and answers about them: asked by openssl over HTTP."""

from __future__ import annotations

import base64
import io
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12
from cryptography.x509 import ocsp as library
from sqlalchemy.exc import IntegrityError

from certwright.kernel.actor import Actor, Grant, Statement
from certwright.kernel.problems import Forbidden, Invalid, Problem, Refused, Unavailable
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import authorities
from certwright.rooms.access import people
from certwright.rooms.audit import audit_events
from certwright.rooms.authorities import actions, leaves
from certwright.rooms.authorities.status import StatusAnswers
from certwright.rooms.authorities.tables import ca_keys, ca_profiles, issued_certificates, ocsp_responders
from certwright.rooms.authorities.words import IssueRequest, LeafRequest
from certwright.rooms.keys.tables import private_keys
from certwright.x509 import ocsp
from certwright.x509.certificates import facts_of, to_pem
from certwright.x509.csr import make_csr
from certwright.x509.csr import to_pem as csr_to_pem
from certwright.x509.issue import Subject, issuer_facts
from certwright.x509.keys import KeyAlgorithm, generate, spki_sha256
from certwright.x509.ocsp import Question, Status
from tests.authorities.test_hierarchy import BELOW, do, leaf, look, make
from tests.conftest import Api, World

CLIENT = LeafRequest("client", ("ann@example.com",), Subject(common_name="Ann"))


@pytest.fixture
def low(world: World) -> authorities.Authority:
    return make(world, BELOW, parent_id=make(world).id, ocsp_enabled=True)


def issue(world: World, ca: authorities.Authority, *requests: LeafRequest) -> list[authorities.Leaf | Problem]:
    return world.run(authorities.issue_leaves(world.services, world.actor, ca.id, requests))


# --- issuing ---------------------------------------------------------------------------------------------------------


def test_a_batch_answers_each_request_by_itself(world: World, low: authorities.Authority) -> None:
    key = generate(KeyAlgorithm.EC_P256)
    csr = csr_to_pem(make_csr(key, ["ignored.example.com"])).decode()
    good, bad_name, with_csr, no_profile = issue(
        world, low, CLIENT, LeafRequest("server", ("not a name",)), LeafRequest("server", ("a.example.com",), csr=csr),
        LeafRequest("nothing", ("a.example.com",)),
    )  # fmt: skip
    assert isinstance(good, authorities.Leaf)
    assert isinstance(with_csr, authorities.Leaf)
    assert (good.subject, good.has_key, with_csr.has_key) == ("CN=Ann", True, False)
    assert facts_of(with_csr.der).spki_sha256 == spki_sha256(key.public_key())
    assert with_csr.names == ("a.example.com",)
    assert isinstance(bad_name, Problem)
    assert isinstance(no_profile, Problem)
    assert no_profile.code == "profile_unknown"
    listed = world.run(authorities.list_leaves(world.services, world.actor, low.id))
    assert {one.id for one in listed if not one.managed} == {good.id, with_csr.id}
    # Keys of requests that failed weren't kept.
    assert sum(1 for row in rows(world, sa.select(private_keys.c.id)) if row) == 1


def rows(world: World, query: sa.Select[Any]) -> list[Any]:
    async def go() -> list[Any]:
        async with world.services.db.begin() as tx:
            return list((await tx.execute(query)).all())

    return world.run(go())


def _csr() -> str:
    return csr_to_pem(make_csr(generate(KeyAlgorithm.EC_P256), ["ignored.example.com"])).decode()


def _issued_events(world: World) -> list[Any]:
    e = audit_events.c
    return rows(
        world, sa.select(e.id, e.actor_id, e.after).where(e.action == "ccm:cert:issue", e.object_type == "authority")
    )


@pytest.mark.parametrize("csr", [None, _csr()], ids=["a key made here", "a request, quickly"])
def test_a_certificate_is_recorded_as_it_was_asked_for_with_its_line_in_the_audit_log(
    world: World, low: authorities.Authority, csr: str | None
) -> None:
    before = _issued_events(world)
    odd = ("https://a.example/a,(b)", "null", "192.0.2.7", "{ann}@example.com")
    made = issue(
        world, low, LeafRequest("client", odd, csr=csr), LeafRequest("client", subject=Subject("Ann"), csr=csr, days=3)
    )
    first, second = (one for one in made if isinstance(one, authorities.Leaf))
    i = issued_certificates.c
    found = {row.id: row for row in rows(world, sa.select(issued_certificates).where(i.reference.startswith("lrq_")))}
    for leaf_, names in ((first, odd), (second, ())):
        row = found.pop(leaf_.id)
        facts = facts_of(leaf_.der)
        assert (tuple(row.names), row.der, row.serial, row.authority_id) == (names, leaf_.der, leaf_.serial, low.id)
        assert (row.not_before, row.not_after, row.serial) == (facts.not_before, facts.not_after, facts.serial)
        assert (row.account_id, row.project_id) == (world.actor.account_id, leaf_.project_id)
        assert (row.profile, row.shard, row.internal, row.revoked_at) == ("client", 0, False, None)
        assert (row.key_id is None) == (csr is not None)
    assert found == {}
    events = _issued_events(world)[len(before) :]
    assert {(e.actor_id, e.after["certificate"], e.after["serial"], tuple(e.after["names"])) for e in events} == {
        (world.actor.id, first.id, first.serial, odd), (world.actor.id, second.id, second.serial, ()),
    }  # fmt: skip


@pytest.mark.parametrize(("meanwhile", "code"), [("disabled", "ca_not_active"), ("limited", "profile_not_allowed")])
def test_what_becomes_of_a_ca_while_it_signs_holds_for_what_it_signs(
    world: World, low: authorities.Authority, monkeypatch: pytest.MonkeyPatch, meanwhile: str, code: str
) -> None:
    sign = actions.sign_many
    signed: list[Any] = []

    async def and_then(tx: Tx, services: Services, ca: Any, requests: Sequence[IssueRequest]) -> list[Any]:
        found = await sign(tx, services, ca, requests)
        if not signed and meanwhile == "disabled":
            await authorities.disable_authority(services, world.actor, low.id)
        elif not signed:
            limits = authorities.PolicyLimits(profiles=("client",))
            await authorities.create_policy(services, world.actor, "clients", limits)
        signed.append(found)
        return found

    monkeypatch.setattr(actions, "sign_many", and_then)
    before = len(_issued_events(world))
    with pytest.raises(Problem) as refusal:
        leaf(world, low.id, csr=_csr())
    assert refusal.value.code == code
    assert isinstance(signed[0][0], dict)
    found = rows(world, sa.select(issued_certificates.c.id).where(issued_certificates.c.reference.startswith("lrq_")))
    assert (found, len(_issued_events(world))) == ([], before)


@pytest.mark.parametrize("csr", [None, _csr()], ids=["a key made here", "a request, quickly"])
def test_who_may_not_issue_at_a_ca_is_refused_whichever_way_it_would_go(
    world: World, low: authorities.Authority, csr: str | None
) -> None:
    def refused(actor: Actor, project_id: str | None = None) -> str:
        request = LeafRequest("server", ("a.example.com",), csr=csr)
        with pytest.raises(Problem) as refusal:
            world.run(authorities.issue_leaves(world.services, actor, low.id, [request], project_id=project_id))
        return f"{type(refusal.value).__name__} {refusal.value.code}"

    shop = world.run(people.create_project(world.services, world.actor, name="shop"))
    unseen = world.actor_with("ccm:cert:issue")
    denied = Grant("no", (Statement("Deny", ("ccm:ca:get",), (f"authority:{low.id}",)),))
    found = {
        "another account": refused(world.other_actor),
        "who doesn't see the CA": refused(unseen),
        "who is denied to see it": refused(replace(world.actor, grants=(*world.actor.grants, denied))),
        "who sees another CA only": refused(
            world.actor_with("ccm:cert:issue", "ccm:ca:get", resources=("authority:ca_other", "project:*"))
        ),
        "who may in another project": refused(
            world.actor_with("ccm:cert:issue", "ccm:ca:get", project_id=shop.id), shop.id
        ),
        "who sees it but may issue in another project only": refused(
            replace(
                world.actor_with("ccm:cert:issue", project_id=shop.id),
                grants=(
                    *world.actor_with("ccm:cert:issue", project_id=shop.id).grants,
                    *world.actor_with("ccm:ca:get").grants,
                ),
            ),
            shop.id,
        ),
        "a project that isn't there": refused(world.actor, "prj_nowhere"),
    }
    assert found == {
        "another account": "NotFound not_found",
        "who doesn't see the CA": "NotFound not_found",
        "who is denied to see it": "NotFound not_found",
        "who sees another CA only": "NotFound not_found",
        "who may in another project": "NotFound not_found",
        "who sees it but may issue in another project only": "Forbidden not_permitted",
        "a project that isn't there": "NotFound not_found",
    }
    world.run(authorities.disable_authority(world.services, world.actor, low.id))
    assert refused(world.actor) == "Refused ca_not_active"
    assert refused(replace(world.actor, grants=()), None) == "Forbidden not_permitted"


@pytest.mark.parametrize("csr", [None, _csr()], ids=["a key made here", "a request, quickly"])
def test_a_batch_that_cannot_be_recorded_leaves_nothing_behind(
    world: World, low: authorities.Authority, csr: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(_issued_events(world)), len(rows(world, sa.select(issued_certificates.c.id)))
    monkeypatch.setattr(leaves, "new_id", lambda *_: "lrq_the_same_for_both")
    with pytest.raises(IntegrityError):
        issue(world, low, *[LeafRequest("server", (f"n{i}.example.com",), csr=csr) for i in range(2)])
    assert (len(_issued_events(world)), len(rows(world, sa.select(issued_certificates.c.id)))) == before
    assert rows(world, sa.select(private_keys.c.id)) == []


def test_a_thousand_at_once_are_one_call_and_more_are_refused(world: World, low: authorities.Authority) -> None:
    csr = csr_to_pem(make_csr(generate(KeyAlgorithm.EC_P256), ["a.example.com"])).decode()
    made = issue(world, low, *[LeafRequest("server", (f"n{i}.example.com",), csr=csr) for i in range(1000)])
    assert len({one.serial for one in made if isinstance(one, authorities.Leaf)}) == 1000
    with pytest.raises(Invalid) as refusal:
        issue(world, low, *[CLIENT] * 1001)
    assert refusal.value.code == "batch_size"


def test_a_pfx_for_a_browser_opens_with_its_passphrase_file(world: World, low: authorities.Authority) -> None:
    (made,) = issue(world, low, CLIENT)
    assert isinstance(made, authorities.Leaf)
    name, content = world.run(authorities.export_leaf(world.services, world.actor, low.id, made.id, server="iis"))
    assert name.endswith("-iis.zip")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {entry: archive.read(entry) for entry in archive.namelist()}
    pfx = next(data for entry, data in files.items() if entry.endswith(".pfx"))
    password = next(data for entry, data in files.items() if "password" in entry).strip()
    key, certificate, chain = pkcs12.load_key_and_certificates(pfx, password)
    assert key is not None
    assert certificate is not None
    assert certificate.serial_number == int(made.serial, 16)
    assert len(chain) == 1


def test_a_certificate_is_found_by_its_serial_however_that_is_written(world: World, low: authorities.Authority) -> None:
    server = LeafRequest("server", ("0.example.com",))
    made, other = issue(world, low, server, CLIENT)
    assert isinstance(made, authorities.Leaf)
    assert isinstance(other, authorities.Leaf)
    octets = int(made.serial, 16).to_bytes(20)
    # As openssl and browsers show it; each begins with a zero.
    for written in (made.serial, octets.hex().upper(), octets.hex(":"), f" {octets[:10].hex()} ", "0.example.com"):
        found = world.run(authorities.list_leaves(world.services, world.actor, low.id, search=written))
        assert [one.id for one in found] == [made.id], written
    for nothing in ("0", "00:", ":"):
        assert world.run(authorities.list_leaves(world.services, world.actor, low.id, search=nothing)) == []


def test_a_deleted_certificate_is_out_of_sight_its_key_gone_and_still_answered_for(
    world: World, low: authorities.Authority
) -> None:
    (made,) = issue(world, low, CLIENT)
    assert isinstance(made, authorities.Leaf)
    world.run(authorities.delete_leaf(world.services, world.actor, low.id, made.id))
    assert made.id not in [one.id for one in world.run(authorities.list_leaves(world.services, world.actor, low.id))]
    assert [row.sealed for row in rows(world, sa.select(private_keys.c.sealed))] == [None]
    assert state_of(world, low, int(made.serial, 16)) is Status.GOOD


def test_what_is_led_elsewhere_is_neither_revoked_nor_deleted_here(world: World, low: authorities.Authority) -> None:
    root_id = low.parent_id or ""
    (child,) = world.run(authorities.list_leaves(world.services, world.actor, root_id))
    responder = world.run(authorities.list_leaves(world.services, world.actor, low.id))[0]
    for authority_id, one, code in ((root_id, child, "ca_leads_it"), (low.id, responder, "responder_leads_it")):
        for action in (authorities.revoke_leaf, authorities.delete_leaf):
            with pytest.raises(Refused) as refusal:
                world.run(action(world.services, world.actor, authority_id, one.id))  # type: ignore[operator]
            assert refusal.value.code == code


# --- kinds as data ---------------------------------------------------------------------------------------------------

VPN = {
    "key_usage": ["digital_signature", "key_agreement"],
    "extended_key_usage": ["ipsec_ike", "1.3.6.1.4.1.99999.1"],
    "max_days": 30,
    "names": "any",
    "extensions": [{"oid": "1.3.6.1.4.1.99999.2", "value": base64.b64encode(b"\x0c\x02ok").decode(), "critical": True}],
}


def test_a_kind_described_as_data_is_issued_as_described(world: World, low: authorities.Authority) -> None:
    world.run(authorities.create_profile(world.services, world.actor, "vpn", VPN))
    made = leaf(world, low.id, "gate.example.com", profile="vpn", days=300)
    certificate = x509.load_der_x509_certificate(made.der)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [oid.dotted_string for oid in usage] == ["1.3.6.1.5.5.7.3.17", "1.3.6.1.4.1.99999.1"]
    custom = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.4.1.99999.2"))
    assert (custom.critical, custom.value.public_bytes()) == (True, b"\x0c\x02ok")
    assert made.not_after - made.not_before < timedelta(days=30)
    world.run(authorities.update_profile(world.services, world.actor, "vpn", VPN | {"max_days": 5}, revision=1))
    short = leaf(world, low.id, "gate.example.com", profile="vpn")
    assert short.not_after - short.not_before < timedelta(days=5)
    world.run(authorities.delete_profile(world.services, world.actor, "vpn"))
    with pytest.raises(Invalid):
        leaf(world, low.id, "gate.example.com", profile="vpn")


def test_a_short_lived_certificate_has_nothing_to_ask(world: World, low: authorities.Authority) -> None:
    made = leaf(world, low.id, "www.example.com", profile="server_short", days=90)
    certificate = x509.load_der_x509_certificate(made.der)
    assert made.not_after - made.not_before <= timedelta(days=7)
    certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier("2.5.29.56"))  # RFC 9608
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints)
    access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert [way.access_method for way in access] == [x509.oid.AuthorityInformationAccessOID.CA_ISSUERS]


def test_a_kind_saved_with_what_is_barred_now_is_shown_with_the_reason_and_stops_nobody_else(
    world: World, api: Api, low: authorities.Authority
) -> None:
    world.run(authorities.create_profile(world.services, world.actor, "vpn", VPN))
    old = VPN | {"extensions": [{"oid": "2.5.29.46", "value": "MAA=", "critical": False}]}

    async def saved_long_ago() -> None:
        async with world.services.db.begin() as tx:
            await tx.execute(sa.update(ca_profiles).where(ca_profiles.c.name == "vpn").values(body=old))

    world.run(saved_long_ago())
    (shown,) = [one for one in api.get("/api/v1/ca-profiles").json()["items"] if one["problem"] is not None]
    assert (shown["name"], shown["body"]["extensions"][0]["oid"]) == ("vpn", "2.5.29.46")
    why = "Nothing is issued as 'vpn' any more: the extension 2.5.29.46 is one that the profile's own members decide."
    assert (shown["problem"]["code"], shown["problem"]["message"]) == ("profile_unusable", why)
    refused, issued = issue(world, low, LeafRequest("vpn", ("a.example.com",)), CLIENT)
    assert isinstance(refused, Invalid)
    assert (refused.code, refused.field) == ("profile_unusable", "profile")
    assert isinstance(issued, authorities.Leaf)
    # Limits may name it, and changing it makes it good again.
    limits = authorities.PolicyLimits(profiles=("vpn",))
    world.run(authorities.create_policy(world.services, world.actor, "Vpn", limits))
    world.run(authorities.update_profile(world.services, world.actor, "vpn", VPN, revision=1))
    assert isinstance(issue(world, low, LeafRequest("vpn", ("a.example.com",)))[0], authorities.Leaf)


def test_a_kind_of_one_account_is_no_kind_of_another(world: World) -> None:
    world.run(authorities.create_profile(world.services, world.actor, "vpn", VPN))
    world.run(authorities.create_profile(world.services, world.other_actor, "vpn", VPN))
    with pytest.raises(Refused) as refusal:
        world.run(authorities.create_profile(world.services, world.actor, "vpn", VPN))
    assert refusal.value.code == "profile_name_taken"
    assert len(world.run(authorities.list_profiles(world.services, world.other_actor))) == 6


# --- answers ---------------------------------------------------------------------------------------------------------


def question(ca: authorities.Authority, serial: int, nonce: bytes | None = None) -> Question:
    assert ca.certificate_der is not None
    return Question("sha256", *ocsp.issuer_digests(issuer_facts(ca.certificate_der), "sha256"), serial, nonce)


def asked_by_sha1(ca: authorities.Authority, serial: int) -> bytes:
    """The question as most clients write it, DER."""
    assert ca.certificate_der is not None
    name, key = ocsp.issuer_digests(issuer_facts(ca.certificate_der), "sha1")
    builder = library.OCSPRequestBuilder().add_certificate_by_hash(name, key, serial, hashes.SHA1())
    return builder.build().public_bytes(Encoding.DER)


def answered(world: World, ca: authorities.Authority, asked: Question) -> Any:
    return library.load_der_ocsp_response(world.run(authorities.answer(world.services, ca.id, asked)).der)


def state_of(world: World, ca: authorities.Authority, serial: int) -> Status:
    return Status(answered(world, ca, question(ca, serial)).certificate_status.name.lower())


def test_a_revocation_is_told_within_a_second(world: World, low: authorities.Authority) -> None:
    made = leaf(world, low.id)
    serial = int(made.serial, 16)
    assert state_of(world, low, serial) is Status.GOOD
    world.run(authorities.revoke_leaf(world.services, world.actor, low.id, made.id, "key_compromise"))
    world.later(seconds=1)
    response = answered(world, low, question(low, serial))
    assert response.revocation_reason is x509.ReasonFlags.key_compromise


def test_an_answer_is_given_again_until_half_its_life_and_a_nonce_gets_its_own(
    world: World, low: authorities.Authority
) -> None:
    serial = int(leaf(world, low.id).serial, 16)
    ask = lambda nonce=None: world.run(authorities.answer(world.services, low.id, question(low, serial, nonce)))  # noqa: E731
    first = ask()
    world.later(hours=11)
    assert ask() == first
    world.later(hours=2)
    assert ask() != first
    with_nonce = library.load_der_ocsp_response(ask(b"n" * 16).der)
    assert with_nonce.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == b"n" * 16


def test_a_serial_nobody_issued_is_unknown_and_not_remembered(world: World, low: authorities.Authority) -> None:
    for serial in range(1, 6):
        assert state_of(world, low, serial) is Status.UNKNOWN
    assert not world.services.port(StatusAnswers)._answers


def test_questions_for_another_ca_and_to_one_without_answers_are_not_signed(
    world: World, low: authorities.Authority
) -> None:
    silent = make(world, BELOW, name="Silent", parent_id=low.parent_id)
    for ca, asked in (
        (low, question(silent, 5)),
        (silent, question(silent, 5)),
        (replace(low, id="ca_0"), question(low, 5)),
    ):
        response = answered(world, ca, asked)
        assert response.response_status is library.OCSPResponseStatus.UNAUTHORIZED


def test_the_responder_renews_itself_at_half_its_life_and_old_keys_are_erased(
    world: World, low: authorities.Authority
) -> None:
    def responders() -> list[Any]:
        return rows(world, sa.select(ocsp_responders).order_by(ocsp_responders.c.not_after))

    (first,) = responders()
    serial = int(leaf(world, low.id).serial, 16)
    for _ in range(4):
        world.later(days=8)
        world.drain()
        assert state_of(world, low, serial) is Status.GOOD
    assert first.id not in [row.id for row in responders()]
    erased = rows(world, sa.select(ca_keys.c.sealed).where(ca_keys.c.id == first.ca_key_id))
    assert [row.sealed for row in erased] == [None]


def test_turning_answers_off_stops_them_when_the_ca_is_gone_only(world: World, low: authorities.Authority) -> None:
    serial = int(leaf(world, low.id).serial, 16)
    do(world, "disable", low.id)
    assert state_of(world, low, serial) is Status.GOOD
    do(world, "delete", low.id, days=7)
    assert state_of(world, low, serial) is Status.GOOD
    world.later(days=8)
    world.drain()
    assert answered(world, low, question(low, serial)).response_status is library.OCSPResponseStatus.UNAUTHORIZED
    assert rows(world, sa.select(ocsp_responders)) == []


def test_openssl_asks_by_post_and_by_get_and_believes_it(
    world: World, api: Api, low: authorities.Authority, tmp_path: Path
) -> None:
    made = leaf(world, low.id)
    root = look(world, low.parent_id or "")
    assert low.certificate_der is not None
    assert root.certificate_der is not None
    for name, der in (("leaf", made.der), ("ca", low.certificate_der), ("root", root.certificate_der)):
        (tmp_path / f"{name}.pem").write_text(to_pem(der))
    subprocess.run(
        ["openssl", "ocsp", "-issuer", "ca.pem", "-cert", "leaf.pem", "-no_nonce", "-reqout", "question"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    asked = (tmp_path / "question").read_bytes()
    by_post = api.request("POST", f"/ocsp/{low.id}", content=asked)
    by_get = api.request("GET", f"/ocsp/{low.id}/{quote(base64.b64encode(asked).decode(), safe='')}")
    assert by_post.content == by_get.content
    assert by_get.headers["content-type"] == "application/ocsp-response"
    assert "max-age=3600" in by_get.headers["cache-control"]
    again = api.request("GET", f"/ocsp/{low.id}/{base64.b64encode(asked).decode()}",
                    headers={"If-None-Match": by_get.headers["etag"]})  # fmt: skip
    assert again.status_code == 304
    (tmp_path / "answer").write_bytes(by_post.content)
    verdict = subprocess.run(
        ["openssl", "ocsp", "-issuer", "ca.pem", "-CAfile", "root.pem", "-cert", "leaf.pem", "-respin", "answer",
         "-no_nonce", "-validity_period", "1000000000", "-attime", str(int(world.clock.now().timestamp()))],
        cwd=tmp_path, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert "leaf.pem: good" in verdict.stdout
    assert "Response verify OK" in verdict.stderr


@pytest.mark.parametrize("safe", ["", "/"], ids=["percent-encoded", "as it is"])
def test_a_question_whose_path_ends_in_a_slash_is_answered(api: Api, low: authorities.Authority, safe: str) -> None:
    text = base64.b64encode(asked_by_sha1(low, 2**153 - 1)).decode()
    assert text.endswith("/")
    answer = api.request("GET", f"/ocsp/{low.id}/{quote(text, safe=safe)}")
    assert library.load_der_ocsp_response(answer.content).certificate_status is library.OCSPCertStatus.UNKNOWN


def test_whatever_is_read_may_be_asked_for_its_headers_alone(
    world: World, api: Api, low: authorities.Authority
) -> None:
    text = quote(base64.b64encode(asked_by_sha1(low, int(leaf(world, low.id).serial, 16))).decode(), safe="")
    for path in (f"/ocsp/{low.id}/{text}", f"/crl/{low.id}.crl", f"/ca/{low.id}.crt", "/healthz", "/api/v1/me"):
        whole, head = api.get(path), api.request("HEAD", path)
        assert (head.status_code, whole.status_code) == (200, 200), path
        for name in ("content-length", "content-type", "etag"):
            assert head.headers.get(name) == whole.headers.get(name), (path, name)
    assert api.anonymous().request("HEAD", "/api/v1/me").status_code == 401
    assert api.request("HEAD", "/api/v1/sign-in").status_code == 405


def test_what_is_known_isnt_said_to_who_doesnt_read(world: World, api: Api, low: authorities.Authority) -> None:
    asked = asked_by_sha1(low, int(leaf(world, low.id).serial, 16))
    first = api.request("POST", f"/ocsp/{low.id}", content=asked)
    known = {"If-None-Match": first.headers["etag"]}
    again = api.request("POST", f"/ocsp/{low.id}", content=asked, headers=known)
    assert (again.status_code, again.content) == (200, first.content)


def test_who_cant_be_answered_at_the_moment_is_told_so_in_the_protocol(
    world: World, api: Api, low: authorities.Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> Any:
        raise Unavailable("database_unavailable", "The database can't be reached at the moment.", fix="Wait.")

    asked = asked_by_sha1(low, 5)
    monkeypatch.setattr(world.services.db, "read", away)
    monkeypatch.setattr(world.services.db, "begin", away)
    answer = api.anonymous().request("POST", f"/ocsp/{low.id}", content=asked)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    response = library.load_der_ocsp_response(answer.content)
    assert response.response_status is library.OCSPResponseStatus.TRY_LATER


@pytest.mark.parametrize(("left", "seconds"), [({"hours": 20}, 3600), ({"minutes": 30}, 900), ({"seconds": 1}, 0)])
def test_no_cache_keeps_an_answer_longer_than_it_lives(
    world: World, api: Api, left: dict[str, float], seconds: int
) -> None:
    low = make(world, BELOW, parent_id=make(world).id, ocsp_enabled=True, days=2)
    asked = asked_by_sha1(low, int(leaf(world, low.id).serial, 16))
    assert low.not_after is not None
    # The end of the CA is that of its responder, and of what that says.
    world.clock.set(low.not_after - timedelta(**left))
    world.drain()
    answer = api.request("POST", f"/ocsp/{low.id}", content=asked)
    assert library.load_der_ocsp_response(answer.content).next_update_utc == low.not_after
    assert f"max-age={seconds}," in answer.headers["cache-control"]


@pytest.mark.parametrize("body", [b"", b"garbage", b"0" * 5000], ids=["nothing", "garbage", "too much"])
def test_what_is_no_question_is_told_so_in_the_protocol(world: World, api: Api, body: bytes) -> None:
    for answer in (api.request("POST", "/ocsp/ca_1", content=body), api.request("GET", "/ocsp/ca_1/garbage")):
        assert answer.status_code == 200
        response = library.load_der_ocsp_response(answer.content)
        assert response.response_status is library.OCSPResponseStatus.MALFORMED_REQUEST


def test_a_key_of_another_project_is_not_taken_along_by_who_may_use_the_ca(
    world: World, low: authorities.Authority
) -> None:
    shop = world.run(people.create_project(world.services, world.actor, name="shop"))
    (made,) = world.run(authorities.issue_leaves(world.services, world.actor, low.id, [CLIENT], project_id=shop.id))
    assert isinstance(made, authorities.Leaf)
    clerk = world.actor_with("ccm:*", project_id=world.project_id)
    for action, more in ((authorities.export_leaf, {"server": "pem"}), (authorities.delete_leaf, {})):
        with pytest.raises(Forbidden):
            world.run(action(world.services, clerk, low.id, made.id, **more))  # type: ignore[operator]  # either of two
    world.run(authorities.export_leaf(world.services, world.actor, low.id, made.id, server="pem"))
