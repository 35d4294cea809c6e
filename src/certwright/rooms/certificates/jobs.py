"""The steps of an application and of a revocation. Each looks for the first missing fact, gets it, and writes it down;
killed anywhere, the next run goes on from there and one certificate comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import structlog

from certwright.kernel.actor import system_actor
from certwright.kernel.names import looks_like_ip
from certwright.kernel.problems import Invalid, NotFound, Refused, Unavailable
from certwright.platform.db import Tx
from certwright.platform.events import Event
from certwright.platform.jobs import Again, Next
from certwright.platform.services import Services
from certwright.rooms import audit, keys, organisations, validation
from certwright.rooms.certificates import confirmations, revocation, rules, store
from certwright.rooms.certificates.actions import (
    REVOKE_STEP,
    STEP,
    authority,
    fall_back,
    fall_over,
    leave_application,
    record_version,
    tell_revoked,
)
from certwright.rooms.certificates.calling import LOOK_IN, asked
from certwright.rooms.certificates.ports import (
    Cancelled,
    Cancels,
    CertificateAuthority,
    CertificateOrder,
    Challenging,
    Issued,
    Needs,
    Pending,
    Rejected,
    Usage,
)
from certwright.rooms.certificates.words import Applicant, CertificateType, RevocationReason, State
from certwright.x509.certificates import order_chain, read_certificate
from certwright.x509.csr import make_csr, read_csr
from certwright.x509.keys import KeyAlgorithm

log = structlog.get_logger(__name__)

T = TypeVar("T")

_SERVED_AGAIN = timedelta(hours=1)
_ORGANISATION_OVER = (organisations.State.REFUSED, organisations.State.CANCELLED)


async def issue_step(services: Services, application_id: str) -> Next:
    """Bring one application as far as it gets: validated → key → ordered → issued.

    With a CA that has challenges of its own: key → order → what it wants to see → in place → its leave → issued.
    """
    async with services.db.read() as tx:
        attempt = await store.application(tx, application_id)
        if attempt is None or attempt.issued_at or attempt.withdrawn_at or attempt.failed_at:
            return None
        certificate = await store.certificate(tx, attempt.certificate_id)
        assert certificate is not None
        ca = await authority(tx, services, certificate, attempt.ca)
    if attempt.order_id is None and attempt.organisation_id is None and _names_organisation(attempt):
        await _fail(services, attempt, _ORGANISATION_WITHDRAWN.as_dict())
        return None
    own_challenges = ca.capabilities.challenges
    if attempt.validated_at is None and not own_challenges:
        return await _notice_validation(services, attempt)
    if _waits_for_organisation(ca, attempt) and attempt.validated_at is not None:
        return await _notice_organisation(services, attempt)
    if attempt.csr_der is None:
        await _make_key(services, attempt, intend=not own_challenges)
        return timedelta(0)
    # Nothing is bought before a CA with challenges was told to go on, so until then the application can be withdrawn.
    if attempt.order_intended_at is None and not own_challenges:
        return await _intend(services, attempt)
    if attempt.order_id is None:
        return await _order(services, ca, attempt)
    if attempt.withdraw_asked_at is not None:
        return await _withdraw(services, ca, attempt)
    if attempt.validated_at is None:
        return await _publish(services, ca, attempt)
    if attempt.order_intended_at is None:
        return await _intend(services, attempt)
    return await _collect(services, ca, attempt)


def _names_organisation(attempt: Any) -> bool:
    return CertificateType(attempt.certificate_type).names_organisation


_ORGANISATION_WITHDRAWN = Refused(
    "organisation_withdrawn", "The organization's details were withdrawn, so that no certificate can name it.",
    fix="Reissue it with an organization and an applicant, or apply for a new certificate.",
)  # fmt: skip


async def _notice_validation(services: Services, attempt: Any) -> Next:
    now = services.clock.now()
    async with services.db.begin() as tx:
        # Whoever changes a certificate and its application locks the certificate first: one order, no deadlock.
        await store.certificate(tx, attempt.certificate_id, lock=True)
        state = await validation.state(tx, services, attempt.id, now)
        if not state.all_valid:
            return LOOK_IN
        await _validated(tx, services, attempt, now)
    return timedelta(0)


async def _validated(tx: Tx, services: Services, attempt: Any, now: datetime) -> None:
    """Record that every name is shown; the certificate is locked."""
    if await store.record(tx, attempt.id, "validated_at", validated_at=now) and attempt.kind == "apply":
        enters = State.TO_BE_ISSUED
        if attempt.organisation_id is not None and attempt.organisation_ok_at is None:
            enters = State.PENDING_ORGANIZATION_VALIDATION
        leaves = [State.PENDING_DOMAIN_VALIDATION]
        if await store.move(tx, attempt.certificate_id, leaves, enters, now):
            await audit.record(
                tx, services, _actor(attempt), "scm:validation:done", "certificate", attempt.certificate_id,
                project_id=attempt.project_id, before={"state": State.PENDING_DOMAIN_VALIDATION.value},
                after={"state": enters.value},
            )  # fmt: skip


def _waits_for_organisation(ca: CertificateAuthority, attempt: Any) -> bool:
    ours = attempt.organisation_id is not None and not ca.capabilities.checks_organisations
    return ours and attempt.organisation_ok_at is None


async def _notice_organisation(services: Services, attempt: Any) -> Next:
    """Go on when our desk has verified the organisation; give up when it refused."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        await store.certificate(tx, attempt.certificate_id, lock=True)
        case = await organisations.state(tx, services, attempt.id, now)
        if case is not None and case.usable:
            if await store.record(tx, attempt.id, "organisation_ok_at", organisation_ok_at=now):
                leaves = [State.PENDING_ORGANIZATION_VALIDATION]
                if await store.move(tx, attempt.certificate_id, leaves, State.TO_BE_ISSUED, now):
                    await audit.record(
                        tx, services, _actor(attempt), "scm:validation:done", "certificate", attempt.certificate_id,
                        project_id=attempt.project_id, before={"state": State.PENDING_ORGANIZATION_VALIDATION.value},
                        after={"state": State.TO_BE_ISSUED.value},
                    )  # fmt: skip
            return timedelta(0)
    if case is not None and case.state in _ORGANISATION_OVER:
        reasons = case.reasons or ("The organization was not verified.",)
        said = {"code": "organisation_refused", "message": " ".join(reasons), "reasons": list(reasons)}
        await _fail(services, attempt, said)
        return None
    return LOOK_IN


