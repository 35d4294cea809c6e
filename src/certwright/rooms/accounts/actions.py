"""Signing in and out, the first account, one-time links: what people do before anything can be asked of a policy.

What needs a permission (managing users, groups, projects, tokens) is in the access room, which stands above.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from certwright.kernel.actor import Actor, system_actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Invalid, InvalidFields, NotFound, Problem, Refused, TooMany, Unauthenticated
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import audit
from certwright.rooms.accounts import rules, store
from certwright.rooms.accounts.secrets import hash_password, hash_secret, needs_rehash, new_secret, verify_password
from certwright.rooms.accounts.tables import accounts, one_time_links, projects, sessions, users
from certwright.rooms.accounts.words import Account, OneTimeLink, Session, SignedIn, User

_FIRST_ACCOUNT_LOCK = 0x61636374  # "acct"
_MAX_AGENT = 300


async def ensure_account(services: Services, name: str | None = None) -> Account:
    """The first account with its default project, made at first start; safe when N processes start together."""
    async with services.db.begin() as tx:
        await tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_FIRST_ACCOUNT_LOCK)))
        found = await store.first_account(tx)
        if found is not None:
            return found
        return await create_account(tx, services, name or services.settings.organization)


async def create_account(tx: Tx, services: Services, name: str) -> Account:
    """A further tenant with its default project and nobody in it."""
    now = services.clock.now()
    account = Account(new_id("acc", now), rules.normal_name(name), None, 1, now)
    project_id = new_id("prj", now)
    await store.insert_row(tx, accounts, id=account.id, name=account.name, created_at=now)
    await store.insert_row(
        tx, projects, id=project_id, account_id=account.id, name="default", is_default=True, created_at=now
    )
    actor = system_actor(account.id, "start")
    await audit.record(tx, services, actor, "iam:account:create", "account", account.id, after={"name": account.name})
    return account


async def default_project(services: Services, account_id: str) -> str:
    """The id of the project that things go to when none is named."""
    async with services.db.begin() as tx:
        return await store.default_project(tx, account_id)


async def fresh_setup_link(services: Services) -> OneTimeLink | None:
    """A one-time link for the first user of the first account; None once a user exists.

    Links printed by other processes stay good, because whoever reads the log may find any of them first.
    """
    account = await ensure_account(services)
    async with services.db.begin() as tx:
        await store.lock_account(tx, account.id)
        if await store.any_user(tx):
            return None
        return await new_link(tx, services, account.id, "setup", None, rules.LINK_LIFETIME)


async def new_link(
    tx: Tx, services: Services, account_id: str, kind: str, user_id: str | None, lifetime: timedelta
) -> OneTimeLink:
    now = services.clock.now()
    link = OneTimeLink(new_id("lnk", now), now + lifetime, new_secret())
    await store.insert_row(
        tx, one_time_links, id=link.id, account_id=account_id, kind=kind, user_id=user_id,
        secret_hash=hash_secret(link.secret), expires_at=link.expires_at, created_at=now,
    )  # fmt: skip
    return link


async def setup_is_open(services: Services, secret: str) -> bool:
    """Whether this set-up link could be used now."""
    async with services.db.begin() as tx:
        return bool(await store.peek_link(tx, hash_secret(secret), "setup", services.clock.now()))


async def password_link_user(services: Services, secret: str) -> User | None:
    """Whose password this link would set."""
    async with services.db.begin() as tx:
        found = await store.peek_link(tx, hash_secret(secret), "password", services.clock.now())
    return found if isinstance(found, User) else None


async def claim_setup(
    tx: Tx, services: Services, secret: str, *, email: str, name: str, password_hash: str, account_name: str
) -> User:
    """Use the set-up link: name the account and make its first user. Of two at once, one gets Refused."""
    now = services.clock.now()
    claimed = await store.claim_link(tx, hash_secret(secret), "setup", now)
    if claimed is None:
        raise link_invalid()
    _, account_id, _ = claimed
    await store.lock_account(tx, account_id)
    if await store.any_user(tx, account_id):
        raise link_invalid()
    await store.delete_links(tx, kind="setup")
    await store.update_revised(tx, accounts, account_id, None, name=account_name, set_up_at=now)
    return await insert_user(tx, services, account_id, email=email, name=name, password_hash=password_hash)


def link_invalid() -> Problem:
    return NotFound(
        "link_invalid",
        "This link was used already, has expired, or never existed.",
        fix="Ask for a new link; the set-up link is printed again when the server starts and nobody has an account.",
    )


async def insert_user(
    tx: Tx, services: Services, account_id: str, *, email: str, name: str, password_hash: str | None
) -> User:
    """Raises Refused `email_taken`."""
    if not await store.email_is_free(tx, email):
        raise email_taken()
    now = services.clock.now()
    user = User(new_id("usr", now), account_id, email, name, password_hash is not None, None, None, 1, now)
    await store.insert_row(
        tx, users, id=user.id, account_id=account_id, email=email, name=name, password_hash=password_hash,
        created_at=now,
    )  # fmt: skip
    return user


def email_taken() -> Problem:
    return Refused(
        "email_taken", "Somebody has that e-mail address already.", field="email",
        fix="Use another address, or invite the existing user into the group.",
    )  # fmt: skip


def check_new_password(password: str, *, email: str, name: str, field: str = "password") -> None:
    problem = rules.why_bad_password(password, email=email, name=name, field=field)
    if problem is not None:
        raise problem


def check_person(email: str, name: str, password: str, account_name: str) -> tuple[str, str, str]:
    """All problems of the set-up form at once; returns (email, name, account name) as they are stored."""
    problems: list[Problem] = []
    out = ["", "", ""]
    for at, (check, text, field) in enumerate(
        (
            (rules.normal_email, email, "email"),
            (rules.normal_name, name, "name"),
            (rules.normal_name, account_name, "account_name"),
        )
    ):
        try:
            out[at] = check(text, field=field)
        except Invalid as problem:
            problems.append(problem)
    bad = rules.why_bad_password(password, email=email.strip(), name=name)
    if bad is not None:
        problems.append(bad)
    if problems:
        raise InvalidFields(problems)
    return out[0], out[1], out[2]


async def use_password_link(services: Services, secret: str, password: str) -> User:
    """Set the password of an invited user, or of one who forgot it; ends every session they had."""
    user = await password_link_user(services, secret)
    if user is None:
        raise link_invalid()
    check_new_password(password, email=user.email, name=user.name)
    hashed = await hash_password(password)
    async with services.db.begin() as tx:
        if await store.claim_link(tx, hash_secret(secret), "password", services.clock.now()) is None:
            raise link_invalid()
        await store.set_password(tx, user.id, hashed)
        await store.delete_links(tx, kind="password", user_id=user.id)
        await store.delete_sessions(tx, user.id)
        actor = Actor("user", user.id, user.email, user.account_id, user_id=user.id)
        await audit.record(tx, services, actor, "iam:user:update", "user", user.id, reason="password set by link")
    return user


async def sign_in(
    services: Services, email: str, password: str, *, address: str, user_agent: str = "", request_id: str | None = None
) -> SignedIn:
    """Check the password and open a session.

    Raises Unauthenticated `bad_credentials` (also for people who don't exist or are disabled) and TooMany
    `sign_in_throttled` with `extra["retry_after"]` seconds. An attempt is counted before the password is looked at,
    so that many at once don't slip through.
    """
    email = rules.sought_email(email)
    now, where = services.clock.now(), rules.throttle_address(address)
    mail_key, address_key = "mail:" + hash_secret(email).hex()[:32], "addr:" + where
    pair_key = "pair:" + hash_secret(f"{email} {where}").hex()[:32]
    limits = ((pair_key, rules.PAIR_LIMIT), (address_key, rules.ADDRESS_LIMIT), (mail_key, rules.EMAIL_LIMIT))
    async with services.db.begin() as tx:
        for key, limit in limits:
            blocked = await store.count_failure(tx, key, limit, now)
            if blocked is not None:
                raise _throttled(blocked, now)
        found = await store.user_by_email(tx, email)
    user, stored = found or (None, None)
    right = await verify_password(stored, password)
    if user is None or stored is None or not right or user.disabled_at is not None:
        raise Unauthenticated(
            "bad_credentials", "The e-mail address or the password is wrong.",
            fix="Check both; ask an administrator of your account for a new password link if you forgot it.",
        )  # fmt: skip
    rehashed = await hash_password(password) if needs_rehash(stored) else None
    async with services.db.begin() as tx:
        if rehashed is not None:
            await store.set_password(tx, user.id, rehashed)
        await store.forget_failure(tx, [key for key, _ in limits], pair_key)
        await store.set_signed_in(tx, user.id, now)
        signed_in = await open_session(tx, services, user, address=address, user_agent=user_agent)
        actor = Actor("user", user.id, user.email, user.account_id, user_id=user.id, request_id=request_id)
        await audit.record(
            tx, services, actor, "iam:session:create", "session", signed_in.session.id, after={"address": address}
        )
    return signed_in


async def check_current_password(services: Services, user_id: str, password: str) -> None:
    """For changes that ask for the password again. Raises Refused `password_wrong`, TooMany `sign_in_throttled`."""
    now, key = services.clock.now(), "again:" + user_id
    async with services.db.begin() as tx:
        blocked = await store.count_failure(tx, key, rules.PAIR_LIMIT, now)
        if blocked is not None:
            raise _throttled(blocked, now)
        stored = await store.password_hash_of(tx, user_id)
    if not await verify_password(stored, password):
        raise Refused("password_wrong", "The present password is wrong.", field="current", fix="Type it again.")
    async with services.db.begin() as tx:
        await store.forget_failure(tx, [], key)


def _throttled(until: datetime, now: datetime) -> Problem:
    seconds = max(1, int((until - now).total_seconds()) + 1)
    return TooMany(
        "sign_in_throttled", f"There were too many attempts; the next one is possible in {seconds} s.",
        fix="Wait, then check the e-mail address and the password.", extra={"retry_after": seconds},
    )  # fmt: skip


async def open_session(tx: Tx, services: Services, user: User, *, address: str, user_agent: str) -> SignedIn:
    now = services.clock.now()
    secret = new_secret()
    session = Session(
        new_id("ses", now), user.id, address, user_agent.replace("\x00", "")[:_MAX_AGENT], now, now,
        now + timedelta(hours=services.settings.session_hours),
    )  # fmt: skip
    await store.insert_row(
        tx, sessions, id=session.id, user_id=user.id, secret_hash=hash_secret(secret), address=session.address,
        user_agent=session.user_agent, created_at=now, last_seen_at=now, expires_at=session.expires_at,
    )  # fmt: skip
    return SignedIn(session, user, secret)


async def forget_over(services: Services) -> None:
    """Chore: drop ended sessions, expired links and old failure counts."""
    async with services.db.begin() as tx:
        await store.delete_over(tx, services.clock.now(), rules.SESSION_IDLE)
