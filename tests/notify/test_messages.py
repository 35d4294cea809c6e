"""From an alarm or a version to a message in somebody's mailbox, once, whatever happens in between."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

import pytest
import sqlalchemy as sa

from certwright.connectors.channel.smtp import SmtpChannel
from certwright.kernel.problems import Forbidden, Invalid, NotFound, Problem, Refused, Stale, TooMany
from certwright.rooms import notify, watch
from certwright.rooms.notify import Channel, Letter, Receipt
from certwright.rooms.notify.tables import messages, notices
from tests.servers.smtp import MailServer, mail_server
from tests.servers.tls import issue, tls_server
from tests.watch.material import publish, put_version, span

NAME = "www.example.test"


@pytest.fixture
def mails(world: Any) -> Iterator[MailServer]:
    """A mail server, and the product set to use it."""
    with mail_server() as server:
        plug(world, SmtpChannel("localhost", server.port, sender="cw@our.example", security="none"))
        yield server


def plug(world: Any, channel: Channel) -> None:
    world.services.ports[Channel] = channel


def listed(world: Any, **more: Any) -> list[Any]:
    rows: list[Any] = world.run(notify.list_messages(world.services, world.actor, limit=100, **more))
    return rows


def raise_alarm(world: Any) -> str:
    """An endpoint that serves an expired certificate, probed; the server is gone afterwards."""
    with tls_server(issue(NAME, **span(world, left=-1, life=90))) as server:
        row = world.run(
            watch.create_endpoint(world.services, world.actor, host="127.0.0.1", port=server.port, sni=NAME)
        )
        world.drain()
    return str(row.id)


def test_an_alarm_reaches_the_administrator_with_its_facts_and_what_to_do(world: Any, mails: MailServer) -> None:
    endpoint_id = raise_alarm(world)
    (mail,) = mails.mails
    assert mail.recipients == ["ann@one.example"]
    message = mail.message
    port = world.run(watch.get_endpoint(world.services, world.actor, endpoint_id))[0].port
    assert message["Subject"] == f"[Critical] Certificate exception: 127.0.0.1:{port} ({NAME})"
    plain, html = (part.get_content() for part in message.iter_parts())
    for wanted in (
        "ALM-2001006", "Critical", f"The certificate {NAME} expired on 2026-02-28 12:00 UTC.", "Host IP", "127.0.0.1",
        "Possible causes", "What to do", "The alarm clears by itself at the next good probe.", "-1",
        "Browsers and other clients warn", "Thresholds", "https://cw.example/alarms/alarm_",
    ):  # fmt: skip
        assert wanted in plain, wanted
        assert wanted in html or wanted in html.replace("&#x27;", "'"), wanted
    (row,) = listed(world)
    assert (notify.state_of(row).name, row.kind, row.attempts) == ("sent", "alarm.raised", 1)


def test_a_cleared_alarm_is_told_too(world: Any, mails: MailServer) -> None:
    with tls_server(issue(NAME, **span(world, left=-1, life=90))) as server:
        row = world.run(
            watch.create_endpoint(world.services, world.actor, host="127.0.0.1", port=server.port, sni=NAME)
        )
        world.drain()
        server.serve(issue(NAME, **span(world, left=80, life=90)))
        world.later(minutes=5)
        world.run(watch.probe_now(world.services, world.actor, row.id))
        world.drain()
    assert [mail.message["Subject"].split("]")[0] for mail in mails.mails] == ["[Critical", "[Cleared"]


def test_values_from_outside_are_escaped_in_html(world: Any, mails: MailServer) -> None:
    certificate_id = world.run(put_version(world, issue(NAME, **span(world, left=80, life=90))))
    problem = {"message": "<script>alert(1)</script> & more"}
    world.run(publish(world, "deployment.rollout_failed", "roll_1", certificate_ids=[certificate_id], problem=problem))
    world.drain()
    (mail,) = mails.mails
    _, html = (part.get_content() for part in mail.message.iter_parts())
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in html


def test_other_accounts_see_no_message(world: Any, mails: MailServer) -> None:
    raise_alarm(world)
    assert len(listed(world)) == 1
    assert world.run(notify.list_messages(world.services, world.other_actor)) == []
    with pytest.raises(AssertionError):
        assert world.run(notify.list_messages(world.services, world.actor_with("smn:recipient:list")))


def test_a_postponed_message_is_tried_again_after_a_pause(world: Any, mails: MailServer) -> None:
    mails.replies = ["451 busy", "451 still busy"]
    raise_alarm(world)
    (row,) = listed(world)
    assert (notify.state_of(row).name, row.step_problem["code"]) == ("queued", "smtp_postponed")
    # `drain` also runs what comes due within a minute: the second attempt.
    assert (row.attempts, row.next_step_at) == (2, world.clock.now() + timedelta(minutes=2))
    world.later(minutes=2)
    world.drain()
    (row,) = listed(world)
    assert (notify.state_of(row).name, row.attempts, len(mails.mails)) == ("sent", 3, 1)


def test_a_refused_message_is_not_tried_again(world: Any, mails: MailServer) -> None:
    mails.recipient_replies = ["550 no such user"]
    raise_alarm(world)
    (row,) = listed(world)
    state = notify.state_of(row)
    assert state.problem is not None
    assert (state.name, state.problem["code"], row.next_step_at) == ("failed", "smtp_rejected", None)
    connections = mails.connections
    world.later(days=1)
    world.drain()
    assert mails.connections == connections


def test_what_can_not_be_sent_for_four_days_is_given_up(world: Any) -> None:
    raise_alarm(world)
    (row,) = listed(world)
    assert (notify.state_of(row).name, row.step_problem["code"]) == ("queued", "smtp_not_configured")
    world.later(days=4)
    world.drain()
    (row,) = listed(world)
    assert notify.state_of(row).name == "failed"


class DyingChannel:
    """Takes the letter, and the worker dies before it can write that down."""

    def __init__(self) -> None:
        self.taken: list[Letter] = []
        self.dies = True

    async def send(self, letter: Letter) -> Receipt:
        self.taken.append(letter)
        if self.dies:
            raise KeyboardInterrupt
        return Receipt("250 taken")


def test_after_a_crash_in_doubt_the_same_message_is_sent_again_and_stays_one(world: Any) -> None:
    channel = DyingChannel()
    plug(world, channel)
    with pytest.raises(KeyboardInterrupt):
        raise_alarm(world)
    channel.dies = False
    world.later(seconds=world.services.settings.step_lease)

    async def give_back() -> None:
        """What the sweeper does with a row whose worker died."""
        async with world.services.db.begin() as tx:
            await tx.execute(sa.update(messages).values(next_step_at=world.clock.now()))

    world.run(give_back())
    world.drain()
    first, second = channel.taken
    assert first == second
    (row,) = listed(world)
    assert (notify.state_of(row).name, row.attempts, row.in_doubt) == ("sent", 2, 1)


def test_an_event_told_twice_writes_one_message(world: Any, mails: MailServer) -> None:
    raise_alarm(world)

    async def again() -> None:
        from certwright.platform.events import Event
        from certwright.rooms.notify import jobs

        async with world.services.db.begin() as tx:
            from certwright.platform.events import events

            row = (await tx.execute(sa.select(events).where(events.c.kind == "alarm.raised"))).one()
        event = Event(row.id, row.kind, row.account_id, row.object_id, row.payload, row.at)
        await jobs.alarm_raised(world.services, event)

    world.run(again())
    world.drain()
    assert (len(listed(world)), len(mails.mails)) == (1, 1)


# Reminders


def test_every_reminder_of_a_version_is_sent_once(world: Any, mails: MailServer) -> None:
    certificate_id = world.run(put_version(world, issue(NAME, **span(world, left=199, life=199)), auto_renew=False))
    world.drain()
    subjects = []
    for _ in range(200):
        world.later(days=1)
        world.drain()
        subjects += [mail.message["Subject"].strip() for mail in mails.mails]
        mails.mails.clear()
    wanted = [
        *(f"The certificate {certificate_id} expires soon: {days} days left" for days in (60, 30, 7, 3)),
        f"The certificate {certificate_id} expires soon: 1 day left",
        f"The certificate {certificate_id} has expired",
    ]
    assert subjects == wanted


def test_a_jump_of_the_clock_sends_one_reminder_not_all(world: Any, mails: MailServer) -> None:
    world.run(put_version(world, issue(NAME, **span(world, left=199, life=199)), auto_renew=False))
    world.drain()
    world.later(days=197)
    world.drain()
    assert [mail.message["Subject"].partition(": ")[2] for mail in mails.mails] == ["2 days left"]
    world.clock.move(timedelta(days=-150))
    world.drain()
    world.later(days=150)
    world.drain()
    assert len(mails.mails) == 1

    async def kept() -> dict[str, bool]:
        async with world.services.db.begin() as tx:
            return {row.step: row.sent for row in await tx.execute(sa.select(notices))}

    assert world.run(kept()) == {"days-60": False, "days-30": False, "days-7": False, "days-3": True}


def test_a_short_life_speaks_of_its_renewal_first(world: Any, mails: MailServer) -> None:
    world.run(put_version(world, issue(NAME, **span(world, left=47, life=47))))
    world.drain()
    world.later(days=32)
    world.drain()
    subjects = [mail.message["Subject"].strip() for mail in mails.mails]
    assert any(re.fullmatch(r"The renewal of cert_\w+ is overdue: 15 days left", subject) for subject in subjects)


@pytest.mark.parametrize("what", ["replaced", "revoked", "deleted"])
def test_of_a_version_no_longer_in_use_nobody_is_reminded(world: Any, mails: MailServer, what: str) -> None:
    dates = span(world, left=199, life=199)
    certificate_id = world.run(put_version(world, issue(NAME, **dates), auto_renew=False))
    world.drain()
    if what == "replaced":
        world.later(days=1)
        newer = issue(NAME, **span(world, left=398, life=398))
        world.run(put_version(world, newer, certificate_id=certificate_id))
    else:
        world.run(publish(world, f"certificate.{what}", certificate_id))
    world.drain()
    world.later(days=150)
    world.drain()
    assert mails.mails == []


def test_reminders_can_be_switched_off_for_a_certificate(world: Any, mails: MailServer) -> None:
    from certwright.rooms.certificates.tables import certificates

    certificate_id = world.run(put_version(world, issue(NAME, **span(world, left=199, life=199)), auto_renew=False))
    world.drain()

    async def switch_off() -> None:
        async with world.services.db.begin() as tx:
            await tx.execute(sa.update(certificates).where(certificates.c.id == certificate_id).values(notify=False))

    world.run(switch_off())
    world.later(days=170)
    world.drain()
    assert listed(world) == []


# Recipients


def code_in(server: MailServer) -> str:
    message = server.mails[-1].message
    assert not re.search(r"\d{6}", message["Subject"]), "subjects are listed to others than the recipient"
    found = re.search(r"\b(\d{6})\b", message.get_body(("plain",)).get_content())
    assert found is not None
    return found[1]


def test_a_recipient_is_told_of_alarms_only_after_entering_the_code(world: Any, mails: MailServer) -> None:
    services, actor = world.services, world.actor
    row = world.run(notify.create_recipient(services, actor, name="Carl", email="Carl@Ops.example"))
    world.drain()
    assert mails.mails[-1].recipients == ["Carl@ops.example"]
    raise_alarm(world)
    assert [mail.recipients for mail in mails.mails] == [["Carl@ops.example"], ["ann@one.example"]]
    mails.mails.pop()
    row = world.run(notify.verify_recipient(services, actor, row.id, code_in(mails)))
    assert row.verified_at == world.clock.now()
    world.later(minutes=1)
    raise_alarm(world)
    assert mails.mails[-1].recipients == ["Carl@ops.example"]
    assert bodies_of_codes(world) == [("", "")], "the code isn't kept in clear"


def bodies_of_codes(world: Any) -> list[tuple[str, str]]:
    async def read() -> list[tuple[str, str]]:
        m = notify.tables.messages.c
        async with world.services.db.begin() as tx:
            rows = await tx.execute(sa.select(m.text, m.html).where(m.kind == "recipient.verification"))
        return [(row.text, row.html) for row in rows]

    return cast("list[tuple[str, str]]", world.run(read()))


def test_a_code_that_nobody_took_is_not_kept_either(world: Any, mails: MailServer) -> None:
    world.run(notify.create_recipient(world.services, world.actor, name="Carl", email="carl@ops.example"))
    mails.recipient_replies.append("550 5.1.1 no such user")
    world.drain()
    assert [notify.state_of(message).name for message in listed(world)] == ["failed"]
    assert bodies_of_codes(world) == [("", "")]


def test_a_code_has_limited_tries_and_time(world: Any, mails: MailServer) -> None:
    services, actor = world.services, world.actor
    row = world.run(notify.create_recipient(services, actor, name="Carl", email="carl@ops.example"))
    world.drain()
    code = code_in(mails)
    wrong = f"{(int(code) + 1) % 10**6:06d}"
    for left in (4, 3, 2, 1, 0):
        with pytest.raises(Invalid) as caught:
            world.run(notify.verify_recipient(services, actor, row.id, wrong))
        assert (caught.value.code, caught.value.extra["tries_left"]) == ("code_wrong", left)
    with pytest.raises(TooMany) as too_many:
        world.run(notify.verify_recipient(services, actor, row.id, code))
    assert too_many.value.code == "code_tries"
    with pytest.raises(TooMany):
        world.run(notify.resend_code(services, actor, row.id))
    world.later(minutes=2)
    world.run(notify.resend_code(services, actor, row.id))
    world.drain()
    world.later(days=1)
    with pytest.raises(Refused) as over:
        world.run(notify.verify_recipient(services, actor, row.id, code_in(mails)))
    assert over.value.code == "code_over"


def test_another_address_has_to_be_verified_anew(world: Any, mails: MailServer) -> None:
    services, actor = world.services, world.actor
    row = world.run(notify.create_recipient(services, actor, name="Carl", email="carl@ops.example"))
    world.drain()
    row = world.run(notify.verify_recipient(services, actor, row.id, code_in(mails)))
    row = world.run(
        notify.update_recipient(services, actor, row.id, revision=row.revision, name="Carla", email="carla@ops.example")
    )
    assert (row.name, row.email, row.verified_at) == ("Carla", "carla@ops.example", None)
    with pytest.raises(Stale):
        world.run(notify.update_recipient(services, actor, row.id, revision=1, name="x"))
    world.run(notify.delete_recipient(services, actor, row.id))
    with pytest.raises(NotFound):
        world.run(notify.get_recipient(services, actor, row.id))


@pytest.mark.parametrize(
    ("given", "code", "field"),
    [
        ({"name": "Carl", "email": "nobody"}, "email_invalid", "email"),
        ({"name": " ", "email": "c@ops.example"}, "name_invalid", "name"),
        ({"name": "a\x07b", "email": "c@ops.example"}, "name_invalid", "name"),
        ({"name": "x" * 101, "email": "c@ops.example"}, "name_invalid", "name"),
        ({"name": "Twice", "email": "twice@ops.example"}, "recipient_exists", "email"),
    ],
)
def test_bad_recipients_are_refused(world: Any, given: dict[str, str], code: str, field: str) -> None:
    world.run(notify.create_recipient(world.services, world.actor, name="Twice", email="twice@ops.example"))
    with pytest.raises(Problem) as caught:
        world.run(notify.create_recipient(world.services, world.actor, **given))
    assert (caught.value.code, caught.value.field, bool(caught.value.fix)) == (code, field, True)


def test_recipients_of_other_accounts_do_not_exist(world: Any) -> None:
    services = world.services
    row = world.run(notify.create_recipient(services, world.actor, name="Carl", email="carl@ops.example"))
    for attempt in (
        notify.get_recipient(services, world.other_actor, row.id),
        notify.update_recipient(services, world.other_actor, row.id, name="x"),
        notify.delete_recipient(services, world.other_actor, row.id),
        notify.verify_recipient(services, world.other_actor, row.id, "000000"),
    ):
        with pytest.raises(NotFound):
            world.run(attempt)
    assert world.run(notify.list_recipients(services, world.other_actor)) == []
    with pytest.raises(Forbidden):
        world.run(
            notify.create_recipient(services, world.actor_with("smn:recipient:list"), name="x", email="x@y.example")
        )


# --- forgetting -------------------------------------------------------------------------------------------------------


def test_messages_are_forgotten_in_their_time_and_those_not_sent_yet_are_not(
    world: Any, mails: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify.jobs, "_FORGOTTEN_AT_ONCE", 1)
    for _ in range(2):
        raise_alarm(world)
        world.later(minutes=1)
        world.drain()
    sent = {row.id for row in listed(world)}
    assert len(sent) == 2
    world.later(days=89)
    world.run(notify.jobs.forget(world.services))
    assert {row.id for row in listed(world)} == sent

    async def queue_again() -> None:
        async with world.services.db.begin() as tx:
            await tx.execute(sa.update(messages).where(messages.c.id == min(sent)).values(sent_at=None))

    world.run(queue_again())
    world.later(days=2)
    world.run(notify.jobs.forget(world.services))
    assert {row.id for row in listed(world)} == {min(sent)}
