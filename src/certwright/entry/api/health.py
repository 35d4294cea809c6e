"""Is it alive, is it ready, what does it count: for load balancers and Prometheus."""

from __future__ import annotations

from fastapi import Request, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from certwright.entry.api.base import CALLER, PUBLIC, Caller, Router, json_response, services_of
from certwright.kernel.problems import Unavailable
from certwright.platform.migrations import is_current
from certwright.rooms import watch

router = Router(tags=["health"])


class Health(BaseModel):
    status: str


@router.get("/healthz", action=PUBLIC, response_model=Health)
async def healthz() -> Response:
    """The process answers; says nothing of the database, so that an outage there doesn't have processes killed."""
    return json_response({"status": "ok"})


@router.get("/readyz", action=PUBLIC, response_model=Health)
async def readyz(request: Request) -> Response:
    """The database answers and has this release's schema; otherwise 503."""
    if not await is_current(services_of(request).db):
        raise Unavailable(
            "schema_outdated", "The database doesn't have this release's schema.", fix="Run certwright migrate."
        )
    return json_response({"status": "ok"})


@router.get(
    "/metrics",
    action="iam:metrics:read",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text"}},
)
async def metrics(call: Caller = CALLER) -> Response:
    """Counters of this process, and what the endpoints of the caller's account served.

    Behind a proxy on this machine everybody comes from loopback: a token is needed.
    """
    await watch.refresh_metrics(call.services)
    return Response(watch.metrics_text(call.actor), media_type=CONTENT_TYPE_LATEST)
