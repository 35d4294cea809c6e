"""The room with its database and a real nginx: targets, bindings, rollouts, renewal, undo, crashes."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.connectors.target import Targets
from certwright.connectors.target.handshake import fingerprint, served_certificate
from certwright.connectors.target.nginx import NginxKind
from certwright.kernel.problems import Forbidden, Invalid, InvalidFields, NotFound, Problem, Refused, Stale
from certwright.platform import jobs
from certwright.platform.events import Event
from certwright.rooms import authorities, certificates, deployment
from certwright.rooms.audit import audit_events
from certwright.rooms.deployment import (
    Health,
    RolloutState,
    RolloutView,
    SiteView,
    Step,
    TargetKinds,
    TargetView,
    Trigger,
)
from certwright.rooms.deployment.jobs import rollout_step
from certwright.rooms.deployment.tables import rollout_steps
from certwright.rooms.deployment.words import Address
from tests.conftest import World
from tests.deployment.certs import make
from tests.servers.nginx import Nginx

Told = list[Event]


class Room:
    """The world with one nginx target on it, and shorthands for what tests do all the time."""

    def __init__(self, world: World, nginx: Nginx, told: Told) -> None:
        self.world = world
        self.nginx = nginx
        self.told = told
        self.services, self.actor, self.run = world.services, world.actor, world.run

    def target(self, name: str = "web-1", **config: Any) -> TargetView:
        given = {"nginx": str(self.nginx.binary), "config": str(self.nginx.conf_path)} | config
        return self.run(deployment.create_target(self.services, self.actor, name=name, kind="nginx", config=given))

    def sites(self, target: TargetView) -> dict[str, SiteView]:
        found = self.run(deployment.discover(self.services, self.actor, target.id))
        return {site.site.names[0]: site for site in found}

    def certificate(self, *names: str, **more: Any) -> str:
        issued = self.run(certificates.issue_private(self.services, self.actor, names=names or ("a.example",), **more))
        return issued.id

    def version(self, certificate_id: str) -> certificates.VersionMaterial:
        async def look() -> certificates.VersionMaterial | None:
            async with self.services.db.begin() as tx:
                return await certificates.current_version(tx, certificate_id)

        found = self.run(look())
        assert found is not None
        return found

    def deploy(self, certificate_id: str, *sites: SiteView, replace: bool = False) -> RolloutView:
        self.world.later(seconds=1)
        (started,) = self.run(
            deployment.deploy(self.services, self.actor, certificate_id, [s.id for s in sites], replace=replace)
        )
        return started

    def reissue(self, certificate_id: str) -> None:
        self.world.later(seconds=1)
        self.run(certificates.reissue(self.services, self.actor, certificate_id))

    def rollout(self, rollout_id: str) -> RolloutView:
        return self.run(deployment.get_rollout(self.services, self.actor, rollout_id))

    def drained(self, rollout: RolloutView) -> RolloutView:
        self.world.drain()
        return self.rollout(rollout.id)

    def served(self, name: str = "a.example") -> str:
        address = Address("127.0.0.1", self.nginx.https_port, name)
        return fingerprint(self.run(served_certificate(address)))

    def bindings(self, **where: str) -> list[deployment.BindingView]:
        return self.run(deployment.list_bindings(self.services, self.actor, **where))

    def refusal(self, coroutine: Any) -> Problem:
        with pytest.raises(Problem) as caught:
            self.run(coroutine)
        return caught.value

    def events(self, kind: str) -> list[Event]:
        self.world.drain()
        return [event for event in self.told if event.kind == f"deployment.{kind}"]


KINDS = ("rollout_finished", "rollout_failed", "rollout_undone", "binding_created", "binding_removed")


@pytest.fixture
def room(world: World, nginx: Nginx) -> Room:
    told: Told = []

    async def listen(_: Any, event: Event) -> None:
        told.append(event)

    for kind in KINDS:
        world.services.events.subscribe(f"deployment.{kind}", "test", listen)
    ports: Any = world.services.ports
    ports[TargetKinds] = Targets({"nginx": NginxKind()})
    ports[certificates.Usage] = deployment.Bindings()
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    old = make("a.example", "www.a.example")
    nginx.write_site("a.example", old.pem, old.key_pem, server_names=["a.example", "www.a.example"])
    nginx.start()
    return Room(world, nginx, told)


# --- targets --------------------------------------------------------------------------------------------------------


def test_a_target_is_made_read_changed_and_forgotten(room: Room) -> None:
    made = room.target()
    assert (made.health, made.revision, made.project_id) == (Health.UNKNOWN, 1, room.world.project_id)
    assert room.run(deployment.list_targets(room.services, room.actor)) == [made]
    changed = room.run(
        deployment.update_target(room.services, room.actor, made.id, revision=1, name="web-2", region="eu-1")
    )
    assert (changed.name, changed.region, changed.config, changed.revision) == ("web-2", "eu-1", made.config, 2)
    with pytest.raises(Stale):
        room.run(deployment.update_target(room.services, room.actor, made.id, revision=1, name="web-3"))
    room.run(deployment.delete_target(room.services, room.actor, made.id))
    with pytest.raises(NotFound):
        room.run(deployment.get_target(room.services, room.actor, made.id))


def test_two_targets_of_one_name_are_refused(room: Room) -> None:
    room.target()
    other = room.target("web-2", config="/etc/elsewhere/nginx.conf")
    given = {"name": "web-1", "kind": "nginx", "config": {}}
    assert room.refusal(deployment.create_target(room.services, room.actor, **given)).code == "target_name_taken"
    update = deployment.update_target(room.services, room.actor, other.id, revision=1, name="web-1")
    assert room.refusal(update).code == "target_name_taken"


def test_a_server_is_the_target_of_one_project_of_one_account(room: Room) -> None:
    """However its configuration is named, and without telling whose it is."""
    made = room.target()
    room.nginx.conf_path.with_name("link.conf").symlink_to(room.nginx.conf_path)
    for config in (
        base_config(room),
        base_config(room) | {"prefix": "/var/empty"},
        base_config(room) | {"config": f"{room.nginx.directory}/sites/../link.conf"},
    ):
        given = {"name": "again", "kind": "nginx", "config": config}
        for actor in (room.actor, room.world.other_actor):
            problem = room.refusal(deployment.create_target(room.services, actor, **given))
            assert problem.code == "server_taken"
            assert not any(secret in str(problem.as_dict()) for secret in (made.name, made.id, room.world.account.id))
    room.run(deployment.delete_target(room.services, room.actor, made.id))
    room.run(
        deployment.create_target(
            room.services, room.world.other_actor, name="mine", kind="nginx", config=base_config(room)
        )
    )


def test_a_target_cannot_be_pointed_at_a_server_that_is_a_target_already(room: Room) -> None:
    room.target()
    other = room.target("web-2", config="/etc/elsewhere/nginx.conf")
    update = deployment.update_target(room.services, room.actor, other.id, revision=1, config=base_config(room))
    assert room.refusal(update).code == "server_taken"
    kept = room.run(deployment.get_target(room.services, room.actor, other.id))
    assert (kept.revision, kept.config["config"]) == (1, "/etc/elsewhere/nginx.conf")
    same = deployment.update_target(
        room.services, room.actor, other.id, revision=1, config=dict(kept.config) | {"connect_host": "127.0.0.3"}
    )
    assert room.run(same).revision == 2


def test_two_requests_for_one_server_make_one_target(room: Room) -> None:
    given = {"kind": "nginx", "config": base_config(room)}

    async def both() -> list[Any]:
        made = (deployment.create_target(room.services, room.actor, name=name, **given) for name in ("a", "b"))
        return await asyncio.gather(*made, return_exceptions=True)

    outcomes = room.run(both())
    assert sorted(type(one).__name__ for one in outcomes) == ["Refused", "TargetView"]


def test_a_link_set_to_another_server_is_not_followed_until_the_target_is_saved_again(room: Room) -> None:
    link, taken = room.nginx.directory / "current.conf", room.nginx.directory / "taken.conf"
    for copy in (taken, room.nginx.directory / "free.conf"):
        copy.write_text(room.nginx.conf_path.read_text())
    link.symlink_to(room.nginx.conf_path)
    made = room.target(config=str(link))
    site = room.sites(made)["a.example"]
    room.run(
        deployment.create_target(
            room.services, room.world.other_actor, name="theirs", kind="nginx",
            config=base_config(room) | {"config": str(taken)},
        )
    )  # fmt: skip
    link.unlink()
    link.symlink_to(taken)
    assert room.refusal(deployment.discover(room.services, room.actor, made.id)).code == "server_changed"
    preview = deployment.preview(room.services, room.actor, room.certificate("a.example"), [site.id])
    assert room.refusal(preview).code == "server_changed"

    def save() -> Any:
        return deployment.update_target(
            room.services, room.actor, made.id, revision=1, config=base_config(room) | {"config": str(link)}
        )

    assert room.refusal(save()).code == "server_taken"
    link.unlink()
    link.symlink_to("free.conf")
    assert room.run(save()).revision == 2
    assert room.sites(made)["a.example"].id == site.id


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"name": "a/b"}, "target_name_invalid", "name"),
        ({"kind": "apache"}, "target_kind_unknown", "kind"),
        ({"region": "a/b"}, "region_invalid", "region"),
    ],
)
def test_a_bad_field_of_a_new_target_is_refused(room: Room, change: dict[str, str], code: str, field: str) -> None:
    given: dict[str, Any] = {"name": "web-1", "kind": "nginx", "config": {}} | change
    with pytest.raises(Invalid) as caught:
        room.run(deployment.create_target(room.services, room.actor, **given))
    assert (caught.value.code, caught.value.field) == (code, field)


def test_a_bad_config_is_refused_with_each_field(room: Room) -> None:
    with pytest.raises(InvalidFields):
        room.target(reload=["rm", "-rf", "/"])


def test_discovery_remembers_sites_and_keeps_their_ids(room: Room) -> None:
    target = room.target()
    first = room.sites(target)["a.example"]
    conf = room.nginx.sites / "a.example.conf"
    conf.write_text(conf.read_text().replace("www.a.example", "web.a.example"))
    again = room.sites(target)["a.example"]
    assert again.id == first.id
    assert again.site.names == ("a.example", "web.a.example")
    conf.unlink()
    assert room.sites(target) == {}
    looked = room.run(deployment.get_target(room.services, room.actor, target.id))
    assert (looked.health, looked.software[:6]) == (Health.HEALTHY, "nginx/")


def test_a_target_that_can_not_be_read_is_unhealthy_and_says_why(room: Room) -> None:
    target = room.target()
    (room.nginx.sites / "z.conf").write_text("bogus on;\n")
    problem = room.refusal(deployment.discover(room.services, room.actor, target.id))
    assert problem.code == "nginx_config_broken"
    looked = room.run(deployment.get_target(room.services, room.actor, target.id))
    assert looked.health is Health.UNHEALTHY
    assert looked.health_problem is not None
    assert looked.health_problem["line"] == 1


# --- deploying ------------------------------------------------------------------------------------------------------


def test_a_deployment_is_planned_staged_tested_activated_verified_and_kept(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    certificate_id = room.certificate("a.example", "www.a.example")
    started = room.deploy(certificate_id, site)
    assert (started.state, started.next_step) == (RolloutState.RUNNING, Step.PLAN)
    done = room.drained(started)
    assert (done.state, done.next_step, done.problem) == (RolloutState.DEPLOYED, None, None)
    assert [(step.step.value, step.outcome) for step in done.steps] == [
        (name, "done") for name in ("plan", "stage", "test", "activate", "verify", "keep")
    ]
    assert room.served() == room.version(certificate_id).sha256
    (binding,) = room.bindings(certificate_id=certificate_id)
    assert (binding.current, binding.site_id, binding.slot) == (True, site.id, "only")
    (created,) = room.events("binding_created")
    assert (created.payload["host"], created.payload["port"]) == ("127.0.0.1", room.nginx.https_port)
    assert (created.payload["sni"], created.payload["certificate_id"]) == ("a.example", certificate_id)
    (finished,) = room.events("rollout_finished")
    assert finished.payload["certificate_ids"] == [certificate_id]
    installed = room.run(deployment.list_sites(room.services, room.actor, site.target_id))[0].site.slots[0].installed
    assert installed is not None
    assert installed.sha256 == room.version(certificate_id).sha256
    assert done.requested_by == room.actor.name


def test_the_chain_is_served_with_the_leaf(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    certificate_id = room.certificate("a.example")
    room.drained(room.deploy(certificate_id, site))
    pem = (room.nginx.certs / "a.example.pem").read_bytes()
    version = room.version(certificate_id)
    chain = b"".join(ssl.DER_cert_to_PEM_cert(der).encode() for der in (version.leaf_der, *version.chain_ders))
    assert pem == chain
    assert version.chain_ders


def test_every_read_of_the_private_key_is_audited_with_its_reason(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    started = room.deploy(room.certificate("a.example"), site)
    room.drained(started)

    async def reasons() -> list[str]:
        async with room.services.db.begin() as tx:
            c = audit_events.c
            return list((await tx.scalars(sa.select(c.reason).where(c.action == "scm:key:read"))).all())

    (reason,) = room.run(reasons())
    assert started.id in reason
    assert "web-1" in reason


def test_a_preview_shows_files_addresses_and_names_that_would_be_lost(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    certificate_id = room.certificate("a.example", "b.example")
    before = room.served()
    (shown,) = room.run(deployment.preview(room.services, room.actor, certificate_id, [site.id]))
    assert sorted(path.rpartition("/")[2] for path in shown.files) == ["a.example.key", "a.example.pem"]
    assert any("a.example" in address for address in shown.addresses)
    assert [(c.code, c.names) for c in shown.cautions] == [("names_not_covered", ("www.a.example",))]
    assert room.served() == before
    assert room.bindings() == []


def test_a_bound_certificate_can_not_be_deleted(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    certificate_id = room.certificate("a.example")
    room.drained(room.deploy(certificate_id, site))
    room.run(certificates.revoke(room.services, room.actor, certificate_id, certificates.RevocationReason.SUPERSEDED))
    room.world.drain()
    problem = room.refusal(certificates.delete_certificate(room.services, room.actor, certificate_id))
    assert isinstance(problem, Refused)
    assert "web-1: a.example" in problem.message
    target_problem = room.refusal(deployment.delete_target(room.services, room.actor, site.target_id))
    assert target_problem.code == "target_bound"
    (binding,) = room.bindings()
    room.run(deployment.unbind(room.services, room.actor, binding.id))
    room.run(certificates.delete_certificate(room.services, room.actor, certificate_id))
    room.run(deployment.delete_target(room.services, room.actor, site.target_id))
    (removed,) = room.events("binding_removed")
    assert removed.payload["binding_id"] == binding.id


def test_a_site_of_another_certificate_is_replaced_only_when_asked(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    first, second = room.certificate("a.example"), room.certificate("a.example")
    room.drained(room.deploy(first, site))
    problem = room.refusal(deployment.deploy(room.services, room.actor, second, [site.id]))
    assert (problem.code, problem.extra["certificate_id"]) == ("slot_taken", first)
    done = room.drained(room.deploy(second, site, replace=True))
    assert done.state is RolloutState.DEPLOYED
    assert room.served() == room.version(second).sha256
    assert [binding.certificate_id for binding in room.bindings()] == [second]
    assert len(room.events("binding_created")) == 2
    assert len(room.events("binding_removed")) == 1


def test_several_sites_of_a_target_are_one_rollout_with_one_reload(room: Room) -> None:
    for name in ("b.example", "c.example"):
        old = make(name)
        room.nginx.write_site(name, old.pem, old.key_pem)
    room.nginx.reload()
    sites = room.sites(room.target())
    certificate_id = room.certificate("a.example", "b.example", "c.example")
    reloads = room.nginx.error_log.read_text().count("(SIGHUP) received")
    done = room.drained(room.deploy(certificate_id, *sites.values()))
    assert done.state is RolloutState.DEPLOYED
    assert {room.served(name) for name in sites} == {room.version(certificate_id).sha256}
    assert room.nginx.error_log.read_text().count("(SIGHUP) received") == reloads + 1


def test_binding_what_is_installed_already_needs_no_rollout(room: Room) -> None:
    target = room.target()
    site = room.sites(target)["a.example"]
    certificate_id = room.certificate("a.example")
    room.drained(room.deploy(certificate_id, site))
    (binding,) = room.bindings()
    room.run(deployment.unbind(room.services, room.actor, binding.id))
    bound = room.run(deployment.bind(room.services, room.actor, site.id, certificate_id))
    assert bound.current
    assert len(room.events("binding_created")) == 2


# --- who may --------------------------------------------------------------------------------------------------------


def test_other_tenants_see_none_of_it(room: Room) -> None:
    target = room.target()
    site = room.sites(target)["a.example"]
    started = room.drained(room.deploy(room.certificate("a.example"), site))
    other, services = room.world.other_actor, room.services
    (binding,) = room.bindings()
    for doing in (
        deployment.get_target(services, other, target.id),
        deployment.update_target(services, other, target.id, revision=1, name="x"),
        deployment.delete_target(services, other, target.id),
        deployment.discover(services, other, target.id),
        deployment.list_sites(services, other, target.id),
        deployment.unbind(services, other, binding.id),
        deployment.get_rollout(services, other, started.id),
        deployment.undo_rollout(services, other, started.id),
    ):
        assert isinstance(room.refusal(doing), NotFound)
    assert room.run(deployment.list_targets(services, other)) == []
    assert room.run(deployment.list_bindings(services, other)) == []
    assert room.run(deployment.list_rollouts(services, other)) == []


def test_deploying_to_sites_of_another_tenant_is_refused_as_unknown(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    world = room.world
    world.run(authorities.ensure_builtin(room.services, world.other_account.id, world.other_project_id))
    theirs = world.run(certificates.issue_private(room.services, world.other_actor, names=("a.example",)))
    problem = room.refusal(deployment.deploy(room.services, world.other_actor, theirs.id, [site.id]))
    assert isinstance(problem, NotFound)
    assert problem.field == "site_ids"


def test_a_reader_may_look_but_not_touch(room: Room) -> None:
    target = room.target()
    site = room.sites(target)["a.example"]
    certificate_id = room.certificate("a.example")
    done = room.drained(room.deploy(certificate_id, site))
    reader = room.world.actor_with("scm:target:get", "scm:target:list", "scm:rollout:get", "scm:cert:get")
    services = room.services
    assert room.run(deployment.get_target(services, reader, target.id)).id == target.id
    (binding,) = room.bindings()
    for doing in (
        deployment.create_target(services, reader, name="x", kind="nginx", config={}),
        deployment.update_target(services, reader, target.id, revision=1, name="x"),
        deployment.delete_target(services, reader, target.id),
        deployment.discover(services, reader, target.id),
        deployment.unbind(services, reader, binding.id),
        deployment.deploy(services, reader, certificate_id, [site.id]),
        deployment.preview(services, reader, certificate_id, [site.id]),
        deployment.bind(services, reader, site.id, certificate_id),
        deployment.undo_rollout(services, reader, done.id),
    ):
        assert isinstance(room.refusal(doing), Forbidden)


# --- refusals -------------------------------------------------------------------------------------------------------


def test_no_site_and_too_many_sites_are_refused(room: Room) -> None:
    certificate_id = room.certificate("a.example")
    for site_ids, code in (([], "sites_needed"), ([f"site_{n}" for n in range(201)], "too_many_sites")):
        problem = room.refusal(deployment.deploy(room.services, room.actor, certificate_id, site_ids))
        assert (problem.code, problem.field) == (code, "site_ids")


def test_an_expired_certificate_is_not_deployed(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    certificate_id = room.certificate("a.example", days=1)
    room.world.later(days=2)
    problem = room.refusal(deployment.deploy(room.services, room.actor, certificate_id, [site.id]))
    assert isinstance(problem, Refused)
    assert room.bindings() == []


def test_a_site_that_is_gone_is_not_deployed_to(room: Room) -> None:
    target = room.target()
    site = room.sites(target)["a.example"]
    certificate_id = room.certificate("a.example")
    room.drained(room.deploy(certificate_id, site))
    (room.nginx.sites / "a.example.conf").unlink()
    room.sites(target)
    problem = room.refusal(deployment.deploy(room.services, room.actor, certificate_id, [site.id]))
    assert problem.code == "site_missing"


def test_sites_that_share_files_can_not_get_different_certificates(room: Room) -> None:
    conf = room.nginx.sites / "b.example.conf"
    conf.write_text((room.nginx.sites / "a.example.conf").read_text().replace("www.a.example", "b.example"))
    conf.write_text(conf.read_text().replace("server_name a.example b.example", "server_name b.example"))
    sites = room.sites(room.target())
    room.drained(room.deploy(room.certificate("a.example", "b.example"), sites["a.example"]))
    problem = room.refusal(
        deployment.deploy(room.services, room.actor, room.certificate("b.example"), [sites["b.example"].id])
    )
    assert problem.code == "files_shared"


# --- when it goes wrong ---------------------------------------------------------------------------------------------


def test_a_refused_step_is_undone_and_the_binding_with_it(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    before = room.served()
    (room.nginx.sites / "z.conf").write_text("server {\n  bogus on;\n}\n")
    certificate_id = room.certificate("a.example")
    done = room.drained(room.deploy(certificate_id, site))
    assert done.state is RolloutState.UNDONE
    assert done.problem is not None
    assert (done.problem["code"], done.problem["line"]) == ("nginx_config_broken", 2)
    assert room.served() == before
    assert room.bindings() == []
    (failed,) = room.events("rollout_failed")
    assert (failed.payload["state"], failed.payload["certificate_ids"]) == ("undone", [certificate_id])


def test_a_replacement_that_fails_leaves_the_first_certificate_bound(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    first, second = room.certificate("a.example"), room.certificate("a.example")
    room.drained(room.deploy(first, site))
    (room.nginx.sites / "z.conf").write_text("bogus on;\n")
    done = room.drained(room.deploy(second, site, replace=True))
    assert done.state is RolloutState.UNDONE
    (binding,) = room.bindings()
    assert (binding.certificate_id, binding.current) == (first, True)
    assert room.served() == room.version(first).sha256


def test_nginx_that_does_not_run_fails_the_rollout_at_once(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    room.nginx.stop()
    done = room.drained(room.deploy(room.certificate("a.example"), site))
    assert (done.state, done.problem and done.problem["code"]) == (RolloutState.UNDONE, "nginx_not_running")


def fail(room: Room) -> None:
    """As often as there are tries; nothing is served, however long one looks."""
    ports: Any = room.services.ports
    patient, ports[TargetKinds] = ports[TargetKinds], Targets({"nginx": NginxKind(verify_seconds=0.1)})
    for _ in range(8):
        room.world.drain()
        room.world.later(minutes=5)
    ports[TargetKinds] = patient


def test_an_undo_that_keeps_failing_ends_as_failed_and_can_be_asked_for_again(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    certificate_id = room.certificate("a.example")
    before = room.served()
    started = room.deploy(certificate_id, site)
    run_until(room, started, Step.VERIFY)
    room.nginx.stop()
    fail(room)
    failed = room.rollout(started.id)
    assert failed.state is RolloutState.FAILED
    assert [step.outcome for step in failed.steps if step.step is Step.UNDO] == ["failed"] * 5
    assert len(room.events("rollout_failed")) == 1
    room.nginx.start()
    room.run(deployment.undo_rollout(room.services, room.actor, started.id))
    done = room.drained(started)
    assert done.state is RolloutState.UNDONE
    assert room.served() == before
    assert room.bindings() == []
    assert len(room.events("rollout_undone")) == 1


def fail_to_undo(room: Room, *sites: SiteView) -> RolloutView:
    """A rollout whose files were replaced and can't be put back: their folder is gone for now."""
    started = room.deploy(room.certificate("a.example"), *sites)
    run_until(room, started, Step.VERIFY)
    room.nginx.stop()
    room.nginx.certs.rename(room.nginx.certs.with_name("away"))
    fail(room)
    failed = room.rollout(started.id)
    assert failed.state is RolloutState.FAILED
    return failed


