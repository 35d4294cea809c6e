"""The list of certificates with its filters, files and operations on many, and what the page of one says: by form."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.rooms import authorities, certificates
from certwright.rooms.certificates import State
from certwright.rooms.certificates.tables import confirmations, versions
from tests.certificates.test_lifecycle import look, wanted
from tests.conftest import World

SignIn = Callable[[Any], Any]


@pytest.fixture
def shop(api: Any) -> World:
    world: World = api.world
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    return world


@pytest.fixture
def me(web: SignIn, shop: World) -> Any:
    return web(shop.actor)


def private(world: World, *names: str, **changes: Any) -> str:
    world.later(seconds=1)
    return str(world.run(certificates.issue_private(world.services, world.actor, names=names, **changes)).id)


def test_every_filter_of_the_list_narrows_it_and_goes_along_to_file_and_next_page(me: Any, shop: World) -> None:
    one, other = private(shop, "one.test", days=10), private(shop, "a.test", "b.test", days=90)
    for query in ("domains=multi", "expires_after=2026-05-01", "type=dv&q=a.test", "key=EC+P-256&q=b.test"):
        page = me.get(f"/certificates?{query}").text
        assert (other in page, one in page) == (True, False), query
    assert one not in me.get("/certificates?target=nowhere").text
    page = me.get("/certificates?domains=multi").text
    assert 'href="/certificates/export/csv?domains=multi"' in page
    assert '<option value="multi" selected>' in page
    file = me.get("/certificates/export/csv?domains=multi")
    assert (file.headers["content-type"], other in file.text, one in file.text) == (
        "text/csv; charset=utf-8", True, False,
    )  # fmt: skip
    assert me.get("/certificates/export/xml").status_code == 404
    assert me.get("/certificates?expires_after=tomorrow").status_code == 422


def test_many_are_looked_at_first_and_changed_afterwards(me: Any, shop: World) -> None:
    one, other = private(shop, "one.test"), private(shop, "two.test")
    me.form("/certificates/bulk/do", {"action": "notify_off", "id": one})
    preview = me.form("/certificates/bulk", {"action": "notify_off", "id": [one, other]}).text
    assert "It would be done to 1 certificate." in preview
    assert "is so already." in preview
    assert look(shop, other).summary.notify
    done = me.form("/certificates/bulk/do", {"action": "notify_off", "id": other})
    assert (done.status_code, done.headers["location"]) == (303, "/certificates")
    assert not look(shop, other).summary.notify


def test_all_that_fit_the_filters_are_taken_without_ticking_them(me: Any, shop: World) -> None:
    private(shop, "one.test"), private(shop, "a.test", "b.test")
    preview = me.form("/certificates/bulk", {"action": "reissue", "all": "yes", "domains": "multi"}).text
    assert "It would be done to 1 certificate." in preview
    assert "a.test" in preview
    assert "one.test" not in preview


def test_what_needs_more_to_be_said_asks_for_it_before_the_preview(me: Any, shop: World) -> None:
    one = private(shop, "one.test")
    asked = me.form("/certificates/bulk", {"action": "revoke", "id": one}).text
    assert 'name="reason"' in asked
    assert "/certificates/bulk/do" not in asked
    ready = me.form("/certificates/bulk", {"action": "revoke", "id": one, "reason": "superseded"}).text
    assert "/certificates/bulk/do" in ready
    assert "be undone</div>" in ready
    me.form("/certificates/bulk/do", {"action": "revoke", "id": one, "reason": "superseded"})
    shop.drain()
    assert look(shop, one).summary.state is State.REVOKED


def test_those_left_alone_are_told_with_their_reasons(me: Any, shop: World) -> None:
    one, gone = private(shop, "one.test"), "cert_00000000000000000000000000"
    answer = me.form("/certificates/bulk/do", {"action": "delete", "id": [one, gone]})
    assert answer.status_code == 200
    assert "2 certificates were left alone." in answer.text
    assert "deleted through the API or the command line only" in answer.text
    assert look(shop, one).id == one


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"action": "burn", "id": "cert_x"}, 404), ({"action": "delete"}, 422), ({}, 404)],
)
def test_an_operation_on_many_that_makes_no_sense_is_refused(me: Any, fields: Any, status: int) -> None:
    assert me.form("/certificates/bulk", fields).status_code == status
    assert me.form("/certificates/bulk/do", fields).status_code == status


def test_another_accounts_certificates_are_neither_listed_nor_touched(web: SignIn, shop: World) -> None:
    one, stranger = private(shop, "one.test"), web(shop.other_actor)
    assert one not in stranger.get("/certificates/export/json").text
    assert "one.test" not in stranger.form("/certificates/bulk", {"action": "notify_off", "id": one}).text
    stranger.form("/certificates/bulk/do", {"action": "notify_off", "id": one})
    assert look(shop, one).summary.notify


# --- the page of one ------------------------------------------------------------------------------------------------


def test_messages_are_switched_with_one_button(me: Any, shop: World) -> None:
    one = private(shop, "one.test")
    page = me.get(f"/certificates/{one}").text
    assert f'action="/certificates/{one}/messages"' in page
    fields = {"notify": "", "revision": str(look(shop, one).summary.revision)}
    assert me.form(f"/certificates/{one}/messages", fields).status_code == 303
    assert not look(shop, one).summary.notify
    assert me.form(f"/certificates/{one}/messages", fields).status_code == 412  # the page was an old one


def test_what_was_issued_without_being_paid_for_is_not_deleted_on_its_page(me: Any, api: Any, shop: World) -> None:
    one = private(shop, "one.test")
    assert f'href="/certificates/{one}/delete"' not in me.get(f"/certificates/{one}").text
    refused = me.form(f"/certificates/{one}/delete")
    assert (refused.status_code, "through the API or the command line" in refused.text) == (409, True)
    assert api.delete(f"/api/v1/certificates/{one}").status_code == 204


def test_an_expired_certificate_says_that_another_one_has_to_be_ordered(web: SignIn, shop: World) -> None:
    one = private(shop, "one.test", days=1, auto_renew=False)
    shop.later(days=2)
    assert (
        "be renewed any more. Apply for another one, or order it." in web(shop.actor).get(f"/certificates/{one}").text
    )


def test_the_page_shows_how_its_names_were_validated_and_which_type_it_has(me: Any, shop: World) -> None:
    detail = shop.run(certificates.create_certificate(shop.services, shop.actor, application=wanted("x.example.com")))
    page = me.get(f"/certificates/{detail.id}").text
    assert "Validations" in page
    assert "DV · Single domain" in page
    assert "agreed to version" in page


def test_the_page_shows_the_mailed_link_and_sends_another(me: Any, api: Any, shop: World) -> None:
    one = private(shop, "one.test")
    version = look(shop, one).versions[0].id
    at = shop.clock.now()

    async def mailed() -> None:
        async with shop.services.db.begin() as tx:
            await tx.execute(
                sa.update(versions).where(versions.c.id == version)
                .values(revoke_asked_at=at, revocation_reason="superseded")
            )  # fmt: skip
            await tx.execute(
                sa.insert(confirmations).values(
                    id="cnf_1", account_id=shop.account.id, project_id=shop.project_id, certificate_id=one,
                    version_id=version, address="ada@example.com", token_hash=b"x", created_at=at,
                    expires_at=at + timedelta(days=30),
                )
            )  # fmt: skip

    shop.run(mailed())
    page = me.get(f"/certificates/{one}").text
    assert "a…@example.com" in page
    assert "ada@example.com" not in page.split('id="confirmations"')[1].split("</section>")[0]
    assert "Not followed yet" in page
    assert f'action="/certificates/{one}/confirmation"' in page
    hasty = me.form(f"/certificates/{one}/confirmation")
    assert (hasty.status_code, "less than five minutes ago" in hasty.text) == (429, True)
    told = api.get(f"/api/v1/certificates/{one}").json()["confirmations"]
    assert [(link["address"], link["state"]) for link in told] == [("a…@example.com", "waiting")]
    assert api.post(f"/api/v1/certificates/{one}/confirmation/mail").status_code == 429
