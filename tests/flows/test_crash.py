"""Apply → issue → deploy → renew with worker processes that are killed at every commit and every change of a file.

In the end there must be exactly one certificate, one deployment, no key that belongs to nothing, no half-written file.
Every other operation, and each moment by itself, is in test_every_operation.py, where processes die without a kill.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.servers.nginx import Nginx
from tests.servers.programs import require
from tests.servers.tls import issue

NAME = "shop.crash.localhost"
ROOT = Path(__file__).parents[2]
PHASES = ("issue", "deploy", "renew")

_MINUTES = 900
"""How long a worker goes on, in seconds of its own clock: retries included, the next renewal not."""


class Harness:
    """The forking process: one command at a time."""

    def __init__(self) -> None:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("CERTWRIGHT_")}
        environ["PYTHONPATH"] = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.flows.crash_harness"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd=ROOT, env=environ, text=True,
        )  # fmt: skip

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(20)


class Scene:
    """Database, data directory and nginx of one test."""

    def __init__(self, directory: Path, server: str, harness: Harness) -> None:
        self._directory, self._server, self._harness = directory, server, harness
        worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        self._database = f"crash_{worker}"
        self.data = directory / "data"
        self.nginx = Nginx(directory / "nginx")
        old = issue(NAME, not_after=datetime.now(UTC) - timedelta(hours=1))
        self.site = self.nginx.write_site(NAME, _pem(old.der), _key_pem(old.key))
        self._runner = asyncio.Runner()
        self._connection: asyncpg.Connection[Any] | None = None
        self.facts: dict[str, Any] = {"now": datetime.now(UTC).isoformat(), "name": NAME}

    @property
    def url(self) -> str:
        return self._server.replace("/postgres?", f"/{self._database}?")

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Carry a command out; what it learned is kept for the next one, unless the worker was killed."""
        fixed = {
            "url": self.url, "data_dir": str(self.data), "http_port": self.nginx.http_port,
            "nginx": str(self.nginx.binary), "config": str(self.nginx.conf_path), "seconds": _MINUTES,
        }  # fmt: skip
        answer = self._harness.ask(do=do, **fixed, **(self.facts | more))
        self.facts |= {key: answer[key] for key in answer if key not in ("killed", "moments", "place")}
        return answer

    def prepare(self, phase: str) -> None:
        """Everything up to the beginning of the phase, without any kill."""
        self._admin(f"CREATE DATABASE {self._database} TEMPLATE template_certwright STRATEGY FILE_COPY")
        self.nginx.start()
        self.ask("apply")
        file = self.nginx.webroot / self.facts["path"].lstrip("/")
        file.parent.mkdir(parents=True)
        file.write_text(self.facts["content"])
        for earlier in PHASES[1 : PHASES.index(phase) + 1]:
            self.ask("work")
            self.begin(earlier)

    def begin(self, phase: str) -> None:
        """What a person does, or time does, so that there is work to do."""
        if phase == "deploy":
            self.ask("deploy")
        if phase == "renew":
            due = self.rows("SELECT renew_at FROM renewals")[0]["renew_at"]
            self.facts["now"] = (due + timedelta(minutes=1)).isoformat()

    def _admin(self, *statements: str) -> None:
        async def run() -> None:
            connection = await asyncpg.connect(self._server)
            try:
                for statement in statements:
                    await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(run())

    def rows(self, sql: str) -> list[Any]:
        async def run() -> list[Any]:
            if self._connection is None:
                self._connection = await asyncpg.connect(self.url)
            return list(await self._connection.fetch(sql))

        return self._runner.run(run())

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._runner.run(connection.close())

    def close(self) -> None:
        self.nginx.stop()
        self._hang_up()
        self._runner.close()
        self._admin(f"DROP DATABASE IF EXISTS {self._database} WITH (FORCE)")

    def start_worker(self, log: Path) -> subprocess.Popen[bytes]:
        """The product's own worker process, with its queue; short leases, so that a test needn't wait for long ones."""
        own = {
            "DATABASE_URL": self.url, "DATA_DIR": str(self.data), "ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
            "VALIDATION_HTTP_PORT": str(self.nginx.http_port), "STEP_LEASE": "2", "WORKER_HEARTBEAT": "2",
            "SWEEP_INTERVAL": "0.1",
        }  # fmt: skip
        environ = {k: v for k, v in os.environ.items() if not k.startswith("CERTWRIGHT_")}
        environ |= {f"CERTWRIGHT_{key}": value for key, value in own.items()} | {"PYTHONPATH": str(ROOT / "src")}
        with log.open("wb") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "certwright", "worker"], env=environ, stdin=subprocess.DEVNULL, stdout=out,
                stderr=out,
            )  # fmt: skip

    def wait_for(self, sql: str, seconds: float = 60) -> None:
        """Until the query has a row."""
        deadline = time.monotonic() + seconds
        while not self.rows(sql):
            assert time.monotonic() < deadline, sql
            time.sleep(0.01)

    # --- what must be true ------------------------------------------------------------------------------------------

    def check(self, phase: str, moment: str) -> None:
        expected = 2 if phase == "renew" else 1
        versions = self.rows("SELECT id, sha256, key_id, superseded_at FROM versions ORDER BY number")
        assert len(versions) == expected, moment
        current = [version for version in versions if version["superseded_at"] is None]
        assert len(current) == 1, moment
        issued = self.rows("SELECT reference FROM issued_certificates WHERE reference LIKE 'app%'")
        assert len(issued) == expected, (moment, issued)
        open_ones = self.rows("SELECT id FROM applications WHERE issued_at IS NULL OR withdrawn_at IS NOT NULL")
        assert not open_ones, moment
        assert len(self.rows("SELECT id FROM applications")) == expected, moment
        assert [row["stage"] for row in self.rows("SELECT stage FROM certificates")] == ["issued"], moment
        assert self._orphans() == [], moment
        assert len(self.rows("SELECT id FROM renewals")) == 1, moment
        assert self._audited("scm:cert:issue") == expected, moment
        assert self.facts["audit"] == "", moment
        stuck = self.rows(" UNION ALL ".join(_STUCK.format(table) for table in self._stepped()))
        assert stuck == [], moment
        if phase != "issue":
            self._check_deployed(expected, current[0], moment)

    def _orphans(self) -> list[Any]:
        return self.rows(
            "SELECT id FROM private_keys k WHERE sealed IS NOT NULL AND NOT EXISTS "
            "(SELECT FROM versions v WHERE v.key_id = k.id)"
        )

    def _audited(self, action: str) -> int:
        return len(self.rows(f"SELECT id FROM audit_events WHERE action = '{action}' AND object_type = 'certificate'"))

    def _stepped(self) -> list[str]:
        found = self.rows("SELECT table_name FROM information_schema.columns WHERE column_name = 'step_lease_until'")
        return [row["table_name"] for row in found]

    def _check_deployed(self, expected: int, current: Any, moment: str) -> None:
        rollouts = self.rows("SELECT state FROM rollouts ORDER BY id")
        assert [row["state"] for row in rollouts] == ["deployed"] * expected, moment
        (binding,) = self.rows("SELECT deployed_version_id FROM bindings")
        assert binding["deployed_version_id"] == current["id"], moment
        assert self.served() == current["sha256"], moment
        files = {path.name for path in self.nginx.certs.iterdir()}
        assert files == {self.site.certificate.name, self.site.key.name}, moment
        chain = x509.load_pem_x509_certificates(self.site.certificate.read_bytes())
        assert chain[0].fingerprint(SHA256()).hex() == current["sha256"], moment
        key = load_pem_private_key(self.site.key.read_bytes(), None)
        assert key.public_key() == chain[0].public_key(), moment
        assert self.site.key.stat().st_mode & 0o777 == 0o600, moment

    def served(self) -> str:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", self.nginx.https_port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=NAME) as tls,
        ):
            return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()


