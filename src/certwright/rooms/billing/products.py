"""The catalogue as an account sees it: what the release ships, with the account's own edits in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Invalid, InvalidFields, Problem, Refused, Stale, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, audit
from certwright.rooms.billing import catalogue, store
from certwright.rooms.billing.catalogue import Product
from certwright.rooms.billing.ports import Fulfilment
from certwright.rooms.billing.views import ProductEdit, ProductView


async def list_products(services: Services, actor: Actor) -> list[ProductView]:
    """Every product the actor may see, by code."""
    async with services.db.begin() as tx:
        rows = await store.product_rows(tx, actor.account_id)
        merged: dict[str, tuple[Product, int]] = {code: (product, 0) for code, product in catalogue.shipped().items()}
        merged |= {row.code: (catalogue.checked(row.document), row.number) for row in rows}
        cas = {product.ca for product, _ in merged.values()}
        offered = await services.port(Fulfilment).offered(tx, services, actor.account_id, sorted(cas))
    return [
        ProductView(product, version, _why_not_orderable(product, offered))
        for code, (product, version) in sorted(merged.items())
        if _may_see(actor, "bss:product:list", code)
    ]


async def get_product(services: Services, actor: Actor, code: str) -> ProductView:
    async with services.db.begin() as tx:
        return await _view(tx, services, actor, *await product(tx, actor, code))


async def product_history(services: Services, actor: Actor, code: str, limit: int = 50) -> list[ProductEdit]:
    """The account's edits of a product, newest first."""
    async with services.db.begin() as tx:
        await product(tx, actor, code)
        rows = await store.product_history(tx, actor.account_id, code, limit)
    return [ProductEdit(row.number, row.document, row.created_at, row.created_by) for row in rows]


async def product(tx: Tx, actor: Actor, code: str) -> tuple[Product, int]:
    """(product, version) as it is sold now. Raises NotFound."""
    rows = await store.product_rows(tx, actor.account_id, code)
    found = (catalogue.checked(rows[0].document), rows[0].number) if rows else None
    if found is None and code in catalogue.shipped():
        found = (catalogue.shipped()[code], 0)
    if found is None or not _may_see(actor, "bss:product:get", code):
        raise not_found("product", code[:64])
    return found


def _may_see(actor: Actor, action: str, code: str) -> bool:
    """The catalogue is the account's: whoever may see it in one project may see it."""
    projects = {None, *(grant.project_id for grant in actor.grants)}
    return any(access.decide(actor.grants, action, f"product:{code}", project).allowed for project in projects)


async def _view(tx: Tx, services: Services, actor: Actor, found: Product, version: int) -> ProductView:
    offered = await services.port(Fulfilment).offered(tx, services, actor.account_id, [found.ca])
    return ProductView(found, version, _why_not_orderable(found, offered))


def _why_not_orderable(found: Product, offered: Mapping[str, str]) -> str | None:
    if not found.available:
        return "it is not for sale"
    return None if found.ca in offered else f"the CA {found.ca} is not configured"


async def orderable_from(tx: Tx, services: Services, actor: Actor, found: Product, project_id: str) -> str:
    """The id of the CA that fulfils it. Raises Refused `product_not_orderable`, Forbidden for who may not use it."""
    fulfilment = services.port(Fulfilment)
    offered = await fulfilment.offered(tx, services, actor.account_id, [found.ca])
    reason = _why_not_orderable(found, offered)
    if reason is not None:
        raise Refused(
            "product_not_orderable", f"{found.name} can't be ordered: {reason}.", field="product",
            fix="Choose another product, or ask an administrator to offer it.",
        )  # fmt: skip
    fulfilment.require_use(services, actor, offered[found.ca], project_id)
    return offered[found.ca]


async def create_product(services: Services, actor: Actor, document: Mapping[str, Any]) -> ProductView:
    """A product of the account's own. Raises Refused `product_exists`."""
    wanted = catalogue.checked(document)
    access.require(actor, "bss:product:create", resource=f"product:{wanted.code}")
    async with services.db.begin() as tx:
        known = wanted.code in catalogue.shipped() or await store.product_rows(tx, actor.account_id, wanted.code)
        if known or not await _write(tx, services, actor, wanted, 1):
            raise Refused(
                "product_exists", f"There is a product {wanted.code!r} already.", field="code",
                fix="Change that one, or choose another code.",
            )  # fmt: skip
        await audit.record(
            tx, services, actor, "bss:product:create", "product", wanted.code, after=wanted.model_dump(mode="json")
        )
        await _tell(tx, services, actor, wanted.code, 1)
        return await _view(tx, services, actor, wanted, 1)


async def update_product(
    services: Services, actor: Actor, code: str, *, revision: int, changes: Mapping[str, Any]
) -> ProductView:
    """A new version of a product with these fields changed; orders keep what they were sold at. Raises Stale."""
    access.require(actor, "bss:product:update", resource=f"product:{code}")
    if changes.get("code", code) != code:
        problems: list[Problem] = [
            Invalid("product_code_fixed", "A product keeps its code.", field="code", fix="Make another product.")
        ]
        raise InvalidFields(problems)
    async with services.db.begin() as tx:
        before, version = await product(tx, actor, code)
        if version != revision:
            raise _stale()
        old = before.model_dump(mode="json")
        wanted = catalogue.checked({**old, **changes})
        new = wanted.model_dump(mode="json")
        changed = sorted(key for key in new if new[key] != old[key])
        if not changed:
            return await _view(tx, services, actor, before, version)
        if not await _write(tx, services, actor, wanted, version + 1):
            raise _stale()
        await audit.record(
            tx, services, actor, "bss:product:update", "product", code,
            before={key: old[key] for key in changed}, after={key: new[key] for key in changed},
        )  # fmt: skip
        await _tell(tx, services, actor, code, version + 1)
        return await _view(tx, services, actor, wanted, version + 1)


def _stale() -> Stale:
    return Stale("changed_meanwhile", "The product was changed since you read it.", fix="Read it again.")


async def _write(tx: Tx, services: Services, actor: Actor, wanted: Product, number: int) -> bool:
    now = services.clock.now()
    return await store.insert_product_version(
        tx, id=new_id("prdv", now), account_id=actor.account_id, code=wanted.code, number=number,
        document=wanted.model_dump(mode="json"), created_at=now, created_by=actor.id,
    )  # fmt: skip


async def _tell(tx: Tx, services: Services, actor: Actor, code: str, version: int) -> None:
    await services.events.publish(
        tx, "billing.product_changed", account_id=actor.account_id, object_id=code, payload={"version": version}
    )
