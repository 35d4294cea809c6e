"""A private nginx per test, and a target that talks to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from certwright.connectors.target.nginx import NginxKind
from certwright.rooms.deployment.ports import Target, Workspace
from tests.servers.nginx import Nginx
from tests.servers.programs import require


class FernetSealer:
    """Real encryption with a key of this test's own; the context is bound by being part of the plaintext."""

    def __init__(self) -> None:
        self._fernet = Fernet(Fernet.generate_key())

    def seal(self, secret: bytes, context: str) -> bytes:
        return self._fernet.encrypt(context.encode() + b"\0" + secret)

    def open(self, sealed: bytes, context: str) -> bytes:
        bound, _, secret = self._fernet.decrypt(sealed).partition(b"\0")
        assert bound == context.encode()
        return secret


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    require("nginx")
    server = Nginx(tmp_path / "nginx")
    yield server
    server.stop()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work", FernetSealer())


class Opener:
    """Opens the same target anew, as another worker process would."""

    def __init__(self, nginx: Nginx, workspace: Workspace) -> None:
        self.nginx = nginx
        self.workspace = workspace

    def __call__(self, *, verify_seconds: float = 10.0, **config: object) -> Target:
        kind = NginxKind(verify_seconds=verify_seconds)
        given = {"nginx": str(self.nginx.binary), "config": str(self.nginx.conf_path)} | config
        return kind.open(kind.check_config(given), self.workspace)


@pytest.fixture
def target(nginx: Nginx, workspace: Workspace) -> Opener:
    return Opener(nginx, workspace)
