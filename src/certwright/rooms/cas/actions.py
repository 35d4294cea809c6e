"""What people do with CAs: add, look, edit, test, change the account's key, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from certwright.kernel.actor import Actor, system_actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Problem, Refused, Stale, not_found
from certwright.platform.db import Tx, assert_no_transaction
from certwright.platform.services import Services
from certwright.rooms import access, audit, keys
from certwright.rooms.cas import rules, store
from certwright.rooms.cas.ports import AccountKeeper, Dependents, Storefront
from certwright.rooms.cas.tables import cas
from certwright.rooms.cas.words import Ca, CaKind, Credentials, Offers, ShopCredentials, Use
from certwright.x509.keys import KeyAlgorithm

ACCOUNT_KEY = KeyAlgorithm.EC_P256


def eab_context(ca_id: str) -> str:
    """What the vault binds the key of an external account binding to."""
    return f"cas:{ca_id}"


def api_key_context(ca_id: str) -> str:
    """What the vault binds the key to that a CA that sells gave us."""
    return f"cas:{ca_id}:api_key"


# --- reading ---------------------------------------------------------------------------------------------------------


async def list_cas(services: Services, actor: Actor, *, after: str | None = None, limit: int = 20) -> tuple[Ca, ...]:
    """Newest first; `after` is the id of the last one seen."""
    visible = access.visible(cas, actor, "scm:ca:list")
    async with services.db.begin() as tx:
        rows = await store.page(tx, visible, after=after, limit=limit)
    return tuple(shown(row) for row in rows)


async def get_ca(services: Services, actor: Actor, ca_id: str) -> Ca:
    async with services.db.begin() as tx:
        return shown(await _visible(tx, actor, "scm:ca:get", ca_id))


async def limits_used(services: Services, actor: Actor, ca_id: str) -> Mapping[Use, tuple[str, int]]:
    """Per limit that something counts against now: the subject nearest to it, and how often it was used."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:ca:get", ca_id)
        found = {
            use: await store.most_used(tx, ca_id, use, now - limit.period)
            for use, limit in rules.limits_of(row.limits).items()
        }
    return {use: most for use, most in found.items() if most is not None}


def shown(row: store.Row) -> Ca:
    offers = None
    if row.offers is not None:
        offers = Offers(**(row.offers | {"caa_identities": tuple(row.offers["caa_identities"])}))
    return Ca(
        id=row.id, project_id=row.project_id, name=row.name, kind=row.kind, directory_url=row.directory_url,
        public=row.public, contacts=tuple(row.contacts), terms_agreed_at=row.terms_agreed_at, profile=row.profile,
        preferred_chain=row.preferred_chain, root_pem=row.root_pem, account_url=row.account_url, eab_kid=row.eab_kid,
        limits=rules.limits_of(row.limits), offers=offers, key_algorithm=row.key_algorithm,
        key_change_pending=row.next_key_id is not None, settings=row.settings, revision=row.revision,
        created_at=row.created_at, updated_at=row.updated_at, checked_at=row.checked_at, problem=row.problem,
    )  # fmt: skip


async def _visible(tx: Tx, actor: Actor, action: str, ca_id: str, *, lock: bool = False) -> store.Row:
    row = await store.ca(tx, ca_id, access.visible(cas, actor, "scm:ca:get"), lock=lock)
    if row is None:
        raise not_found("CA", ca_id)
    access.require(actor, action, project_id=row.project_id, resource=f"ca:{ca_id}")
    return row


# --- adding and editing ----------------------------------------------------------------------------------------------


