"""The certificate this product serves itself with: its own, renewed like any other, swapped without a restart.

The private key is sealed in the database; OpenSSL loads keys from files only, so it passes through an anonymous
in-memory file that never has a name on disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import structlog

from certwright.kernel.actor import Actor, system_actor
from certwright.kernel.problems import Problem
from certwright.platform.config import Settings, host_and_port
from certwright.platform.services import Services
from certwright.rooms import accounts, certificates, keys
from certwright.x509.certificates import to_pem
from certwright.x509.keys import to_pkcs8_pem

log = structlog.get_logger(__name__)

# How often a running server looks for a newer version, in seconds.
_LOOK_EVERY = 60


class WebCertificate:
    """Holds the SSL context of the web server; `load` fills it, `keep_fresh` swaps in every new version."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._loaded: str | None = None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])

    async def load(self) -> None:
        """Load the current version, having it issued first if there is none."""
        account = await accounts.ensure_account(self._services)
        actor = system_actor(account.id, "web certificate")
        certificate_id = await self._ensure(actor)
        async with self._services.db.begin() as tx:
            version = await certificates.current_version(tx, certificate_id)
        if version is None or version.version_id == self._loaded or version.key_id is None:
            return
        key = await keys.open_key(self._services, actor, version.key_id, "to serve this console")
        chain = to_pem(version.leaf_der) + "".join(to_pem(der) for der in version.chain_ders)
        with _in_memory(chain.encode()) as chain_path, _in_memory(to_pkcs8_pem(key)) as key_path:
            self.context.load_cert_chain(chain_path, key_path)
        self._loaded = version.version_id

    async def keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                await self.load()
            except Problem as problem:
                log.warning("the console's certificate could not be refreshed", code=problem.code)

    async def _ensure(self, actor: Actor) -> str:
        names = served_names(self._services.settings)
        # The name tells which names it is for, so that a changed address gets a certificate of its own.
        name = "console-" + hashlib.sha256(" ".join(names).encode()).hexdigest()[:8]
        found = await self._find(actor, name)
        if found is not None:
            return found
        issued = await certificates.issue_private(
            self._services,
            actor,
            names=names,
            name=name,
            description="Serves this console and its API.",
        )
        return issued.id

    async def _find(self, actor: Actor, name: str) -> str | None:
        listed = await certificates.list_certificates(self._services, actor, certificates.Filters(search=name))
        usable = (certificates.State.ISSUED, certificates.State.VERIFYING_REISSUE)
        return next((c.id for c in listed if c.name == name and c.state in usable), None)


def served_names(settings: Settings) -> list[str]:
    """Names and addresses users may reach this server by."""
    listen_host, _ = host_and_port(settings.listen)
    hosts = [listen_host, "localhost", "127.0.0.1"]
    if settings.public_url:
        hosts.insert(0, urlsplit(settings.public_url).hostname or "localhost")
    return [host for host in dict.fromkeys(hosts) if host not in ("0.0.0.0", "::")]  # noqa: S104


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("certwright", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    # No anonymous files on this system: a file only we can read, gone before anybody else could look.
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name
