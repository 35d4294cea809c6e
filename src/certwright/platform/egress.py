"""The one client for addresses that somebody else named: file checks, AIA, CRLs, probes, webhooks, update servers.

A name is resolved once and the connection goes to that very address, so that a second, different DNS answer is never
used. Addresses the operator hasn't opened are refused, at the first request and at every redirect. Time is capped as a
whole, size and redirects too. No proxy, cookie, credential or decompression exists here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import h11

from certwright.kernel.names import parse_dns_name
from certwright.kernel.problems import Problem
from certwright.platform.addresses import AddressGuard, IPAddress
from certwright.platform.db import assert_no_transaction
from certwright.platform.resolver import Outcome, Resolver, normal_name

REDIRECT_STATUSES: Final = frozenset((301, 302, 307, 308))
WEB_PORTS: Final = frozenset((80, 443))
_MAX_URL = 2048
_MAX_HEADER_BYTES = 16 * 1024
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]+")
_READ = 16 * 1024
_MAX_ATTEMPTS = 4
# Framing (chunk sizes, interim answers) may cost this much on top of headers and body.
_FRAMING_FACTOR = 4


class EgressProblem(Problem):
    """An address somebody named could not be talked to.

    Codes: egress_bad_url, egress_denied, egress_dns, egress_refused, egress_timeout, egress_tls, egress_protocol,
    egress_too_large, egress_bad_redirect. `extra` holds `host` and, where denied, `address` and `address_class`.
    """

    status = 422
    title = "The address could not be used"


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer: the status, the final URL and the address it came from, the body (at most max_bytes), and the URLs
    of the redirects followed on the way."""

    status: int
    url: str
    address: str
    body: bytes
    redirects: tuple[str, ...] = ()
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """An open stream to a permitted, pinned address."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    address: str

    async def close(self) -> None:
        """Close without waiting for the peer's goodwill."""
        self.writer.close()
        try:
            async with asyncio.timeout(1):
                await self.writer.wait_closed()
        except (OSError, TimeoutError, ssl.SSLError):
            self.writer.transport.abort()


