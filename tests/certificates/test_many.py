"""The list of certificates, files of it, and one operation on many: in the room and through the API."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from typing import Any

import pytest

from certwright.kernel.problems import Invalid
from certwright.rooms import authorities, certificates
from certwright.rooms.certificates import Bulk, BulkAction, CertificateType, Filters, RevocationReason, State, Usage
from tests.certificates.test_lifecycle import create, look, product, wanted
from tests.conftest import World

__all__ = ["product"]


def private(world: World, *names: str, **changes: Any) -> str:
    """A certificate issued at once; returns its id."""
    world.later(seconds=1)  # ids of one moment have no order
    return str(world.run(certificates.issue_private(world.services, world.actor, names=names, **changes)).id)


def found(world: World, **filters: Any) -> set[str]:
    return {
        one.id
        for one in world.run(certificates.list_certificates(world.services, world.actor, Filters(**filters), limit=100))
    }


# --- filters --------------------------------------------------------------------------------------------------------


def test_a_list_is_narrowed_by_everything_the_specification_names(product: World) -> None:
    short, long = private(product, "short.test", days=5), private(product, "long.test", days=90)
    several = private(product, "a.test", "b.test", key_algorithm="RSA_2048", days=60)
    starred, waiting = private(product, "*.star.test", days=60), create(product, wanted()).id
    now = product.clock.now()
    assert found(product, states=(State.PENDING_DOMAIN_VALIDATION,)) == {waiting}
    assert found(product) >= {short, long, several, starred, waiting}  # "all"
    assert found(product, certificate_type=CertificateType.OV.value) == set()
    assert found(product, certificate_type=CertificateType.DV.value) >= {short, waiting}
    assert found(product, domain_type="multi") == {several}
    assert found(product, domain_type="wildcard") == {starred}
    assert several not in found(product, domain_type="single")
    assert found(product, ca="builtin") >= {short, waiting}
    assert found(product, ca="ca_other") == set()
    assert found(product, project_id=product.project_id) >= {short, waiting}
    assert found(product, project_id=product.other_project_id) == set()
    window = {"expires_after": now + timedelta(days=50), "expires_before": now + timedelta(days=70)}
    assert found(product, **window) == {several, starred}
    assert found(product, key_algorithm="RSA 2048") == {several}
    assert found(product, search="b.test") == {several}
    shown = look(product, short).summary
    assert found(product, sha256=shown.sha256) == {short}
    assert found(product, serial=shown.serial) == {short}
    assert found(product, serial=int(shown.serial, 16).to_bytes(20).hex(":").upper()) == {short}
    product.later(days=4)
    assert short in found(product, expires_soon=True)
    assert long not in found(product, expires_soon=True)


def test_deployed_on_asks_who_serves_there_for_what_this_actor_may_see(product: World) -> None:
    one, _other = private(product, "one.test"), private(product, "two.test")
    asked: list[tuple[str, str]] = []

    class Served:
        async def certificates_on(self, tx: Any, actor: Any, target: str) -> tuple[str, ...]:
            asked.append((actor.id, target))
            return (one,)

    product.services.ports[Usage] = Served()
    assert found(product, deployed_on="web-1") == {one}
    assert asked == [(product.actor.id, "web-1")]


@pytest.mark.parametrize("descending", [False, True])
def test_by_expiry_those_without_one_come_last_and_every_page_goes_on_where_the_one_before_ended(
    product: World, descending: bool
) -> None:
    issued = [private(product, f"n{days}.test", days=days) for days in (30, 10, 20)]
    waiting = []
    for _ in range(3):
        product.later(seconds=1)
        waiting.append(create(product).id)
    seen: list[str] = []
    after = None
    while True:
        page = product.run(
            certificates.list_certificates(
                product.services, product.actor, Filters(project_id=product.project_id), sort="expiry",
                descending=descending, after=after, limit=2,
            )
        )  # fmt: skip
        ours = [one for one in page if one.id in {*issued, *waiting}]
        seen += [one.id for one in ours]
        if len(page) < 2:
            break
        after = (page[-1].not_after, page[-1].id)
    by_end = [issued[1], issued[2], issued[0]]
    assert seen == [*(by_end[::-1] if descending else by_end), *(waiting[::-1] if descending else waiting)]


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(api: Any) -> Any:
    """The API with a CA behind it."""
    world = api.world
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    return api


def test_a_filtered_list_is_a_csv_file_with_everything_in_it(shop: Any) -> None:
    for number in range(3):
        private(shop.world, f"n{number}.test", "x.test", description='=HYPERLINK("http://evil")')
    private(shop.world, "other.example")
    answer = shop.get("/api/v1/certificates/export?search=x.test&format=csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="certificates.csv"'
    lines = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert [line["names"] for line in lines] == [f"n{number}.test x.test" for number in (2, 1, 0)]
    assert {line["state"] for line in lines} == {"issued"}
    assert {line["description"][:2] for line in lines} == {"'="}, "a cell must not become a formula"


def test_a_filtered_list_is_a_json_file_of_what_the_list_shows(shop: Any) -> None:
    private(shop.world, "one.test")
    private(shop.world, "two.example")
    answer = shop.get("/api/v1/certificates/export?format=json&search=one.test")
    listed = shop.get("/api/v1/certificates?search=one.test").json()["items"]
    assert json.loads(answer.content)["items"] == listed
    assert len(listed) == 1


def test_an_export_holds_more_than_a_page_and_nothing_of_another_account(shop: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("certwright.rooms.certificates.actions._EXPORTED_AT_ONCE", 2)
    mine = {private(shop.world, f"n{number}.test") for number in range(5)}
    assert {one["id"] for one in shop.get("/api/v1/certificates/export?format=json").json()["items"]} >= mine
    theirs = shop.as_actor(shop.world.other_actor).get("/api/v1/certificates/export?format=json").json()["items"]
    assert theirs == []


@pytest.mark.parametrize("query", ["format=xml", "sort=expiry", "state=nonsense"])
def test_an_export_that_makes_no_sense_is_refused(shop: Any, query: str) -> None:
    assert shop.get(f"/api/v1/certificates/export?{query}").status_code == 422


# --- many at once ---------------------------------------------------------------------------------------------------


def preview(world: World, bulk: Bulk, *ids: str, actor: Any = None) -> dict[str, str]:
    """id → code of why it is left alone, or "ok"."""
    lines = world.run(certificates.bulk_preview(world.services, actor or world.actor, bulk, ids))
    return {line.id: line.problem.code if line.problem else "ok" for line in lines}


def perform(world: World, bulk: Bulk, *ids: str, actor: Any = None) -> dict[str, str]:
    lines = world.run(certificates.bulk_perform(world.services, actor or world.actor, bulk, ids))
    return {line.id: line.problem.code if line.problem else "ok" for line in lines}


def test_a_preview_says_of_each_what_would_be_done_and_changes_nothing(product: World) -> None:
    issued, waiting = private(product, "one.test"), create(product, wanted()).id
    before = [look(product, one).summary for one in (issued, waiting)]
    said = preview(product, Bulk(BulkAction.WITHDRAW), issued, waiting, "cert_nowhere", waiting)
    assert said == {issued: "operation_not_allowed", waiting: "ok", "cert_nowhere": "not_found"}
    assert [look(product, one).summary for one in (issued, waiting)] == before


@pytest.mark.parametrize("action", list(BulkAction))
def test_what_a_preview_promises_is_done_and_what_it_refuses_is_left_alone(product: World, action: BulkAction) -> None:
    ids = [private(product, "one.test"), create(product, wanted()).id, create(product).id]
    second = product.run(_project(product))
    bulk = Bulk(action, tags={"team": "shop"}, project_id=second, reason=RevocationReason.SUPERSEDED)
    promised = preview(product, bulk, *ids)
    untouched = {one: look(product, one).summary for one, said in promised.items() if said != "ok"}
    assert perform(product, bulk, *ids) == promised
    assert {one: look(product, one).summary for one in untouched} == untouched


async def _project(world: World) -> str:
    from certwright.rooms.access import people

    return str((await people.create_project(world.services, world.actor, name="second")).id)


def test_what_is_so_already_is_left_alone(product: World) -> None:
    one = private(product, "one.test")
    for action in (BulkAction.AUTO_RENEW_ON, BulkAction.NOTIFY_ON):
        assert preview(product, Bulk(action), one) == {one: "nothing_to_do"}
    assert preview(product, Bulk(BulkAction.UNTAG, tags={"team": ""}), one) == {one: "nothing_to_do"}
    assert perform(product, Bulk(BulkAction.TAG, tags={"team": "shop"}), one) == {one: "ok"}
    assert look(product, one).summary.tags == {"team": "shop"}
    assert preview(product, Bulk(BulkAction.TAG, tags={"team": "shop"}), one) == {one: "nothing_to_do"}
    assert perform(product, Bulk(BulkAction.UNTAG, tags={"team": ""}), one) == {one: "ok"}
    assert look(product, one).summary.tags == {}


def test_each_needs_the_permission_of_the_single_operation(product: World) -> None:
    one = private(product, "one.test")
    looker = product.actor_with("scm:cert:list", "scm:cert:get")
    for action in BulkAction:
        bulk = Bulk(action, tags={"a": "b"}, project_id=product.project_id, reason=RevocationReason.SUPERSEDED)
        assert perform(product, bulk, one, actor=looker) == {one: "not_permitted"}
    assert perform(product, Bulk(BulkAction.NOTIFY_OFF), one, actor=product.other_actor) == {one: "not_found"}


def test_on_a_page_nobody_deletes_what_was_issued_without_being_paid_for(product: World) -> None:
    one = private(product, "one.test")
    assert perform(product, Bulk(BulkAction.DELETE, by_hand=True), one) == {one: "operation_not_allowed"}
    assert look(product, one).only_by_program is not None
    assert perform(product, Bulk(BulkAction.DELETE), one) == {one: "ok"}


@pytest.mark.parametrize(
    ("bulk", "ids", "code"),
    [
        (Bulk(BulkAction.DELETE), (), "nothing_chosen"),
        (Bulk(BulkAction.DELETE), tuple(f"cert_{n}" for n in range(201)), "too_many_chosen"),
        (Bulk(BulkAction.TAG), ("cert_x",), "tags_missing"),
        (Bulk(BulkAction.MOVE), ("cert_x",), "project_missing"),
        (Bulk(BulkAction.REVOKE), ("cert_x",), "reason_missing"),
    ],
)
def test_what_an_operation_on_many_lacks_is_said(product: World, bulk: Bulk, ids: tuple[str, ...], code: str) -> None:
    with pytest.raises(Invalid) as caught:
        product.run(certificates.bulk_preview(product.services, product.actor, bulk, ids))
    assert caught.value.code == code


def test_the_api_previews_and_does_it(shop: Any) -> None:
    one, other = private(shop.world, "one.test"), private(shop.world, "two.test")
    body = {"action": "revoke", "ids": [one, other, "cert_x"], "reason": "superseded"}
    said = shop.post("/api/v1/certificates/bulk/preview", body).json()
    assert (said["ok"], said["refused"]) == (2, 1)
    assert [item["problem"] and item["problem"]["code"] for item in said["items"]] == [None, None, "not_found"]
    assert look(shop.world, one).summary.state is State.ISSUED
    assert shop.post("/api/v1/certificates/bulk", body).json()["ok"] == 2
    shop.world.drain()
    assert {look(shop.world, each).summary.state for each in (one, other)} == {State.REVOKED}


@pytest.mark.parametrize("body", [{}, {"action": "burn", "ids": ["cert_x"]}, {"action": "tag", "ids": ["cert_x"]}])
def test_an_operation_on_many_that_makes_no_sense_is_refused(shop: Any, body: Any) -> None:
    assert shop.post("/api/v1/certificates/bulk", body).status_code == 422


def test_the_api_filters_by_what_the_list_knows_and_refuses_what_it_doesnt(shop: Any) -> None:
    one, other = private(shop.world, "one.test"), private(shop.world, "a.test", "b.test")
    assert [i["id"] for i in shop.get("/api/v1/certificates?domain_type=multi").json()["items"]] == [other]
    assert one in {i["id"] for i in shop.get("/api/v1/certificates?type=dv&limit=100").json()["items"]}
    assert shop.get("/api/v1/certificates?deployed_on=nowhere").json()["items"] == []
    assert shop.get("/api/v1/certificates?colour=red").status_code == 422
