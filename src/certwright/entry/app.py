"""The one web application: API, public files, console, ACME server."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware import Middleware

from certwright.entry import acme, public
from certwright.entry.api import create_app as create_api
from certwright.entry.api.base import add_routes
from certwright.entry.console import add_console
from certwright.entry.forwarded import Forwarded
from certwright.platform.services import Services


def create_app(services: Services) -> FastAPI:
    app = create_api(services)
    add_routes(app, public.router)
    add_console(app)
    if services:
        # Innermost, so that it runs inside the frame around every request.
        app.user_middleware.append(Middleware(acme.AcmeDoor, services=services))
    if services and services.settings.trusted_proxies:
        # Added last, so that everything else runs inside it.
        app.add_middleware(Forwarded, trusted=services.settings.trusted_proxies)
    return app
