"""CAs people added: ACME servers and CAs that sell over an ordering interface."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from starlette.responses import Response

from certwright.entry.console import words
from certwright.entry.console.forms import Form
from certwright.entry.console.web import (
    FORM_PROBLEMS,
    PAGE,
    Call,
    Pages,
    changed,
    page,
    paged,
    revision_of,
    see,
    whole_number,
)
from certwright.kernel.problems import Invalid, NotFound, Problem, Unavailable
from certwright.rooms import access, cas
from certwright.rooms.cas import Ca, CaKind, Limit, Use

pages = Pages()

_SECRETS = ("eab_key", "api_key")
_MET = (*FORM_PROBLEMS, NotFound, Unavailable)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LIMIT = re.compile(r"([0-9]{1,7}) */ *([0-9]{1,7}) *([smhd])")
_RENAMED = {f"limits.{use.value}": f"limit_{use.value}" for use in Use} | {
    f"settings.{name}": name for name in ("years", "payment_method", "dns_record", "cname_target", "caa_identifiers")
} | {"settings": "products"}  # fmt: skip


# --- the list --------------------------------------------------------------------------------------------------------


@pages.get("/cas", action="scm:ca:list")
async def list_page(call: Call) -> Response:
    after = call.query.optional("after")
    found = await cas.list_cas(call.services, call.actor, after=after, limit=PAGE + 1)
    lines, next_href = paged(found, "/cas")
    view = {"lines": lines, "next_href": next_href, "first_href": "/cas" if after is not None else ""}
    return page(call, "cas/list.html", view)


# --- adding and editing ----------------------------------------------------------------------------------------------


async def _edit_view(call: Call, kind: str, values: Mapping[str, str], ca: Ca | None) -> dict[str, Any]:
    projects = []
    if ca is None and call.allowed("iam:project:list"):
        found = await access.people.list_projects(call.services, call.actor, limit=100)
        projects = [(p.id, p.name) for p in sorted(found, key=lambda p: not p.is_default)]
    return {
        "kind": kind,
        "ca": ca,
        "values": values,
        "projects": projects,
        "action": f"/cas/{ca.id}/edit" if ca else "/cas/new",
        "limits": [
            (f"limit_{use.value}", words.word(words.CA_LIMITS, use), words.detail(words.CA_LIMITS, use)) for use in Use
        ],
        "profiles": sorted(ca.offers.profiles.items()) if ca and ca.offers else [],
    }


def _typed(form: Form) -> dict[str, str]:
    """What goes back into the form: everything but the secrets."""
    return {key: value for key, value in form.values().items() if key not in _SECRETS}


def _spelt(limit: Limit) -> str:
    """`300/3h`, in the largest unit that comes out even."""
    seconds = int(limit.period.total_seconds())
    unit = next(name for name, size in reversed(_UNITS.items()) if seconds % size == 0)
    return f"{limit.count}/{seconds // _UNITS[unit]}{unit}"


def _limits(form: Form) -> dict[str, dict[str, int]]:
    """Raises Invalid `ca_limit_invalid` for what isn't written as 300/3h."""
    found = {}
    for use in Use:
        text = form.text(f"limit_{use.value}")
        if not text:
            continue
        match = _LIMIT.fullmatch(text)
        if match is None:
            raise Invalid(
                "ca_limit_invalid", "A limit is a count of 1 or more in 1 second to 31 days.",
                field=f"limits.{use.value}", fix="Write it as 300/3h.",
            )  # fmt: skip
        found[use.value] = {"count": int(match[1]), "seconds": int(match[2]) * _UNITS[match[3]]}
    return found


def _settings(form: Form) -> dict[str, Any]:
    """Of a CA that sells. Raises Invalid `ca_product_line`, `number_invalid`."""
    products = {}
    for line in form.text("products").splitlines():
        if not line.strip():
            continue
        place, colon, product = line.partition(":")
        if not colon:
            raise Invalid(
                "ca_product_line", f"{line.strip()[:60]!r} names no product.", field="products",
                fix="Write one per line, such as ov/single: ssl_basic.",
            )  # fmt: skip
        products[place.strip()] = product.strip()
    return {
        "products": products,
        "years": whole_number(form, "years"),
        "payment_method": form.text("payment_method"),
        "skip_approval": form.checked("skip_approval"),
        "dns_record": form.text("dns_record"),
        "cname_target": form.text("cname_target"),
        "caa_identifiers": list(form.lines("caa_identifiers")),
    }


def _shop_values(settings: Mapping[str, Any]) -> dict[str, str]:
    return {
        "products": "\n".join(f"{place}: {product}" for place, product in settings["products"].items()),
        "years": str(settings["years"]),
        "payment_method": settings["payment_method"],
        "skip_approval": "yes" if settings["skip_approval"] else "",
        "dns_record": settings["dns_record"],
        "cname_target": settings["cname_target"],
        "caa_identifiers": "\n".join(settings["caa_identifiers"]),
    }


def _removed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """Products whose line was taken out are given as empty texts, which is how the room hears of it."""
    return {**{place: "" for place in before if place not in after}, **after}


def _kind(text: str) -> str:
    return text if text in set(CaKind) else CaKind.ACME.value


@pages.get("/cas/new", action="scm:ca:create")
async def new_page(call: Call) -> Response:
    kind = _kind(call.query.text("kind"))
    values = {f"limit_{use.value}": _spelt(limit) for use, limit in cas.DEFAULT_LIMITS.items()} | {"public": "yes"}
    if kind == CaKind.CERTCENTRAL:
        values |= _shop_values(cas.DEFAULT_SHOP)
    return page(call, "cas/edit.html", await _edit_view(call, kind, values, None))


