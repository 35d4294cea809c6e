"""The text buyers agree to, CAs they may not use, and providers that installed packages bring."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from certwright.connectors import payment
from certwright.kernel.problems import Forbidden, Invalid, NotFound, Unavailable
from certwright.platform.config import Settings
from certwright.platform.services import Services
from certwright.rooms import billing, cas
from certwright.rooms.billing import statements, store
from certwright.rooms.billing.tables import orders, service_statements
from tests.cas import work
from tests.conftest import Api
from tests.servers.certcentral import fake_certcentral

from .conftest import PRODUCT, Shop

OWN = "# Ours\nPay first.\n\nThen wait."


def with_statement(services: Services, path: Path | None) -> Services:
    settings = services.settings.model_copy(update={"service_statement_file": path})
    return replace(services, settings=settings)


# --- the statement --------------------------------------------------------------------------------------------------


def test_the_operators_text_takes_the_place_of_the_shipped_one_and_old_ones_stay_readable(
    shop: Shop, tmp_path: Path
) -> None:
    first = shop.place()
    (tmp_path / "ours.txt").write_text(OWN)
    shop.services = with_statement(shop.services, tmp_path / "ours.txt")
    second = shop.place()
    shipped, own = (
        shop.world.run(billing.service_statement(shop.services, order.statement_version)) for order in (first, second)
    )
    assert (shipped.version, shipped.text) == (statements.SHIPPED_VERSION, statements.SHIPPED)
    assert own.text.strip() == OWN
    assert own.version != shipped.version
    assert shop.world.run(billing.service_statement(shop.services)) == own

    shop.services = with_statement(shop.services, None)
    assert shop.world.run(billing.service_statement(shop.services, own.version)) == own, "kept with the order"
    kept = {row.version for row in shop.rows(sa.select(service_statements.c.version))}
    assert kept == {own.version, shipped.version}
    with pytest.raises(NotFound):
        shop.world.run(billing.service_statement(shop.services, "nobody-agreed"))


def test_agreeing_to_the_text_before_the_operator_changed_it_is_refused(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "ours.txt").write_text(OWN)
    shop.services = with_statement(shop.services, tmp_path / "ours.txt")
    with pytest.raises(Invalid) as refused:
        shop.place(statement_version=statements.SHIPPED_VERSION)
    assert refused.value.code == "statement_outdated"
    assert shop.place(statement_version=billing.current_statement(shop.services).version).statement_version


@pytest.mark.parametrize("octets", [b"", b"  \n", b"\xff\xfe", b"a\x00b", b"x" * 100_001])
def test_a_text_that_is_none_stops_orders_and_says_why(shop: Shop, tmp_path: Path, octets: bytes) -> None:
    path = tmp_path / "broken.txt"
    path.write_bytes(octets)
    shop.services = with_statement(shop.services, path)
    with pytest.raises(Unavailable) as refused:
        shop.place()
    assert refused.value.code == "service_statement_unreadable"
    path.unlink()
    with pytest.raises(ValueError, match="there is no file"):
        Settings(data_dir=tmp_path, service_statement_file=path)


def test_the_statement_is_read_before_it_is_agreed_to(api: Api, shop: Shop) -> None:
    version = api.post("/api/v1/quotes", {"product": PRODUCT["code"]}).json()["statement_version"]
    read = api.get("/api/v1/service-statement").json()
    assert (read["version"], read["text"]) == (version, statements.SHIPPED)
    assert api.get(f"/api/v1/service-statement?version={version}").json() == read
    assert api.get("/api/v1/service-statement?version=1999").status_code == 404


# --- the CA of a product --------------------------------------------------------------------------------------------


def test_ordering_needs_the_right_to_use_the_products_ca(shop: Shop) -> None:
    with fake_certcentral() as running:
        added = work.add_shop(shop.world, running)
    document = PRODUCT | {"code": "shop-dv", "name": "Shop DV", "ca": "shop"}
    shop.world.run(billing.create_product(shop.services, shop.actor, document))
    buyer = shop.world.actor_with("bss:*")
    with pytest.raises(Forbidden) as refused:
        shop.place("shop-dv", actor=buyer)
    assert refused.value.extra["action"] == "scm:ca:use"
    other = shop.world.actor_with("bss:*", "scm:ca:use", resources=("product:*", "order:*", "ca:eca_other"))
    with pytest.raises(Forbidden):
        shop.place("shop-dv", actor=other)
    assert not shop.world.run(billing.list_orders(shop.services, shop.actor, billing.OrderFilter()))

    named = shop.world.actor_with("bss:*", "scm:ca:use", resources=("*",))
    assert shop.place("shop-dv", actor=named).product["ca"] == "shop"
    assert shop.place(PRODUCT["code"], actor=buyer).product["ca"] == "builtin", "the built-in CA is everybody's"
    assert shop.world.run(cas.get_ca(shop.services, shop.actor, added.id)).name == "shop"


# --- finding orders -------------------------------------------------------------------------------------------------


def test_orders_are_searched_by_an_index(shop: Shop) -> None:
    async def plan(tx: Any) -> str:
        # On a table of three rows only these leave the planner no cheaper way; what counts is that it can.
        await tx.exec_driver_sql("SET LOCAL enable_seqscan = off")
        await tx.exec_driver_sql("SET LOCAL enable_indexscan = off")
        (condition,) = store.order_filters(search="house-ov")
        query = sa.select(orders.c.id).where(condition).compile(
            dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}
        )  # fmt: skip
        found = await tx.exec_driver_sql(f"EXPLAIN {query}".replace("%%", "%"))
        return "\n".join(row[0] for row in found)

    assert "ix_orders_search" in shop.raw(plan)


# --- providers of installed packages --------------------------------------------------------------------------------

PROVIDER = """
from datetime import timedelta
from certwright.rooms.billing import Charged, Declined

