"""ACME services on private CAs: opened and led, keys for their clients, what to type into clients, accounts, orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from starlette.responses import Response

from certwright.entry.acme_clients import Asked, Recipe, recipes
from certwright.entry.console import words
from certwright.entry.console.forms import Form
from certwright.entry.console.pages_authorities import number_of, projects_of
from certwright.entry.console.web import FORM_PROBLEMS, PAGE, Call, Pages, page, paged, revision_of, see
from certwright.kernel.problems import Problem
from certwright.platform.i18n import _
from certwright.rooms import acme_server, authorities
from certwright.rooms.acme_server import AcmeDirectory, NewEabKey, OrderState
from certwright.rooms.authorities import CaState

pages = Pages()

_ADDRESS = "/authorities/acme"
_ONE = f"{_ADDRESS}/{{id}}"


# --- the list --------------------------------------------------------------------------------------------------------


@pages.get(_ADDRESS, action="ccm:acme:list")
async def list_page(call: Call) -> Response:
    found = await acme_server.list_directories(call.services, call.actor)
    return page(call, "acme/list.html", {"services": found} | await _cas(call))


async def _cas(call: Call) -> dict[str, Any]:
    """`ca_names` of those the actor may see; `idle_cas`, the state of those among them that sign nothing now."""
    may_see = call.allowed("ccm:ca:list")
    found = await authorities.list_authorities(call.services, call.actor) if may_see else []
    idle = {ca.id: ca.state for ca in found if ca.state is not CaState.ACTIVE}
    return {"ca_names": {ca.id: ca.name for ca in found}, "idle_cas": idle}


# --- opening and changing --------------------------------------------------------------------------------------------


async def _form_view(call: Call, values: Mapping[str, str], service: AcmeDirectory | None = None) -> dict[str, Any]:
    found = await authorities.list_authorities(call.services, call.actor) if call.allowed("ccm:ca:list") else []
    kinds = await authorities.list_profiles(call.services, call.actor) if call.allowed("ccm:profile:list") else []
    return {
        "service": service,
        "values": values,
        "cas": [(ca.id, ca.name) for ca in found if ca.signs_leaves and ca.state is CaState.ACTIVE],
        "projects": await projects_of(call),
        "kinds": [kind.name for kind in kinds],
        "challenges": acme_server.CHALLENGES,
    }


def _settings(form: Form) -> dict[str, Any]:
    return {
        "eab_required": form.checked("eab_required"),
        "allowed_names": form.lines("allowed_names"),
        "profiles": form.lines("profiles"),
        "challenges": tuple(kind for kind in acme_server.CHALLENGES if form.checked(kind)),
        "days": number_of(form, "days"),
        "reuse_days": number_of(form, "reuse_days") or 0,
        "terms_url": form.optional("terms_url"),
        "website": form.optional("website"),
    }


@pages.get(f"{_ADDRESS}/new", action="ccm:acme:create")
async def new_page(call: Call) -> Response:
    values = {
        "authority_id": call.query.text("ca"), "eab_required": "yes", "profiles": "server", "reuse_days": "0",
        **dict.fromkeys(acme_server.CHALLENGES, "yes"),
    }  # fmt: skip
    return page(call, "acme/edit.html", await _form_view(call, values))


@pages.post(f"{_ADDRESS}/new", action="ccm:acme:create")
async def create(call: Call) -> Response:
    form = call.form
    try:
        request = acme_server.DirectoryRequest(
            name=form.text("name"), authority_id=form.text("authority_id"), slug=form.optional("slug"),
            **_settings(form),
        )  # fmt: skip
        made = await acme_server.create_directory(
            call.services, call.actor, request, project_id=form.optional("project_id")
        )
    except FORM_PROBLEMS as problem:
        return page(call, "acme/edit.html", await _form_view(call, form.values()), problem)
    return see(f"{_ADDRESS}/{made.id}", said="created", call=call)


@pages.get(f"{_ONE}/edit", action="ccm:acme:update")
async def edit_page(call: Call) -> Response:
    service = await _service(call)
    values = {
        "name": service.name, "eab_required": "yes" if service.eab_required else "",
        "allowed_names": "\n".join(service.allowed_names), "profiles": "\n".join(service.profiles),
        "days": str(service.days or ""), "reuse_days": str(service.reuse_days), "terms_url": service.terms_url or "",
        "website": service.website or "", "revision": str(service.revision), **dict.fromkeys(service.challenges, "yes"),
    }  # fmt: skip
    return page(call, "acme/edit.html", await _form_view(call, values, service))


@pages.post(f"{_ONE}/edit", action="ccm:acme:update")
async def edit(call: Call) -> Response:
    form, directory_id = call.form, call.param("id")
    try:
        changes = {"name": form.text("name")} | _settings(form)
        await acme_server.update_directory(
            call.services, call.actor, directory_id, _as_lists(changes), revision=revision_of(form)
        )
    except FORM_PROBLEMS as problem:
        return page(call, "acme/edit.html", await _form_view(call, form.values(), await _service(call)), problem)
    return see(f"{_ADDRESS}/{directory_id}", said="saved", call=call)


def _as_lists(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in changes.items()}


@pages.post(f"{_ONE}/disable", action="ccm:acme:update", ask="disable_acme")
async def disable(call: Call) -> Response:
    return await _switch(call, enabled=False)


@pages.post(f"{_ONE}/enable", action="ccm:acme:update")
async def enable(call: Call) -> Response:
    return await _switch(call, enabled=True)


async def _switch(call: Call, *, enabled: bool) -> Response:
    directory_id = call.param("id")
    await acme_server.update_directory(call.services, call.actor, directory_id, {"enabled": enabled})
    return see(f"{_ADDRESS}/{directory_id}", said="saved", call=call)


@pages.post(f"{_ONE}/delete", action="ccm:acme:delete", ask="delete_acme")
async def delete(call: Call) -> Response:
    try:
        await acme_server.delete_directory(call.services, call.actor, call.param("id"))
    except FORM_PROBLEMS as problem:
        return await _overview(call, problem)
    return see(_ADDRESS, said="deleted", call=call)


# --- one service -----------------------------------------------------------------------------------------------------


async def _service(call: Call) -> AcmeDirectory:
    return await acme_server.get_directory(call.services, call.actor, call.param("id"))


@pages.get(_ONE, action="ccm:acme:get")
async def overview_page(call: Call) -> Response:
    return await _overview(call)


async def _overview(call: Call, problem: Problem | None = None) -> Response:
    service = await _service(call)
    view = {
        "service": service,
        **await _cas(call),
        "recipes": _recipes(service, call.actor.name),
        "root": await _web_root(call),
    }
    return page(call, "acme/overview.html", view, problem)


def _recipes(service: AcmeDirectory, email: str, key: NewEabKey | None = None) -> Sequence[Recipe]:
    """For a name the service takes, as far as that can be told from its rules."""
    plain = [rule for rule in (key.key.allowed_names if key else ()) or service.allowed_names if "/" not in rule]
    first = plain[0].removeprefix("*") if plain else ".example.internal"
    name = f"www{first}" if first.startswith(".") and first != "." else first.strip(".") or "www.example.internal"
    missing = "…" if service.eab_required else ""
    return recipes(
        Asked(
            service.url, (name,), email if "@" in email and " " not in email else "admin@example.internal",
            key.key.id if key else missing, key.secret if key else missing,
        )
    )  # fmt: skip


async def _web_root(call: Call) -> authorities.Authority | None:
    """The root that clients have to trust to reach this server; it may be another one than that of the CA."""
    found = await authorities.public_authorities(call.services)
    return next((ca for ca in found if ca.builtin and ca.kind == "root"), None)


# --- keys ------------------------------------------------------------------------------------------------------------


@pages.get(f"{_ONE}/keys", action="ccm:acme:list")
async def keys_page(call: Call) -> Response:
    return await _keys(call)


async def _keys(call: Call, problem: Problem | None = None, made: NewEabKey | None = None) -> Response:
    service = await _service(call)
    rows = await acme_server.list_eab_keys(
        call.services, call.actor, service.id, after=call.query.optional("after"), limit=PAGE + 1
    )
    lines, next_href = paged(rows, f"{_ADDRESS}/{service.id}/keys")
    view = {
        "service": service,
        "lines": lines,
        "next_href": next_href,
        "projects": await projects_of(call),
        "made": made,
        "recipes": _recipes(service, call.actor.name, made) if made else (),
        "root": await _web_root(call) if made else None,
        "values": call.form.values() if problem else {"project_id": service.project_id},
    }
    return page(call, "acme/keys.html", view, problem)


@pages.post(f"{_ONE}/keys", action="ccm:acme:bind")
async def create_key(call: Call) -> Response:
    """Answered with the page itself: the secret is shown this once and stands in no address."""
    form = call.form
    try:
        days = number_of(form, "days")
        made = await acme_server.create_eab_key(
            call.services, call.actor, call.param("id"), name=form.text("name"),
            project_id=form.optional("project_id"), allowed_names=form.lines("allowed_names"),
            reusable=form.checked("reusable"), expires_at=None if days is None else call.now + timedelta(days=days),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return await _keys(call, problem)
    return await _keys(call, made=made)


@pages.post(f"{_ONE}/keys/{{key}}/revoke", action="ccm:acme:bind", ask="revoke_acme_key")
async def revoke_key(call: Call) -> Response:
    directory_id = call.param("id")
    await acme_server.revoke_eab_key(
        call.services, call.actor, directory_id, call.param("key"), with_accounts=call.form.checked("with_accounts")
    )
    return see(f"{_ADDRESS}/{directory_id}/keys", said="saved", call=call)


# --- accounts --------------------------------------------------------------------------------------------------------


@pages.get(f"{_ONE}/accounts", action="ccm:acme:list")
async def accounts_page(call: Call) -> Response:
    service = await _service(call)
    rows = await acme_server.list_accounts(
        call.services, call.actor, service.id, after=call.query.optional("after"), limit=PAGE + 1
    )
    lines, next_href = paged(rows, f"{_ADDRESS}/{service.id}/accounts")
    return page(call, "acme/accounts.html", {"service": service, "lines": lines, "next_href": next_href})


@pages.post(f"{_ONE}/accounts/{{account}}/deactivate", action="ccm:acme:update", ask="deactivate_acme_account")
async def deactivate(call: Call) -> Response:
    directory_id = call.param("id")
    await acme_server.deactivate_account(call.services, call.actor, directory_id, call.param("account"))
    return see(f"{_ADDRESS}/{directory_id}/accounts", said="saved", call=call)


# --- orders ----------------------------------------------------------------------------------------------------------


@pages.get(f"{_ONE}/orders", action="ccm:acme:list")
async def orders_page(call: Call) -> Response:
    service = await _service(call)
    state, account, q = call.query.text("state"), call.query.optional("account"), call.query.text("q")
    chosen = OrderState(state) if state in tuple(OrderState) else None
    rows = await acme_server.list_orders(
        call.services, call.actor, service.id, acme_account_id=account, state=chosen, search=q,
        after=call.query.optional("after"), limit=PAGE + 1,
    )  # fmt: skip
    lines, next_href = paged(rows, f"{_ADDRESS}/{service.id}/orders", q=q, state=state, account=account or "")
    states = [("", _("any"))] + [(one.value, words.word(words.ACME_ORDER_STATES, one.value)) for one in OrderState]
    view = {
        "service": service, "lines": lines, "next_href": next_href, "states": states, "account": account,
        "filtered": bool(q or chosen or account), "values": {"q": q, "state": chosen.value if chosen else ""},
    }  # fmt: skip
    return page(call, "acme/orders.html", view)


@pages.get(f"{_ONE}/orders/{{order}}", action="ccm:acme:get")
async def order_page(call: Call) -> Response:
    service = await _service(call)
    order = await acme_server.get_order(call.services, call.actor, service.id, call.param("order"))
    return page(call, "acme/order.html", {"service": service, "order": order})
