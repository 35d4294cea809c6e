"""Recipients, and writing messages into the outbox."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from typing import Any

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Invalid, Refused, Stale, TooMany, not_found
from certwright.platform.db import Tx
from certwright.platform.i18n import known_locale, use_locale
from certwright.platform.services import Services
from certwright.rooms import access, audit
from certwright.rooms.notify import layout, letters, rules, store
from certwright.rooms.notify.tables import messages, recipients
from certwright.rooms.notify.words import Addressee, MessageState, Text

SEND_STEP = "notify.send"

_MAX_RECIPIENTS = 100


async def audience(tx: Tx, account_id: str) -> list[Addressee]:
    """Who is told: the account's verified recipients, or its administrators as long as there are none."""
    found = await store.verified_recipients(tx, account_id)
    if found:
        return [Addressee(row.email, row.name, row.locale, row.id) for row in found]
    return [Addressee(email, name) for email, name in await access.administrators(tx, account_id)]


async def write(
    tx: Tx,
    services: Services,
    account_id: str,
    addressee: Addressee,
    *,
    dedupe_key: str,
    kind: str,
    object_id: str,
    make: Callable[[], Text],
) -> bool:
    """Put one message into the outbox, in the addressee's language; False when it had been written already.

    `dedupe_key` names the occasion; with the address it makes the message the only one of its kind.
    """
    now = services.clock.now()
    with use_locale(addressee.locale):
        text = make()
        values = {
            "id": new_id("msg", now),
            "account_id": account_id,
            "dedupe_key": f"{dedupe_key}:{addressee.address}",
            "kind": kind,
            "object_id": object_id,
            "recipient_id": addressee.recipient_id,
            "to_name": rules.one_line(addressee.name, limit=100),
            "to_address": addressee.address,
            "locale": addressee.locale,
            "subject": rules.one_line(text.subject),
            "text": layout.as_text(text),
            "html": layout.as_html(text),
            "created_at": now,
        }
    if not await store.insert_message(tx, values):
        return False
    await services.jobs.start(tx, SEND_STEP, str(values["id"]))
    return True


async def tell_everybody(
    tx: Tx,
    services: Services,
    account_id: str,
    *,
    dedupe_key: str,
    kind: str,
    object_id: str,
    make: Callable[[], Text],
) -> int:
    """Write the message to each of the account's audience; returns how many were new."""
    written = [
        await write(
            tx, services, account_id, addressee, dedupe_key=dedupe_key, kind=kind, object_id=object_id, make=make
        )
        for addressee in await audience(tx, account_id)
    ]
    return sum(written)


# Recipients


async def create_recipient(services: Services, actor: Actor, *, name: str, email: str, locale: str = "en") -> Any:
    """Add somebody to be told. They get a code first; nothing else goes there before it was entered. Returns the row.

    Raises Invalid `email_invalid`, `name_invalid`; Refused `recipient_exists`, `too_many_recipients`.
    """
    access.require(actor, "smn:recipient:create")
    address, shown = rules.email_address(email), rules.display_name(name)
    now = services.clock.now()
    async with services.db.begin() as tx:
        own = recipients.c.account_id == actor.account_id
        if len(await store.recipient_page(tx, own, after=None, limit=_MAX_RECIPIENTS)) >= _MAX_RECIPIENTS:
            raise Refused(
                "too_many_recipients", f"An account has at most {_MAX_RECIPIENTS} recipients.",
                fix="Remove one, or use an address that forwards to several people.",
            )  # fmt: skip
        recipient_id = new_id("rcpt", now)
        values = {
            "id": recipient_id, "account_id": actor.account_id, "name": shown, "email": address,
            "locale": known_locale(locale), "created_at": now,
        }  # fmt: skip
        if not await store.insert_recipient(tx, values):
            raise _exists(address)
        await _send_code(tx, services, actor.account_id, recipient_id, address, shown, known_locale(locale))
        await audit.record(
            tx, services, actor, "smn:recipient:create", "recipient", recipient_id,
            after={"name": shown, "email": address},
        )  # fmt: skip
        return await store.recipient(tx, actor.account_id, recipient_id)