async def add_ca(
    services: Services,
    actor: Actor,
    *,
    name: str,
    directory_url: str,
    kind: str = CaKind.ACME.value,
    public: bool = True,
    contacts: Sequence[str] = (),
    agree_terms: bool = False,
    profile: str | None = None,
    preferred_chain: str | None = None,
    root_pem: str | None = None,
    eab_kid: str | None = None,
    eab_key: str | None = None,
    api_key: str | None = None,
    settings: Mapping[str, Any] | None = None,
    limits: Mapping[str, Mapping[str, Any]] | None = None,
    project_id: str | None = None,
) -> Ca:
    """Keep a CA, and make the key of its account if it speaks ACME. Nothing is contacted: see `check_ca`, or the first
    order. For a CA that sells `directory_url` is the address of its API; it needs an `api_key` and takes `settings`."""
    wanted = rules.judge_name(name)
    shop = rules.judge_kind(kind, api_key=api_key, settings=settings) is CaKind.CERTCENTRAL
    eab = rules.judge_eab(eab_kid, eab_key)
    now = services.clock.now()
    ca_id = new_id("eca", now)
    values = {
        "name": wanted, "kind": kind, "directory_url": rules.judge_directory_url(directory_url.strip()),
        "public": public, "contacts": rules.judge_contacts(contacts), "terms_agreed_at": now if agree_terms else None,
        "profile": rules.judge_profile(profile), "preferred_chain": rules.judge_preferred_chain(preferred_chain),
        "root_pem": rules.judge_root(root_pem), "limits": rules.judge_limits(limits or {}),
        "eab_kid": eab[0] if eab else None,
    }  # fmt: skip
    sealed = services.vault.seal(rules.judge_api_key(api_key), api_key_context(ca_id)) if shop else None
    values["settings"] = rules.judge_shop_settings(settings or {}) if shop else None
    key = None if shop else await keys.new_key(ACCOUNT_KEY)
    async with services.db.begin() as tx:
        project = await access.project_for(tx, actor, "scm:ca:create", project_id)
        if await store.name_taken(tx, actor.account_id, wanted, ""):
            raise _name_taken(wanted)
        key_id = None
        if key is not None:
            key_id = await keys.store_key(tx, services, key, account_id=actor.account_id, project_id=project)
        fresh = await store.insert_ca(
            tx, id=ca_id, account_id=actor.account_id, project_id=project, key_id=key_id,
            key_algorithm=None if shop else ACCOUNT_KEY.value, api_key=sealed, created_at=now, updated_at=now,
            eab_key=services.vault.seal(eab[1], eab_context(ca_id)) if eab else None, **values,
        )  # fmt: skip
        if not fresh:
            raise _name_taken(wanted)
        await audit.record(
            tx, services, actor, "scm:ca:create", "ca", ca_id, project_id=project,
            after={word: values[word] for word in ("name", "directory_url", "public", "contacts", "eab_kid")},
        )  # fmt: skip
        return shown(await store.ca(tx, ca_id))


