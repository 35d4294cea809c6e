"""What ACME clients ask for (RFC 8555 section 7): one function a resource.

A request is read and its signature verified; nothing is done for it, and nothing of the account shown, unless its nonce
was good and is used up. Each answer is a `Reply`; each refusal an `AcmeProblem`.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import orjson
import sqlalchemy as sa
import structlog
from sqlalchemy.exc import IntegrityError

from certwright.acme.jose import b64url, from_b64url, thumbprint
from certwright.acme.requests import (
    AccountKey,
    AcmeProblem,
    SignedRequest,
    account_key,
    binding_key_id,
    check_binding,
    check_key_change,
    malformed,
    read_jws,
    read_request,
    verify,
)
from certwright.kernel.actor import Actor, system_actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Problem, Unavailable
from certwright.platform.db import Tx, is_one_of
from certwright.platform.services import Services
from certwright.rooms import audit, authorities
from certwright.rooms.acme_server import documents, rules, store
from certwright.rooms.acme_server.documents import Places
from certwright.rooms.acme_server.nonces import Nonces, bad_nonce
from certwright.rooms.acme_server.proofs import Prover
from certwright.rooms.acme_server.store import KnownClients
from certwright.rooms.acme_server.tables import (
    acme_accounts,
    acme_authorizations,
    acme_eab_keys,
    acme_orders,
)
from certwright.rooms.acme_server.words import AuthorizationState, Client, OrderState, Reply, Served, Ticket

log = structlog.get_logger(__name__)

_TOKEN_OCTETS = 24
# How long the answer to "look at my challenge" is held back for what is found, in seconds.
_WORTH_WAITING = 0.5


class Signed(Enum):
    """Who may sign a request (section 6.2): an account, named by its URL; whoever has the key it carries; either."""

    BY_ACCOUNT = "account"
    BY_KEY = "key"
    BY_EITHER = "either"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose signature was verified. `client` is None only where it carried its key (newAccount). With a
    `ticket` its nonce isn't used up yet: that is a part of the statement that answers it (see `answer_at_once`)."""

    served: Served
    places: Places
    request: SignedRequest
    client: Client | None
    payload: Mapping[str, Any] | None
    now: datetime
    ticket: Ticket | None = None

    @property
    def known(self) -> Client:
        assert self.client is not None, "only requests with an account get here"
        return self.client

    @property
    def nonce(self) -> Ticket:
        assert self.ticket is not None, "only what was asked at once gets here"
        return self.ticket


def secret_context(key_id: str) -> str:
    """What the secrets of keys for binding are sealed for."""
    return f"acme_eab_keys:{key_id}"


# --- reading a request ------------------------------------------------------------------------------------------------


async def ask(services: Services, served: Served, url: str, body: bytes, *, by: Signed = Signed.BY_ACCOUNT) -> Asked:
    """Verifies one POST.

    Raises AcmeProblem: what `read_request` says, `badNonce`, `unauthorized` for another URL, `accountDoesNotExist`,
    `unauthorized` for an account that was deactivated.
    """
    request = read_request(body)
    if by is Signed.BY_KEY and request.jwk is None:
        raise malformed("This request must carry its key (jwk).")
    if by is Signed.BY_ACCOUNT and request.jwk is not None:
        raise malformed("This request must name its account (kid).")
    _same_place(request, url)
    places = Places(store.directory_url(services, served.slug))
    row = await _use_nonce(services, served, request, places)
    now = services.clock.now()
    if request.jwk is not None:
        verify(request, account_key(request.jwk))
        client = None if row is None else store.client_of(store.still_there(row))
    else:
        client = _verified(request, row)
    return Asked(served, places, request, client, request.payload, now)


def _verified(request: SignedRequest, row: Any) -> Client:
    """The account that signed. Raises AcmeProblem."""
    if row is None:
        return store.client_of(store.still_there(row))
    client = store.client_of(row)
    verify(request, _key_of(orjson.dumps(client.jwk)))
    store.still_there(row)
    return client


