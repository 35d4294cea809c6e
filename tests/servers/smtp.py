"""A real SMTP server (aiosmtpd) that does as told: accept, refuse, postpone, hang, ask for TLS and sign-in."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.servers.ports import free_port


@dataclass
class Mail:
    """One message as it arrived."""

    sender: str
    recipients: list[str]
    content: bytes
    over_tls: bool
    signed_in: bool

    @property
    def message(self) -> EmailMessage:
        parsed = email.message_from_bytes(self.content, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed


@dataclass
class MailServer:
    """`replies` are used up one by one at the end of DATA (default: accept); likewise `recipient_replies` at RCPT.

    `hang_at`: `greeting` or `data`, where the server goes silent. `lose_reply`: takes the message, then hangs up
    instead of saying so."""

    port: int = 0
    mails: list[Mail] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    recipient_replies: list[str] = field(default_factory=list)
    hang_at: str = ""
    lose_reply: bool = False
    connections: int = 0
    username: str = "postbox"
    password: str = "s3cret"
    _server: asyncio.Server | None = None

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.recipient_replies:
            reply = self.recipient_replies.pop(0)
            if not reply.startswith("2"):
                return reply
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.hang_at == "data":
            await asyncio.Event().wait()
        reply = self.replies.pop(0) if self.replies else "250 taken"
        if reply.startswith("2"):
            content = envelope.original_content or b""
            assert server.transport is not None
            tls = server.transport.get_extra_info("ssl_object") is not None
            sender = envelope.mail_from or ""
            self.mails.append(Mail(sender, list(envelope.rcpt_tos), content, tls, bool(session.authenticated)))
        if self.lose_reply:
            self.lose_reply = False
            assert server.transport is not None
            server.transport.abort()
        return reply

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        good = data.login == self.username.encode() and data.password == self.password.encode()
        return AuthResult(success=good, handled=False)

    async def listen(self, context: ssl.SSLContext | None, *, starttls: bool, auth: bool) -> None:
        loop = asyncio.get_running_loop()

        def session() -> asyncio.Protocol:
            self.connections += 1
            if self.hang_at == "greeting":
                return asyncio.Protocol()
            return SMTP(
                self, hostname="mail.example.test", loop=loop, enable_SMTPUTF8=False, timeout=30,
                tls_context=context if starttls else None, require_starttls=starttls,
                auth_required=auth, auth_require_tls=True, authenticator=self.authenticate if auth else None,
            )  # fmt: skip

        at_once = None if starttls else context
        self._server = await loop.create_server(session, "127.0.0.1", free_port(), ssl=at_once)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def mail_server(
    *, context: ssl.SSLContext | None = None, starttls: bool = False, auth: bool = False
) -> Iterator[MailServer]:
    """Listening on a free port of 127.0.0.1. A context means TLS at once, or after STARTTLS with `starttls`."""
    server = MailServer()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="mail-server", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.listen(context, starttls=starttls, auth=auth), loop).result(60)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
