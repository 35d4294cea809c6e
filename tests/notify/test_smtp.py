"""The SMTP channel against a real mail server."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from certwright.connectors.channel.smtp import SmtpChannel, as_email
from certwright.platform.config import Settings
from certwright.rooms.notify import Letter, NotSentError, Receipt
from certwright.rooms.notify.rules import one_line
from tests.servers.smtp import MailServer, mail_server
from tests.servers.tls import context_of, issue

SERVER = issue("localhost", names=("localhost", "127.0.0.1"))


def letter(**changes: Any) -> Letter:
    values: dict[str, Any] = {
        "id": "msg_1", "to_address": "ann@example.com", "to_name": "Ann", "subject": "Hello", "text": "text\n",
        "html": "<p>html</p>", "locale": "en", "written_at": datetime(2026, 3, 1, 12, tzinfo=UTC),
    }  # fmt: skip
    return Letter(**(values | changes))


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cadata=SERVER.certificate.public_bytes(Encoding.PEM).decode())


def send(server: MailServer, message: Letter | None = None, **options: Any) -> Receipt:
    values = {"sender": "cw@our.example", "security": "none", "tls": trusting(), "timeout": 5.0} | options
    channel = SmtpChannel("localhost", server.port, **values)
    return asyncio.run(channel.send(message or letter()))


def refusal(server: MailServer, **options: Any) -> NotSentError:
    with pytest.raises(NotSentError) as caught:
        send(server, **options)
    return caught.value


def test_a_message_arrives_with_its_headers_and_both_bodies() -> None:
    with mail_server() as server:
        receipt = send(
            server,
            letter(
                to_name='Änn, "the" Boss',
                subject="Zertifikat läuft ab – 3 Tage",
                text="grüße\n.dot\n..\n",
                locale="pt_BR",
            ),
        )
        (mail,) = server.mails
    assert receipt.reply == "250 taken"
    assert (mail.sender, mail.recipients) == ("cw@our.example", ["ann@example.com"])
    message = mail.message
    assert message["Subject"] == "Zertifikat läuft ab – 3 Tage"
    assert message["From"] == "Certwright <cw@our.example>"
    assert message["To"].addresses[0].display_name == 'Änn, "the" Boss'
    assert message["To"].addresses[0].addr_spec == "ann@example.com"
    assert (message["Message-ID"], message["Date"]) == ("<msg_1@our.example>", "Sun, 01 Mar 2026 12:00:00 +0000")
    assert (message["Auto-Submitted"], message["Content-Language"]) == ("auto-generated", "pt-BR")
    plain, html = message.iter_parts()
    assert plain.get_content().replace("\r\n", "\n") == "grüße\n.dot\n..\n"
    assert html.get_content().strip() == "<p>html</p>"
    assert mail.content.isascii()


def test_starttls_is_used_and_sign_in_comes_after_it() -> None:
    with mail_server(context=context_of(SERVER), starttls=True, auth=True) as server:
        send(server, security="starttls", username="postbox", password="s3cret")
        (mail,) = server.mails
    assert (mail.over_tls, mail.signed_in) == (True, True)


def test_tls_from_the_first_byte() -> None:
    with mail_server(context=context_of(SERVER)) as server:
        send(server, security="tls")
        (mail,) = server.mails
    assert mail.over_tls


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_nobody_trusts_stops_it(security: str) -> None:
    with mail_server(context=context_of(SERVER), starttls=security == "starttls") as server:
        refused = refusal(server, security=security, tls=ssl.create_default_context())
        assert server.mails == []
    assert (refused.problem.code, refused.permanent) == ("smtp_tls", False)


def test_without_starttls_nothing_is_sent_in_clear() -> None:
    with mail_server() as server:
        refused = refusal(server, security="starttls")
        assert server.mails == []
    assert (refused.problem.code, refused.permanent) == ("smtp_no_starttls", False)


def test_a_wrong_password_is_the_operators_to_mend_and_is_not_repeated_to_anybody() -> None:
    with mail_server(context=context_of(SERVER), starttls=True, auth=True) as server:
        refused = refusal(server, security="starttls", username="postbox", password="wrong-one")
    assert (refused.problem.code, refused.permanent) == ("smtp_sign_in", False)
    assert "wrong-one" not in str(refused.problem.as_dict())


def test_sign_in_on_a_server_that_has_none_is_named() -> None:
    with mail_server() as server:
        assert refusal(server, username="x", password="y").problem.code == "smtp_no_auth"


@pytest.mark.parametrize(
    ("where", "reply", "permanent", "code"),
    [
        ("replies", "451 busy", False, "smtp_postponed"),
        ("replies", "552 too big", True, "smtp_rejected"),
        ("recipient_replies", "450 greylisted", False, "smtp_postponed"),
        ("recipient_replies", "550 no such user", True, "smtp_rejected"),
    ],
)
def test_4xx_may_go_better_later_and_5xx_never(where: str, reply: str, permanent: bool, code: str) -> None:
    with mail_server() as server:
        setattr(server, where, [reply])
        refused = refusal(server)
        assert (refused.permanent, refused.problem.code) == (permanent, code)
        assert reply.split(" ", 1)[1] in refused.problem.message
        send(server)
        assert len(server.mails) == 1


@pytest.mark.parametrize("where", ["greeting", "data"])
def test_a_silent_server_costs_no_more_than_the_time_limit(where: str) -> None:
    with mail_server() as server:
        server.hang_at = where
        refused = refusal(server, timeout=0.3)
    assert (refused.problem.code, refused.permanent) == ("smtp_timeout", False)


def test_a_lost_answer_is_tried_again() -> None:
    with mail_server() as server:
        server.lose_reply = True
        refused = refusal(server)
        assert (refused.problem.code, refused.permanent) == ("smtp_unreachable", False)
        send(server)
        ids = [mail.message["Message-ID"] for mail in server.mails]
    assert ids == ["<msg_1@our.example>"] * 2


def test_a_closed_port_is_unreachable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        refused = refusal(MailServer(port=free.getsockname()[1]))
    assert refused.problem.code == "smtp_unreachable"


def test_settings_without_a_server_make_no_channel() -> None:
    assert SmtpChannel.of(Settings()) is None
    assert SmtpChannel.of(Settings(smtp_host="mail.example.com")) is not None


@given(
    subject=st.text(max_size=120),
    name=st.text(max_size=60),
    text=st.text(max_size=300),
)
def test_no_text_can_add_a_header_or_end_the_message_early(subject: str, name: str, text: str) -> None:
    """Subjects and names pass through `one_line` first, as every message written to the outbox does."""
    body = text.encode("utf-8", "replace").decode()
    raw = as_email(letter(subject=one_line(subject), to_name=one_line(name), text=body), sender="cw@our.example")
    assert raw.isascii()
    headers = raw.partition(b"\r\n\r\n")[0]
    names = {line.partition(b":")[0] for line in headers.split(b"\r\n") if not line.startswith((b" ", b"\t"))}
    assert names == {
        b"Message-ID", b"Date", b"From", b"To", b"Subject", b"Content-Language", b"Auto-Submitted", b"MIME-Version",
        b"Content-Type",
    }  # fmt: skip
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert b"\r" not in raw.replace(b"\r\n", b"")


@pytest.mark.parametrize(
    "changes",
    [
        {"to_address": "ann@example.com>\r\nRCPT TO:<all@example.com"},
        {"to_address": "ann@example.com, bob@example.com"},
        {"id": "msg_1\r\nBcc: all@example.com"},
        {"subject": "Hello\r\nBcc: all@example.com"},
        {"to_name": "Ann\r\nBcc: all@example.com"},
    ],
    ids=["address with a command", "two addresses", "id", "subject", "name"],
)
def test_a_header_that_holds_more_than_itself_is_not_sent(changes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"character|Header|CR or LF"):
        as_email(letter(**changes), sender="cw@our.example")