async def answer_at_once(
    services: Services, served: Served, url: str, body: bytes, resource: Callable[..., Awaitable[Reply]], *which: str
) -> Reply:
    """The same for the requests each certificate takes, and their answer. The signature is verified with what is known
    of the account; the statement that answers uses up the nonce and sees whether that still holds, so there is one
    statement a request. `resource` is a function of this module that works with a ticket."""
    request = read_request(body)
    if request.jwk is not None:
        raise malformed("This request must name its account (kid).")
    _same_place(request, url)
    places = Places(store.directory_url(services, served.slug))
    client_id = _account_id(request, places)
    nonces, clients = services.port(Nonces), services.port(KnownClients)
    nonce = await nonces.check(request.nonce)
    client = clients.get(served.id, client_id)
    if client is None or not _signed_by(client, request):
        client = _verified(request, await _use_nonce(services, served, request, places))
        clients.keep(served.id, client)
        # The request's own was used to look the account up; the statement to come takes one of ours.
        nonce = await nonces.check(await nonces.fresh())
    ticket = Ticket(*nonce, served.id, client, services.clock.now())
    try:
        return await resource(
            services, Asked(served, places, request, client, request.payload, ticket.now, ticket), *which
        )
    except (AcmeProblem, Problem) as problem:
        # Refused before it came to the statement: a nonce that was seen is used all the same (section 6.5).
        if not isinstance(problem, Unavailable):
            await store.spend(services, ticket)
        raise


def _signed_by(client: Client, request: SignedRequest) -> bool:
    try:
        verify(request, _key_of(orjson.dumps(client.jwk)))
    except AcmeProblem:
        return False
    return True


def _same_place(request: SignedRequest, url: str) -> None:
    # Section 6.4: else a request could be sent on to another resource.
    if not hmac.compare_digest(request.url.encode("utf-8", "replace"), url.encode()):
        raise AcmeProblem("unauthorized", f"The request was signed for another address than {url}.")


def _account_id(request: SignedRequest, places: Places) -> str:
    place, _, account_id = (request.kid or "").rpartition("/")
    if place != places.at("account"):
        raise AcmeProblem("accountDoesNotExist", "The account (kid) isn't one of this ACME service; register "
                          "here, if need be from another configuration folder.")  # fmt: skip
    return account_id


async def _use_nonce(services: Services, served: Served, request: SignedRequest, places: Places) -> Any:
    """The row of the account that is meant, if there is one. Raises AcmeProblem `badNonce`, `accountDoesNotExist`."""
    account = thumbprint(request.jwk) if request.jwk is not None else _account_id(request, places)
    nonces = services.port(Nonces)
    nonce = await nonces.check(request.nonce)
    now, by_key = services.clock.now(), request.jwk is not None
    good, row = await store.use_nonce(services.db, nonce, now, served.id, account, by_key=by_key)
    if not good:
        nonces.forget()
        raise bad_nonce()
    return row


@lru_cache(maxsize=10_000)
def _key_of(jwk: bytes) -> AccountKey:
    return account_key(orjson.loads(jwk))


def _payload(asked: Asked) -> Mapping[str, Any]:
    if asked.payload is None:
        raise malformed("This request needs a payload; it isn't for reading.")
    return asked.payload


def only_reading(asked: Asked) -> Asked:
    """The same; raises AcmeProblem for one with a payload."""
    if asked.payload is not None:
        raise malformed("Read this with an empty payload (POST-as-GET, RFC 8555 section 6.3).")
    return asked


def _actor(asked: Asked, client: Client) -> Actor:
    return system_actor(client.account_id, f"ACME account {client.id}")


def _not_found(what: str) -> AcmeProblem:
    return AcmeProblem("malformed", f"There is no such {what} of this account.", status=404)


# --- directory --------------------------------------------------------------------------------------------------------


def directory(services: Services, served: Served) -> Reply:
    """Section 7.1.1; needs no signature."""
    return Reply(documents.directory(served, Places(store.directory_url(services, served.slug))))


# --- accounts ---------------------------------------------------------------------------------------------------------


async def new_account(services: Services, asked: Asked) -> Reply:
    """Section 7.3: registers a key, or finds the account it has."""
    payload = _payload(asked)
    assert asked.request.jwk is not None
    if asked.client is not None:
        return await _account(services, asked, asked.client.id, status=200)
    if payload.get("onlyReturnExisting") is True:
        raise AcmeProblem("accountDoesNotExist", "No account has this key.")
    contacts = rules.judge_contacts(payload.get("contact"))
    agreed = payload.get("termsOfServiceAgreed") is True
    if asked.served.terms_url and not agreed:
        raise AcmeProblem("userActionRequired", f"Agree to the terms of service first: {asked.served.terms_url}",
                          status=403)  # fmt: skip
    try:
        account_id = await _register(services, asked, contacts, agreed, payload.get("externalAccountBinding"))
    except (IntegrityError, AcmeProblem):
        # The same client may have been quicker with another request, which used its key for binding.
        existing = await _existing(services, asked, thumbprint(asked.request.jwk))
        if existing is None:
            raise
        return existing
    return await _account(services, asked, account_id, status=201)


