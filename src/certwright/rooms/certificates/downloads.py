"""Certificates as files: PEM parts and the archive for nginx. Reading a private key is a permission of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from certwright.kernel.actor import Actor
from certwright.kernel.problems import Invalid
from certwright.platform.services import Services
from certwright.rooms import audit, keys
from certwright.rooms.certificates.actions import usable_version
from certwright.rooms.certificates.words import Operation
from certwright.x509.bundles import nginx_zip, safe_file_name
from certwright.x509.certificates import to_pem
from certwright.x509.keys import to_pkcs8_pem

Format = Literal["fullchain", "leaf", "chain", "key", "nginx"]

_HOLDS_KEY: tuple[Format, ...] = ("key", "nginx")


@dataclass(frozen=True, slots=True)
class Download:
    file_name: str
    media_type: str
    content: bytes


async def download(services: Services, actor: Actor, certificate_id: str, format: Format) -> Download:
    """One file of the current version.

    Raises Invalid `format_unknown`; for `key` and `nginx` needs `scm:cert:export_key` and is refused where no key is
    held. Every download is audited.
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
    leaf, chain = to_pem(version.leaf_der), "".join(to_pem(der) for der in version.chain_ders)
    stem = safe_file_name(version.name)
    match format:
        case "fullchain":
            return Download(f"{stem}.crt", "application/x-pem-file", (leaf + chain).encode())
        case "leaf":
            return Download(f"{stem}_leaf.crt", "application/x-pem-file", leaf.encode())
        case "chain":
            return Download(f"{stem}_chain.crt", "application/x-pem-file", chain.encode())
    assert version.key_id is not None
    key = await keys.open_key(services, actor, version.key_id, f"download of {certificate_id} as {format}")
    if format == "key":
        return Download(f"{stem}.key", "application/x-pem-file", to_pkcs8_pem(key))
    archive = nginx_zip(name=stem, fullchain_pem=leaf + chain, key_pem=to_pkcs8_pem(key), at=version.not_before)
    return Download(f"{stem}_nginx.zip", "application/zip", archive)
