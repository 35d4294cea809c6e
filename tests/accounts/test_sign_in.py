"""Setting up, signing in, sessions, links, throttling: through the actions and through the API."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from certwright.kernel.problems import Invalid, InvalidFields, Problem, Refused, TooMany, Unauthenticated
from certwright.rooms import access, accounts
from certwright.rooms.access import people
from certwright.rooms.accounts import rules
from certwright.rooms.accounts.tables import one_time_links, users

PASSWORD = "violet harbour tin lantern"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def empty(world: Any) -> Any:
    """As at first start: one account, nobody in it."""

    async def clear() -> None:
        async with world.services.db.begin() as tx:
            await tx.execute(sa.delete(users))
            for table in ("policy_attachments", "groups"):
                await tx.exec_driver_sql(f"DELETE FROM {table}")

    world.run(clear())
    return world


def _set_up(world: Any, secret: str, **changes: str) -> Any:
    given_ = {"email": "ann@one.example", "name": "Ann", "password": PASSWORD, "account_name": "One"} | changes
    return people.set_up(world.services, secret, **given_)


def _sign_in(world: Any, password: str = PASSWORD, email: str = "ann@one.example", address: str = "192.0.2.1") -> Any:
    return accounts.sign_in(world.services, email, password, address=address, user_agent="test")


@pytest.fixture
def ann(empty: Any) -> Any:
    """A world whose administrator Ann has a password."""
    link = empty.run(accounts.fresh_setup_link(empty.services))
    empty.run(_set_up(empty, link.secret))
    return empty


def _code(world: Any, work: Any) -> str:
    with pytest.raises(Problem) as caught:
        world.run(work)
    return str(caught.value.code)


# --- set-up ----------------------------------------------------------------------------------------------------------


def test_the_set_up_link_makes_the_first_administrator_once(empty: Any) -> None:
    link = empty.run(accounts.fresh_setup_link(empty.services))
    user = empty.run(_set_up(empty, link.secret, email="  Ann@One.Example "))
    assert user.email == "ann@one.example"
    signed_in = empty.run(_sign_in(empty))
    actor, session_id = empty.run(access.authenticate_session(empty.services, signed_in.secret))
    assert session_id == signed_in.session.id
    access.require(actor, "iam:policy:update")
    assert empty.run(people.get_account(empty.services, actor)).set_up_at == empty.clock.now()
    assert empty.run(accounts.fresh_setup_link(empty.services)) is None
    assert _code(empty, _set_up(empty, link.secret, email="eve@one.example")) == "link_invalid"


def test_of_two_people_with_the_link_one_wins(empty: Any) -> None:
    async def race() -> list[Any]:
        one = await accounts.fresh_setup_link(empty.services)
        two = await accounts.fresh_setup_link(empty.services)
        assert one
        assert two
        return await asyncio.gather(
            *(_set_up(empty, link.secret, email=f"a{n}@one.example") for n, link in enumerate((one, one, two, two))),
            return_exceptions=True,
        )

    outcomes = empty.run(race())
    assert sum(isinstance(o, accounts.User) for o in outcomes) == 1
    assert {o.code for o in outcomes if isinstance(o, Problem)} == {"link_invalid"}


def test_the_set_up_link_expires_after_a_day_and_a_start_makes_a_new_one(empty: Any) -> None:
    link = empty.run(accounts.fresh_setup_link(empty.services))
    empty.later(hours=24, seconds=-1)
    assert empty.run(accounts.setup_is_open(empty.services, link.secret))
    empty.later(seconds=1)
    assert not empty.run(accounts.setup_is_open(empty.services, link.secret))
    assert _code(empty, _set_up(empty, link.secret)) == "link_invalid"
    fresh = empty.run(accounts.fresh_setup_link(empty.services))
    empty.run(_set_up(empty, fresh.secret))


def test_the_link_is_stored_as_a_hash_only(empty: Any) -> None:
    link = empty.run(accounts.fresh_setup_link(empty.services))

    async def stored() -> Any:
        async with empty.services.db.begin() as tx:
            return (await tx.execute(sa.select(one_time_links))).all()

    assert link.secret not in repr(empty.run(stored()))
    assert link.secret not in repr(link)


def test_a_wrong_form_names_every_field_and_leaves_the_link_good(empty: Any) -> None:
    link = empty.run(accounts.fresh_setup_link(empty.services))
    with pytest.raises(InvalidFields) as caught:
        empty.run(_set_up(empty, link.secret, email="nobody", name=" ", password="short", account_name=""))
    assert {p.field: p.code for p in caught.value.problems} == {
        "email": "email_invalid",
        "name": "name_invalid",
        "password": "password_too_short",
        "account_name": "name_invalid",
    }
    empty.run(_set_up(empty, link.secret))


def test_starting_many_processes_makes_one_account(world: Any) -> None:
    async def start() -> set[str]:
        found = await asyncio.gather(*(accounts.ensure_account(world.services) for _ in range(6)))
        return {account.id for account in found}

    assert world.run(start()) == {world.account.id}


# --- signing in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("email", "password"),
    [("ann@one.example", "wrong " + PASSWORD), ("nobody@one.example", PASSWORD), ("", ""), ("ann@one.example", "")],
    ids=["wrong-password", "unknown-person", "nothing", "no-password"],
)
def test_wrong_credentials_all_get_the_same_answer(ann: Any, email: str, password: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        ann.run(_sign_in(ann, password, email))
    assert caught.value.code == "bad_credentials"


def test_an_unknown_person_costs_the_same_work_as_a_known_one(ann: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from certwright.rooms.accounts import secrets

    hashed = []
    verify = secrets._hasher.verify

    class Counting:
        def verify(self, stored: str, password: str) -> bool:
            hashed.append(stored.split("$")[1:4])
            return verify(stored, password)

        def hash(self, password: str) -> str:
            return str(type(secrets._hasher).hash(original, password))

        def check_needs_rehash(self, stored: str) -> bool:
            return False

    original = secrets._hasher
    monkeypatch.setattr(secrets, "_hasher", Counting())
    for email in ("ann@one.example", "nobody@one.example"):
        with pytest.raises(Unauthenticated):
            ann.run(_sign_in(ann, "wrong wrong wrong", email))
    assert len(hashed) == 2
    assert hashed[0] == hashed[1]


def test_the_same_password_typed_on_another_keyboard_is_the_same(ann: Any) -> None:
    ann.run(
        people.change_password(ann.services, _actor(ann), current=PASSWORD, new="caf\u00e9 caf\u00e9 terrasse \ufb01n")
    )
    ann.run(_sign_in(ann, "cafe\u0301 cafe\u0301 terrasse fin"))


def _actor(world: Any) -> Any:
    signed_in = world.run(_sign_in(world))
    actor, _ = world.run(access.authenticate_session(world.services, signed_in.secret))
    return actor


def test_a_disabled_person_can_neither_sign_in_nor_go_on(ann: Any) -> None:
    actor = _actor(ann)
    link = ann.run(people.invite_user(ann.services, actor, email="bea@one.example", name="Bea"))[1]
    bea = ann.run(accounts.use_password_link(ann.services, link.secret, PASSWORD))
    session = ann.run(_sign_in(ann, email="bea@one.example"))
    ann.run(access.authenticate_session(ann.services, session.secret))
    ann.run(people.update_user(ann.services, actor, bea.id, revision=None, changes={"disabled": True}))
    assert _code(ann, access.authenticate_session(ann.services, session.secret)) == "session_invalid"
    assert _code(ann, _sign_in(ann, email="bea@one.example")) == "bad_credentials"


# --- throttling ------------------------------------------------------------------------------------------------------


def _fail(world: Any, times: int, **kwargs: str) -> None:
    for _ in range(times):
        with pytest.raises(Unauthenticated):
            world.run(_sign_in(world, "wrong wrong wrong", **kwargs))


def test_after_five_failures_even_the_right_password_waits(ann: Any) -> None:
    _fail(ann, 5)
    with pytest.raises(TooMany) as caught:
        ann.run(_sign_in(ann))
    assert 25 <= caught.value.extra["retry_after"] <= 31
    ann.run(_sign_in(ann, address="198.51.100.7"))
    ann.later(seconds=31)
    ann.run(_sign_in(ann))


def test_the_wait_doubles_up_to_a_quarter_of_an_hour(ann: Any) -> None:
    _fail(ann, 5)
    waits = []
    for _ in range(7):
        with pytest.raises(TooMany) as caught:
            ann.run(_sign_in(ann))
        waits.append(caught.value.extra["retry_after"])
        ann.later(seconds=waits[-1])
        _fail(ann, 1)
    assert waits == [31, 61, 121, 241, 481, 901, 901]


def test_success_clears_the_count(ann: Any) -> None:
    _fail(ann, 4)
    ann.run(_sign_in(ann))
    _fail(ann, 4)
    ann.run(_sign_in(ann))


def test_many_attempts_at_once_do_not_slip_through(ann: Any) -> None:
    async def burst() -> list[Any]:
        return await asyncio.gather(*(_sign_in(ann, "wrong wrong wrong") for _ in range(20)), return_exceptions=True)

    outcomes = ann.run(burst())
    assert sum(isinstance(o, Unauthenticated) for o in outcomes) == 5
    assert sum(isinstance(o, TooMany) for o in outcomes) == 15


def test_one_address_guessing_many_people_is_slowed(ann: Any) -> None:
    for number in range(50):
        _fail(ann, 1, email=f"p{number}@one.example")
    assert _code(ann, _sign_in(ann)) == "sign_in_throttled"
    ann.run(_sign_in(ann, address="198.51.100.7"))


def test_a_clock_set_back_does_not_lock_anybody_out(ann: Any) -> None:
    _fail(ann, 5)
    ann.clock.move(timedelta(days=-365))
    ann.run(_sign_in(ann))


@pytest.mark.parametrize(
    ("address", "unit"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unknown", "unknown"),
    ],
)
def test_a_guesser_is_an_ipv4_address_or_an_ipv6_subnet(address: str, unit: str) -> None:
    assert rules.throttle_address(address) == unit


# --- sessions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since_seen", "since_made", "over"),
    [
        (timedelta(hours=2, seconds=-1), timedelta(hours=3), False),
        (timedelta(hours=2), timedelta(hours=3), True),
        (timedelta(0), timedelta(hours=12, seconds=-1), False),
        (timedelta(0), timedelta(hours=12), True),
        (timedelta(0), timedelta(minutes=-6), True),
    ],
    ids=["nearly-idle", "idle", "nearly-ended", "ended", "clock-before-its-start"],
)
def test_a_session_ends_when_idle_or_old(since_seen: timedelta, since_made: timedelta, over: bool) -> None:
    made = NOW - since_made
    assert rules.session_over(made, NOW - since_seen, made + timedelta(hours=12), NOW) is over


def test_use_keeps_a_session_alive_until_its_fixed_end(ann: Any) -> None:
    signed_in = ann.run(_sign_in(ann))
    for _ in range(11):
        ann.later(hours=1)
        ann.run(access.authenticate_session(ann.services, signed_in.secret))
    ann.later(hours=1)
    assert _code(ann, access.authenticate_session(ann.services, signed_in.secret)) == "session_invalid"


def test_sessions_are_listed_and_ended_by_their_owner_only(ann: Any) -> None:
    one, two = ann.run(_sign_in(ann)), ann.run(_sign_in(ann, address="198.51.100.7"))
    actor, _ = ann.run(access.authenticate_session(ann.services, one.secret))
    assert {s.id for s in ann.run(people.own_sessions(ann.services, actor))} == {one.session.id, two.session.id}
    assert _code(ann, people.end_session(ann.services, ann.other_actor, two.session.id)) == "not_found"
    ann.run(people.end_session(ann.services, actor, two.session.id))
    assert _code(ann, access.authenticate_session(ann.services, two.secret)) == "session_invalid"
    ann.run(access.authenticate_session(ann.services, one.secret))


def test_changing_the_password_ends_every_other_session(ann: Any) -> None:
    one, two = ann.run(_sign_in(ann)), ann.run(_sign_in(ann))
    actor, session_id = ann.run(access.authenticate_session(ann.services, one.secret))
    wrong = people.change_password(ann.services, actor, current="not it at all", new="another fine harbour lamp")
    assert _code(ann, wrong) == "password_wrong"
    ann.run(
        people.change_password(
            ann.services, actor, current=PASSWORD, new="another fine harbour lamp", keep_session=session_id
        )
    )
    ann.run(access.authenticate_session(ann.services, one.secret))
    assert _code(ann, access.authenticate_session(ann.services, two.secret)) == "session_invalid"
    ann.run(_sign_in(ann, "another fine harbour lamp"))


def test_ended_sessions_and_old_links_are_swept_away(ann: Any) -> None:
    ann.run(_sign_in(ann))
    ann.later(days=40)
    chore = next(c for c in ann.services.jobs.chores if c.name == "accounts.forget_over")
    ann.run(chore.run(ann.services))

    async def left() -> list[int]:
        async with ann.services.db.begin() as tx:
            tables = ("sessions", "one_time_links", "sign_in_failures")
            return [await tx.scalar(sa.text(f"SELECT count(*) FROM {t}")) or 0 for t in tables]

    assert ann.run(left()) == [0, 0, 0]


# --- password links --------------------------------------------------------------------------------------------------


def test_an_invited_person_sets_a_password_once(ann: Any) -> None:
    user, link = ann.run(people.invite_user(ann.services, _actor(ann), email="bea@one.example", name="Bea"))
    assert _code(ann, _sign_in(ann, email="bea@one.example")) == "bad_credentials"
    assert ann.run(accounts.password_link_user(ann.services, link.secret)).id == user.id
    assert _code(ann, accounts.use_password_link(ann.services, link.secret, "short")) == "password_too_short"
    ann.run(accounts.use_password_link(ann.services, link.secret, PASSWORD))
    assert ann.run(_sign_in(ann, email="bea@one.example")).user.id == user.id
    assert _code(ann, accounts.use_password_link(ann.services, link.secret, PASSWORD)) == "link_invalid"


def test_a_new_link_replaces_the_earlier_one_and_its_use_ends_sessions(ann: Any) -> None:
    actor = _actor(ann)
    user, first = ann.run(people.invite_user(ann.services, actor, email="bea@one.example", name="Bea"))
    ann.run(accounts.use_password_link(ann.services, first.secret, PASSWORD))
    session = ann.run(_sign_in(ann, email="bea@one.example"))
    _, second = ann.run(people.new_password_link(ann.services, actor, user.id))
    _, third = ann.run(people.new_password_link(ann.services, actor, user.id))
    assert _code(ann, accounts.use_password_link(ann.services, second.secret, PASSWORD)) == "link_invalid"
    ann.run(accounts.use_password_link(ann.services, third.secret, "another fine harbour lamp"))
    assert _code(ann, access.authenticate_session(ann.services, session.secret)) == "session_invalid"


@pytest.mark.parametrize(("email", "code"), [("ann@one.example", "email_taken"), ("ANN@one.example", "email_taken")])
def test_an_address_belongs_to_one_person(ann: Any, email: str, code: str) -> None:
    with pytest.raises(Refused) as caught:
        ann.run(people.invite_user(ann.services, _actor(ann), email=email, name="X"))
    assert (caught.value.code, caught.value.field) == (code, "email")


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("eleven char", "password_too_short"),
        ("twelve chars", None),
        ("x y" * 200, "password_too_long"),
        ("my ann.smith@one.example", "password_personal"),
        ("the ann.smith password", "password_personal"),
        ("hello Margaret hello", "password_personal"),
        ("password1234", "password_common"),
        ("P4ssw0rd!!!!", "password_common"),
        ("passwordpassword", "password_common"),
        ("correcthorsebatterystaple", "password_common"),
        ("aaaaaaaaaaaa", "password_common"),
        ("123456789012", "password_common"),
        ("abcdefghijkl", "password_common"),
        ("qwertyuiop12", "password_common"),
        ("changeme2026", "password_common"),
        (PASSWORD, None),
        ("mW9$kq!vTz2#", None),
    ],
)
def test_a_password_must_be_long_and_not_guessable(password: str, code: str | None) -> None:
    problem = rules.why_bad_password(password, email="ann.smith@one.example", name="Margaret Li")
    assert (problem.code if problem else None) == code
    assert problem is None or password not in problem.message


@pytest.mark.parametrize(
    "email",
    [
        "", "ann", "ann@", "@x.example", "a b@x.example", "ann@example", "a@b@c.example", "a@x..example",
        "a\n@x.example", "x" * 250 + "@x.example", "<a@x.example>", "a@.example", "a@x.example.", "jörg@x.example",
        ".a@x.example", "a.@x.example", '"a"@x.example', "x" * 65 + "@x.example", "a@*.x.example", "a@ x.example",
        "a@[192.0.2.7]", "a@" + "ü" * 60 + ".example",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(email: str) -> None:
    with pytest.raises(Invalid) as caught:
        rules.normal_email(email)
    assert (caught.value.code, caught.value.field) == ("email_invalid", "email")


@given(st.text(max_size=300) | st.emails())
def test_an_address_is_kept_in_one_spelling_that_mail_can_be_sent_to(text: str) -> None:
    try:
        address = rules.normal_email(text)
    except Invalid:
        assert rules.sought_email(text) == text.strip().lower()[:254]
        return
    assert rules.normal_email(address) == address == rules.sought_email(text) == address.lower()
    assert address.isascii()
    assert len(address) <= 254


def test_a_person_signs_in_with_the_domain_as_they_write_it(ann: Any) -> None:
    user, link = ann.run(people.invite_user(ann.services, _actor(ann), email="Bo@Bücher.example", name="Bo"))
    assert user.email == "bo@xn--bcher-kva.example"
    ann.run(accounts.use_password_link(ann.services, link.secret, PASSWORD))
    for typed in ("bo@bücher.example", "BO@BÜCHER.example", "bo@xn--bcher-kva.example"):
        assert ann.run(accounts.sign_in(ann.services, typed, PASSWORD, address="192.0.2.1")).user.id == user.id


@given(st.text(max_size=300))
def test_any_text_is_a_name_in_one_spelling_or_refused(text: str) -> None:
    name = ""
    try:
        name = rules.normal_name(text)
    except Invalid:
        return
    assert rules.normal_name(name) == name
    assert 1 <= len(name) <= 100


@given(st.text(max_size=300))
def test_any_text_is_judged_as_a_password(text: str) -> None:
    problem = rules.why_bad_password(text, email="ann@one.example")
    assert problem is None or problem.code.startswith("password_")


# --- through the API -------------------------------------------------------------------------------------------------


def test_the_whole_way_from_the_set_up_link_to_signing_out(empty: Any) -> None:
    from certwright.entry.app import create_app
    from tests.conftest import Api

    api = Api(empty, create_app(empty.services), {})
    link = empty.run(accounts.fresh_setup_link(empty.services))
    body = {
        "token": link.secret,
        "email": "ann@one.example",
        "name": "Ann",
        "password": PASSWORD,
        "account_name": "One",
    }
    assert api.post("/api/v1/setup", body).status_code == 201
    assert api.post("/api/v1/setup", body).status_code == 404
    wrong = api.post("/api/v1/sign-in", {"email": "ann@one.example", "password": "no"})
    assert wrong.status_code == 401
    signed_in = api.post("/api/v1/sign-in", {"email": "ann@one.example", "password": PASSWORD})
    assert signed_in.status_code == 200
    cookie = signed_in.headers["set-cookie"]
    assert cookie.startswith("__Host-certwright=")
    for part in ("Secure", "HttpOnly", "Path=/", "SameSite=lax"):
        assert part in cookie
    assert "Domain" not in cookie
    browser = Api(empty, api.app, {"cookie": cookie.partition(";")[0], "sec-fetch-site": "same-origin"})
    me = browser.get("/api/v1/me").json()
    assert (me["kind"], me["user"]["email"], me["account"]["name"]) == ("user", "ann@one.example", "One")
    assert "iam:user:create" in me["actions"]
    assert browser.post("/api/v1/sign-out").status_code == 204
    assert browser.get("/api/v1/me").status_code == 401


def test_throttling_says_when_to_come_back(empty: Any) -> None:
    from certwright.entry.app import create_app
    from tests.conftest import Api

    api = Api(empty, create_app(empty.services), {})
    body = {"email": "ann@one.example", "password": "wrong wrong"}
    statuses = [api.post("/api/v1/sign-in", body) for _ in range(6)]
    assert [r.status_code for r in statuses] == [401] * 5 + [429]
    assert int(statuses[-1].headers["retry-after"]) >= 25


def test_no_answer_of_the_api_holds_a_hash_of_a_secret(api: Any) -> None:
    for path in ("/api/v1/users", "/api/v1/tokens", "/api/v1/me", "/api/v1/audit-events"):
        # One id in 90,000 holds the word by chance.
        text = re.sub(r"_[0-9a-z]{26}\b", "", api.get(path).text)
        assert "hash" not in text
        assert "argon2" not in text
