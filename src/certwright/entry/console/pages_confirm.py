"""What mailed links lead to: the one to a domain's mailboxes, and the one to the applicant of an OV or EV certificate
that is to be revoked. Looking changes nothing, confirming does. Whoever reads such a mail needs no account here; the
link is their key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.responses import RedirectResponse, Response

from certwright.entry.api.base import PUBLIC
from certwright.entry.console.web import FORM_PROBLEMS, Call, Pages, page
from certwright.kernel.problems import Problem
from certwright.platform.services import Services
from certwright.rooms import certificates, validation

pages = Pages()

_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class MailedLink:
    """One kind of link: the page it leads to, the cookie that keeps its secret meanwhile, and what the room does."""

    path: str
    cookie: str
    template: str
    look: Callable[[Services, str], Awaitable[object]]
    confirm: Callable[[Services, str], Awaitable[object]]

    async def looked_at(self, call: Call) -> Response:
        secret = call.query.text("token")
        if secret:
            # Out of the address at once. Lax: the way here begins on the pages of somebody's webmail.
            response = RedirectResponse(self.path, status_code=303)
            response.set_cookie(
                self.cookie, secret[:200], max_age=_SECONDS, path="/", secure=True, httponly=True, samesite="lax"
            )
            return response
        try:
            return self._shown(call, await self.look(call.services, self._secret(call)))
        except FORM_PROBLEMS as problem:
            return self._shown(call, None, problem)

    async def confirmed(self, call: Call) -> Response:
        try:
            link = await self.confirm(call.services, self._secret(call))
        except FORM_PROBLEMS as problem:
            return self._shown(call, None, problem)
        response = self._shown(call, link, confirmed=True)
        response.delete_cookie(self.cookie, path="/", secure=True, httponly=True)
        return response

    def _secret(self, call: Call) -> str:
        return call.request.cookies.get(self.cookie, "")

    def _shown(
        self, call: Call, link: object | None, problem: Problem | None = None, *, confirmed: bool = False
    ) -> Response:
        # Looking without a link that is good finds nothing; a confirmation that fails says why by its status.
        status = 404 if problem is not None and call.request.method == "GET" else None
        return page(call, self.template, {"link": link, "confirmed": confirmed}, problem, status=status)


for _link in (
    MailedLink(
        "/confirm-domain", "__Host-certwright-domain", "confirm_domain.html", validation.look_link, validation.confirm
    ),
    MailedLink(
        "/confirm-revocation", "__Host-certwright-revocation", "confirm_revocation.html",
        certificates.look_revocation_link, certificates.confirm_revocation,
    ),
):  # fmt: skip
    pages.get(_link.path, action=PUBLIC)(_link.looked_at)
    pages.post(_link.path, action=PUBLIC)(_link.confirmed)