class Cards:
    def __init__(self, services):
        self.services = services
    async def charge(self, charge):
        return Charged("ch_" + charge.reference) if charge.amount.minor < 20000 else Declined("too much")
    async def refund(self, charge, provider_reference):
        return Charged("re_" + provider_reference)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Installs a package with this entry point, as an installer would."""

    def install(line: str) -> None:
        (tmp_path / "cards_of_ours.py").write_text(PROVIDER)
        info = tmp_path / "cards_of_ours-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cards-of-ours\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{payment.GROUP}]\n{line}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "cards_of_ours", raising=False)

    return install


def test_a_provider_of_an_installed_package_is_a_way_to_pay_and_gives_back(
    shop: Shop, package: Callable[[str], None]
) -> None:
    package("cards = cards_of_ours:Cards")
    providers = payment.installed(shop.services)
    assert list(providers.by_name) == ["cards"]
    ports: Any = shop.services.ports
    ports[billing.PaymentProviders] = providers
    order_id = shop.place().summary.id
    shop.pay(order_id, "cards")
    shop.world.drain()
    paid = shop.order(order_id)
    assert (paid.summary.status, paid.payments[0].method) == (billing.OrderStatus.PAID, "cards")
    shop.automatic()
    assert shop.unsubscribe(order_id).state == "refunding"
    shop.world.drain()
    assert shop.order(order_id).summary.status is billing.OrderStatus.REFUNDED

    dear = shop.place(asked={"quantity": 3}).summary.id
    shop.pay(dear, "cards")
    shop.world.drain()
    assert shop.order(dear).payments[0].failure == "too much"
    shop.books_are_right()


@pytest.mark.parametrize("name", ["balance", "invoice", "none", "Cards", "-", "a" * 33])
def test_a_provider_takes_no_name_that_means_something_else(
    shop: Shop, package: Callable[[str], None], name: str
) -> None:
    package(f"{name} = cards_of_ours:Cards")
    with pytest.raises(Invalid) as refused:
        payment.installed(shop.services)
    assert refused.value.code == "payment_provider_name"
