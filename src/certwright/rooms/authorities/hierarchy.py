"""Making CAs and leading them through their lives: roots, CAs below them, CAs of parents outside, CAs brought along.

Every key that comes to be here leaves a record of the ceremony: who, when, which key, which certificate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError

from certwright.kernel.actor import Actor, system_actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Invalid, Refused, Stale
from certwright.platform.db import Tx, is_one_of
from certwright.platform.services import Services
from certwright.rooms import access, audit
from certwright.rooms.authorities import lists, rules, store
from certwright.rooms.authorities.rules import CaOperation
from certwright.rooms.authorities.signer import Signer
from certwright.rooms.authorities.tables import authorities, issued_certificates
from certwright.rooms.authorities.words import CA_STEP, Authority, CaOrigin, CaRequest, CaState, KeyStore
from certwright.x509 import ca_requests
from certwright.x509.certificates import CertificateFacts, facts_of, load, read_certificates, signed_by, to_pem
from certwright.x509.issue import (
    IssuerFacts,
    Linted,
    Profile,
    Subject,
    approve,
    assemble,
    draft_certificate,
    issuer_facts,
    limits_of,
    new_serial,
    signature_hash,
    validity,
)
from certwright.x509.keys import (
    MlDsaPublicKey,
    PrivateKey,
    describe_public_key,
    judge_public_key,
    read_private_key,
    spki_sha256,
)

_CRL_DAYS = 7
# Certificates that end with their CA are counted so far; more are many.
MOST_COUNTED = 1_000


# --- making ----------------------------------------------------------------------------------------------------------


async def ensure_builtin(services: Services, account_id: str, project_id: str) -> None:
    """At first start make a root and an issuing CA (EC P-256); later find them. One transaction: both or neither."""
    actor = system_actor(account_id, "first start")
    async with services.db.begin() as tx:
        await tx.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('authorities.builtin'))"))
        found = await tx.scalar(
            sa.select(sa.func.count()).where(authorities.c.account_id == account_id, authorities.c.builtin)
        )
        if found:
            return
        organization = services.settings.organization
        root, issuing = f"{organization} Root CA"[:64], f"{organization} Issuing CA 1"[:64]
        parent = await _make(
            tx, services, actor, project_id, parent=None, builtin=True,
            request=CaRequest(root, Subject(common_name=root, organization=organization[:64]), path_len=1),
        )  # fmt: skip
        await _make(
            tx, services, actor, project_id, parent=parent, builtin=True,
            request=CaRequest(
                issuing, Subject(common_name=issuing, organization=organization[:64]), path_len=0,
                purposes=("server_auth", "client_auth"),
            ),
        )  # fmt: skip


async def create_authority(
    services: Services, actor: Actor, request: CaRequest, *, project_id: str | None = None
) -> Authority:
    """A root, a CA below one of ours, or (`outside`) a key and a request for a parent that isn't ours.

    Needs `ccm:ca:create`, and on the parent too. Raises what `rules.judge_request` says, Refused `ca_not_active` for
    a parent that isn't active, `ca_quota`, Refused `ca_name_taken`, Invalid `lint_failed`; for a key in the HSM
    what `Token` raises.
    """
    access.require_somewhere(actor, "ccm:ca:create")
    try:
        async with services.db.begin() as tx:
            project = await access.project_for(tx, actor, "ccm:ca:create", project_id)
            made = await create_in(tx, services, actor, project, request)
            return await seen(tx, services, made.id)
    except IntegrityError:
        raise name_taken(request.name) from None


async def create_in(tx: Tx, services: Services, actor: Actor, project_id: str, request: CaRequest) -> Any:
    """The same in the caller's transaction, for a project where the actor may do it: the row. Raises IntegrityError
    for a name that is taken."""
    if request.outside and request.parent_id is not None:
        raise Invalid("ca_two_parents", "A CA has a parent here or one outside, not both.", field="parent_id",
                      fix="Leave one of them out.")  # fmt: skip
    await _check_quota(tx, services, actor.account_id)
    parent = None
    if request.parent_id is not None:
        # Held, so that it isn't disabled and deleted while a key is made for what is to stand below it.
        parent = await store.visible_row(tx, actor, "ccm:ca:create", request.parent_id, lock=True)
        refuse(CaOperation.ISSUE, parent, services.clock.now())
    return await _make(tx, services, actor, project_id, parent=parent, builtin=False, request=request)


def name_taken(name: str) -> Refused:
    return Refused("ca_name_taken", f"There is already a CA called {name[:100]!r}.", field="name",
                   fix="Choose another name.")  # fmt: skip


def refuse(operation: CaOperation, ca: Any, now: datetime, below: int = 0) -> None:
    problem = rules.refusal(operation, store.ca_facts(ca, below), now)
    if problem is not None:
        raise problem


async def _check_quota(tx: Tx, services: Services, account_id: str) -> None:
    """Held until the transaction ends: two that come at once can't both take the last place."""
    limit = services.settings.private_ca_quota
    a = authorities.c
    await tx.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"ca_quota/{account_id}", 0))))
    count = await tx.scalar(sa.select(sa.func.count()).where(a.account_id == account_id, a.erased_at.is_(None)))
    if int(count or 0) >= limit:
        raise Refused("ca_quota", f"The account has {limit} private CAs, as many as it may have.",
                      fix="Delete CAs that aren't needed, or have the operator raise the quota.")  # fmt: skip


