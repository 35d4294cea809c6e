"""Lists, OCSP and CA certificates without TLS, at the address of `status_listen`; nothing else is to be had there.

Whoever checks a certificate can't be asked to check ours first, so the field fetches these over plain HTTP: each
document is signed. Answers are given again by the octets of the question, for thousands a second from one process; what
the room says of them is asked each time, so that a revocation is told here as soon as anywhere.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Final, cast

import httptools
import structlog
from prometheus_client import Counter

from certwright.entry.public import (
    Document,
    answer_document,
    ca_document,
    crl_document,
    failed_answer,
    is_known,
)
from certwright.kernel.problems import Invalid, NotFound, Problem, Unavailable
from certwright.platform.config import host_and_port
from certwright.platform.services import Services
from certwright.platform.telemetry import REQUESTS
from certwright.rooms import authorities
from certwright.x509 import ocsp

log = structlog.get_logger(__name__)

# A question in a path has at most 1,400 characters; everything else is headers.
_LONGEST_REQUEST = 16 * 1024
# Kept by the octets of their question, with the answer about two kilobytes each. One that asks without a nonce has 100
# octets; who makes it longer is answered each time.
_MOST_KEPT = 10_000
_LONGEST_KEPT = 512
_MOST_CONNECTIONS = 500
# Requests of one connection that wait for an answer; more of them are read when it has been given.
_MOST_WAITING = 16
_IDLE_SECONDS = 30.0
_SWEEP_SECONDS = 5.0
_METHODS: Final = (b"GET", b"HEAD", b"POST")
# RFC 9110 section 10.1.1.
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_KINDS: Final = ("ocsp", "crl", "ca")
_REASONS: Final = {
    200: b"OK", 304: b"Not Modified", 400: b"Bad Request", 404: b"Not Found", 405: b"Method Not Allowed",
    413: b"Content Too Large", 500: b"Internal Server Error", 503: b"Service Unavailable",
}  # fmt: skip


@dataclass(slots=True)
class _Asked:
    """A request as it is read."""

    url: bytes = b""
    method: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    if_none_match: str | None = None
    body: bytearray = field(default_factory=bytearray)
    keep_alive: bool = True

    @property
    def reads(self) -> bool:
        return self.method in (b"GET", b"HEAD")

    def without_offer(self, version: bytes) -> bytes:
        """The head as it came, but for the offer to go on in another protocol."""
        lines = [b"%s %s HTTP/%s" % (self.method, self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0].lower() != b"upgrade"]
        return b"\r\n".join(lines) + b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer that was given, and the head it was given with, without the date."""

    authority_id: str
    answer: authorities.StatusAnswer
    head: bytes


