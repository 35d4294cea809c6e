"""Rollouts on a real nginx: what clients see, what is left on disk, and every way it can go wrong."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import stat
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from certwright.connectors.target.handshake import NoHandshake, fingerprint, served_certificate
from certwright.connectors.target.nginx.files import RolloutDirectory
from certwright.kernel.problems import Problem, Refused, Unavailable
from certwright.rooms.deployment.ports import Target, Workspace
from certwright.rooms.deployment.words import Address, KeyKind, Plan, Site, StepResult
from tests.deployment.certs import Made, make, sign
from tests.deployment.conftest import Opener
from tests.servers.nginx import Nginx
from tests.servers.ports import free_port

ROLLOUT = "roll_1"


def site_named(sites: Sequence[Site], name: str) -> Site:
    (found,) = [site for site in sites if name in site.names]
    return found


async def plan_for(target: Target, *pairs: tuple[str, Made], rollout: str = ROLLOUT) -> Plan:
    sites = (await target.discover()).sites
    return await target.plan(rollout, [new.deployment(site_named(sites, name).key) for name, new in pairs])


def materials(*new: Made) -> dict[str, object]:
    return {one.version_id: one.material for one in new}


async def roll_out(target: Target, *pairs: tuple[str, Made], rollout: str = ROLLOUT) -> Plan:
    plan = await plan_for(target, *pairs, rollout=rollout)
    await target.stage(plan, {one.version_id: one.material for _, one in pairs})
    await target.test(plan)
    await target.activate(plan)
    await target.verify(plan)
    await target.keep(plan)
    return plan


async def served(nginx: Nginx, name: str | None = "a.example", kind: KeyKind | None = None) -> str:
    return fingerprint(await served_certificate(Address("127.0.0.1", nginx.https_port, name), kind))


async def settles_on(nginx: Nginx, wanted: Made) -> None:
    """Of two reloads the first may show only after the second was asked for: on a busy machine nginx serves the one
    certificate, the other, and the first again."""
    deadline = asyncio.get_running_loop().time() + 60
    while await served(nginx) != wanted.sha256:
        assert asyncio.get_running_loop().time() < deadline, "the wanted certificate is not served"
        await asyncio.sleep(0.05)


def left_behind(nginx: Nginx) -> list[str]:
    return [path.name for path in nginx.directory.rglob("*certwright*")]


def refusal(doing: Awaitable[object]) -> Problem:
    async def catch() -> Problem:
        with pytest.raises(Problem) as caught:
            await doing
        return caught.value

    return asyncio.run(catch())


def test_discovery_finds_every_tls_site_with_what_is_installed(nginx: Nginx, target: Opener) -> None:
    old = make("a.example", "www.a.example")
    nginx.write_site("a.example", old.pem, old.key_pem)
    nginx.write_site("b.example", old.pem, b"", files="a.example")
    (nginx.certs / "a.example.key").write_bytes(old.key_pem)
    discovery = asyncio.run(target().discover())
    assert discovery.software.startswith("nginx/")
    assert discovery.fault is None
    assert [site.names for site in discovery.sites] == [("a.example",), ("b.example",)]
    (slot,) = discovery.sites[0].slots
    assert slot.installed is not None
    assert (slot.installed.sha256, slot.installed.names) == (old.sha256, ("a.example", "www.a.example"))
    assert slot.installed.key_kind is KeyKind.EC


def test_a_rollout_replaces_what_is_served(nginx: Nginx, target: Opener) -> None:
    old, new = make(days=-3, began_days_ago=90), make(kind="rsa")
    files = nginx.write_site("a.example", old.pem, old.key_pem)
    with nginx:
        plan = asyncio.run(roll_out(target(), ("a.example", new)))
        assert asyncio.run(served(nginx)) == new.sha256
    assert [caution.code for caution in plan.cautions] == ["key_type_changes"]
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(files.certificate.stat().st_mode) == 0o644
    assert left_behind(nginx) == []
    assert Plan.from_dict(plan.as_dict()) == plan


def test_any_number_of_sites_changes_with_one_reload(nginx: Nginx, target: Opener) -> None:
    names = [f"{letter}.example" for letter in "abcdef"]
    for name in names:
        old = make(name)
        nginx.write_site(name, old.pem, old.key_pem)
    new = {name: make(name) for name in names}
    with nginx:
        asyncio.run(roll_out(target(), *new.items()))
        for name in names:
            assert asyncio.run(served(nginx, name)) == new[name].sha256
        assert nginx.error_log.read_text().count("signal 1 (SIGHUP) received from") == 1


def test_the_chain_follows_the_leaf_in_the_file(nginx: Nginx, target: Opener) -> None:
    old, new, issuer = make(), make(), make("issuer.example")
    files = nginx.write_site("a.example", old.pem, old.key_pem)

    async def go() -> None:
        one = target()
        plan = await plan_for(one, ("a.example", new))
        material = new.material
        chained = type(material)(material.version_id, material.leaf_der, (issuer.der,), material.private_key)
        await one.stage(plan, {new.version_id: chained})
        await one.activate(plan)

    with nginx:
        asyncio.run(go())
    assert x509.load_pem_x509_certificates(files.certificate.read_bytes()) == [new.certificate, issuer.certificate]


def test_undo_serves_the_previous_certificate_again(nginx: Nginx, target: Opener) -> None:
    old, new = make(), make()
    files = nginx.write_site("a.example", old.pem, old.key_pem)
    files.key.chmod(0o640)

    async def go() -> None:
        plan = await roll_out(target(), ("a.example", new))
        assert await served(nginx) == new.sha256
        result = await target().undo(plan)
        assert any("serves the previous certificate" in said for said in result.details)
        assert await served(nginx) == old.sha256
        assert (await target().undo(plan)).details == ("Nothing had been changed.",)

    with nginx:
        asyncio.run(go())
    assert (files.certificate.read_bytes(), files.key.read_bytes()) == (old.pem, old.key_pem)
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o640
    assert left_behind(nginx) == []


def test_backups_never_hold_a_key_in_clear(nginx: Nginx, target: Opener, workspace: Workspace) -> None:
    old, new = make(), make()
    nginx.write_site("a.example", old.pem, old.key_pem)
    with nginx:
        asyncio.run(roll_out(target(), ("a.example", new)))
    for path in workspace.directory.rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.parent.name == "locks"
            assert b"PRIVATE KEY" not in path.read_bytes()
    assert list((workspace.directory / ROLLOUT).glob("backup-*"))


STEPS: list[Callable[[Target, Plan, Made], Awaitable[StepResult]]] = [
    lambda t, plan, new: t.stage(plan, {new.version_id: new.material}),
    lambda t, plan, new: t.test(plan),
    lambda t, plan, new: t.activate(plan),
    lambda t, plan, new: t.verify(plan),
    lambda t, plan, new: t.keep(plan),
]


@pytest.mark.parametrize("repeated", range(len(STEPS)), ids=["stage", "test", "activate", "verify", "keep"])
def test_a_step_run_again_by_another_worker_changes_nothing(nginx: Nginx, target: Opener, repeated: int) -> None:
    """The worker died after the act and before recording it: the next one runs the step, and all before it, again."""
    old, new = make(), make()
    files = nginx.write_site("a.example", old.pem, old.key_pem)

    async def go() -> None:
        plan = await plan_for(target(), ("a.example", new))
        for step in STEPS[: repeated + 1]:
            await step(target(), plan, new)
        await STEPS[0](target(), plan, new)
        for step in STEPS[repeated:]:
            await step(target(), Plan.from_dict(plan.as_dict()), new)
        assert await served(nginx) == new.sha256
        await target().undo(plan)
        assert await served(nginx) == old.sha256

    with nginx:
        asyncio.run(go())
    assert (files.certificate.read_bytes(), files.key.read_bytes()) == (old.pem, old.key_pem)
    assert left_behind(nginx) == []


WRITES = 19
"""How often a rollout of one certificate creates or renames a file."""


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the product catches it."""


