"""A load of ACME clients (RFC 8555) against any server: each with an account of its own, ES256, one connection kept,
one name an order, http-01 answered from here. Prints one line of JSON.

    python bench/acme_load.py <directory> --root root.pem --http 127.0.0.1:5002 --dns 127.0.0.1:5053
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import itertools
import json
import resource
import secrets
import ssl
import statistics
import struct
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

_ZONE = "load.test"
_ONE_ORDER = 20.0
_MOST_FAILURES = 20
# Servers validate in some milliseconds: asked again after so many, then less and less often.
_FIRST_LOOK, _LAST_LOOK = 0.003, 0.25
_A, _IN = 1, 1


class LoadError(Exception):
    """An order that failed, and what the server said."""


# --- what the server looks at ----------------------------------------------------------------------------------------


class Challenges(asyncio.Protocol):
    """http-01: what is asked for under a token."""

    def __init__(self, answers: dict[str, str]) -> None:
        self._answers = answers
        self._transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        token = data.split(b" ", 2)[1].rpartition(b"/")[2].decode("latin-1")
        body = self._answers.get(token, "").encode()
        line = b"200 OK" if body else b"404 Not Found"
        head = b"HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        self._transport.write(head % (line, len(body)) + body)
        self._transport.close()


class Names(asyncio.DatagramProtocol):
    """A name server: every name has one address, and nothing else."""

    def __init__(self, address: str) -> None:
        self._address = bytes(map(int, address.split(".")))
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, sender: Any) -> None:
        end = 12
        while data[end]:
            end += data[end] + 1
        question = data[12 : end + 5]
        is_address = struct.unpack("!HH", data[end + 1 : end + 5]) == (_A, _IN)
        # Authoritative, without recursion; the answer's name points to the question's.
        head = data[:2] + struct.pack("!HHHHH", 0x8580, 1, int(is_address), 0, 0)
        answer = b"\xc0\x0c" + struct.pack("!HHIH", _A, _IN, 1, 4) + self._address if is_address else b""
        self._transport.sendto(head + question + answer, sender)


# --- clients ---------------------------------------------------------------------------------------------------------


class Connection:
    """HTTP/1.1 on one connection, opened anew when the server has closed it; small, so that the load costs little."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        split = urlsplit(url)
        self._host, self._netloc = split.hostname, split.netloc
        self._port, self._context = split.port, context
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, url: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """(status, headers by lower-case name, body)"""
        split = urlsplit(url)
        head = (
            f"{method} {split.path} HTTP/1.1\r\nHost: {self._netloc}\r\nUser-Agent: load\r\n"
            f"Content-Type: application/jose+json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        for again in (True, False):
            reader, writer = await self._open()
            try:
                writer.write(head.encode() + body)
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                break
            except (ConnectionError, asyncio.IncompleteReadError):
                self.close()
                if not again:
                    raise
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        status = int(lines[0].split(" ", 2)[1])
        content = b"" if method == "HEAD" or status == 204 else await self._body(reader, headers)
        if headers.get("connection") == "close":
            self.close()
        return status, headers, content

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(
                self._host, self._port, ssl=self._context, server_hostname=self._host
            )
        return self._streams

    @staticmethod
    async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await reader.readexactly(int(headers.get("content-length", "0")))
        content = b""
        while size := int(await reader.readline(), 16):
            content += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readline()
        return content

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


class Client:
    """One account."""

    def __init__(self, directory_url: str, context: ssl.SSLContext, answers: dict[str, str]) -> None:
        self._connection = Connection(directory_url, context)
        self._directory_url, self._answers = directory_url, answers
        self._key = ec.generate_private_key(ec.SECP256R1())
        point = self._key.public_key().public_numbers()
        x, y = (_b64(number.to_bytes(32, "big")) for number in (point.x, point.y))
        self._jwk = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
        self._thumbprint = _b64(hashlib.sha256(_json(self._jwk)).digest())
        self._directory: dict[str, Any] = {}
        self._kid: str | None = None
        self._nonce: str | None = None

    async def register(self) -> None:
        _, _, body = await self._connection.request("GET", self._directory_url)
        self._directory = json.loads(body)
        headers, _ = await self._post(self._directory["newAccount"], {"termsOfServiceAgreed": True})
        self._kid = headers["location"]

    async def _post(self, url: str, payload: dict[str, Any] | None) -> tuple[dict[str, str], bytes]:
        """`payload` None is POST-as-GET."""
        for _ in range(5):
            if self._nonce is None:
                _, headers, _ = await self._connection.request("HEAD", self._directory["newNonce"])
                self._nonce = headers["replay-nonce"]
            who = {"kid": self._kid} if self._kid else {"jwk": self._jwk}
            protected = _b64(_json({"alg": "ES256", "nonce": self._nonce, "url": url, **who}))
            body = "" if payload is None else _b64(_json(payload))
            r, s = decode_dss_signature(self._key.sign(f"{protected}.{body}".encode(), ec.ECDSA(hashes.SHA256())))
            signature = _b64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
            jws = _json({"protected": protected, "payload": body, "signature": signature})
            status, headers, content = await self._connection.request("POST", url, jws)
            self._nonce = headers.get("replay-nonce")
            if status < 400:
                return headers, content
            if b"badNonce" not in content:
                break
        raise LoadError(f"{status} {urlsplit(url).path}: {content[:300].decode(errors='replace')}")

    async def _until(self, url: str, waiting: tuple[str, ...]) -> dict[str, Any]:
        """What it is when it is none of `waiting` any more."""
        wait = _FIRST_LOOK
        while True:
            found: dict[str, Any] = json.loads((await self._post(url, None))[1])
            if found["status"] not in waiting:
                return found
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, _LAST_LOOK)

    async def order(self, name: str) -> bytes:
        """From the order to the chain (PEM). Raises LoadError."""
        key = ec.generate_private_key(ec.SECP256R1())
        csr = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        identifiers = {"identifiers": [{"type": "dns", "value": name}]}
        headers, body = await self._post(self._directory["newOrder"], identifiers)
        order_url, order = headers["location"], json.loads(body)
        for url in order["authorizations"]:
            await self._prove(url)
        der = csr.public_bytes(serialization.Encoding.DER)
        order = json.loads((await self._post(order["finalize"], {"csr": _b64(der)}))[1])
        if order["status"] != "valid":
            order = await self._until(order_url, ("processing", "ready"))
        if order["status"] != "valid":
            raise LoadError(f"the order ended {order['status']}: {order.get('error')}")
        _, chain = await self._post(order["certificate"], None)
        if not chain.startswith(b"-----BEGIN CERTIFICATE"):
            raise LoadError("what came is no certificate")
        return chain

    async def _prove(self, url: str) -> None:
        authorization = json.loads((await self._post(url, None))[1])
        challenge = next(one for one in authorization["challenges"] if one["type"] == "http-01")
        self._answers[challenge["token"]] = f"{challenge['token']}.{self._thumbprint}"
        await self._post(challenge["url"], {})
        found = await self._until(url, ("pending",))
        del self._answers[challenge["token"]]
        if found["status"] != "valid":
            raise LoadError(f"validation ended {found['status']}: {json.dumps(found)[:400]}")

    def close(self) -> None:
        self._connection.close()


