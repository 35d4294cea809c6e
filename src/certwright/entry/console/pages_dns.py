"""DNS connections for automatic validation, the tool that looks records and files up as a CA would, and the ledger of
what was shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from certwright.entry.console.forms import Form
from certwright.entry.console.pages_certificates import ca_name
from certwright.entry.console.web import (
    FORM_PROBLEMS,
    PAGE,
    Call,
    Pages,
    page,
    paged,
    revision_of,
    see,
    whole_number,
)
from certwright.kernel.problems import Problem, Refused, Unavailable
from certwright.platform.i18n import N_, _
from certwright.rooms import validation

pages = Pages()

_DEFAULT = "rfc2136"
# Everything else is called as the option is, which is much what the operator's own pages call it.
_LABELS = {
    "server": N_("Primary DNS server"), "port": N_("Port"), "key_name": N_("TSIG key name"),
    "algorithm": N_("Algorithm"), "provider": N_("Operator"), "access_key": N_("Access key (AK)"),
    "endpoint": N_("Endpoint"), "auth_token": N_("API token"), "auth_username": N_("User name"),
    "auth_password": N_("Password"), "auth_key": N_("API key"), "auth_secret": N_("API secret"),
    "auth_api_key": N_("API key"), "api_key": N_("API key"), "zone_id": N_("Zone id"),
    "auth_key_id": N_("Access key id"), "auth_access_key": N_("Access key id"),
    "auth_access_secret": N_("Secret access key"),
}  # fmt: skip
_SECRETS = {"rfc2136": N_("TSIG secret"), "huawei": N_("Secret key (SK)")}
_PLACEHOLDERS = {"server": "ns1.example.com"}


@pages.get("/dns", action="dns:connection:list")
async def connections(call: Call) -> Response:
    return await _list(call)


async def _list(call: Call, problem: Problem | None = None) -> Response:
    found = list(
        await validation.list_connections(call.services, call.actor, after=call.query.optional("after"), limit=PAGE + 1)
    )
    lines, next_href = paged(found, "/dns")
    titles = {one.key: one.title for one in validation.operators(call.services, call.actor)}
    view = {
        "lines": [(line, titles.get(_key_of(line), line.kind)) for line in lines],
        "labels": {key: _(label) for key, label in _LABELS.items()},
        "next_href": next_href,
    }
    return page(call, "dns.html", view, problem)


def _key_of(connection: validation.DnsConnection) -> str:
    provider = connection.settings.get("provider")
    return f"{connection.kind}.{provider}" if provider else connection.kind


def _operators(call: Call) -> dict[str, validation.DnsOperator]:
    return {one.key: one for one in validation.operators(call.services, call.actor)}


def _label(operator: validation.DnsOperator, field: validation.DnsField) -> str:
    if field.name == "secret":
        return _(_SECRETS.get(operator.kind, N_("Secret")))
    if field.name in _LABELS:
        return _(_LABELS[field.name])
    return field.name.removeprefix("auth_").replace("_", " ").capitalize()


def _edit_view(
    call: Call, operator: validation.DnsOperator, values: Mapping[str, str], action: str, *, new: bool
) -> dict[str, Any]:
    shown = [
        (field, _label(operator, field), _PLACEHOLDERS.get(field.name, ""), _options(field))
        for field in operator.fields
    ]  # fmt: skip
    secrets = [one for one in shown if one[0].secret]
    return {
        "values": {field.name: field.default for field in operator.fields if field.default} | dict(values)
        | {"operator": operator.key},
        "action": action,
        "new": new,
        "title": _("Connect a DNS server") if new else _("Edit the DNS connection"),
        "operator": operator,
        "plain": [one for one in shown if not one[0].secret],
        "secrets": secrets,
        # An operator's API takes one of several ways to sign in; only a lone field is needed for sure.
        "secret_needed": new and len(secrets) == 1,
        "operators": _choices(call) if new else (),
    }  # fmt: skip


def _options(field: validation.DnsField) -> list[tuple[str, str]]:
    nothing = [] if field.default or field.required else [("", "—")]
    return nothing + [(choice, choice) for choice in field.choices] if field.choices else []


def _choices(call: Call) -> list[tuple[str, str]]:
    own = {"rfc2136": _("Own DNS server: dynamic updates (BIND, Knot, PowerDNS …)")}
    found = [(key, own.get(key, one.title)) for key, one in _operators(call).items()]
    return found[:1] + sorted(found[1:], key=lambda pair: pair[1].lower())


def _settings(form: Form, operator: validation.DnsOperator) -> dict[str, Any]:
    settings: dict[str, Any] = dict(operator.settings)
    for field in operator.fields:
        if field.secret or not form.text(field.name):
            continue
        settings[field.name] = whole_number(form, field.name) if field.name == "port" else form.text(field.name)
    return settings


def _secret(form: Form, operator: validation.DnsOperator) -> str:
    return operator.secret({field.name: form.text(field.name) for field in operator.fields if field.secret})


def _typed(form: Form, operator: validation.DnsOperator) -> dict[str, str]:
    """What goes back into the form: everything but secrets."""
    secret = {field.name for field in operator.fields if field.secret}
    return {key: value for key, value in form.values().items() if key not in secret}


def _renamed(operator: validation.DnsOperator) -> dict[str, str]:
    secret = next(field.name for field in operator.fields if field.secret)
    return {f"settings.{field.name}": field.name for field in operator.fields} | {"secret": secret}


def _chosen(call: Call, form: Form) -> validation.DnsOperator:
    known = _operators(call)
    return known.get(form.text("operator")) or known[_DEFAULT]


@pages.get("/dns/new", action="dns:connection:create")
async def new_page(call: Call) -> Response:
    return page(call, "dns_edit.html", _edit_view(call, _chosen(call, call.query), {}, "/dns/new", new=True))


@pages.post("/dns/new", action="dns:connection:create")
async def create(call: Call) -> Response:
    form = call.form
    operator = _chosen(call, form)
    try:
        made = await validation.create_connection(
            call.services, call.actor, name=form.text("name"), kind=operator.kind, zones=form.lines("zones"),
            settings=_settings(form, operator), secret=_secret(form, operator),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        view = _edit_view(call, operator, _typed(form, operator), "/dns/new", new=True)
        return page(call, "dns_edit.html", view, problem, renamed=_renamed(operator))
    return await _test(call, made.id, "created")


async def _test(call: Call, connection_id: str, said: str) -> Response:
    """Whether it works is kept on the connection, so the list says it; a failed test undoes nothing."""
    if call.allowed("dns:connection:update"):
        await validation.check_connection(call.services, call.actor, connection_id)
    return see("/dns", said=said, call=call)


@pages.get("/dns/{id}/edit", action="dns:connection:update")
async def edit_page(call: Call) -> Response:
    found = await validation.get_connection(call.services, call.actor, call.param("id"))
    operator = _operator_of(call, found)
    values = {key: str(value) for key, value in found.settings.items()}
    values |= {"name": found.name, "zones": "\n".join(found.zones), "revision": str(found.revision)}
    return page(call, "dns_edit.html", _edit_view(call, operator, values, f"/dns/{found.id}/edit", new=False))


def _operator_of(call: Call, connection: validation.DnsConnection) -> validation.DnsOperator:
    """Raises Refused `dns_operator_gone`."""
    operator = _operators(call).get(_key_of(connection))
    if operator is None:
        raise Refused(
            "dns_operator_gone", f"{_key_of(connection)} is no operator of this release.",
            fix="Remove the connection and make another one.",
        )  # fmt: skip
    return operator


@pages.post("/dns/{id}/edit", action="dns:connection:update")
async def edit(call: Call) -> Response:
    form, connection_id = call.form, call.param("id")
    operator = _operator_of(call, await validation.get_connection(call.services, call.actor, connection_id))
    try:
        await validation.update_connection(
            call.services, call.actor, connection_id, revision=revision_of(form), name=form.text("name"),
            zones=form.lines("zones"), settings=_settings(form, operator), secret=_secret(form, operator) or None,
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        view = _edit_view(call, operator, _typed(form, operator), f"/dns/{connection_id}/edit", new=False)
        return page(call, "dns_edit.html", view, problem, renamed=_renamed(operator))
    return await _test(call, connection_id, "saved")


@pages.post("/dns/{id}/check", action="dns:connection:update")
async def check(call: Call) -> Response:
    try:
        return await _test(call, call.param("id"), "checked")
    except (*FORM_PROBLEMS, Unavailable) as problem:
        return await _list(call, problem)


@pages.post("/dns/{id}/delete", action="dns:connection:delete", ask="remove_connection")
async def delete(call: Call) -> Response:
    try:
        await validation.delete_connection(call.services, call.actor, call.param("id"))
    except FORM_PROBLEMS as problem:
        return await _list(call, problem)
    return see("/dns", said="removed", call=call)


# --- the check-it tool ------------------------------------------------------------------------------------------------


@pages.get("/dns/check", action="scm:validation:check")
async def check_page(call: Call) -> Response:
    return page(call, "dns_check.html", _check_view({}, None))


def _check_view(values: Mapping[str, str], found: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"values": values, "found": found, "types": [("TXT", "TXT"), ("CNAME", "CNAME")]}


@pages.post("/dns/check", action="scm:validation:check")
async def look(call: Call) -> Response:
    form = call.form
    try:
        found = await _look(call, form)
    except (*FORM_PROBLEMS, Unavailable) as problem:
        return page(call, "dns_check.html", _check_view(form.values(), None), problem)
    return page(call, "dns_check.html", _check_view(form.values(), found))


async def _look(call: Call, form: Form) -> Mapping[str, Any]:
    services, actor = call.services, call.actor
    if form.text("what") == "file":
        said = await validation.check_file(
            services, actor, host=form.text("host"), file_name=form.text("file_name"), content=form.text("content")
        )
    elif form.text("what") == "caa":
        verdict = await validation.check_caa(
            services, actor, name=form.text("caa_name"), ca_identifiers=form.lines("ca_identifiers")
        )
        return {"ok": verdict.allowed, "message": verdict.sentence, "fix": verdict.fix, "lines": verdict.found}
    else:
        said = await validation.check_dns(
            services, actor, name=form.text("record_name"), rdtype=form.text("type") or "TXT",
            value=form.text("value").strip('"'), ca_identifiers=form.lines("record_ca"),
        )  # fmt: skip
    return {
        "ok": said.ok, "message": said.sentence, "fix": said.fix, "looks": _looks(said.seen),
        "attempts": said.seen.get("attempts", ()),
    }  # fmt: skip


def _looks(seen: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    groups = (("authoritative", N_("The zone’s servers")), ("resolvers", N_("Resolvers")))
    return [{"group": _(title), **one} for group, title in groups for one in seen.get(group, ())]


# --- the ledger -------------------------------------------------------------------------------------------------------


@pages.get("/dns/evidence", action="scm:evidence:list")
async def ledger(call: Call) -> Response:
    domain = call.query.text("domain")
    found = list(
        await validation.list_evidence(
            call.services, call.actor, domain=domain.lower() or None, after=call.query.optional("after"), limit=PAGE + 1
        )
    )
    lines, next_href = paged(found, "/dns/evidence" + (f"?domain={quote(domain)}" if domain else ""))
    names = {ca: await ca_name(call, ca) for ca in {line.ca for line in lines}}
    now = call.services.clock.now()
    view = {
        "lines": [(line, names[line.ca], line.reuse_until > now) for line in lines],
        "values": {"domain": domain}, "next_href": next_href,
    }  # fmt: skip
    return page(call, "dns_evidence.html", view)