@pytest.mark.parametrize("finish", ["again", "undo"])
@pytest.mark.parametrize("deadly", range(WRITES + 1))
def test_a_kill_between_any_two_writes_is_survived(
    nginx: Nginx, target: Opener, monkeypatch: pytest.MonkeyPatch, deadly: int, finish: str
) -> None:
    """Dies before the n-th rename or unlink-and-write; then another worker either finishes or undoes."""
    old, new = make(), make()
    files = nginx.write_site("a.example", old.pem, old.key_pem)
    count = 0
    real_replace, real_open = os.replace, os.open

    def dying(call: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*args: object, **kwargs: object) -> object:
            nonlocal count
            if call is real_open and not int(args[1]) & os.O_CREAT:  # type: ignore[call-overload]
                return call(*args, **kwargs)
            count += 1
            if count == deadly + 1:
                raise Killed
            return call(*args, **kwargs)

        return wrapper

    async def go() -> None:
        plan = await plan_for(target(), ("a.example", new))
        died = False
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying(real_replace))
            patch.setattr(os, "open", dying(real_open))
            try:
                for step in STEPS:
                    await step(target(), plan, new)
            except Killed:
                died = True
        assert died == (deadly < WRITES), "the rollout has another number of writes than this test supposes"
        if finish == "again":
            for step in STEPS:
                await step(target(), plan, new)
            assert await served(nginx) == new.sha256
        else:
            await target().undo(plan)
            await settles_on(nginx, old)

    with nginx:
        asyncio.run(go())
    end = new if finish == "again" else old
    assert (files.certificate.read_bytes(), files.key.read_bytes()) == (end.pem, end.key_pem)
    assert left_behind(nginx) == []