async def _register(services: Services, asked: Asked, contacts: tuple[str, ...], agreed: bool, binding: object) -> str:
    jwk = asked.request.jwk
    assert jwk is not None
    account_id = new_id("aca", asked.now)
    async with services.db.begin() as tx:
        bound = await _bind(tx, services, asked, binding)
        client = Client(
            account_id, asked.served.account_id, bound.project_id if bound else asked.served.project_id, jwk,
            thumbprint(jwk), None,
        )  # fmt: skip
        await tx.execute(
            sa.insert(acme_accounts).values(
                id=account_id, account_id=client.account_id, project_id=client.project_id,
                directory_id=asked.served.id, thumbprint=client.thumbprint, jwk=dict(jwk), contacts=list(contacts),
                eab_key_id=bound.id if bound else None, terms_agreed_at=asked.now if agreed else None,
                created_at=asked.now,
            )
        )  # fmt: skip
        await audit.record(
            tx, services, _actor(asked, client), "ccm:acme:register", "acme-directory", asked.served.id,
            project_id=client.project_id,
            after={
                "acme_account": account_id, "thumbprint": client.thumbprint, "eab_key": bound.id if bound else None,
            },
        )  # fmt: skip
    return account_id


async def _existing(services: Services, asked: Asked, mark: str) -> Reply | None:
    a = acme_accounts.c
    async with services.db.read() as tx:
        found = await tx.scalar(sa.select(a.id).where(a.directory_id == asked.served.id, a.thumbprint == mark))
    return None if found is None else await _account(services, asked, found, status=200)


async def _account(services: Services, asked: Asked, account_id: str, *, status: int = 200) -> Reply:
    async with services.db.read() as tx:
        row = (await tx.execute(sa.select(acme_accounts).where(acme_accounts.c.id == account_id))).one()
    place = asked.places.at("account", account_id)
    return Reply(documents.account(row, asked.places), status=status, location=place)


async def _bind(tx: Tx, services: Services, asked: Asked, binding: object) -> Any:
    """The key for external account binding this account comes with (section 7.3.4), used up if it is for one."""
    if binding is None:
        if asked.served.eab_required:
            raise AcmeProblem("externalAccountRequired", "This server takes only accounts bound by a key (EAB); ask "
                              "whoever runs it for a key id and its HMAC secret.")  # fmt: skip
        return None
    key_id = binding_key_id(binding)
    e = acme_eab_keys.c
    row = (
        await tx.execute(
            sa.select(acme_eab_keys).where(e.id == key_id, e.directory_id == asked.served.id).with_for_update()
        )
    ).one_or_none()
    ended = row is None or row.sealed is None or (row.expires_at is not None and row.expires_at <= asked.now)
    if row is None or ended or (row.used_at is not None and not row.reusable):
        log.warning("a binding was refused", reason="key", directory=asked.served.id, key=key_id[:40])
        raise AcmeProblem("unauthorized", "The key for external account binding is unknown here, revoked, used or has "
                          "run out; ask for another.")  # fmt: skip
    secret = services.vault.open(row.sealed, secret_context(row.id))
    assert asked.request.jwk is not None
    try:
        check_binding(binding, url=asked.request.url, jwk=asked.request.jwk, mac_key=secret)
    except AcmeProblem as problem:
        log.warning("a binding was refused", reason=problem.kind, directory=asked.served.id, key=row.id)
        raise
    await tx.execute(sa.update(acme_eab_keys).where(e.id == row.id).values(used_at=asked.now))
    return row