async def _withdraw(services: Services, ca: CertificateAuthority, attempt: Any) -> Next:
    """Ask the CA to forget the order. What it approved meanwhile is fetched like any other."""
    assert isinstance(ca, Cancels), "only such a CA is asked"
    answer = await asked(ca.cancel(attempt.order_id, attempt.account_id))
    now = services.clock.now()
    async with services.db.begin() as tx:
        certificate = await store.certificate(tx, attempt.certificate_id, lock=True)
        assert certificate is not None
        if isinstance(answer, Cancelled):
            if await store.record(tx, attempt.id, "withdrawn_at", withdrawn_at=now):
                enters = await leave_application(tx, services, certificate, attempt)
                await _note_withdrawal(tx, services, certificate, attempt, enters, "the CA cancelled the order")
            return None
        # Too late: as if nobody had asked, but on record.
        enters = {"apply": State.TO_BE_ISSUED, "reissue": State.VERIFYING_REISSUE}.get(
            attempt.kind, State.VERIFYING_DOMAIN_ADDITION
        )
        await store.record(
            tx, attempt.id, "withdrawn_at", withdraw_asked_at=None, withdrawal_refused=answer.words[:500],
            validated_at=attempt.validated_at or now, order_intended_at=attempt.order_intended_at or now,
        )  # fmt: skip
        await store.move(tx, certificate.id, [State.VERIFYING_WITHDRAWAL], enters, now)
        await _note_withdrawal(tx, services, certificate, attempt, enters, f"too late: {answer.words}")
    return timedelta(0)


async def _note_withdrawal(
    tx: Tx, services: Services, certificate: Any, attempt: Any, enters: State, reason: str
) -> None:
    await audit.record(
        tx, services, _actor(attempt), "scm:cert:withdraw", "certificate", certificate.id,
        project_id=certificate.project_id, before={"state": certificate.stage}, after={"state": enters.value},
        reason=reason,
    )  # fmt: skip


