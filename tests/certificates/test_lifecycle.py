"""Certificates from application to deletion, on a real database, the built-in CA and a real web server to look at."""

from __future__ import annotations

import asyncio
import contextvars
import io
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.problems import Forbidden, Invalid, InvalidFields, NotFound, Refused, Stale
from certwright.platform import jobs
from certwright.platform.config import Settings
from certwright.platform.events import events
from certwright.rooms import audit, authorities, certificates
from certwright.rooms.certificates import Applicant, Application, Operation, RevocationReason, State, store
from certwright.rooms.certificates.tables import versions
from certwright.rooms.keys.tables import private_keys
from certwright.rooms.validation.tables import evidence
from certwright.x509.certificates import key_matches, read_certificate, read_certificates, verify_chain
from certwright.x509.crl import read_crl
from certwright.x509.csr import make_csr
from certwright.x509.keys import KeyAlgorithm, generate, read_private_key
from tests.conftest import World

APPLICANT = Applicant("Ada Lovelace", "ada@example.com", "+44 20 7946 0000")
NAME = "shop.demo.localhost"


class Site:
    """A web server whose files the test writes, as an applicant would."""

    def __init__(self, root: Path) -> None:
        self.root = root
        handler = partial(_Quiet, directory=str(root))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def publish(self, url: str, content: str) -> None:
        path = self.root / url.split("/", 3)[3]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    root = tmp_path / "site"
    root.mkdir()
    server = Site(root)
    yield server
    server.close()


@pytest.fixture
def settings(site: Site, tmp_path: Path, worker_database: str) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", database_url=worker_database, public_url="https://cw.example",
        allowed_networks=("127.0.0.0/8", "::1/128"), validation_http_port=site.port,
    )  # fmt: skip


@pytest.fixture
def product(world: World) -> World:
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    return world


def wanted(*names: str, **changes: Any) -> Application:
    fields: dict[str, Any] = {
        "names": names or (NAME,), "validation_method": "file", "applicant": APPLICANT, "consent": True,
    } | changes  # fmt: skip
    return Application(**fields)


def create(world: World, asked: Application | None = None, **changes: Any) -> certificates.Detail:
    return world.run(certificates.create_certificate(world.services, world.actor, application=asked, **changes))


def look(world: World, certificate_id: str) -> certificates.Detail:
    return world.run(certificates.get_certificate(world.services, world.actor, certificate_id))


def publish_all(world: World, site: Site, detail: certificates.Detail) -> None:
    found = look(world, detail.id).validation
    assert found is not None
    for domain in found.domains:
        if domain.file is not None and domain.status == "pending":
            site.publish(domain.file.url, domain.file.content)


def issue(world: World, site: Site, asked: Application | None = None, **changes: Any) -> certificates.Detail:
    detail = create(world, asked or wanted(), **changes)
    publish_all(world, site, detail)
    if look(world, detail.id).summary.state is State.PENDING_DOMAIN_VALIDATION:
        world.run(certificates.check_domains(world.services, world.actor, detail.id))
    world.drain()
    issued = look(world, detail.id)
    assert issued.summary.state is State.ISSUED, issued
    return issued


def rows(world: World, query: Any) -> list[Any]:
    async def read() -> list[Any]:
        async with world.services.db.begin() as tx:
            return list((await tx.execute(query)).all())

    return world.run(read())


# --- the way to a certificate ---------------------------------------------------------------------------------------


def test_an_application_waits_for_its_domain_then_is_issued_with_its_own_key(product: World, site: Site) -> None:
    detail = create(product, wanted())
    product.drain()
    waiting = look(product, detail.id)
    assert (waiting.summary.state, waiting.summary.progress) == (State.PENDING_DOMAIN_VALIDATION, 40)
    assert waiting.validation is not None
    assert waiting.validation.domains[0].file is not None

    publish_all(product, site, detail)
    product.run(certificates.check_domains(product.services, product.actor, detail.id))
    product.drain()

    issued = look(product, detail.id)
    assert (issued.summary.state, issued.summary.progress) == (State.ISSUED, 100)
    assert [(v.number, v.has_key) for v in issued.versions] == [(1, True)]
    assert issued.summary.names == (NAME,)
    two_thirds = certificates.renew_at(issued.versions[0].not_before, issued.versions[0].not_after)
    assert issued.renew_at is not None
    assert timedelta(0) <= issued.renew_at - two_thirds < timedelta(hours=13)