def test_a_key_of_another_certificate_is_refused_before_anything_is_written(
    nginx: Nginx, target: Opener, workspace: Workspace
) -> None:
    old, new, stranger = make(), make(), make()
    nginx.write_site("a.example", old.pem, old.key_pem)

    async def go() -> None:
        plan = await plan_for(target(), ("a.example", new))
        material = type(new.material)(new.version_id, new.der, (), stranger.private_key)
        await target().stage(plan, {new.version_id: material})

    with nginx:
        assert refusal(go()).code == "key_mismatch"
    assert not (workspace.directory / ROLLOUT).exists()
    assert left_behind(nginx) == []


def break_configuration(nginx: Nginx) -> Path:
    broken = nginx.sites / "zz-other.conf"
    broken.write_text("# mine\nserver {\n    listn 80;\n}\n")
    return broken


def test_a_configuration_broken_by_someone_else_is_never_activated(nginx: Nginx, target: Opener) -> None:
    old, new = make(), make()
    files = nginx.write_site("a.example", old.pem, old.key_pem)

    async def go() -> None:
        plan = await plan_for(target(), ("a.example", new))
        break_configuration(nginx)
        await target().stage(plan, {new.version_id: new.material})

    with nginx:
        problem = refusal(go())
        assert asyncio.run(served(nginx)) == old.sha256
    assert problem.code == "nginx_config_broken"
    assert (problem.extra["file"], problem.extra["line"]) == (str(nginx.sites / "zz-other.conf"), 3)
    assert 'unknown directive "listn"' in problem.message
    assert files.certificate.read_bytes() == old.pem
    assert left_behind(nginx) == []


def test_a_configuration_broken_after_staging_puts_the_files_back_without_a_reload(
    nginx: Nginx, target: Opener
) -> None:
    old, new = make(), make()
    files = nginx.write_site("a.example", old.pem, old.key_pem)

    async def go() -> Plan:
        plan = await plan_for(target(), ("a.example", new))
        await target().stage(plan, {new.version_id: new.material})
        break_configuration(nginx)
        with pytest.raises(Refused) as caught:
            await target().activate(plan)
        assert caught.value.code == "nginx_config_broken"
        assert caught.value.extra["line"] == 3
        return plan

    with nginx:
        plan = asyncio.run(go())
        assert (files.certificate.read_bytes(), files.key.read_bytes()) == (old.pem, old.key_pem)
        asyncio.run(target().undo(plan))
        assert asyncio.run(served(nginx)) == old.sha256
        assert "SIGHUP" not in nginx.error_log.read_text()
    assert left_behind(nginx) == []


def test_discovery_of_a_broken_configuration_names_the_line(nginx: Nginx, target: Opener) -> None:
    break_configuration(nginx)
    problem = refusal(target().discover())
    assert problem.code == "nginx_config_broken"
    assert f"line 3 of {nginx.sites / 'zz-other.conf'}" in problem.message


