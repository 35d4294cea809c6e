"""What a link mailed to a domain's mailboxes leads to: looking at it changes nothing, confirming does. Whoever reads
such a mailbox has no account here; the link is their key."""

from __future__ import annotations

from starlette.responses import RedirectResponse, Response

from certwright.entry.api.base import PUBLIC
from certwright.entry.console.web import FORM_PROBLEMS, Call, Pages, page
from certwright.kernel.problems import Problem
from certwright.rooms import validation

pages = Pages()

_COOKIE = "__Host-certwright-domain"
_SECONDS = 1800


@pages.get("/confirm-domain", action=PUBLIC)
async def look(call: Call) -> Response:
    secret = call.query.text("token")
    if secret:
        # Out of the address at once. Lax: the way here begins on the pages of somebody's webmail.
        response = RedirectResponse("/confirm-domain", status_code=303)
        response.set_cookie(
            _COOKIE, secret[:200], max_age=_SECONDS, path="/", secure=True, httponly=True, samesite="lax"
        )
        return response
    try:
        link = await validation.look_link(call.services, _secret(call))
    except FORM_PROBLEMS as problem:
        return _shown(call, None, problem)
    return _shown(call, link)


@pages.post("/confirm-domain", action=PUBLIC)
async def confirm(call: Call) -> Response:
    try:
        link = await validation.confirm(call.services, _secret(call))
    except FORM_PROBLEMS as problem:
        return _shown(call, None, problem)
    response = _shown(call, link, confirmed=True)
    response.delete_cookie(_COOKIE, path="/", secure=True, httponly=True)
    return response


def _secret(call: Call) -> str:
    return call.request.cookies.get(_COOKIE, "")


def _shown(
    call: Call, link: validation.MailedLink | None, problem: Problem | None = None, *, confirmed: bool = False
) -> Response:
    # Looking without a link that is good finds nothing; a confirmation that fails says why by its status.
    status = 404 if problem is not None and call.request.method == "GET" else None
    return page(call, "confirm_domain.html", {"link": link, "confirmed": confirmed}, problem, status=status)