def test_the_download_verifies_against_the_root_and_fits_its_key(product: World, site: Site) -> None:
    detail = issue(product, site)
    chain = read_certificates(
        product.run(certificates.download(product.services, product.actor, detail.id, "fullchain")).content
    )
    key = read_private_key(
        product.run(certificates.download(product.services, product.actor, detail.id, "key")).content
    )

    async def roots() -> tuple[bytes, ...]:
        async with product.services.db.begin() as tx:
            return await authorities.root_ders(tx)

    verify_chain(
        chain[0].der, [c.der for c in chain[1:]], product.run(roots()), at=product.clock.now(), name=NAME
    )  # fmt: skip
    assert key_matches(key, chain[0])


def test_the_archive_for_nginx_holds_chain_key_and_a_note(product: World, site: Site) -> None:
    detail = issue(product, site, name="shop")
    file = product.run(certificates.download(product.services, product.actor, detail.id, "nginx"))
    names = zipfile.ZipFile(io.BytesIO(file.content)).namelist()
    assert file.file_name == "shop_nginx.zip"
    assert {"shop.crt", "shop.key"} <= set(names)


def test_an_uploaded_csr_keeps_the_key_away_from_us(product: World, site: Site) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    key = generate(KeyAlgorithm.EC_P256)
    csr = x509.load_der_x509_csr(make_csr(key, [NAME])).public_bytes(Encoding.PEM).decode()
    detail = issue(product, site, wanted(names=(), csr=csr))
    leaf = product.run(certificates.download(product.services, product.actor, detail.id, "leaf"))
    assert key_matches(key, read_certificate(leaf.content))
    with pytest.raises(Refused, match="CSR was uploaded"):
        product.run(certificates.download(product.services, product.actor, detail.id, "key"))
    assert detail.allowed[Operation.DEPLOY] is not None
    with pytest.raises(Refused) as caught:
        product.run(certificates.reissue(product.services, product.actor, detail.id))
    assert caught.value.code == "reissue_needs_csr"


def test_evidence_is_used_again_for_the_next_certificate_of_the_same_name(product: World, site: Site) -> None:
    issue(product, site)
    second = create(product, wanted())
    product.drain()
    assert look(product, second.id).summary.state is State.ISSUED


def test_several_names_are_issued_only_when_the_last_one_is_proved(product: World, site: Site) -> None:
    detail = create(product, wanted("a.demo.localhost", "b.demo.localhost"))
    found = look(product, detail.id).validation
    assert found is not None
    first = found.domains[0]
    assert first.file is not None
    site.publish(first.file.url, first.file.content)
    product.run(certificates.check_domains(product.services, product.actor, detail.id))
    product.drain()
    half = look(product, detail.id)
    assert half.summary.state is State.PENDING_DOMAIN_VALIDATION
    assert half.validation is not None
    assert {d.name: str(d.status) for d in half.validation.domains} == {
        "a.demo.localhost": "valid", "b.demo.localhost": "pending",
    }  # fmt: skip
    publish_all(product, site, detail)
    product.run(certificates.check_domains(product.services, product.actor, detail.id))
    product.drain()
    assert look(product, detail.id).summary.state is State.ISSUED


def test_a_wrong_application_leaves_nothing_behind(product: World) -> None:
    with pytest.raises(InvalidFields):
        create(product, wanted("a..b"))
    assert product.run(certificates.count_by_state(product.services, product.actor)) == {"expires_soon": 0}


# --- drafts, withdrawal ---------------------------------------------------------------------------------------------


def test_a_draft_keeps_everything_typed_even_what_is_wrong(product: World) -> None:
    detail = create(product)
    assert detail.summary.state is State.PENDING_APPLICATION
    typed = Application(names=("not..good",), validation_method="file", key_algorithm="RSA_2048", applicant=APPLICANT)
    product.run(certificates.save_draft(product.services, product.actor, detail.id, typed))
    assert product.run(certificates.read_draft(product.services, product.actor, detail.id)) == typed.as_draft()