async def account(services: Services, asked: Asked, account_id: str) -> Reply:
    """Section 7.3.2 and 7.3.6: read, change the contacts, or deactivate."""
    client = asked.known
    if account_id != client.id:
        raise AcmeProblem("unauthorized", "This is another account.")
    payload = asked.payload or {}
    a = acme_accounts.c
    if payload.get("status") == "deactivated":
        async with services.db.begin() as tx:
            row = (
                await tx.execute(
                    sa.update(acme_accounts)
                    .where(a.id == client.id, a.deactivated_at.is_(None))
                    .values(deactivated_at=asked.now)
                    .returning(acme_accounts)
                )
            ).one_or_none()
            if row is None:
                raise AcmeProblem("unauthorized", "The account was deactivated.")
            await audit.record(
                tx, services, _actor(asked, client), "ccm:acme:deactivate", "acme-directory", asked.served.id,
                project_id=client.project_id, after={"acme_account": client.id},
            )  # fmt: skip
        return Reply(documents.account(row, asked.places), location=asked.places.at("account", client.id))
    if "status" in payload and payload["status"] != "valid":
        raise malformed("An account's status can only be set to deactivated.")
    if "contact" in payload:
        contacts = rules.judge_contacts(payload["contact"])
        async with services.db.begin() as tx:
            await tx.execute(sa.update(acme_accounts).where(a.id == client.id).values(contacts=list(contacts)))
            await audit.record(
                tx, services, _actor(asked, client), "ccm:acme:contacts", "acme-directory", asked.served.id,
                project_id=client.project_id, after={"acme_account": client.id, "contacts": len(contacts)},
            )  # fmt: skip
    return await _account(services, asked, client.id)


async def key_change(services: Services, asked: Asked) -> Reply:
    """Section 7.3.5: the account gets another key, which signed the inner request."""
    client = asked.known
    payload = _payload(asked)
    inner = read_jws(payload, nonce_needed=False)
    place = asked.places.at("account", client.id)
    jwk, _ = check_key_change(inner, url=asked.request.url, account_url=place, old=client.jwk)
    a = acme_accounts.c
    mark = thumbprint(jwk)
    try:
        async with services.db.begin() as tx:
            changed = await tx.execute(
                sa.update(acme_accounts)
                .where(a.id == client.id, a.thumbprint == client.thumbprint, a.deactivated_at.is_(None))
                .values(jwk=dict(jwk), thumbprint=mark)
            )
            if not changed.rowcount:
                raise AcmeProblem("unauthorized", "The account's key was changed meanwhile.")
            await audit.record(
                tx, services, _actor(asked, client), "ccm:acme:key_change", "acme-directory", asked.served.id,
                project_id=client.project_id, before={"thumbprint": client.thumbprint}, after={"thumbprint": mark},
            )  # fmt: skip
    except IntegrityError:
        async with services.db.read() as tx:
            holder = await tx.scalar(sa.select(a.id).where(a.directory_id == asked.served.id, a.thumbprint == mark))
        raise AcmeProblem("malformed", "Another account has this key.", status=409,
                          location=asked.places.at("account", str(holder))) from None  # fmt: skip
    return await _account(services, asked, client.id)


_ORDERS_A_PAGE = 100


async def orders(services: Services, asked: Asked, account_id: str, cursor: str | None) -> Reply:
    """Section 7.1.2.1: the account's orders that aren't invalid, newest first, a hundred a page."""
    client = asked.known
    only_reading(asked)
    if account_id != client.id:
        raise AcmeProblem("unauthorized", "This is another account.")
    o = acme_orders.c
    query = sa.select(o.id).where(
        o.acme_account_id == client.id, o.status != "invalid", sa.or_(o.status == "valid", o.expires_at > asked.now)
    )
    if cursor:
        query = query.where(o.id < cursor)
    async with services.db.read() as tx:
        found = list((await tx.scalars(query.order_by(o.id.desc()).limit(_ORDERS_A_PAGE + 1))).all())
    page = found[:_ORDERS_A_PAGE]
    links: tuple[tuple[str, str], ...] = ()
    if len(found) > _ORDERS_A_PAGE:
        links = ((asked.places.at("account", client.id, "orders") + f"?cursor={page[-1]}", "next"),)
    return Reply({"orders": [asked.places.at("order", one) for one in page]}, links=links)


# --- orders -----------------------------------------------------------------------------------------------------------


