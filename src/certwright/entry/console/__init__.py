"""The web console: server-rendered pages over the rooms' doors, smoothed by htmx where a script runs."""

from __future__ import annotations

from collections.abc import Awaitable

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from certwright.entry.api.base import PUBLIC
from certwright.entry.console import (
    pages_access,
    pages_acme_server,
    pages_audit,
    pages_authorities,
    pages_billing,
    pages_ca_batches,
    pages_ca_kinds,
    pages_ca_policies,
    pages_cas,
    pages_certificate_list,
    pages_certificates,
    pages_confirm,
    pages_csrs,
    pages_deployment,
    pages_dns,
    pages_guide,
    pages_home,
    pages_list_storage,
    pages_organisations,
    pages_renewal,
    pages_settings,
    pages_start,
    pages_toolbox,
    pages_uploads,
    pages_watch,
)
from certwright.entry.console.web import SECURITY_HEADERS, ActionRoute, page_above, refusal_page, routes, static
from certwright.platform.services import Services

__all__ = ["add_console"]

_ROOMS = (
    pages_start,
    pages_home,
    # Before the pages of one certificate: /certificates/bulk is none called bulk.
    pages_certificate_list,
    pages_uploads,
    pages_certificates,
    pages_confirm,
    pages_csrs,
    pages_organisations,
    pages_renewal,
    pages_deployment,
    pages_watch,
    pages_dns,
    # Before the pages of one CA: /authorities/policies is none called policies.
    pages_ca_policies,
    pages_ca_kinds,
    pages_ca_batches,
    pages_acme_server,
    pages_list_storage,
    pages_authorities,
    pages_cas,
    pages_billing,
    pages_access,
    pages_audit,
    pages_settings,
    pages_toolbox,
    pages_guide,
)


def add_console(app: FastAPI) -> None:
    """Add the console's pages and static files to an application whose `state.services` is set.

    Every page is a `web.ActionRoute` with the `action` it requires. They are routes of the application itself and not
    a mount at `/`, which would swallow every other unknown address. What the router refuses (unknown address, wrong
    method) becomes a page for those who ask for one; everybody else gets the answer they got before.
    """
    services: Services = app.state.services
    app.router.routes.extend(route for room in _ROOMS for route in routes(room.pages, services))
    app.router.routes.append(ActionRoute("/static/{name:path}", static, "GET", PUBLIC))
    before = app.exception_handlers[HTTPException]

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
            answered = before(request, error)
            return await answered if isinstance(answered, Awaitable) else answered
        if error.status_code == 405 and request.method == "GET":
            # The address of a POST, opened again from the address bar or a bookmark.
            return RedirectResponse(page_above(request), status_code=303, headers=SECURITY_HEADERS)
        return refusal_page(request, services, error.status_code)

    app.add_exception_handler(HTTPException, refused)
