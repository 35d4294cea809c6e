"""CAs renewed: the same name and key, a certificate that ends later. What was issued under the one before goes on."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certwright.kernel.problems import Forbidden, Invalid, NotFound, Problem, Refused
from certwright.rooms import authorities
from certwright.rooms.authorities import store
from certwright.rooms.authorities.words import CaState, IssueRequest
from certwright.x509.certificates import facts_of, load, to_pem
from certwright.x509.crl import read_crl
from certwright.x509.crl import to_pem as crl_to_pem
from certwright.x509.issue import NameConstraints, approve, issuer_facts, key_identifier, new_serial, validity
from certwright.x509.keys import KeyAlgorithm, generate, to_pkcs8_pem
from certwright.x509.ocsp import Question, issuer_digests, read_question
from certwright.x509.renewal import draft_renewal, renewal_profile
from tests.authorities.test_hierarchy import BELOW, do, events_of, leaf, look, make, signed_outside
from tests.conftest import START, Api, World

YEAR = timedelta(days=365)


def der(ca: authorities.Authority) -> bytes:
    assert ca.certificate_der is not None
    return ca.certificate_der


def life(ca: authorities.Authority) -> timedelta:
    assert ca.not_before is not None
    assert ca.not_after is not None
    return ca.not_after - ca.not_before


def renew(world: World, authority_id: str, **asked: Any) -> authorities.Authority:
    return do(world, "renew", authority_id, **asked)


def refused(world: World, authority_id: str, kind: type[Problem] = Refused, **asked: Any) -> str:
    with pytest.raises(kind) as caught:
        renew(world, authority_id, **asked)
    return caught.value.code


def verified(folder: Path, world: World, root: bytes, chain: list[bytes], leaf_der: bytes, *more: str) -> str:
    for name, ders in (("root", [root]), ("chain", chain), ("leaf", [leaf_der])):
        (folder / f"{name}.pem").write_text("".join(to_pem(one) for one in ders))
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-attime", str(int(world.clock.now().timestamp())), *more,
         "-CAfile", "root.pem", "-untrusted", "chain.pem", "leaf.pem"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or done.stderr


def unchanging(certificate: bytes) -> dict[str, Any]:
    """What a renewal leaves as it is."""
    cert = x509.load_der_x509_certificate(certificate)
    facts = issuer_facts(certificate)
    of_the_issuer = {"2.5.29.35", "2.5.29.31", "1.3.6.1.5.5.7.1.1"}
    return {
        "subject": facts.subject_der, "key": facts.spki_sha256, "ski": facts.ski, "issuer": cert.issuer.public_bytes(),
        "signature": cert.signature_algorithm_oid,
    } | {
        e.oid.dotted_string: (e.critical, e.value.public_bytes())
        for e in cert.extensions if e.oid.dotted_string not in of_the_issuer
    }  # fmt: skip


# --- old and new stand in for each other ------------------------------------------------------------------------------


def test_old_and_new_certificates_of_a_root_and_of_a_ca_below_verify_what_either_issued(
    world: World, tmp_path: Path
) -> None:
    root = make(world, days=1000, key_algorithm="RSA_2048")
    below = make(
        world, BELOW, parent_id=root.id, days=500, ocsp_enabled=True,
        constraints=NameConstraints(permitted_dns=("example.com",)), purposes=("server_auth",),
    )  # fmt: skip
    world.later(days=400)
    before = leaf(world, below.id)
    gone = leaf(world, below.id, "gone.example.com")
    new_root, new_below = renew(world, root.id), renew(world, below.id)
    for old, new in ((root, new_root), (below, new_below)):
        assert unchanging(der(new)) == unchanging(der(old))
        assert (new.serial == old.serial, new.state) == (False, CaState.ACTIVE)
        assert new.not_before == world.clock.now() - timedelta(hours=1)
        assert life(new) == life(old)
    after = leaf(world, below.id, "b.example.com")
    world.run(authorities.revoke_leaf(world.services, world.actor, below.id, gone.id, "superseded"))
    world.drain()
    listed = world.run(authorities.newest_crl(world.services, below.id)).der
    (tmp_path / "list.pem").write_text(crl_to_pem(listed))
    for a_root, a_below in ((root, new_below), (new_root, below)):
        path = (der(a_root), [der(a_below)])
        for good in (before, after):
            said = verified(tmp_path, world, *path, good.der, "-crl_check", "-CRLfile", "list.pem")
            assert said == "leaf.pem: OK"
        said = verified(tmp_path, world, *path, gone.der, "-crl_check", "-CRLfile", "list.pem")
        assert "certificate revoked" in said
        assert answered(tmp_path, world, der(a_below), path, before) == "good"
        assert answered(tmp_path, world, der(a_below), path, gone) == "revoked"


def answered(folder: Path, world: World, issuer: bytes, path: tuple[bytes, list[bytes]], one: authorities.Leaf) -> str:
    """What `openssl ocsp` makes of our answer, asked with this certificate of the issuer."""
    for name, found in (("root", [path[0]]), ("chain", path[1]), ("ca", [issuer]), ("leaf", [one.der])):
        (folder / f"{name}.pem").write_text("".join(to_pem(part) for part in found))
    asking = ["openssl", "ocsp", "-issuer", "ca.pem", "-cert", "leaf.pem", "-no_nonce"]
    subprocess.run([*asking, "-reqout", "question"], cwd=folder, check=True, capture_output=True)
    question = read_question((folder / "question").read_bytes())
    answer = world.run(authorities.answer(world.services, one.authority_id, question))
    (folder / "answer").write_bytes(answer.der)
    verdict = subprocess.run(
        [*asking, "-CAfile", "root.pem", "-verify_other", "chain.pem", "-respin", "answer", "-validity_period",
         "1000000000", "-attime", str(int(world.clock.now().timestamp()))],
        cwd=folder, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert "Response verify OK" in verdict.stderr, verdict.stderr
    return verdict.stdout.partition("leaf.pem: ")[2].split()[0]


def test_an_experimental_key_is_renewed_too(world: World) -> None:
    root = make(world, days=1000, key_algorithm="ML_DSA_65")
    world.later(days=30)
    new = renew(world, root.id, days=2000)
    assert unchanging(der(new)) == unchanging(der(root))
    load(der(new)).verify_directly_issued_by(load(der(new)))


def test_lives_are_no_longer_cut_off_and_chains_say_the_new_certificate_everywhere(world: World) -> None:
    """Also where this process remembers what it knew of the CAs."""
    root = make(world, days=1000, path_len=2)
    middle = make(world, BELOW, name="Middle", parent_id=root.id, path_len=1, days=500)
    low = make(world, BELOW, parent_id=middle.id, days=400)
    world.later(days=380)
    cut = leaf(world, low.id)
    assert cut.not_after == low.not_after
    assert exported(world, cut) == [der(low), der(middle)]
    new_middle = renew(world, middle.id)
    assert exported(world, cut) == [der(low), der(new_middle)], "the CA below has another chain from now on"
    new_low = renew(world, low.id)
    whole = leaf(world, low.id)
    assert whole.not_after > cut.not_after + timedelta(days=60)
    for made in (cut, whole):
        assert exported(world, made) == [der(new_low), der(new_middle)]
    new_root = renew(world, root.id)
    assert world.run(authorities.trusted_roots(world.services)) == [der(new_root)]
    assert world.run(authorities.public_certificate(world.services, low.id))[1] == der(new_low)
    chain = world.run(authorities.authority_chain(world.services, world.actor, low.id))
    assert chain == [der(new_low), der(new_middle), der(new_root)]


def exported(world: World, made: authorities.Leaf) -> list[bytes]:
    """What an ACME client fetches above a certificate."""

    async def go() -> list[bytes]:
        async with world.services.db.begin() as tx:
            row = (await tx.execute(sa.select(authorities.LEAF).where(authorities.LEAF.c.id == made.id))).one()
        first, *above = await authorities.chain_of(world.services, row)
        assert first == made.der
        return above

    return world.run(go())


def test_what_is_signed_at_once_goes_by_the_new_certificate(world: World) -> None:
    low = make(world, BELOW, parent_id=make(world).id, days=100)
    world.later(days=80)

    def days_left(reference: str) -> float:
        public = generate(KeyAlgorithm.EC_P256).public_key()
        request = IssueRequest(reference, world.account.id, world.project_id, ("a.example.com",), public)
        signed = world.run(authorities.sign_at_once(world.services, world.actor, low.id, request))
        assert signed is not None
        versions.append(signed.values["ca_version"])
        end: datetime = signed.values["i_not_after"]
        return (end - world.clock.now()) / timedelta(days=1)

    versions: list[str] = []
    assert days_left("r1") < 21
    renew(world, low.id)

    async def holds(version: str) -> bool:
        async with world.services.db.begin() as tx:
            said = {"i_authority_id": low.id, "ca_version": version}
            return bool(await tx.scalar(sa.select(authorities.unchanged()), said))

    days_left("r2")
    assert not world.run(holds(versions[1])), "what this process remembered is refused when it is recorded"
    authorities.forget_known(low.id)
    assert days_left("r3") > 85
    assert world.run(holds(versions[2]))


# --- how long ---------------------------------------------------------------------------------------------------------


def test_a_ca_never_outlives_the_one_above_it(world: World) -> None:
    root = make(world, days=1000)
    below = make(world, BELOW, parent_id=root.id, days=500)
    world.later(days=499)
    new = renew(world, below.id, days=2000)
    assert new.not_after == root.not_after
    assert refused(world, below.id, days=3000) == "ca_renewal_gains_nothing"
    renew(world, root.id)
    assert renew(world, below.id, days=1000).not_after == world.clock.now() - timedelta(hours=1, seconds=1 - 86_400_000)


@pytest.mark.parametrize(
    ("days", "kind", "code"),
    [
        (0, Invalid, "ca_days_out_of_range"), (9132, Invalid, "ca_days_out_of_range"),
        (999, Refused, "ca_renewal_gains_nothing"), (1000, Refused, "ca_renewal_gains_nothing"),
        (None, Refused, "ca_renewal_gains_nothing"),
    ],
)  # fmt: skip
def test_a_renewal_has_to_be_worth_it(world: World, days: int | None, kind: type[Problem], code: str) -> None:
    root = make(world, days=1000)
    world.later(hours=23)
    assert refused(world, root.id, kind, days=days) == code
    assert der(look(world, root.id)) == der(root)
    world.later(hours=1)
    assert renew(world, root.id).revision > root.revision


def test_of_two_at_once_one_wins(world: World) -> None:
    root = make(world, days=1000)
    world.later(days=900)

    async def both(**asked: Any) -> list[Any]:
        work = (authorities.renew_authority(world.services, world.actor, root.id, **asked) for _ in range(2))
        return list(await asyncio.gather(*work, return_exceptions=True))

    for asked, code in (({}, "ca_renewal_gains_nothing"), ({"revision": look(world, root.id).revision + 1}, "stale")):
        found = world.run(both(**asked))
        lost = [one for one in found if isinstance(one, Problem)]
        assert [one.code for one in lost] == [code]
        (won,) = [one for one in found if not isinstance(one, Problem)]
        assert der(look(world, root.id)) == der(won)
        world.later(days=900)


# --- who, and in which state ------------------------------------------------------------------------------------------


def test_strangers_find_no_ca_and_others_need_leave_for_it_and_for_its_parent(world: World) -> None:
    root = make(world, days=1000)
    below = make(world, BELOW, parent_id=root.id, days=500)
    world.later(days=100)

    def by(actor: Any, ca: authorities.Authority) -> None:
        world.run(authorities.renew_authority(world.services, actor, ca.id))

    with pytest.raises(NotFound):
        by(world.other_actor, root)
    with pytest.raises(NotFound):
        by(world.actor_with("ccm:ca:*", project_id=world.other_project_id), root)
    for actor in (
        world.actor_with("ccm:ca:get"),
        world.actor_with("ccm:ca:get", "ccm:ca:update"),
        world.actor_with("ccm:ca:get", "ccm:ca:create"),
    ):
        with pytest.raises(Forbidden):
            by(actor, below)
    by(world.actor_with("ccm:ca:get", "ccm:ca:update"), root)
    by(world.actor_with("ccm:ca:get", "ccm:ca:update", "ccm:ca:create"), below)


def test_only_a_ca_that_is_active_or_has_ended_is_renewed(world: World) -> None:
    root = make(world, days=1000)
    below = make(world, BELOW, parent_id=root.id, days=500)
    waiting = make(world, BELOW, name="Waiting", outside=True)
    world.later(days=100)
    assert refused(world, waiting.id) == "ca_renew_refused"
    do(world, "disable", below.id)
    assert refused(world, below.id) == "ca_renew_refused"
    do(world, "delete", below.id)
    assert refused(world, below.id) == "ca_renew_refused"
    do(world, "restore", below.id)
    do(world, "revoke", below.id)
    assert refused(world, below.id) == "ca_renew_refused"
    do(world, "delete", below.id)
    world.later(days=8)
    world.drain()
    assert refused(world, below.id, NotFound) == "not_found"


def test_the_parent_has_to_be_active(world: World) -> None:
    root = make(world, days=1000, path_len=2)
    middle = make(world, BELOW, name="Middle", parent_id=root.id, path_len=1, days=600)
    low = make(world, BELOW, parent_id=middle.id, days=500)
    world.later(days=300)
    do(world, "disable", middle.id)
    assert refused(world, low.id) == "ca_not_active"
    do(world, "enable", middle.id)
    world.later(days=301)
    assert (look(world, middle.id).state, look(world, low.id).state) == (CaState.EXPIRED, CaState.EXPIRED)
    assert refused(world, low.id) == "ca_not_active"
    do(world, "renew", middle.id, days=399)
    assert renew(world, low.id).state is CaState.ACTIVE
    do(world, "revoke", middle.id)
    assert refused(world, low.id) == "ca_renew_refused"
    do(world, "enable", low.id) if look(world, low.id).state is CaState.ACTIVE else None
    assert look(world, low.id).state is CaState.DISABLED


def test_a_root_that_has_ended_is_renewed_and_its_lists_and_answers_begin_again(world: World) -> None:
    root = make(world, days=100, path_len=0, ocsp_enabled=True)
    gone = leaf(world, root.id)
    world.later(days=101)
    world.drain()
    assert look(world, root.id).state is CaState.EXPIRED
    new = renew(world, root.id)
    assert (new.state, look(world, root.id).problem) == (CaState.ACTIVE, None)
    assert read_crl(world.run(authorities.newest_crl(world.services, root.id)).der).next_update > world.clock.now()
    made = leaf(world, root.id)
    assert made.not_after > gone.not_after
    question = Question("sha1", *issuer_digests(issuer_facts(der(root)), "sha1"), int(made.serial, 16))
    assert world.run(authorities.answer(world.services, root.id, question)).signed_at == world.clock.now()


# --- records ----------------------------------------------------------------------------------------------------------


def test_the_ceremony_is_on_record_with_the_certificate_before(world: World) -> None:
    root = make(world, days=1000)
    below = make(world, BELOW, parent_id=root.id, days=500)
    world.later(days=100)
    for ca in (root, below):
        new = renew(world, ca.id)
        (event,) = (e for e in events_of(world, ca.id) if (e.after or {}).get("operation") == "renew")
        facts = facts_of(der(new))
        assert (event.action, event.actor_id) == ("ccm:ca:update", world.actor.id)
        assert event.before["sha256"] == ca.sha256
        assert event.before["certificate_pem"] == to_pem(der(ca))
        assert (event.after["sha256"], event.after["spki_sha256"]) == (facts.sha256, facts.spki_sha256)


def test_revoking_a_renewed_ca_revokes_every_certificate_it_had(world: World) -> None:
    root = make(world, days=1000)
    below = make(world, BELOW, parent_id=root.id, days=300)
    had = [below.serial]
    for _ in range(2):
        world.later(days=100)
        had.append(renew(world, below.id).serial)
    for one in world.run(authorities.list_leaves(world.services, world.actor, root.id)):
        with pytest.raises(Refused) as refusal:
            world.run(authorities.revoke_leaf(world.services, world.actor, root.id, one.id, "superseded"))
        assert refusal.value.code == "ca_leads_it"
    do(world, "revoke", below.id)
    listed = read_crl(world.run(authorities.newest_crl(world.services, root.id)).der)
    assert set(listed.entries) == set(had)


@pytest.mark.parametrize("after_the_signature", [False, True])
def test_what_ends_before_the_record_leaves_the_ca_as_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch, after_the_signature: bool
) -> None:
    root = make(world, days=1000)
    below = make(world, BELOW, parent_id=root.id, days=500)
    world.later(days=100)
    signer = world.services.port(authorities.Signer)
    sign, signed = signer.sign, []

    async def end(*args: Any) -> bytes:
        signed.append(await sign(*args) if after_the_signature else b"")
        raise asyncio.CancelledError

    monkeypatch.setattr(signer, "sign", end)
    with pytest.raises(asyncio.CancelledError):
        world.run(authorities.renew_authority(world.services, world.actor, below.id))
    monkeypatch.undo()
    assert len(signed) == 1
    assert look(world, below.id) == below
    assert len(world.run(authorities.list_leaves(world.services, world.actor, root.id))) == 1
    assert renew(world, below.id).serial != below.serial


# --- a parent elsewhere, CAs brought along ----------------------------------------------------------------------------


def test_the_parent_outside_signs_the_same_request_again(world: World, tmp_path: Path) -> None:
    waiting = make(world, BELOW, outside=True)
    assert waiting.csr_der is not None
    first = signed_outside(world, waiting.csr_der)
    old = install(world, waiting.id, *first)
    made = leaf(world, waiting.id)
    number = look(world, waiting.id).crl_number
    world.later(days=30)
    assert refused(world, waiting.id) == "ca_renewed_outside"
    second = signed_outside(world, look(world, waiting.id).csr_der or b"")
    new = install(world, waiting.id, *second)
    assert (new.sha256 == old.sha256, new.state) == (False, CaState.ACTIVE)
    assert look(world, waiting.id).crl_number >= number, "its lists go on rising"
    again = leaf(world, waiting.id)
    for (below, root), good in ((first, again), (second, made), (second, again)):
        assert verified(tmp_path, world, root, [below], good.der) == "leaf.pem: OK"
    assert exported(world, again) == [second[0]]
    assert [e.before.get("sha256") for e in events_of(world, waiting.id) if (e.after or {}).get("operation")] == [
        old.sha256
    ]


def install(world: World, authority_id: str, *ders: bytes) -> authorities.Authority:
    text = "".join(to_pem(one) for one in ders)
    world.run(authorities.install_certificate(world.services, world.actor, authority_id, text))
    world.drain()
    return look(world, authority_id)


def elsewhere(public: Any, subject: str = "As the parent wishes", ski: bytes | None = None) -> list[bytes]:
    """Another organisation's root, and what it makes of this key."""
    key = ec.generate_private_key(ec.SECP256R1())
    own, root = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (subject, "Elsewhere"))
    found = []
    for name, one in ((own, public), (root, key.public_key())):
        digest = ski if ski is not None and one is public else key_identifier(one)
        found.append(
            x509.CertificateBuilder().subject_name(name).issuer_name(root).public_key(one)
            .serial_number(x509.random_serial_number()).not_valid_before(START).not_valid_after(START + 2 * YEAR)
            .add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(x509.SubjectKeyIdentifier(digest), False)
            .sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
        )  # fmt: skip
    return found