async def new_order(services: Services, asked: Asked) -> Reply:
    """Section 7.4. Names are judged before anything is promised; proofs that are still good may be used again."""
    client, payload = asked.known, _payload(asked)
    # Some write members they have nothing to say in.
    if payload.get("notBefore") or payload.get("notAfter"):
        raise malformed("This server chooses the dates itself; leave notBefore and notAfter out.")
    names = rules.judge_identifiers(payload.get("identifiers"))
    rules.judge_challenges(names, asked.served.challenges)
    profile = rules.judge_profile(payload.get("profile"), asked.served.profiles)
    replaces = payload.get("replaces")
    if replaces is not None and (not isinstance(replaces, str) or not 0 < len(replaces) <= 200):
        raise malformed("The member replaces must name a certificate as RFC 9773 section 4.1 says.")
    _judge_allowed(asked, client, names)
    if replaces is None and not asked.served.policed:
        try:
            row, state = await _take_order(None, services, asked, client, names, profile, None)
        except IntegrityError:
            # The service was deleted in this very moment, its accounts with it.
            raise store.no_such_account() from None
        return Reply(documents.order(row, state, asked.places), status=201, location=asked.places.at("order", row.id))
    await store.use_up(services, asked.nonce)
    try:
        async with services.db.begin() as tx:
            row, state = await _take_order(tx, services, asked, client, names, profile, replaces)
    except IntegrityError:
        # A client that heard no answer says it again, and means the same order.
        same = await _same_order(services, asked, names, profile, str(replaces))
        if same is None:
            raise AcmeProblem("alreadyReplaced", "Another order replaces this certificate.") from None
        async with services.db.read() as tx:
            return _order_reply(asked, await store.order_with_proofs(tx, client.id, same), status=201)
    return Reply(documents.order(row, state, asked.places), status=201, location=asked.places.at("order", row.id))


def _judge_allowed(asked: Asked, client: Client, names: Sequence[str]) -> None:
    rules.judge_allowed(names, asked.served.allowed_names, "this server")
    rules.judge_allowed(names, client.allowed_names or (), "this account")


async def _take_order(
    tx: Tx | None, services: Services, asked: Asked, client: Client, names: tuple[str, ...], profile: str,
    replaces: str | None,
) -> tuple[Any, OrderState]:  # fmt: skip
    if tx is not None:
        await _judge_policies(tx, asked, client, names, profile)
        if replaces is not None:
            await _judge_replaced(tx, asked, client, names, replaces)
    reused = await _reusable(tx, services, asked, client, names)
    expires = min([asked.now + rules.ORDER_LIFE, *(row.expires_at for row in reused.values())])
    fresh = [
        {
            "id": new_id("acz", asked.now), "type": rules.identifier_of(name).type, "value": name.removeprefix("*."),
            "wildcard": name.startswith("*."), "token": b64url(secrets.token_bytes(_TOKEN_OCTETS)),
        }
        for name in names if name not in reused
    ]  # fmt: skip
    made = iter(fresh)
    ids = [reused[name].id if name in reused else next(made)["id"] for name in names]
    order = {
        "id": new_id("aco", asked.now), "acme_account_id": client.id, "directory_id": asked.served.id,
        "names": list(names), "authorization_ids": ids, "profile": profile,
        "profile_asked": asked.payload is not None and asked.payload.get("profile") is not None, "replaces": replaces,
        "expires_at": expires,
    }  # fmt: skip
    most, failed = rules.MOST_OPEN_ORDERS, rules.MOST_FAILED_ORDERS
    if not await store.insert_order(services, asked.nonce, tx, order, fresh, most=most, failed=failed):
        raise AcmeProblem("rateLimited", f"{most} orders of this account wait to be finalized, or {failed} failed "
                          "within the hour; finish those, or see why they fail.", retry_after=3600)  # fmt: skip
    state = OrderState.PENDING if fresh else OrderState.READY
    return SimpleNamespace(**order, issued_id=None, error=None), state


async def _judge_policies(tx: Tx, asked: Asked, client: Client, names: tuple[str, ...], profile: str) -> None:
    days = asked.served.days
    refused = await authorities.names_refused(
        tx, client.account_id, client.project_id, asked.served.authority_id, names, profile,
        seconds=None if days is None else int(rules.days(days).total_seconds()), now=asked.now,
    )  # fmt: skip
    if refused is not None:
        raise AcmeProblem("rejectedIdentifier", f"{refused.message} {refused.fix}".strip())