@pages.post("/cas/new", action="scm:ca:create")
async def create(call: Call) -> Response:
    form = call.form
    kind = _kind(form.text("kind"))
    shop = kind == CaKind.CERTCENTRAL
    try:
        settings = _settings(form) if shop else None
        if settings is not None:
            settings["products"] = _removed(cas.DEFAULT_SHOP["products"], settings["products"])
        made = await cas.add_ca(
            call.services, call.actor, name=form.text("name"), kind=kind, directory_url=form.text("directory_url"),
            public=form.checked("public"), contacts=form.lines("contacts"), agree_terms=form.checked("agree_terms"),
            profile=form.optional("profile"), preferred_chain=form.optional("preferred_chain"),
            root_pem=form.optional("root_pem"), eab_kid=form.optional("eab_kid"), eab_key=form.optional("eab_key"),
            api_key=form.optional("api_key"), settings=settings, limits=_limits(form),
            project_id=form.optional("project_id"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        view = await _edit_view(call, kind, _typed(form), None)
        return page(call, "cas/edit.html", view, problem, renamed=_RENAMED)
    return see(f"/cas/{made.id}", said="ca_added", call=call)


@pages.get("/cas/{id}/edit", action="scm:ca:update")
async def edit_page(call: Call) -> Response:
    ca = await cas.get_ca(call.services, call.actor, call.param("id"))
    values = {f"limit_{use.value}": _spelt(limit) for use, limit in ca.limits.items()} | {
        "name": ca.name, "directory_url": ca.directory_url, "public": "yes" if ca.public else "",
        "contacts": "\n".join(ca.contacts), "agree_terms": "yes" if ca.terms_agreed_at else "",
        "profile": ca.profile or "", "preferred_chain": ca.preferred_chain or "", "root_pem": ca.root_pem or "",
        "eab_kid": ca.eab_kid or "", "revision": str(ca.revision),
    }  # fmt: skip
    if ca.settings is not None:
        values |= _shop_values(ca.settings)
    return page(call, "cas/edit.html", await _edit_view(call, ca.kind, values, ca))


@pages.post("/cas/{id}/edit", action="scm:ca:update")
async def edit(call: Call) -> Response:
    form = call.form
    ca = await cas.get_ca(call.services, call.actor, call.param("id"))
    try:
        settings = _settings(form) if ca.settings is not None else None
        if settings is not None and ca.settings is not None:
            settings["products"] = _removed(ca.settings["products"], settings["products"])
        eab = form.optional("eab_key") is not None or form.text("eab_kid") != (ca.eab_kid or "")
        agreed = form.checked("agree_terms")
        await cas.update_ca(
            call.services, call.actor, ca.id, revision=revision_of(form), name=form.text("name"),
            public=form.checked("public"), contacts=form.lines("contacts"),
            agree_terms=agreed if agreed != (ca.terms_agreed_at is not None) else None,
            profile=form.text("profile"), preferred_chain=form.text("preferred_chain"), root_pem=form.text("root_pem"),
            eab_kid=form.text("eab_kid") if eab else None, eab_key=form.text("eab_key") if eab else None,
            api_key=form.optional("api_key"), settings=settings, limits=_limits(form),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        view = await _edit_view(call, ca.kind, _typed(form), ca)
        return page(call, "cas/edit.html", view, problem, renamed=_RENAMED)
    return see(f"/cas/{ca.id}", said="saved", call=call)


# --- one CA ----------------------------------------------------------------------------------------------------------


@pages.get("/cas/{id}", action="scm:ca:get")
async def detail_page(call: Call) -> Response:
    return await _detail(call)


async def _detail(call: Call, problem: Problem | None = None) -> Response:
    ca = await cas.get_ca(call.services, call.actor, call.param("id"))
    used = await cas.limits_used(call.services, call.actor, ca.id)
    view = {
        "ca": ca,
        "limits": [
            (words.word(words.CA_LIMITS, use), limit.count, _period(limit.period), *used.get(use, ("", 0)))
            for use in Use
            if (limit := ca.limits.get(use)) is not None
        ],
        "values": {},
    }
    return page(call, "cas/detail.html", view, problem)


def _period(period: timedelta) -> str:
    return _spelt(Limit(1, period)).partition("/")[2]


@pages.post("/cas/{id}/test", action="scm:ca:update")
async def check(call: Call) -> Response:
    """What went wrong is kept on the CA and shown on its page."""
    ca_id = call.param("id")
    doing = cas.check_ca(call.services, call.actor, ca_id)
    return await changed(call, doing, _detail, f"/cas/{ca_id}", "checked", _MET)


@pages.post("/cas/{id}/change-key", action="scm:ca:update", ask="change_ca_key")
async def change_key(call: Call) -> Response:
    ca_id = call.param("id")
    doing = cas.change_key(call.services, call.actor, ca_id)
    return await changed(call, doing, _detail, f"/cas/{ca_id}", "key_changed", _MET)


@pages.post("/cas/{id}/new-account", action="scm:ca:update", ask="new_ca_account")
async def new_account(call: Call) -> Response:
    ca_id = call.param("id")
    doing = cas.new_account(call.services, call.actor, ca_id)
    return await changed(call, doing, _detail, f"/cas/{ca_id}", "account_renewed", _MET)


@pages.post("/cas/{id}/delete", action="scm:ca:delete", ask="delete_ca")
async def delete(call: Call) -> Response:
    doing = cas.delete_ca(
        call.services, call.actor, call.param("id"), deactivate=call.form.checked("deactivate")
    )  # fmt: skip
    return await changed(call, doing, _detail, "/cas", "removed", _MET)