async def seen(tx: Tx, services: Services, authority_id: str) -> Authority:
    found = (await tx.execute(store.listing().where(authorities.c.id == authority_id))).one()
    return store.shown(services, found, await store.issued_count(tx, authority_id))


async def _make(
    tx: Tx, services: Services, actor: Actor, project_id: str, *, parent: Any, builtin: bool, request: CaRequest
) -> Any:
    """Key, certificate or request, row and record of one CA; `parent` is the row of the CA that signs it."""
    signer = services.port(Signer)
    above = None if parent is None else await store.binding_issuer(tx, services, parent)
    profile, algorithm = rules.judge_request(request, above)
    request.subject.as_name()  # judged before a key is made
    key_id, public = await signer.create_key(tx, algorithm, KeyStore(request.key_store))
    authority_id = new_id("ca", services.clock.now())
    if request.outside:
        draft = ca_requests.draft_request(request.subject, public, request.path_len, request.hash_name)
        csr = ca_requests.assemble(draft, await signer.sign(tx, key_id, draft))
        return await _insert(
            tx, services, actor, project_id, authority_id, key_id, request, builtin=False, parent_id=None,
            kind="issuing", origin=CaOrigin.OUTSIDE, certificate=None, csr_der=csr,
            subject=request.subject.as_name().rfc4514_string(), hash_name=draft.hash_name,
            key_algorithm=describe_public_key(public),
        )  # fmt: skip
    serial = new_serial()
    linted = drafted(services, parent, above, profile, request, public, serial)
    der = assemble(linted, await signer.sign(tx, key_id if parent is None else parent.ca_key_id, linted))
    row = await _insert(
        tx, services, actor, project_id, authority_id, key_id, request, builtin=builtin,
        parent_id=None if parent is None else parent.id, kind="root" if parent is None else "issuing",
        origin=CaOrigin.MADE, certificate=facts_of(der), csr_der=None,
        hash_name=signature_hash(public, request.hash_name),
    )  # fmt: skip
    if parent is not None:
        await record_issued(tx, services, parent, row, serial)
    return row


def drafted(
    services: Services, parent: Any, above: IssuerFacts | None, profile: Profile, request: CaRequest, public: Any,
    serial: int,
) -> Linted:  # fmt: skip
    """A CA's certificate, ready to be signed; `above` is what binds its parent, None for a root."""
    now = services.clock.now()
    start, end = validity(profile, above, at=now)
    limits = request.constraints
    where = lists.Pointers() if parent is None else lists.pointers(services, parent, serial)
    draft = draft_certificate(
        profile=profile, subject=request.subject, names=(), public_key=public, issuer=above, serial=serial,
        not_before=start, not_after=end, name_constraints=limits if limits.any else None,
        hash_name=request.hash_name if parent is None else parent.hash_name, **where,
    )  # fmt: skip
    return approve(draft, at=now)