async def _publish(services: Services, ca: CertificateAuthority, attempt: Any) -> Next:
    """Have shown what the CA wants to see, once; then wait until it is in place."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        shown = await validation.state(tx, services, attempt.id, now)
    if shown.domains and not shown.all_valid:
        if any(domain.status is validation.ChallengeStatus.EXPIRED for domain in shown.domains):
            await _fail(services, attempt, _ORDER_EXPIRED.as_dict())
            return None
        return LOOK_IN
    needs: Needs | None = None
    if not shown.domains:
        match await asked(ca.collect(attempt.order_id, attempt.account_id)):
            case Needs() as needs:
                pass
            case Rejected(reasons):
                await _fail(services, attempt, _rejected(reasons))
                return None
            case _:
                pass  # validated already, in an earlier run of this step or of another order
    async with services.db.begin() as tx:
        certificate = await store.certificate(tx, attempt.certificate_id, lock=True)
        assert certificate is not None
        fresh = await store.application(tx, attempt.id)
        if fresh is None or fresh.withdrawn_at or fresh.failed_at:
            return None
        if needs is not None and needs.wanted:
            await validation.publish(
                tx, services, account_id=fresh.account_id, project_id=fresh.project_id, subject_id=fresh.id,
                wanted=needs.wanted, ca=certificate.ca, now=now,
                ca_kind=validation.CaKind.PUBLIC if ca.capabilities.public else validation.CaKind.PRIVATE,
            )  # fmt: skip
            return LOOK_IN
        await _validated(tx, services, fresh, now)
    return timedelta(0)


_ORDER_EXPIRED = Refused(
    "order_expired", "The CA's order ran out before everything was in place.",
    fix="Apply again, and publish what is asked for sooner; a DNS connection does it by itself.",
)  # fmt: skip


def _rejected(reasons: tuple[str, ...]) -> dict[str, Any]:
    return {"code": "ca_rejected", "message": " ".join(reasons), "reasons": list(reasons)}


async def _intend(services: Services, attempt: Any) -> Next:
    """From here on withdrawal is too late: the intention is on record before the CA hears of it."""
    async with services.db.single() as tx:
        await store.record(tx, attempt.id, "order_intended_at", order_intended_at=services.clock.now())
    return timedelta(0)


async def _make_key(services: Services, attempt: Any, *, intend: bool) -> None:
    """With `intend` the order's intention goes on record in the same transaction."""
    new = await keys.new_key(KeyAlgorithm(attempt.key_algorithm))
    addresses = [name for name in attempt.names if looks_like_ip(name)]
    csr = make_csr(new.key, [name for name in attempt.names if name not in addresses], addresses)
    async with services.db.begin() as tx:
        # The guarded write comes first: whoever loses the race stores no orphan key.
        if await store.record(tx, attempt.id, "csr_der", csr_der=csr):
            # Read again, now that the row is ours: the certificate may have been moved meanwhile.
            fresh = await store.application(tx, attempt.id)
            assert fresh is not None
            key_id = await keys.store_key(tx, services, new, account_id=fresh.account_id, project_id=fresh.project_id)
            intended = {"order_intended_at": services.clock.now()} if intend else {}
            await store.record(tx, attempt.id, "key_id", key_id=key_id, **intended)


async def _order(services: Services, ca: CertificateAuthority, attempt: Any) -> Next:
    async with services.db.read() as tx:
        certificate = await store.certificate(tx, attempt.certificate_id)
        assert certificate is not None
        before = await store.material(tx, certificate_id=certificate.id)
    technical = attempt.technical_contact
    order = CertificateOrder(
        reference=attempt.id,
        account_id=attempt.account_id,
        project_id=certificate.project_id,
        names=tuple(attempt.names),
        csr_der=attempt.csr_der,
        methods={name: attempt.per_name_methods.get(name, attempt.validation_method) for name in attempt.names},
        replaces_der=before.leaf_der if before is not None and attempt.kind != "apply" else None,
        certificate_type=CertificateType(attempt.certificate_type),
        organisation=attempt.organisation,
        contact=Applicant(**attempt.applicant) if attempt.applicant else None,
        technical_contact=Applicant(**technical) if technical else None,
        root_hash=attempt.root_hash,
        years=rules.years_left(certificate.coverage_years, certificate.coverage_ends_at, services.clock.now()),
    )
    try:
        await _heed_caa(services, ca, order)
        order_id = await _patiently(services, attempt, ca.submit(order))
    except _OutOfPatience as away:
        await _fail(services, attempt, away.problem, cas_own=True)
        return None
    except (Invalid, Refused, NotFound) as no:
        # Asking again would get the same answer; a CA that is merely away raises Unavailable, and is asked again.
        await _fail(services, attempt, no.as_dict(), cas_own=not isinstance(no, Invalid))
        return None
    async with services.db.single() as tx:
        await store.record(tx, attempt.id, "order_id", order_id=order_id)
    return timedelta(0)


