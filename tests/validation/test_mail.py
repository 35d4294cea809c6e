"""Showing a domain by mail: five mailboxes, a link that works once, a page that confirms by POST only; real SMTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.connectors.channel.smtp import SmtpChannel
from certwright.kernel.problems import Invalid, Problem, Refused, TooMany
from certwright.rooms import notify, validation
from certwright.rooms.notify.tables import messages
from certwright.rooms.validation import CaKind, ChallengeStatus
from certwright.rooms.validation.tables import challenges, evidence, mailed_links
from tests.conftest import Api, World
from tests.servers.smtp import MailServer, mail_server

BOXES = ["admin", "administrator", "hostmaster", "postmaster", "webmaster"]
OWN_PAGE = {"sec-fetch-site": "same-origin"}


@pytest.fixture
def mails(world: World) -> Iterator[MailServer]:
    with mail_server() as server:
        channel = SmtpChannel("localhost", server.port, sender="cw@our.example", security="none")
        world.services.ports[notify.Channel] = channel  # type: ignore[index]
        yield server


def require(world: World, subject: str, *names: str, **changes: Any) -> None:
    options: dict[str, Any] = {
        "account_id": world.account.id, "project_id": world.project_id, "ca": "builtin", "method": "email",
        "per_name_methods": {}, "now": world.clock.now(),
    }  # fmt: skip

    async def go() -> None:
        async with world.services.db.begin() as tx:
            await validation.require_domains(
                tx, world.services, subject_id=subject, names=names, **(options | changes)
            )  # fmt: skip

    world.run(go())
    world.drain()


def domains(world: World, subject: str) -> tuple[validation.DomainState, ...]:
    async def go() -> validation.ValidationState:
        async with world.services.db.begin() as tx:
            return await validation.state(tx, world.services, subject, world.clock.now())

    return world.run(go()).domains


def rows(world: World, table: sa.Table) -> list[Any]:
    async def go() -> list[Any]:
        async with world.services.db.begin() as tx:
            return list((await tx.execute(sa.select(table).order_by(table.c.id))).all())

    return world.run(go())


def secret_in(mail: Any) -> str:
    plain = next(part.get_content() for part in mail.message.iter_parts())
    (found,) = set(re.findall(r"https://cw\.example/confirm-domain\?token=([\w-]+)", plain))
    return str(found)


def page(api: Api, method: str, secret: str, **headers: str) -> Any:
    cookie = {"cookie": f"__Host-certwright-domain={secret}"}
    return api.anonymous().request(method, "/confirm-domain", headers=OWN_PAGE | cookie | headers)


def code_of(world: World, secret: str) -> str:
    with pytest.raises(Problem) as caught:
        world.run(validation.confirm(world.services, secret))
    return caught.value.code


def test_the_five_mailboxes_of_the_registrable_domain_each_get_a_link_of_their_own(
    world: World, mails: MailServer
) -> None:
    require(world, "app_mail", "shop.example.com")
    assert sorted(m.recipients[0] for m in mails.mails) == [f"{box}@example.com" for box in BOXES]
    secrets = {secret_in(mail) for mail in mails.mails}
    assert len(secrets) == 5
    assert all(len(secret) * 6 >= 128 for secret in secrets)
    plain = next(part.get_content() for part in mails.mails[0].message.iter_parts())
    for wanted in ("One", "example.com", "shop.example.com", "2026-03-31"):
        assert wanted in plain
    (domain,) = domains(world, "app_mail")
    assert domain.instructions is not None
    assert domain.instructions["kind"] == "mail"
    assert sorted(domain.instructions["addresses"]) == [f"{box}@example.com" for box in BOXES]
    assert domain.ends == "2028-03-15"


def test_no_token_rests_in_the_database_once_the_mail_is_sent(world: World, mails: MailServer) -> None:
    require(world, "app_rest", "a.example.com")
    tokens = [secret_in(mail) for mail in mails.mails]
    kept = repr(rows(world, mailed_links)) + repr(rows(world, messages)) + repr(rows(world, challenges))
    assert tokens
    assert not [token for token in tokens if token in kept]


def test_looking_at_the_page_validates_nothing_and_confirming_does(world: World, api: Api, mails: MailServer) -> None:
    require(world, "app_page", "shop.example.com")
    secret = secret_in(mails.mails[0])
    first = api.anonymous().get(f"/confirm-domain?token={secret}")
    assert (first.status_code, first.headers["location"]) == (303, "/confirm-domain"), "out of the address at once"
    assert secret in first.headers["set-cookie"]
    for _ in range(3):
        shown = page(api, "GET", secret)
        assert shown.status_code == 200
        assert "shop.example.com" in shown.text
        assert secret not in shown.text
    assert domains(world, "app_page")[0].status is ChallengeStatus.PENDING
    foreign = page(api, "POST", secret, **{"sec-fetch-site": "cross-site"})
    assert foreign.status_code == 403
    assert domains(world, "app_page")[0].status is ChallengeStatus.PENDING
    done = page(api, "POST", secret)
    assert done.status_code == 200
    assert "You confirmed the certificate for example.com" in done.text
    assert domains(world, "app_page")[0].status is ChallengeStatus.VALID
    (entry,) = rows(world, evidence)
    assert (entry.domain, entry.scope, entry.method) == ("example.com", "subtree", "email")
    assert entry.seen["address"] == mails.mails[0].recipients[0]


def test_a_link_works_once_and_the_others_are_of_no_use_afterwards(world: World, mails: MailServer) -> None:
    require(world, "app_once", "example.com")
    first, second = (secret_in(mail) for mail in mails.mails[:2])
    world.run(validation.confirm(world.services, first))
    assert code_of(world, first) == "mailed_link_over"
    assert code_of(world, second) == "domain_not_waiting"
    assert len(rows(world, evidence)) == 1


def test_a_made_up_link_is_refused_on_the_page_too(world: World, api: Api, mails: MailServer) -> None:
    require(world, "app_forged", "example.com")
    assert code_of(world, "x" * 43) == "mailed_link_unknown"
    for method, status in (("GET", 404), ("POST", 422)):
        shown = page(api, method, "x" * 43)
        assert shown.status_code == status
        assert "The link is not one of ours" in shown.text
    assert api.anonymous().get("/confirm-domain").status_code == 404


@pytest.mark.parametrize(("seconds", "good"), [(-1, True), (0, False), (1, False)])
def test_a_link_is_good_for_thirty_days(world: World, mails: MailServer, seconds: int, good: bool) -> None:
    require(world, "app_days", "example.com")
    world.clock.move(timedelta(days=30, seconds=seconds))
    secret = secret_in(mails.mails[0])
    if good:
        assert world.run(validation.confirm(world.services, secret)).names == ("example.com",)
    else:
        assert code_of(world, secret) == "mailed_link_over"


def test_a_withdrawn_application_is_not_confirmed_any_more(world: World, mails: MailServer) -> None:
    require(world, "app_gone", "example.com")

    async def give_up() -> None:
        async with world.services.db.begin() as tx:
            await validation.cancel(tx, "app_gone", world.clock.now())

    world.run(give_up())
    assert code_of(world, secret_in(mails.mails[0])) == "domain_not_waiting"


def test_one_mailing_serves_all_names_below_a_domain_and_no_others(world: World, mails: MailServer) -> None:
    require(world, "app_many", "a.example.com", "*.example.com", "example.org")
    assert len(mails.mails) == 10
    below = next(mail for mail in mails.mails if mail.recipients[0].endswith("@example.com"))
    link = world.run(validation.confirm(world.services, secret_in(below)))
    assert set(link.names) == {"a.example.com", "*.example.com"}
    assert [d.status for d in domains(world, "app_many")] == [
        ChallengeStatus.VALID, ChallengeStatus.VALID, ChallengeStatus.PENDING,
    ]  # fmt: skip


def test_mails_are_sent_again_on_demand_with_a_limit(world: World, mails: MailServer) -> None:
    require(world, "app_more", "example.com")
    (domain,) = domains(world, "app_more")
    assert domain.challenge_id is not None
    with pytest.raises(TooMany) as soon:
        world.run(validation.resend(world.services, world.actor, domain.challenge_id))
    assert (soon.value.code, soon.value.extra["retry_after"] <= 301) == ("mailing_too_soon", True)
    for number in range(2, 6):
        world.later(minutes=5)
        again = world.run(validation.resend(world.services, world.actor, domain.challenge_id))
        assert again.mailings == number
    world.later(minutes=5)
    with pytest.raises(Refused) as spent:
        world.run(validation.resend(world.services, world.actor, domain.challenge_id))
    assert spent.value.code == "mailings_spent"
    world.drain()
    assert len(mails.mails) == 25
    # Whoever finds the oldest one first has not waited in vain.
    world.run(validation.confirm(world.services, secret_in(mails.mails[0])))
    with pytest.raises(Refused) as needless:
        world.run(validation.resend(world.services, world.actor, domain.challenge_id))
    assert needless.value.code == "mailing_not_needed"


def test_nobody_else_has_mails_sent(world: World, api: Api, mails: MailServer) -> None:
    require(world, "app_mine", "example.com")
    (domain,) = domains(world, "app_mine")
    path = f"/api/v1/validations/{domain.challenge_id}/mail"
    assert api.as_actor(world.other_actor).post(path).status_code == 404
    assert api.post(path).json()["code"] == "mailing_too_soon"
    world.later(minutes=5)
    answer = api.post(path)
    assert (answer.status_code, answer.json()["mailings"], answer.json()["domain"]) == (200, 2, "example.com")
    assert api.post("/api/v1/validations/chal_unknown/mail").status_code == 404


def test_checking_now_says_who_was_written_to(world: World, mails: MailServer) -> None:
    require(world, "app_check", "example.com")
    (result,) = world.run(validation.check_now(world.services, world.actor, "app_check"))
    assert result.explanation is not None
    assert (result.explanation.ok, result.explanation.code) == (False, "email_not_confirmed")
    assert "admin@example.com" in result.explanation.fix


@pytest.mark.parametrize(
    ("kind", "day", "refused"),
    [
        (CaKind.PUBLIC, "2028-03-14T23:59:59+00:00", False),
        (CaKind.PUBLIC, "2028-03-15T00:00:00+00:00", True),
        (CaKind.PRIVATE, "2028-03-15T00:00:00+00:00", False),
    ],
)
def test_public_cas_take_mail_until_the_rules_end_it_and_not_a_second_longer(
    world: World, mails: MailServer, kind: CaKind, day: str, refused: bool
) -> None:
    from datetime import datetime

    now = datetime.fromisoformat(day)
    world.clock.set(now)
    if refused:
        with pytest.raises(Invalid) as caught:
            require(world, "app_end", "example.com", ca_kind=kind, now=now)
        assert caught.value.code == "method_ended"
        assert mails.mails == []
    else:
        require(world, "app_end", "example.com", ca_kind=kind, now=now)
        assert len(mails.mails) == 5


def test_an_address_has_no_mailboxes(world: World, mails: MailServer) -> None:
    with pytest.raises(Invalid) as caught:
        require(world, "app_ip", "10.0.0.1")
    assert caught.value.code == "method_not_for_ip"
