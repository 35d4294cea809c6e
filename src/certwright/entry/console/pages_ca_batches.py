"""Several certificates from a private CA at once: a table or requests, and the kit for mutual TLS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from certwright.entry.console import words
from certwright.entry.console.forms import Form
from certwright.entry.console.pages_authorities import kinds_of, number_of, projects_of, usual_kind
from certwright.entry.console.pages_toolbox import several
from certwright.entry.console.web import FORM_PROBLEMS, Call, Pages, page
from certwright.entry.issuing_table import COLUMNS, Asked, read_batch
from certwright.kernel.problems import Problem
from certwright.rooms import authorities
from certwright.rooms.authorities import CaState
from certwright.x509.issue import Subject
from certwright.x509.keys import KeyAlgorithm

pages = Pages()

_MOST = 1000
_RENAMED = {"table": "content", "requests": "content", "subject.common_name": "common_name"}


# --- a table, or requests --------------------------------------------------------------------------------------------


@pages.get("/authorities/{id}/batch", action="ccm:cert:issue")
async def batch_page(call: Call) -> Response:
    return await _batch(call)


async def _batch(call: Call, problem: Problem | None = None, lines: list[dict[str, Any]] | None = None) -> Response:
    ca = await authorities.get_authority(call.services, call.actor, call.param("id"))
    view = {
        "ca": ca, "lines": lines, "made": sum(line["leaf"] is not None for line in lines or ()), "columns": COLUMNS,
        "kinds": await kinds_of(call), "projects": await projects_of(call),
        "values": {"profile": usual_kind(ca), "project_id": ca.project_id} | call.form.values(),
    }  # fmt: skip
    return page(call, "authorities/batch.html", view, problem, renamed=_RENAMED)


@pages.post("/authorities/{id}/batch", action="ccm:cert:issue", files=_MOST)
async def issue_batch(call: Call) -> Response:
    """Answered with the page itself: each line has its own answer, and nothing of it stands in an address."""
    form = call.form
    try:
        days = number_of(form, "days")
        asked = read_batch("\n".join(content.decode("utf-8", "replace") for content in several(form)))
        wanted = [_request(one, form, days) for one in asked if one.problem is None]
        found: list[authorities.Leaf | Problem] = []
        if wanted:
            found = await authorities.issue_leaves(
                call.services, call.actor, call.param("id"), wanted, project_id=form.optional("project_id")
            )
    except FORM_PROBLEMS as problem:
        return await _batch(call, problem)
    answers = iter(found)
    return await _batch(call, lines=[_answered(one, one.problem or next(answers)) for one in asked])


def _request(one: Asked, form: Form, days: int | None) -> authorities.LeafRequest:
    return authorities.LeafRequest(
        profile=one.profile or form.text("profile", "client"), names=one.names, subject=Subject(**one.subject),
        key_algorithm=one.key_algorithm or KeyAlgorithm.EC_P256.value, csr=one.csr,
        days=days if one.days is None else one.days,
    )  # fmt: skip


def _answered(one: Asked, answer: authorities.Leaf | Problem) -> dict[str, Any]:
    failed = isinstance(answer, Problem)
    return {
        "number": one.number,
        "name": next(iter(one.names), "") or one.subject.get("common_name") or "",
        "leaf": None if failed else answer,
        "problem": answer if failed else None,
    }


# --- mutual TLS in one step ------------------------------------------------------------------------------------------


@pages.get("/authorities/kit", action="ccm:cert:issue")
async def kit_page(call: Call) -> Response:
    ca_id = call.query.text("ca")
    return await _kit(call, {"place": "there" if ca_id else "new", "authority_id": ca_id})


async def _kit(call: Call, values: Mapping[str, str], problem: Problem | None = None) -> Response:
    found = await authorities.list_authorities(call.services, call.actor) if call.allowed("ccm:ca:list") else []
    cas = [(ca.id, ca.name) for ca in found if ca.signs_leaves and ca.state is CaState.ACTIVE and _for_clients(ca)]
    view = {
        "cas": cas, "may_make": call.allowed("ccm:ca:create"), "values": values, "projects": await projects_of(call),
        "key_algorithms": [(code.value, words.plain(words.KEY_ALGORITHMS, code)) for code in KeyAlgorithm],
    }  # fmt: skip
    return page(call, "authorities/kit.html", view, problem, renamed=_RENAMED | {"name": "ca_name"})


def _for_clients(ca: authorities.Authority) -> bool:
    return ca.purposes is None or "client_auth" in ca.purposes


@pages.post("/authorities/kit", action="ccm:cert:issue")
async def kit(call: Call) -> Response:
    """By POST only, as every private key is fetched."""
    form = call.form
    there = form.text("place") == "there"
    try:
        name, content = await authorities.client_kit(
            call.services, call.actor,
            authorities.LeafRequest(
                profile="client", names=form.lines("names"), subject=Subject(common_name=form.optional("common_name")),
                key_algorithm=form.text("key_algorithm", KeyAlgorithm.EC_P256.value), days=number_of(form, "days"),
            ),
            authority_id=form.text("authority_id") if there else None, ca_name=form.text("ca_name"),
            project_id=form.optional("project_id"), legacy=form.checked("legacy"),
        )  # fmt: skip
    except FORM_PROBLEMS as problem:
        return await _kit(call, form.values(), problem)
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return Response(content, media_type="application/zip", headers=headers)