@pytest.mark.parametrize("damage", ["missing", "junk", "mismatch"])
def test_a_damaged_certificate_file_is_what_a_rollout_can_repair(nginx: Nginx, target: Opener, damage: str) -> None:
    old, new = make(), make()
    files = nginx.write_site("a.example", old.pem, old.key_pem)
    with nginx:
        if damage == "missing":
            files.certificate.unlink()
        elif damage == "junk":
            files.certificate.write_bytes(b"junk")
        else:
            files.key.write_bytes(make().key_pem)
        discovery = asyncio.run(target().discover())
        assert discovery.fault is not None
        plan = asyncio.run(roll_out(target(), ("a.example", new)))
        assert asyncio.run(served(nginx)) == new.sha256
        assert "test is successful" in nginx.test()
        asyncio.run(target().undo(plan))
        # Undone means as damaged as before, and the running nginx keeps what it has in memory.
        assert "test failed" in nginx.test()


def test_files_changed_by_someone_else_meanwhile_are_left_alone(nginx: Nginx, target: Opener) -> None:
    old, new, theirs = make(), make(), make()
    files = nginx.write_site("a.example", old.pem, old.key_pem)

    async def go() -> None:
        plan = await plan_for(target(), ("a.example", new))
        await target().stage(plan, {new.version_id: new.material})
        files.certificate.write_bytes(theirs.pem)
        files.key.write_bytes(theirs.key_pem)
        with pytest.raises(Refused) as caught:
            await target().activate(plan)
        assert caught.value.code == "changed_by_someone_else"
        result = await target().undo(plan)
        assert any("left as it is" in said for said in result.details)

    with nginx:
        asyncio.run(go())
    assert (files.certificate.read_bytes(), files.key.read_bytes()) == (theirs.pem, theirs.key_pem)
    assert left_behind(nginx) == []


def test_two_rollouts_of_one_nginx_exclude_each_other(nginx: Nginx, target: Opener) -> None:
    old, new, other = make(), make(), make()
    nginx.write_site("a.example", old.pem, old.key_pem)

    async def go() -> None:
        first = await plan_for(target(), ("a.example", new))
        second = await plan_for(target(), ("a.example", other), rollout="roll_2")
        await target().stage(first, {new.version_id: new.material})
        with pytest.raises(Unavailable) as caught:
            await target().stage(second, {other.version_id: other.material})
        assert caught.value.code == "target_busy"
        assert "roll_1" in caught.value.message
        await target().undo(first)
        await target().stage(second, {other.version_id: other.material})
        await target().activate(second)
        await target().verify(second)
        await target().keep(second)
        assert await served(nginx) == other.sha256

    with nginx:
        asyncio.run(go())


def test_nginx_that_does_not_run_is_said_before_anything_is_touched(nginx: Nginx, target: Opener) -> None:
    old, new = make(), make()
    nginx.write_site("a.example", old.pem, old.key_pem)
    problem = refusal(plan_for(target(), ("a.example", new)))
    assert (problem.code, problem.status) == ("nginx_not_running", 503)
    assert f"127.0.0.1:{nginx.https_port}" in problem.message


def test_nginx_stopped_during_a_rollout_is_undone_on_disk(nginx: Nginx, target: Opener) -> None:
    old, new = make(), make()
    files = nginx.write_site("a.example", old.pem, old.key_pem)

    async def go() -> None:
        plan = await plan_for(target(), ("a.example", new))
        await target().stage(plan, {new.version_id: new.material})
        nginx.stop()
        with pytest.raises(Unavailable) as caught:
            await target().activate(plan)
        assert caught.value.code == "nginx_not_running"
        with pytest.raises(Unavailable):
            await target().undo(plan)
        assert files.certificate.read_bytes() == old.pem
        nginx.start()
        await target().undo(plan)
        assert await served(nginx) == old.sha256

    nginx.start()
    asyncio.run(go())
    assert left_behind(nginx) == []


def test_a_new_certificate_that_is_not_served_fails_verification(nginx: Nginx, target: Opener) -> None:
    old, new = make(), make()
    nginx.write_site("a.example", old.pem, old.key_pem)

    async def go() -> None:
        one = target(verify_seconds=0.5)
        plan = await plan_for(one, ("a.example", new))
        await one.stage(plan, {new.version_id: new.material})
        with pytest.raises(Refused) as caught:
            await one.verify(plan)
        assert caught.value.code == "not_served"
        assert old.sha256[:16] in caught.value.message
        await one.undo(plan)

    with nginx:
        asyncio.run(go())