async def _reusable(
    tx: Tx | None, services: Services, asked: Asked, client: Client, names: tuple[str, ...]
) -> dict[str, Any]:
    """Proofs of this account that are good for further orders, by name."""
    if not asked.served.reuse_days:
        return {}
    z = acme_authorizations.c
    since = asked.now - rules.days(asked.served.reuse_days)
    query = (
        sa.select(z.id, z.value, z.wildcard, z.expires_at)
        .where(
            z.acme_account_id == client.id, z.status == "valid", z.validated_at > since,
            is_one_of(z.challenge, asked.served.challenges),
            z.expires_at > asked.now + rules.ORDER_LIFE / 7, is_one_of(z.value, [n.removeprefix("*.") for n in names]),
        )
        .order_by(z.validated_at)
    )  # fmt: skip
    # Never a second connection beside an open transaction: as many clients as the pool has would wait for one another.
    async with services.db.read() if tx is None else nullcontext(tx) as reading:
        rows = (await reading.execute(query)).all()
    found = {("*." if row.wildcard else "") + row.value: row for row in rows}
    return {name: found[name] for name in names if name in found}


async def _judge_replaced(tx: Tx, asked: Asked, client: Client, names: tuple[str, ...], replaces: str) -> None:
    """RFC 9773 section 5: a certificate of this account with a name in common. One order replaces it; an older one that
    ran out makes room."""
    issued = await authorities.issued_by_renewal_id(tx, asked.served.authority_id, replaces)
    o = acme_orders.c
    before = None
    if issued is not None:
        before = (await tx.execute(
            sa.select(o.names).where(o.issued_id == issued.id, o.acme_account_id == client.id)
        )).one_or_none()  # fmt: skip
    if before is None:
        raise malformed("The certificate to be replaced isn't one of this account.")
    if not set(before.names) & set(names):
        raise malformed("The order has no name in common with the certificate it replaces.")
    await tx.execute(
        sa.update(acme_orders)
        .where(o.directory_id == asked.served.id, o.replaces == replaces, o.status == "pending",
               o.expires_at <= asked.now)
        .values(status="invalid")
    )  # fmt: skip


async def _same_order(
    services: Services, asked: Asked, names: tuple[str, ...], profile: str, replaces: str
) -> str | None:
    """The order of this account that asks for just this, and waits."""
    o = acme_orders.c
    query = sa.select(o.id).where(
        o.directory_id == asked.served.id, o.replaces == replaces, o.acme_account_id == asked.known.id,
        o.status == "pending", o.names == list(names), o.profile == profile,
    )  # fmt: skip
    async with services.db.read() as tx:
        return await tx.scalar(query)


def _order_reply(asked: Asked, found: tuple[Any, list[Any]] | None, *, status: int = 200) -> Reply:
    if found is None:
        raise _not_found("order")
    row, proofs = found
    state = rules.order_state(
        row.status, row.expires_at, store.proof_facts(proofs), asked.now, promised=len(row.authorization_ids)
    )
    error = next((proof.z_error for proof in proofs if proof.z_error is not None), None)
    return Reply(documents.order(row, state, asked.places, error), status=status,
                 location=asked.places.at("order", row.id),
                 retry_after=1 if state is OrderState.PENDING and status == 200 else None)  # fmt: skip


async def order(services: Services, asked: Asked, order_id: str) -> Reply:
    only_reading(asked)
    return _order_reply(asked, await store.order_at_once(services, asked.nonce, order_id))


async def finalize(services: Services, asked: Asked, order_id: str) -> Reply:
    """Section 7.4: signs, and records the certificate in the very statement, or the transaction, that makes the order
    valid."""
    client, payload = asked.known, _payload(asked)
    csr = payload.get("csr")
    if not isinstance(csr, str):
        raise AcmeProblem("badCSR", "The payload has no csr.")
    row = _ready(asked, await store.order_at_once(services, asked.nonce, order_id))
    request = rules.read_order_csr(csr, row.names, client.jwk)
    if request.must_staple:
        async with services.db.read() as tx:
            has_it = await authorities.must_staple(tx, asked.served.account_id, row.profile)
        rules.judge_must_staple(row.profile, has_it=has_it)
    try:
        if not await _issue_at_once(services, asked, client, row, request):
            async with services.db.begin() as tx:
                row = _ready(asked, await store.order_with_proofs(tx, client.id, order_id, lock=True))
                await store.require_account(tx, client)
                issued = await authorities.issue_for_client(
                    tx, services, _actor(asked, client), asked.served.authority_id,
                    _issue_request(asked, client, row, request),
                )  # fmt: skip
                await store.fulfil(tx, order_id, issued.id)
    except Problem as problem:
        # The order stays as it is, so the client may try again; people see what keeps it from getting on.
        error = AcmeProblem("unauthorized", problem.message).document(top=False)
        await store.note_refusal(services.db, client.id, order_id, error)
        raise
    document = documents.order(row, OrderState.VALID, asked.places)
    return Reply(document, location=asked.places.at("order", order_id))