def _exists(address: str) -> Refused:
    return Refused(
        "recipient_exists", f"{address} is a recipient already.", field="email", fix="Change the one there is."
    )


async def _send_code(
    tx: Tx, services: Services, account_id: str, recipient_id: str, address: str, name: str, locale: str
) -> None:
    now = services.clock.now()
    code = f"{secrets.randbelow(10**6):06d}"
    await store.update_recipient(
        tx, recipient_id, code_hash=_hashed(recipient_id, code), code_until=now + rules.CODE_LIFE, code_tries=0
    )
    await write(
        tx, services, account_id, Addressee(address, name, locale, recipient_id),
        dedupe_key=f"code:{recipient_id}:{new_id('code', now)}", kind="recipient.verification", object_id=recipient_id,
        make=lambda: letters.verification_text(name, code, rules.CODE_LIFE // timedelta(hours=1)),
    )  # fmt: skip


def _hashed(recipient_id: str, code: str) -> bytes:
    return sha256(f"{recipient_id}:{code}".encode()).digest()


async def verify_recipient(services: Services, actor: Actor, recipient_id: str, code: str) -> Any:
    """Enter the code that was sent. Raises Invalid `code_wrong`, Refused `code_over`, TooMany `code_tries`."""
    now = services.clock.now()
    problem: Exception | None = None
    async with services.db.begin() as tx:
        row = await _own(tx, actor, "smn:recipient:update", recipient_id, lock=True)
        if row.verified_at is not None:
            return row
        if row.code_tries >= rules.CODE_TRIES:
            raise TooMany(
                "code_tries", f"The code was entered wrongly {rules.CODE_TRIES} times.", field="code",
                fix="Have a new code sent.",
            )  # fmt: skip
        if row.code_hash is None or row.code_until <= now:
            raise Refused("code_over", "The code is no longer good.", field="code", fix="Have a new code sent.")
        if hmac.compare_digest(row.code_hash, _hashed(recipient_id, code.strip())):
            await store.update_recipient(
                tx, recipient_id, verified_at=now, code_hash=None, code_until=None, revision=row.revision + 1
            )
            await audit.record(
                tx, services, actor, "smn:recipient:update", "recipient", recipient_id,
                before={"verified": False}, after={"verified": True},
            )  # fmt: skip
        else:
            # Counted in this transaction, which must therefore commit before the refusal is raised.
            await store.update_recipient(tx, recipient_id, code_tries=row.code_tries + 1)
            left = rules.CODE_TRIES - row.code_tries - 1
            problem = Invalid(
                "code_wrong", "That is not the code that was sent.", field="code",
                fix=f"Enter the six digits of the newest message; {left} tries are left.", extra={"tries_left": left},
            )  # fmt: skip
        changed = await store.recipient(tx, actor.account_id, recipient_id)
    if problem is not None:
        raise problem
    return changed


async def resend_code(services: Services, actor: Actor, recipient_id: str) -> Any:
    """Send a new code; the one before is void. Raises Refused `recipient_verified`, TooMany `code_too_soon`."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _own(tx, actor, "smn:recipient:update", recipient_id, lock=True)
        if row.verified_at is not None:
            raise Refused("recipient_verified", "The address is verified already.", fix="Nothing needs to be done.")
        if row.code_until is not None and row.code_until - now > rules.CODE_LIFE - timedelta(minutes=1):
            raise TooMany(
                "code_too_soon", "A code was sent a moment ago.", fix="Wait a minute, then ask again.",
                extra={"retry_after": 60},
            )  # fmt: skip
        await _send_code(tx, services, actor.account_id, recipient_id, row.email, row.name, row.locale)
        return await store.recipient(tx, actor.account_id, recipient_id)


async def update_recipient(
    services: Services,
    actor: Actor,
    recipient_id: str,
    *,
    revision: int | None = None,
    name: str | None = None,
    email: str | None = None,
    locale: str | None = None,
) -> Any:
    """Change a recipient; another address has to be verified anew. Raises as create does, and Stale."""
    async with services.db.begin() as tx:
        row = await _own(tx, actor, "smn:recipient:update", recipient_id, lock=True)
        if revision is not None and row.revision != revision:
            raise Stale(
                "changed_meanwhile", "The recipient was changed since you read it.",
                fix="Read it again, then repeat your change.", extra={"revision": row.revision},
            )  # fmt: skip
        values: dict[str, Any] = {}
        if name is not None:
            values["name"] = rules.display_name(name)
        if locale is not None:
            values["locale"] = known_locale(locale)
        if email is not None and rules.email_address(email) != row.email:
            values |= {"email": rules.email_address(email), "verified_at": None}
            if await store.email_used(tx, actor.account_id, values["email"], recipient_id):
                raise _exists(values["email"])
        if not values:
            return row
        await store.update_recipient(tx, recipient_id, revision=row.revision + 1, **values)
        if "email" in values:
            shown, language = values.get("name", row.name), values.get("locale", row.locale)
            await _send_code(tx, services, actor.account_id, recipient_id, values["email"], shown, language)
        await audit.record(
            tx, services, actor, "smn:recipient:update", "recipient", recipient_id,
            before={"name": row.name, "email": row.email},
            after={"name": values.get("name", row.name), "email": values.get("email", row.email)},
        )  # fmt: skip
        return await store.recipient(tx, actor.account_id, recipient_id)


async def delete_recipient(services: Services, actor: Actor, recipient_id: str) -> None:
    """Messages already written to the address are still sent."""
    async with services.db.begin() as tx:
        row = await _own(tx, actor, "smn:recipient:delete", recipient_id, lock=True)
        await store.delete_recipient(tx, recipient_id)
        await audit.record(
            tx, services, actor, "smn:recipient:delete", "recipient", recipient_id,
            before={"name": row.name, "email": row.email},
        )  # fmt: skip


async def get_recipient(services: Services, actor: Actor, recipient_id: str) -> Any:
    async with services.db.begin() as tx:
        return await _own(tx, actor, "smn:recipient:get", recipient_id)


async def list_recipients(services: Services, actor: Actor, *, after: str | None = None, limit: int = 20) -> list[Any]:
    """Rows of `recipients`, newest first."""
    async with services.db.begin() as tx:
        where = access.visible(recipients, actor, "smn:recipient:list")
        return await store.recipient_page(tx, where, after=after, limit=limit)


async def _own(tx: Tx, actor: Actor, action: str, recipient_id: str, *, lock: bool = False) -> Any:
    row = await store.recipient(tx, actor.account_id, recipient_id, lock=lock)
    if row is None:
        raise not_found("recipient", recipient_id)
    access.require(actor, action, resource=f"recipient:{recipient_id}")
    return row


# Messages


def state_of(row: Any) -> MessageState:
    """`sent`, `failed` or `queued`, from the facts on the row."""
    if row.sent_at is not None:
        return MessageState("sent")
    if row.failed_at is not None:
        return MessageState("failed", row.failure)
    return MessageState("queued", row.step_problem)


async def list_messages(
    services: Services, actor: Actor, *, object_id: str | None = None, after: str | None = None, limit: int = 20
) -> list[Any]:
    """Messages without their bodies, newest first; see `state_of`."""
    where = [access.visible(messages, actor, "smn:message:list")]
    if object_id is not None:
        where.append(messages.c.object_id == object_id)
    async with services.db.begin() as tx:
        return await store.message_page(tx, where, after=after, limit=limit)
