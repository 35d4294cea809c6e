"""`/api/v1/authorities/{id}/list-storage`: where a CA's lists are published to besides here."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import Response
from pydantic import BaseModel, Field, SecretStr

from certwright.entry.api.authorities import Id, In, ProblemOut, Word
from certwright.entry.api.base import CALLER, Caller, Router, json_response
from certwright.rooms import authorities

router = Router(tags=["private CA"])
_STORAGE = "/authorities/{authority_id}/list-storage"
Url = Annotated[str, Field(max_length=500)]


class StorageIn(In):
    """An S3-compatible storage. `secret_access_key` is sealed and never shown; left out, the one there is stays."""

    endpoint: Url = Field(description="https://s3.eu-central-1.amazonaws.com, or that of MinIO, Ceph …")
    region: Word = "us-east-1"
    bucket: Word
    prefix: Annotated[str, Field(max_length=200)] = Field(default="", description="before each object's name: crl/")
    access_key_id: Annotated[str, Field(max_length=200)]
    secret_access_key: Annotated[SecretStr, Field(max_length=500)] | None = None
    public_url: Url | None = Field(default=None, description="where everybody finds what lies below the prefix")


class StorageOut(BaseModel):
    """`waiting` counts lists whose newest isn't there yet; `problem` says why."""

    authority_id: str
    endpoint: str
    region: str
    bucket: str
    prefix: str
    access_key_id: str
    public_url: str | None
    waiting: int
    stored_at: datetime | None
    problem: ProblemOut | None


@router.get(_STORAGE, action="ccm:ca:get", response_model=StorageOut)
async def get_list_storage(authority_id: Id, call: Caller = CALLER) -> Response:
    """404 where lists are published here only."""
    return json_response(asdict(await authorities.get_list_storage(call.services, call.actor, authority_id)))


@router.put(_STORAGE, action="ccm:ca:update", response_model=StorageOut)
async def set_list_storage(authority_id: Id, body: StorageIn, call: Caller = CALLER) -> Response:
    """Lists are put there from now on, those of today at once, as `<id>.crl` and `<id>.pem` (`<id>-<n>` for parts)."""
    secret = body.secret_access_key
    request = authorities.StorageRequest(
        **body.model_dump(exclude={"secret_access_key"}),
        secret_access_key=secret.get_secret_value() if secret else None,
    )
    return json_response(asdict(await authorities.set_list_storage(call.services, call.actor, authority_id, request)))


@router.delete(_STORAGE, action="ccm:ca:update", status_code=204, response_class=Response)
async def delete_list_storage(authority_id: Id, call: Caller = CALLER) -> Response:
    """What is there stays there, and certificates that name it go on naming it."""
    await authorities.delete_list_storage(call.services, call.actor, authority_id)
    return Response(status_code=204)