async def _issue_at_once(services: Services, asked: Asked, client: Client, row: Any, request: rules.OrderCsr) -> bool:
    if asked.served.policed:
        return False
    authority_id = asked.served.authority_id
    asked_for = _issue_request(asked, client, row, request)
    signed = await authorities.sign_at_once(services, _actor(asked, client), authority_id, asked_for)
    if signed is None:
        return False
    if await store.fulfil_at_once(services.db, client.id, row.id, signed, asked.now):
        return True
    authorities.forget_known(authority_id)
    return False


def _ready(asked: Asked, found: tuple[Any, list[Any]] | None) -> Any:
    """The row of an order that can be finalized. Raises AcmeProblem."""
    if found is None:
        raise _not_found("order")
    row, proofs = found
    state = rules.order_state(
        row.status, row.expires_at, store.proof_facts(proofs), asked.now, promised=len(row.authorization_ids)
    )
    if state is not OrderState.READY:
        raise AcmeProblem("orderNotReady", f"The order is {state}; only one that is ready can be finalized.")
    # It may have waited for a week: what the service doesn't allow any more is refused now.
    _judge_allowed(asked, asked.known, row.names)
    rules.judge_profile(row.profile, asked.served.profiles)
    return row


def _issue_request(asked: Asked, client: Client, row: Any, request: rules.OrderCsr) -> authorities.IssueRequest:
    days = asked.served.days
    return authorities.IssueRequest(
        reference=row.id, account_id=client.account_id, project_id=client.project_id, names=tuple(row.names),
        public_key=request.public_key, profile=row.profile,
        seconds=None if days is None else int(rules.days(days).total_seconds()),
    )  # fmt: skip


async def certificate(services: Services, asked: Asked, order_id: str) -> Reply:
    """Section 7.4.2: the chain of an order, from its certificate up, without the root."""
    only_reading(asked)
    issued = await store.issued_at_once(services, asked.nonce, order_id)
    if issued is None:
        raise _not_found("certificate")
    return Reply(chain=rules.pem_chain(await authorities.chain_of(services, issued)))


# --- authorizations ---------------------------------------------------------------------------------------------------


async def authorization(services: Services, asked: Asked, authorization_id: str) -> Reply:
    """Section 7.5: read, or deactivate (7.5.2)."""
    client, payload = asked.known, asked.payload
    z = acme_authorizations.c
    if payload is not None:
        if payload.get("status") != "deactivated":
            raise malformed("An authorization's status can only be set to deactivated.")
        await store.use_up(services, asked.nonce)
        async with services.db.begin() as tx:
            changed = await tx.execute(
                sa.update(acme_authorizations)
                .where(z.id == authorization_id, z.acme_account_id == client.id,
                       z.status.in_(("pending", "valid")))
                .values(status="deactivated", **store.DECIDED)
            )  # fmt: skip
            if changed.rowcount:
                gone = AcmeProblem("unauthorized", "An authorization of the order was deactivated.")
                await store.fail_orders(tx, client.id, authorization_id, gone.document())
                await audit.record(
                    tx, services, _actor(asked, client), "ccm:acme:give_up", "acme-directory", asked.served.id,
                    project_id=client.project_id, after={"authorization": authorization_id},
                )  # fmt: skip
        row = await store.authorization_of(services.db, client.id, authorization_id)
    else:
        row = await store.authorization_at_once(services, asked.nonce, authorization_id)
    if row is None:
        raise _not_found("authorization")
    document = documents.authorization(row, asked.served.challenges, asked.now, asked.places)
    waits = row.status == "pending" and row.challenge is not None
    return Reply(document, location=asked.places.at("authz", row.id), retry_after=1 if waits else None)


