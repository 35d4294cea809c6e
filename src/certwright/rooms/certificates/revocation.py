"""Three ways to be believed by a CA that is to revoke a version (RFC 8555 section 7.6): our account there ordered it,
we hold its key, or we show control of all its names anew. The last one is a process of its own: the names are validated
like those of an application, under the id `control_id` of the version."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog

from certwright.kernel.actor import system_actor
from certwright.kernel.ids import new_id
from certwright.kernel.names import looks_like_ip
from certwright.kernel.problems import Refused
from certwright.platform.db import Tx
from certwright.platform.jobs import Again
from certwright.platform.services import Services
from certwright.rooms import audit, keys, validation
from certwright.rooms.certificates import store
from certwright.rooms.certificates.calling import LOOK_IN, asked
from certwright.rooms.certificates.ports import (
    Cancels,
    CertificateAuthority,
    CertificateOrder,
    ControlShown,
    MayNotRevoke,
    Needs,
    Pending,
    Rejected,
    RevokesByControl,
    RevokesByKey,
)
from certwright.rooms.certificates.words import RevocationReason, RevokedBy, State

log = structlog.get_logger(__name__)

REFUSED_AGAIN = timedelta(hours=1)
# Not every CA goes by RFC 8555 section 7.6; asking costs an order each time.
_CONTROL_AGAIN = timedelta(days=1)
REVOKING = (State.VERIFYING_REVOCATION, State.REVOCATION_PENDING_DOMAIN_VALIDATION)


async def tell(services: Services, ca: CertificateAuthority, certificate: Any, version: Any) -> RevokedBy | timedelta:
    """Have the version revoked; a timedelta says when to go on with showing its names.

    Raises Refused where the CA says no, Unavailable or Again where it can't be asked now.
    """
    reason = RevocationReason(version.revocation_reason)
    compromised = reason is RevocationReason.KEY_COMPROMISE
    # Who shows a key that others know has it blocked for everybody's certificates (BR 4.9.1.1, 4.9.12).
    if compromised and await _by_key(services, ca, version, reason):
        return RevokedBy.KEY
    if version.control_id is not None and isinstance(ca, RevokesByControl):
        return await _by_control(services, ca, certificate, version, version.control_id)
    try:
        await asked(ca.revoke(version.leaf_der, reason, version.account_id))
    except MayNotRevoke:
        if not compromised and await _by_key(services, ca, version, reason):
            return RevokedBy.KEY
        if not isinstance(ca, RevokesByControl):
            raise
        control_id = new_id("rvc", services.clock.now())
        async with services.db.begin() as tx:
            if not await store.update_version(tx, version.id, "control_id", control_id=control_id):
                return timedelta(0)
        return await _by_control(services, ca, certificate, version, control_id)
    return RevokedBy.ACCOUNT


async def _by_key(services: Services, ca: CertificateAuthority, version: Any, reason: RevocationReason) -> bool:
    """False where we don't hold the key, or the CA doesn't take it for an answer."""
    if version.key_id is None or not isinstance(ca, RevokesByKey):
        return False
    actor = system_actor(version.account_id, "certificates")
    try:
        key = await keys.open_key(services, actor, version.key_id, f"version {version.id} is revoked with its key")
        await asked(ca.revoke_with_key(version.leaf_der, key, reason))
    except Refused as refused:
        log.warning("a revocation with the key was refused", version=version.id, code=refused.code)
        return False
    return True


async def _by_control(
    services: Services, ca: RevokesByControl, certificate: Any, version: Any, control_id: str
) -> RevokedBy | timedelta:
    order = CertificateOrder(
        reference=control_id, account_id=version.account_id, project_id=certificate.project_id,
        names=tuple(version.names), csr_der=b"", methods=await _methods(services, ca, version),
    )  # fmt: skip
    try:
        order_id = await asked(ca.show_control(order))
        now = services.clock.now()
        async with services.db.begin() as tx:
            shown = await validation.state(tx, services, control_id, now)
        if shown.domains and not shown.all_valid:
            if any(domain.status is validation.ChallengeStatus.EXPIRED for domain in shown.domains):
                raise _not_shown(("what the CA wanted to see was not published in time",))
            return LOOK_IN
        match await asked(ca.control_shown(order_id, version.account_id)):
            case Pending(again):
                return again
            case Rejected(reasons):
                raise _not_shown(reasons)
            case Needs(wanted) if wanted and not shown.domains:
                await _publish(services, ca, version, control_id, wanted)
                return LOOK_IN
            case Needs():
                await _all_in_place(services, version)
                await asked(ca.proceed(order_id, version.account_id))
                return timedelta(0)
            case ControlShown():
                reason = RevocationReason(version.revocation_reason)
                await asked(ca.revoke(version.leaf_der, reason, version.account_id))
    except Refused as refused:
        # Begun anew later: what was asked for is spent.
        async with services.db.begin() as tx:
            await drop(tx, services, version.id, control_id)
        again = _CONTROL_AGAIN if isinstance(refused, MayNotRevoke) else REFUSED_AGAIN
        raise Again(again, refused) from refused
    if isinstance(ca, Cancels):
        await ca.cancel(order_id, version.account_id)
    return RevokedBy.CONTROL


def _not_shown(reasons: tuple[str, ...]) -> Refused:
    return Refused(
        "control_not_shown", f"The CA revokes this once the names are shown to be yours: {' '.join(reasons)[:400]}",
        fix="New values are asked for by themselves; publish those.", extra={"reasons": list(reasons)},
    )  # fmt: skip


async def _methods(services: Services, ca: CertificateAuthority, version: Any) -> dict[str, str]:
    """As the names were shown when the version was ordered, where the CA still takes that."""
    async with services.db.begin() as tx:
        attempt = await store.application(tx, version.application_id) if version.application_id else None
    chosen: dict[str, str] = {}
    for name in version.names:
        usual = "file" if looks_like_ip(name) else "dns"
        method = attempt.per_name_methods.get(name, attempt.validation_method) if attempt is not None else usual
        chosen[name] = method if method in ca.capabilities.methods else usual
    return chosen


async def _publish(
    services: Services, ca: CertificateAuthority, version: Any, control_id: str, wanted: tuple[validation.Wanted, ...]
) -> None:
    now = services.clock.now()
    kind = validation.CaKind.PUBLIC if ca.capabilities.public else validation.CaKind.PRIVATE
    async with services.db.begin() as tx:
        certificate = await store.certificate(tx, version.certificate_id, lock=True)
        if certificate is None:
            return
        await validation.publish(
            tx, services, account_id=certificate.account_id, project_id=certificate.project_id, subject_id=control_id,
            wanted=wanted, ca=version.ca or certificate.ca, ca_kind=kind, now=now,
        )  # fmt: skip
        # Of an earlier version the certificate's state doesn't speak.
        enters = State.REVOCATION_PENDING_DOMAIN_VALIDATION
        if certificate.current_version_id == version.id and await store.move(
            tx, certificate.id, [State.VERIFYING_REVOCATION], enters, now
        ):
            await audit.record(
                tx, services, system_actor(version.account_id, "certificates"), "scm:cert:revoke", "certificate",
                certificate.id, project_id=certificate.project_id, before={"state": certificate.stage},
                after={"state": enters.value, "version": version.id},
                reason="our account at the CA may not revoke it and its key isn't held here",
            )  # fmt: skip


async def _all_in_place(services: Services, version: Any) -> None:
    """The names are shown; from here on it is the CA's turn again."""
    async with services.db.begin() as tx:
        await _back_to_the_ca(tx, services, version, "the CA's values are published")


async def _back_to_the_ca(tx: Tx, services: Services, version: Any, why: str) -> None:
    leaves, enters = State.REVOCATION_PENDING_DOMAIN_VALIDATION, State.VERIFYING_REVOCATION
    if await store.move(tx, version.certificate_id, [leaves], enters, services.clock.now()):
        await audit.record(
            tx, services, system_actor(version.account_id, "certificates"), "scm:cert:revoke", "certificate",
            version.certificate_id, project_id=version.project_id, before={"state": leaves.value},
            after={"state": enters.value, "version": version.id}, reason=why,
        )  # fmt: skip


async def drop(tx: Tx, services: Services, version_id: str, control_id: str | None) -> None:
    """What is shown for a revocation isn't needed any more, or not in this form."""
    now = services.clock.now()
    version = await store.version(tx, version_id)
    if control_id is None or version is None:
        return
    await validation.cancel(tx, control_id, now)
    await store.drop_control(tx, version_id, control_id)
    await _back_to_the_ca(tx, services, version, "what the CA wanted to see is not asked for any more")
