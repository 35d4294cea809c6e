"""`/api/v1/recipients` and `/messages`: who is told, and what became of each message."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from certwright.entry.api.base import (
    CALLER,
    Caller,
    Cursor,
    Limit,
    Page,
    Router,
    check_if_match,
    etag,
    json_response,
    page_of,
    read_cursor,
)
from certwright.rooms import notify

router = Router(tags=["messages"])


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RecipientIn(_In):
    """Somebody to be told about alarms and expiry. A code is sent to the address first."""

    name: str = Field(max_length=400)
    email: str = Field(max_length=400)
    locale: str = Field(default="en", max_length=20, description="language of the messages, such as en or pt-BR")


class RecipientPatch(_In):
    name: Annotated[str, Field(max_length=400)] | None = None
    email: Annotated[str, Field(max_length=400)] | None = Field(default=None, description="has to be verified anew")
    locale: Annotated[str, Field(max_length=20)] | None = None


class CodeIn(_In):
    code: str = Field(max_length=20, description="the six digits that were sent")


class RecipientOut(BaseModel):
    id: str
    name: str
    email: str
    locale: str
    verified: bool
    verified_at: datetime | None
    created_at: datetime
    revision: int


class MessageOut(BaseModel):
    """`in_doubt` counts attempts whose outcome was lost: the message may have arrived more than once then, with the
    same Message-ID."""

    id: str
    kind: str
    object_id: str
    recipient_id: str | None
    to_name: str
    to_address: str
    subject: str
    state: Literal["queued", "sent", "failed"]
    problem: dict[str, Any] | None
    attempts: int
    in_doubt: int
    created_at: datetime
    sent_at: datetime | None
    failed_at: datetime | None


def recipient_json(row: Any) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in RecipientOut.model_fields if name != "verified"}
    return shown | {"verified": row.verified_at is not None}


def message_json(row: Any) -> dict[str, Any]:
    state = notify.state_of(row)
    shown = {name: getattr(row, name) for name in MessageOut.model_fields if name not in ("state", "problem")}
    return shown | {"state": state.name, "problem": state.problem}


def _recipient(row: Any, status: int = 200) -> Response:
    headers = {"ETag": etag(row.revision)}
    if status == 201:
        headers["Location"] = f"/api/v1/recipients/{row.id}"
    return json_response(recipient_json(row), status, headers)


@router.get("/recipients", action="smn:recipient:list", response_model=Page[RecipientOut])
async def list_recipients(call: Caller = CALLER, limit: Limit = 20, cursor: Cursor = None) -> Response:
    """Recipients of the account, newest first. As long as none is verified, the first administrator is told."""
    rows = await notify.list_recipients(call.services, call.actor, after=read_cursor(cursor), limit=limit + 1)
    return page_of(rows, limit, lambda row: row.id, recipient_json)


@router.post("/recipients", action="smn:recipient:create", status_code=201, response_model=RecipientOut)
async def create_recipient(body: RecipientIn, call: Caller = CALLER) -> Response:
    """Add somebody. Nothing but the code goes to the address until the code was entered."""
    return _recipient(await notify.create_recipient(call.services, call.actor, **body.model_dump()), 201)


@router.get("/recipients/{recipient_id}", action="smn:recipient:get", response_model=RecipientOut)
async def get_recipient(recipient_id: str, call: Caller = CALLER) -> Response:
    return _recipient(await notify.get_recipient(call.services, call.actor, recipient_id))


@router.patch("/recipients/{recipient_id}", action="smn:recipient:update", response_model=RecipientOut)
async def update_recipient(
    recipient_id: str, body: RecipientPatch, request: Request, call: Caller = CALLER
) -> Response:  # fmt: skip
    """Change name, address or language. Needs If-Match."""
    row = await notify.update_recipient(
        call.services, call.actor, recipient_id, revision=check_if_match(request), **body.model_dump()
    )
    return _recipient(row)


@router.delete("/recipients/{recipient_id}", action="smn:recipient:delete", status_code=204, response_class=Response)
async def delete_recipient(recipient_id: str, call: Caller = CALLER) -> Response:
    await notify.delete_recipient(call.services, call.actor, recipient_id)
    return Response(status_code=204)


@router.post("/recipients/{recipient_id}/verify", action="smn:recipient:update", response_model=RecipientOut)
async def verify_recipient(recipient_id: str, body: CodeIn, call: Caller = CALLER) -> Response:
    """Enter the code that was sent; five tries, one day."""
    return _recipient(await notify.verify_recipient(call.services, call.actor, recipient_id, body.code))


@router.post(
    "/recipients/{recipient_id}/code", action="smn:recipient:update", status_code=202, response_model=RecipientOut
)
async def resend_code(recipient_id: str, call: Caller = CALLER) -> Response:
    """Send a new code; the one before is void."""
    return _recipient(await notify.resend_code(call.services, call.actor, recipient_id), 202)


@router.get("/messages", action="smn:message:list", response_model=Page[MessageOut])
async def list_messages(
    call: Caller = CALLER,
    object: Annotated[str | None, Query(max_length=64, description="id of what the message is about")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """What was sent, is on its way, or could not be sent; newest first, without the bodies."""
    rows = await notify.list_messages(
        call.services, call.actor, object_id=object, after=read_cursor(cursor), limit=limit + 1
    )  # fmt: skip
    return page_of(rows, limit, lambda row: row.id, message_json)
