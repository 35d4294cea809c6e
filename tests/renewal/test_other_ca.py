"""A mass replacement by which certificates leave their CA for another one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.problems import Forbidden, NotFound, Refused
from certwright.rooms import certificates, renewal
from certwright.rooms.audit import audit_events
from certwright.rooms.certificates import AuthorityDirectory, State
from certwright.rooms.certificates.tables import versions
from certwright.rooms.renewal import CampaignReason, CampaignState, Criteria, ItemState, campaigns, rules
from certwright.rooms.renewal.tables import campaign_items
from certwright.rooms.renewal.words import Destination
from tests.certificates.test_lifecycle import Site, issue, look, product, publish_all, settings, site
from tests.conftest import World
from tests.renewal.conftest import issued, rows
from tests.renewal.test_rules import STANDING

__all__ = ["product", "settings", "site"]

DAY = timedelta(days=1)
ALL = Criteria(names="*")


class Second:
    """The built-in CA under another name; `methods` are those it takes."""

    def __init__(self, real: Any, methods: tuple[str, ...]) -> None:
        self.capabilities = replace(real.capabilities, name="Second CA", methods=methods)
        self._real = real

    async def submit(self, order: Any) -> str:
        return str(await self._real.submit(order))

    async def collect(self, order_id: str, account_id: str) -> Any:
        return await self._real.collect(order_id, account_id)

    async def revoke(self, leaf_der: bytes, reason: Any, account_id: str) -> None:
        await self._real.revoke(leaf_der, reason, account_id)


def add_second(world: World, *methods: str) -> None:
    directory = world.services.port(AuthorityDirectory)
    second = Second(directory.by_id["builtin"], methods or ("dns", "file"))
    world.services.ports[AuthorityDirectory] = AuthorityDirectory(  # type: ignore[index]  # a test's own mapping
        {**directory.by_id, "second": second}, directory.outside
    )


def start(world: World, **more: Any) -> renewal.Campaign:
    return world.run(
        campaigns.start(
            world.services, world.actor, ALL, name="distrust", reason=CampaignReason.DISTRUST,
            deadline=world.clock.now() + DAY, per_hour=36_000, to_ca="second", **more,
        )
    )  # fmt: skip


def test_certificates_go_to_the_other_ca_and_stay_there(product: World, site: Site) -> None:
    detail = issue(product, site)
    add_second(product)
    product.later(days=1)
    made = start(product)
    assert made.to_ca == "second"
    product.drain()
    asked = look(product, detail.id)
    assert asked.summary.state is State.VERIFYING_REISSUE  # what one CA saw is no proof for another
    publish_all(product, site, detail)
    product.run(certificates.check_domains(product.services, product.actor, detail.id))
    product.drain()
    done = look(product, detail.id)
    assert (done.summary.state, done.summary.ca) == (State.ISSUED, "second")
    assert [version.number for version in done.versions] == [2, 1]
    cas = rows(product, sa.select(versions.c.number, versions.c.ca).order_by(versions.c.number))
    assert [row.ca for row in cas] == ["builtin", "second"]
    over = product.run(campaigns.get_campaign(product.services, product.actor, made.id))
    assert (over.state, over.counts["replaced"]) == (CampaignState.FINISHED, 1)
    (queued,) = rows(product, sa.select(campaign_items.c.ca))
    assert queued.ca == "second"
    said = rows(product, sa.select(audit_events).where(audit_events.c.action == "scm:cert:renew"))
    assert ({"ca": "builtin"}, {"ca": "second"}) in [(row.before, row.after) for row in said]
    product.clock.set(done.summary.not_after - DAY)
    product.drain()
    assert look(product, detail.id).summary.ca == "second"


def test_what_the_other_ca_would_not_take_is_excluded_with_the_reason(product: World, site: Site) -> None:
    issue(product, site)
    add_second(product, "dns")
    seen = product.run(
        campaigns.preview(
            product.services, product.actor, ALL, deadline=product.clock.now() + DAY, per_hour=60, to_ca="second"
        )
    )
    assert (seen.replaced, seen.counts) == (0, {"method_not_taken": 1})
    assert "file" in seen.excluded[0].reason


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param({}, "replaceable", id="shown by a method the other CA takes"),
        pytest.param({"validation_method": "email"}, "method_not_taken", id="shown by one it doesn't take"),
        pytest.param({"per_name_methods": {"b.example": "email"}}, "method_not_taken", id="one name of two is"),
        pytest.param({"bought": True}, "ca_of_product", id="bought from its CA"),
        pytest.param({"validation_method": "vouched"}, "ca_vouched", id="issued without proof"),
        pytest.param({"ca": "second", "bought": True}, "replaceable", id="at that CA already: replaced there"),
        pytest.param({"uploaded": True, "bought": True}, "uploaded", id="uploaded: that counts first"),
        pytest.param({"state": State.VERIFYING_REISSUE}, "busy", id="busy: later"),
    ],
)
def test_who_can_go_to_another_ca(change: dict[str, Any], code: str) -> None:
    verdict = rules.replaceable(replace(STANDING, **change), Destination("second", frozenset(("file", "dns"))))
    assert verdict.code == code
    assert (verdict.state is ItemState.WAITING) == (code in ("replaceable", "busy"))


def test_what_was_issued_without_proof_stays_where_it_is(product: World) -> None:
    certificate_id = issued(product)
    add_second(product)
    made = start(product)
    product.drain()
    (item,) = product.run(campaigns.list_items(product.services, product.actor, made.id))
    assert (item.state, item.reason_code) == (ItemState.EXCLUDED, "ca_vouched")
    with pytest.raises(Refused) as caught:
        product.run(certificates.renew_version(product.services, product.actor, certificate_id, at_ca="second"))
    assert caught.value.code == "ca_vouched"
    assert look(product, certificate_id).summary.ca == "builtin"


def test_the_other_ca_must_be_there_and_be_one_the_starter_may_use(product: World) -> None:
    with pytest.raises(NotFound) as caught:
        start(product)
    assert caught.value.field == "to_ca"

    class Outside:
        async def find(self, tx: Any, account_id: str, ca: str) -> Any:
            return ("ca_x", directory.by_id["builtin"]) if ca == "second" else None

        async def names(self, tx: Any, account_id: str) -> tuple[str, ...]:
            return ("second",)

    directory = product.services.port(AuthorityDirectory)
    product.services.ports[AuthorityDirectory] = AuthorityDirectory(  # type: ignore[index]  # a test's own mapping
        directory.by_id, Outside()
    )
    narrow = product.actor_with("scm:campaign:*", "scm:cert:*")
    with pytest.raises(Forbidden):
        product.run(
            campaigns.start(
                product.services, narrow, ALL, name="x", reason=CampaignReason.DRILL,
                deadline=product.clock.now() + DAY, per_hour=60, to_ca="second",
            )
        )  # fmt: skip