def test_a_failed_undo_says_what_to_do_and_succeeds_by_itself_once_that_is_done(room: Room) -> None:
    first, second = two_sites(room, room.target())
    before = room.served()
    failed = fail_to_undo(room, first)
    assert failed.problem is not None
    assert failed.problem["code"] == "undo_failed"
    assert failed.problem["message"].startswith("What web-1 served before could not be put back: ")
    assert f"certwright rollouts undo {failed.id}" in failed.problem["fix"]
    assert failed.problem["because"]["code"] == "not_served"
    assert len(room.events("rollout_failed")) == 1
    tries = [step for step in failed.steps if step.step is Step.UNDO]
    room.world.later(hours=2)
    room.world.drain()
    later = [step for step in room.rollout(failed.id).steps if step.step is Step.UNDO]
    assert len(later) == len(tries), "days of trying leave one line"
    assert later[-1].finished_at is not None
    assert tries[-1].finished_at is not None
    assert later[-1].finished_at > tries[-1].finished_at, "it was tried again"

    other = room.certificate("b.example")
    waiting = room.deploy(other, second)
    room.run(room.services.jobs.run_step(room.services, deployment.STEP, waiting.id))
    waiting = room.rollout(waiting.id)
    assert (waiting.state, waiting.started_at) == (RolloutState.RUNNING, None)
    assert waiting.waiting_for is not None
    assert waiting.waiting_for["code"] == "target_undo_failed"
    assert failed.id in waiting.waiting_for["message"]

    room.nginx.certs.with_name("away").rename(room.nginx.certs)
    room.nginx.start()
    room.world.later(minutes=11)
    room.world.drain()
    done = room.rollout(failed.id)
    assert done.state is RolloutState.UNDONE
    assert done.problem is not None
    assert done.problem["code"] == "not_served", "what it was undone for is left to read"
    assert room.served() == before
    assert room.drained(waiting).state is RolloutState.DEPLOYED
    assert room.served("b.example") == room.version(other).sha256


