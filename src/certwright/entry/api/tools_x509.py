"""`/api/v1/tools/x509/…`: the workshop for whoever is signed in. Nothing that is sent here is kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Response
from pydantic import BaseModel, Field

from certwright.entry.api.base import CALLER, SIGNED_IN, Caller, Router, json_response
from certwright.entry.api.uploads import (
    Encoding,
    FilesIn,
    FindingOut,
    In,
    JudgementOut,
    LinkOut,
    Passphrase,
    Secret,
    octets,
)
from certwright.rooms import uploads
from certwright.rooms.uploads import Purpose, tools

router = Router(prefix="/tools/x509", tags=["tools"])

Line = Annotated[str, Field(max_length=253)]


class CheckIn(FilesIn):
    """What to judge; binary files as base64 with `encoding` base64."""

    purpose: Purpose = Purpose.SERVER


class InspectIn(In):
    """A file to look into; binary ones as base64 with `encoding` base64."""

    content: Secret
    passphrase: Passphrase | None = Field(default=None, description="opens keys and stores; used once and forgotten")
    encoding: Encoding = "text"

    @property
    def octets(self) -> bytes:
        return octets(self.content, self.encoding, "content")

    @property
    def secret(self) -> bytes | None:
        return _secret(self.passphrase)


class InputIn(In):
    content: Secret
    encoding: Encoding = "text"


class InputsIn(In):
    """Files that belong together: a certificate, its chain, its key."""

    inputs: Annotated[list[InputIn], Field(min_length=1, max_length=tools.MAX_INPUTS)]
    passphrase: Passphrase | None = Field(default=None, description="opens keys and stores; used once and forgotten")

    @property
    def octets(self) -> list[bytes]:
        return [octets(one.content, one.encoding, f"inputs.{n}") for n, one in enumerate(self.inputs)]

    @property
    def secret(self) -> bytes | None:
        return _secret(self.passphrase)


class ConvertIn(InputsIn):
    to: Literal["pem", "der", "p7b", "pfx", "jks", "pkcs8", "pkcs1", "sec1"]
    out_passphrase: Passphrase | None = Field(default=None, description="protects what is made; PFX and JKS need one")
    alias: Annotated[str, Field(max_length=200)] = Field(default="", description="name of the entry in a PFX or JKS")
    legacy: bool = Field(default=False, description="PFX for programs of before 2019")


class ChainIn(InspectIn):
    online: bool = Field(default=True, description="ask the addresses certificates name for missing issuers")


class CsrIn(In):
    names: Annotated[list[Line], Field(min_length=1, max_length=1000)]
    key_algorithm: Annotated[str, Field(max_length=40)] = "EC_P256"
    key: Secret | None = Field(default=None, description="the key to use; without one a new one is made")
    encoding: Encoding = Field(default="text", description="of key")
    passphrase: Passphrase | None = Field(default=None, description="opens the key, or encrypts the new one")
    common_name: bool = Field(default=False, description="put the first name into the subject, too")


class BundleIn(InputsIn):
    server: Literal[
        "nginx", "apache", "tomcat", "iis", "weblogic", "resin", "haproxy", "kubernetes", "pem", "der", "p7b", "chain"
    ]
    name: Annotated[str, Field(max_length=200)] = Field(default="", description="what the files are called")
    legacy: bool = False
    online: bool = True


class KeyIn(InspectIn):
    out_passphrase: Passphrase | None = Field(default=None, description="encrypts the key; without one it is bare")
    form: Literal["pkcs8", "pkcs1", "sec1"] = "pkcs8"


class InspectOut(BaseModel):
    """`container` is how it came; `parts` are what is in it, in order, with fields by their kind."""

    container: str
    repaired: list[str]
    findings: list[FindingOut]
    parts: list[dict[str, Any]]


class ChainOut(BaseModel):
    """`pem`: the certificate and its intermediates, without the root; `missing`: the issuer that wasn't found."""

    complete: bool
    missing: str
    links: list[LinkOut]
    pem: str
    findings: list[FindingOut]


class PartOut(BaseModel):
    kind: str
    where: str
    key_algorithm: str
    spki_sha256: str


class MatchOut(BaseModel):
    match: bool
    parts: list[PartOut]


class CsrOut(BaseModel):
    """`key` is the new key, null where one was given; it is not kept here."""

    csr: str
    key: str | None


class FileOut(BaseModel):
    name: str
    content: str


class FilesOut(BaseModel):
    files: list[FileOut]


_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/x-pem-file": {}, "application/octet-stream": {}, "application/x-pkcs12": {},
            "application/x-pkcs7-certificates": {}, "application/zip": {},
        },
        "description": "The file",
    }
}  # fmt: skip


