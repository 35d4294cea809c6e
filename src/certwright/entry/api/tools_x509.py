"""`/api/v1/tools/x509/…`: the workshop for whoever is signed in. Nothing that is sent here is kept."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Annotated, Any, Literal

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from certwright.entry.api.base import CALLER, SIGNED_IN, Caller, Router, json_response
from certwright.entry.public_policy import public_policy
from certwright.kernel.problems import Invalid
from certwright.x509.workshop import containers, decode, upload

router = Router(prefix="/tools/x509", tags=["tools"])

Text = Annotated[str, Field(max_length=1_500_000)]
Secret = Annotated[str, Field(max_length=1_500_000, json_schema_extra={"format": "password"})]
Passphrase = Annotated[str, Field(max_length=2000, json_schema_extra={"format": "password"})]


class In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CheckIn(In):
    """What to judge; binary files as base64 with `encoding` base64."""

    certificate: Secret = Field(description="the certificate, with whatever stands beside it")
    key: Secret | None = Field(default=None, description="its private key")
    chain: Text | None = Field(default=None, description="intermediates")
    passphrase: Passphrase | None = Field(default=None, description="opens keys and stores; used once and forgotten")
    encoding: Literal["text", "base64"] = Field(default="text", description="of certificate, key and chain")
    purpose: upload.Purpose = upload.Purpose.SERVER
    strict: bool = Field(default=False, description="PEM only, key without passphrase, chain complete")
    private: bool = Field(default=False, description="leave out what only public CAs must keep to")


class FindingOut(BaseModel):
    code: str
    severity: Literal["error", "warning", "note"]
    where: str
    message: str
    fix: str


class LeafOut(BaseModel):
    """What the judged certificate says."""

    subject: str
    issuer: str
    serial: str
    not_before: str
    not_after: str
    names: list[str]
    common_name: str | None
    key_algorithm: str
    signature_algorithm: str
    sha256: str
    sha1: str
    spki_sha256: str
    is_ca: bool
    self_signed: bool


class ReportOut(BaseModel):
    """`ok`: nothing is at error severity. `certificate` and `chain`: canonical PEM, ordered, without the root."""

    ok: bool
    repaired: list[str]
    findings: list[FindingOut]
    leaf: LeafOut | None
    certificate: str
    chain: str


class InspectIn(In):
    """A file to look into; binary ones as base64 with `encoding` base64."""

    content: Secret
    passphrase: Passphrase | None = Field(default=None, description="opens keys and stores; used once and forgotten")
    encoding: Literal["text", "base64"] = "text"


class InspectOut(BaseModel):
    """`container` is how it came; `parts` are what is in it, in order, with fields by their kind."""

    container: str
    repaired: list[str]
    findings: list[FindingOut]
    parts: list[dict[str, Any]]


@router.post("/check", action=SIGNED_IN, response_model=ReportOut)
async def check(body: CheckIn, call: Caller = CALLER) -> Response:
    """Say what is wrong with a certificate, its key and its chain, and what could be repaired."""
    options = upload.Options(
        at=call.services.clock.now(),
        policy=None if body.private else public_policy(),
        purpose=body.purpose,
        strict=body.strict,
    )
    # In a thread: the largest inputs take most of a second, which other requests needn't wait for.
    report = await asyncio.to_thread(
        upload.check,
        _octets(body.certificate, body.encoding, "certificate"),
        options=options,
        key=_octets(body.key, body.encoding, "key") if body.key is not None else None,
        chain=_octets(body.chain, body.encoding, "chain") if body.chain is not None else None,
        passphrase=body.passphrase.encode() if body.passphrase else None,
    )
    return json_response({**report.as_dict(), "certificate": report.certificate_pem, "chain": report.chain_pem})


@router.post("/inspect", action=SIGNED_IN, response_model=InspectOut)
async def inspect(body: InspectIn, call: Caller = CALLER) -> Response:
    """Show what a file holds. Of a private key only its kind and the hash of its public half."""
    del call
    passphrase = body.passphrase.encode() if body.passphrase else None
    octets = _octets(body.content, body.encoding, "content")
    contents = await asyncio.to_thread(containers.open_input, octets, "content", passphrase)
    return json_response(await asyncio.to_thread(decode.describe, contents))


def _octets(text: str, encoding: str, field: str) -> bytes:
    if encoding == "text":
        return text.encode("utf-8", errors="replace")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Invalid(
            "bad_base64", "The field isn't base64.", field=field, fix="Send the file's octets as base64, or as text."
        ) from None
