"""The API as seen from a client: verified TLS, problems as exceptions, pages as one iterator."""

from __future__ import annotations

import ssl
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from certwright.entry.cli.errors import NOT_REACHABLE, NOT_SIGNED_IN, USAGE, CliError, from_answer
from certwright.entry.cli.settings import Connection

PREFIX = "/api/v1"
_PAGE = 100
# Lists that are always answered whole, and so take no limit.
_WHOLE = frozenset(("/acme-directories", "/authorities", "/ca-policies", "/ca-profiles"))
_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """`document` is the parsed JSON, None when there was none; `content` the bytes as they came."""

    status: int
    document: Any
    headers: Mapping[str, str]
    content: bytes


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Verifies always: against `ca_file` if there is one, else against the system's roots."""
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise CliError(
            "ca_file_unreadable", f"The CA file {ca_file} can't be used: {error}.",
            "Name a PEM file with the server's root certificate.", exit_code=USAGE,
        ) from error  # fmt: skip


class Api:
    """One server. Paths are below /api/v1. Raises CliError for every refusal and failure."""

    def __init__(self, connection: Connection, *, timeout: float = _TIMEOUT) -> None:
        self.url = connection.url
        headers = {"Accept": "application/json", "User-Agent": "certwright-cli"}
        if connection.token:
            headers["Authorization"] = f"Bearer {connection.token}"
        self._client = httpx2.Client(
            base_url=connection.url, verify=tls_context(connection.ca_file), headers=headers, timeout=timeout,
            trust_env=False,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **params: Any) -> Any:
        """The document at `path`; parameters that are None are left out."""
        return self.call("GET", path, params=params).document

    def post(self, path: str, body: Any = None) -> Any:
        return self.call("POST", path, body=body).document

    def put(self, path: str, body: Any) -> Any:
        return self.call("PUT", path, body=body).document

    def patch(self, path: str, body: Any) -> Any:
        """Change what is there now: reads the revision first, so that a change made meanwhile is not overwritten."""
        now = self.call("GET", path)
        etag = now.headers.get("etag") or f'"{now.document["revision"]}"'
        return self.call("PATCH", path, body=body, headers={"If-Match": etag}).document

    def delete(self, path: str) -> None:
        self.call("DELETE", path)

    def pages(self, path: str, *, limit: int | None, **params: Any) -> Iterator[dict[str, Any]]:
        """Items of a list, fetched a page at a time; `limit` None means all."""
        if path in _WHOLE:
            yield from self.get(path, **params)["items"][:limit]
            return
        left, cursor = limit, None
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            page = self.get(path, limit=size, cursor=cursor, **params)
            items = page["items"] if left is None else page["items"][:left]
            yield from items
            left = None if left is None else left - len(items)
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request. A POST carries a fresh Idempotency-Key, so it may be sent again when its answer was lost."""
        sent = dict(headers or {})
        if method == "POST":
            sent["Idempotency-Key"] = str(uuid.uuid4())
        given = {k: v for k, v in (params or {}).items() if v is not None and v != []}
        answer = self._send(method, PREFIX + path, body, given, sent)
        document: Any = None
        if answer.content and "json" in answer.headers.get("content-type", ""):
            try:
                document = answer.json()
            except ValueError:
                document = None
        if answer.status_code >= 400:
            error = from_answer(answer.status_code, document)
            # A wrong password is mended by another one, and the server says so itself.
            if error.exit_code == NOT_SIGNED_IN and error.code != "bad_credentials":
                error.fix = "Run certwright login, or set CERTWRIGHT_TOKEN."
            raise error
        return Reply(answer.status_code, document, answer.headers, answer.content)

    def _send(
        self, method: str, path: str, body: Any, params: Mapping[str, Any], headers: Mapping[str, str]
    ) -> httpx2.Response:
        tries = 2 if method in ("GET", "POST") else 1
        while True:
            tries -= 1
            try:
                # Empty parameters would take the query off the path.
                return self._client.request(method, path, json=body, params=params or None, headers=headers)
            except (httpx2.RemoteProtocolError, httpx2.ReadError):
                if not tries:
                    raise self._unreachable("it hung up before answering") from None
            except httpx2.TimeoutException:
                raise self._unreachable("it didn't answer in time") from None
            except httpx2.TransportError as error:
                raise self._transport_error(error) from error

    def _transport_error(self, error: httpx2.TransportError) -> CliError:
        reason: BaseException | None = error
        while reason is not None:
            if isinstance(reason, ssl.SSLCertVerificationError):
                return CliError(
                    "certificate_not_trusted",
                    f"The certificate of {self.url} could not be verified: {reason.verify_message}.",
                    "Run certwright login to trust its root, or set CERTWRIGHT_CA_FILE to a file with the root.",
                    exit_code=NOT_REACHABLE,
                )
            reason = reason.__cause__ or reason.__context__
        return self._unreachable(str(error) or type(error).__name__)

    def _unreachable(self, why: str) -> CliError:
        return CliError(
            "not_reachable", f"{self.url} can't be reached: {why}.",
            "Check the address (CERTWRIGHT_URL) and that the server runs.", exit_code=NOT_REACHABLE,
        )  # fmt: skip


def polled(read: Any, *, seconds: float, first: float = 0.1, longest: float = 2.0) -> Iterator[Any]:
    """`read()` again and again, ever more slowly, until the caller has seen enough or `seconds` are over."""
    deadline, pause = time.monotonic() + seconds, first
    while True:
        yield read()
        if time.monotonic() + pause > deadline:
            return
        time.sleep(pause)
        pause = min(pause * 1.3, longest)
