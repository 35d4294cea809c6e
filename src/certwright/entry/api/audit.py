"""`/api/v1/audit-events`: what was done."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import BaseModel

from certwright.entry.api.base import (
    CALLER,
    Caller,
    Cursor,
    Limit,
    Moment,
    Page,
    Router,
    json_response,
    page_of,
    read_cursor,
)
from certwright.rooms import access, audit

router = Router(prefix="/audit-events", tags=["audit"])

Id = Annotated[str | None, Query(max_length=64)]


class AuditEventOut(BaseModel):
    """`before` and `after` hold the changed fields."""

    id: str
    at: datetime
    account_id: str
    project_id: str | None
    actor_kind: str
    actor_id: str
    actor_name: str
    user_id: str | None
    request_id: str | None
    action: str
    object_type: str
    object_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    reason: str


@router.get("", action="iam:audit:list", response_model=Page[AuditEventOut])
async def list_audit_events(
    call: Caller = CALLER,
    action: Annotated[str | None, Query(max_length=100, description="may end in *")] = None,
    actor_id: Id = None,
    object_type: Id = None,
    object_id: Id = None,
    since: Annotated[Moment | None, Query(description="inclusive")] = None,
    until: Annotated[Moment | None, Query(description="exclusive")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """What was done in the account, newest first."""
    wanted = audit.Filter(action, actor_id, object_type, object_id, since, until)
    rows = await access.people.audit_events(
        call.services, call.actor, wanted, limit=limit + 1, before=read_cursor(cursor)
    )
    return page_of(rows, limit, lambda event: event.id)


@router.get("/{event_id}", action="iam:audit:list", response_model=AuditEventOut)
async def get_audit_event(event_id: str, call: Caller = CALLER) -> Response:
    return json_response(await access.people.audit_event(call.services, call.actor, event_id))