def test_only_the_same_subject_key_and_identifier_take_the_place_of_a_certificate(world: World) -> None:
    waiting = make(world, BELOW, outside=True)
    assert waiting.csr_der is not None
    old = install(world, waiting.id, *(first := signed_outside(world, waiting.csr_der)))
    public = load(der(old)).public_key()
    stranger = ec.generate_private_key(ec.SECP256R1()).public_key()
    for ders, code in (
        (first, "ca_certificate_installed"),
        (elsewhere(stranger), "ca_certificate_other_key"),
        (elsewhere(public, "Another"), "ca_certificate_other_subject"),
        (elsewhere(public, ski=b"x" * 20), "ca_certificate_other_identifier"),
    ):
        with pytest.raises(Problem) as refusal:
            install(world, waiting.id, *ders)
        assert refusal.value.code == code
        assert look(world, waiting.id) == old
    own = make(world, name="Own", days=1000)
    below = make(world, BELOW, name="Own below", parent_id=own.id)
    with pytest.raises(Refused) as here:
        install(world, below.id, *elsewhere(load(der(below)).public_key(), "Test issuing CA"))
    assert here.value.code == "ca_install_refused"
    assert install(world, waiting.id, *elsewhere(public)).sha256 != old.sha256


def test_a_root_brought_along_keeps_all_that_it_says(world: World, tmp_path: Path) -> None:
    """As programs of others make them: more usages, a policy, its issuer's serial number in the key identifier."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([
        x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Old Shop", x509.name._ASN1Type.PrintableString),
        x509.NameAttribute(NameOID.COMMON_NAME, "Old Shop CA"),
    ])  # fmt: skip
    serial = x509.random_serial_number()
    ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only"), False,
    )  # fmt: skip
    policy = x509.PolicyInformation(x509.ObjectIdentifier("1.2.3.4"), None)
    old = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(serial).not_valid_before(START).not_valid_after(START + YEAR)
        .add_extension(x509.BasicConstraints(True, 0), True)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), True)
        .add_extension(ski, False)
        .add_extension(x509.AuthorityKeyIdentifier(ski.digest, [x509.DirectoryName(name)], serial), False)
        .add_extension(x509.CertificatePolicies([policy]), False)
        .sign(key, hashes.SHA384())
    )  # fmt: skip
    ca = world.run(
        authorities.import_authority(
            world.services, world.actor, name="Old", certificate=to_pem(old.public_bytes(Encoding.DER)),
            private_key=to_pkcs8_pem(key).decode(),
        )
    )  # fmt: skip
    world.later(days=300)
    made = leaf(world, ca.id)
    new = renew(world, ca.id, days=3650)
    assert unchanging(der(new)) == unchanging(der(ca))
    aki = load(der(new)).extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert (aki.key_identifier, aki.authority_cert_serial_number) == (ski.digest, None)
    for a_root in (ca, new):
        assert verified(tmp_path, world, der(a_root), [der(a_root)], made.der) == "leaf.pem: OK"


# --- through the doors ------------------------------------------------------------------------------------------------


def test_the_api_renews_what_was_read(api: Api) -> None:
    world = api.world
    root = make(world, days=1000)
    world.later(days=900)
    api = api.as_actor(world.actor)
    path = f"/api/v1/authorities/{root.id}"
    assert api.post(f"{path}/renew", {}).status_code == 428
    assert api.post(f"{path}/renew", {}, headers={"if-match": '"99"'}).status_code == 412
    done = api.post(f"{path}/renew", {"days": 2000}, headers={"if-match": api.get(path).headers["etag"]})
    assert done.status_code == 200, done.text
    assert done.json()["sha256"] != root.sha256
    assert api.get(path).headers["etag"] == done.headers["etag"]
    assert api.get(f"/ca/{root.id}.pem").text == done.json()["certificate_pem"] == api.get("/ca/roots.pem").text
    limited = api.as_actor(world.other_actor)
    assert limited.post(f"{path}/renew", {}, headers={"if-match": done.headers["etag"]}).status_code == 404


def test_a_signing_process_of_its_own_renews_and_signs_no_other_root(world: World, tmp_path: Path) -> None:
    local = world.services.port(authorities.Signer)
    assert isinstance(local, authorities.LocalSigner)
    server, asking = authorities.SigningServer(world.services, local), authorities.RemoteSigner(tmp_path / "socket")
    world.run(server.listen(tmp_path / "socket"))
    world.services.ports[authorities.Signer] = asking  # type: ignore[index]  # a plain dict, in the tests
    try:
        root = make(world, days=1000, path_len=1)
        below = make(world, BELOW, parent_id=root.id, days=500)
        world.later(days=450)
        cut = leaf(world, below.id)
        new_root, new_below = renew(world, root.id), renew(world, below.id)
        whole = leaf(world, below.id)
        assert whole.not_after > cut.not_after
        assert verified(tmp_path, world, der(new_root), [der(new_below)], whole.der) == "leaf.pem: OK"
        assert [code_of(world, ca, changes) for ca, changes in (
            (root, {}), (root, {"path_len": None}), (root, {"subject_der": other_name()}), (below, {}),
        )] == ["", "signer_refused", "signer_refused", "signer_refused"]  # fmt: skip
    finally:
        asking.close()
        world.run(server.close())
        world.services.ports[authorities.Signer] = local  # type: ignore[index]


def other_name() -> bytes:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Another root")]).public_bytes()


def code_of(world: World, ca: authorities.Authority, changes: dict[str, Any]) -> str:
    """How the signing process refuses to have this CA sign for itself once more; empty where it does."""
    facts = replace(issuer_facts(der(look(world, ca.id))), **changes)
    profile = replace(renewal_profile(facts, root=True, seconds=3650 * 86_400), path_len=facts.path_len)
    kept = facts
    if "path_len" in changes:
        wide = x509.BasicConstraints(True, None)
        kept = replace(facts, der=widened(facts.der, wide))
    start, end = validity(profile, None, at=world.clock.now())
    linted = approve(draft_renewal(
        kept, profile=profile, issuer=None, serial=new_serial(), not_before=start, not_after=end,
        hash_name=look(world, ca.id).hash_name,
    ))  # fmt: skip

    async def go() -> None:
        async with world.services.db.begin() as tx:
            row = await store.any_row(tx, ca.id)
        await world.services.port(authorities.Signer).sign(None, row.ca_key_id, linted)

    try:
        world.run(go())
    except Problem as problem:
        return problem.code
    return ""


def widened(certificate: bytes, basic: x509.BasicConstraints) -> bytes:
    """The same with other basic constraints, signed by nobody who counts."""
    old = load(certificate)
    made = x509.CertificateBuilder(
        old.issuer, old.subject, old.public_key(), old.serial_number, old.not_valid_before_utc, old.not_valid_after_utc
    )  # fmt: skip
    for extension in old.extensions:
        value = basic if isinstance(extension.value, x509.BasicConstraints) else extension.value
        made = made.add_extension(value, extension.critical)
    return made.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)
