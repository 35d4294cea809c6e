"""The console as people meet it: a real Chromium, the whole product over HTTPS on a port of its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import dns.message
import dns.rdatatype
import pytest
import sqlalchemy as sa
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

from certwright.entry import serve, wiring
from certwright.entry.api.base import SESSION_COOKIE
from certwright.entry.app import create_app
from certwright.kernel.actor import Actor
from certwright.platform.config import Settings
from certwright.platform.jobs import Worker
from certwright.platform.services import Services
from certwright.rooms import accounts
from tests.servers.hostile_dns import HostileDns, hostile_dns, reply
from tests.servers.nginx import Nginx
from tests.servers.ports import free_port
from tests.servers.programs import find, require

T = TypeVar("T")

PATIENCE = 60_000
"""Milliseconds a page may take to show what a test waits for."""
expect.set_options(timeout=PATIENCE)


@dataclass
class Console:
    """The running product. `services` are its own; `complaints` is everything a browser complained about."""

    url: str
    services: Services
    browser: Browser
    complaints: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def page(self, **options: Any) -> AsyncIterator[Page]:
        """A page of a fresh browser profile; a script error or a broken content policy is written down."""
        context: BrowserContext = await self.browser.new_context(
            base_url=self.url, ignore_https_errors=True, locale="en-GB", **options
        )
        context.set_default_timeout(PATIENCE)
        try:
            page = await context.new_page()
            page.on("console", self._note)
            page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
            yield page
        finally:
            await context.close()

    def _note(self, message: ConsoleMessage) -> None:
        # A refused form answers 4xx, which the browser calls an error; what isn't ours to fix isn't a complaint.
        if message.type in ("error", "warning") and "the server responded with a status of 4" not in message.text:
            self.complaints.append(f"{message.type}: {message.text}")

    async def setup_link(self) -> str:
        link = await accounts.fresh_setup_link(self.services)
        assert link is not None
        return f"/setup?token={link.secret}"

    async def set_up(self, page: Page) -> None:
        """The first administrator, signed in."""
        await page.goto(await self.setup_link())
        await fill(page, FIRST_PERSON)
        await page.get_by_role("button", name="Create the account").click()
        await page.get_by_role("heading", name="Overview").wait_for()


PASSWORD = "rather unlikely pelican 7"
FIRST_PERSON = {
    "Organization": "Example Ltd",
    "Your name": "Ada Lovelace",
    "E-mail address": "ada@example.org",
    "Password": PASSWORD,
}


async def fill(page: Page, fields: dict[str, str]) -> None:
    """By the labels people read: a field without its label isn't found."""
    for label, text in fields.items():
        await page.get_by_label(label, exact=True).fill(text)


@pytest.fixture
def names_here() -> Iterator[HostileDns]:
    """A resolver for which every name is at this machine."""

    def answer(query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        name = question.name.to_text()
        if question.rdtype == dns.rdatatype.A:
            return reply(query, f"{name} 60 IN A 127.0.0.1")
        return reply(query, authority=["example. 60 IN SOA ns.example. root.example. 1 60 60 60 60"])

    with hostile_dns(answer) as server:
        yield server


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    require("nginx")
    server = Nginx(tmp_path / "nginx")
    certificate, key = _self_signed("old.example.org")
    server.write_site("www.example.org", certificate, key)
    with server:
        yield server


@pytest.fixture
def live_settings(tmp_path: Path, fresh_database: str, names_here: HostileDns, nginx: Nginx) -> Settings:
    port = free_port()
    return Settings(
        data_dir=tmp_path / "data", database_url=fresh_database, listen=f"127.0.0.1:{port}",
        public_url=f"https://localhost:{port}", allowed_networks=("127.0.0.0/8", "::1/128"),
        dns_servers=(names_here.endpoint,), validation_http_port=nginx.http_port, probe_interval=1, sweep_interval=0.2,
    )  # fmt: skip


class Web:
    """The console in-process, as a browser without scripts sees it. `form` posts as the console's own page does."""

    def __init__(self, api: Any, cookie: str | None) -> None:
        self.api = api
        self.cookie = cookie

    def get(self, path: str, **headers: str) -> Any:
        return self.api.request("GET", path, headers=self._headers(headers))

    def form(self, path: str, fields: Any = None, **headers: str) -> Any:
        sent = {"sec-fetch-site": "same-origin"} | headers
        return self.api.request("POST", path, data=fields or {}, headers=self._headers(sent))

    def _headers(self, given: dict[str, str]) -> dict[str, str]:
        named = {name.replace("_", "-"): value for name, value in given.items()}
        cookie = {"cookie": f"{SESSION_COOKIE}={self.cookie}"} if self.cookie else {}
        return {"accept": "text/html", **cookie, **named}


@pytest.fixture
def web(api: Any) -> Callable[[Actor | None], Web]:
    """`web(actor)` is signed in as them, `web(None)` is a stranger."""

    async def session(actor: Actor) -> str:
        services = api.world.services
        async with services.db.begin() as tx:
            user = await accounts.store.get_user(tx, sa.true(), str(actor.user_id))
            assert user is not None
            opened = await accounts.open_session(tx, services, user, address="192.0.2.7", user_agent="test")
        return opened.secret

    return lambda actor: Web(api.anonymous(), api.world.run(session(actor)) if actor else None)


Scenario = Callable[[Console], Coroutine[Any, Any, T]]


@pytest.fixture
def play(live_settings: Settings, tmp_path: Path) -> Callable[[Scenario[Any]], Any]:
    """Runs a scenario against a freshly installed product with nobody in it; its complaints fail the test."""
    require("chromium")

    async def run(scenario: Scenario[Any]) -> Any:
        services = await wiring.build(live_settings)
        try:
            await serve.first_start(services)
            async with _running(services, live_settings, tmp_path), _chromium() as browser:
                console = Console(live_settings.base_url, services, browser)
                result = await scenario(console)
                assert console.complaints == []
                return result
        finally:
            await wiring.aclose(services)

    return lambda scenario: asyncio.run(run(scenario))


@asynccontextmanager
async def _running(services: Services, settings: Settings, directory: Path) -> AsyncIterator[None]:
    """Web and worker in this loop until the scenario is over."""
    certificate, key = _self_signed("localhost")
    bundle = directory / "web.pem"
    bundle.write_bytes(key + certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bundle)
    listener = serve.listen(settings, None)
    config = uvicorn.Config(
        create_app(services), lifespan="off", ws="none", log_config=None, access_log=False,
        timeout_graceful_shutdown=1, ssl_context_factory=lambda *_: context,
    )  # fmt: skip
    server, worker = serve._Server(config), Worker(services)
    tasks = [asyncio.create_task(server.serve(sockets=[listener])), asyncio.create_task(worker.run())]
    try:
        yield
    finally:
        server.should_exit = True
        worker.stop()
        await asyncio.wait(tasks, timeout=10)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # No sandbox: tests run as root in containers, and the pages are our own.
        browser = await playwright.chromium.launch(
            executable_path=find("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            await browser.close()


def _self_signed(name: str) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=90))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key_pem
