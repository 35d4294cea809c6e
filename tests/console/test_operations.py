"""What can be done with a certificate beyond its first issue, by form: on a real database and the built-in CA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.rooms import authorities, certificates
from certwright.rooms.certificates import State
from certwright.rooms.certificates.tables import applications
from tests.certificates.test_lifecycle import NAME, Site, issue, look, publish_all, rows, settings, site, wanted
from tests.organisations import desk

__all__ = ["settings", "site"]

SignIn = Callable[[Any], Any]

PAIR = ("a.demo.localhost", "b.demo.localhost")
FORM = {
    "names": NAME, "certificate_type": "dv", "validation_method": "file", "key_source": "system",
    "key_algorithm": "EC_P256", "applicant_name": "Ada Lovelace", "applicant_email": "ada@example.com",
    "applicant_phone": "+44 20 7946 0000", "consent": "yes",
}  # fmt: skip


@pytest.fixture
def shop(api: Any) -> Any:
    world = api.world
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    return world


def test_a_reissue_page_shows_what_there_is_and_says_what_becomes_of_it(
    api: Any, web: SignIn, shop: Any, site: Site
) -> None:
    detail, me = issue(shop, site), web(api.world.actor)
    base = f"/certificates/{detail.id}"
    assert f'href="{base}/reissue"' in me.get(base).text
    shown = me.get(f"{base}/reissue").text
    assert NAME in shown
    assert "revoked as superseded some days after" in shown


def test_an_unchanged_reissue_brings_the_same_names_with_a_new_key(
    api: Any, web: SignIn, shop: Any, site: Site
) -> None:
    detail, me = issue(shop, site), web(api.world.actor)
    assert me.form(f"/certificates/{detail.id}/reissue", FORM).headers["location"] == f"/certificates/{detail.id}"
    shop.drain()
    after = look(shop, detail.id)
    assert [version.names for version in after.versions] == [(NAME,), (NAME,)]
    assert (after.summary.state, after.versions[0].sha256 != after.versions[1].sha256) == (State.ISSUED, True)


def test_a_reissue_with_another_name_waits_for_its_proof_and_can_be_withdrawn(
    api: Any, web: SignIn, shop: Any, site: Site
) -> None:
    detail, me = issue(shop, site), web(api.world.actor)
    base = f"/certificates/{detail.id}"
    assert me.form(f"{base}/reissue", FORM | {"names": "news.demo.localhost"}).status_code == 303
    page = me.get(base).text
    assert "Your turn" in page
    assert "Show that these names are yours: news.demo.localhost." in page
    assert look(shop, detail.id).summary.state is State.VERIFYING_REISSUE
    assert me.form(f"{base}/withdraw", {"confirmed": "yes"}).status_code == 303
    assert look(shop, detail.id).summary.state is State.ISSUED


def test_a_wrong_reissue_says_why_beside_the_field(api: Any, web: SignIn, shop: Any, site: Site) -> None:
    detail, me = issue(shop, site), web(api.world.actor)
    answer = me.form(f"/certificates/{detail.id}/reissue", FORM | {"names": "a..b", "key_source": "csr"})
    assert (answer.status_code, 'id="e-csr-1"' in answer.text) == (422, True)
    answer = me.form(f"/certificates/{detail.id}/reissue", FORM | {"names": "a..b"})
    assert (answer.status_code, 'id="e-names-1"' in answer.text) == (422, True)
    assert look(shop, detail.id).summary.state is State.ISSUED


def test_names_are_added_within_the_quota(api: Any, web: SignIn, shop: Any, site: Site) -> None:
    detail, me = issue(shop, site, wanted(*PAIR)), web(api.world.actor)
    base = f"/certificates/{detail.id}"
    assert "2 of 250 used" in me.get(f"{base}/add").text
    assert 'id="e-names-1"' in me.form(f"{base}/add", {"names": ""}).text
    assert me.form(f"{base}/add", {"names": "c.demo.localhost"}).headers["location"] == base
    assert look(shop, detail.id).summary.state is State.VERIFYING_DOMAIN_ADDITION
    assert "c.demo.localhost" in me.get(f"{base}/validation").text
    publish_all(shop, site, detail)
    shop.later(seconds=1)
    me.form(f"{base}/validation")
    shop.drain()
    assert set(look(shop, detail.id).summary.names) == {*PAIR, "c.demo.localhost"}


def test_a_single_name_takes_no_other(api: Any, web: SignIn, shop: Any, site: Site) -> None:
    detail, me = issue(shop, site), web(api.world.actor)
    refused = me.form(f"/certificates/{detail.id}/add", {"names": "c.demo.localhost"})
    assert refused.status_code == 409
    assert "only multi-domain certificates take more names" in refused.text
    assert f"/certificates/{detail.id}/add" not in me.get(f"/certificates/{detail.id}").text


def test_an_earlier_version_is_revoked_alone(api: Any, web: SignIn, shop: Any, site: Site) -> None:
    detail, me = issue(shop, site), web(api.world.actor)
    base = f"/certificates/{detail.id}"
    me.form(f"{base}/reissue", FORM)
    shop.drain()
    first = next(version for version in look(shop, detail.id).versions if version.superseded_at is not None)
    page = me.get(f"{base}/revoke").text
    assert "Which version?" in page
    assert first.id in page
    assert 'id="e-reason-1"' in me.form(f"{base}/revoke", {"version_id": first.id}).text
    assert me.form(f"{base}/revoke", {"version_id": "ver_other", "reason": "superseded"}).status_code == 404
    assert me.form(f"{base}/revoke", {"version_id": first.id, "reason": "superseded"}).status_code == 303
    shop.drain()
    after = look(shop, detail.id)
    assert {version.number: version.revoked_at is not None for version in after.versions} == {1: True, 2: False}
    assert after.summary.state is State.ISSUED
    assert "Which version?" not in me.get(f"{base}/revoke").text


def test_withdrawing_privacy_asks_says_what_is_erased_and_erases_it(
    api: Any, web: SignIn, shop: Any, site: Site
) -> None:
    detail, me = issue(shop, site), web(api.world.actor)
    base = f"/certificates/{detail.id}"
    assert "the name, e-mail address and phone number" in me.get(f"{base}/privacy").text
    assert me.form(f"{base}/privacy").headers["location"] == base
    kept = sa.select(applications.c.applicant).where(applications.c.certificate_id == detail.id)
    assert [row[0] for row in rows(shop, kept)] == [None]
    assert "ada@example.com" not in me.get(base).text
    assert me.form(f"{base}/privacy").status_code == 409


def test_a_draft_is_kept_and_filled_in_again(api: Any, web: SignIn, shop: Any) -> None:
    me, one = web(api.world.actor), desk.add(api.world)
    typed = FORM | {"certificate_type": "ov", "organisation_id": one.id, "step": "draft", "consent": ""}
    where = me.form("/certificates/new", typed).headers["location"]
    assert "Nothing was applied for yet" in me.get(where).text
    page = me.get(f"{where}/apply").text
    assert NAME in page
    assert f'value="{one.id}" selected' in page
    assert 'value="ov" checked' in page
    again = me.form(f"{where}/apply", typed | {"names": "other.demo.localhost"})
    assert again.headers["location"] == where
    assert "other.demo.localhost" in me.get(f"{where}/apply").text


def test_an_ov_application_names_its_organisation_and_says_who_is_awaited(
    api: Any, web: SignIn, shop: Any, site: Site
) -> None:
    me, one = web(api.world.actor), desk.add(api.world)
    typed = FORM | {"certificate_type": "ov"}
    missing = me.form("/certificates/new", typed | {"step": "review"})
    assert (missing.status_code, 'id="e-organisation_id-1"' in missing.text) == (422, True)
    typed |= {"organisation_id": one.id}
    assert "Beispiel Maschinenbau GmbH" in me.form("/certificates/new", typed | {"step": "review"}).text
    where = me.form("/certificates/new", typed | {"step": "submit"}).headers["location"].removesuffix("/validation")
    certificate_id = where.rpartition("/")[2]
    publish_all(shop, site, look(shop, certificate_id))
    me.form(f"{where}/validation")
    shop.drain()
    assert look(shop, certificate_id).summary.state is State.PENDING_ORGANIZATION_VALIDATION
    page = me.get(where).text
    assert "Choose how Beispiel Maschinenbau GmbH is verified." in page
    case_id = page.split('href="/verifications/')[1].split('"')[0]
    desk.choose(shop, case_id)
    assert "A specialist takes the case from the queue." in me.get(where).text


def test_an_organisation_left_in_a_hidden_field_does_not_count(api: Any, web: SignIn, shop: Any) -> None:
    me, one = web(api.world.actor), desk.add(api.world)
    answer = me.form("/certificates/new", FORM | {"organisation_id": one.id, "step": "review"})
    assert answer.status_code == 200
    assert "Beispiel" not in answer.text.split("<dl")[1].split("</dl>")[0]


def test_an_unknown_ca_is_refused_beside_its_field(api: Any, web: SignIn, shop: Any) -> None:
    answer = web(api.world.actor).form("/certificates/new", FORM | {"ca": "nowhere", "step": "review"})
    assert answer.status_code == 422
    assert "There is no CA" in answer.text


def test_what_belongs_to_another_account_is_not_there(api: Any, web: SignIn, shop: Any, site: Site) -> None:
    detail, stranger = issue(shop, site), web(api.world.other_actor)
    base = f"/certificates/{detail.id}"
    for part in ("reissue", "add", "revoke", "privacy"):
        assert stranger.get(f"{base}/{part}").status_code == 404
        assert stranger.form(f"{base}/{part}", FORM | {"reason": "superseded"}).status_code == 404
    assert stranger.form(f"{base}/again").status_code == 404
    assert look(shop, detail.id).summary.state is State.ISSUED


def test_applying_again_takes_what_was_bought(api: Any, web: SignIn, shop: Any, site: Site) -> None:
    detail, me = issue(shop, site), web(api.world.actor)
    me.form(f"/certificates/{detail.id}/revoke", {"reason": "superseded"})
    shop.drain()
    refused = me.form(f"/certificates/{detail.id}/again")
    assert refused.status_code == 409
    assert "it was not bought" in refused.text
    assert certificates.Operation.APPLY_AGAIN in look(shop, detail.id).allowed