def test_a_withdrawn_application_can_be_read_back_and_submitted_again(product: World, site: Site) -> None:
    detail = create(product, wanted())
    back = product.run(certificates.withdraw(product.services, product.actor, detail.id))
    assert back.summary.state is State.PENDING_APPLICATION
    assert product.run(certificates.read_draft(product.services, product.actor, detail.id))["names"] == [NAME]
    product.run(certificates.apply(product.services, product.actor, detail.id, wanted()))
    publish_all(product, site, detail)
    product.run(certificates.check_domains(product.services, product.actor, detail.id))
    product.drain()
    assert look(product, detail.id).summary.state is State.ISSUED


def test_a_withdrawal_that_loses_against_the_order_is_refused_and_the_certificate_is_issued(
    product: World, site: Site
) -> None:
    detail = create(product, wanted())
    publish_all(product, site, detail)
    product.run(certificates.check_domains(product.services, product.actor, detail.id))
    product.drain()
    with pytest.raises(Refused) as caught:
        product.run(certificates.withdraw(product.services, product.actor, detail.id))
    assert caught.value.extra["state"] == "issued"
    assert "revoke" in caught.value.extra["allowed_operations"]


# --- reissue and renewal --------------------------------------------------------------------------------------------


def test_a_reissue_brings_a_new_key_and_retires_the_old_version(product: World, site: Site) -> None:
    detail = issue(product, site)
    product.run(certificates.reissue(product.services, product.actor, detail.id))
    assert look(product, detail.id).summary.state is State.VERIFYING_REISSUE
    product.drain()
    after = look(product, detail.id)
    assert after.summary.state is State.ISSUED
    new, old = after.versions
    assert (new.number, old.number) == (2, 1)
    assert old.superseded_at is not None
    assert new.sha256 != old.sha256
    spkis = {r[0] for r in rows(product, sa.select(versions.c.spki_sha256))}
    assert len(spkis) == 2


def test_a_version_renews_itself_at_two_thirds_of_its_life(product: World, site: Site) -> None:
    detail = issue(product, site)
    assert detail.renew_at is not None
    product.clock.set(detail.renew_at - timedelta(seconds=1))
    product.drain()
    assert len(look(product, detail.id).versions) == 1
    product.clock.set(detail.renew_at)
    product.drain()
    renewed = look(product, detail.id)
    assert [v.number for v in renewed.versions] == [2, 1]
    assert renewed.summary.state is State.ISSUED
    assert renewed.renew_at is not None
    product.clock.set(renewed.renew_at)
    product.drain()
    assert len(look(product, detail.id).versions) == 3


def test_a_version_is_renewed_once_however_often_the_step_runs(product: World, site: Site) -> None:
    detail = issue(product, site)
    assert detail.renew_at is not None
    product.clock.set(detail.renew_at)
    for _ in range(3):
        product.drain()
    assert len(look(product, detail.id).versions) == 2


def test_automatic_renewal_can_be_switched_off_and_on(product: World, site: Site) -> None:
    detail = issue(product, site)
    off = product.run(
        certificates.update_certificate(
            product.services, product.actor, detail.id, revision=detail.summary.revision, auto_renew=False
        )
    )
    assert off.renew_at is None
    assert detail.renew_at is not None
    product.clock.set(detail.renew_at)
    product.drain()
    assert len(look(product, detail.id).versions) == 1
    product.run(
        certificates.update_certificate(
            product.services, product.actor, detail.id, revision=off.summary.revision, auto_renew=True
        )
    )
    product.drain()
    assert len(look(product, detail.id).versions) == 2


def test_an_expired_certificate_is_not_renewed_and_says_so(product: World, site: Site) -> None:
    detail = issue(product, site)
    product.later(days=91)
    product.drain()
    after = look(product, detail.id)
    assert after.summary.state is State.EXPIRED
    assert len(after.versions) == 1
    with pytest.raises(Refused, match="Reissue is not possible in state"):
        product.run(certificates.reissue(product.services, product.actor, detail.id))


# --- revocation -----------------------------------------------------------------------------------------------------


def test_a_revoked_certificate_is_on_the_list_and_stays_revoked(product: World, site: Site) -> None:
    detail = issue(product, site)
    asked = product.run(
        certificates.revoke(product.services, product.actor, detail.id, RevocationReason.KEY_COMPROMISE)
    )
    assert asked.summary.state is State.VERIFYING_REVOCATION
    product.drain()
    after = look(product, detail.id)
    assert after.summary.state is State.REVOKED
    assert after.versions[0].revocation_reason == "key_compromise"
    issuing = product.run(authorities.list_authorities(product.services, product.actor))[1]
    crl = read_crl(product.run(authorities.newest_crl(product.services, issuing.id)).der)
    assert detail.summary.serial in crl.entries
    with pytest.raises(Refused):
        product.run(certificates.revoke(product.services, product.actor, detail.id, RevocationReason.UNSPECIFIED))
    with pytest.raises(Refused):
        product.run(certificates.download(product.services, product.actor, detail.id, "fullchain"))