class StatusListener:
    """Listens from `start` to `stop`. Raises Unavailable `status_listen_failed` when it can't."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._answers = services.port(authorities.StatusAnswers)
        self._kept: OrderedDict[tuple[bytes, bytes, bytes], _Kept] = OrderedDict()
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self.conversations: set[_Conversation] = set()
        self._date = (0, b"")
        self._counters: dict[tuple[bytes, str, int], Counter] = {}

    async def start(self) -> None:
        address = self._services.settings.status_listen
        assert address is not None, "started only where it is set"
        host, port = host_and_port(address)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: _Conversation(self), host, port, backlog=1024)
        except OSError as error:
            raise Unavailable(
                "status_listen_failed", f"The address {address} can't be listened on: {error.strerror}.",
                field="CERTWRIGHT_STATUS_LISTEN", fix="Stop what uses it, or set another HOST:PORT.",
            ) from error  # fmt: skip
        self._sweeping = asyncio.create_task(self._sweep(), name="status listener")
        log.info("lists and OCSP are given without TLS", listen=address)

    @property
    def port(self) -> int:
        assert self._server is not None, "it was started"
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        for conversation in list(self.conversations):
            conversation.end()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.end_silent()

    def end_silent(self) -> None:
        """Ends connections that say nothing, or nothing whole, and take nothing of what they are given."""
        long_ago = time.monotonic() - _IDLE_SECONDS
        for conversation in list(self.conversations):
            conversation.look_whether_it_reads()
            if conversation.heard_at < long_ago:
                conversation.end()

    def make_room(self) -> None:
        """The one that has been silent for longest gives way."""
        if len(self.conversations) >= _MOST_CONNECTIONS:
            min(self.conversations, key=lambda one: one.heard_at).end()

    # --- answering ---------------------------------------------------------------------------------------------------

    def at_once(self, asked: _Asked) -> bytes | None:
        """The response where the very question was answered before and nothing has changed since."""
        kept = self._kept.get((asked.method, asked.url, bytes(asked.body)))
        if kept is None or not self._answers.still_good(kept.authority_id, kept.answer):
            return None
        self.count(asked.method, "ocsp", 200)
        return b"".join((kept.head, self._now(), kept.answer.der))

    async def respond(self, asked: _Asked) -> bytes:
        """The response, whatever it takes."""
        kind, _, rest = _path(asked.url).lstrip("/").partition("/")
        try:
            document = await self._document(asked, kind, rest)
        except NotFound:
            return self._plain(asked, kind, 404, b"There is nothing at this address.\n")
        except Problem as problem:
            log.warning("a status request was refused", code=problem.code, kind=kind)
            if kind == "ocsp":
                document = failed_answer(ocsp.Failure.TRY_LATER)
            else:
                return self._plain(asked, kind, 503, b"Not now; try again in a few seconds.\n", b"Retry-After: 5\r\n")
        # What nobody foresaw must end one request only; it is logged whole.
        except Exception:
            log.exception("a status request failed", kind=kind)
            return self._plain(asked, kind, 500, b"Something went wrong here.\n")
        if document is None:
            return self._plain(asked, kind, 405, b"This can't be done here.\n", b"Allow: GET, HEAD\r\n")
        # Not to a POST: "not modified" is an answer to who reads (RFC 9110 section 13.1.2).
        if asked.reads and document.content is not None and is_known(asked.if_none_match, document.etag):
            document = Document(None, document.media_type, document.headers, document.etag)
        self.count(asked.method, kind, document.status)
        body = document.content if document.content is not None and asked.method != b"HEAD" else b""
        return b"".join((_head(document), self._now(), body))

    async def _document(self, asked: _Asked, kind: str, rest: str) -> Document | None:
        """None for a method that isn't for this address."""
        if kind == "ocsp":
            may = asked.reads or asked.method == b"POST"
            return await self._status(asked, *rest.partition("/")[::2]) if may else None
        if kind not in ("crl", "ca"):
            raise NotFound("no_such_address", "There is nothing at this address.", fix="Check the path.")
        if not asked.reads:
            return None
        if kind == "crl":
            return await crl_document(self._services, rest, asked.if_none_match)
        return await ca_document(self._services, rest)

    async def _status(self, asked: _Asked, authority_id: str, text: str) -> Document:
        try:
            if asked.method == b"POST":
                question = ocsp.read_question(bytes(asked.body))
            else:
                question = ocsp.question_from_path(text)
        except Invalid:
            return failed_answer(ocsp.Failure.MALFORMED_REQUEST)
        answer = await self._answers.answer(authority_id, question)
        document = answer_document(answer, question)
        short = len(asked.url) + len(asked.body) <= _LONGEST_KEPT
        if document.etag is not None and answer.may_be_kept and short and asked.method != b"HEAD":
            self._kept[asked.method, asked.url, bytes(asked.body)] = _Kept(authority_id, answer, _head(document))
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return document

    def _plain(self, asked: _Asked, kind: str, status: int, text: bytes, headers: bytes = b"") -> bytes:
        self.count(asked.method, kind, status)
        return self.refusal(status, text, headers, with_body=asked.method != b"HEAD")

    def refusal(self, status: int, text: bytes, headers: bytes = b"", *, with_body: bool = True) -> bytes:
        line = b"HTTP/1.1 %d %s\r\n" % (status, _REASONS[status])
        what = b"Content-Type: text/plain\r\nContent-Length: %d\r\n" % len(text)
        return b"".join((line, what, headers, self._now(), text if with_body else b""))

    def _now(self) -> bytes:
        """The Date header and the end of the headers."""
        second = int(time.time())
        if second != self._date[0]:
            self._date = (second, b"Date: " + formatdate(second, usegmt=True).encode() + b"\r\n\r\n")
        return self._date[1]

    def count(self, method: bytes, kind: str, status: int) -> None:
        key = (method if method in _METHODS else b"other", kind if kind in _KINDS else "none", status)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = REQUESTS.labels(key[0].decode(), f"status/{key[1]}", status)
        counter.inc()


def _path(url: bytes) -> str:
    """Without query; a client that takes us for a proxy writes the whole address."""
    if not url.startswith(b"/"):
        try:
            url = httptools.parse_url(url).path or b"/"
        except httptools.HttpParserInvalidURLError:
            return ""
    return url.partition(b"?")[0].decode("latin-1")


