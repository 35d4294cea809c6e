"""Requests kept on their own: made, uploaded, exported, moved, deleted, applied with. On a real database."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from certwright.kernel.actor import Actor
from certwright.kernel.problems import Forbidden, Invalid, InvalidFields, NotFound, Problem, Refused, Stale
from certwright.platform.events import Event
from certwright.rooms import access, authorities, certificates, csrs
from certwright.rooms.audit.tables import audit_events
from certwright.rooms.certificates import Applicant, Application, RevocationReason, State, applications, versions
from certwright.rooms.certificates.actions import STEP
from certwright.rooms.certificates.tables import certificates as certificates_table
from certwright.rooms.keys.tables import private_keys
from certwright.x509.csr import make_csr, read_csr, to_pem
from certwright.x509.keys import KeyAlgorithm, from_pkcs8_der, generate, read_private_key, spki_sha256, to_pkcs8_pem
from tests.conftest import World

NAME = "shop.demo.localhost"
ANN = Applicant("Ann", "ann@one.example", "+49 30 123456")


def made(world: World, actor: Actor | None = None, **fields: Any) -> csrs.Csr:
    fields = {"names": [NAME]} | fields
    return world.run(csrs.generate(world.services, actor or world.actor, **fields))


def uploaded(world: World, key: Any, *, with_key: bool = True, **fields: Any) -> csrs.Csr:
    request = to_pem(make_csr(key, [NAME])).decode()
    pem = to_pkcs8_pem(key).decode() if with_key else None
    return world.run(csrs.upload(world.services, world.actor, csr=request, private_key=pem, **fields))


def get(world: World, csr_id: str, actor: Actor | None = None) -> csrs.Csr:
    return world.run(csrs.get_csr(world.services, actor or world.actor, csr_id))


def rows(world: World, query: sa.Select[Any]) -> list[Any]:
    async def read() -> list[Any]:
        async with world.services.db.begin() as tx:
            return list((await tx.execute(query)).all())

    return world.run(read())


def exported(world: World, csr_id: str, passphrase: str | None = None) -> bytes:
    return world.run(csrs.export_key(world.services, world.actor, csr_id, passphrase)).content


def another_project(world: World) -> str:
    return world.run(access.people.create_project(world.services, world.actor, name="other")).id


# --- making ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384, KeyAlgorithm.RSA_2048])
def test_a_request_made_here_is_signed_by_the_key_that_is_kept(world: World, algorithm: KeyAlgorithm) -> None:
    subject = csrs.Subject(NAME, "Example Ltd", "Web", "de", "Berlin", "Berlin")
    csr = made(world, names=["10.0.0.1", "b.example"], subject=subject, key_algorithm=algorithm.value, name="shop-2026")
    request = x509.load_pem_x509_csr(csr.pem.encode())
    assert request.is_signature_valid
    assert request.subject.rfc4514_string() == f"CN={NAME},OU=Web,O=Example Ltd,L=Berlin,ST=Berlin,C=DE"
    assert csr.names == (NAME, "b.example", "10.0.0.1")
    assert csr.subject.country == "DE"
    assert (csr.name, csr.origin, csr.has_key, csr.used_by) == ("shop-2026", "generated", True, csrs.UsedBy())
    key = serialization.load_pem_private_key(exported(world, csr.id), None)
    assert spki_sha256(key.public_key()) == csr.spki_sha256  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.RSA_3072, KeyAlgorithm.RSA_4096])
def test_long_rsa_keys_are_made_too(world: World, algorithm: KeyAlgorithm) -> None:
    assert made(world, key_algorithm=algorithm.value).key_algorithm == algorithm.value.replace("_", " ")


def test_a_request_without_a_name_gets_one_and_names_are_taken_once(world: World) -> None:
    assert made(world).name.startswith("csr-")
    made(world, name="shop")
    with pytest.raises(Refused) as refused:
        made(world, name="shop")
    assert refused.value.code == "csr_name_taken"
    stored = rows(world, sa.select(sa.func.count()).select_from(private_keys))
    assert stored == [(2,)], "the key of the refused one was not kept"
    assert world.run(csrs.generate(world.services, world.other_actor, names=[NAME], name="shop")).name == "shop"


@pytest.mark.parametrize("algorithm", ["RSA_1024", "EC_P521", "", "x" * 1000])
def test_other_algorithms_are_not_made(world: World, algorithm: str) -> None:
    with pytest.raises(Invalid) as refused:
        made(world, key_algorithm=algorithm)
    assert refused.value.code == "key_algorithm_unknown"


# --- uploading -------------------------------------------------------------------------------------------------------

KEYS = {
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "RSA 2048": lambda: rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_request_is_uploaded_alone_or_with_its_key(world: World, kind: str) -> None:
    key = KEYS[kind]()
    alone = uploaded(world, key, with_key=False)
    assert (alone.has_key, alone.origin, alone.names) == (False, "uploaded", (NAME,))
    both = uploaded(world, key)
    assert both.has_key
    assert spki_sha256(read_private_key(exported(world, both.id)).public_key()) == alone.spki_sha256


def test_a_key_with_a_passphrase_is_opened_once_and_kept_sealed(world: World) -> None:
    key = generate(KeyAlgorithm.EC_P256)
    request, locked = to_pem(make_csr(key, [NAME])).decode(), to_pkcs8_pem(key, b"pelican").decode()
    for passphrase, code in ((None, "key_encrypted"), ("wrong", "wrong_passphrase")):
        with pytest.raises(Invalid) as refused:
            world.run(csrs.upload(world.services, world.actor, csr=request, private_key=locked, passphrase=passphrase))
        assert refused.value.code == code
    kept = world.run(
        csrs.upload(world.services, world.actor, csr=request, private_key=locked, passphrase="pelican")
    )  # fmt: skip
    assert kept.has_key
    assert b"pelican" not in b"".join(bytes(sealed) for (sealed,) in rows(world, sa.select(private_keys.c.sealed)))


def _tampered() -> str:
    der = bytearray(make_csr(generate(KeyAlgorithm.EC_P256), [NAME]))
    der[-1] ^= 1
    return to_pem(bytes(der)).decode()


def _weak() -> str:
    key = rsa.generate_private_key(65537, 1024)
    return to_pem(make_csr(key, [NAME])).decode()


GOOD = generate(KeyAlgorithm.EC_P256)
REFUSED = [
    ("another key", lambda: to_pem(make_csr(GOOD, [NAME])).decode(), lambda: generate(KeyAlgorithm.EC_P256),
     "key_mismatch"),
    ("a key of another kind", lambda: to_pem(make_csr(GOOD, [NAME])).decode(), KEYS["RSA 2048"], "key_mismatch"),
    ("changed after signing", _tampered, None, "csr_bad_signature"),
    ("a weak key", _weak, None, "weak_key"),
    ("garbage", lambda: "garbage", None, "csr_format"),
    ("nothing", lambda: "  ", None, "csr_missing"),
    ("too much", lambda: "A" * (1024 * 1024 + 1), None, "too_large"),
    ("half a surrogate pair", lambda: "\ud800", None, "text_invalid"),
    ("a key where the request belongs", lambda: to_pkcs8_pem(GOOD).decode(), None, "wrong_block"),
]  # fmt: skip


@pytest.mark.parametrize(("request_of", "key_of", "code"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_uploads_that_are_refused_leave_nothing_and_say_nothing_secret(
    world: World, request_of: Any, key_of: Any, code: str
) -> None:
    key = to_pkcs8_pem(key_of()).decode() if key_of else None
    with pytest.raises(Problem) as refused:
        world.run(csrs.upload(world.services, world.actor, csr=request_of(), private_key=key))
    assert refused.value.code == code
    said = json.dumps(refused.value.as_dict())
    for secret in (key or "", to_pkcs8_pem(GOOD).decode()):
        assert not any(line in said for line in secret.splitlines() if len(line) > 30 and "-----" not in line)
    assert rows(world, sa.select(private_keys.c.id)) == []
    assert world.run(csrs.list_csrs(world.services, world.actor)) == ()


def test_hostile_text_in_a_subject_is_shown_without_what_the_database_cannot_hold(world: World) -> None:
    key = generate(KeyAlgorithm.EC_P256)
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "a\x00b\x1b[31m" + "c" * 500)])
    )
    san = x509.SubjectAlternativeName([x509.DNSName(NAME)])
    request = builder.add_extension(san, critical=False).sign(key, hashes.SHA256())  # type: ignore[arg-type]
    pem = request.public_bytes(serialization.Encoding.PEM).decode()
    kept = world.run(csrs.upload(world.services, world.actor, csr=pem))
    assert kept.subject.organization == "ab[31m" + "c" * 122
    assert read_csr(kept.pem.encode()).der == request.public_bytes(serialization.Encoding.DER)


# --- listing, renaming, moving ---------------------------------------------------------------------------------------


def test_lists_are_filtered_and_go_on_by_keyset(world: World) -> None:
    first = made(world, name="one", names=["bücher.example"])
    world.later(seconds=1)
    second = made(world, name="two", names=["a.example"], subject=csrs.Subject(common_name="Web Shop"))
    world.later(seconds=1)
    third = uploaded(world, generate(KeyAlgorithm.EC_P256), with_key=False, name="three")

    def found(**how: Any) -> list[str]:
        return [csr.name for csr in world.run(csrs.list_csrs(world.services, world.actor, **how))]

    assert found() == ["three", "two", "one"]
    assert found(limit=2) == ["three", "two"]
    assert found(limit=2, after=second.id) == ["one"]
    assert found(name="two") == ["two"]
    assert found(name="tw") == []
    assert found(search="BÜCHER") == ["one"]
    assert found(search="xn--bcher") == ["one"]
    assert found(search="web shop") == ["two"]
    assert found(search="%") == []
    assert found(has_key=False) == ["three"]
    assert found(project_id="prj_none") == []
    assert {first.id, second.id, third.id} == {c.id for c in world.run(csrs.list_csrs(world.services, world.actor))}


def test_renaming_takes_the_revision_that_was_read(world: World) -> None:
    csr = made(world, name="one")
    renamed = world.run(csrs.update_csr(world.services, world.actor, csr.id, revision=csr.revision, name="uno"))
    assert (renamed.name, renamed.revision) == ("uno", csr.revision + 1)
    assert [c.name for c in world.run(csrs.list_csrs(world.services, world.actor, search="uno"))] == ["uno"]
    with pytest.raises(Stale):
        world.run(csrs.update_csr(world.services, world.actor, csr.id, revision=csr.revision, name="eins"))
    made(world, name="two")
    for name, code in (("two", "csr_name_taken"), ("!", "csr_name_invalid")):
        with pytest.raises(Problem) as refused:
            world.run(csrs.update_csr(world.services, world.actor, csr.id, revision=renamed.revision, name=name))
        assert refused.value.code == code


def test_a_request_moves_with_its_key_and_nobody_gains_rights_by_it(world: World) -> None:
    csr, other = made(world), another_project(world)
    told: list[str] = []

    async def hear(_services: Any, event: Event) -> None:
        told.append(event.object_id)

    world.services.events.subscribe("csr.moved", "test", hear)
    mover = world.actor_with("scm:csr:get", "scm:csr:update")
    with pytest.raises(Forbidden) as refused:
        world.run(csrs.update_csr(world.services, mover, csr.id, revision=1, project_id=other))
    assert refused.value.code == "move_gives_rights"
    assert refused.value.extra["actions"] == ["scm:csr:export_key"]
    moved = world.run(csrs.update_csr(world.services, world.actor, csr.id, revision=1, project_id=other))
    assert moved.project_id == other
    assert rows(world, sa.select(private_keys.c.project_id)) == [(other,)]
    world.drain()
    assert told == [csr.id]
    with pytest.raises(NotFound):
        world.run(
            csrs.update_csr(world.services, world.actor, csr.id, revision=2, project_id=world.other_project_id)
        )  # fmt: skip


# --- exporting and deleting ------------------------------------------------------------------------------------------


def test_exports_are_files_of_the_request_and_of_its_key_encrypted_if_asked(world: World) -> None:
    csr = made(world, name="shop")
    pem = world.run(csrs.export_csr(world.services, world.actor, csr.id))
    der = world.run(csrs.export_csr(world.services, world.actor, csr.id, "der"))
    assert (pem.file_name, pem.content.decode()) == ("shop.csr", csr.pem)
    assert (der.file_name, to_pem(der.content).decode()) == ("shop.der", csr.pem)
    with pytest.raises(Invalid):
        world.run(csrs.export_csr(world.services, world.actor, csr.id, "pfx"))
    locked = exported(world, csr.id, "pelican ä")
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in locked
    with pytest.raises(TypeError):
        serialization.load_pem_private_key(locked, None)
    key = serialization.load_pem_private_key(locked, "pelican ä".encode())
    assert spki_sha256(key.public_key()) == csr.spki_sha256  # type: ignore[arg-type]


def test_every_export_of_a_key_is_in_the_audit_log_and_no_key_ever_is(world: World) -> None:
    csr = made(world)
    pem = exported(world, csr.id)
    exported(world, csr.id, "pelican")
    events = rows(world, sa.select(audit_events).order_by(audit_events.c.id))
    assert sorted(e.after["encrypted"] for e in events if e.action == "scm:csr:export_key") == [False, True]
    assert [e.object_type for e in events if e.action == "scm:key:read"] == ["key", "key"]
    text = json.dumps([[str(value) for value in row] for row in events])
    assert "pelican" not in text
    body = pem.decode().splitlines()[1]
    assert body not in text
    assert base64.b64decode(body)[:40].hex() not in text


def test_a_key_that_is_not_held_cannot_be_exported(world: World) -> None:
    csr = uploaded(world, generate(KeyAlgorithm.EC_P256), with_key=False)
    with pytest.raises(Refused) as refused:
        exported(world, csr.id)
    assert refused.value.code == "csr_without_key"


def test_deleting_erases_the_key_and_is_told(world: World) -> None:
    csr = made(world)
    world.run(csrs.delete_csr(world.services, world.actor, csr.id))
    assert rows(world, sa.select(private_keys.c.sealed)) == [(None,)]
    with pytest.raises(NotFound):
        get(world, csr.id)
    with pytest.raises(NotFound):
        world.run(csrs.delete_csr(world.services, world.actor, csr.id))
    assert "scm:csr:delete" in [action for (action,) in rows(world, sa.select(audit_events.c.action))]


# --- doors that are shut ---------------------------------------------------------------------------------------------

DOORS = {
    "scm:csr:get": lambda s, a, i: csrs.get_csr(s, a, i),
    "scm:csr:update": lambda s, a, i: csrs.update_csr(s, a, i, revision=1, name="mine"),
    "scm:csr:delete": lambda s, a, i: csrs.delete_csr(s, a, i),
    "scm:csr:export_key": lambda s, a, i: csrs.export_key(s, a, i),
    "scm:csr:use": lambda s, a, i: certificates.create_certificate(
        s, a, application=Application(csr_id=i, applicant=ANN, consent=True)
    ),
}


@pytest.mark.parametrize("action", DOORS)
def test_each_door_takes_its_permission_and_its_account(world: World, action: str) -> None:
    csr = made(world)
    with pytest.raises(NotFound):
        world.run(DOORS[action](world.services, world.other_actor, csr.id))
    others = [a for a in DOORS if a not in (action, "scm:csr:export_key")] + ["scm:cert:apply"]
    with pytest.raises((Forbidden, NotFound)):
        world.run(DOORS[action](world.services, world.actor_with(*others), csr.id))
    elsewhere = world.actor_with("*", project_id=another_project(world))
    with pytest.raises((NotFound, Forbidden)):
        world.run(DOORS[action](world.services, elsewhere, csr.id))
    able = world.actor_with(action, "scm:csr:get", "scm:cert:apply", "scm:cert:get")
    world.run(DOORS[action](world.services, able, csr.id))


def test_making_and_listing_take_their_permissions(world: World) -> None:
    made(world)
    reader = world.actor_with("scm:csr:list")
    assert len(world.run(csrs.list_csrs(world.services, reader))) == 1
    assert world.run(csrs.list_csrs(world.services, world.actor_with("scm:csr:get"))) == ()
    assert world.run(csrs.list_csrs(world.services, world.other_actor)) == ()
    with pytest.raises(Forbidden):
        made(world, reader)
    with pytest.raises(Forbidden):
        world.run(csrs.upload(world.services, reader, csr="anything"))


def test_a_policy_may_name_one_request(world: World) -> None:
    mine, theirs = made(world), made(world)
    actor = world.actor_with("scm:csr:list", "scm:csr:get", resources=(f"csr:{mine.id}",))
    assert [c.id for c in world.run(csrs.list_csrs(world.services, actor))] == [mine.id]
    with pytest.raises(NotFound):
        get(world, theirs.id, actor)


# --- applying with one -----------------------------------------------------------------------------------------------


def applied(world: World, csr_id: str, actor: Actor | None = None, **fields: Any) -> certificates.Detail:
    application = Application(csr_id=csr_id, applicant=ANN, consent=True, **fields)
    return world.run(
        certificates.create_certificate(world.services, actor or world.actor, application=application)
    )  # fmt: skip


@pytest.fixture
def builtin_ca(world: World) -> None:
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))


def issued(world: World, csr_id: str, **fields: Any) -> certificates.Detail:
    waiting = applied(world, csr_id, **fields)
    world.drain()
    return now_issued(world, waiting.id)


def now_issued(world: World, certificate_id: str) -> certificates.Detail:
    world.run(_show_domains(world, certificate_id))
    world.drain()
    detail = world.run(certificates.get_certificate(world.services, world.actor, certificate_id))
    assert detail.summary.state is State.ISSUED
    return detail


async def _show_domains(world: World, certificate_id: str) -> None:
    """What is on record once every name was shown; how that is done is tested elsewhere."""
    async with world.services.db.begin() as tx:
        waiting = sa.and_(applications.c.certificate_id == certificate_id, applications.c.issued_at.is_(None))
        ids = (await tx.scalars(sa.select(applications.c.id).where(waiting))).all()
        await tx.execute(sa.update(applications).where(waiting).values(validated_at=world.clock.now()))
        await tx.execute(
            sa.update(certificates_table)
            .where(
                certificates_table.c.id == certificate_id, certificates_table.c.stage == "pending_domain_validation"
            )
            .values(stage="to_be_issued")
        )  # fmt: skip
        for application_id in ids:
            await world.services.jobs.start(tx, STEP, application_id)


def spki_of(detail: certificates.Detail, world: World) -> list[str]:
    query = sa.select(versions.c.spki_sha256).where(versions.c.certificate_id == detail.id).order_by(versions.c.number)
    return [spki for (spki,) in rows(world, query)]


@pytest.mark.usefixtures("builtin_ca")
def test_a_certificate_gets_the_key_of_a_kept_request_and_each_lives_on_alone(world: World) -> None:
    csr = made(world)
    waiting = applied(world, csr.id)
    assert get(world, csr.id).used_by == csrs.UsedBy(1, 1)
    with pytest.raises(Refused) as refused:
        world.run(csrs.delete_csr(world.services, world.actor, csr.id))
    assert refused.value.code == "csr_in_use"
    detail = now_issued(world, waiting.id)
    assert detail.application is not None
    assert (detail.application.key_source, detail.application.csr_id) == ("system", csr.id)
    assert detail.versions[0].has_key
    assert detail.summary.auto_renew
    assert {"deploy", "export_key", "reissue", "set_auto_renew"} <= set(detail.allowed_operations)
    assert spki_of(detail, world) == [csr.spki_sha256]
    assert get(world, csr.id).used_by == csrs.UsedBy(1, 0)

    world.run(csrs.delete_csr(world.services, world.actor, csr.id))
    file = world.run(certificates.download(world.services, world.actor, detail.id, "key"))
    assert spki_sha256(read_private_key(file.content).public_key()) == csr.spki_sha256


@pytest.mark.usefixtures("builtin_ca")
def test_deleting_the_certificate_leaves_the_request_its_key(world: World) -> None:
    csr = made(world)
    detail = issued(world, csr.id)
    world.run(certificates.delete_certificate(world.services, world.actor, detail.id))
    assert get(world, csr.id).used_by == csrs.UsedBy()
    assert spki_sha256(read_private_key(exported(world, csr.id)).public_key()) == csr.spki_sha256


@pytest.mark.usefixtures("builtin_ca")
def test_a_request_without_its_key_makes_a_certificate_that_is_its_owners_to_renew(world: World) -> None:
    csr = uploaded(world, generate(KeyAlgorithm.EC_P256), with_key=False)
    detail = issued(world, csr.id)
    assert detail.application is not None
    assert detail.application.key_source == "uploaded_csr"
    assert not detail.summary.auto_renew
    assert {"deploy", "export_key", "set_auto_renew"}.isdisjoint(detail.allowed_operations)


@pytest.mark.usefixtures("builtin_ca")
def test_a_new_version_gets_a_new_key_unless_the_key_was_pinned(world: World) -> None:
    fresh = issued(world, made(world, key_algorithm="EC_P384").id)
    pinned_csr = made(world)
    pinned = issued(world, pinned_csr.id, pin_key=True)
    for detail in (fresh, pinned):
        world.run(certificates.reissue(world.services, world.actor, detail.id))
        now_issued(world, detail.id)
    first, second = spki_of(fresh, world)
    assert first != second
    again = world.run(certificates.get_certificate(world.services, world.actor, fresh.id))
    assert again.versions[0].key_algorithm == "EC P-384"
    assert spki_of(pinned, world) == [pinned_csr.spki_sha256] * 2
    world.run(csrs.delete_csr(world.services, world.actor, pinned_csr.id))
    world.run(certificates.reissue(world.services, world.actor, pinned.id))
    now_issued(world, pinned.id)
    assert spki_of(pinned, world) == [pinned_csr.spki_sha256] * 3


@pytest.mark.usefixtures("builtin_ca")
def test_a_pinned_key_that_somebody_else_may_have_is_not_used_again(world: World) -> None:
    csr = made(world)
    detail = issued(world, csr.id, pin_key=True)
    world.run(certificates.reissue(world.services, world.actor, detail.id))
    world.run(certificates.revoke(world.services, world.actor, detail.id, RevocationReason.KEY_COMPROMISE))
    after = now_issued(world, detail.id)
    first, second = spki_of(after, world)
    assert first == csr.spki_sha256
    assert second != first
    world.run(certificates.reissue(world.services, world.actor, detail.id))
    now_issued(world, detail.id)
    assert len(set(spki_of(after, world))) == 3


WRONG = [
    ("both a CSR and an id", {"csr": "x"}, "csr_given_twice", "csr_id"),
    ("other names than the request's", {"names": ("other.example",)}, "csr_names_differ", "names"),
]


@pytest.mark.parametrize(("fields", "code", "field"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_applications_that_contradict_their_request(world: World, fields: Any, code: str, field: str) -> None:
    csr = made(world)
    with pytest.raises(Invalid) as refused:
        applied(world, csr.id, **fields)
    assert (refused.value.code, refused.value.field) == (code, field)
    assert get(world, csr.id).used_by == csrs.UsedBy()


def test_a_key_a_public_ca_does_not_take_is_refused_where_the_id_was_given(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    csr = uploaded(world, ed25519.Ed25519PrivateKey.generate())
    builtin = world.services.port(certificates.AuthorityDirectory).by_id[certificates.BUILTIN_CA]
    monkeypatch.setattr(builtin, "capabilities", replace(builtin.capabilities, public=True))
    with pytest.raises(InvalidFields) as refused:
        applied(world, csr.id)
    assert {(p.code, p.field) for p in refused.value.problems} >= {("unsupported_curve", "csr_id")}
    assert get(world, csr.id).used_by == csrs.UsedBy()


def test_only_a_key_that_is_held_can_be_pinned(world: World) -> None:
    csr = uploaded(world, generate(KeyAlgorithm.EC_P256), with_key=False)
    with pytest.raises(Invalid) as refused:
        applied(world, csr.id, pin_key=True)
    assert (refused.value.code, refused.value.field) == ("pin_key_not_held", "pin_key")
    plain = Application(names=(NAME,), applicant=ANN, consent=True, pin_key=True)
    with pytest.raises(Invalid, match="kept here"):
        world.run(certificates.create_certificate(world.services, world.actor, application=plain))


def test_applying_is_no_detour_to_a_key(world: World) -> None:
    csr = made(world)
    rights = ("scm:csr:get", "scm:csr:use", "scm:cert:apply", "scm:cert:get")
    thief = world.actor_with(*rights, "scm:cert:export_key")
    with pytest.raises(Forbidden) as refused:
        applied(world, csr.id, thief)
    assert refused.value.code == "csr_key_gives_rights"
    applied(world, csr.id, world.actor_with(*rights))
    applied(world, csr.id, world.actor_with(*rights, "scm:cert:export_key", "scm:csr:export_key"))
    other = another_project(world)
    application = Application(csr_id=csr.id, applicant=ANN, consent=True)
    with pytest.raises(Forbidden) as refused:
        world.run(
            certificates.create_certificate(
                world.services, world.actor_with(*rights), application=application, project_id=other
            )
        )
    assert refused.value.code == "csr_key_gives_rights"


def test_a_withdrawn_application_keeps_the_request_in_its_draft(world: World) -> None:
    csr = made(world)
    waiting = applied(world, csr.id, pin_key=True)
    world.run(certificates.withdraw(world.services, world.actor, waiting.id))
    draft = world.run(certificates.read_draft(world.services, world.actor, waiting.id))
    assert (draft["csr_id"], draft["pin_key"], draft["key_algorithm"]) == (csr.id, True, "EC_P256")
    world.run(csrs.delete_csr(world.services, world.actor, csr.id))
    with pytest.raises(NotFound):
        world.run(
            certificates.apply(
                world.services, world.actor, waiting.id, Application(csr_id=csr.id, applicant=ANN, consent=True)
            )
        )


@pytest.mark.usefixtures("builtin_ca")
def test_what_is_stored_of_a_key_is_sealed(world: World) -> None:
    key = generate(KeyAlgorithm.EC_P256)
    csr = uploaded(world, key)
    issued(world, csr.id)
    sealed = [bytes(value) for (value,) in rows(world, sa.select(private_keys.c.sealed))]
    plain = serialization.load_pem_private_key(exported(world, csr.id), None).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert len(sealed) == len(set(sealed)) == 2
    assert from_pkcs8_der(plain)
    assert not any(plain[-60:-20] in value for value in sealed)