def test_a_site_with_two_certificates_changes_the_one_of_the_same_key_type(nginx: Nginx, target: Opener) -> None:
    ec_old, rsa_old, ec_new = make(), make(kind="rsa"), make()
    rsa_pem, rsa_key = nginx.certs / "rsa.pem", nginx.certs / "rsa.key"
    rsa_pem.write_bytes(rsa_old.pem)
    rsa_key.write_bytes(rsa_old.key_pem)
    nginx.write_site(
        "a.example", ec_old.pem, ec_old.key_pem, extra=f"ssl_certificate {rsa_pem};\nssl_certificate_key {rsa_key};\n"
    )
    with nginx:
        asyncio.run(roll_out(target(), ("a.example", ec_new)))
        assert asyncio.run(served(nginx, kind=KeyKind.EC)) == ec_new.sha256
        assert asyncio.run(served(nginx, kind=KeyKind.RSA)) == rsa_old.sha256
    assert rsa_pem.read_bytes() == rsa_old.pem


def test_sites_that_share_files_change_together_and_the_plan_says_so(nginx: Nginx, target: Opener) -> None:
    old, new = make("a.example", "b.example"), make("a.example", "b.example")
    nginx.write_site("a.example", old.pem, old.key_pem, files="shared")
    nginx.write_site("b.example", old.pem, old.key_pem, files="shared")
    with nginx:
        plan = asyncio.run(roll_out(target(), ("a.example", new)))
        assert asyncio.run(served(nginx, "b.example")) == new.sha256
    assert len(plan.site_keys) == 2
    assert [(caution.code, caution.names) for caution in plan.cautions] == [("also_changes", ("b.example",))]


def test_two_certificates_for_one_shared_file_are_refused(nginx: Nginx, target: Opener) -> None:
    old = make("a.example", "b.example")
    nginx.write_site("a.example", old.pem, old.key_pem, files="shared")
    nginx.write_site("b.example", old.pem, old.key_pem, files="shared")
    with nginx:
        problem = refusal(plan_for(target(), ("a.example", make()), ("b.example", make())))
    assert problem.code == "conflicting_deployments"


def test_a_certificate_file_used_with_another_key_file_is_refused(nginx: Nginx, target: Opener) -> None:
    old = make()
    first = nginx.write_site("a.example", old.pem, old.key_pem)
    second = nginx.write_site("b.example", old.pem, old.key_pem)
    second.conf.write_text(second.conf.read_text().replace(str(second.certificate), str(first.certificate)))
    with nginx:
        assert refusal(plan_for(target(), ("a.example", make()))).code == "shared_certificate"


def test_an_encrypted_key_gets_a_fresh_passphrase(nginx: Nginx, target: Opener) -> None:
    old, new = make(), make()
    phrases = nginx.certs / "phrases"
    phrases.write_bytes(b"old phrase\n")
    files = nginx.write_site(
        "a.example", old.pem, old.encrypted_key_pem(b"old phrase"), extra=f"ssl_password_file {phrases};\n"
    )
    with nginx:
        plan = asyncio.run(roll_out(target(), ("a.example", new)))
        assert asyncio.run(served(nginx)) == new.sha256
        phrase = phrases.read_bytes()
        assert b"ENCRYPTED" in files.key.read_bytes()
        assert b"old phrase" not in phrase
        assert load_pem_private_key(files.key.read_bytes(), phrase.strip())
        assert stat.S_IMODE(phrases.stat().st_mode) == 0o600
        asyncio.run(target().undo(plan))
        assert asyncio.run(served(nginx)) == old.sha256
    assert phrases.read_bytes() == b"old phrase\n"


def test_a_passphrase_file_other_keys_need_keeps_its_lines(nginx: Nginx, target: Opener) -> None:
    old, other, new = make(), make("b.example"), make()
    phrases = nginx.certs / "phrases"
    phrases.write_bytes(b"phrase a\nphrase b")
    extra = f"ssl_password_file {phrases};\n"
    nginx.write_site("a.example", old.pem, old.encrypted_key_pem(b"phrase a"), extra=extra)
    nginx.write_site("b.example", other.pem, other.encrypted_key_pem(b"phrase b"), extra=extra)
    with nginx:
        asyncio.run(roll_out(target(), ("a.example", new)))
        assert asyncio.run(served(nginx)) == new.sha256
        assert asyncio.run(served(nginx, "b.example")) == other.sha256
    assert phrases.read_bytes().splitlines()[1:] == [b"phrase a", b"phrase b"]


