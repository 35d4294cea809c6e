"""Managing people and permissions: nobody gains more than was meant, and no account locks itself out."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.actor import Actor, Grant, Statement
from certwright.kernel.problems import Forbidden, NotFound, Problem, Refused, Stale, Unauthenticated
from certwright.platform.db import metadata
from certwright.rooms import access, accounts, audit
from certwright.rooms.access import people
from certwright.rooms.access.actions import kind_of
from certwright.rooms.access.words import RESOURCES
from certwright.rooms.accounts.tables import projects, users


def _refused(world: Any, work: Any, code: str) -> Problem:
    with pytest.raises(Problem) as caught:
        world.run(work)
    assert caught.value.code == code
    return caught.value


def _document(actions: Any, effect: str = "Allow") -> dict[str, Any]:
    return {"Version": "1.1", "Statement": [{"Effect": effect, "Action": actions}]}


async def _user_with(world: Any, email: str, *policies: str, project_id: str | None = None) -> Actor:
    """A user with a password who holds these policies, and the actor their token gives."""
    services, admin = world.services, world.actor
    user, _ = await people.invite_user(services, admin, email=email, name="X")
    async with services.db.begin() as tx:
        await accounts.store.set_password(tx, user.id, "none")
    for policy in policies:
        await people.attach_policy(services, admin, policy=policy, user_id=user.id, project_id=project_id)
    return await _actor_of(world, user.id)


async def _actor_of(world: Any, user_id: str) -> Actor:
    """As signing in gives it."""
    async with world.services.db.begin() as tx:
        user = await accounts.store.get_user(tx, sa.true(), user_id)
        signed_in = await accounts.open_session(tx, world.services, user, address="192.0.2.1", user_agent="")
    actor, _ = await access.authenticate_session(world.services, signed_in.secret)
    return actor


async def _administrators(world: Any) -> str:
    found = await people.list_groups(world.services, world.actor, limit=10)
    return next(group.id for group in found if group.name == "Administrators")


# --- no more than held -----------------------------------------------------------------------------------------------


def test_nobody_gives_away_what_they_do_not_hold(world: Any) -> None:
    async def story() -> None:
        services = world.services
        manager_policy = await people.create_policy(
            services, world.actor, name="people manager",
            document=_document(["iam:user:*", "iam:group:*", "iam:policy:*", "iam:token:*"]),
        )  # fmt: skip
        manager = await _user_with(world, "manager@one.example", manager_policy.id, "scm_read_only_access")
        administrators = await _administrators(world)
        attempts = {
            "attach a policy to oneself": people.attach_policy(
                services, manager, policy="tenant_administrator", user_id=manager.user_id
            ),
            "attach a smaller one not held": people.attach_policy(
                services, manager, policy="scm_full_access", user_id=manager.user_id
            ),
            "join the administrators": people.add_member(services, manager, administrators, manager.user_id),
            "invite into the administrators": people.invite_user(
                services, manager, email="x@one.example", name="X", group_ids=[administrators]
            ),
            "take over an administrator": people.new_password_link(services, manager, world.actor.user_id),
            "change an administrator's address": people.update_user(
                services, manager, world.actor.user_id, revision=1, changes={"email": "mine@one.example"}
            ),
            "disable an administrator": people.update_user(
                services, manager, world.actor.user_id, revision=1, changes={"disabled": True}
            ),
            "delete an administrator": people.delete_user(services, manager, world.actor.user_id),
            "write a larger policy": people.create_policy(
                services, manager, name="all", document=_document("*")
            ),
            "enlarge a policy held": people.update_policy(
                services, manager, manager_policy.id, revision=1,
                changes={"document": _document("*")},
            ),
            "make a larger token": people.create_token(
                services, manager, name="t", policies=["tenant_administrator"]
            ),
        }  # fmt: skip
        for what, attempt in attempts.items():
            with pytest.raises(Forbidden) as caught:
                await attempt
            assert caught.value.code == "more_than_held", what
        await people.attach_policy(services, manager, policy="scm_read_only_access", group_id=(
            await people.create_group(services, manager, name="readers")
        ).id)  # fmt: skip

    world.run(story())


def test_a_deny_that_binds_someone_is_not_theirs_to_lift(world: Any) -> None:
    async def story() -> None:
        services = world.services
        deny = await people.create_policy(
            services, world.actor, name="no keys",
            document=_document("scm:cert:export_key", effect="Deny"),
        )  # fmt: skip
        manager_policy = await people.create_policy(
            services, world.actor, name="policies",
            document=_document(["iam:policy:*", "scm:*"]),
        )  # fmt: skip
        manager = await _user_with(world, "manager@one.example", manager_policy.id, deny.id)
        attachments = await people.list_attachments(services, manager, limit=10, policy=deny.id)
        with pytest.raises(Forbidden, match="don't hold"):
            await people.detach_policy(services, manager, attachments[0].id)
        await people.detach_policy(services, world.actor, attachments[0].id)

    world.run(story())


@pytest.mark.parametrize("how", ["rewrite", "narrow", "leave", "delete the group"])
def test_a_deny_is_lifted_by_no_other_way_either(world: Any, how: str) -> None:
    async def story() -> None:
        services, admin = world.services, world.actor
        denied = _document(["scm:cert:export_key", "scm:cert:delete"], effect="Deny")
        deny = await people.create_policy(services, admin, name="kept back", document=denied)
        given = await people.create_policy(
            services, admin, name="given", document=_document(["iam:policy:*", "iam:group:*", "scm:*"])
        )
        group = await people.create_group(services, admin, name="kept back")
        await people.attach_policy(services, admin, policy=deny.id, group_id=group.id)
        manager = await _user_with(world, "manager@one.example", given.id)
        user_id = manager.user_id or ""
        await people.add_member(services, admin, group.id, user_id)
        manager = await _actor_of(world, user_id)
        narrow = _document("scm:cert:delete", effect="Deny")
        harmless = _document("scm:cert:list")
        attempt = {
            "rewrite": people.update_policy(services, manager, deny.id, revision=1, changes={"document": harmless}),
            "narrow": people.update_policy(services, manager, deny.id, revision=1, changes={"document": narrow}),
            "leave": people.remove_member(services, manager, group.id, user_id),
            "delete the group": people.delete_group(services, manager, group.id),
        }
        for name, work in attempt.items():
            if name != how:
                work.close()
        with pytest.raises(Forbidden) as caught:
            await attempt[how]
        assert caught.value.code == "more_than_held"
        assert not access.decide((await _actor_of(world, user_id)).grants, "scm:cert:export_key", None, None).allowed

    world.run(story())


def test_a_policy_may_be_changed_around_a_deny_that_stays(world: Any) -> None:
    async def story() -> None:
        services, admin = world.services, world.actor
        document = {
            "Version": "1.1",
            "Statement": [
                {"Effect": "Allow", "Action": ["iam:policy:*", "scm:cert:list", "scm:cert:get"]},
                {"Effect": "Deny", "Action": ["scm:cert:export_key"]},
            ],
        }
        policy = await people.create_policy(services, admin, name="mixed", document=document)
        manager = await _user_with(world, "manager@one.example", policy.id)
        document["Statement"][0] = {"Effect": "Allow", "Action": ["scm:cert:list"]}  # type: ignore[index]
        await people.update_policy(services, manager, policy.id, revision=1, changes={"document": document})

    world.run(story())


def test_whoever_holds_all_of_iam_may_grant_anything(world: Any) -> None:
    async def story() -> None:
        policy = await people.create_policy(
            world.services, world.actor, name="iam",
            document=_document("iam:*"),
        )  # fmt: skip
        iam = await _user_with(world, "iam@one.example", policy.id)
        await people.attach_policy(world.services, iam, policy="scm_full_access", user_id=iam.user_id)
        again = await _actor_of(world, iam.user_id or "")
        access.require(again, "scm:cert:delete")

    world.run(story())


# --- the last administrator ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["disable", "delete", "leave", "detach", "delete-group", "deny"])
def test_an_account_keeps_an_enabled_administrator(world: Any, how: str) -> None:
    async def attempt() -> None:
        services, admin = world.services, world.actor
        me, administrators = admin.user_id, await _administrators(world)
        if how == "disable":
            await people.update_user(services, admin, me, revision=1, changes={"disabled": True})
        elif how == "delete":
            await people.delete_user(services, admin, me)
        elif how == "leave":
            await people.remove_member(services, admin, administrators, me)
        elif how == "detach":
            (attached,) = await people.list_attachments(services, admin, limit=5, group_id=administrators)
            await people.detach_policy(services, admin, attached.id)
        elif how == "delete-group":
            await people.delete_group(services, admin, administrators)
        else:
            policy = await people.create_policy(
                services, admin, name="nothing",
                document=_document("*", effect="Deny"),
            )  # fmt: skip
            await people.attach_policy(services, admin, policy=policy.id, group_id=administrators)

    _refused(world, attempt(), "last_administrator")

    async def with_another() -> None:
        second = await _user_with(world, "second@one.example", "tenant_administrator")
        assert second.user_id
        if how != "deny":
            await attempt()

    world.run(with_another())


def test_an_invited_administrator_without_a_password_does_not_count(world: Any) -> None:
    async def story() -> None:
        user, _ = await people.invite_user(
            world.services, world.actor, email="late@one.example", name="Late",
            group_ids=[await _administrators(world)],
        )  # fmt: skip
        assert not user.has_password
        with pytest.raises(Refused):
            await people.delete_user(world.services, world.actor, world.actor.user_id)

    world.run(story())


def test_two_administrators_disabling_each_other_at_once_leave_one(world: Any) -> None:
    async def story() -> list[Any]:
        import asyncio

        second = await _user_with(world, "second@one.example", "tenant_administrator")
        return await asyncio.gather(
            people.update_user(world.services, world.actor, second.user_id, revision=None, changes={"disabled": True}),
            people.update_user(world.services, second, world.actor.user_id, revision=None, changes={"disabled": True}),
            return_exceptions=True,
        )

    outcomes = world.run(story())
    assert sum(isinstance(o, Refused) and o.code == "last_administrator" for o in outcomes) == 1


# --- visible ---------------------------------------------------------------------------------------------------------


def _ids(world: Any, table: Any, actor: Actor, action: str, besides: Any = None) -> set[str]:
    async def read() -> set[str]:
        where = access.visible(table, actor, action, besides=besides)
        async with world.services.db.begin() as tx:
            return set((await tx.scalars(sa.select(table.c.id).where(where))).all())

    return world.run(read())


things = sa.Table(
    "access_test_things",
    sa.MetaData(),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text),
    sa.Column("project_id", sa.Text),
    info={"resource": "thing"},
)


@pytest.fixture
def rows(world: Any) -> Any:
    async def make() -> None:
        async with world.services.db.begin() as tx:
            await tx.run_sync(things.create)
            for row_id, account, project in (
                ("a_1", world.account.id, "p1"),
                ("a_2", world.account.id, "p2"),
                ("a%3", world.account.id, None),
                ("b_1", world.other_account.id, "p1"),
            ):
                await tx.execute(things.insert().values(id=row_id, account_id=account, project_id=project))

    async def drop() -> None:
        async with world.services.db.begin() as tx:
            await tx.run_sync(things.drop)

    world.run(make())
    yield world
    world.run(drop())


def test_the_filter_shows_exactly_what_decide_allows(rows: Any) -> None:
    def grant(effect: Any, project: str | None = None, *resources: str) -> Grant:
        return Grant("g", (Statement(effect, ("scm:cert:list",), resources or ("*",)),), project)

    cases = [
        [],
        [grant("Allow")],
        [grant("Allow", "p1")],
        [grant("Allow", None, "thing:a_1")],
        [grant("Allow", None, "thing:a*")],
        [grant("Allow", None, "thing:a%3")],
        [grant("Allow", None, "thing:*1")],
        [grant("Allow"), grant("Deny", "p1")],
        [grant("Allow"), grant("Deny", None, "thing:a_2")],
        [grant("Allow"), grant("Deny")],
        [grant("Allow", "p1"), grant("Allow", "p2")],
        [grant("Allow", "p1", "thing:a_2")],
        [grant("Allow", None, "other:*")],
    ]
    for grants in cases:
        actor = Actor("user", "u", "u", rows.account.id, tuple(grants))
        expected = {
            row_id
            for row_id, project in (("a_1", "p1"), ("a_2", "p2"), ("a%3", None))
            if access.decide(grants, "scm:cert:list", f"thing:{row_id}", project).allowed
        }
        assert _ids(rows, things, actor, "scm:cert:list") == expected, grants
        denied = access.decide([*grants, grant("Allow")], "scm:cert:list", "thing:a_2", "p2").allowed is False
        own = set() if denied else {"a_2"}
        shown = _ids(rows, things, actor, "scm:cert:list", things.c.id == "a_2")
        assert shown == expected | own, grants


def test_the_filter_is_plain_equality_for_whoever_may_all(world: Any) -> None:
    condition = access.visible(things, world.actor, "scm:cert:list")
    assert str(condition) == "access_test_things.account_id = :account_id_1"


def test_a_new_thing_goes_to_the_named_the_default_or_the_only_project(world: Any) -> None:
    async def story() -> None:
        services, admin = world.services, world.actor
        shop = await people.create_project(services, admin, name="shop")
        bank = await people.create_project(services, admin, name="bank")
        async with services.db.begin() as tx:
            action = "scm:cert:apply"
            assert await access.project_for(tx, admin, action, None) == world.project_id
            assert await access.project_for(tx, admin, action, shop.id) == shop.id
            clerk = world.actor_with(action, project_id=shop.id)
            assert await access.project_for(tx, clerk, action, None) == shop.id
            with pytest.raises(Forbidden):
                await access.project_for(tx, clerk, action, bank.id)
            with pytest.raises(NotFound):
                await access.project_for(tx, clerk, action, world.other_project_id)
            with pytest.raises(Forbidden):
                await access.project_for(tx, world.actor_with("dns:*"), action, None)

    world.run(story())
    assert _ids(world, projects, world.actor, "iam:project:list") >= {world.project_id}


# Tables whose rows nobody is shown by a policy that names them: read only by the product, or through the object they
# belong to (a version through its certificate, a site through its server).
_PARTS = frozenset((
    "acme_accounts", "acme_eab_keys", "applications", "bindings", "ca_orders", "ca_profiles", "ca_purchases", "events",
    "crl_storages", "expiring_versions", "issued_certificates", "observations", "one_time_links",
    "private_keys", "renewal_queues", "rollout_items", "rollout_steps", "rule_packs", "sites", "versions",
    "watched_versions",
))  # fmt: skip


def test_every_table_of_a_tenant_is_filtered_by_a_kind_that_policies_can_name() -> None:
    tables = [t for t in metadata.sorted_tables if "account_id" in t.c and "id" in t.c]
    assert len(tables) > len(_PARTS)
    unnamed = {table.name for table in tables if kind_of(table) not in RESOURCES}
    assert unnamed <= _PARTS, "name its kind in access.words.RESOURCES, and in the table's info if it isn't its name"


def test_a_deny_on_a_project_holds_for_someone_narrowed_to_it(world: Any) -> None:
    async def story() -> None:
        services = world.services
        shop = await people.create_project(services, world.actor, name="shop")
        allow = Grant("allow", (Statement("Allow", ("iam:project:*",)),), shop.id)
        for deny in (
            Grant("deny", (Statement("Deny", ("iam:project:delete",), (f"project:{shop.id}",)),)),
            Grant("deny", (Statement("Deny", ("iam:project:delete",)),), shop.id),
        ):
            clerk = Actor("user", "u", "u", world.account.id, (allow, deny), "u")
            assert (await people.get_project(services, clerk, shop.id)).id == shop.id
            with pytest.raises(NotFound):
                await people.delete_project(services, clerk, shop.id)

    world.run(story())


def test_someone_narrowed_to_a_project_sees_just_that_one(world: Any) -> None:
    async def story() -> None:
        shop = await people.create_project(world.services, world.actor, name="shop")
        clerk = world.actor_with("iam:project:*", project_id=shop.id)
        assert [p.id for p in await people.list_projects(world.services, clerk, limit=10)] == [shop.id]
        with pytest.raises(NotFound):
            await people.get_project(world.services, clerk, world.project_id)

    world.run(story())


# --- policies and attachments ----------------------------------------------------------------------------------------


def test_a_policy_in_use_cannot_be_deleted_and_a_system_policy_never(world: Any) -> None:
    async def story() -> None:
        services, admin = world.services, world.actor
        policy = await people.create_policy(
            services, admin, name="look",
            document=_document("scm:cert:list"),
        )  # fmt: skip
        attached = await people.attach_policy(services, admin, policy=policy.id, user_id=admin.user_id)
        with pytest.raises(Refused) as caught:
            await people.delete_policy(services, admin, policy.id)
        assert caught.value.code == "policy_in_use"
        with pytest.raises(Refused) as caught:
            await people.attach_policy(services, admin, policy=policy.id, user_id=admin.user_id)
        assert caught.value.code == "already_attached"
        await people.detach_policy(services, admin, attached.id)
        await people.delete_policy(services, admin, policy.id)
        with pytest.raises(Refused) as caught:
            await people.delete_policy(services, admin, "tenant_administrator")
        assert caught.value.code == "policy_is_system"

    world.run(story())


@pytest.mark.parametrize("name", ["Tenant Administrator", "tenant administrator", "LOOK"])
def test_policy_names_are_unique_whatever_their_case(world: Any, name: str) -> None:
    document = _document("scm:cert:list")
    world.run(people.create_policy(world.services, world.actor, name="look", document=document))
    _refused(world, people.create_policy(world.services, world.actor, name=name, document=document), "name_taken")


def test_the_simulator_says_because_of_which_statement(world: Any) -> None:
    async def story() -> None:
        reader = await _user_with(world, "reader@one.example", "security_auditor")

        async def ask(action: str) -> access.Decision:
            return await people.simulate(
                world.services, world.actor, user_id=reader.user_id or "", action=action, resource=None, project_id=None
            )

        yes = await ask("scm:cert:list")
        assert (yes.allowed, yes.policy, yes.statement) == (True, "Security Auditor", 0)
        no = await ask("scm:cert:export_key")
        assert (no.allowed, no.policy, no.statement) == (False, "Security Auditor", 1)
        assert (await ask("dns:connection:create")).policy is None
        await people.update_user(world.services, world.actor, reader.user_id, revision=None, changes={"disabled": True})
        assert not (await ask("scm:cert:list")).allowed

    world.run(story())


def test_a_stale_revision_is_refused_and_changes_nothing(world: Any) -> None:
    async def story() -> None:
        group = await people.create_group(world.services, world.actor, name="one")
        await people.update_group(world.services, world.actor, group.id, revision=1, changes={"name": "two"})
        with pytest.raises(Stale):
            await people.update_group(world.services, world.actor, group.id, revision=1, changes={"name": "three"})
        assert (await people.get_group(world.services, world.actor, group.id)).name == "two"

    world.run(story())


def test_a_project_in_use_or_the_default_one_cannot_be_deleted(world: Any) -> None:
    async def make() -> str:
        project = await people.create_project(world.services, world.actor, name="shop")
        group = await people.create_group(world.services, world.actor, name="g")
        await people.attach_policy(
            world.services, world.actor, policy="scm_full_access", group_id=group.id, project_id=project.id
        )
        return project.id

    project_id = world.run(make())
    _refused(world, people.delete_project(world.services, world.actor, project_id), "project_in_use")
    _refused(world, people.delete_project(world.services, world.actor, world.project_id), "project_is_default")


# --- tokens ----------------------------------------------------------------------------------------------------------


def _token(world: Any, actor: Actor, **kwargs: Any) -> Any:
    return world.run(people.create_token(world.services, actor, name="ci", **kwargs))


def test_a_token_acts_for_its_user_until_it_expires(world: Any) -> None:
    made = _token(world, world.actor, days=1)
    actor = world.run(access.authenticate_token(world.services, made.text))
    assert (actor.kind, actor.user_id, actor.account_id) == ("token", world.actor.user_id, world.account.id)
    access.require(actor, "iam:user:create")
    world.later(days=1, seconds=-1)
    world.run(access.authenticate_token(world.services, made.text))
    world.later(seconds=1)
    _refused(world, access.authenticate_token(world.services, made.text), "token_expired")


def test_a_revoked_token_and_one_of_a_disabled_user_stop_at_once(world: Any) -> None:
    made = _token(world, world.actor)
    world.run(access.authenticate_token(world.services, made.text))
    world.run(people.revoke_token(world.services, world.actor, made.token.id))
    _refused(world, access.authenticate_token(world.services, made.text), "token_invalid")

    async def story() -> None:
        reader = await _user_with(world, "reader@one.example", "scm_read_only_access", "scm_full_access")
        own = await people.create_policy(
            world.services, world.actor, name="tokens",
            document=_document("iam:token:create"),
        )  # fmt: skip
        await people.attach_policy(world.services, world.actor, policy=own.id, user_id=reader.user_id)
        reader = await _actor_of(world, reader.user_id or "")
        token = await people.create_token(world.services, reader, name="t")
        await access.authenticate_token(world.services, token.text)
        await people.update_user(world.services, world.actor, reader.user_id, revision=None, changes={"disabled": True})
        with pytest.raises(Unauthenticated):
            await access.authenticate_token(world.services, token.text)

    world.run(story())


def test_a_narrowed_token_may_what_its_policies_say_while_its_user_may_it(world: Any) -> None:
    async def story() -> None:
        services = world.services
        boss = await _user_with(world, "boss@one.example", "tenant_administrator")
        token = await people.create_token(services, boss, name="t", policies=["scm_read_only_access"])
        actor = await access.authenticate_token(services, token.text)
        access.require(actor, "scm:cert:list")
        for action in ("scm:cert:delete", "iam:user:list"):
            with pytest.raises(Forbidden):
                access.require(actor, action)
        with pytest.raises(Forbidden):
            await people.create_token(services, actor, name="wider")
        (attached,) = await people.list_attachments(services, world.actor, limit=5, user_id=boss.user_id)
        await people.detach_policy(services, world.actor, attached.id)
        actor = await access.authenticate_token(services, token.text)
        with pytest.raises(Forbidden):
            access.require(actor, "scm:cert:list")

    world.run(story())


def test_a_narrowed_token_makes_no_tokens_even_if_its_policy_allows_making_them(world: Any) -> None:
    narrow = _token(world, world.actor, policies=["tenant_administrator"])
    actor = world.run(access.authenticate_token(world.services, narrow.text))
    _refused(world, people.create_token(world.services, actor, name="again"), "token_narrowed")


def test_a_token_makes_none_that_outlives_it(world: Any) -> None:
    first = _token(world, world.actor, days=10)
    acting = world.run(access.authenticate_token(world.services, first.text))
    world.later(days=3)
    _refused(world, people.create_token(world.services, acting, name="longer", days=8), "token_outlives")
    assert _token(world, acting, days=7).token.expires_at == first.token.expires_at
    second = _token(world, acting)
    assert second.token.expires_at == first.token.expires_at
    again = world.run(access.authenticate_token(world.services, second.text))
    world.later(days=6, hours=1)
    with pytest.raises(Forbidden) as caught:
        _token(world, again, days=1)
    assert (caught.value.field, caught.value.extra["days_left"]) == ("days", 0)
    assert _token(world, again).token.expires_at == first.token.expires_at


def test_the_audit_log_names_the_person_and_the_token_that_acted_for_them(world: Any) -> None:
    made = _token(world, world.actor)
    acting = world.run(access.authenticate_token(world.services, made.text))
    world.run(people.create_group(world.services, acting, name="ops"))
    wanted = audit.Filter(actor_id=made.token.id)
    (event,) = world.run(people.audit_events(world.services, world.actor, wanted, limit=10))
    assert event.actor_name == "ann@one.example via token ci"
    assert (event.actor_kind, event.user_id) == ("token", world.actor.user_id)


def test_one_character_off_is_not_the_token(world: Any) -> None:
    text = _token(world, world.actor).text
    flipped = text[:-1] + ("A" if text[-1] != "A" else "B")
    for wrong in (flipped, text + "x", text[:-1], text.upper(), "cwt__", "cwt_" + "0" * 26 + "_"):
        _refused(world, access.authenticate_token(world.services, wrong), "token_invalid")


@pytest.mark.parametrize("days", [0, 366, -1])
def test_a_token_lives_a_day_to_a_year(world: Any, days: int) -> None:
    _refused(world, people.create_token(world.services, world.actor, name="t", days=days), "token_days")


def test_secrets_of_tokens_are_stored_nowhere(world: Any) -> None:
    made = _token(world, world.actor)
    secret = made.text.rpartition("_")[2]

    async def everything() -> str:
        out = []
        async with world.services.db.begin() as tx:
            names = (await tx.scalars(sa.text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))).all()
            for name in names:
                out += (await tx.scalars(sa.text(f'SELECT t::text FROM "{name}" t'))).all()
        return "\n".join(out)

    found = world.run(everything())
    assert made.token.id in found
    assert secret not in found
    assert secret.encode().hex() not in found
    assert secret not in repr(made)


def test_own_tokens_are_seen_without_permission_others_with_it(world: Any) -> None:
    async def story() -> None:
        plain = await _user_with(world, "plain@one.example")
        mine = await people.create_token(world.services, world.actor, name="boss's")
        assert await people.list_tokens(world.services, plain, limit=10) == []
        with pytest.raises(NotFound):
            await people.get_token(world.services, plain, mine.token.id)
        with pytest.raises(NotFound):
            await people.revoke_token(world.services, plain, mine.token.id)
        assert [t.id for t in await people.list_tokens(world.services, world.actor, limit=10)] == [mine.token.id]

    world.run(story())


def test_a_deny_hides_ones_own_token_too(world: Any) -> None:
    async def story() -> None:
        services = world.services
        made = await people.create_token(services, world.actor, name="pinned")
        deny = Statement("Deny", ("iam:token:delete",), (f"token:{made.token.id}",))
        actor = Actor(
            "user", world.actor.id, "x", world.account.id,
            (Grant("test", (Statement("Allow", ("*",)), deny)),), world.actor.user_id,
        )  # fmt: skip
        with pytest.raises(NotFound):
            await people.revoke_token(services, actor, made.token.id)
        assert (await people.get_token(services, actor, made.token.id)).revoked_at is None

    world.run(story())


# --- what was done ---------------------------------------------------------------------------------------------------


def test_every_change_leaves_an_event_without_secrets(world: Any) -> None:
    async def story() -> list[audit.AuditEvent]:
        services, admin = world.services, world.actor
        user, link = await people.invite_user(services, admin, email="new@one.example", name="New")
        group = await people.create_group(services, admin, name="ops")
        await people.add_member(services, admin, group.id, user.id)
        token = await people.create_token(services, admin, name="ci")
        await people.delete_user(services, admin, user.id)
        found = await people.audit_events(services, admin, audit.Filter(actor_id=admin.id), limit=100)
        assert all(link.secret not in repr(e) and token.text not in repr(e) for e in found)
        return found

    actions = [event.action for event in world.run(story())]
    for action in ("iam:user:create", "iam:group:create", "iam:group:update", "iam:token:create", "iam:user:delete"):
        assert action in actions


def test_users_of_another_account_are_not_counted_as_administrators(world: Any) -> None:
    async def story() -> None:
        async with world.services.db.begin() as tx:
            count = await tx.scalar(sa.select(sa.func.count()).select_from(users))
        assert count == 2
        with pytest.raises(Refused):
            await people.delete_user(world.services, world.actor, world.actor.user_id)

    world.run(story())
