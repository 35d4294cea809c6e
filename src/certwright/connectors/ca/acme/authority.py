"""ACME CAs behind the ports: orders for the certificates room, accounts for the cas room.

An order is brought as far as one look allows: the CA's state is asked for, the first missing thing is done, and what is
left is answered. Nothing irreversible happens before `proceed`.

Withdrawing an order gives its pending names up at the CA (RFC 8555 section 7.5.2); a CA that can't be reached for that
is not waited for, because an order that nobody finalizes only expires.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import structlog
from cryptography import x509

from certwright.acme import challenges as shown
from certwright.acme import renewal
from certwright.acme.objects import (
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
    Identifier,
    Order,
    OrderStatus,
    ProblemDocument,
)
from certwright.connectors.ca.acme.client import AcmeClient, Chain, Signer, gather
from certwright.kernel.names import looks_like_ip, parse_ip
from certwright.kernel.problems import Problem, Refused, Unavailable
from certwright.platform.services import Services
from certwright.rooms import cas
from certwright.rooms.certificates import (
    Cancelled,
    Capabilities,
    CertificateOrder,
    ControlShown,
    Issued,
    MayNotRevoke,
    Needs,
    Pending,
    Rejected,
    RenewalWindow,
    RevocationReason,
    TooLate,
    Wanted,
)
from certwright.rooms.validation import Method
from certwright.x509.keys import PrivateKey

log = structlog.get_logger(__name__)

# RFC 5280 5.3.1; "unspecified" is said by leaving the reason out (BR 7.2.2).
REASONS: Final = {
    RevocationReason.UNSPECIFIED: None,
    RevocationReason.KEY_COMPROMISE: 1,
    RevocationReason.AFFILIATION_CHANGED: 3,
    RevocationReason.SUPERSEDED: 4,
    RevocationReason.CESSATION_OF_OPERATION: 5,
}
# Let's Encrypt takes no affiliationChanged, and says so in no directory.
_FEWER_REASONS = {"letsencrypt.org": (RevocationReason.AFFILIATION_CHANGED,)}

_METHODS = {"dns": shown.DNS_01, "file": shown.HTTP_01, shown.TLS_ALPN_01: shown.TLS_ALPN_01}
# What a CA says to an account that may not do what it asks for.
_NOT_OURS = ("ca_not_permitted", "ca_account_unknown")
_MOST_LOST = 50
_USUAL_LIFE = timedelta(days=7)
_SHORTEST_WAIT = timedelta(seconds=1)
_LONGEST_WAIT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Session:
    """A client of one CA and who we are there."""

    revision: tuple[Any, ...]
    client: AcmeClient
    who: Signer


class AcmeAccounts:
    """`cas.AccountKeeper` for ACME."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def _client(self, ca: cas.Credentials) -> AcmeClient:
        return AcmeClient(self._services.egress, self._services.clock, ca.directory_url, root_pem=ca.root_pem)

    async def offers(self, ca: cas.Credentials) -> cas.Offers:
        found = await self._client(ca).directory(fresh=True)
        return cas.Offers(
            terms_of_service=found.terms_of_service, website=found.website, caa_identities=found.caa_identities,
            external_account_required=found.external_account_required, profiles=found.profiles,
            renewal_info=found.renewal_info is not None, key_change=found.key_change is not None,
        )  # fmt: skip

    async def register(self, ca: cas.Credentials) -> str:
        client = self._client(ca)
        known = await client.find_account(ca.key)
        if known is not None:
            return known
        directory = await client.directory()
        if directory.terms_of_service is not None and not ca.terms_agreed:
            raise Refused(
                "ca_terms_not_agreed", f"The CA has terms of service: {directory.terms_of_service[:300]}",
                fix="Read them, then edit this CA with --agree-terms.", extra={"url": directory.terms_of_service},
            )  # fmt: skip
        if directory.external_account_required and ca.eab_key is None:
            raise Refused(
                "ca_eab_needed", "The CA takes only accounts it knows of.",
                fix="Get a key id and a key for ACME from the CA's website and enter both with this CA.",
            )  # fmt: skip
        eab = (ca.eab_kid, ca.eab_key) if ca.eab_kid is not None and ca.eab_key is not None else None
        url, _ = await client.new_account(ca.key, contacts=ca.contacts, agree_terms=ca.terms_agreed, eab=eab)
        return url

    async def find(self, ca: cas.Credentials, key: PrivateKey) -> str | None:
        return await self._client(ca).find_account(key)

    async def tell_contacts(self, ca: cas.Credentials) -> None:
        await self._client(ca).update_contacts(Signer(ca.key, ca.account_url), ca.contacts)

    async def change_key(self, ca: cas.Credentials, new: PrivateKey) -> None:
        await self._client(ca).change_key(Signer(ca.key, ca.account_url), new)

    async def deactivate(self, ca: cas.Credentials) -> None:
        client = self._client(ca)
        # A closed account answers to nothing but says so; that is what was wanted.
        if await client.find_account(ca.key) is not None:
            await client.deactivate_account(Signer(ca.key, ca.account_url))