async def record_issued(
    tx: Tx, services: Services, parent: Any, child: Any, serial: int, *, reference: str | None = None
) -> None:
    """What the parent certified, so that it can be revoked and asked after like any certificate. One that came from
    outside may be known already: then it was this parent's here, too. The first certificate of a CA has the CA's id for
    its `reference`; those it is renewed by have the serial behind it."""
    await tx.execute(
        postgresql.insert(issued_certificates).values(
            id=new_id("crt", services.clock.now()), authority_id=parent.id, account_id=child.account_id,
            project_id=child.project_id, reference=reference or child.id, profile="issuing", serial=f"{serial:x}",
            names=[], der=child.certificate_der, not_before=child.not_before, not_after=child.not_after,
            issued_at=services.clock.now(), shard=lists.shard_of(parent, serial), internal=True,
        ).on_conflict_do_nothing(index_elements=["authority_id", "serial"])
    )  # fmt: skip


async def _insert(
    tx: Tx, services: Services, actor: Actor, project_id: str, authority_id: str, key_id: str, request: CaRequest,
    *, certificate: CertificateFacts | None, outside_chain: tuple[bytes, ...] = (), **columns: Any,
) -> Any:  # fmt: skip
    values = columns | {
        "id": authority_id, "account_id": actor.account_id, "project_id": project_id, "name": request.name.strip(),
        "ca_key_id": key_id, "created_at": services.clock.now(), "crl_days": request.crl_days,
        "crl_shards": request.crl_shards, "ocsp_enabled": request.ocsp_enabled, "outside_chain": list(outside_chain),
    } | (certificate_columns(certificate) if certificate is not None else {})  # fmt: skip
    row = (await tx.execute(sa.insert(authorities).values(values).returning(authorities))).one()
    if certificate is not None:
        await lists.begin(tx, services, row)
    await audit.record(
        tx, services, actor, "ccm:ca:create", "authority", authority_id, project_id=project_id,
        after=_ceremony(row, certificate) | {"key_store": request.key_store},
    )  # fmt: skip
    return row


def certificate_columns(facts: CertificateFacts) -> dict[str, Any]:
    return {
        "subject": facts.subject, "key_algorithm": facts.key_algorithm, "serial": facts.serial, "sha256": facts.sha256,
        "certificate_der": facts.der, "not_before": facts.not_before, "not_after": facts.not_after,
    }  # fmt: skip


def _ceremony(row: Any, facts: CertificateFacts | None) -> dict[str, Any]:
    said = {"subject": row.subject, "kind": row.kind, "origin": row.origin, "key": row.key_algorithm}
    if facts is None:
        return said | {"state": CaState.PENDING.value}
    return said | {"sha256": facts.sha256, "spki_sha256": facts.spki_sha256, "not_after": facts.not_after.isoformat()}


# --- a parent outside, a CA brought along ----------------------------------------------------------------------------


async def install_certificate(services: Services, actor: Actor, authority_id: str, pem: str) -> Authority:
    """The certificate an outside parent signed for a pending CA, with the parent's chain behind it (PEM); or the next
    one, for a CA that has one of such a parent.

    Needs `ccm:ca:update`. Raises Invalid `ca_certificate_other_key`, `not_a_ca`, `chain_broken`, `self_signed`,
    `expired`, what `rules.judge_replacement` says, and what reading certificates says.
    """
    certificate, above = _read_ca(pem, services.clock.now())
    if certificate.self_signed:
        raise Invalid("self_signed", "This certificate is signed by its own key and not by a parent.",
                      field="certificate", fix="Have the request signed by the parent CA.")  # fmt: skip
    async with services.db.begin() as tx:
        await store.visible_row(tx, actor, "ccm:ca:update", authority_id)
        below = await store.hold_below(tx, authority_id)
        ca = await store.visible_row(tx, actor, "ccm:ca:update", authority_id, lock=True)
        refuse(CaOperation.INSTALL, ca, services.clock.now())
        if ca.certificate_der is not None:
            await _install_next(tx, services, actor, ca, below, certificate, above)
            return await seen(tx, services, authority_id)
        if certificate.spki_sha256 != spki_sha256(ca_requests.key_of(ca.csr_der)):
            raise Invalid(
                "ca_certificate_other_key", "This certificate is for another key than the request of this CA.",
                field="certificate", fix="Install the certificate that was signed for this very request.",
            )  # fmt: skip
        parent = await _our_parent(tx, ca.account_id, above)
        values = certificate_columns(certificate)
        values |= {"outside_chain": list(above)} if parent is None else {"parent_id": parent.id}
        installed = await tx.execute(
            sa.update(authorities)
            .where(authorities.c.id == authority_id)
            .values(values | {"revision": authorities.c.revision + 1})
            .returning(authorities)
        )
        if parent is not None:
            await record_issued(tx, services, parent, installed.one(), int(certificate.serial, 16))
        await lists.begin(tx, services, ca)
        await audit.record(
            tx, services, actor, "ccm:ca:update", "authority", authority_id, project_id=ca.project_id,
            before={"state": CaState.PENDING.value}, after={"state": CaState.ACTIVE.value} | _installed(certificate),
        )  # fmt: skip
        return await seen(tx, services, authority_id)