# --- the load --------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """Times in milliseconds; `cpu` is the client's, in seconds."""

    orders: int
    seconds: float
    p50: float
    p99: float
    cpu: float
    failed: int
    first_failure: str


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def load(directory_url: str, clients: int, seconds: float, root: Path, http: str, dns: str) -> Result:
    loop = asyncio.get_running_loop()
    answers: dict[str, str] = {}
    host, port = _host_port(http)
    server = await loop.create_server(lambda: Challenges(answers), host, port, backlog=1024)
    names, _ = await loop.create_datagram_endpoint(lambda: Names(host), _host_port(dns))
    context = ssl.create_default_context(cafile=str(root))
    crowd = [Client(directory_url, context, answers) for _ in range(clients)]
    word, number = secrets.token_hex(4), itertools.count()
    took: list[float] = []
    failures: list[str] = []
    try:
        for client in crowd:
            await client.register()
        await asyncio.gather(*(client.order(f"w{next(number)}.{word}.{_ZONE}") for client in crowd))
        spent, begun = _cpu(), time.perf_counter()

        async def work(client: Client) -> None:
            while time.perf_counter() - begun < seconds and len(failures) < _MOST_FAILURES:
                started = time.perf_counter()
                try:
                    async with asyncio.timeout(_ONE_ORDER):
                        await client.order(f"o{next(number)}.{word}.{_ZONE}")
                    took.append(1000 * (time.perf_counter() - started))
                except (LoadError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                    failures.append(f"{type(error).__name__}: {error}"[:500])
                    client.close()

        await asyncio.gather(*map(work, crowd))
        lasted = time.perf_counter() - begun
    finally:
        for client in crowd:
            client.close()
        server.close()
        names.close()
    ranked = sorted(took) or [0.0]
    p99 = ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))]
    first = failures[0] if failures else ""
    return Result(len(took), lasted, statistics.median(ranked), p99, _cpu() - spent, len(failures), first)


def _cpu() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", help="address of the server's directory")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--root", type=Path, required=True, help="what vouches for the server's TLS (PEM)")
    parser.add_argument("--http", required=True, help="HOST:PORT, IPv4, where http-01 is answered")
    parser.add_argument("--dns", required=True, help="HOST:PORT where names are answered, all with the host of --http")
    given = parser.parse_args()
    result = uvloop.run(
        load(given.directory, given.clients, given.seconds, given.root, given.http, given.dns)
    )  # fmt: skip
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