class AcmeAuthorities:
    """Our accounts at ACME CAs, ready for use."""

    def __init__(self, services: Services) -> None:
        self._services = services
        # Opening a key is audited and a client keeps nonces, so both live as long as the CA's entry stays as it is.
        self._sessions: dict[str, Session] = {}

    async def session(self, ca_id: str) -> Session:
        """Ready for use; registers the account if that hasn't happened yet."""
        async with self._services.db.begin() as tx:
            row = await cas.store.ca(tx, ca_id)
        if row is None or row.account_url is None or row.contacts_told_at is None:
            await cas.register_account(self._services, ca_id)
            async with self._services.db.begin() as tx:
                row = await cas.store.ca(tx, ca_id)
        assert row is not None, "register_account raises NotFound"
        revision = (row.key_id, row.account_url, row.root_pem, row.directory_url)
        known = self._sessions.get(ca_id)
        if known is None or known.revision != revision:
            held = await cas.credentials(self._services, row, "requests of the ACME account are signed")
            client = AcmeClient(self._services.egress, self._services.clock, row.directory_url, root_pem=row.root_pem)
            known = self._sessions[ca_id] = Session(revision, client, Signer(held.key, row.account_url))
        return known

    async def client(self, ca_id: str) -> AcmeClient:
        """For what needs no account."""
        async with self._services.db.begin() as tx:
            row = await cas.store.ca(tx, ca_id)
        assert row is not None, "a CA with certificates is never deleted"
        return AcmeClient(self._services.egress, self._services.clock, row.directory_url, root_pem=row.root_pem)


