"""The steps of the demonstration, each through the public API, each with its time."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from rich.console import Console

from certwright.entry.cli.client import Api, polled
from certwright.entry.cli.errors import CliError
from certwright.entry.cli.session import sign_in
from certwright.entry.cli.settings import Connection
from certwright.entry.demo.load import Load
from certwright.entry.demo.servers import LOOPBACK, DemoError, Knot, Nginx, Product, Server, tail

ALARM = "ALM-2001006"
_EXPIRED = 2
"""Threshold 2 of that alarm: the served certificate has expired."""

_PATIENCE = 90.0
_AFTERWARDS = 0.5
"""Seconds the customers go on after the switch."""

METHODS = ("file", "dns")


class Story:
    """One run. `step` is the one under way, for whoever reports a failure."""

    def __init__(self, method: str, console: Console) -> None:
        self.step = "prepare"
        self._dns = method == "dns"
        self._method = method
        self._console = console
        self._name = "shop.demo.test" if self._dns else "shop.demo.localhost"
        self._home = Path(tempfile.mkdtemp(prefix="certwright-demo-"))
        self._started: list[Server] = []
        self._load: Load | None = None
        self._product: Product | None = None
        self._api: Api | None = None

    # --- telling ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _step(self, name: str, title: str) -> Iterator[Callable[[str], None]]:
        """Times a step; what it learns goes below its line."""
        self.step = name
        lines: list[str] = []
        begun = time.monotonic()
        with self._console.status(title):
            yield lines.append
        self._console.print(f"[green]✓[/] {title} [dim]{time.monotonic() - begun:.2f} s[/]", highlight=False)
        for line in lines:
            text = line.replace(f"{self._home}/", "")
            self._console.print(f"    {text}", style="dim", highlight=False, markup=False, soft_wrap=True)

    def log_tail(self) -> str:
        return tail(self._product.log, 12) if self._product else ""

    # --- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Raises DemoError or CliError at the step that `step` names."""
        nginx, knot, product = self._prepare()
        token = self._start_product(product)
        api = self._set_up(product, token)
        alarm = self._watch(api, nginx)
        certificate = self._apply(api, nginx, knot)
        target, site = self._add_server(api, nginx)
        self._deploy(api, nginx, certificate, target, site)
        self._alarm_clears(api, alarm)
        self._verify(api, nginx, product, certificate)

    def close(self) -> None:
        """Stop everything that was started, in the reverse order, and remove every file."""
        if self._load:
            self._load.stop()
        if self._api:
            self._api.close()
        for server in reversed(self._started):
            server.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def _prepare(self) -> tuple[Nginx, Knot | None, Product]:
        with self._step("prepare", f"A private nginx serves {self._name} with an expired certificate") as learned:
            nginx = Nginx(self._home / "nginx", self._name)
            self._started.append(nginx)
            nginx.start()
            served = _served(nginx, self._name)
            if served.not_valid_after_utc > datetime.now(UTC):
                raise DemoError("nginx serves a certificate that has not expired")
            learned(f"https port {nginx.https_port}, expired {served.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
            knot = self._start_knot() if self._dns else None
            if knot:
                learned(f"Knot DNS is authoritative for {knot.zone} on port {knot.port}")
        settings = {
            "ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
            "VALIDATION_HTTP_PORT": str(nginx.http_port),
            # Minutes in real life; nobody wants to watch a demonstration that long.
            "PROBE_INTERVAL": "1",
        }
        if knot:
            settings |= {"DNS_SERVERS": f"{LOOPBACK}:{knot.port}", "DNS_AUTHORITATIVE_PORT": str(knot.port)}
        product = Product(self._home / "data", self._home / "product.log", settings)
        return nginx, knot, product

    def _start_knot(self) -> Knot:
        knot = Knot(self._home / "knot", "demo.test", {self._name: LOOPBACK})
        self._started.append(knot)
        knot.start()
        return knot

    def _start_product(self, product: Product) -> str:
        with self._step("start", "The product starts: database, schema, its own CA, web and worker") as learned:
            self._product = product
            self._started.append(product)
            token = product.start()
            learned(product.url)
        return token

    def _set_up(self, product: Product, token: str) -> Api:
        with self._step("set up", "The one-time link makes the first administrator, who gets an API token"):
            email, password = "ann@demo.example", secrets.token_urlsafe(18)
            with Api(Connection(product.url, None, product.root)) as anybody:
                person = {"email": email, "name": "Ann", "password": password, "account_name": "Demo"}
                anybody.call("POST", "/setup", body={"token": token, **person})
                made, _ = sign_in(anybody, email, password, name="demo", days=1)
            self._api = Api(Connection(product.url, made["token"], product.root))
        return self._api

    def _watch(self, api: Api, nginx: Nginx) -> dict[str, Any]:
        with self._step("watch", f"The site is watched, and alarm {ALARM} is raised") as learned:
            # By its address: the name stands for ::1 as well, where nothing of ours listens.
            made = api.post("/endpoints", {"host": LOOPBACK, "port": nginx.https_port, "sni": self._name})
            alarm: dict[str, Any] = self._until(lambda: self._standing(api, made["id"]), f"alarm {ALARM} is raised")
            if alarm["threshold"] != _EXPIRED:
                raise DemoError(f"the alarm was raised with threshold {alarm['threshold']} instead of {_EXPIRED}")
            learned(f"{alarm['severity']}, threshold {alarm['threshold']}: {alarm['message']}")
        return alarm

    def _standing(self, api: Api, endpoint_id: str) -> dict[str, Any] | None:
        found = api.get("/alarms", kind=ALARM, object=endpoint_id)["items"]
        return dict(found[0]) if found else None

    def _apply(self, api: Api, nginx: Nginx, knot: Knot | None) -> str:
        if knot:
            self._connect_dns(api, knot)
        with self._step("apply", f"A certificate for {self._name} is applied for"):
            document = api.post(
                "/certificates",
                {
                    "name": "shop",
                    "application": {
                        "names": [self._name],
                        "validation_method": self._method,
                        "applicant": {"name": "Ann", "email": "ann@demo.example", "phone": "+49 30 123456"},
                        "consent": True,
                    },
                },
            )
        certificate_id = str(document["id"])
        path = None if knot else self._publish(api, nginx, certificate_id)
        with self._step("issue", "Control of the name is validated, and the built-in CA issues") as learned:
            document = self._until(lambda: self._issued(api, certificate_id), "the certificate is issued")
            if path is not None and not nginx.fetches(path):
                raise DemoError("the certificate was issued, but nginx never saw the file fetched")
            if path is not None:
                learned(f"nginx saw the file fetched {nginx.fetches(path)} times")
            if knot:
                learned(self._seen_in_dns(api))
            learned(f"SHA-256 {document['sha256']}")
        return certificate_id

    def _connect_dns(self, api: Api, knot: Knot) -> None:
        with self._step("connect dns", "The DNS server is connected: RFC 2136 updates with a TSIG key"):
            made = api.post(
                "/dns-connections",
                {
                    "name": "knot",
                    "zones": [knot.zone],
                    "settings": {"server": LOOPBACK, "port": knot.port, "key_name": knot.key_name},
                    "secret": knot.secret,
                },
            )
            tested = api.post(f"/dns-connections/{made['id']}/test")
            if tested["problem"]:
                raise DemoError(f"the connection doesn't work: {tested['problem']['message']}")

    def _seen_in_dns(self, api: Api) -> str:
        evidence = api.get("/evidence", limit=1)["items"]
        if not evidence or evidence[0]["method"] != "dns":
            raise DemoError("the certificate was issued, but no DNS record was seen")
        seen = evidence[0]
        return f"evidence for {seen['domain']}: method {seen['method']}, validated at {seen['validated_at']}"

    def _publish(self, api: Api, nginx: Nginx, certificate_id: str) -> str:
        with self._step("publish", "The validation file is published on that nginx") as learned:
            todo = self._until(lambda: _file_of(api, certificate_id), "the file to publish is known")
            nginx.publish(todo["path"], todo["content"])
            learned(todo["url"])
            api.post(f"/certificates/{certificate_id}/validation/check")
        return str(todo["path"])

    def _issued(self, api: Api, certificate_id: str) -> dict[str, Any] | None:
        document = api.get(f"/certificates/{certificate_id}")
        if document["state"] == "issued":
            return dict(document)
        if document["state"] == "approval_failed":
            failure = (document["application"] or {}).get("failure") or {}
            raise DemoError(f"the application failed: {failure.get('message', 'no reason was given')}")
        return None

    def _add_server(self, api: Api, nginx: Nginx) -> tuple[str, str]:
        with self._step("discover", "The nginx is added as a target, and its sites are discovered") as learned:
            config = {"nginx": nginx.program, "config": str(nginx.config), "prefix": str(nginx.directory)}
            target = api.post("/targets", {"name": "nginx", "config": config})
            sites = api.post(f"/targets/{target['id']}/discover")["items"]
            mine = [site for site in sites if self._name in site["names"]]
            if len(mine) != 1 or not mine[0]["managed"]:
                raise DemoError(f"{len(mine)} manageable sites were found for {self._name} instead of one")
            learned(mine[0]["label"])
        return str(target["id"]), str(mine[0]["id"])

    def _deploy(self, api: Api, nginx: Nginx, certificate_id: str, target_id: str, site_id: str) -> None:
        with self._step("deploy", "The certificate is deployed while customers keep requesting") as learned:
            load = self._load = Load(self._name, nginx.https_port)
            load.start()
            self._until(lambda: load.made >= 20 or None, "customers are served")
            body = {"certificate_id": certificate_id, "site_ids": [site_id]}
            started = api.post("/deployments", body)["rollouts"]
            rollout = self._until(lambda: _finished(api, started[0]["id"]), "the rollout is finished")
            # Customers after the switch must be served by the new one alone.
            time.sleep(_AFTERWARDS)
            load.stop()
            if rollout["state"] != "deployed":
                said = (rollout.get("problem") or {}).get("message", "no reason was given")
                raise DemoError(f"the rollout is {rollout['state']}: {said}")
            for one in rollout["steps"]:
                learned(f"{one['step']:<9} {_seconds(one):.3f} s  {'; '.join(one['details'])}")
            intended = api.get(f"/certificates/{certificate_id}")["sha256"]
            new = load.served.get(intended, 0)
            learned(
                f"requests during the switch: {load.made} made, {load.failed} failed; {load.made - load.failed - new} "
                f"served with the old certificate, {new} with the new one"
            )
            if load.failed:
                raise DemoError(f"{load.failed} of {load.made} requests failed: {dict(load.failures)}")
            if not new or len(load.served) != 2:
                raise DemoError(f"customers saw {len(load.served)} certificates instead of the old and the new one")

    def _alarm_clears(self, api: Api, alarm: dict[str, Any]) -> None:
        with self._step("clear", "The alarm clears by itself"):
            self._until(lambda: api.get(f"/alarms/{alarm['id']}")["cleared_at"], "the alarm is cleared")

    def _verify(self, api: Api, nginx: Nginx, product: Product, certificate_id: str) -> None:
        with self._step("verify", "The certificate is downloaded, and the chain verified from the root") as learned:
            path = f"/certificates/{certificate_id}/download"
            chain = x509.load_pem_x509_certificates(api.call("GET", path, params={"format": "fullchain"}).content)
            roots = x509.load_pem_x509_certificates(product.root.read_bytes())
            verifier = PolicyBuilder().store(Store(roots)).build_server_verifier(x509.DNSName(self._name))
            try:
                verified = verifier.verify(chain[0], chain[1:])
            except VerificationError as error:
                raise DemoError(f"the chain doesn't verify: {error}") from error
            # And as any browser with that root would: by connecting.
            context = ssl.create_default_context(cafile=str(product.root))
            der = _handshake(context, nginx.https_port, self._name)
            if hashlib.sha256(der).digest() != chain[0].fingerprint(SHA256()):
                raise DemoError("nginx serves another certificate than the one downloaded")
            subjects = [one.subject.rfc4514_string() or self._name for one in verified]
            learned(" < ".join(subjects))

    def _until(self, read: Callable[[], Any], what: str) -> Any:
        """The first answer of `read` that is something."""
        for found in polled(read, seconds=_PATIENCE, first=0.02, longest=0.5):
            if found:
                return found
        raise DemoError(f"after {_PATIENCE:.0f} s still waiting until {what}")


def _file_of(api: Api, certificate_id: str) -> dict[str, Any] | None:
    validation = api.get(f"/certificates/{certificate_id}")["validation"]
    for domain in (validation or {}).get("domains", []):
        todo = domain["instructions"]
        if todo and todo["kind"] == "file":
            return dict(todo)
    return None


def _finished(api: Api, rollout_id: str) -> dict[str, Any] | None:
    rollout = api.get(f"/rollouts/{rollout_id}")
    return dict(rollout) if rollout["state"] in ("deployed", "undone", "failed") else None


def _seconds(step: dict[str, Any]) -> float:
    if not step["finished_at"]:
        return 0.0
    begun, ended = datetime.fromisoformat(step["started_at"]), datetime.fromisoformat(step["finished_at"])
    return (ended - begun).total_seconds()


def _served(nginx: Nginx, name: str) -> x509.Certificate:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return x509.load_der_x509_certificate(_handshake(context, nginx.https_port, name))


def _handshake(context: ssl.SSLContext, port: int, name: str) -> bytes:
    """The certificate served there, as DER."""
    try:
        with (
            socket.create_connection((LOOPBACK, port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=name) as tls,
        ):
            return tls.getpeercert(binary_form=True) or b""
    except ssl.SSLCertVerificationError as error:
        raise DemoError(f"what nginx serves doesn't verify: {error.verify_message}") from error


def tell(method: str, console: Console) -> str | None:
    """Run the demonstration; None when it passed, else `step: reason`."""
    story = Story(method, console)
    begun = time.monotonic()
    failure: str | None = None
    try:
        story.run()
        console.print(f"[dim]{time.monotonic() - begun:.1f} s in all[/]", highlight=False)
    except (DemoError, CliError, OSError, subprocess.SubprocessError) as error:
        failure = f"{story.step}: {error}"
    except KeyboardInterrupt:
        failure = f"{story.step}: interrupted"
    finally:
        last_words = story.log_tail()
        story.close()
    if failure and last_words:
        console.print("[dim]The product's last words:[/]")
        console.print(last_words, style="dim", markup=False, highlight=False)
    return failure
