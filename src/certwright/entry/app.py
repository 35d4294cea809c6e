"""The one web application: API, public files, console."""

from __future__ import annotations

from fastapi import FastAPI

from certwright.entry import public
from certwright.entry.api import create_app as create_api
from certwright.entry.api.base import add_routes
from certwright.entry.console import add_console
from certwright.entry.forwarded import Forwarded
from certwright.platform.services import Services


def create_app(services: Services) -> FastAPI:
    app = create_api(services)
    add_routes(app, public.router)
    add_console(app)
    if services and services.settings.trusted_proxies:
        # Added last, so that everything else runs inside it.
        app.add_middleware(Forwarded, trusted=services.settings.trusted_proxies)
    return app