# Long enough for a zone's servers to come back, short enough for somebody who waits.
_CAA_AGAIN = timedelta(minutes=5)


async def _heed_caa(services: Services, ca: CertificateAuthority, order: CertificateOrder) -> None:
    """What CAA forbids a public CA isn't ordered. Raises Refused, and Again while it can't be looked up."""
    can = ca.capabilities
    if not can.public or not can.caa_identifiers:
        return
    why = await validation.why_caa_forbids(
        services, identifiers=can.caa_identifiers, account_uri=can.account_uri,
        methods={name: can.caa_methods.get(method, "") for name, method in order.methods.items()},
    )  # fmt: skip
    if isinstance(why, Unavailable):
        raise Again(_CAA_AGAIN, why)
    if why is not None:
        raise why


async def _collect(services: Services, ca: CertificateAuthority, attempt: Any) -> Next:
    try:
        answer = await _patiently(services, attempt, ca.collect(attempt.order_id, attempt.account_id))
    except _OutOfPatience as away:
        await _fail(services, attempt, away.problem, cas_own=True)
        return None
    match answer:
        case Pending(again, why):
            if why is not None:
                raise Again(again, why)
            return again
        case Needs():
            assert isinstance(ca, Challenging), "only such a CA needs anything"
            await ca.proceed(attempt.order_id, attempt.account_id)
            return timedelta(0)
        case Rejected(reasons):
            await _fail(services, attempt, _rejected(reasons), cas_own=True)
        case Issued() as issued:
            await _accept(services, attempt, issued)
    return None


