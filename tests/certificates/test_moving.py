"""Moving a certificate to another project gives nobody a right to it that wasn't theirs to give."""

from __future__ import annotations

import pytest

from certwright.kernel.actor import Actor, Grant, Statement
from certwright.kernel.problems import Forbidden
from certwright.rooms import authorities, certificates
from certwright.rooms.access import people
from tests.conftest import World

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
