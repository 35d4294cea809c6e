"""Ways by which somebody could do more than they were given."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.actor import Actor, Grant, Statement
from certwright.kernel.problems import Forbidden, NotFound, Problem
from certwright.rooms import access, accounts, authorities, certificates
from certwright.rooms.access import people
from tests.conftest import World

EXPORT = "scm:cert:export_key"
DENY_EXPORT = {"Version": "1.1", "Statement": [{"Effect": "Deny", "Action": [EXPORT]}]}


class Held:
    """A member of the first account who may manage policies and groups and everything about certificates, but is kept
    from exporting private keys by one Deny."""

    def __init__(self, world: World, *, through_group: bool) -> None:
        self.world = world
        run, services, admin = world.run, world.services, world.actor
        self.user, _ = run(people.invite_user(services, admin, email="held@one.example", name="Held"))
        allow = {
            "Version": "1.1",
            "Statement": [
                {"Effect": "Allow", "Action": ["scm:cert:*", "iam:policy:*", "iam:group:*", "iam:user:*"]},
            ],
        }
        given = run(people.create_policy(services, admin, name="given", document=allow))
        run(people.attach_policy(services, admin, policy=given.id, user_id=self.user.id))
        self.denying = run(people.create_policy(services, admin, name="kept back", document=DENY_EXPORT))
        self.group = run(people.create_group(services, admin, name="kept back"))
        if through_group:
            run(people.add_member(services, admin, self.group.id, self.user.id))
            run(people.attach_policy(services, admin, policy=self.denying.id, group_id=self.group.id))
        else:
            run(people.attach_policy(services, admin, policy=self.denying.id, user_id=self.user.id))

    def grants(self) -> tuple[Grant, ...]:
        async def read() -> tuple[Grant, ...]:
            async with self.world.services.db.begin() as tx:
                return await access.store.grants_of_user(tx, self.user.id)

        return self.world.run(read())

    def actor(self) -> Actor:
        return Actor("user", self.user.id, self.user.email, self.user.account_id, self.grants(), self.user.id)

    def may_export(self) -> bool:
        return access.decide(self.grants(), EXPORT, None, None).allowed


def _refused(world: World, work: Any) -> None:
    with pytest.raises(Forbidden):
        world.run(work)


def test_whom_a_policy_denies_something_cannot_rewrite_that_policy(world: World) -> None:
    held = Held(world, through_group=False)
    harmless = {"Version": "1.1", "Statement": [{"Effect": "Allow", "Action": ["scm:cert:list"]}]}
    _refused(
        world,
        people.update_policy(
            world.services, held.actor(), held.denying.id, revision=None, changes={"document": harmless}
        ),
    )
    assert not held.may_export()


def test_whom_a_group_denies_something_cannot_leave_that_group(world: World) -> None:
    held = Held(world, through_group=True)
    _refused(world, people.remove_member(world.services, held.actor(), held.group.id, held.user.id))
    assert not held.may_export()


def test_whom_a_group_denies_something_cannot_delete_that_group(world: World) -> None:
    held = Held(world, through_group=True)
    _refused(world, people.delete_group(world.services, held.actor(), held.group.id))
    assert not held.may_export()


@pytest.fixture
def product(world: World) -> World:
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    return world


def _project(world: World, name: str) -> str:
    return world.run(people.create_project(world.services, world.actor, name=name)).id


def _scoped(world: World, *grants: tuple[str, tuple[str, ...]]) -> Actor:
    held = tuple(Grant("scoped", (Statement("Allow", actions),), project_id) for project_id, actions in grants)
    return Actor("user", world.actor.id, "scoped@one.example", world.account.id, held, world.actor.user_id)


def test_moving_a_certificate_to_ones_own_project_does_not_give_its_private_key(product: World) -> None:
    """Updating certificates of a project is a lesser right than exporting their keys; a move must not turn one into
    the other."""
    theirs, mine = _project(product, "theirs"), _project(product, "mine")
    made = product.run(
        certificates.issue_private(product.services, product.actor, names=["a.example"], project_id=theirs)
    )
    clerk = _scoped(product, (theirs, ("scm:cert:get", "scm:cert:update")), (mine, ("scm:cert:*",)))
    with pytest.raises(Forbidden):
        product.run(certificates.download(product.services, clerk, made.id, "key"))

    async def move_and_take() -> None:
        await certificates.update_certificate(product.services, clerk, made.id, revision=made.revision, project_id=mine)
        await certificates.download(product.services, clerk, made.id, "key")

    with pytest.raises(Problem):
        product.run(move_and_take())


def _authority(world: World, kind: str) -> authorities.Authority:
    found = world.run(authorities.list_authorities(world.services, world.actor))
    return next(one for one in found if one.kind == kind)


def test_a_root_signs_no_server_certificates(product: World) -> None:
    root = _authority(product, "root")
    with pytest.raises(Problem):
        product.run(
            certificates.issue_private(product.services, product.actor, authority_id=root.id, names=["a.example"])
        )


def test_a_ca_of_another_account_is_not_told_by_its_name(product: World) -> None:
    issuing = _authority(product, "issuing")
    with pytest.raises(NotFound) as refused:
        product.run(
            certificates.issue_private(
                product.services, product.other_actor, authority_id=issuing.id, names=["a.example"]
            )
        )
    assert issuing.name not in refused.value.message


@pytest.mark.parametrize("action", ["ccm:ca:get", "ccm:ca:list"])
def test_a_deny_on_one_ca_hides_that_ca(product: World, action: str) -> None:
    root = _authority(product, "root")
    grant = Grant("test", (Statement("Allow", ("ccm:*",)), Statement("Deny", (action,), (f"authority:{root.id}",))))
    actor = Actor("user", product.actor.id, "x", product.account.id, (grant,), product.actor.user_id)
    if action == "ccm:ca:get":
        with pytest.raises(NotFound):
            product.run(authorities.get_authority(product.services, actor, root.id))
    else:
        seen = product.run(authorities.list_authorities(product.services, actor))
        assert root.id not in [one.id for one in seen]


def test_a_deny_on_one_token_keeps_it_from_being_revoked(world: World) -> None:
    made = world.run(people.create_token(world.services, world.actor, name="deploy"))
    deny = Statement("Deny", ("iam:token:delete",), (f"token:{made.token.id}",))
    grant = Grant("test", (Statement("Allow", ("iam:token:*",)), deny))
    other, _ = world.run(people.invite_user(world.services, world.actor, email="o@one.example", name="Other"))
    actor = Actor("user", other.id, other.email, world.account.id, (grant,), other.id)
    with pytest.raises(Problem):
        world.run(people.revoke_token(world.services, actor, made.token.id))


def test_every_table_that_is_filtered_by_resource_names_a_kind_that_policies_can_name() -> None:
    """`visible` and `require` must speak of the same kind, and a policy document must be able to spell it."""
    from certwright.rooms.access.rules import checked_document
    from certwright.rooms.authorities.tables import authorities as cas
    from certwright.rooms.validation.tables import dns_connections

    for table, kind in ((cas, "authority"), (accounts.tables.api_tokens, "token")):
        assert (table.info.get("resource") or table.name.removesuffix("s")) == kind
    kind = dns_connections.info["resource"]
    checked_document(
        {"Version": "1.1", "Statement": [{"Effect": "Deny", "Action": ["dns:*"], "Resource": [f"{kind}:*"]}]}
    )


def test_metrics_do_not_tell_what_another_account_watches(world: World, api: Any) -> None:
    from certwright.rooms import watch
    from certwright.rooms.watch import metrics

    endpoint = world.run(watch.create_endpoint(world.services, world.other_actor, host="secret.two.example"))
    seen = sa.update(watch.tables.endpoints).values(last_probe_at=world.clock.now(), reachable=False)

    async def probed() -> None:
        async with world.services.db.begin() as tx:
            await tx.execute(seen.where(watch.tables.endpoints.c.id == endpoint.id))

    world.run(probed())
    metrics.GAUGES.read_at = None
    answer = api.get("/metrics")
    assert answer.status_code in (200, 403)
    assert "secret.two.example" not in answer.text


def test_the_code_that_verifies_an_address_is_not_shown_among_the_messages(world: World) -> None:
    """Whoever asks for the code must get it from the mailbox, not from the outbox."""
    from certwright.rooms import notify

    recipient = world.run(
        notify.create_recipient(world.services, world.actor, name="Victim", email="victim@elsewhere.example")
    )
    subjects = [row.subject for row in world.run(notify.list_messages(world.services, world.actor))]
    found = [word for subject in subjects for word in subject.split() if word.isdigit() and len(word) == 6]
    assert found == [], f"{recipient.id} can be verified with what the list of messages shows"