async def update_ca(
    services: Services,
    actor: Actor,
    ca_id: str,
    *,
    revision: int,
    name: str | None = None,
    public: bool | None = None,
    contacts: Sequence[str] | None = None,
    agree_terms: bool | None = None,
    profile: str | None = None,
    preferred_chain: str | None = None,
    root_pem: str | None = None,
    eab_kid: str | None = None,
    eab_key: str | None = None,
    api_key: str | None = None,
    settings: Mapping[str, Any] | None = None,
    limits: Mapping[str, Mapping[str, Any]] | None = None,
) -> Ca:
    """Change what is given; None leaves as it is, an empty text removes. The directory stays: an account belongs to
    one. Raises Stale when `revision` has moved on."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:ca:update", ca_id, lock=True)
        rules.judge_kind(row.kind, api_key=api_key, settings=settings, known=True)
        values: dict[str, Any] = {}
        if name is not None:
            values["name"] = rules.judge_name(name)
            if await store.name_taken(tx, actor.account_id, values["name"], ca_id):
                raise _name_taken(values["name"])
        if public is not None:
            values["public"] = public
        if contacts is not None:
            values["contacts"] = rules.judge_contacts(contacts)
        if profile is not None:
            values["profile"] = rules.judge_profile(profile, row.offers and row.offers["profiles"])
        if preferred_chain is not None:
            values["preferred_chain"] = rules.judge_preferred_chain(preferred_chain)
        if root_pem is not None:
            values["root_pem"] = rules.judge_root(root_pem)
        if limits is not None:
            values["limits"] = rules.judge_limits(row.limits | limits)
        if settings is not None:
            values["settings"] = rules.judge_shop_settings(settings, row.settings)
        told = dict(values)
        if api_key is not None:
            values["api_key"] = services.vault.seal(rules.judge_api_key(api_key), api_key_context(ca_id))
            told["new_api_key"] = True
        if values.get("contacts", list(row.contacts)) != list(row.contacts):
            values["contacts_told_at"] = None
        if agree_terms is not None:
            values["terms_agreed_at"] = now if agree_terms else None
            told["agree_terms"] = agree_terms
        if eab_kid is not None or eab_key is not None:
            eab = rules.judge_eab(eab_kid, eab_key)
            values["eab_kid"] = told["eab_kid"] = eab[0] if eab else None
            values["eab_key"] = services.vault.seal(eab[1], eab_context(ca_id)) if eab else None
        if not await store.update_ca(tx, ca_id, revision, values | {"updated_at": now}):
            raise Stale(
                "changed_meanwhile", "The CA was changed by someone else since you read it.",
                fix="Read it again and repeat your change on what you find.",
            )  # fmt: skip
        await audit.record(
            tx, services, actor, "scm:ca:update", "ca", ca_id, project_id=row.project_id,
            before={word: getattr(row, word) for word in told if hasattr(row, word)}, after=told,
        )  # fmt: skip
        return shown(await store.ca(tx, ca_id))


async def delete_ca(services: Services, actor: Actor, ca_id: str, *, deactivate: bool = False) -> None:
    """Forget a CA that no certificate needs any more, and erase the account's key. `deactivate` closes the account at
    the CA first; without its key nobody could do so later."""
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:ca:delete", ca_id)
        await _require_unused(tx, services, row)
    if deactivate and row.account_url is not None:
        await services.port(AccountKeeper).deactivate(await credentials(services, row, "the account is closed"))
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:ca:delete", ca_id, lock=True)
        await _require_unused(tx, services, row)
        for key_id in (row.key_id, row.next_key_id):
            if key_id is not None:
                await keys.erase(tx, services, actor, key_id, f"CA {row.name} deleted")
        await store.delete_ca(tx, ca_id)
        await audit.record(
            tx, services, actor, "scm:ca:delete", "ca", ca_id, project_id=row.project_id,
            before={"name": row.name, "directory_url": row.directory_url, "account_url": row.account_url},
            reason="account deactivated" if deactivate else "",
        )  # fmt: skip


async def _require_unused(tx: Tx, services: Services, row: store.Row) -> None:
    used = await services.port(Dependents).certificates_of(tx, row.id)
    if used:
        raise Refused(
            "ca_in_use", f"{used} certificates come from {row.name} and are renewed and revoked there.",
            fix="Delete those certificates first.", extra={"certificates": used},
        )  # fmt: skip


def _name_taken(name: str) -> Refused:
    return Refused("ca_name_taken", f"Another CA is called {name!r}.", field="name", fix="Choose another name.")


# --- the account at the CA -------------------------------------------------------------------------------------------


async def credentials(services: Services, row: store.Row, why: str) -> Credentials:
    """The account ready for use; opening its key is audited with the reason. Call outside any transaction."""
    actor = system_actor(row.account_id, "cas")
    sealed = row.eab_key
    return Credentials(
        id=row.id, account_id=row.account_id, directory_url=row.directory_url, root_pem=row.root_pem,
        contacts=tuple(row.contacts), terms_agreed=row.terms_agreed_at is not None,
        key=await keys.open_key(services, actor, row.key_id, why), account_url=row.account_url, eab_kid=row.eab_kid,
        eab_key=services.vault.open(sealed, eab_context(row.id)) if sealed is not None else None,
    )  # fmt: skip


def shop_credentials(services: Services, row: store.Row) -> ShopCredentials:
    """What orders at a CA that sells are placed with."""
    return ShopCredentials(
        id=row.id, base_url=row.directory_url, root_pem=row.root_pem,
        api_key=services.vault.open(row.api_key, api_key_context(row.id)).decode(),
    )  # fmt: skip


async def check_ca(services: Services, actor: Actor, ca_id: str) -> Ca:
    """Read the directory, find or make the account, tell it new contacts, finish a roll-over that was interrupted.
    What went wrong is kept on the CA."""
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:ca:update", ca_id)
    problem: Problem | None = None
    try:
        if row.next_key_id is not None:
            await _settle_key_change(services, actor, ca_id)
        await register(services, ca_id, anew=True)
    except Problem as found:
        problem = found
    async with services.db.begin() as tx:
        said = problem.as_dict() if problem else None
        await store.note(tx, ca_id, checked_at=services.clock.now(), problem=said)
        await audit.record(
            tx, services, actor, "scm:ca:update", "ca", ca_id, project_id=row.project_id, reason="tested",
            after={"problem": problem.code if problem else None},
        )  # fmt: skip
        return shown(await store.ca(tx, ca_id))


async def register(services: Services, ca_id: str, *, anew: bool = False) -> None:
    """Make sure the account exists and is up to date; asks the CA only for what is missing here, or everything `anew`.

    Content to find an account made just before a crash: the key was stored first, and newAccount finds by key.
    """
    async with services.db.begin() as tx:
        row = await store.ca(tx, ca_id)
    if row is None:
        raise not_found("CA", ca_id)
    if row.kind == CaKind.CERTCENTRAL:
        await _read_offers(services, row)
        return
    if row.account_url is not None and row.contacts_told_at is not None and not anew:
        return
    ca, keeper = await credentials(services, row, "the account is registered"), services.port(AccountKeeper)
    assert_no_transaction()
    offers = await keeper.offers(ca)
    async with services.db.begin() as tx:
        await store.note(
            tx, ca_id,
            offers={
                "terms_of_service": offers.terms_of_service, "website": offers.website,
                "caa_identities": list(offers.caa_identities), "profiles": dict(offers.profiles),
                "external_account_required": offers.external_account_required, "renewal_info": offers.renewal_info,
                "key_change": offers.key_change,
            },
        )  # fmt: skip
    rules.judge_profile(row.profile, offers.profiles)
    url = await keeper.register(ca)
    if row.account_url is not None and row.contacts_told_at is None:
        await keeper.tell_contacts(ca)
    async with services.db.begin() as tx:
        if await store.registered(tx, ca_id, row.key_id, url):
            await store.contacts_told(tx, ca_id, row.contacts, services.clock.now())
        if url != row.account_url:
            await audit.record(
                tx, services, system_actor(row.account_id, "cas"), "scm:ca:update", "ca", ca_id,
                project_id=row.project_id, before={"account_url": row.account_url}, after={"account_url": url},
            )  # fmt: skip


async def _read_offers(services: Services, row: store.Row) -> None:
    """What a CA that sells sells us; that it answers shows that it takes our key."""
    assert_no_transaction()
    products = await services.port(Storefront).products(shop_credentials(services, row))
    async with services.db.begin() as tx:
        offers = Offers(profiles=products)
        await store.note(tx, row.id, offers=asdict(offers) | {"caa_identities": []})
    rules.judge_offered(row.settings["products"], products)


async def change_key(services: Services, actor: Actor, ca_id: str) -> Ca:
    """Give the account a new key and erase the old one. The account's URL stays, and with it CAA and the like."""
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:ca:update", ca_id)
    if row.kind != CaKind.ACME:
        raise Refused(
            "ca_no_key_change", "The CA makes its keys itself.",
            fix="Make a new API key in the CA's console and enter it here.",
        )  # fmt: skip
    if row.next_key_id is not None:
        await _settle_key_change(services, actor, ca_id)
    await register(services, ca_id)
    new = await keys.new_key(ACCOUNT_KEY)
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:ca:update", ca_id, lock=True)
        # The new key is stored before the CA hears of it: whichever the CA knows after a crash, we hold it.
        key_id = await keys.store_key(tx, services, new, account_id=row.account_id, project_id=row.project_id)
        if not await store.intend_key_change(tx, ca_id, key_id):
            raise Refused(
                "ca_key_change_running", "The account's key is being changed already.",
                fix="Wait a moment, then test the CA.",
            )  # fmt: skip
    ca = await credentials(services, row, "the account's key is changed")
    try:
        await services.port(AccountKeeper).change_key(ca, new.key)
    except Problem:
        # The CA may have done it and the answer got lost; only asking for both keys tells.
        await _settle_key_change(services, actor, ca_id)
        raise
    await _end_key_change(services, actor, row, key_id, taken=True)
    return await get_ca(services, actor, ca_id)


