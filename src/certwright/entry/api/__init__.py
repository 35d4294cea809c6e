"""The REST API; `entry.app` adds the console and the public files to it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI, Request, Response

from certwright.entry.api import (
    accounts,
    acme_server,
    audit,
    authorities,
    billing,
    ca_policies,
    cas,
    certificates,
    csrs,
    deployment,
    health,
    list_storage,
    notify,
    organisations,
    renewal,
    tools_x509,
    uploads,
    validation,
    watch,
)
from certwright.entry.api.base import PUBLIC, Router, add_routes, install_problem_handlers, json_response
from certwright.entry.api.frame import Frame
from certwright.entry.api.openapi import true_openapi
from certwright.platform.services import Services

API_PREFIX = "/api/v1"

_PARTS = (
    accounts, audit, certificates, csrs, authorities, ca_policies, list_storage, acme_server, cas, validation,
    organisations, renewal, deployment, watch, notify, billing, uploads, tools_x509,
)  # fmt: skip
_ROUTERS = tuple(part.router for part in _PARTS)
_description = Router(tags=["description"])


@_description.get("/openapi.json", action=PUBLIC, response_class=Response, include_in_schema=False)
async def describe(request: Request) -> Response:
    """This API's description (OpenAPI 3.1)."""
    return json_response(request.app.openapi())


def _release() -> str:
    try:
        return version("certwright")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0"


def create_app(services: Services) -> FastAPI:
    """The application on these services. `/v1`, `/v2`, `/v3`, `/v5` and `POST /` stay free for vendor doors."""
    app = FastAPI(
        title="Certwright",
        version=_release(),
        description="Order, validate, issue, deploy, watch and renew TLS certificates.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        # Otherwise it looks for a provider with every request; ours are counted in entry.api.frame.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.services = services
    app.openapi = lambda: true_openapi(app)  # type: ignore[method-assign]  # FastAPI's own way to replace it
    install_problem_handlers(app)
    app.add_middleware(Frame, hsts=bool(services and services.settings.public_url))
    add_routes(app, health.router)
    for router in _ROUTERS:
        add_routes(app, router, API_PREFIX)
    add_routes(app, _description, API_PREFIX)
    # What is asked thousands of times a second is found first; to rule out a hundred routes takes as long as to sign.
    app.router.routes.sort(key=lambda route: not getattr(route, "hot", False))
    return app
