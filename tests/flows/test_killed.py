"""`certwright serve` as a process: killed in the middle of a step, and stopped from the terminal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from certwright.entry.cli.client import Api
from certwright.entry.cli.session import sign_in
from certwright.entry.cli.settings import Connection
from tests.servers.ports import free_port

ROOT = Path(__file__).parents[2]
PASSWORD = "a long enough passphrase 7"  # of a throw-away product
PATIENCE = 60
"""Far below the leases set here, so that whoever waits for one is found out."""

Serve = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def site() -> Iterator[socket.socket]:
    """Takes connections and never answers: a step that looks there is under way for ten seconds."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        yield listening


@pytest.fixture
def url() -> str:
    return f"https://127.0.0.1:{free_port()}"


@pytest.fixture
def serve(tmp_path: Path, site: socket.socket, url: str) -> Iterator[Serve]:
    """Starts the product on one data directory with the embedded database, leases an hour long."""
    own = {
        "DATA_DIR": str(tmp_path / "data"), "LISTEN": url.removeprefix("https://"), "LOG_FORMAT": "text",
        "ALLOWED_NETWORKS": "127.0.0.0/8", "VALIDATION_HTTP_PORT": str(site.getsockname()[1]),
        "STEP_LEASE": "3600", "WORKER_HEARTBEAT": "3600",
    }  # fmt: skip
    environ = {k: v for k, v in os.environ.items() if not k.startswith("CERTWRIGHT_")}
    environ |= {f"CERTWRIGHT_{key}": value for key, value in own.items()} | {"PYTHONPATH": str(ROOT / "src")}
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        with (tmp_path / "log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "certwright", "serve"], env=environ, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def line_with(process: subprocess.Popen[str], part: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if part in line:
            return line.strip()
    raise AssertionError(f"it ended with {process.wait(30)} and never said {part!r}")


def apply(api: Api) -> None:
    applicant = {"name": "Ann", "email": "ann@one.example", "phone": "+49 30 1234567"}
    application = {"names": ["shop.localhost"], "validation_method": "file", "applicant": applicant, "consent": True}
    api.post("/certificates", {"name": "shop", "application": application})


def test_after_a_kill_the_next_start_goes_on_at_once_and_not_when_the_lease_ends(
    serve: Serve, site: socket.socket, url: str, tmp_path: Path
) -> None:
    product = serve()
    _, _, token = line_with(product, "/setup?token=").partition("/setup?token=")
    root = tmp_path / "data" / "root.pem"
    with Api(Connection(url, None, root)) as api:
        person = {"email": "ann@one.example", "name": "Ann", "password": PASSWORD, "account_name": "One"}
        api.call("POST", "/setup", body={"token": token, **person})
        made, _ = sign_in(api, "ann@one.example", PASSWORD, name="tests", days=1)
    with Api(Connection(url, made["token"], root)) as api:
        apply(api)
    looking, _ = site.accept()
    product.kill()
    product.wait(30)
    looking.close()
    serve()
    again, _ = site.accept()
    assert again.recv(1000).startswith(b"GET /.well-known/pki-validation/")
    again.close()


def test_ctrl_c_is_answered_with_a_line_at_once_and_one_at_the_end(serve: Serve, tmp_path: Path) -> None:
    product = serve()
    line_with(product, "Its certificate is signed by")
    product.send_signal(signal.SIGINT)
    assert product.wait(30) == 0
    assert product.stdout is not None
    assert product.stdout.read().splitlines() == ["stopping…", "stopped"]
    assert "audit sealed" not in (tmp_path / "log").read_text()