def _secret(text: str | None) -> bytes | None:
    return text.encode() if text else None


def _file(file: tools.File) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{file.name}"', "Cache-Control": "no-store"}
    return Response(file.content, media_type=file.media_type, headers=headers)


@router.post("/check", action=SIGNED_IN, response_model=JudgementOut)
async def check(body: CheckIn, call: Caller = CALLER) -> Response:
    """Say what is wrong with a certificate, its key and its chain, and what could be repaired; missing intermediates
    are fetched from the CA. Whether the account has it already is said by /uploads/check."""
    wishes = uploads.Wishes(purpose=body.purpose, strict=body.strict, private=body.private, online=body.online)
    return json_response((await tools.check(call.services, call.actor, body.given(), wishes)).as_dict())


@router.post("/inspect", action=SIGNED_IN, response_model=InspectOut)
async def inspect(body: InspectIn, call: Caller = CALLER) -> Response:
    """Show what a file holds. Of a private key only its kind and the hash of its public half."""
    return json_response(await tools.inspect(call.services, body.octets, body.secret))


# Answers that hold keys aren't kept for replays, either.
@router.post("/convert", action=SIGNED_IN, secret=True, response_class=Response, responses=_FILE)
async def convert(body: ConvertIn, call: Caller = CALLER) -> Response:
    """Certificates and keys in another format, as one file."""
    return _file(
        await tools.convert(
            call.services, body.octets, body.to, passphrase=body.secret, out_passphrase=_secret(body.out_passphrase),
            alias=body.alias, legacy=body.legacy,
        )
    )  # fmt: skip


@router.post("/chain", action=SIGNED_IN, response_model=ChainOut)
async def chain(body: ChainIn, call: Caller = CALLER) -> Response:
    """Put the chain of a server certificate in order and complete it: from the file, from what the account knows, then
    from the addresses the certificates name."""
    made = await tools.chain(call.services, call.actor, body.octets, body.secret, online=body.online)
    findings = [finding.as_dict() for finding in made.judgement.findings]
    return json_response(
        {"complete": made.complete, "missing": made.missing, "links": made.links, "pem": made.pem,
         "findings": findings}
    )  # fmt: skip


@router.post("/split", action=SIGNED_IN, secret=True, response_model=FilesOut)
async def split(body: InputsIn, call: Caller = CALLER) -> Response:
    """Each certificate, key, request and list as a PEM file of its own."""
    files = await tools.split(call.services, body.octets, body.secret)
    return json_response({"files": [{"name": file.name, "content": file.content.decode()} for file in files]})


@router.post("/join", action=SIGNED_IN, secret=True, response_class=Response, responses=_FILE)
async def join(body: InputsIn, call: Caller = CALLER) -> Response:
    """Everything as one PEM file: keys first, then the certificates in order."""
    return _file(await tools.join(call.services, body.octets, body.secret))


@router.post("/match", action=SIGNED_IN, response_model=MatchOut)
async def match(body: InputsIn, call: Caller = CALLER) -> Response:
    """Whether certificates, requests and keys belong together; of each input the first certificate counts."""
    return json_response(await tools.match(call.services, body.octets, body.secret))


@router.post("/csr", action=SIGNED_IN, secret=True, response_model=CsrOut)
async def csr(body: CsrIn, call: Caller = CALLER) -> Response:
    """Make a signing request with a key of yours or a new one. To keep both here, use /csrs instead."""
    made = await tools.csr(
        call.services, body.names, key_algorithm=body.key_algorithm,
        key=octets(body.key, body.encoding, "key") if body.key is not None else None,
        passphrase=_secret(body.passphrase), common_name=body.common_name,
    )  # fmt: skip
    return json_response({"csr": made.csr_pem, "key": made.key_pem})


@router.post("/bundle", action=SIGNED_IN, secret=True, response_class=Response, responses=_FILE)
async def bundle(body: BundleIn, call: Caller = CALLER) -> Response:
    """The archive one kind of server needs: its files, a passphrase file where a store has one, and a note."""
    return _file(
        await tools.bundle(
            call.services, call.actor, body.octets, body.server, name=body.name, passphrase=body.secret,
            legacy=body.legacy, online=body.online,
        )
    )  # fmt: skip


@router.post("/key", action=SIGNED_IN, secret=True, response_class=Response, responses=_FILE)
async def key(body: KeyIn, call: Caller = CALLER) -> Response:
    """A private key in another form: encrypted under a new passphrase (PKCS#8: AES-256), or without one."""
    return _file(
        await tools.key(
            call.services, body.octets, passphrase=body.secret, out_passphrase=_secret(body.out_passphrase),
            form=body.form,
        )
    )  # fmt: skip
