"""The steps of an application and of a revocation. Each looks for the first missing fact, gets it, and writes it down;
killed anywhere, the next run goes on from there and one certificate comes out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog

from certwright.kernel.actor import system_actor
from certwright.kernel.names import looks_like_ip
from certwright.kernel.problems import Invalid, NotFound, Refused
from certwright.platform.db import assert_no_transaction
from certwright.platform.events import Event
from certwright.platform.jobs import Again, Next
from certwright.platform.services import Services
from certwright.rooms import audit, keys, validation
from certwright.rooms.certificates import rules, store
from certwright.rooms.certificates.actions import STEP, authority, record_version
from certwright.rooms.certificates.ports import CertificateOrder, Issued, Pending, Rejected
from certwright.rooms.certificates.words import RevocationReason, State
from certwright.x509.certificates import read_certificate
from certwright.x509.csr import make_csr, read_csr
from certwright.x509.keys import KeyAlgorithm

log = structlog.get_logger(__name__)

# Validation tells us by event; this look-in is for the event that was lost with a restored backup.
_LOOK_IN = timedelta(minutes=10)


async def issue_step(services: Services, application_id: str) -> Next:
    """Bring one application as far as it gets: validated → key → ordered → issued."""
    async with services.db.begin() as tx:
        attempt = await store.application(tx, application_id)
    if attempt is None or attempt.issued_at or attempt.withdrawn_at or attempt.failed_at:
        return None
    if attempt.validated_at is None:
        return await _notice_validation(services, attempt)
    if attempt.csr_der is None:
        await _make_key(services, attempt)
        return timedelta(0)
    if attempt.order_id is None:
        return await _order(services, attempt)
    return await _collect(services, attempt)


async def _notice_validation(services: Services, attempt: Any) -> Next:
    now = services.clock.now()
    async with services.db.begin() as tx:
        # Whoever changes a certificate and its application locks the certificate first: one order, no deadlock.
        await store.certificate(tx, attempt.certificate_id, lock=True)
        state = await validation.state(tx, attempt.id, now)
        if not state.all_valid:
            return _LOOK_IN
        if await store.record(tx, attempt.id, "validated_at", validated_at=now) and attempt.kind == "apply":
            await store.move(tx, attempt.certificate_id, [State.PENDING_DOMAIN_VALIDATION], State.TO_BE_ISSUED, now)
            await audit.record(
                tx, services, _actor(attempt), "scm:validation:done", "certificate", attempt.certificate_id,
                project_id=attempt.project_id, before={"state": State.PENDING_DOMAIN_VALIDATION.value},
                after={"state": State.TO_BE_ISSUED.value},
            )  # fmt: skip
    return timedelta(0)


async def _make_key(services: Services, attempt: Any) -> None:
    new = await keys.new_key(KeyAlgorithm(attempt.key_algorithm))
    addresses = [name for name in attempt.names if looks_like_ip(name)]
    csr = make_csr(new.key, [name for name in attempt.names if name not in addresses], addresses)
    async with services.db.begin() as tx:
        # The guarded write comes first: whoever loses the race stores no orphan key.
        if await store.record(tx, attempt.id, "csr_der", csr_der=csr):
            key_id = await keys.store_key(
                tx, services, new, account_id=attempt.account_id, project_id=attempt.project_id
            )
            await store.record(tx, attempt.id, "key_id", key_id=key_id)


async def _order(services: Services, attempt: Any) -> Next:
    async with services.db.begin() as tx:
        certificate = await store.certificate(tx, attempt.certificate_id)
        assert certificate is not None
        # From here on withdrawal is too late: the intention is on record before the CA hears of it.
        if attempt.order_intended_at is None and not await store.record(
            tx, attempt.id, "order_intended_at", order_intended_at=services.clock.now()
        ):
            return timedelta(0)
    assert_no_transaction()
    ca = authority(services, certificate.ca)
    order = CertificateOrder(
        reference=attempt.id,
        account_id=attempt.account_id,
        project_id=attempt.project_id,
        names=tuple(attempt.names),
        csr_der=attempt.csr_der,
    )
    try:
        order_id = await ca.submit(order)
    except (Invalid, Refused, NotFound) as no:
        # Asking again would get the same answer; a CA that is merely away raises Unavailable, and is asked again.
        await _fail(services, attempt, no.as_dict())
        return None
    async with services.db.begin() as tx:
        await store.record(tx, attempt.id, "order_id", order_id=order_id)
    return timedelta(0)


async def _collect(services: Services, attempt: Any) -> Next:
    async with services.db.begin() as tx:
        certificate = await store.certificate(tx, attempt.certificate_id)
        assert certificate is not None
    ca = authority(services, certificate.ca)
    assert_no_transaction()
    match await ca.collect(attempt.order_id, attempt.account_id):
        case Pending(again):
            return again
        case Rejected(reasons):
            await _fail(
                services, attempt, {"code": "ca_rejected", "message": " ".join(reasons), "reasons": list(reasons)}
            )
        case Issued() as issued:
            await _accept(services, attempt, issued)
    return None


async def _accept(services: Services, attempt: Any, issued: Issued) -> None:
    now = services.clock.now()
    leaf = read_certificate(issued.leaf_der)
    wrong = rules.why_not_ours(
        asked_names=attempt.names,
        got_names=leaf.dns_names + leaf.ip_addresses,
        asked_spki=read_csr(attempt.csr_der).spki_sha256,
        got_spki=leaf.spki_sha256,
        not_after=leaf.not_after,
        now=now,
    )
    if wrong is not None:
        await _fail(services, attempt, wrong.as_dict() | {"returned_sha256": leaf.sha256})
        return
    async with services.db.begin() as tx:
        certificate = await store.certificate(tx, attempt.certificate_id, lock=True)
        if certificate is None or not await store.record(tx, attempt.id, "issued_at", issued_at=now):
            return
        fresh = await store.application(tx, attempt.id)
        assert fresh is not None
        await record_version(tx, services, _actor(attempt), certificate, fresh, issued)


async def _fail(services: Services, attempt: Any, failure: dict[str, Any]) -> None:
    """End the attempt; a reissue falls back to the version that still works."""
    now = services.clock.now()
    enters = State.APPROVAL_FAILED if attempt.kind == "apply" else State.ISSUED
    async with services.db.begin() as tx:
        await store.certificate(tx, attempt.certificate_id, lock=True)
        if not await store.record(tx, attempt.id, "failed_at", failed_at=now, failure=failure):
            return
        await store.move(tx, attempt.certificate_id, [State.TO_BE_ISSUED, State.VERIFYING_REISSUE], enters, now)
        await validation.cancel(tx, attempt.id, now)
        await services.events.publish(
            tx, "certificate.application_failed", account_id=attempt.account_id, object_id=attempt.certificate_id,
            payload={"application_id": attempt.id, "failure": failure},
        )  # fmt: skip
        await audit.record(
            tx, services, _actor(attempt), "scm:cert:issue", "certificate", attempt.certificate_id,
            project_id=attempt.project_id, after={"state": enters.value, "failure": failure},
        )  # fmt: skip


async def revoke_step(services: Services, version_id: str) -> Next:
    """Tell the CA, then record it; the CA is content to hear it twice."""
    async with services.db.begin() as tx:
        version = await store.version(tx, version_id)
        if version is None or version.revoke_asked_at is None or version.revoked_at is not None:
            return None
        certificate = await store.certificate(tx, version.certificate_id)
        assert certificate is not None
    assert_no_transaction()
    reason = RevocationReason(version.revocation_reason)
    try:
        await authority(services, certificate.ca).revoke(version.leaf_der, reason, version.account_id)
    except Refused as refused:
        log.warning("the CA refused a revocation", certificate=certificate.id, code=refused.code)
        raise Again(timedelta(hours=1), refused) from refused
    now = services.clock.now()
    async with services.db.begin() as tx:
        await store.certificate(tx, version.certificate_id, lock=True)
        if await store.update_version(tx, version_id, "revoked_at", revoked_at=now):
            await store.move(tx, version.certificate_id, [State.VERIFYING_REVOCATION], State.REVOKED, now)
            await services.events.publish(
                tx, "certificate.revoked", account_id=version.account_id, object_id=version.certificate_id,
                payload={"version_id": version_id, "reason": reason.value, "sha256": version.sha256},
            )  # fmt: skip
            await audit.record(
                tx, services, system_actor(version.account_id, "certificates"), "scm:cert:revoke", "certificate",
                version.certificate_id, project_id=version.project_id,
                before={"state": State.VERIFYING_REVOCATION.value}, after={"state": State.REVOKED.value},
                reason=reason.value,
            )  # fmt: skip
    return None


async def domains_validated(services: Services, event: Event) -> None:
    """Listener: the last domain of an application became valid."""
    async with services.db.begin() as tx:
        attempt = await store.application(tx, event.object_id)
        if attempt is not None and not (attempt.issued_at or attempt.withdrawn_at or attempt.failed_at):
            await services.jobs.start(tx, STEP, attempt.id)


def _actor(attempt: Any) -> Any:
    return system_actor(attempt.account_id, "certificates")