async def challenge(services: Services, asked: Asked, authorization_id: str, kind: str) -> Reply:
    """Section 7.5.1: the client says that its challenge can be looked at; with an empty payload it only reads."""
    client, begun = asked.known, False
    if asked.payload is not None and kind in asked.served.challenges:
        due = services.jobs.due_when_started()
        row = await store.begin_challenge(services, asked.nonce, authorization_id, kind, due=due)
        begun = row is not None
        if begun:
            prover = services.port(Prover)
            prover.begin(row, client)
            # Most looks take milliseconds; clients that are told at once needn't come again, some of them a second
            # later.
            row = await prover.wait(authorization_id, _WORTH_WAITING)
        if row is None:
            row = await store.authorization_of(services.db, client.id, authorization_id)
    else:
        row = await store.authorization_at_once(services, asked.nonce, authorization_id)
    name = "" if row is None else ("*." if row.wildcard else "") + row.value
    offered = asked.served.challenges
    if row is None or (kind != row.challenge and kind not in rules.challenges_for(name, offered)):
        raise _not_found("challenge")
    waits = rules.authorization_state(store.facts_of(row), asked.now) is AuthorizationState.PENDING
    if asked.payload is not None and not begun and waits and row.challenge is None and kind in offered:
        # It could have been begun, had fewer been under way.
        raise AcmeProblem("rateLimited", f"{rules.MOST_UNDER_WAY} challenges of this account are being looked at; "
                          "tell of this one a little later.", retry_after=10)  # fmt: skip
    return Reply(
        documents.challenge(row, kind, asked.now, asked.places),
        links=((asked.places.at("authz", authorization_id), "up"),),
        retry_after=1 if row.status == "pending" and row.challenge is not None else None,
    )


# --- revoking ---------------------------------------------------------------------------------------------------------


async def revoke(services: Services, asked: Asked) -> Reply:
    """Section 7.6: by the account that ordered it, by one that has shown control of all its names, or by the
    certificate's own key."""
    served, jwk, client = asked.served, asked.request.jwk, asked.client
    key_mark = None
    if jwk is not None:
        client, key_mark = None, rules.key_mark(account_key(jwk))
    payload = _payload(asked)
    if not isinstance(payload.get("certificate"), str):
        raise malformed("The payload has no certificate.")
    reason = rules.judge_reason(payload.get("reason"))
    try:
        der = from_b64url(payload["certificate"])
    except ValueError:
        raise malformed("The certificate isn't base 64 for URLs.") from None
    async with services.db.begin() as tx:
        leaf = await authorities.issued_like(tx, served.authority_id, der)
        if leaf is None or not leaf.reference.startswith("aco_"):
            raise AcmeProblem("malformed", "This certificate wasn't issued through ACME by this CA.", status=404)
        await _may_revoke(tx, services, served, client, key_mark, leaf)
        actor = system_actor(served.account_id, f"ACME account {client.id}" if client else "ACME, certificate key")
        if not await authorities.revoke_issued(tx, services, actor, leaf, reason):
            raise AcmeProblem("alreadyRevoked", "The certificate was revoked before.")
    return Reply()


async def _may_revoke(
    tx: Tx, services: Services, served: Served, client: Client | None, key_mark: str | None, leaf: Any
) -> None:
    if client is None:
        if key_mark != rules.leaf_key_mark(leaf.der):
            raise AcmeProblem("unauthorized", "The request isn't signed with the certificate's key.")
        return
    o, z = acme_orders.c, acme_authorizations.c
    own = sa.exists().where(o.issued_id == leaf.id, o.acme_account_id == client.id)
    if await tx.scalar(sa.select(own)):
        return
    shown = await tx.execute(
        sa.select(z.value, z.wildcard).where(
            z.acme_account_id == client.id, z.status == "valid", z.expires_at > services.clock.now(),
            is_one_of(z.value, [name.removeprefix("*.") for name in leaf.names]),
        )
    )  # fmt: skip
    proven = {("*." if row.wildcard else "") + row.value for row in shown}
    missing = [name for name in leaf.names if name not in proven]
    if missing:
        raise AcmeProblem(
            "unauthorized", "This account didn't order the certificate, and has shown no control of "
            f"{', '.join(missing[:5])}.", identifier=rules.identifier_of(missing[0]) if len(missing) == 1 else None,
        )  # fmt: skip


# --- renewal information ----------------------------------------------------------------------------------------------


async def renewal_info(services: Services, served: Served, renewal_id: str) -> Reply:
    """RFC 9773 section 4.1; needs no signature."""
    async with services.db.read() as tx:
        leaf = await authorities.issued_by_renewal_id(tx, served.authority_id, renewal_id)
    if leaf is None:
        raise AcmeProblem("malformed", "There is no such certificate of this CA.", status=404)
    start, end = rules.renewal_window(leaf.not_before, leaf.not_after, leaf.revoked_at)
    document = {"suggestedWindow": {"start": documents.when(start), "end": documents.when(end)}}
    return Reply(document, retry_after=rules.WINDOW_POLL_SECONDS)