_STUCK = "SELECT id FROM {} WHERE step_problem IS NOT NULL OR (next_step_at IS NULL AND step_lease_until IS NOT NULL)"


def _pem(der: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def _key_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.fixture
def scene(tmp_path: Path, database_server: str) -> Iterator[Scene]:
    require("nginx")
    harness = Harness()
    made = Scene(tmp_path, database_server, harness)
    try:
        yield made
    finally:
        made.close()
        harness.close()


def test_workers_killed_in_turn_at_every_commit_and_change_of_a_file_lose_and_double_nothing(scene: Scene) -> None:
    """From the application over the deployment to the renewal and its deployment. Each worker process is killed at the
    first moment at a place where none was killed before, and the next one goes on."""
    scene.prepare("issue")
    met: list[str] = []
    for phase in PHASES:
        scene.begin(phase)
        before = len(met)
        while (died := scene.ask("work", when="in turn", met=met))["killed"]:
            met.append(died["place"])
            # The dead worker's clock is gone with it; the next one starts well after its lease ran out.
            scene.facts["now"] = (datetime.fromisoformat(scene.facts["now"]) + timedelta(seconds=30)).isoformat()
        scene.check(phase, f"{phase}: killed at {len(met) - before} moments")
    assert {kind: sum(place.startswith(kind) for place in met) > 10 for kind in ("before", "after", "files")} == {
        "before": True, "after": True, "files": True,
    }  # fmt: skip


def test_another_worker_process_takes_over_from_a_killed_one(scene: Scene, tmp_path: Path) -> None:
    # What the harness did lies in the past, so that for real workers everything is due.
    scene.facts["now"] = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    scene.prepare("deploy")
    first = scene.start_worker(tmp_path / "first.log")
    try:
        scene.wait_for("SELECT FROM rollout_steps WHERE step = 'stage'")
    finally:
        first.kill()
        first.wait()
    second = scene.start_worker(tmp_path / "second.log")
    try:
        scene.wait_for("SELECT FROM rollouts WHERE state = 'deployed'")
        scene.wait_for("SELECT WHERE NOT EXISTS (SELECT FROM events WHERE delivered_at IS NULL)")
    finally:
        second.terminate()
        second.wait(30)
    scene.check("deploy", "taken over")