def test_a_rollout_says_that_it_waits_for_the_one_before_it(room: Room) -> None:
    first, second = two_sites(room, room.target())
    one = room.deploy(room.certificate("a.example"), first)
    other = room.deploy(room.certificate("b.example"), second)
    run_until(room, one, Step.STAGE)
    room.run(room.services.jobs.run_step(room.services, deployment.STEP, other.id))
    waiting = room.rollout(other.id).waiting_for
    assert waiting is not None
    assert (waiting["code"], waiting["rollout_id"]) == ("target_busy", one.id)
    assert room.drained(other).waiting_for is None


def test_deleting_a_target_gives_up_its_failed_undo_and_frees_the_server(room: Room) -> None:
    target = room.target()
    failed = fail_to_undo(room, room.sites(target)["a.example"])
    replaced = room.refusal(
        deployment.deploy(
            room.services, room.actor, room.certificate("a.example"), [str(failed.items[0].site_id)], replace=True
        )
    )
    assert replaced.code == "target_undo_failed"
    for binding in room.bindings():
        room.run(deployment.unbind(room.services, room.actor, binding.id))
    room.run(deployment.delete_target(room.services, room.actor, target.id))
    room.nginx.certs.with_name("away").rename(room.nginx.certs)
    room.nginx.start()
    site = room.sites(room.target("web-2"))["a.example"]
    certificate_id = room.certificate("a.example")
    assert room.drained(room.deploy(certificate_id, site)).state is RolloutState.DEPLOYED
    assert room.served() == room.version(certificate_id).sha256


