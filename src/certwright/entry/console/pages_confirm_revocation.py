"""What the link mailed to an applicant leads to when an OV or EV certificate is to be revoked: looking at it changes
nothing, confirming does. The link is their key; they need no account here."""

from __future__ import annotations

from starlette.responses import RedirectResponse, Response

from certwright.entry.api.base import PUBLIC
from certwright.entry.console.web import FORM_PROBLEMS, Call, Pages, page
from certwright.kernel.problems import Problem
from certwright.rooms import certificates

pages = Pages()

_COOKIE = "__Host-certwright-revocation"
_SECONDS = 1800


@pages.get("/confirm-revocation", action=PUBLIC)
async def look(call: Call) -> Response:
    secret = call.query.text("token")
    if secret:
        # Out of the address at once. Lax: the way here begins on the pages of somebody's webmail.
        response = RedirectResponse("/confirm-revocation", status_code=303)
        response.set_cookie(
            _COOKIE, secret[:200], max_age=_SECONDS, path="/", secure=True, httponly=True, samesite="lax"
        )
        return response
    try:
        link = await certificates.look_revocation_link(call.services, _secret(call))
    except FORM_PROBLEMS as problem:
        return _shown(call, None, problem)
    return _shown(call, link)


@pages.post("/confirm-revocation", action=PUBLIC)
async def confirm(call: Call) -> Response:
    try:
        link = await certificates.confirm_revocation(call.services, _secret(call))
    except FORM_PROBLEMS as problem:
        return _shown(call, None, problem)
    response = _shown(call, link, confirmed=True)
    response.delete_cookie(_COOKIE, path="/", secure=True, httponly=True)
    return response


def _secret(call: Call) -> str:
    return call.request.cookies.get(_COOKIE, "")


def _shown(
    call: Call, link: certificates.MailedRevocation | None, problem: Problem | None = None, *, confirmed: bool = False
) -> Response:
    # Looking without a link that is good finds nothing; a confirmation that fails says why by its status.
    status = 404 if problem is not None and call.request.method == "GET" else None
    return page(call, "confirm_revocation.html", {"link": link, "confirmed": confirmed}, problem, status=status)