async def _accept(services: Services, attempt: Any, issued: Issued) -> None:
    now = services.clock.now()
    try:
        leaf = read_certificate(issued.leaf_der)
        chain, _ = order_chain(leaf, [read_certificate(der) for der in issued.chain_ders])
    except Invalid as unreadable:
        said = _unreadable(unreadable).as_dict() | {"returned_sha256": hashlib.sha256(issued.leaf_der).hexdigest()}
        await _fail(services, attempt, said)
        return
    wrong = rules.why_not_ours(
        asked_names=attempt.names,
        got_names=leaf.dns_names + leaf.ip_addresses,
        asked_spki=read_csr(attempt.csr_der).spki_sha256,
        got_spki=leaf.spki_sha256,
        not_after=leaf.not_after,
        now=now,
        chain_fits=len(chain) > 1 or not issued.chain_ders or leaf.self_signed,
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
        # In order, and without what belongs to another chain: servers send it as it is kept.
        kept = replace(issued, chain_ders=tuple(one.der for one in chain[1:]))
        await record_version(tx, services, _actor(attempt), certificate, fresh, kept)


def _unreadable(problem: Invalid) -> Refused:
    return Refused(
        "issued_unreadable", f"The CA returned something that can't be read as a certificate: {problem.message}",
        fix="Nothing was deployed. Tell the CA, then apply again.",
    )  # fmt: skip


async def _fail(services: Services, attempt: Any, failure: dict[str, Any], *, cas_own: bool = False) -> None:
    """End the attempt; a reissue falls back to the version that still works.

    Where the CA refused or was away for reasons of its own, the certificate's second CA is asked in its place.
    """
    now = services.clock.now()
    async with services.db.begin() as tx:
        certificate = await store.certificate(tx, attempt.certificate_id, lock=True)
        if certificate is None or not await store.record(tx, attempt.id, "failed_at", failed_at=now, failure=failure):
            return
        if attempt.kind == "apply":
            enters = State.APPROVAL_FAILED
            leaves = [
                State.PENDING_DOMAIN_VALIDATION, State.PENDING_ORGANIZATION_VALIDATION, State.TO_BE_ISSUED,
                State.VERIFYING_WITHDRAWAL,
            ]  # fmt: skip
            await store.move(tx, attempt.certificate_id, leaves, enters, now)
        else:
            enters = await fall_back(tx, services, certificate)
        await validation.cancel(tx, attempt.id, now)
        if attempt.organisation_id is not None:
            await organisations.cancel(tx, attempt.id, now)
        await services.events.publish(
            tx, "certificate.application_failed", account_id=attempt.account_id, object_id=attempt.certificate_id,
            payload={"application_id": attempt.id, "failure": failure},
        )  # fmt: skip
        await audit.record(
            tx, services, _actor(attempt), "scm:cert:issue", "certificate", attempt.certificate_id,
            project_id=attempt.project_id, before={"state": certificate.stage},
            after={"state": enters.value, "failure": failure}, reason=str(failure.get("message", ""))[:500],
        )  # fmt: skip
        if cas_own:
            await fall_over(tx, services, _actor(attempt), attempt.certificate_id, attempt, failure)


class _OutOfPatience(Exception):
    """The CA has been away for too long, and there is another."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem["message"])
        self.problem = problem


async def _patiently(services: Services, attempt: Any, call: Awaitable[T]) -> T:
    """Like `asked`; but a CA with a stand-in is waited for only so long."""
    try:
        return await asked(call)
    except (Unavailable, Again) as away:
        if not await _out_of_patience(services, attempt):
            raise
        problem = away if isinstance(away, Unavailable) else away.problem
        said = problem.as_dict() if problem else {"code": "ca_away", "message": "The CA was away."}
        raise _OutOfPatience(said) from away


async def _out_of_patience(services: Services, attempt: Any) -> bool:
    """Whether the CA has been away for too long and there is another; notes when it was first found away."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        certificate = await store.certificate(tx, attempt.certificate_id)
        if certificate is None or certificate.fallback_ca is None or attempt.takes_over_id is not None:
            return False
        if attempt.ca_away_since is None:
            await store.record(tx, attempt.id, "ca_away_since", ca_away_since=now)
            return False
    return bool(now - attempt.ca_away_since >= timedelta(hours=services.settings.ca_patience_hours))


async def revoke_step(services: Services, version_id: str) -> Next:
    """Tell the CA, then record it; the CA is content to hear it twice."""
    async with services.db.begin() as tx:
        version = await store.version(tx, version_id)
        if version is None or version.revoked_at is not None:
            return None
        certificate = await store.certificate(tx, version.certificate_id)
        assert certificate is not None
        ca = await authority(tx, services, certificate, version.ca)
        if version.revoke_asked_at is None:
            return await _replaced(tx, services, ca, certificate, version)
        unconfirmed = version.not_after > services.clock.now() and await confirmations.still_wanted(
            tx, services, ca.capabilities, certificate, version
        )
    if version.not_after <= services.clock.now():
        return await _lapsed(services, version)
    if unconfirmed:
        return confirmations.LOOK_AGAIN
    try:
        told = await revocation.tell(services, ca, certificate, version)
    except (Refused, Unavailable, Again) as no:
        if version.not_after <= services.clock.now():
            return await _lapsed(services, version)
        if not isinstance(no, Refused):
            raise
        log.warning("the CA refused a revocation", certificate=certificate.id, code=no.code)
        raise Again(revocation.REFUSED_AGAIN, no) from no
    if isinstance(told, timedelta):
        return told if version.not_after > services.clock.now() else await _lapsed(services, version)
    now = services.clock.now()
    async with services.db.begin() as tx:
        certificate = await store.certificate(tx, version.certificate_id, lock=True)
        if certificate is not None and await store.update_version(
            tx, version_id, "revoked_at", revoked_at=now, revoked_by=told.value
        ):
            # Of an earlier version, or of one whose successor is on its way, the certificate's state doesn't speak.
            over = certificate.current_version_id == version_id and await store.move(
                tx, certificate.id, revocation.REVOKING, State.REVOKED, now
            )
            await revocation.drop(tx, services, version_id, version.control_id)
            await tell_revoked(tx, services, version, over=over)
            await audit.record(
                tx, services, system_actor(version.account_id, "certificates"), "scm:cert:revoke", "certificate",
                certificate.id, project_id=certificate.project_id, before={"state": certificate.stage},
                after={"state": State.REVOKED.value if over else certificate.stage, "version": version_id,
                       "revoked_by": told.value},
                reason=version.revocation_reason,
            )  # fmt: skip
    return None


async def _lapsed(services: Services, version: Any) -> Next:
    """It ran out before the CA took the revocation: nobody accepts it any more, and there is nothing left to do."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        certificate = await store.certificate(tx, version.certificate_id, lock=True)
        if certificate is None or not await store.update_version(tx, version.id, "revoked_at", revoke_asked_at=None):
            return None
        await revocation.drop(tx, services, version.id, version.control_id)
        enters = certificate.stage
        if certificate.current_version_id == version.id and await store.move(
            tx, certificate.id, revocation.REVOKING, State.ISSUED, now
        ):
            enters = State.ISSUED.value
        await audit.record(
            tx, services, system_actor(version.account_id, "certificates"), "scm:cert:revoke", "certificate",
            certificate.id, project_id=certificate.project_id, before={"state": certificate.stage},
            after={"state": enters, "version": version.id},
            reason="given up: it expired before the CA took the revocation",
        )  # fmt: skip
    return None


async def _replaced(tx: Tx, services: Services, ca: CertificateAuthority, certificate: Any, version: Any) -> Next:
    """Ask for the revocation of a version that was reissued, once nothing served it for as long as the grace."""
    now = services.clock.now()
    superseded = RevocationReason.SUPERSEDED
    if version.revoke_replaced_at is None or version.not_after <= now:
        return None
    if superseded not in ca.capabilities.revocation_reasons:
        return None
    if await services.port(Usage).serves(tx, version.id):
        # The grace counts from when it was last seen in use.
        grace = timedelta(days=services.settings.superseded_grace_days)
        await store.set_replaced_until(tx, version.id, now + grace)
        return _SERVED_AGAIN
    if version.revoke_replaced_at > now:
        return min(_SERVED_AGAIN, timedelta(seconds=(version.revoke_replaced_at - now).total_seconds()))
    if await store.update_version(
        tx, version.id, "revoke_asked_at", revoke_asked_at=now, revocation_reason=superseded.value
    ):
        await audit.record(
            tx, services, system_actor(version.account_id, "certificates"), "scm:cert:revoke", "certificate",
            certificate.id, project_id=certificate.project_id, after={"version": version.id}, reason=superseded.value,
        )  # fmt: skip
    return timedelta(0)


async def organisation_decided(services: Services, event: Event) -> None:
    """Listener: our desk verified or refused the organisation of an application (`subject_id`)."""
    await _wake(services, str(event.payload["subject_id"]))


async def _wake(services: Services, application_id: str) -> None:
    async with services.db.begin() as tx:
        attempt = await store.application(tx, application_id)
        if attempt is not None and not (attempt.issued_at or attempt.withdrawn_at or attempt.failed_at):
            await services.jobs.start(tx, STEP, attempt.id)


async def domains_validated(services: Services, event: Event) -> None:
    """Listener: the last domain of an application became valid, or of a version that is to be revoked."""
    await _wake(services, event.object_id)
    async with services.db.begin() as tx:
        version = await store.version_of_control(tx, event.object_id)
        if version is not None and version.revoked_at is None:
            await services.jobs.start(tx, REVOKE_STEP, version.id)


async def give_back_order(services: Services, event: Event) -> None:
    """Listener: an application failed here. What it ordered must not be issued, and paid for, later."""
    async with services.db.begin() as tx:
        attempt = await store.application(tx, str(event.payload["application_id"]))
        certificate = None if attempt is None else await store.certificate(tx, attempt.certificate_id)
        if attempt is None or certificate is None or attempt.order_id is None:
            return
        ca = await authority(tx, services, certificate, attempt.ca)
    if isinstance(ca, Cancels):
        answer = await ca.cancel(attempt.order_id, attempt.account_id)
        if not isinstance(answer, Cancelled):
            log.warning("an order could not be given back", application=attempt.id, reason=answer.words)


def _actor(attempt: Any) -> Any:
    return system_actor(attempt.account_id, "certificates")