async def _install_next(
    tx: Tx, services: Services, actor: Actor, ca: Any, below: Sequence[str], certificate: CertificateFacts,
    above: tuple[bytes, ...],
) -> None:  # fmt: skip
    rules.judge_replacement(
        ca.name, store.issuer_of(ca), issuer_facts(certificate.der),
        parent_is_here=ca.kind == "root" or ca.parent_id is not None,
    )  # fmt: skip
    parent = await _our_parent(tx, ca.account_id, above)
    values = {"outside_chain": list(above)} if parent is None else {"parent_id": parent.id, "outside_chain": []}
    row = await replace_certificate(tx, services, ca, below, certificate, values)
    if parent is not None:
        await record_issued(tx, services, parent, row, int(certificate.serial, 16))
    await record_renewal(tx, services, actor, ca, certificate)


def _installed(facts: CertificateFacts) -> dict[str, Any]:
    return {"subject": facts.subject, "issuer": facts.issuer, "sha256": facts.sha256, "spki_sha256": facts.spki_sha256}


async def replace_certificate(
    tx: Tx, services: Services, ca: Any, below: Sequence[str], facts: CertificateFacts, values: dict[str, Any]
) -> Any:
    """Writes a CA's new certificate, answers with its row. Whatever processes know of the CA and of those below it,
    they know by the revision; all of them are held."""
    a = authorities.c
    changed = await tx.execute(
        sa.update(authorities)
        .where(a.id == ca.id, a.revision == ca.revision)
        .values(certificate_columns(facts) | values | {"revision": a.revision + 1})
        .returning(authorities)
    )
    await tx.execute(sa.update(authorities).where(is_one_of(a.id, below)).values(revision=a.revision + 1))
    await services.jobs.start(tx, CA_STEP, ca.id)
    return changed.one()


async def record_renewal(tx: Tx, services: Services, actor: Actor, ca: Any, facts: CertificateFacts) -> None:
    """The record of the ceremony. The certificate before is kept in it."""
    await audit.record(
        tx, services, actor, "ccm:ca:update", "authority", ca.id, project_id=ca.project_id,
        before={
            "serial": ca.serial, "sha256": ca.sha256, "not_after": ca.not_after.isoformat(),
            "certificate_pem": to_pem(ca.certificate_der),
        },
        after={
            "operation": CaOperation.RENEW.value, "serial": facts.serial, "sha256": facts.sha256,
            "spki_sha256": facts.spki_sha256, "issuer": facts.issuer, "not_after": facts.not_after.isoformat(),
        },
    )  # fmt: skip