async def new_account(services: Services, actor: Actor, ca_id: str) -> Ca:
    """Leave the account behind, with its key erased, and register another: the CA closed it, or somebody else may hold
    its key. Orders under way there fail, and certificates from there are revoked by their keys or by showing their
    names (see the certificates room). What went wrong with registering is kept on the CA, as by a test."""
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:ca:update", ca_id)
    if row.kind != CaKind.ACME:
        raise Refused(
            "ca_no_account", "The CA makes its accounts itself.",
            fix="Enter a new API key of the other account here.",
        )  # fmt: skip
    if row.next_key_id is not None:
        await _settle_key_change(services, actor, ca_id)
    new = await keys.new_key(ACCOUNT_KEY)
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:ca:update", ca_id, lock=True)
        key_id = await keys.store_key(tx, services, new, account_id=row.account_id, project_id=row.project_id)
        if not await store.replace_key(tx, ca_id, row.key_id, key_id):
            raise Refused(
                "ca_key_change_running", "The account's key is being changed already.",
                fix="Wait a moment, then test the CA.",
            )  # fmt: skip
        await keys.erase(tx, services, actor, row.key_id, f"account of CA {row.name} left behind")
        await audit.record(
            tx, services, actor, "scm:ca:update", "ca", ca_id, project_id=row.project_id,
            before={"account_url": row.account_url}, after={"account_url": None}, reason="a new account is wanted",
        )  # fmt: skip
    return await check_ca(services, actor, ca_id)


async def _settle_key_change(services: Services, actor: Actor, ca_id: str) -> None:
    """After an interrupted roll-over: ask the CA which of the two keys the account has."""
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:ca:update", ca_id)
    if row.next_key_id is None:
        return
    ca = await credentials(services, row, "an interrupted change of key is settled")
    new = await keys.open_key(services, system_actor(row.account_id, "cas"), row.next_key_id, "as above")
    url = await services.port(AccountKeeper).find(ca, new)
    await _end_key_change(services, actor, row, row.next_key_id, taken=url is not None and url == row.account_url)


async def _end_key_change(services: Services, actor: Actor, row: store.Row, next_key_id: str, *, taken: bool) -> None:
    async with services.db.begin() as tx:
        values: dict[str, Any] = {"key_id": next_key_id} if taken else {}
        if not await store.end_key_change(tx, row.id, next_key_id, **values):
            return
        useless = row.key_id if taken else next_key_id
        await keys.erase(tx, services, actor, useless, f"key change of CA {row.name} {'done' if taken else 'given up'}")
        await audit.record(
            tx, services, actor, "scm:ca:update", "ca", row.id, project_id=row.project_id,
            reason="account key changed" if taken else "account key kept: the CA didn't take the new one",
        )  # fmt: skip
