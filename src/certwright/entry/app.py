"""The one web application: API, public files, console, ACME server."""

from __future__ import annotations

from importlib import import_module

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


def load() -> None:
    """What serving loads sooner or later, and the routes, which are made once and belong to no application: for
    processes that will share it."""
    for later in ("anyio._backends._asyncio", "uvicorn.protocols.http.httptools_impl", "uvicorn.lifespan.off"):
        import_module(later)
    create_app(None)  # type: ignore[arg-type]  # its routes need no services
