"""CAs that sell over a CertCentral-style API, behind the ports: orders for the certificates room, products for the cas
room.

Such a CA is paid when it takes an order. So each order is on record here before the CA hears of it, carries our
reference there, and is looked up by it before it is placed a second time. Until the CA has issued it can be cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import structlog

from certwright.connectors.ca.certcentral import refusals, rules
from certwright.connectors.ca.certcentral.client import CertCentralClient
from certwright.connectors.ca.certcentral.objects import (
    FRUITLESS,
    UNDER_WAY,
    OrderInfo,
    OrderStatus,
    Placed,
    Reissue,
)
from certwright.kernel.problems import NotFound, Problem, Refused, not_found
from certwright.platform.services import Services
from certwright.rooms import cas
from certwright.rooms.certificates import (
    Cancelled,
    Capabilities,
    CertificateOrder,
    CertificateType,
    Issued,
    Needs,
    Pending,
    Rejected,
    RevocationReason,
    TooLate,
)
from certwright.x509.certificates import read_certificate
from certwright.x509.csr import read_csr

log = structlog.get_logger(__name__)

_METHODS = ("dns", "file", "email")
_NOTE = "withdrawn by the applicant"


class CertCentralShop:
    """`cas.Storefront`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def products(self, ca: cas.ShopCredentials) -> Mapping[str, str]:
        return await CertCentralClient(self._services.egress, self._services.clock, ca).products()