def test_certificate_and_key_in_one_file_stay_in_one_file(nginx: Nginx, target: Opener) -> None:
    old, new = make(), make()
    files = nginx.write_site("a.example", old.pem + old.key_pem, old.key_pem)
    files.conf.write_text(files.conf.read_text().replace(str(files.key), str(files.certificate)))
    with nginx:
        asyncio.run(roll_out(target(), ("a.example", new)))
        assert asyncio.run(served(nginx)) == new.sha256
    assert files.certificate.read_bytes() == new.pem + new.key_pem
    assert stat.S_IMODE(files.certificate.stat().st_mode) == 0o600


def test_a_link_becomes_a_file_and_undo_makes_it_a_link_again(nginx: Nginx, target: Opener) -> None:
    old, new = make(), make()
    files = nginx.write_site("a.example", old.pem, old.key_pem)
    archive = nginx.directory / "archive"
    archive.mkdir()
    for path in (files.certificate, files.key):
        path.rename(archive / path.name)
        path.symlink_to(archive / path.name)

    async def go() -> None:
        plan = await roll_out(target(), ("a.example", new))
        assert [caution.code for caution in plan.cautions] == ["link_replaced", "link_replaced"]
        assert not files.certificate.is_symlink()
        assert (archive / files.certificate.name).read_bytes() == old.pem
        await target().undo(plan)
        assert await served(nginx) == old.sha256

    with nginx:
        asyncio.run(go())
    assert files.certificate.is_symlink()
    assert files.key.read_bytes() == old.key_pem


def test_a_directory_everybody_can_write_is_refused(nginx: Nginx, target: Opener) -> None:
    old = make()
    nginx.write_site("a.example", old.pem, old.key_pem)
    nginx.certs.chmod(0o777)
    with nginx:
        assert refusal(plan_for(target(), ("a.example", make()))).code == "unsafe_directory"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_while_staging_leaves_nothing_behind(nginx: Nginx, target: Opener, tmp_path: Path) -> None:
    old, new = make(), make()
    files = nginx.write_site("a.example", old.pem, old.key_pem)
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=755", "tmpfs", small], check=False).returncode:
        pytest.skip("this machine doesn't allow mounting")
    try:
        for path in (files.certificate, files.key):
            shutil.copy2(path, small)
        files.conf.write_text(files.conf.read_text().replace(str(nginx.certs), str(small)))
        with pytest.raises(OSError, match="No space"):
            (small / "filler").write_bytes(b"x" * 65536)

        async def go() -> None:
            plan = await plan_for(target(), ("a.example", new))
            with pytest.raises(Refused) as caught:
                await target().stage(plan, {new.version_id: new.material})
            assert caught.value.code == "disk_full"
            assert str(small) in caught.value.message
            await target().undo(plan)
            assert await served(nginx) == old.sha256

        with nginx:
            asyncio.run(go())
        assert sorted(p.name for p in small.iterdir()) == ["a.example.key", "a.example.pem", "filler"]
        assert (small / "a.example.pem").read_bytes() == old.pem
    finally:
        nginx.stop()
        subprocess.run(["umount", small], check=True)


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Nobody may write there: root by a read-only mount, an ordinary user by its mode."""
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield
        folder.chmod(0o755)
        return
    if subprocess.run(["mount", "--bind", "-o", "ro", folder, folder], check=False).returncode:
        pytest.skip("this machine doesn't allow mounting")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_directory_that_can_not_be_written_is_said_and_nothing_is_left(nginx: Nginx, target: Opener) -> None:
    old, new = make(), make()
    files = nginx.write_site("a.example", old.pem, old.key_pem)

    async def go() -> None:
        plan = await plan_for(target(), ("a.example", new))
        with unwritable(nginx.certs):
            with pytest.raises(Refused) as caught:
                await target().stage(plan, {new.version_id: new.material})
            assert caught.value.code == "permission_denied"
            assert str(nginx.certs) in caught.value.message
        await target().undo(plan)
        assert await served(nginx) == old.sha256

    with nginx:
        asyncio.run(go())
    assert (files.certificate.read_bytes(), files.key.read_bytes()) == (old.pem, old.key_pem)
    assert left_behind(nginx) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_new_key_belongs_to_whom_the_previous_one_belonged(nginx: Nginx, target: Opener) -> None:
    old, new = make(), make()
    files = nginx.write_site("a.example", old.pem, old.key_pem)
    for path, owner in ((files.key, 12345), (files.certificate, 12346)):
        os.chown(path, owner, owner)
    with nginx:
        plan = asyncio.run(roll_out(target(), ("a.example", new)))
        assert (files.key.stat().st_uid, files.certificate.stat().st_gid) == (12345, 12346)
        asyncio.run(target().undo(plan))
    assert (files.key.stat().st_uid, files.certificate.stat().st_gid) == (12345, 12346)


async def requests(nginx: Nginx, results: list[str]) -> None:
    """One connection per request, until cancelled."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    while True:
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", nginx.https_port, ssl=context, server_hostname="a.example"
            )
            try:
                writer.write(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
            finally:
                writer.close()
            results.append(
                "ok" if answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"hello\n") else "bad answer"
            )
        except OSError as error:
            results.append(repr(error))
        await asyncio.sleep(0)


