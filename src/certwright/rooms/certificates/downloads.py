"""Certificates as files: PEM parts, and an archive for each kind of server.

Reading a private key is a permission of its own.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import Literal, get_args

from certwright.kernel.actor import Actor
from certwright.kernel.problems import Invalid, Refused
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import audit, authorities, keys
from certwright.rooms.certificates.actions import usable_version
from certwright.rooms.certificates.words import Operation, VersionMaterial
from certwright.x509.bundles import Contents, Server, archive, safe_file_name
from certwright.x509.certificates import read_certificate, to_pem
from certwright.x509.keys import to_pkcs8_pem

Format = Literal[
    "fullchain", "leaf", "chain", "root", "key", "nginx", "apache", "tomcat", "iis", "weblogic", "resin", "haproxy",
    "kubernetes", "pem", "der", "p7b",
]  # fmt: skip

# The last three are archives of certificates alone: for the key there is a format of its own.
_HOLDS_KEY: tuple[Format, ...] = (
    "key", "nginx", "apache", "tomcat", "iis", "weblogic", "resin", "haproxy", "kubernetes",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Download:
    file_name: str
    media_type: str
    content: bytes


async def download(services: Services, actor: Actor, certificate_id: str, format: Format) -> Download:
    """One file of the current version.

    Raises Invalid `format_unknown`, Refused `root_not_held`. `key` and the archives for servers need
    `scm:cert:export_key` and are refused where no key is held; `pem`, `der` and `p7b` are archives without it. Stores
    get a passphrase drawn anew each time, in a file beside them. Every download is audited.
    """
    if format not in get_args(Format):
        raise Invalid(
            "format_unknown", f"There is no download format {str(format)[:40]!r}.", field="format",
            fix=f"Use one of: {', '.join(get_args(Format))}.",
        )  # fmt: skip
    holds_key = format in _HOLDS_KEY
    async with services.db.begin() as tx:
        version = await usable_version(
            tx, services, actor, certificate_id,
            action="scm:cert:export_key" if holds_key else "scm:cert:download",
            operation=Operation.EXPORT_KEY if holds_key else Operation.DOWNLOAD,
        )  # fmt: skip
        await audit.record(
            tx, services, actor, "scm:cert:download", "certificate", certificate_id, project_id=version.project_id,
            after={"format": format, "version": version.number},
        )  # fmt: skip
        root = await _root(tx, version) if format == "root" else None
    leaf, chain = to_pem(version.leaf_der), "".join(to_pem(der) for der in version.chain_ders)
    stem = safe_file_name(version.name)
    match format:
        case "fullchain":
            return Download(f"{stem}.crt", "application/x-pem-file", (leaf + chain).encode())
        case "leaf":
            return Download(f"{stem}_leaf.crt", "application/x-pem-file", leaf.encode())
        case "chain":
            return Download(f"{stem}_chain.crt", "application/x-pem-file", chain.encode())
        case "root":
            assert root is not None
            return Download(f"{stem}_root.crt", "application/x-pem-file", to_pem(root).encode())
    key = None
    if holds_key:
        assert version.key_id is not None
        key = await keys.open_key(services, actor, version.key_id, f"download of {certificate_id} as {format}")
        if format == "key":
            return Download(f"{stem}.key", "application/x-pem-file", to_pkcs8_pem(key))
    contents = Contents(version.name, [version.leaf_der, *version.chain_ders], key)
    # In a thread: deriving the keys of a PFX takes some milliseconds.
    zipped = await asyncio.to_thread(
        archive, Server(format), contents, at=version.not_before, random=secrets.token_bytes
    )
    return Download(f"{stem}_{format}.zip", "application/zip", zipped)


async def _root(tx: Tx, version: VersionMaterial) -> bytes:
    """Of a private CA's certificates. Raises Refused `root_not_held`: public roots are in every client."""
    last = read_certificate(version.chain_ders[-1] if version.chain_ders else version.leaf_der)
    for der in await authorities.root_ders(tx):
        if read_certificate(der).subject == last.issuer:
            return der
    raise Refused(
        "root_not_held", f"The root {last.issuer[:120]!r} is not held here.",
        fix="Clients have their own copies of public roots; others can be downloaded from their CA.",
    )  # fmt: skip