class AcmeCa:
    """One CA of one account, as `CertificateAuthority`, `Challenging`, `Cancels`, `RenewalInformation`, `RevokesByKey`
    and `RevokesByControl`."""

    def __init__(self, services: Services, accounts: AcmeAuthorities, row: Any) -> None:
        refused = [
            reason
            for identity in (row.offers or {}).get("caa_identities", ())
            for reason in _FEWER_REASONS.get(identity, ())
        ]
        self.capabilities = Capabilities(
            name=row.name, public=row.public, methods=_methods_here(services), ip_addresses=True,
            revocation_reasons=tuple(reason for reason in REASONS if reason not in refused), challenges=True,
            caa_identifiers=tuple((row.offers or {}).get("caa_identities", ())), caa_methods=_METHODS,
            account_uri=row.account_url,
        )  # fmt: skip
        self._services = services
        self._accounts = accounts
        self._id: str = row.id
        self._preferred_chain: str | None = row.preferred_chain

    # --- ordering ------------------------------------------------------------------------------------------------

    async def submit(self, order: CertificateOrder) -> str:
        session = await self._accounts.session(self._id)
        directory = await session.client.directory()
        replaces = None
        if order.replaces_der is not None and directory.renewal_info is not None:
            replaces = renewal.certificate_id(order.replaces_der)
        mine = await cas.orders.intend_order(
            self._services, self._id, reference=order.reference, account_id=order.account_id,
            names=order.names, methods=order.methods, csr_der=order.csr_der,
            replaces=replaces,
        )  # fmt: skip
        if mine.order_url is None:
            await self._place(session, mine)
        return mine.id

    async def _place(self, session: Session, mine: cas.CaOrder) -> None:
        """Have the CA take the order, or find the one it took when its answer was lost."""
        await session.client.reach()
        url = await self._lost(session, mine) if mine.placing_at is not None else None
        if url is None:
            await cas.orders.placing(self._services, mine)
            try:
                url, _ = await session.client.new_order(
                    session.who, [_identifier(name) for name in mine.names], replaces=mine.replaces,
                    profile=mine.profile,
                )  # fmt: skip
            except Problem as problem:
                if "status" in problem.extra:
                    await cas.orders.not_placed(self._services, mine)
                # RFC 9773 5: whoever replaced it first has the exemption; the order itself is still welcome.
                if mine.replaces is None or problem.code != "ca_already_replaced":
                    raise
                await cas.orders.replaces_nothing(self._services, mine)
                await self._place(session, replace(mine, replaces=None, placing_at=None))
                return
        await cas.orders.placed(self._services, mine, url)

    async def _lost(self, session: Session, mine: cas.CaOrder) -> str | None:
        """The order the CA took without our hearing of it, by the list of the account's orders, if the CA has one."""
        listed = await session.client.orders(session.who)
        strangers = (await cas.orders.unknown_urls(self._services, mine.ca_id, listed))[-_MOST_LOST:]
        found = await gather([self._if_there(session, url) for url in strangers])
        wanted = {_identifier(name) for name in mine.names}
        now = self._services.clock.now()
        for url, order in zip(strangers, found, strict=True):
            if (
                order is not None
                and order.status in (OrderStatus.PENDING, OrderStatus.READY)
                and {_normal(identifier) for identifier in order.identifiers} == wanted
                and (order.expires is None or order.expires > now)
                and order.profile in (None, mine.profile)
                and order.replaces in (None, mine.replaces)
            ):
                return url
        return None

    async def _if_there(self, session: Session, url: str) -> Order | None:
        try:
            order, _ = await session.client.order(session.who, url)
        except Refused:
            return None
        return order

    async def proceed(self, order_id: str, account_id: str) -> None:
        await cas.orders.go(self._services, order_id)

    async def collect(self, order_id: str, account_id: str) -> Issued | Pending | Needs | Rejected:
        mine = await cas.orders.order(self._services, order_id, account_id)
        found = await self._validated(mine)
        if not isinstance(found, _Ready):
            return found
        session, order, wait = found.session, found.order, found.wait
        match order.status:
            case OrderStatus.VALID:
                return await self._download(session, order)
            case OrderStatus.PROCESSING:
                return self._wait(mine, wait)
        if mine.go_at is None:
            return Needs(())
        return await self._finalize(session, mine, order)

    async def _validated(self, mine: cas.CaOrder) -> _Ready | Pending | Needs | Rejected:
        """The order once all its names are validated, or what is missing until then."""
        if mine.failed_at is not None:
            return Rejected(mine.failure)
        assert mine.order_url is not None, "submit returns only orders that have a URL"
        session = await self._accounts.session(self._id)
        try:
            order, wait = await session.client.order(session.who, mine.order_url)
        except Refused as gone:
            if gone.extra.get("status") != 404:
                raise
            return await self._over(mine, (f"The CA doesn't know the order any more: {gone.message}",))
        if order.status is OrderStatus.INVALID:
            return await self._explained(session, mine, order)
        if order.status in (OrderStatus.VALID, OrderStatus.PROCESSING):
            return _Ready(session, order, wait)
        if order.expires is not None and order.expires <= self._services.clock.now():
            return await self._over(mine, ("The CA's order expired before everything was in place.",))
        if order.status is OrderStatus.PENDING:
            return await self._validate(session, mine, order, wait)
        return _Ready(session, order, wait)

    async def cancel(self, order_id: str, account_id: str) -> Cancelled | TooLate:
        mine = await cas.orders.order(self._services, order_id, account_id)
        may_be_issued = mine.finalize_intended_at is not None and mine.failed_at is None
        try:
            session = await self._accounts.session(self._id)
            order = await self._if_there(session, mine.order_url) if mine.order_url is not None else None
            if may_be_issued and order is not None and order.status in (OrderStatus.VALID, OrderStatus.PROCESSING):
                return TooLate("The CA had issued the certificate already.")
            # Whatever becomes of the rest, nobody goes on with this order.
            await cas.orders.failed(self._services, mine.id, ("The order was withdrawn.",))
            if order is not None and order.status is OrderStatus.PENDING:
                await self._give_up(session, mine, order)
        except (Unavailable, Refused) as away:
            if may_be_issued and isinstance(away, Unavailable):
                raise
            await cas.orders.failed(self._services, mine.id, ("The order was withdrawn.",))
            log.warning("an order was left to expire at the CA", ca=self._id, order=mine.id, code=away.code)
        return Cancelled()

    async def _give_up(self, session: Session, mine: cas.CaOrder, order: Order) -> None:
        """Deactivate what is pending, except names that another order of ours may wait for: some CAs let orders share
        authorizations. What was validated stays of use."""
        needed = await cas.orders.names_under_way(self._services, mine)
        found = await self._authorizations(session, order)
        pending = [
            url
            for url, authorization in zip(order.authorizations, found, strict=True)
            if authorization.status is AuthorizationStatus.PENDING and _name(authorization) not in needed
        ]
        await gather([session.client.deactivate_authorization(session.who, url) for url in pending])

    async def _validate(
        self, session: Session, mine: cas.CaOrder, order: Order, wait: timedelta | None
    ) -> Pending | Needs | Rejected:
        found = await self._authorizations(session, order)
        if any(a.status not in (AuthorizationStatus.PENDING, AuthorizationStatus.VALID) for a in found):
            return await self._explained(session, mine, order, found)
        pending = [a for a in found if a.status is AuthorizationStatus.PENDING]
        chosen = [(a, self._challenge(mine, a)) for a in pending]
        missing = [a for a, challenge in chosen if challenge is None]
        if missing:
            return await self._over(mine, tuple(self._not_offered(mine, a) for a in missing))
        if mine.go_at is None:
            return Needs(tuple(self._wanted(session, mine, a, c) for a, c in chosen if c is not None))
        waiting = [c for _, c in chosen if c is not None and c.status is ChallengeStatus.PENDING]
        failed = [c for c in waiting if c.error is not None]
        verdict = cas.why_answer(
            answers=mine.answers, answered_at=mine.answered_at, failed=bool(failed), now=self._services.clock.now()
        )
        if verdict is cas.Answer.GIVE_UP:
            return await self._explained(session, mine, order, found)
        if waiting and verdict is cas.Answer.TELL:
            await gather([session.client.respond(session.who, challenge) for challenge in failed or waiting])
            await cas.orders.answered(self._services, mine)
        return self._wait(mine, wait)

    async def _authorizations(self, session: Session, order: Order) -> list[Authorization]:
        calls = [session.client.authorization(session.who, url) for url in order.authorizations]
        return [authorization for authorization, _ in await gather(calls)]

    def _challenge(self, mine: cas.CaOrder, authorization: Authorization) -> Challenge | None:
        kind = _METHODS.get(mine.methods.get(_name(authorization), ""), "")
        return next((c for c in authorization.challenges if c.type == kind and c.token), None)

    def _not_offered(self, mine: cas.CaOrder, authorization: Authorization) -> str:
        wanted = mine.methods.get(_name(authorization))
        offered = ", ".join(sorted(c.type for c in authorization.challenges)) or "nothing"
        if wanted is None:
            return f"The CA wants proof for {_name(authorization)}, which wasn't asked for."
        return f"The CA doesn't take {_METHODS.get(wanted, wanted)} for {_name(authorization)}; it offers {offered}."

    def _wanted(
        self, session: Session, mine: cas.CaOrder, authorization: Authorization, challenge: Challenge
    ) -> Wanted:
        said = shown.key_authorization(challenge.token, session.who.key)
        until = authorization.expires or mine.created_at + _USUAL_LIFE
        name = _name(authorization)
        if challenge.type == shown.DNS_01:
            return Wanted(name, Method.DNS_01, shown.dns_record_name(name), shown.dns_value(said), until)
        if challenge.type == shown.TLS_ALPN_01:
            return Wanted(name, Method.TLS_ALPN_01, "", said, until)
        return Wanted(name, Method.HTTP_01, challenge.token, said, until)

    async def _finalize(self, session: Session, mine: cas.CaOrder, order: Order) -> Issued | Pending | Rejected:
        assert mine.csr_der is not None, "what only shows names is not collected"
        await cas.orders.intend_finalize(self._services, mine)
        try:
            after, wait = await session.client.finalize(session.who, order, mine.csr_der)
        except Refused as refused:
            return await self._over(mine, (refused.message,))
        if after.status is OrderStatus.VALID:
            return await self._download(session, after)
        if after.status is OrderStatus.INVALID:
            return await self._explained(session, mine, after)
        return self._wait(mine, wait)

    async def _download(self, session: Session, order: Order) -> Issued | Pending:
        if order.certificate is None:
            return Pending(_SHORTEST_WAIT)
        chain = await session.client.download(session.who, order.certificate)
        if self._preferred_chain is not None and not _ends_at(chain, self._preferred_chain):
            for url in chain.alternates:
                other = await session.client.download(session.who, url)
                if _ends_at(other, self._preferred_chain) and other.certificates[0].der == chain.certificates[0].der:
                    chain = other
                    break
        leaf, *above = (one.der for one in chain.certificates)
        return Issued(leaf, tuple(above))

    def _wait(self, mine: cas.CaOrder, asked: timedelta | None) -> Pending:
        """What the CA asked for, else a second while it is fresh and longer later."""
        if asked is not None:
            return Pending(min(max(asked, _SHORTEST_WAIT), _LONGEST_WAIT))
        age = self._services.clock.now() - (mine.go_at or mine.created_at)
        seconds = 1 if age < timedelta(seconds=15) else 5 if age < timedelta(minutes=2) else 60
        return Pending(timedelta(seconds=seconds))

    async def _explained(
        self, session: Session, mine: cas.CaOrder, order: Order, found: Sequence[Authorization] | None = None
    ) -> Rejected:
        """The CA's own words for each name it couldn't validate, or for the order as a whole."""
        if found is None:
            found = await self._authorizations(session, order)
        reasons: list[str] = []
        failed: list[str] = []
        for authorization in found:
            said = [f"{c.type}: {c.error.words()}" for c in authorization.challenges if c.error is not None]
            waits = authorization.status is AuthorizationStatus.PENDING
            if authorization.status is AuthorizationStatus.VALID or (waits and not said):
                continue
            failed.append(_name(authorization))
            reasons.append(f"{_name(authorization)} ({authorization.status}) {'; '.join(said)}".strip())
        if order.error is not None:
            reasons.append(_in_words(order.error))
        return await self._over(mine, tuple(reasons) or ("The CA ended the order without saying why.",), failed)

    async def _over(self, mine: cas.CaOrder, reasons: tuple[str, ...], failed: Sequence[str] = ()) -> Rejected:
        kept = tuple(reason[:500] for reason in reasons[:20])
        await cas.orders.failed(self._services, mine.id, kept, failed)
        return Rejected(kept)

    # --- afterwards ----------------------------------------------------------------------------------------------

    async def revoke(self, leaf_der: bytes, reason: RevocationReason, account_id: str) -> None:
        try:
            session = await self._accounts.session(self._id)
            await session.client.revoke(session.who, leaf_der, REASONS[reason])
        except Refused as refused:
            if refused.code not in _NOT_OURS:
                raise
            raise MayNotRevoke(
                refused.code, refused.message, extra=refused.extra,
                fix="Ask the CA to revoke it: it took neither the account, nor a key, nor the names for an answer.",
            ) from refused  # fmt: skip

    async def revoke_with_key(self, leaf_der: bytes, key: PrivateKey, reason: RevocationReason) -> None:
        await (await self._accounts.client(self._id)).revoke(Signer(key), leaf_der, REASONS[reason])

    async def show_control(self, order: CertificateOrder) -> str:
        session = await self._accounts.session(self._id)
        mine = await cas.orders.intend_order(
            self._services, self._id, reference=order.reference, account_id=order.account_id, names=order.names,
            methods=order.methods, csr_der=None, replaces=None,
        )  # fmt: skip
        if mine.order_url is None:
            await self._place(session, mine)
        return mine.id

    async def control_shown(self, order_id: str, account_id: str) -> ControlShown | Pending | Needs | Rejected:
        found = await self._validated(await cas.orders.order(self._services, order_id, account_id))
        return ControlShown() if isinstance(found, _Ready) else found

    async def renewal_window(self, leaf_der: bytes) -> RenewalWindow | None:
        session = await self._accounts.session(self._id)
        certificate_id = renewal.certificate_id(leaf_der)
        if certificate_id is None:
            return None
        found = await session.client.renewal_info(certificate_id)
        if found is None:
            return None
        info, asked = found
        return RenewalWindow(info.start, info.end, info.explanation_url, renewal.next_poll(asked))


