"""The SMTP client: one connection a letter, everything bounded in time, every refusal a reason a person can act on."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from certwright.connectors.channel.smtp.envelope import as_email
from certwright.kernel.problems import Problem, Refused, Unavailable
from certwright.platform.config import Settings
from certwright.platform.db import assert_no_transaction
from certwright.rooms.notify import Letter, NotSentError, Receipt

_MAX_LINE = 8 * 1024
_MAX_LINES = 100


@dataclass(frozen=True, slots=True)
class _Reply:
    """A whole reply (RFC 5321 4.2): the code and the text of each line."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(line for line in self.lines if line)

    def __str__(self) -> str:
        return f"{self.code} {self.text}"[:300]


class SmtpChannel:
    """Sends through one mail server.

    `security`: `starttls` (TLS is required, never skipped because the server doesn't offer it), `tls` from the first
    byte, or `none`. `timeout` in seconds covers a whole delivery: keep it below the lease of a step.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        sender: str,
        security: str = "starttls",
        username: str | None = None,
        password: str | None = None,
        timeout: float = 30.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host, self._port, self._sender, self._security = host, port, sender, security
        self._username, self._password = username, password
        self._timeout = timeout
        self._tls = tls

    @classmethod
    def of(cls, settings: Settings) -> SmtpChannel | None:
        """As the operator set it; None when no mail server is set."""
        if settings.smtp_host is None:
            return None
        password = settings.smtp_password
        return cls(
            settings.smtp_host,
            settings.smtp_port,
            sender=settings.smtp_from,
            security=settings.smtp_security,
            username=settings.smtp_username,
            password=password.get_secret_value() if password else None,
            timeout=min(30.0, settings.step_lease / 2),
        )

    async def send(self, letter: Letter) -> Receipt:
        """Deliver to the mail server. Raises NotSentError: permanent for a 5xx about this letter, else for now."""
        assert_no_transaction()
        message = as_email(letter, sender=self._sender)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._deliver(letter.to_address, message)
        except TimeoutError:
            raise self._later("smtp_timeout", f"didn't answer within {self._timeout:g} seconds") from None
        except ssl.SSLCertVerificationError as error:
            raise self._later(
                "smtp_tls", f"has a certificate that isn't trusted here: {error.verify_message}",
                "Give the server a certificate valid for that name, or set the name it is valid for.",
            ) from None  # fmt: skip
        except ssl.SSLError as error:
            reason = (error.reason or "protocol error").replace("_", " ").lower()
            raise self._later("smtp_tls", f"failed the TLS handshake: {reason}") from None
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            reason = getattr(error, "strerror", None) or "the connection was lost"
            raise self._later("smtp_unreachable", f"can't be talked to: {reason}") from None

    async def _deliver(self, to_address: str, message: bytes) -> Receipt:
        context = self._tls or ssl.create_default_context()
        at_once = self._security == "tls"
        reader, writer = await asyncio.open_connection(
            self._host, self._port, limit=_MAX_LINE, ssl=context if at_once else None,
            server_hostname=self._host if at_once else None,
        )  # fmt: skip
        talk = _Talk(reader, writer)
        try:
            await self._greet(talk, context)
            await self._authenticate(talk)
            await self._expect(talk, f"MAIL FROM:<{self._sender}>", (250,), about_letter=True)
            await self._expect(talk, f"RCPT TO:<{to_address}>", (250, 251), about_letter=True)
            await self._expect(talk, "DATA", (354,), about_letter=True)
            talk.put(_stuffed(message))
            reply = await talk.reply()
            if reply.code != 250:
                raise self._refusal(reply, "the message", about_letter=True)
            await talk.leave()
            return Receipt(str(reply))
        finally:
            writer.transport.abort()

    async def _greet(self, talk: _Talk, context: ssl.SSLContext) -> None:
        greeting = await talk.reply()
        if greeting.code != 220:
            raise self._refusal(greeting, "the greeting")
        offered = await self._hello(talk)
        if self._security == "starttls":
            if "STARTTLS" not in offered:
                raise self._later(
                    "smtp_no_starttls", "doesn't offer STARTTLS, and sending in clear isn't allowed",
                    "Set smtp_security to tls with the port for it (465), or to none for a server on this machine.",
                )  # fmt: skip
            await self._expect(talk, "STARTTLS", (220,))
            await talk.start_tls(context, self._host)
            # What was offered in clear may have been altered on the way (RFC 3207 4.2).
            offered = await self._hello(talk)
        talk.offered = offered

    async def _hello(self, talk: _Talk) -> dict[str, str]:
        reply = await self._expect(talk, f"EHLO {self._sender.rpartition('@')[2]}", (250,))
        words = (line.partition(" ") for line in reply.lines[1:])
        return {keyword.upper(): rest.upper() for keyword, _, rest in words}

    async def _authenticate(self, talk: _Talk) -> None:
        if self._username is None:
            return
        mechanisms = talk.offered.get("AUTH", "").split()
        user, password = self._username.encode(), (self._password or "").encode()
        if "PLAIN" in mechanisms:
            response = base64.b64encode(b"\0" + user + b"\0" + password).decode()
            await self._expect(talk, f"AUTH PLAIN {response}", (235,), secret=True)
        elif "LOGIN" in mechanisms:
            await self._expect(talk, "AUTH LOGIN", (334,), secret=True)
            await self._expect(talk, base64.b64encode(user).decode(), (334,), secret=True)
            await self._expect(talk, base64.b64encode(password).decode(), (235,), secret=True)
        else:
            raise self._later(
                "smtp_no_auth", "offers no way to sign in that is known here (PLAIN or LOGIN)",
                "Check smtp_security and the port: many servers offer it only under TLS, on port 587 or 465.",
            )  # fmt: skip

    async def _expect(
        self, talk: _Talk, command: str, codes: Sequence[int], *, about_letter: bool = False, secret: bool = False
    ) -> _Reply:
        talk.put(command.encode("ascii") + b"\r\n")
        reply = await talk.reply()
        if reply.code not in codes:
            raise self._refusal(reply, "the sign-in" if secret else command.split(":")[0], about_letter=about_letter)
        return reply

    def _refusal(self, reply: _Reply, what: str, *, about_letter: bool = False) -> NotSentError:
        """RFC 5321 4.2.1: 4xx may go better later, 5xx about the letter never; 5xx about us is the operator's to mend,
        so that the letter waits."""
        permanent = about_letter and 500 <= reply.code <= 599
        kind = Refused if permanent else Unavailable
        code = "smtp_sign_in" if what == "the sign-in" else "smtp_rejected" if permanent else "smtp_postponed"
        fix = (
            "Check the address of the recipient." if permanent else "It is tried again by itself; the answer says why."
        )
        if code == "smtp_sign_in":
            fix = "Check smtp_username and smtp_password."
        problem: Problem = kind(code, f"{self._where} answered {str(reply)!r} to {what}.", fix=fix)
        return NotSentError(problem, permanent=permanent)

    def _later(
        self, code: str, what: str, fix: str = "It is tried again by itself; check smtp_host and smtp_port."
    ) -> NotSentError:
        return NotSentError(Unavailable(code, f"{self._where} {what}.", fix=fix), permanent=False)

    @property
    def _where(self) -> str:
        return f"The mail server {self._host} port {self._port}"


class _Talk:
    """A connection on which lines go back and forth."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.offered: dict[str, str] = {}

    def put(self, data: bytes) -> None:
        self._writer.write(data)

    async def reply(self) -> _Reply:
        """Read one reply of any number of lines. Raises ConnectionError if it isn't one."""
        await self._writer.drain()
        lines: list[str] = []
        while len(lines) < _MAX_LINES:
            line = (await self._reader.readuntil(b"\n")).decode("utf-8", "replace").rstrip("\r\n")
            if len(line) < 3 or not line[:3].isdecimal() or line[3:4] not in ("", " ", "-"):
                raise ConnectionError(0, "it doesn't speak SMTP")
            lines.append(line[4:])
            if line[3:4] != "-":
                return _Reply(int(line[:3]), tuple(lines))
        raise ConnectionError(0, "its answer doesn't end")

    async def leave(self) -> None:
        """Say goodbye. The letter is theirs already: how this goes doesn't matter."""
        try:
            async with asyncio.timeout(2):
                self.put(b"QUIT\r\n")
                await self.reply()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        await self._writer.start_tls(context, server_hostname=host)


def _stuffed(message: bytes) -> bytes:
    """With dots doubled at the beginnings of lines and the lone dot at the end (RFC 5321 4.5.2)."""
    body = message if message.endswith(b"\r\n") else message + b"\r\n"
    if body.startswith(b"."):
        body = b"." + body
    return body.replace(b"\r\n.", b"\r\n..") + b".\r\n"