def test_what_is_shown_is_of_one_moment_although_it_is_revoked_meanwhile(
    product: World, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    detail = issue(product, site)
    revoke(product, detail.id)
    latest_application = store.latest_application

    async def meanwhile(*what: Any) -> Any:
        """Runs after the certificate was read and before its versions are."""
        monkeypatch.setattr(store, "latest_application", latest_application)
        # In a context of its own, like another process: it has no transaction open.
        await asyncio.create_task(jobs.drain(product.services), context=contextvars.Context())
        return await latest_application(*what)

    monkeypatch.setattr(store, "latest_application", meanwhile)
    shown = look(product, detail.id)
    assert (shown.summary.state, shown.versions[0].revoked_at) == (State.VERIFYING_REVOCATION, None)
    after = look(product, detail.id)
    assert (after.summary.state, after.versions[0].revoked_at is None) == (State.REVOKED, False)


def revoke(world: World, certificate_id: str, version_id: str | None = None) -> certificates.Detail:
    reason = RevocationReason.KEY_COMPROMISE
    return world.run(
        certificates.revoke(world.services, world.actor, certificate_id, reason, version_id=version_id)
    )  # fmt: skip


def revoked_serials(world: World) -> set[str]:
    issuing = world.run(authorities.list_authorities(world.services, world.actor))[1]
    return set(read_crl(world.run(authorities.newest_crl(world.services, issuing.id)).der).entries)


def events_of(world: World, kind: str) -> list[Any]:
    return rows(world, sa.select(events.c.object_id).where(events.c.kind == kind))


def test_an_earlier_version_is_revoked_by_its_id_while_the_current_one_goes_on(product: World, site: Site) -> None:
    first = issue(product, site).versions[0]
    detail = look(product, rows(product, sa.select(versions.c.certificate_id))[0][0])
    product.run(certificates.reissue(product.services, product.actor, detail.id))
    product.drain()
    asked = revoke(product, detail.id, first.id)
    assert asked.summary.state is State.ISSUED
    with pytest.raises(Refused) as caught:
        product.run(certificates.delete_certificate(product.services, product.actor, detail.id))
    assert "revocation" in caught.value.message
    product.drain()
    after = look(product, detail.id)
    assert after.summary.state is State.ISSUED
    assert [(v.number, v.revoked_at is not None) for v in after.versions] == [(2, False), (1, True)]
    assert revoked_serials(product) == {first.serial}
    assert events_of(product, "certificate.revoked") == []
    for version_id, problem in ((first.id, Refused), ("ver_00000000000000000000000000", NotFound)):
        with pytest.raises(problem):
            revoke(product, detail.id, version_id)
    assert after.allowed[Operation.REVOKE_EARLIER] is not None
    assert revoke(product, detail.id, after.versions[0].id).summary.state is State.VERIFYING_REVOCATION


def test_a_version_of_another_certificate_is_not_revoked_by_this_one(product: World, site: Site) -> None:
    mine, other = issue(product, site), issue(product, site, wanted("b.demo.localhost"))
    with pytest.raises(NotFound) as caught:
        revoke(product, mine.id, other.versions[0].id)
    assert caught.value.field == "version_id"


def test_a_version_that_has_expired_is_not_revoked(product: World, site: Site) -> None:
    detail = issue(product, site)
    product.later(days=61)
    product.drain()
    assert len(look(product, detail.id).versions) == 2
    product.later(days=30)
    with pytest.raises(Refused, match="expired"):
        revoke(product, detail.id, detail.versions[0].id)


def test_a_leaked_key_is_revoked_while_its_successor_is_on_its_way(product: World, site: Site) -> None:
    detail = issue(product, site)
    product.run(certificates.reissue(product.services, product.actor, detail.id))
    asked = revoke(product, detail.id)
    assert asked.summary.state is State.VERIFYING_REISSUE
    with pytest.raises(Refused):
        revoke(product, detail.id)
    product.drain()
    after = look(product, detail.id)
    assert after.summary.state is State.ISSUED
    assert [(v.number, v.revoked_at is not None) for v in after.versions] == [(2, False), (1, True)]
    assert revoked_serials(product) == {detail.summary.serial}


@pytest.mark.parametrize("told_first", [True, False], ids=["the CA heard of it", "the CA has yet to hear of it"])
def test_a_reissue_withdrawn_after_a_revocation_leaves_a_revoked_certificate(
    product: World, site: Site, told_first: bool
) -> None:
    detail = issue(product, site)
    # Evidence too old for a reissue, so that the reissue waits for a person.
    too_old = product.clock.now() - timedelta(days=500)
    product.run(_write(product, sa.update(evidence).values(validated_at=too_old)))
    product.run(certificates.reissue(product.services, product.actor, detail.id))
    revoke(product, detail.id)
    if told_first:
        product.drain()
    assert look(product, detail.id).summary.state is State.VERIFYING_REISSUE
    withdrawn = product.run(certificates.withdraw(product.services, product.actor, detail.id))
    assert withdrawn.summary.state is (State.REVOKED if told_first else State.VERIFYING_REVOCATION)
    product.drain()
    assert look(product, detail.id).summary.state is State.REVOKED
    assert events_of(product, "certificate.revoked") == [(detail.id,)]


async def _write(world: World, statement: Any) -> None:
    async with world.services.db.begin() as tx:
        await tx.execute(statement)


# --- plain fields, deletion -----------------------------------------------------------------------------------------


def test_renaming_needs_the_revision_that_was_read(product: World) -> None:
    detail = create(product, name="first")
    changed = product.run(
        certificates.update_certificate(
            product.services, product.actor, detail.id, revision=detail.summary.revision, name="second",
            description="web", tags={"team": "shop"},
        )
    )  # fmt: skip
    assert (changed.summary.name, changed.summary.tags) == ("second", {"team": "shop"})
    with pytest.raises(Stale):
        product.run(
            certificates.update_certificate(
                product.services, product.actor, detail.id, revision=detail.summary.revision, name="third"
            )
        )


def test_two_certificates_of_an_account_never_have_one_name(product: World) -> None:
    create(product, name="shop")
    with pytest.raises(Refused) as caught:
        create(product, name="shop")
    assert (caught.value.code, caught.value.field) == ("certificate_name_taken", "name")


def test_deleting_erases_the_keys_and_keeps_the_fingerprint_in_the_audit_log(product: World, site: Site) -> None:
    detail = issue(product, site)
    product.run(certificates.delete_certificate(product.services, product.actor, detail.id))
    with pytest.raises(NotFound):
        look(product, detail.id)
    keys = rows(product, sa.select(private_keys.c.sealed, private_keys.c.erased_at))
    assert [(k.sealed, k.erased_at is not None) for k in keys] == [(None, True)]
    event = rows(
        product, sa.select(audit.audit_events.c.before).where(audit.audit_events.c.action == "scm:cert:delete")
    )
    assert event[0][0]["sha256"] == detail.summary.sha256


def test_an_application_under_way_is_not_deleted(product: World) -> None:
    detail = create(product, wanted())
    with pytest.raises(Refused) as caught:
        product.run(certificates.delete_certificate(product.services, product.actor, detail.id))
    assert caught.value.extra["state"] == "pending_domain_validation"


# --- listing --------------------------------------------------------------------------------------------------------


def names_of(world: World, actor: Any = None, **filters: Any) -> list[str]:
    found = world.run(
        certificates.list_certificates(world.services, actor or world.actor, certificates.Filters(**filters), limit=100)
    )
    return [c.name for c in found]


def test_the_list_finds_by_state_part_of_a_name_fingerprint_serial_and_tag(product: World, site: Site) -> None:
    issued = issue(product, site, name="shop")
    create(product, name="draft", tags={"team": "web"})
    assert names_of(product, states=(State.ISSUED,)) == ["shop"]
    assert names_of(product, states=(State.PENDING_APPLICATION,)) == ["draft"]
    assert names_of(product, search="DEMO.local") == ["shop"]
    assert names_of(product, search="100%") == []
    assert names_of(product, sha256=(issued.summary.sha256 or "").upper()) == ["shop"]
    assert names_of(product, serial=issued.summary.serial) == ["shop"]
    assert names_of(product, tag={"team": "web"}) == ["draft"]
    assert names_of(product, expires_before=product.clock.now() + timedelta(days=100)) == ["shop"]
    product.later(days=70)
    assert names_of(product, expires_soon=True) == ["shop"]
    product.later(days=30)
    assert names_of(product, states=(State.EXPIRED,)) == ["shop"]


@pytest.mark.parametrize("sort", ["created", "updated", "state"])
@pytest.mark.parametrize("descending", [True, False])
def test_pages_hold_every_certificate_once_in_order(product: World, sort: str, descending: bool) -> None:
    for index in range(7):
        create(product, name=f"cert-{index}")
        product.later(seconds=1)
    seen: list[str] = []
    after = None
    while True:
        page = product.run(
            certificates.list_certificates(
                product.services, product.actor, certificates.Filters(), sort=sort, descending=descending, after=after,
                limit=3,
            )
        )  # fmt: skip
        if not page:
            break
        seen += [c.name for c in page]
        last = page[-1]
        after = ({"created": None, "updated": last.updated_at, "state": last.state.value}[sort], last.id)
    expected = [f"cert-{index}" for index in range(7)]
    assert seen == (expected[::-1] if descending else expected)


# --- who may --------------------------------------------------------------------------------------------------------


def test_another_account_neither_sees_nor_touches_a_certificate(product: World) -> None:
    detail = create(product, name="mine")
    other = product.other_actor
    assert names_of(product, other) == []
    for call in (
        certificates.get_certificate(product.services, other, detail.id),
        certificates.withdraw(product.services, other, detail.id),
        certificates.reissue(product.services, other, detail.id),
        certificates.revoke(product.services, other, detail.id, RevocationReason.UNSPECIFIED),
        certificates.delete_certificate(product.services, other, detail.id),
        certificates.download(product.services, other, detail.id, "key"),
        certificates.check_domains(product.services, other, detail.id),
        certificates.apply(product.services, other, detail.id, wanted()),
        certificates.save_draft(product.services, other, detail.id, wanted()),
        certificates.read_draft(product.services, other, detail.id),
        certificates.update_certificate(product.services, other, detail.id, revision=1, name="yours"),
    ):
        with pytest.raises(NotFound):
            product.run(call)


def test_reading_the_key_is_a_permission_of_its_own(product: World, site: Site) -> None:
    detail = issue(product, site)
    reader = product.actor_with("scm:cert:get", "scm:cert:list", "scm:cert:download")
    product.run(certificates.download(product.services, reader, detail.id, "fullchain"))
    with pytest.raises(Forbidden):
        product.run(certificates.download(product.services, reader, detail.id, "key"))


def test_every_reading_of_a_key_is_in_the_audit_log(product: World, site: Site) -> None:
    detail = issue(product, site)
    product.run(certificates.download(product.services, product.actor, detail.id, "key"))
    found = rows(product, sa.select(audit.audit_events).where(audit.audit_events.c.action == "scm:key:read"))
    assert len(found) == 1
    assert detail.id in found[0].reason


# --- private issuance -----------------------------------------------------------------------------------------------


def private(world: World, *names: str, **changes: Any) -> certificates.Summary:
    return world.run(certificates.issue_private(world.services, world.actor, names=names, **changes))


def test_who_may_use_the_ca_gets_a_certificate_at_once_and_it_renews_without_new_proof(product: World) -> None:
    summary = private(product, "db.corp", "10.0.0.7", days=6)
    assert summary.state is State.ISSUED
    assert summary.names == ("db.corp", "10.0.0.7")
    product.drain()
    product.later(days=3, hours=2)  # half its life, and what it is spread by
    product.drain()
    assert [v.number for v in look(product, summary.id).versions] == [2, 1]


@pytest.mark.parametrize(("days", "code"), [(0, "days_out_of_range"), (200, "days_out_of_range")])
def test_a_private_certificate_lives_1_to_199_days(product: World, days: int, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        private(product, "db.corp", days=days)
    assert (caught.value.code, caught.value.field) == (code, "days")


def test_private_issuance_needs_its_own_permission(product: World) -> None:
    applicant = product.actor_with("scm:*")
    with pytest.raises(Forbidden):
        product.run(certificates.issue_private(product.services, applicant, names=["db.corp"]))