def _read_ca(pem: str, now: datetime) -> tuple[CertificateFacts, tuple[bytes, ...]]:
    """A CA's certificate, first in the text, and those above it in order. Raises Invalid."""
    found = read_certificates(pem.encode("utf-8", "replace"))
    first, above = found[0], found[1:]
    facts = issuer_facts(first.der)  # refuses what isn't a CA, or has a key CAs can't have here
    if not isinstance(facts.public_key, MlDsaPublicKey):
        judge_public_key(facts.public_key, public=False, field="certificate")
    if not facts.may_sign_certificates:
        raise Invalid("not_a_ca", "The key usage of the CA's certificate doesn't include signing certificates.",
                      field="certificate", fix="Choose a CA certificate.")  # fmt: skip
    if not facts.subject.rdns:
        raise Invalid("ca_subject_missing", "The CA's certificate has no subject: nobody could say who issued.",
                      field="certificate", fix="Bring a CA whose certificate names it.")  # fmt: skip
    if first.not_after <= now:
        raise Invalid("expired", f"The CA's certificate ended on {first.not_after:%Y-%m-%d}.", field="certificate",
                      fix="Bring a CA whose certificate is still good.")  # fmt: skip
    for lower, upper in zip(found, above, strict=False):
        if not signed_by(load(lower.der), load(upper.der)):
            raise Invalid(
                "chain_broken", f"{lower.subject!r} isn't signed by the certificate behind it, {upper.subject!r}.",
                field="certificate", fix="Put the CA's certificate first, then each issuer behind the one it signed.",
            )  # fmt: skip
    limits = tuple(limits_of(upper.der) for upper in above)
    levels = replace(facts, above=limits).levels
    if levels is not None and levels < 0:
        raise Invalid("path_len_exhausted", "A CA above this one admits fewer CAs below it than there are.",
                      field="certificate", fix="Have the CA certified by one whose path length admits it.")  # fmt: skip
    return first, tuple(facts.der for facts in above)


async def import_authority(
    services: Services,
    actor: Actor,
    *,
    name: str,
    certificate: str,
    private_key: str,
    passphrase: str | None = None,
    crl_number: int = 0,
    key_store: str = KeyStore.SOFTWARE,
    project_id: str | None = None,
) -> Authority:
    """Bring your own CA: its certificate, with the chain above it behind it, and its key (PEM). The passphrase opens
    the key and is forgotten. `crl_number` is the number of the last list published for it elsewhere.

    Needs `ccm:ca:create`. Raises Invalid `key_mismatch`, Refused `hsm_no_import` and as `install_certificate` and
    reading a key do.
    """
    access.require_somewhere(actor, "ccm:ca:create")
    rules.judge_import(key_store)
    now = services.clock.now()
    facts, above = _read_ca(certificate, now)
    key = await asyncio.to_thread(_read_key, private_key, passphrase)
    if spki_sha256(key.public_key()) != facts.spki_sha256:
        raise Invalid("key_mismatch", "The private key belongs to another certificate.", field="private_key",
                      fix="Bring the key that the CA's certificate was made for.")  # fmt: skip
    request = CaRequest(name, Subject(), crl_days=_CRL_DAYS)
    rules.judge_name(name)
    if not 0 <= crl_number < 1 << 62:
        raise Invalid("crl_number_out_of_range", "The number of a list is 0 or more.", field="crl_number",
                      fix="Give the number of the last list published, or 0.")  # fmt: skip
    try:
        async with services.db.begin() as tx:
            project = await access.project_for(tx, actor, "ccm:ca:create", project_id)
            await _check_quota(tx, services, actor.account_id)
            key_id = await services.port(Signer).import_key(tx, key)
            authority_id = new_id("ca", now)
            parent = await _our_parent(tx, actor.account_id, above)
            parent_id = None if parent is None else parent.id
            if parent is not None:
                uppers = [parent, *await store.rows_above(tx, parent)]
                rules.judge_above(name, [store.ca_facts(upper) for upper in uppers])
            row = await _insert(
                tx, services, actor, project, authority_id, key_id, request, builtin=False, parent_id=parent_id,
                kind="root" if facts.self_signed else "issuing", origin=CaOrigin.IMPORTED, certificate=facts,
                csr_der=None, outside_chain=() if parent_id else above,
                hash_name=signature_hash(key.public_key(), None),
            )  # fmt: skip
            await lists.begin(tx, services, row, after=crl_number)
            if parent is not None:
                await record_issued(tx, services, parent, row, int(facts.serial, 16))
            await _adopt(tx, services, row)
            return await seen(tx, services, authority_id)
    except IntegrityError:
        raise name_taken(name) from None


def _read_key(text: str, passphrase: str | None) -> PrivateKey:
    secret = passphrase.encode("utf-8", "replace") if passphrase else None
    return read_private_key(text.encode("utf-8", "replace"), secret)