def test_two_people_binding_one_slot_at_once_get_one_binding_and_one_refusal(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    first, second = room.certificate("a.example"), room.certificate("a.example")

    async def both() -> list[Any]:
        return await asyncio.gather(
            *(deployment.bind(room.services, room.actor, site.id, one) for one in (first, second)),
            return_exceptions=True,
        )

    answers = room.run(both())
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert [getattr(one, "code", one) for one in refused] == ["slot_taken"]
    assert len(room.bindings()) == 1


def test_a_rollout_is_undone_by_hand(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    first, second = room.certificate("a.example"), room.certificate("a.example")
    older = room.drained(room.deploy(first, site))
    newer = room.drained(room.deploy(second, site, replace=True))
    refused = room.refusal(deployment.undo_rollout(room.services, room.actor, older.id))
    assert refused.code == "rollout_not_latest"
    room.run(deployment.undo_rollout(room.services, room.actor, newer.id))
    done = room.drained(newer)
    assert done.state is RolloutState.UNDONE
    assert room.served() == room.version(first).sha256
    (binding,) = room.bindings()
    assert (binding.certificate_id, binding.current) == (first, True)
    again = room.refusal(deployment.undo_rollout(room.services, room.actor, newer.id))
    assert again.code == "rollout_undone_already"
    assert room.events("rollout_failed") == []


def run_until(room: Room, rollout: RolloutView, step: Step) -> None:
    """Run steps as a worker does, up to but without `step`."""
    while room.rollout(rollout.id).next_step not in (step, None):
        assert room.run(room.services.jobs.run_step(room.services, deployment.STEP, rollout.id))
    assert room.rollout(rollout.id).next_step is step


ALL_STEPS = [Step.PLAN, Step.STAGE, Step.TEST, Step.ACTIVATE, Step.VERIFY, Step.KEEP]


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("step", ALL_STEPS)
def test_a_worker_killed_after_the_act_and_before_recording_it_is_made_up_for(
    room: Room, monkeypatch: pytest.MonkeyPatch, step: Step
) -> None:
    site = room.sites(room.target())["a.example"]
    certificate_id = room.certificate("a.example")
    started = room.deploy(certificate_id, site)
    run_until(room, started, step)

    async def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("certwright.rooms.deployment.jobs._done", die)
        with pytest.raises(Killed):
            room.run(room.services.jobs.run_step(room.services, deployment.STEP, started.id))
    assert room.rollout(started.id).next_step is step
    room.world.later(minutes=2)
    done = room.drained(started)
    assert done.state is RolloutState.DEPLOYED
    assert [s.step for s in done.steps] == ALL_STEPS
    assert room.served() == room.version(certificate_id).sha256
    assert [path.name for path in room.nginx.directory.rglob("*certwright*")] == []
    assert len(room.bindings()) == 1


def test_a_step_run_twice_is_recorded_once(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    started = room.deploy(room.certificate("a.example"), site)
    room.drained(started)
    assert room.run(rollout_step(room.services, started.id)) is None

    async def count() -> int | None:
        async with room.services.db.begin() as tx:
            return await tx.scalar(sa.select(sa.func.count()).select_from(rollout_steps))

    assert room.run(count()) == len(ALL_STEPS)


# --- one at a time --------------------------------------------------------------------------------------------------


def two_sites(room: Room, target: TargetView) -> tuple[SiteView, SiteView]:
    old = make("b.example")
    room.nginx.write_site("b.example", old.pem, old.key_pem)
    room.nginx.reload()
    sites = room.sites(target)
    return sites["a.example"], sites["b.example"]


def test_rollouts_of_one_target_wait_for_each_other(room: Room) -> None:
    first, second = two_sites(room, room.target())
    a, b = room.certificate("a.example"), room.certificate("b.example")
    one = room.deploy(a, first)
    other = room.deploy(b, second)
    run_until(room, one, Step.ACTIVATE)
    room.run(room.services.jobs.run_step(room.services, deployment.STEP, other.id))
    assert room.rollout(other.id).started_at is None
    busy = room.refusal(
        deployment.update_target(room.services, room.actor, one.target_id, revision=1, config=base_config(room))
    )
    assert busy.code == "target_busy"
    assert room.refusal(deployment.delete_target(room.services, room.actor, one.target_id)).code == "target_busy"
    assert room.refusal(deployment.unbind(room.services, room.actor, room.bindings()[0].id)).code == "target_busy"
    room.world.drain()
    assert room.rollout(one.id).state is RolloutState.DEPLOYED
    assert room.drained(other).state is RolloutState.DEPLOYED
    assert (room.served(), room.served("b.example")) == (room.version(a).sha256, room.version(b).sha256)


def base_config(room: Room) -> dict[str, str]:
    return {"nginx": str(room.nginx.binary), "config": str(room.nginx.conf_path), "connect_host": "127.0.0.2"}


# --- new versions ---------------------------------------------------------------------------------------------------


def test_a_new_version_is_deployed_by_itself(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    certificate_id = room.certificate("a.example")
    room.drained(room.deploy(certificate_id, site))
    before = room.version(certificate_id)
    room.reissue(certificate_id)
    room.world.drain()
    after = room.version(certificate_id)
    assert after.version_id != before.version_id
    assert room.served() == after.sha256
    rollouts = room.run(deployment.list_rollouts(room.services, room.actor, certificate_id=certificate_id))
    assert [(r.trigger, r.state) for r in rollouts] == [
        (Trigger.NEW_VERSION, RolloutState.DEPLOYED),
        (Trigger.USER, RolloutState.DEPLOYED),
    ]
    assert [r.items[0].previous_version_id for r in rollouts] == [before.version_id, None]
    (binding,) = room.bindings()
    assert binding.current


def test_a_new_version_is_brought_once_however_often_it_is_told(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    certificate_id = room.certificate("a.example")
    room.drained(room.deploy(certificate_id, site))
    room.reissue(certificate_id)
    room.world.drain()
    version = room.version(certificate_id)

    async def tell() -> tuple[str, ...]:
        async with room.services.db.begin() as tx:
            return await deployment.redeploy(tx, room.services, certificate_id, version.version_id)

    assert room.run(tell()) == ()
    assert len(room.run(deployment.list_rollouts(room.services, room.actor))) == 2


def test_new_versions_that_come_together_are_one_rollout(room: Room) -> None:
    first, second = two_sites(room, room.target())
    a, b = room.certificate("a.example"), room.certificate("b.example")
    room.drained(room.deploy(a, first))
    room.drained(room.deploy(b, second))
    blocker = room.deploy(a, first)
    run_until(room, blocker, Step.ACTIVATE)
    for certificate_id in (a, b):
        room.reissue(certificate_id)
    # All but the rollout under way: both new versions are issued and told while the target is busy.
    room.run(run_all_but(room, deployment.STEP))
    (waiting,) = [
        r for r in room.run(deployment.list_rollouts(room.services, room.actor)) if r.trigger is Trigger.NEW_VERSION
    ]
    assert {item.certificate_id for item in waiting.items} == {a, b}
    room.world.drain()
    assert room.drained(waiting).state is RolloutState.DEPLOYED
    assert (room.served(), room.served("b.example")) == (room.version(a).sha256, room.version(b).sha256)


async def run_all_but(room: Room, name: str) -> None:
    """Everything due, as `jobs.drain` does, except one kind of step."""
    steps = room.services.jobs.steps
    held = steps.pop(name)
    # The held step must stay known to whoever starts it.
    real_start = room.services.jobs.start

    async def start(tx: Any, step: str, *ids: str) -> None:
        if step == name:
            await tx.execute(
                sa.update(held.table).where(held.table.c.id.in_(ids)).values(next_step_at=room.world.clock.now())
            )
        else:
            await real_start(tx, step, *ids)

    room.services.jobs.start = start  # type: ignore[method-assign]
    try:
        await jobs.drain(room.services)
    finally:
        room.services.jobs.start = real_start  # type: ignore[method-assign]
        steps[name] = held


def test_a_new_version_that_could_not_be_deployed_is_tried_again_later(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    certificate_id = room.certificate("a.example")
    room.drained(room.deploy(certificate_id, site))
    old = room.served()
    broken = room.nginx.sites / "z.conf"
    broken.write_text("bogus on;\n")
    room.reissue(certificate_id)
    room.world.drain()
    assert room.served() == old
    (failed,) = room.events("rollout_failed")
    assert failed.payload["certificate_ids"] == [certificate_id]
    (binding,) = room.bindings()
    assert not binding.current
    broken.unlink()
    room.world.later(minutes=14)
    room.run(deployment.retry_due(room.services))
    room.world.drain()
    assert room.served() == old
    room.world.later(minutes=2)
    room.run(deployment.retry_due(room.services))
    room.world.drain()
    assert room.served() == room.version(certificate_id).sha256
    assert room.bindings()[0].current


def test_an_unbound_site_keeps_what_it_has_when_a_new_version_comes(room: Room) -> None:
    site = room.sites(room.target())["a.example"]
    certificate_id = room.certificate("a.example")
    room.drained(room.deploy(certificate_id, site))
    before = room.served()
    room.run(deployment.unbind(room.services, room.actor, room.bindings()[0].id))
    room.reissue(certificate_id)
    room.world.drain()
    assert room.served() == before