class Egress:
    """Guarded outgoing connections. One per process; safe to share between tasks."""

    def __init__(self, resolver: Resolver, guard: AddressGuard | None = None) -> None:
        self._resolver = resolver
        self._guard = guard or AddressGuard()

    async def resolve(self, host: str) -> tuple[IPAddress, ...]:
        """The permitted addresses of a host name or IP literal. Raises EgressProblem egress_dns or egress_denied."""
        assert_no_transaction()
        plain = host.strip("[]")
        try:
            found: tuple[IPAddress, ...] = (ipaddress.ip_address(plain),)
        except ValueError:
            found, why = await self._resolver.addresses(plain)
            if why is not None:
                raise EgressProblem(
                    "egress_dns",
                    f"{host} {_DNS_REASONS.get(why.outcome, 'has no address in the DNS')}.",
                    fix="Check the spelling of the host name and its A and AAAA records.",
                    extra={"host": host, "outcome": str(why.outcome), "server": why.server},
                ) from None
        refusals = [(address, self._guard.refusal(address)) for address in found]
        allowed = tuple(address for address, refusal in refusals if refusal is None)
        if allowed:
            return allowed
        address, kind = refusals[0]
        raise EgressProblem(
            "egress_denied",
            f"{host} is at {address}, a {kind} address that this server doesn't connect to.",
            fix=f"If it is meant, start the server with CERTWRIGHT_ALLOWED_NETWORKS={address}, or a network around it.",
            extra={"host": host, "address": str(address), "address_class": kind},
        )

    async def connect(
        self,
        host: str,
        port: int,
        *,
        timeout: float = 10.0,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> Connection:
        """Connect to a permitted address of `host`, trying at most four, within `timeout` seconds altogether.

        `server_hostname` (default: host) goes into SNI and the certificate check of `tls`.
        Raises EgressProblem egress_dns, egress_denied, egress_refused, egress_tls, egress_timeout.
        """
        try:
            async with asyncio.timeout(timeout):
                addresses = (await self.resolve(host))[:_MAX_ATTEMPTS]
                return await self._connect_any(host, addresses, port, timeout, tls, server_hostname)
        except TimeoutError:
            raise _timeout(host, port, timeout) from None

    async def _connect_any(
        self,
        host: str,
        addresses: tuple[IPAddress, ...],
        port: int,
        timeout: float,
        tls: ssl.SSLContext | None,
        server_hostname: str | None,
    ) -> Connection:
        last: EgressProblem | None = None
        for index, address in enumerate(addresses):
            try:
                # A silent first address must leave time for the others.
                async with asyncio.timeout(timeout / (len(addresses) - index) if len(addresses) > 1 else None):
                    reader, writer = await asyncio.open_connection(
                        str(address), port, ssl=tls, limit=64 * 1024,
                        server_hostname=(server_hostname or host.strip("[]")) if tls is not None else None,
                    )  # fmt: skip
                return Connection(reader, writer, str(address))
            except ssl.SSLError as error:
                last = EgressProblem(
                    "egress_tls", f"TLS with {host} ({address} port {port}) failed: {_tls_reason(error)}.",
                    fix="Check the server's certificate and protocol versions.",
                    extra={"host": host, "address": str(address), "port": port},
                )  # fmt: skip
            except TimeoutError:
                last = _timeout(host, port, timeout)
            except OSError as error:
                reason = _os_reason(error)
                last = EgressProblem(
                    "egress_refused", f"{host} ({address}) can't be connected to on port {port}: {reason}.",
                    fix="Check that the server is running, listens on that port and isn't behind a firewall.",
                    extra={"host": host, "address": str(address), "port": port},
                )  # fmt: skip
        assert last is not None, "resolve gives at least one address"
        raise last

    async def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        max_bytes: int = 64 * 1024,
        timeout: float = 10.0,
        max_redirects: int = 0,
        allowed_ports: Collection[int] = WEB_PORTS,
        allow_redirect: Collection[int] = REDIRECT_STATUSES,
        tls: ssl.SSLContext | None = None,
    ) -> Fetched:
        """Request `url` (http or https) and read the whole answer.

        `timeout` (seconds) covers everything, redirects included. A redirect answer whose status is in
        `allow_redirect` is followed up to `max_redirects` times, to http(s) on `allowed_ports` only, each hop resolved
        and judged anew; with `max_redirects=0` a redirect answer is returned as it is. Only GET and HEAD are ever
        redirected. `tls` (default: the machine's trust) is the context for https. `headers` are sent to the first
        host only.
        Raises EgressProblem; see there for the codes.
        """
        assert_no_transaction()
        target = _split(url, allowed_ports)
        follow = max_redirects if method in ("GET", "HEAD") else 0
        seen: list[str] = []
        extra_headers = dict(headers or {})
        try:
            async with asyncio.timeout(timeout):
                while True:
                    fetched = await self._exchange(target, method, extra_headers, content, max_bytes, timeout, tls)
                    location = (fetched.headers or {}).get("location")
                    if not follow or fetched.status not in _ANY_REDIRECT or location is None:
                        return Fetched(
                            fetched.status, fetched.url, fetched.address, fetched.body, tuple(seen), fetched.headers
                        )
                    target = _redirected(target, fetched.status, location, allow_redirect, allowed_ports)
                    seen.append(_join(target))
                    if len(seen) > max_redirects:
                        raise _bad_redirect(target, f"more than {max_redirects} redirects were needed")
                    extra_headers = {}
        except TimeoutError:
            raise _timeout(target.hostname or "", _port(target), timeout) from None

    async def _exchange(
        self,
        target: SplitResult,
        method: str,
        headers: Mapping[str, str],
        content: bytes,
        max_bytes: int,
        timeout: float,
        tls: ssl.SSLContext | None,
    ) -> Fetched:
        host, port = target.hostname or "", _port(target)
        context = (tls or _machine_trust()) if target.scheme == "https" else None
        connection = await self.connect(host, port, timeout=timeout, tls=context)
        try:
            return await _Exchange(connection, target, max_bytes).run(method, headers, content)
        except h11.ProtocolError as error:
            raise EgressProblem(
                "egress_protocol", f"{host} port {port} answered something that isn't HTTP/1.1: {error}.",
                fix="Check that a web server answers on that port.", extra={"host": host, "port": port},
            ) from None  # fmt: skip
        except TimeoutError:
            raise
        except OSError as error:
            raise EgressProblem(
                "egress_refused",
                f"{host} port {port} broke off the connection: {_os_reason(error)}.",
                fix="Check the server's log.",
                extra={"host": host, "port": port},
            ) from None
        finally:
            await connection.close()


