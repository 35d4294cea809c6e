"""The one web application: API, public files, console."""

from __future__ import annotations

from fastapi import FastAPI

from certwright.entry import public
from certwright.entry.api import create_app as create_api
from certwright.entry.api.base import add_routes
from certwright.platform.services import Services


def create_app(services: Services) -> FastAPI:
    app = create_api(services)
    add_routes(app, public.router)
    return app
