"""Moving a certificate to another project gives nobody a right to it that wasn't theirs to give."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from certwright.kernel.actor import Actor, Grant, Statement
from certwright.kernel.problems import Forbidden
from certwright.platform.db import metadata
from certwright.rooms import authorities, certificates, renewal
from certwright.rooms.access import people
from certwright.rooms.validation.tables import evidence
from tests.certificates.test_lifecycle import Site, issue, settings, site, wanted
from tests.conftest import World

__all__ = ["settings", "site"]

SMALL = ("scm:cert:get", "scm:cert:update")
EXPORT = "scm:cert:export_key"


@pytest.fixture
def product(world: World) -> World:
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    return world


def _clerk(world: World, there: tuple[str, ...], here: tuple[str, ...], ids: tuple[str, str]) -> Actor:
    grants = tuple(
        Grant("clerk", (Statement("Allow", actions),), project)
        for project, actions in zip(ids, (there, here), strict=True)
    )
    return Actor("user", world.actor.id, "clerk@one.example", world.account.id, grants, world.actor.user_id)


@pytest.mark.parametrize(
    ("there", "here", "with_key", "missing"),
    [
        (SMALL, SMALL, False, None),
        (SMALL, SMALL, True, [EXPORT]),
        ((*SMALL, EXPORT), SMALL, True, None),
        (SMALL, (*SMALL, EXPORT), True, [EXPORT]),
        (SMALL, (*SMALL, "scm:cert:delete", "scm:cert:revoke"), False, ["scm:cert:delete", "scm:cert:revoke"]),
        (SMALL, (*SMALL, "scm:cert:upload"), False, None),
        (("scm:cert:*",), ("scm:cert:*",), True, None),
    ],
    ids=["no-key", "key", "key-exportable", "key-exportable-here", "larger-here", "may-upload-here", "everything"],
)
def test_moving_needs_what_it_gives(
    product: World, there: tuple[str, ...], here: tuple[str, ...], with_key: bool, missing: list[str] | None
) -> None:
    run, services = product.run, product.services
    ids = (
        run(people.create_project(services, product.actor, name="there")).id,
        run(people.create_project(services, product.actor, name="here")).id,
    )
    if with_key:
        summary = run(certificates.issue_private(services, product.actor, names=["a.example"], project_id=ids[0]))
    else:
        summary = run(certificates.create_certificate(services, product.actor, name="bare", project_id=ids[0])).summary
    clerk = _clerk(product, there, here, ids)
    move = certificates.update_certificate(
        services, clerk, summary.id, revision=summary.revision, project_id=ids[1]
    )  # fmt: skip
    if missing is None:
        assert run(move).summary.project_id == ids[1]
        return
    with pytest.raises(Forbidden) as caught:
        run(move)
    assert (caught.value.code, caught.value.field) == ("move_gives_rights", "project_id")
    assert caught.value.extra["actions"] == missing
    assert run(certificates.get_certificate(services, product.actor, summary.id)).summary.project_id == ids[0]


def test_a_right_that_a_deny_keeps_back_where_it_is_is_not_given_by_moving(product: World) -> None:
    run, services = product.run, product.services
    mine = run(people.create_project(services, product.actor, name="mine")).id
    made = run(certificates.issue_private(services, product.actor, names=["a.example"]))
    grants = (
        Grant("all", (Statement("Allow", ("*",)),)),
        Grant("kept back", (Statement("Deny", (EXPORT,)),), product.project_id),
    )
    held = Actor("user", product.actor.id, "x", product.account.id, grants, product.actor.user_id)
    with pytest.raises(Forbidden):
        run(certificates.update_certificate(services, held, made.id, revision=made.revision, project_id=mine))


# Rows that stay where they were made, and why.
_STAYS = {
    "audit_events": "what was done was done there",
    "evidence": "it vouches for names to whoever may apply in the project where it was found",
}


def _projects(world: World) -> dict[str, set[str]]:
    """For every table with a project_id the projects its rows are in."""

    async def read() -> dict[str, set[str]]:
        async with world.services.db.begin() as tx:
            return {
                table.name: set((await tx.scalars(sa.select(table.c.project_id))).all())
                for table in metadata.sorted_tables
                if "project_id" in table.c
            }

    return world.run(read())


def test_everything_that_belongs_to_a_certificate_moves_along(product: World, site: Site) -> None:
    run, services, actor = product.run, product.services, product.actor
    old, new = (run(people.create_project(services, actor, name=name)).id for name in ("old", "new"))
    detail = issue(product, site, wanted("shop.demo.localhost"), project_id=old)
    run(certificates.reissue(services, actor, detail.id))
    product.drain()
    run(_forget_evidence(product))
    for days in (62, 6):  # its renewal waits for a file that nobody publishes, and is overdue
        product.later(days=days)
        product.drain()
    waiting = run(
        certificates.create_certificate(services, actor, application=wanted("late.demo.localhost"), project_id=old)
    )
    product.drain()
    before = {name: found for name, found in _projects(product).items() if old in found}
    assert {
        "certificates", "applications", "versions", "private_keys", "issued_certificates", "challenges", "renewals",
        "watched_versions", "expiring_versions", "alarms",
    } <= set(before)  # fmt: skip
    for certificate_id in (detail.id, waiting.id):
        run(
            certificates.update_certificate(
                services, actor, certificate_id, revision=_revision(product, certificate_id), project_id=new
            )
        )
    product.drain()
    after = _projects(product)
    left = {name for name, found in after.items() if old in found}
    assert left <= set(_STAYS), f"still in the old project: {sorted(left - set(_STAYS))}"
    for name in set(before) - set(_STAYS):
        assert new in after[name]


async def _forget_evidence(world: World) -> None:
    async with world.services.db.begin() as tx:
        await tx.execute(sa.update(evidence).values(validated_at=world.clock.now() - timedelta(days=500)))


def _revision(world: World, certificate_id: str) -> int:
    return world.run(certificates.get_certificate(world.services, world.actor, certificate_id)).summary.revision


def test_a_due_renewal_is_seen_by_whoever_sees_the_certificate(product: World, site: Site) -> None:
    detail = issue(product, site)
    other = issue(product, site, wanted("b.demo.localhost"))

    def due(*statements: Statement) -> set[str]:
        grant = Grant("test", statements)
        who = Actor("user", product.actor.id, "x", product.account.id, (grant,), product.actor.user_id)
        found = product.run(renewal.due_soon(product.services, who, within=timedelta(days=100)))
        return {certificate_id for certificate_id, _ in found}

    every, one = ("scm:cert:list",), (f"certificate:{detail.id}",)
    assert due(Statement("Allow", every)) == {detail.id, other.id}
    assert due(Statement("Allow", every, one)) == {detail.id}
    assert due(Statement("Allow", every, ("certificate:*",))) == {detail.id, other.id}
    assert due(Statement("Allow", every), Statement("Deny", every, one)) == {other.id}
