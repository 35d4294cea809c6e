"""The database ends in the middle of a step of a running product: it comes back, the step goes on, once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from certwright.entry.cli.client import Api
from certwright.entry.cli.errors import CliError
from certwright.entry.cli.session import sign_in
from certwright.entry.cli.settings import Connection
from certwright.entry.demo.servers import Product

PASSWORD = "a long enough passphrase 7"  # of a throw-away product
PATIENCE = 60.0


class Site:
    """A web server that tells of each look, and answers when it may."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.looked = threading.Event()
        self.answer = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.looked.set()
                site.answer.wait(PATIENCE)
                content = site.files.get(self.path, "").encode()
                self.send_response(200 if content else 404)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: the product's log says it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def product(tmp_path: Path, site: Site) -> Iterator[Product]:
    own = {"ALLOWED_NETWORKS": "127.0.0.0/8", "VALIDATION_HTTP_PORT": str(site.port), "STEP_LEASE": "5"}
    made = Product(tmp_path / "data", tmp_path / "log", own | {"SWEEP_INTERVAL": "0.5", "WORKER_HEARTBEAT": "2"})
    yield made
    made.stop()


def patiently(ask: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
    """The answer, once it is good; while the database is away the product says 503 or hangs up."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            answer = ask()
            if good(answer):
                return answer
        except CliError as error:
            answer = error
        assert time.monotonic() < deadline, answer
        # There is no fact to wait for but the answer itself.
        time.sleep(0.1)


def end_database(data: Path, how: signal.Signals) -> None:
    (place,) = data.rglob("postmaster.pid")
    os.kill(int(place.read_text().split()[0]), how)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["asked to restart at once", "killed"])
def test_a_step_goes_on_after_the_database_ended_in_its_middle(
    product: Product, site: Site, tmp_path: Path, how: signal.Signals
) -> None:
    token = product.start()
    with Api(Connection(product.url, None, product.root)) as api:
        person = {"email": "ann@one.example", "name": "Ann", "password": PASSWORD, "account_name": "One"}
        api.call("POST", "/setup", body={"token": token, **person})
        made, _ = sign_in(api, "ann@one.example", PASSWORD, name="tests", days=1)
    with Api(Connection(product.url, made["token"], product.root)) as api:
        applicant = {"name": "Ann", "email": "ann@one.example", "phone": "+49 30 1234567"}
        asked = {"names": ["shop.localhost"], "validation_method": "file", "applicant": applicant, "consent": True}
        certificate = f"/certificates/{api.post('/certificates', {'name': 'shop', 'application': asked})['id']}"
        # The first look finds nothing; the file is published and the worker is looking again when the database ends.
        site.answer.set()
        shown = patiently(lambda: api.get(certificate)["validation"], lambda found: bool(found and found["domains"]))
        file = shown["domains"][0]["instructions"]
        path = "/" + file["url"].partition("://")[2].partition("/")[2]
        site.answer.clear()
        site.files[path] = file["content"]
        site.looked.clear()
        assert site.looked.wait(PATIENCE)
        end_database(tmp_path / "data", how)
        site.answer.set()
        issued = patiently(lambda: api.get(certificate), lambda found: found["state"] == "issued")
        assert [version["number"] for version in issued["versions"]] == [1]
        ca = next(one for one in api.get("/authorities")["items"] if one["kind"] != "root")
        leaves = [
            one for one in api.get(f"/authorities/{ca['id']}/issued")["items"] if one["names"] == ["shop.localhost"]
        ]
        assert [leaf["serial"] for leaf in leaves] == [issued["versions"][0]["serial"]]