class _Exchange:
    """One request and its answer on one connection."""

    def __init__(self, connection: Connection, target: SplitResult, max_bytes: int) -> None:
        self._connection = connection
        self._target = target
        self._max_bytes = max_bytes
        self._budget = _MAX_HEADER_BYTES * 4 + max_bytes * _FRAMING_FACTOR
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADER_BYTES)

    async def run(self, method: str, headers: Mapping[str, str], content: bytes) -> Fetched:
        fields = {"Host": _authority(self._target), "Accept": "*/*", "Accept-Encoding": "identity",
                  "User-Agent": "certwright", "Connection": "close"} | dict(headers)  # fmt: skip
        if content:
            fields["Content-Length"] = str(len(content))
        path = (self._target.path or "/") + (f"?{self._target.query}" if self._target.query else "")
        request = h11.Request(method=method, target=path, headers=list(fields.items()))
        data = self._http.send(request) or b""
        if content:
            data += self._http.send(h11.Data(data=content)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        self._connection.writer.write(data)
        await self._connection.writer.drain()
        status, answer = await self._head()
        body = await self._body()
        return Fetched(status, _join(self._target), self._connection.address, body, (), answer)

    async def _head(self) -> tuple[int, dict[str, str]]:
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                fields: dict[str, str] = {}
                for name, value in event.headers:
                    key, text = name.decode("latin-1").lower(), value.decode("latin-1")
                    # Lines of one field are one list (RFC 9110 5.3).
                    fields[key] = f"{fields[key]}, {text}" if key in fields else text
                return event.status_code, fields
            if not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("the connection was closed before an answer came")

    async def _body(self) -> bytes:
        body = bytearray()
        while True:
            event = await self._event()
            if isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._max_bytes:
                    raise self._too_large()
            elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                return bytes(body)

    async def _event(self) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            data = await self._connection.reader.read(_READ)
            self._budget -= len(data)
            if self._budget < 0:
                raise self._too_large()
            self._http.receive_data(data)

    def _too_large(self) -> EgressProblem:
        host = self._target.hostname or ""
        return EgressProblem(
            "egress_too_large", f"The answer of {host} is larger than {self._max_bytes} bytes.",
            fix="Check that the address points at the small file that is meant.",
            extra={"host": host, "max_bytes": self._max_bytes},
        )  # fmt: skip


@lru_cache(maxsize=1)
def _machine_trust() -> ssl.SSLContext:
    return ssl.create_default_context()


_ANY_REDIRECT = frozenset((300, 301, 302, 303, 305, 307, 308))

_DNS_REASONS = {
    Outcome.NO_SUCH_NAME: "doesn't exist in the DNS",
    Outcome.NO_SUCH_TYPE: "has neither an A nor an AAAA record",
    Outcome.ALIAS: "is an alias (CNAME) of a name that has no address",
    Outcome.SERVER_FAILURE: "can't be resolved: the DNS server answers SERVFAIL, often a DNSSEC error",
    Outcome.REFUSED: "can't be resolved: the DNS server refuses to answer",
    Outcome.TIMEOUT: "can't be resolved: the DNS server doesn't answer",
    Outcome.UNREACHABLE: "can't be resolved: the DNS server can't be reached",
    Outcome.MALFORMED: "can't be resolved: the DNS server's answer is damaged",
}


def _split(url: str, allowed_ports: Collection[int]) -> SplitResult:
    """Check and take apart a URL: http or https, no user part, a plain host, a permitted port."""
    if len(url) > _MAX_URL:
        raise _bad_url("The address is longer than 2048 characters.")
    if any(character <= " " or character == "\x7f" or character == "\\" for character in url):
        raise _bad_url("The address holds a space, a backslash or a control character.")
    try:
        split = urlsplit(url)
        port = split.port
    except ValueError:
        raise _bad_url("The address is not a valid URL.") from None
    if split.scheme not in ("http", "https"):
        raise _bad_url("The address must begin with http:// or https://.")
    if split.username is not None or split.password is not None:
        raise _bad_url("The address must not hold a user name or password.")
    host = split.hostname or ""
    if not host or "%" in host:
        raise _bad_url("The address names no host, or an IPv6 zone.")
    if not host.isascii():
        try:
            host = parse_dns_name(host, field="url").ascii
        except Problem as problem:
            raise _bad_url(f"The host in the address isn't a DNS name: {problem.message}") from None
    host = normal_name(host)
    if not _HOST.fullmatch(host):
        raise _bad_url("The host in the address is neither a DNS name nor an IP address.")
    number = port if port is not None else (443 if split.scheme == "https" else 80)
    if number not in allowed_ports:
        wanted = " and ".join(str(p) for p in sorted(allowed_ports))
        raise EgressProblem(
            "egress_denied", f"Port {number} of {host} may not be connected to; only {wanted}.",
            fix="Publish it on one of those ports.", extra={"host": host, "port": number, "address_class": "port"},
        )  # fmt: skip
    netloc = (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
    path = quote(split.path, safe="/:@!$&'()*+,;=~-._%")
    query = quote(split.query, safe="/:@!$&'()*+,;=~-._%?")
    return SplitResult(split.scheme, netloc, path, query, "")


def _redirected(
    target: SplitResult, status: int, location: str, allow: Collection[int], allowed_ports: Collection[int]
) -> SplitResult:
    if status not in allow:
        allowed = ", ".join(str(s) for s in sorted(allow)) or "none"
        raise _bad_redirect(target, f"status {status} isn't an allowed kind of redirect (allowed: {allowed})")
    try:
        return _split(urljoin(_join(target), location), allowed_ports)
    except Problem as problem:
        raise _bad_redirect(target, problem.message[0].lower() + problem.message[1:].rstrip(".")) from None
    except ValueError:
        raise _bad_redirect(target, "its Location is not a valid URL") from None


def _join(target: SplitResult) -> str:
    return target.geturl()


def _port(target: SplitResult) -> int:
    return target.port if target.port is not None else (443 if target.scheme == "https" else 80)


def _authority(target: SplitResult) -> str:
    default = 443 if target.scheme == "https" else 80
    return target.netloc.removesuffix(f":{default}")


def _bad_url(sentence: str) -> EgressProblem:
    return EgressProblem("egress_bad_url", sentence, field="url", fix="Write it like https://www.example.com/path.")


def _bad_redirect(target: SplitResult, reason: str) -> EgressProblem:
    host = target.hostname or ""
    return EgressProblem(
        "egress_bad_redirect", f"{host} answered with a redirect that isn't followed: {reason}.",
        fix="Serve the file at its own address, or redirect with 301, 302, 307 or 308 to http(s) on a usual port.",
        extra={"host": host},
    )  # fmt: skip


def _timeout(host: str, port: int, timeout: float) -> EgressProblem:
    return EgressProblem(
        "egress_timeout", f"{host} port {port} didn't finish answering within {timeout:g} seconds.",
        fix="Check that the server is reachable from here and answers quickly.", extra={"host": host, "port": port},
    )  # fmt: skip


def _os_reason(error: OSError) -> str:
    """The system's own words: asyncio puts "Connect call failed (…)" in their place."""
    return os.strerror(error.errno) if error.errno else type(error).__name__


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or "protocol error").replace("_", " ").lower()