async def _adopt(tx: Tx, services: Services, parent: Any) -> None:
    """CAs that were here before the one above them: from now on its list says that they are revoked."""
    a = authorities.c
    orphans = await tx.execute(
        sa.update(authorities)
        .where(
            a.account_id == parent.account_id, a.parent_id.is_(None), a.erased_at.is_(None),
            a.outside_chain == [parent.certificate_der, *parent.outside_chain],
        )
        .values(parent_id=parent.id, outside_chain=[], revision=a.revision + 1)
        .returning(authorities)
    )  # fmt: skip
    for child in orphans.all():
        await record_issued(tx, services, parent, child, int(child.serial, 16))
        if child.revoked_at is not None:
            await lists.mark_revoked(tx, services, parent.id, child.serial, "unspecified")


async def _our_parent(tx: Tx, account_id: str, above: tuple[bytes, ...]) -> Any:
    if not above:
        return None
    a = authorities.c
    found = await tx.execute(
        sa.select(authorities).where(
            a.account_id == account_id, a.sha256 == facts_of(above[0]).sha256, a.erased_at.is_(None)
        )
    )
    return found.one_or_none()


# --- changing --------------------------------------------------------------------------------------------------------


async def update_authority(
    services: Services,
    actor: Actor,
    authority_id: str,
    *,
    revision: int | None = None,
    name: str | None = None,
    crl_enabled: bool | None = None,
    crl_days: int | None = None,
    crl_shards: int | None = None,
    ocsp_enabled: bool | None = None,
) -> Authority:
    """Name and publishing. What is issued from now on says so; certificates that are out keep what they say, so a
    list that was promised goes on being published. Needs `ccm:ca:update`."""
    if name is not None:
        rules.judge_name(name)
    asked = {
        "name": name.strip() if name is not None else None, "crl_enabled": crl_enabled, "crl_days": crl_days,
        "crl_shards": crl_shards, "ocsp_enabled": ocsp_enabled,
    }  # fmt: skip
    try:
        async with services.db.begin() as tx:
            ca = await store.visible_row(tx, actor, "ccm:ca:update", authority_id, lock=True)
            if revision is not None and revision != ca.revision:
                raise Stale("stale", "Somebody changed this CA meanwhile.", fix="Load it again and repeat the change.")
            refuse(CaOperation.UPDATE, ca, services.clock.now())
            changes = {key: value for key, value in asked.items() if value is not None and value != getattr(ca, key)}
            rules.judge_lists(
                crl_days=changes.get("crl_days", ca.crl_days), crl_shards=changes.get("crl_shards", ca.crl_shards)
            )
            if changes:
                before = {key: getattr(ca, key) for key in changes}
                await _change(tx, services, actor, ca, "ccm:ca:update", before, changes, changes)
                if ca.certificate_der is not None:
                    await lists.widen(tx, services, authority_id, changes.get("crl_shards", ca.crl_shards))
            return await seen(tx, services, authority_id)
    except IntegrityError:
        raise name_taken(name or "") from None


async def _change(
    tx: Tx, services: Services, actor: Actor, ca: Any, action: str, before: dict[str, Any], after: dict[str, Any],
    values: dict[str, Any], reason: str = "",
) -> None:  # fmt: skip
    await tx.execute(
        sa.update(authorities)
        .where(authorities.c.id == ca.id)
        .values(values | {"revision": authorities.c.revision + 1})
    )
    await audit.record(
        tx, services, actor, action, "authority", ca.id, project_id=ca.project_id, before=before, after=after,
        reason=reason,
    )  # fmt: skip


async def disable_authority(services: Services, actor: Actor, authority_id: str) -> Authority:
    """Nothing is issued any more; lists and answers go on. Needs `ccm:ca:disable`."""
    values = {"disabled_at": services.clock.now()}
    return await _move(services, actor, authority_id, CaOperation.DISABLE, "ccm:ca:disable", values)


async def enable_authority(services: Services, actor: Actor, authority_id: str) -> Authority:
    return await _move(services, actor, authority_id, CaOperation.ENABLE, "ccm:ca:disable", {"disabled_at": None})


