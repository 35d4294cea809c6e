"""Kinds of certificates a private CA issues: the built-in ones, and those people describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from certwright.entry.console.forms import Form
from certwright.entry.console.pages_authorities import number_of
from certwright.entry.console.web import FORM_PROBLEMS, Call, Pages, page, revision_of, see
from certwright.kernel.problems import Invalid, Problem, not_found
from certwright.platform.i18n import _
from certwright.rooms import authorities
from certwright.rooms.authorities import CaProfile
from certwright.x509.issue import EXTENDED_USAGES, KEY_USAGES

pages = Pages()

_ADDRESS = "/authorities/kinds"
# Only CAs sign certificates and lists.
_USAGES = tuple(word for word in KEY_USAGES if word not in ("key_cert_sign", "crl_sign"))


@pages.get(_ADDRESS, action="ccm:profile:list")
async def list_page(call: Call) -> Response:
    found = await authorities.list_profiles(call.services, call.actor)
    return page(call, "authorities/kinds.html", {"kinds": found, "names": _names()})


def _names() -> dict[str, str]:
    return {
        "server": _("host names and addresses, at least one"),
        "any": _("host names, addresses, e-mail addresses and URIs"),
        "none": _("none, a subject alone"),
    }


async def _kind(call: Call, name: str) -> CaProfile:
    found = await authorities.list_profiles(call.services, call.actor)
    kind = next((one for one in found if one.name == name), None)
    if kind is None:
        raise not_found("profile", name[:80])
    return kind


def _page(
    call: Call, values: Mapping[str, str], kind: CaProfile | None = None, problem: Problem | None = None
) -> Response:
    view = {
        "kind": kind, "values": values, "usages": _USAGES, "purposes": tuple(EXTENDED_USAGES),
        "names": list(_names().items()),
    }  # fmt: skip
    return page(call, "authorities/kind.html", view, problem)


def _values(body: Mapping[str, Any]) -> dict[str, str]:
    """A description as the form's fields."""
    extensions = (
        " ".join((one["oid"], one["value"], *(("critical",) if one["critical"] else ()))) for one in body["extensions"]
    )
    return {
        **{f"usage_{word}": "yes" for word in body["key_usage"]},
        "rsa_key_usage": "\n".join(body["rsa_key_usage"]),
        "extended_key_usage": "\n".join(body["extended_key_usage"]),
        "max_days": str(body["max_days"]),
        "names": body["names"],
        "policies": "\n".join(body["policies"]),
        "extensions": "\n".join(extensions),
        "crl_url": "yes" if body["crl_url"] else "",
        "aia_url": "yes" if body["aia_url"] else "",
    }


def _body(form: Form) -> dict[str, Any]:
    """The form's fields as a description. Raises Invalid `number_invalid`, `profile_extension`."""
    days = number_of(form, "max_days")
    return {
        "key_usage": [word for word in _USAGES if form.checked(f"usage_{word}")],
        "rsa_key_usage": list(form.lines("rsa_key_usage")),
        "extended_key_usage": list(form.lines("extended_key_usage")),
        **({} if days is None else {"max_days": days}),
        "names": form.text("names", "any"),
        "policies": list(form.lines("policies")),
        "extensions": _extensions(form.lines("extensions")),
        "crl_url": form.checked("crl_url"),
        "aia_url": form.checked("aia_url"),
    }


def _extensions(lines: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for line in lines:
        match line.split():
            case [oid, value]:
                found.append({"oid": oid, "value": value, "critical": False})
            case [oid, value, "critical"]:
                found.append({"oid": oid, "value": value, "critical": True})
            case _:
                raise Invalid(
                    "profile_extension", f"{line[:40]!r} isn't an extension.", field="extensions",
                    fix="Write its OID, the base 64 of its DER, and critical where it is, parted by spaces.",
                )  # fmt: skip
    return found


@pages.get(f"{_ADDRESS}/new", action="ccm:profile:create")
async def new_page(call: Call) -> Response:
    values = {"usage_digital_signature": "yes", "names": "any", "crl_url": "yes", "aia_url": "yes", "max_days": "90"}
    if (model := call.query.text("from")) and call.allowed("ccm:profile:list"):
        values = _values((await _kind(call, model)).body)
    return _page(call, values)


@pages.post(f"{_ADDRESS}/new", action="ccm:profile:create")
async def create(call: Call) -> Response:
    form = call.form
    try:
        await authorities.create_profile(call.services, call.actor, form.text("name"), _body(form))
    except FORM_PROBLEMS as problem:
        return _page(call, form.values(), problem=problem)
    return see(_ADDRESS, said="created", call=call)


@pages.get(f"{_ADDRESS}/{{name}}", action="ccm:profile:list")
async def detail_page(call: Call) -> Response:
    kind = await _kind(call, call.param("name"))
    return _page(call, {**_values(kind.body), "revision": str(kind.revision)}, kind)


@pages.post(f"{_ADDRESS}/{{name}}", action="ccm:profile:update")
async def edit(call: Call) -> Response:
    form, name = call.form, call.param("name")
    try:
        await authorities.update_profile(call.services, call.actor, name, _body(form), revision=revision_of(form))
    except FORM_PROBLEMS as problem:
        return _page(call, form.values(), await _kind(call, name), problem)
    return see(_ADDRESS, said="saved", call=call)


@pages.post(f"{_ADDRESS}/{{name}}/delete", action="ccm:profile:delete", ask="delete_kind")
async def delete(call: Call) -> Response:
    await authorities.delete_profile(call.services, call.actor, call.param("name"))
    return see(_ADDRESS, said="deleted", call=call)