@dataclass(frozen=True, slots=True)
class _Ready:
    """An order all of whose names are validated."""

    session: Session
    order: Order
    wait: timedelta | None


def _methods_here(services: Services) -> tuple[str, ...]:
    """tls-alpn-01 needs somebody who answers: our own responder."""
    answers = services.settings.tls_alpn_listen is not None
    return tuple(method for method in _METHODS if method != shown.TLS_ALPN_01 or answers)


def _identifier(name: str) -> Identifier:
    return Identifier("ip" if looks_like_ip(name) else "dns", name)


def _normal(identifier: Identifier) -> Identifier:
    """An address in the one form we write it in (RFC 5952), however the CA does."""
    if identifier.type != "ip" or not looks_like_ip(identifier.value):
        return identifier
    return Identifier("ip", str(parse_ip(identifier.value)))


def _name(authorization: Authorization) -> str:
    """The name as it stands in our order."""
    normal = _normal(authorization.identifier)
    return normal.value if normal.type == "ip" else authorization.name


def _ends_at(chain: Chain, common_name: str) -> bool:
    """Whether the topmost certificate of a chain was issued by a CA of this common name."""
    issuer = x509.load_der_x509_certificate(chain.certificates[-1].der).issuer
    found = issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return any(str(attribute.value).casefold() == common_name.casefold() for attribute in found)


def _in_words(error: ProblemDocument) -> str:
    return error.words() or "The CA gave no reason."