async def delete_authority(services: Services, actor: Actor, authority_id: str, *, days: int = 7) -> Authority:
    """Begins the time of waiting, `days` from 7 to 30; at its end the key is erased for good. Needs `ccm:ca:delete`."""
    values = {"delete_at": services.clock.now() + rules.judge_wait(days)}
    return await _move(services, actor, authority_id, CaOperation.DELETE, "ccm:ca:delete", values)


async def restore_authority(services: Services, actor: Actor, authority_id: str) -> Authority:
    """Back from waiting to be deleted; disabled, if it could issue. Needs `ccm:ca:delete`."""
    values = {"delete_at": None}
    return await _move(services, actor, authority_id, CaOperation.RESTORE, "ccm:ca:delete", values)


async def _move(
    services: Services, actor: Actor, authority_id: str, operation: CaOperation, action: str, values: dict[str, Any]
) -> Authority:
    now = services.clock.now()
    async with services.db.begin() as tx:
        ca = await store.visible_row(tx, actor, action, authority_id, lock=True)
        below = await store.children(tx, authority_id, now) if operation is CaOperation.DELETE else 0
        refuse(operation, ca, now, below)
        if operation is CaOperation.DELETE:
            rules.judge_order(values["delete_at"], await store.children_wait_until(tx, authority_id, now))
        elif operation is CaOperation.RESTORE and ca.parent_id is not None:
            rules.judge_restore(ca.name, store.ca_facts(await store.any_row(tx, ca.parent_id)))
        elif operation is CaOperation.ENABLE:
            rules.judge_above(ca.name, [store.ca_facts(upper) for upper in await store.rows_above(tx, ca)])
        before = {"state": store.ca_state(ca, now).value}
        await _change(tx, services, actor, ca, action, before, {"operation": operation.value} | _told(values), values)
        await services.jobs.start(tx, CA_STEP, authority_id)
        return await seen(tx, services, authority_id)


def _told(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in values.items()}


async def revoke_authority(
    services: Services, actor: Actor, authority_id: str, reason: str = "unspecified"
) -> Authority:
    """Ends a CA before its time: its parent's list says so at once, and nothing is issued from it any more, nor from
    those below it: they are disabled, because no client would believe them. One whose parent is outside is only marked;
    the parent must revoke it there. Needs `ccm:ca:disable`."""
    rules.judge_reason(reason)
    now = services.clock.now()
    async with services.db.begin() as tx:
        await store.visible_row(tx, actor, "ccm:ca:disable", authority_id)
        below = await store.hold_below(tx, authority_id)
        ca = await store.visible_row(tx, actor, "ccm:ca:disable", authority_id, lock=True)
        refuse(CaOperation.REVOKE, ca, now)
        if ca.parent_id is not None:
            for serial in await store.serials_of_ca(tx, ca):
                await lists.mark_revoked(tx, services, ca.parent_id, serial, reason)
        values = {"revoked_at": now, "next_step_at": None}
        before = {"state": store.ca_state(ca, now).value}
        after = {"state": CaState.REVOKED.value, "reason": reason}
        await _change(tx, services, actor, ca, "ccm:ca:disable", before, after, values)
        await _disable_below(tx, services, actor, ca, below)
        await services.jobs.start(tx, CA_STEP, authority_id)
        return await seen(tx, services, authority_id)


async def good_below(services: Services, actor: Actor, authority_id: str) -> int:
    """How many certificates end with this CA: those that are good, its own and those of CAs below it; counted up to
    `MOST_COUNTED`. Needs `ccm:ca:get`."""
    async with services.db.read() as tx:
        await store.visible_row(tx, actor, "ccm:ca:get", authority_id)
        return await store.good_below(tx, authority_id, services.clock.now(), MOST_COUNTED)


async def _disable_below(tx: Tx, services: Services, actor: Actor, ca: Any, below: Sequence[str]) -> None:
    now = services.clock.now()
    a = authorities.c
    rows = await tx.execute(sa.select(authorities).where(a.id.in_(below)).order_by(a.id))
    for row in rows.all():
        state = store.ca_state(row, now)
        if state is CaState.ACTIVE:
            await _change(
                tx, services, actor, row, "ccm:ca:disable", {"state": state.value},
                {"operation": CaOperation.DISABLE.value}, {"disabled_at": now}, f"{ca.name} above it was revoked",
            )  # fmt: skip
