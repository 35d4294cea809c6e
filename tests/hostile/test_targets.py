"""What a user who may add targets could have the product do to the machine it runs on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from certwright.connectors.target import Targets
from certwright.connectors.target.nginx import NginxKind
from certwright.kernel.problems import NotFound, Problem, Refused
from certwright.rooms import deployment
from certwright.rooms.access import people
from certwright.rooms.deployment import TargetKinds
from tests.conftest import World
from tests.deployment.certs import make
from tests.servers.nginx import Nginx
from tests.servers.programs import require


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    require("nginx")
    server = Nginx(tmp_path / "nginx")
    yield server
    server.stop()


def _add_and_look(world: World, config: dict[str, object]) -> None:
    async def work() -> None:
        made = await deployment.create_target(world.services, world.actor, name="web", kind="nginx", config=config)
        await deployment.discover(world.services, world.actor, made.id)

    world.run(work())


def _config(server: Nginx, **more: object) -> dict[str, object]:
    return {"nginx": str(server.binary), "config": str(server.conf_path)} | more


def test_the_same_server_cannot_be_a_target_of_two_accounts(world: World, nginx: Nginx) -> None:
    """Otherwise a second tenant sees, and replaces, what the first one serves."""
    world.run(deployment.create_target(world.services, world.actor, name="web", kind="nginx", config=_config(nginx)))
    with pytest.raises(Problem):
        world.run(
            deployment.create_target(world.services, world.other_actor, name="web", kind="nginx", config=_config(nginx))
        )


def test_a_project_scoped_user_cannot_reach_another_projects_server_by_adding_it_again(
    world: World, nginx: Nginx
) -> None:
    world.run(deployment.create_target(world.services, world.actor, name="web", kind="nginx", config=_config(nginx)))
    mine = world.run(people.create_project(world.services, world.actor, name="mine")).id
    scoped = world.actor_with("scm:*", project_id=mine)
    alias = nginx.conf_path.parent / "." / nginx.conf_path.name
    with pytest.raises(Problem):
        world.run(
            deployment.create_target(
                world.services, scoped, name="again", kind="nginx", project_id=mine,
                config=_config(nginx) | {"config": str(alias.parent / ".." / alias.parent.name / alias.name)},
            )
        )  # fmt: skip


def test_a_link_called_nginx_does_not_make_a_program_nginx(world: World, nginx: Nginx, tmp_path: Path) -> None:
    """The rule that only an nginx is run must hold for what is run, not for what it is called."""
    ran = tmp_path / "ran"
    script = tmp_path / "not-a-web-server.sh"
    script.write_text(f"#!/bin/sh\n/usr/bin/touch {ran}\n")
    script.chmod(0o755)
    link = tmp_path / "elsewhere" / "nginx"
    link.parent.mkdir()
    link.symlink_to(script)
    with pytest.raises(Problem):
        _add_and_look(world, _config(nginx, nginx=str(link)))
    assert not ran.exists()


def test_a_program_in_a_directory_that_everybody_may_write_is_not_run(
    world: World, nginx: Nginx, tmp_path: Path
) -> None:
    """Whoever may write the directory can put another program there between our look and the start."""
    ran = tmp_path / "ran"
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    program = folder / "nginx"
    program.write_text(f"#!/bin/sh\n/usr/bin/touch {ran}\n")
    program.chmod(0o755)
    with pytest.raises(Refused):
        _add_and_look(world, _config(nginx, nginx=str(program)))
    assert not ran.exists()


def test_a_target_does_not_tell_what_stands_in_files_that_are_no_nginx_configuration(
    world: World, nginx: Nginx
) -> None:
    secret = world.services.settings.data_dir / "secret.env"
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_text("password=hunter2-of-the-operator;\n")
    secret.chmod(0o600)
    with pytest.raises(Problem) as refused:
        _add_and_look(world, _config(nginx, config=str(secret)))
    assert "hunter2" not in str(refused.value.as_dict())


def test_a_name_in_another_encoding_does_not_break_the_list_of_sites(world: World, nginx: Nginx) -> None:
    services = world.services
    services.ports[TargetKinds] = Targets({"nginx": NginxKind()})  # type: ignore[index]
    pair = make("a.example")
    site = nginx.write_site("a.example", pair.pem, pair.key_pem)
    text = site.conf.read_bytes()
    site.conf.write_bytes(text.replace(b"server_name a.example", b"server_name a.example caf\xe9.example"))
    made = world.run(deployment.create_target(services, world.actor, name="web", kind="nginx", config=_config(nginx)))
    found = world.run(deployment.discover(services, world.actor, made.id))
    assert [one.site.names[0] for one in found] == ["a.example"]


def test_a_target_of_this_machine_is_looked_at_on_this_machine(world: World, nginx: Nginx) -> None:
    """connect_host must not make the product knock at addresses that the operator hasn't opened."""
    with pytest.raises(Problem):
        world.run(
            deployment.create_target(
                world.services, world.actor, name="web", kind="nginx",
                config=_config(nginx, connect_host="169.254.169.254"),
            )
        )  # fmt: skip


def test_sites_of_another_account_are_not_found_by_their_ids(world: World, nginx: Nginx) -> None:
    pair = make("a.example")
    nginx.write_site("a.example", pair.pem, pair.key_pem)
    made = world.run(
        deployment.create_target(world.services, world.actor, name="web", kind="nginx", config=_config(nginx))
    )
    (site,) = world.run(deployment.discover(world.services, world.actor, made.id))
    with pytest.raises(NotFound):
        world.run(deployment.deploy(world.services, world.other_actor, "cert_x", [site.id]))
    with pytest.raises(NotFound):
        world.run(deployment.list_sites(world.services, world.other_actor, made.id))