class CertCentralCa:
    """One CA of one account, as `CertificateAuthority`, `Challenging` and `Cancels`."""

    def __init__(self, services: Services, row: Any) -> None:
        self._settings = cas.shop_settings_of(row.settings)
        sold = {place.partition("/")[0] for place in self._settings.products}
        self.capabilities = Capabilities(
            name=row.name, public=row.public, methods=_METHODS, revocation_reasons=tuple(rules.REASONS),
            challenges=True, types=tuple(kind for kind in CertificateType if kind.value in sold),
            checks_organisations=True, caa_identifiers=tuple(self._settings.caa_identifiers),
        )  # fmt: skip
        self._services = services
        self._id: str = row.id
        self._row = row

    def _client(self) -> CertCentralClient:
        credentials = cas.shop_credentials(self._services, self._row)
        return CertCentralClient(self._services.egress, self._services.clock, credentials)

    # --- ordering ----------------------------------------------------------------------------------------------------

    async def submit(self, order: CertificateOrder) -> str:
        mine = await cas.purchases.intend(
            self._services, self._id, reference=order.reference, account_id=order.account_id, names=order.names,
            method=rules.dcv_method(order, self._settings), csr_der=order.csr_der,
            product=rules.product_for(order, self._settings), years=order.years or self._settings.years,
            validation=rules.validation_of(order.certificate_type),
        )  # fmt: skip
        if mine.order_number is not None or mine.failed_at is not None:
            return mine.id
        client = self._client()
        if mine.placing_at is None:
            mine = await self._prepare(client, order, mine)
        else:
            found = await self._find_lost(client, mine)
            if found is not None:
                await cas.purchases.placed(self._services, mine, found.order, found.certificate)
                return mine.id
        mine = await cas.purchases.placing(self._services, mine, self._services.clock.now())
        if mine.failed_at is not None:
            return mine.id  # taken back meanwhile
        try:
            placed = await self._place(client, order, mine)
        except Problem as problem:
            if problem.extra.get("asked") is False:
                await cas.purchases.not_placed(self._services, mine)
            raise
        await cas.purchases.placed(self._services, mine, placed.order, placed.certificate)
        return mine.id

    async def _prepare(self, client: CertCentralClient, order: CertificateOrder, mine: cas.Purchase) -> cas.Purchase:
        """What is settled before the order is placed: whether it is a reissue, and the organisation."""
        if order.replaces_der is not None and mine.reissue_of is None:
            base = await self._paid_order(client, order.replaces_der)
            if base is not None:
                return await cas.purchases.reissues(self._services, mine, base)
        if mine.validation != "dv" and mine.reissue_of is None and mine.organisation_number is None:
            number = await self._organisation(client, order, mine.validation)
            return await cas.purchases.organisation(self._services, mine, number)
        return mine

    async def _paid_order(self, client: CertCentralClient, leaf_der: bytes) -> str | None:
        """The CA's order this certificate came from, as long as its coverage lasts: within it a reissue is free."""
        before = await cas.purchases.of_leaf(self._services, self._id, read_certificate(leaf_der).sha256)
        if before is None or before.order_number is None:
            return None
        try:
            info = await client.info(before.order_number)
        except NotFound:
            return None
        lasts = info.valid_till is None or info.valid_till > self._services.clock.now()
        usable = info.status in (OrderStatus.ISSUED, OrderStatus.REISSUE_PENDING)
        return info.number if usable and lasts else None

    async def _organisation(self, client: CertCentralClient, order: CertificateOrder, level: str) -> str:
        """The CA's number of the organisation: found by its facts, or made; sent for verification where it must be.

        A crash in between leaves an organisation that is found the next time.
        """
        if order.organisation is None or order.contact is None:
            raise Refused(
                "ca_organisation_missing", "A certificate of this type names an organization, and none was given.",
                fix="Apply with an organization and a contact there.",
            )  # fmt: skip
        known = rules.same_organisation(
            order.organisation, await client.organisations(order.organisation["legal_name"])
        )
        if known is not None and (not known.active or known.status == "inactive"):
            raise Refused(
                "ca_organisation_refused", f"The CA has closed the organization {known.name[:100]}.",
                fix="Ask the CA why, or open it again in the CA's console.",
            )  # fmt: skip
        if known is not None:
            number = known.number
        else:
            number = await client.create_organisation(rules.organisation_body(order.organisation, order.contact))
        states = {one.type: one.status for one in await client.organisation_validations(number)}
        if states.get(level) not in ("active", "pending"):
            await client.submit_organisation(number, [rules.validation_body(level, order.contact)])
        return number

    async def _find_lost(self, client: CertCentralClient, mine: cas.Purchase) -> Placed | None:
        """The order whose answer was lost. None: the CA doesn't have it and won't get it any more."""
        found: Placed | None = None
        if mine.reissue_of is not None:
            reissue = _of_csr(await client.reissues(mine.reissue_of), mine)
            found = None if reissue is None else Placed(mine.reissue_of, reissue.certificate)
        else:
            ours, doubles = rules.first_fruitful(await client.orders_of(mine.reference))
            for double in doubles:
                # Ordered twice in spite of everything: one is paid for, the others are given back.
                log.warning("an order was doubled at the CA", order=double.order, reference=mine.reference)
                await self._cancel_at_ca(client, double.order, f"double of order {ours.order if ours else ''}")
            found = None if ours is None else Placed(ours.order, ours.certificate)
        if found is None and mine.placing_at is not None:
            left = mine.placing_at + rules.SETTLING - self._services.clock.now()
            if left > timedelta(0):
                raise refusals.settling(int(left.total_seconds()) + 1)
        return found

    async def _place(self, client: CertCentralClient, order: CertificateOrder, mine: cas.Purchase) -> Placed:
        if mine.reissue_of is None:
            body = rules.order_body(order, mine, self._settings, mine.organisation_number)
            return await client.order(mine.product, body)
        # What it answers doesn't tell which certificate will be ours; the list of reissues does, by its CSR.
        await client.reissue(mine.reissue_of, rules.reissue_body(order, mine, self._settings))
        return Placed(mine.reissue_of, None)

    # --- how it goes on ----------------------------------------------------------------------------------------------

    async def proceed(self, order_id: str, account_id: str) -> None:
        await cas.purchases.go(self._services, order_id)

    async def collect(self, order_id: str, account_id: str) -> Issued | Pending | Needs | Rejected:
        mine = await self._mine(order_id, account_id)
        if mine.failed_at is not None:
            return Rejected(mine.failure)
        assert mine.order_number is not None, "submit returns only orders that were placed or are over"
        client = self._client()
        try:
            info = await client.info(mine.order_number)
        except NotFound as gone:
            return await self._over(mine, (f"The CA doesn't know the order any more: {gone.message}",))
        status, certificate, note = await self._progress(client, mine, info)
        if status is OrderStatus.ISSUED:
            return await self._download(client, mine, certificate)
        if status in FRUITLESS:
            why = note or _comments(info)
            return await self._over(
                mine, (f"The CA {'rejected' if status is OrderStatus.REJECTED else 'cancelled'} the order"
                       f"{': ' + why[: refusals.LONGEST_WORDS] if why else ' without saying why'}.",),
            )  # fmt: skip
        if status not in UNDER_WAY:
            return await self._over(
                mine, (f"The order is {status.value} at the CA before a certificate was collected.",)
            )
        return await self._wait(client, mine, status)

    async def _mine(self, order_id: str, account_id: str) -> cas.Purchase:
        mine = await cas.purchases.purchase(self._services, order_id, account_id)
        if mine.ca_id != self._id:
            raise not_found("order", order_id)
        return mine

    async def _progress(
        self, client: CertCentralClient, mine: cas.Purchase, info: OrderInfo
    ) -> tuple[OrderStatus, str | None, str]:
        """The state of what we asked for, the CA's number of the certificate, and the CA's words."""
        if mine.reissue_of is None:
            # Somebody may have reissued it in the CA's console since: ours is the one the order was placed for.
            first = mine.certificate_number or info.certificate
            status = OrderStatus.ISSUED if info.status is OrderStatus.REISSUE_PENDING else info.status
            return status, first, info.note
        reissue = _of_csr(await client.reissues(mine.reissue_of), mine)
        if reissue is not None:
            return reissue.status, reissue.certificate, reissue.note
        if info.status is OrderStatus.ISSUED:
            # The order went back to what it was without a trace of our reissue: somebody cancelled it there.
            return OrderStatus.CANCELED, None, _comments(info)
        return info.status, None, info.note

    async def _wait(
        self, client: CertCentralClient, mine: cas.Purchase, status: OrderStatus
    ) -> Pending | Needs | Rejected:
        assert mine.order_number is not None
        now = self._services.clock.now()
        validation = await client.validation(mine.order_number)
        names = rules.open_names(mine.names, validation)
        by_mail = mine.method == "email"
        if mine.go_at is None:
            if by_mail or not names:
                return Needs(())
            token = await client.token(mine.order_number)
            if token.until <= now:
                raise refusals.unreadable("the value to publish", "it has run out already")
            await cas.purchases.shown(self._services, mine, token.until)
            return Needs(rules.wanted(names, mine.method, token.value, token.until, self._settings))
        pause = rules.poll_after(mine, now)
        if names and by_mail:
            return Pending(pause, refusals.mail_unanswered(names))
        if names:
            return await self._look(client, mine, names, pause)
        if mine.validation != "dv":
            if rules.organisation_refused(validation, mine.validation):
                await self._cancel_at_ca(client, mine.order_number, "the organization was refused")
                return await self._over(
                    mine, (f"The CA refused the organization {validation.organisation_name[:100]}.",)
                )
            missing = rules.organisation_open(validation, mine.validation)
            if missing is not None:
                return Pending(pause, refusals.organisation_pending(validation.organisation_name, missing))
        if status is OrderStatus.NEEDS_APPROVAL:
            return Pending(pause, refusals.approval_pending())
        return Pending(pause)

    async def _look(
        self, client: CertCentralClient, mine: cas.Purchase, names: Sequence[str], pause: timedelta
    ) -> Pending | Rejected:
        """Have the CA look at what is published, now and then, for as long as its value is good."""
        assert mine.order_number is not None
        now = self._services.clock.now()
        if mine.shown_until is not None and mine.shown_until <= now:
            reason = f"The value the CA gave for {', '.join(names)[:200]} ran out before the CA saw it."
            await self._cancel_at_ca(client, mine.order_number, "its validation ran out")
            return await self._over(mine, (reason,))
        if not rules.tell_to_look(mine, now):
            return Pending(pause, refusals.domains_open(names, mine.said))
        said = ""
        try:
            await client.check(mine.order_number)
        except (Refused, NotFound) as unseen:
            said = unseen.message
        await cas.purchases.looked(self._services, mine, said)
        # Seen, it may have issued at once.
        return Pending(pause if said else timedelta(seconds=1), refusals.domains_open(names, said))

    async def _download(self, client: CertCentralClient, mine: cas.Purchase, certificate: str | None) -> Issued:
        if certificate is None:
            raise refusals.unreadable("the order's state", "it is issued and names no certificate")
        leaf, *above = await client.download(certificate)
        if mine.certificate_number is None:
            await cas.purchases.certificate(self._services, mine, certificate)
        await cas.purchases.issued(self._services, mine, leaf.sha256)
        return Issued(leaf.der, tuple(one.der for one in above))

    async def _over(self, mine: cas.Purchase, reasons: tuple[str, ...]) -> Rejected:
        await cas.purchases.over(self._services, mine, reasons)
        return Rejected(reasons)

    # --- taking back -------------------------------------------------------------------------------------------------

    async def cancel(self, order_id: str, account_id: str) -> Cancelled | TooLate:
        mine = await self._mine(order_id, account_id)
        if mine.failed_at is not None:
            return Cancelled()
        client = self._client()
        if mine.order_number is None:
            found = None if mine.placing_at is None else await self._find_lost(client, mine)
            if found is None:
                return await self._taken_back(mine)
            mine = await cas.purchases.placed(self._services, mine, found.order, found.certificate)
        status = await self._status(client, mine)
        if status in UNDER_WAY:
            assert mine.order_number is not None
            try:
                await client.cancel(mine.order_number, _NOTE)
            except (Refused, NotFound):
                # The CA may have moved on since we looked; what it is now tells whether we lost.
                status = await self._status(client, mine)
                if status in UNDER_WAY:
                    raise
            else:
                status = OrderStatus.CANCELED
        if status in FRUITLESS:
            return await self._taken_back(mine)
        return TooLate(f"The CA's order {mine.order_number} is {status.value} already.")

    async def _status(self, client: CertCentralClient, mine: cas.Purchase) -> OrderStatus:
        assert mine.order_number is not None
        return (await self._progress(client, mine, await client.info(mine.order_number)))[0]

    async def _taken_back(self, mine: cas.Purchase) -> Cancelled:
        await cas.purchases.over(self._services, mine, ("The order was withdrawn.",), cancelled=True)
        return Cancelled()

    async def _cancel_at_ca(self, client: CertCentralClient, order: str, note: str) -> None:
        """So that nothing comes of it later; what can't be cancelled any more is said in the log."""
        try:
            await client.cancel(order, note)
        except (Refused, NotFound) as refused:
            log.warning("the CA didn't cancel an order", order=order, code=refused.code)

    # --- afterwards --------------------------------------------------------------------------------------------------

    async def revoke(self, leaf_der: bytes, reason: RevocationReason, account_id: str) -> None:
        """Raises Unavailable `ca_revocation_pending` while somebody has to approve it at the CA; asked again, it looks
        how that went and doesn't ask a second time."""
        leaf = read_certificate(leaf_der)
        mine = await cas.purchases.of_leaf(self._services, self._id, leaf.sha256)
        client, serial = self._client(), leaf.serial.lower().lstrip("0")
        try:
            # Where we have no record of our own, the CA finds the order by the serial number, too.
            info = await client.info(serial if mine is None or mine.order_number is None else mine.order_number)
        except NotFound:
            info = None
        if info is not None and await self._revoked(client, info, serial):
            return
        asked = [] if info is None else _revocations(info, None if mine is None else mine.certificate_number)
        if any(request.status == "pending" for request in asked):
            raise refusals.revocation_pending()
        if any(request.status == "rejected" for request in asked):
            raise Refused(
                "ca_revocation_refused", "An administrator of the account at the CA refused the revocation.",
                fix="Agree with them; once it is revoked in the CA's console, it is noticed here.",
            )  # fmt: skip
        try:
            request = await client.revoke(
                serial, rules.REASONS[reason], "certwright", skip_approval=self._settings.skip_approval
            )
        except Refused as refused:
            if "already_revoked" in str(refused.extra.get("ca_code")):
                return
            raise
        if request is not None and request.status != "approved":
            raise refusals.revocation_pending()

    async def _revoked(self, client: CertCentralClient, info: OrderInfo, serial: str) -> bool:
        if info.status is OrderStatus.REVOKED:
            return True
        if info.serial == serial:
            return info.certificate_status == "revoked"
        return any(
            one.serial == serial and one.status is OrderStatus.REVOKED for one in await client.reissues(info.number)
        )


def _of_csr(reissues: Sequence[Reissue], mine: cas.Purchase) -> Reissue | None:
    """The reissue of our signing request; there is no other mark the CA would keep on it."""
    wanted = read_csr(mine.csr_der).spki_sha256
    for one in reissues:
        try:
            if one.csr and read_csr(one.csr.encode()).spki_sha256 == wanted:
                return one
        except Problem:
            continue  # somebody else's, which needs not be readable to us
    return None


def _comments(info: OrderInfo) -> str:
    return "; ".join(request.comment for request in info.requests if request.status == "rejected" and request.comment)


def _revocations(info: OrderInfo, certificate: str | None) -> list[Any]:
    """The requests to revoke this certificate, or all of the order."""
    return [
        request
        for request in info.requests
        if request.type == "revoke"
        and (None in (request.certificate, certificate) or request.certificate == certificate)
    ]