@asynccontextmanager
async def under_load(nginx: Nginx, results: list[str], clients: int = 3) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(requests(nginx, results)) for _ in range(clients)]
    try:
        while len(results) < clients:
            await asyncio.sleep(0.01)
        yield
        seen = len(results)
        while len(results) < seen + 2 * clients:
            await asyncio.sleep(0.01)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_no_request_fails_during_the_switch(nginx: Nginx, target: Opener) -> None:
    old, new = make(), make()
    nginx.write_site("a.example", old.pem, old.key_pem)
    results: list[str] = []

    async def go() -> None:
        async with under_load(nginx, results):
            plan = await roll_out(target(), ("a.example", new))
            await target().undo(plan)
            await roll_out(target(), ("a.example", new), rollout="roll_2")

    with nginx:
        asyncio.run(go())
    assert set(results) == {"ok"}


def test_an_address_that_wants_the_proxy_protocol_is_verified_too(nginx: Nginx, target: Opener) -> None:
    old, new = make(), make()
    port = free_port()
    socket = nginx.directory / "s"
    nginx.write_site(
        "a.example", old.pem, old.key_pem, listen=[f"127.0.0.1:{port} ssl proxy_protocol", f"unix:{socket} ssl"]
    )
    with nginx:
        plan = asyncio.run(roll_out(target(), ("a.example", new)))
        with pytest.raises(NoHandshake):
            asyncio.run(served_certificate(Address("127.0.0.1", port, "a.example")))
    assert {(e.address.unix, e.address.proxy_protocol) for e in plan.expectations} == {(False, True), (True, False)}


def test_only_the_newest_backups_are_kept(nginx: Nginx, target: Opener, workspace: Workspace) -> None:
    old = make()
    nginx.write_site("a.example", old.pem, old.key_pem)

    async def go() -> None:
        for number in range(7):
            await roll_out(target(), ("a.example", make()), rollout=f"roll_{number}")

    with nginx:
        asyncio.run(go())
    assert sorted(p.name for p in workspace.directory.iterdir()) == ["locks", *(f"roll_{n}" for n in range(2, 7))]
    assert RolloutDirectory(workspace, "roll_6").journal() is not None


def test_renewing_with_the_same_key_works(nginx: Nginx, target: Opener) -> None:
    old = make()
    new = sign(["a.example"], old.private_key)
    nginx.write_site("a.example", old.pem, old.key_pem)
    with nginx:
        plan = asyncio.run(roll_out(target(), ("a.example", new)))
        assert asyncio.run(served(nginx)) == new.sha256
        asyncio.run(target().undo(plan))
        assert asyncio.run(served(nginx)) == old.sha256


def test_a_hanging_program_is_stopped_and_said(nginx: Nginx, target: Opener, tmp_path: Path) -> None:
    slow = tmp_path / "nginx-slow"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)
    from certwright.connectors.target.nginx import NginxKind

    kind = NginxKind(command_seconds=0.3)
    config = kind.check_config({"nginx": str(slow), "config": str(nginx.conf_path)})
    problem = refusal(kind.open(config, target.workspace).discover())
    assert problem.code == "command_timeout"
