"""From nginx's configuration to sites: which slots, which files, and how each can be seen from outside. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certwright.connectors.target.handshake import fingerprint
from certwright.connectors.target.nginx.config import Server, is_plain_path, shown
from certwright.rooms.deployment.words import Address, Installed, Listener, Site, Slot, key_kind
from certwright.x509.reading import UNREADABLE

_HOST_NAME = re.compile(r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NAMES_TO_LOOK_AT = 8
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)

ReadFile = Callable[[str], bytes | None]
"""The content of a file, None when it can't be had."""


def installed_in(content: bytes | None) -> Installed | None:
    """The first certificate of a PEM file; None when there is none that can be read."""
    found = _PEM.search(content or b"")
    if found is None:
        return None
    try:
        certificate = x509.load_pem_x509_certificate(found[0])
        kind = key_kind(certificate.public_key())
        names = _names_of(certificate)
    # Whatever was put into the file by hand: a certificate we can't read is shown as none, and can be replaced.
    except UNREADABLE:
        return None
    der = certificate.public_bytes(Encoding.DER)
    return Installed(fingerprint(der), names, certificate.not_valid_after_utc, kind)


def _names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    dns = [shown(name.lower()) for name in names.get_values_for_type(x509.DNSName)]
    return (*dns, *(str(ip) for ip in names.get_values_for_type(x509.IPAddress)))


def is_host_name(name: str) -> bool:
    return _HOST_NAME.fullmatch(name) is not None


def sites_of(
    servers: Sequence[Server], everywhere: Sequence[Listener], read: ReadFile, connect_host: str
) -> tuple[Site, ...]:
    """One site per TLS server block. `everywhere` is every listener of the configuration, TLS or not."""
    owners = _owners(servers)
    specific = {(one.host, one.port) for one in everywhere if not one.unix}
    out: list[Site] = []
    counts: dict[str, int] = {}
    for index, server in enumerate(servers):
        key = _key(server)
        counts[key] = counts.get(key, 0) + 1
        if counts[key] > 1:
            key = f"{key}-{counts[key]}"
        code, reason = _why_not(server)
        slots = () if code else _slots(server, read)
        if not code and not any(slot.managed for slot in slots):
            code, reason = slots[0].unmanaged_code, slots[0].unmanaged_reason
        out.append(
            Site(
                key=key,
                names=tuple(shown(name) for name in server.names),
                listeners=tuple(replace(one, host=shown(one.host)) for one in server.listeners),
                slots=slots,
                source=f"{shown(server.file)}:{server.line}",
                addresses=_addresses(index, server, owners, specific, connect_host),
                protocol=server.protocol,
                unmanaged_code=code,
                unmanaged_reason=reason,
            )
        )
    return tuple(out)


def _key(server: Server) -> str:
    listeners = ",".join(sorted(listener.text for listener in server.listeners))
    text = f"{server.protocol}|{listeners}|{','.join(sorted(server.names))}"
    return "site-" + hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:20]


def _why_not(server: Server) -> tuple[str | None, str | None]:
    if not server.certificates:
        if server.rejects_handshake:
            return ("rejects_handshake", "This site refuses every TLS handshake on purpose and has no certificate.")
        return ("no_certificate_path", "The configuration names no certificate for this site.")
    if len(server.keys) < len(server.certificates):
        return ("no_key_path", "The configuration names fewer keys than certificates for this site.")
    return None, None


def _slots(server: Server, read: ReadFile) -> tuple[Slot, ...]:
    out = []
    for certificate, key in zip(server.certificates, server.keys, strict=False):
        passphrases = None if server.passphrases is None else shown(server.passphrases)
        slot = Slot(shown(certificate), shown(key), passphrases)
        for path in (certificate, key, server.passphrases):
            if path is not None and shown(path) != path:
                slot = replace(
                    slot,
                    unmanaged_code="path_not_text",
                    unmanaged_reason=f"{shown(path)[:200]} is not written in UTF-8, so the file can't be named here.",
                )
            elif path is not None and not is_plain_path(path):
                slot = replace(
                    slot,
                    unmanaged_code="path_with_variable" if "$" in path else "not_a_file",
                    unmanaged_reason=(
                        f"{path[:200]!r} is decided for each connection, so there is no one file to replace."
                        if "$" in path
                        else f"{path.split(':')[0]}: is not a file that could be replaced."
                    ),
                )
        if slot.managed:
            slot = replace(slot, installed=installed_in(read(certificate)))
        out.append(slot)
    return tuple(out)


def _owners(servers: Sequence[Server]) -> dict[tuple[str, str], int]:
    """Which server answers for (listener, name): the first that says so; nginx ignores the others."""
    owners: dict[tuple[str, str], int] = {}
    for index, server in enumerate(servers):
        for listener in server.listeners:
            for name in server.names:
                owners.setdefault((listener.text, name), index)
    return owners


def _addresses(
    index: int, server: Server, owners: dict[tuple[str, str], int], specific: set[tuple[str, int]], connect_host: str
) -> tuple[Address, ...]:
    out = []
    for listener in server.listeners:
        host = listener.host if listener.unix else _reach(listener, specific, connect_host)
        # A socket whose path is no text can't be named in a plan.
        if host is None or shown(host) != host:
            continue
        names: list[str | None] = [None] if listener.default_server else []
        for name in server.names:
            asked = _asked_name(name)
            if (
                asked is not None
                and owners[listener.text, name] == index
                and _first_match(asked, listener, owners, index)
            ):
                names.append(asked)
        for wanted in list(dict.fromkeys(names))[:_NAMES_TO_LOOK_AT]:
            out.append(Address(host, listener.port, wanted, listener.unix, listener.proxy_protocol))
    return tuple(dict.fromkeys(out))


def _asked_name(name: str) -> str | None:
    """A host name to ask for that `server_name` covers; None for patterns and catch-alls."""
    if name.startswith("*."):
        name = f"certwright-check{name[1:]}"
    elif name.startswith("."):
        name = name[1:]
    elif name.endswith(".*"):
        name = f"{name[:-2]}.invalid"
    return name if is_host_name(name) and name != "_" else None


def _first_match(asked: str, listener: Listener, owners: dict[tuple[str, str], int], index: int) -> bool:
    """Whether no other block has this very name (nginx prefers exact names to patterns)."""
    return owners.get((listener.text, asked), index) == index


def _reach(listener: Listener, specific: set[tuple[str, int]], connect_host: str) -> str | None:
    """Where to connect so that this listener answers. A more specific listener on the same port would catch us."""
    if listener.host == "::":
        candidates = [connect_host if ":" in connect_host else "::1"]
    elif listener.host == "*":
        first = connect_host if ":" not in connect_host else "127.0.0.1"
        candidates = [first, *(f"127.0.0.{n}" for n in range(1, 16))]
    else:
        return listener.host
    return next((host for host in candidates if (host, listener.port) not in specific), None)