def _head(document: Document) -> bytes:
    lines = [f"HTTP/1.1 {document.status} {_REASONS[document.status].decode()}"]
    lines += [f"{name}: {value}" for name, value in document.headers.items()]
    if document.etag is not None:
        lines.append(f"ETag: {document.etag}")
    if document.content is not None:
        lines += [f"Content-Type: {document.media_type}", f"Content-Length: {len(document.content)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n"


class _Conversation(asyncio.Protocol):
    """One connection: requests are answered in the order they come."""

    def __init__(self, listener: StatusListener) -> None:
        self._listener = listener
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._asked = _Asked()
        self._octets = 0
        self._waiting: deque[_Asked] = deque()
        self._answering: asyncio.Task[None] | None = None
        self._full = False
        # Said when all that was asked before is answered: that more of the request may come, or that nothing may.
        self._invitation = b""
        self._refusal = b""
        self._left = 0
        self.heard_at = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own kind
        self._listener.make_room()
        self._listener.conversations.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._listener.conversations.discard(self)
        self._transport = None
        if self._answering is not None:
            self._answering.cancel()

    def end(self) -> None:
        self._listener.conversations.discard(self)
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        """Whoever doesn't read isn't listened to."""
        self._full = True
        self._pace()

    def resume_writing(self) -> None:
        self._full = False
        self._pace()

    def _pace(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._full or len(self._waiting) >= _MOST_WAITING:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def look_whether_it_reads(self) -> None:
        """A large list takes its time on a slow line."""
        if self._transport is not None:
            left = self._transport.get_write_buffer_size()
            if left < self._left:
                self.heard_at = time.monotonic()
            self._left = left

    def data_received(self, data: bytes) -> None:
        if self._refusal:
            return
        self._octets += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserCallbackError:
            log.exception("a status request could not be read")
            self._refuse(500, b"Something went wrong here.\n")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(400, b"This is not a request.\n")
        if self._octets > _LONGEST_REQUEST:
            self._refuse(413, b"The request is too large.\n")

    def _feed(self, data: bytes) -> None:
        left = memoryview(data)
        while True:
            try:
                self._parser.feed_data(left)
                return
            except httptools.HttpParserUpgrade as offer:
                asked, before = self._asked, self._parser
                asked.method = before.get_method()
                if asked.method == b"CONNECT":
                    raise
                # Nobody has to accept another protocol (RFC 9110 section 7.8). The parser stops at the offer and takes
                # the request to have no body: its head is read again without it.
                self._parser = httptools.HttpRequestParser(self)
                self._parser.feed_data(asked.without_offer(before.get_http_version().encode()))
                left = left[offer.args[0] :]

    def _refuse(self, status: int, text: bytes) -> None:
        """The last word on this connection."""
        self._refusal = self._refusal or self._listener.refusal(status, text, b"Connection: close\r\n")
        self._say_what_waited()

    def _say_what_waited(self) -> None:
        if self._answering is not None or self._transport is None or self._transport.is_closing():
            return
        self._transport.write(self._refusal or self._invitation)
        self._invitation = b""
        if self._refusal:
            self._transport.close()

    # --- what the parser finds ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._asked = _Asked()

    def on_url(self, url: bytes) -> None:
        self._asked.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        asked = self._asked
        asked.headers.append((name, value))
        if len(name) == 13 and name.lower() == b"if-none-match":
            said = value.decode("latin-1")
            # Lines of one name are one list (RFC 9110 section 5.3).
            asked.if_none_match = said if asked.if_none_match is None else f"{asked.if_none_match}, {said}"
        elif len(name) == 6 and name.lower() == b"expect" and value.lower() == b"100-continue":
            self._invitation = _CONTINUE

    def on_headers_complete(self) -> None:
        if self._invitation and self._parser.get_http_version() != "1.1":
            self._invitation = b""
        if self._invitation and not self._parser.should_upgrade():
            self._say_what_waited()

    def on_body(self, body: bytes) -> None:
        self._invitation = b""
        if len(self._asked.body) <= ocsp.MAX_QUESTION_OCTETS:
            self._asked.body += body

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return  # see _feed
        asked, self._octets, self._invitation = self._asked, 0, b""
        asked.method = self._parser.get_method()
        asked.keep_alive = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"
        self.heard_at = time.monotonic()
        if self._answering is None and asked.if_none_match is None:
            response = self._listener.at_once(asked)
            if response is not None:
                self._write(asked, response)
                return
        self._waiting.append(asked)
        if self._answering is None:
            self._answering = asyncio.get_running_loop().create_task(self._answer())
        elif len(self._waiting) >= _MOST_WAITING:
            self._pace()

    async def _answer(self) -> None:
        while self._waiting and self._transport is not None:
            asked = self._waiting.popleft()
            self._write(asked, await self._listener.respond(asked))
            self._pace()
        self._answering = None
        if self._refusal or self._invitation:
            self._say_what_waited()

    def _write(self, asked: _Asked, response: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if asked.keep_alive:
            self._transport.write(response)
        else:
            # The first line, then what every answer to be the last one says.
            line, _, rest = response.partition(b"\r\n")
            self._transport.write(b"".join((line, b"\r\nConnection: close\r\n", rest)))
            self._transport.close()
