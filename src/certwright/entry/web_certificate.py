"""The certificate this product serves itself with: its own, renewed like any other, swapped without a restart.

The private key is sealed in the database; OpenSSL loads keys from files only, so it passes through an anonymous
in-memory file that never has a name on disk.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from certwright.kernel.actor import Actor, system_actor
from certwright.kernel.problems import NotFound, Problem
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
        with in_memory(chain.encode()) as chain_path, in_memory(to_pkcs8_pem(key)) as key_path:
            self.context.load_cert_chain(chain_path, key_path)
        self._loaded = version.version_id

    async def keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                await self.load()
            except Problem as problem:
                log.warning("the console's certificate could not be refreshed", code=problem.code)
            # The server goes on with the certificate it has, whatever is wrong with the next one.
            except Exception:
                log.exception("the console's certificate could not be refreshed")

    async def _ensure(self, actor: Actor) -> str:
        """The certificate noted beside the data, as long as it is good for today's addresses; else a new one.

        It is found by its id and not by name: names can be chosen by others.
        """
        names = served_names(self._services.settings)
        noted = own_certificate(self._services.settings)
        if noted is not None and await self._is_good(actor, noted, names):
            return noted
        issued = await certificates.issue_private(
            self._services,
            actor,
            names=names,
            name=f"console-{secrets.token_hex(4)}",
            description="Serves this console and its API.",
        )
        # In place: a web process that denied itself the directory still has the file. One cut short is made anew.
        _note(self._services.settings).write_text(issued.id)
        return issued.id

    async def _is_good(self, actor: Actor, certificate_id: str, names: list[str]) -> bool:
        try:
            found = (await certificates.get_certificate(self._services, actor, certificate_id)).summary
        except NotFound:
            return False
        usable = (certificates.State.ISSUED, certificates.State.VERIFYING_REISSUE)
        # One issued while the clock of this machine ran ahead begins in the future, and no browser would take it.
        has_begun = found.not_before is not None and found.not_before <= self._services.clock.now()
        return found.state in usable and has_begun and list(found.names) == names


def own_certificate(settings: Settings) -> str | None:
    """The id of the certificate this installation serves itself with; None before it has one."""
    try:
        return _note(settings).read_text().strip()
    except FileNotFoundError:
        return None


def _note(settings: Settings) -> Path:
    return settings.data_dir / "console-certificate"


def served_names(settings: Settings) -> list[str]:
    """Names and addresses users may reach this server by."""
    listen_host, _ = host_and_port(settings.listen)
    hosts = [listen_host, "localhost", "127.0.0.1"]
    if settings.public_url:
        hosts.insert(0, urlsplit(settings.public_url).hostname or "localhost")
    # S104: nothing is bound here; "every address" is no name a certificate could hold.
    return [host for host in dict.fromkeys(hosts) if host not in ("0.0.0.0", "::")]  # noqa: S104


@contextmanager
def in_memory(content: bytes) -> Iterator[str]:
    """A path that OpenSSL can read `content` from while the block lasts."""
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
