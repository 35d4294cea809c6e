"""Certificates from an ACME CA (Debian's Pebble) over http-01: through the product, and by lego at the same Pebble.

Both publish in the web root of one nginx. The product's orders are applications that become issued: account, order,
look at the file, challenge, key, certificate, versions and audit are committed. Lego's are files on disk. What the CA,
the web server and the name server spend counts for neither.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import service
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from worker import timed

from certwright.entry.demo.servers import (
    LOOPBACK,
    DemoError,
    Knot,
    Nginx,
    answers,
    find,
    free_ports,
    start,
    stop,
    wait_until,
)
from certwright.platform.jobs import Worker
from certwright.rooms import cas, certificates
from certwright.rooms.certificates import Applicant, Application, State

ZONE = "acme.test"
_APPLICANT = Applicant("Ann", "ann@bench.example", "+49 30 1234567")
_ONE_ORDER = 60.0
_LOOK_EVERY = 0.1
_FACTS = """
    SELECT c.id, c.stage, a.failure, h.file_name, h.value FROM certificates c
    JOIN applications a ON a.certificate_id = c.id
    LEFT JOIN challenges h ON h.subject_id = a.id
    WHERE c.id = ANY($1)
"""
_number = itertools.count()


@dataclass(frozen=True)
class Rate:
    """`cpu` is what whoever ordered spent, its database included, in seconds; `steps` how long ours took, in ms."""

    orders: int
    seconds: float
    cpu: float
    steps: dict[str, list[float]] = field(default_factory=dict)

    @property
    def a_second(self) -> float:
        return self.orders / self.seconds

    @property
    def a_core_second(self) -> float:
        return self.orders / self.cpu


class Pebble:
    """Validates at once (PEBBLE_VA_NOSLEEP) and otherwise as it comes: it refuses one nonce in twenty."""

    def __init__(self, directory: Path, dns: str, http_port: int) -> None:
        directory.mkdir(parents=True)
        listen, management, tls_port = free_ports(3)
        self.directory_url = f"https://{LOOPBACK}:{listen}/dir"
        self.root_pem, certificate, key = tls()
        self.root = directory / "root.pem"
        self.root.write_text(self.root_pem)
        (directory / "tls.pem").write_bytes(certificate)
        (directory / "tls.key").write_bytes(key)
        config = {
            "listenAddress": f"{LOOPBACK}:{listen}", "managementListenAddress": f"{LOOPBACK}:{management}",
            "certificate": str(directory / "tls.pem"), "privateKey": str(directory / "tls.key"),
            "httpPort": http_port, "tlsPort": tls_port, "ocspResponderURL": "",
        }  # fmt: skip
        (directory / "pebble.json").write_text(json.dumps({"pebble": config}))
        log = directory / "pebble.log"
        command = [find("pebble", "pebble"), "-config", str(directory / "pebble.json"), "-dnsserver", dns]
        environ = os.environ | {"PEBBLE_VA_NOSLEEP": "1"}
        self._process = start(command, log=log, environ=environ, cwd=directory)
        wait_until(lambda: answers(listen), self._process, log, "Pebble")

    def stop(self) -> None:
        stop(self._process)


def tls() -> tuple[str, bytes, bytes]:
    """(root, certificate, key) for 127.0.0.1, as PEM."""
    import ipaddress
    from datetime import UTC, datetime, timedelta

    def sign(subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey) -> bytes:
        is_root = subject == issuer
        names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one)]) for one in (subject, issuer)]
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
        )  # fmt: skip
        if not is_root:
            address = x509.IPAddress(ipaddress.ip_address(LOOPBACK))
            made = made.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        else:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            made = made.add_extension(usage, critical=True)
        return made.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = sign("Bench TLS root", root_key, "Bench TLS root", root_key).decode()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return root, sign(LOOPBACK, key, "Bench TLS root", root_key), pem


class Scene:
    """A name server, a web server and a CA."""

    def __init__(self, home: Path) -> None:
        self.knot = Knot(home / "knot", ZONE, {f"*.{ZONE}": LOOPBACK, ZONE: LOOPBACK})
        self.nginx = Nginx(home / "nginx-acme", f"*.{ZONE}")
        self._home, self._pebbles = home, itertools.count()
        self.pebble: Pebble

    def start(self) -> None:
        self.knot.start()
        self.nginx.start()
        self.new_pebble()

    def new_pebble(self) -> None:
        folder = self._home / f"pebble-{next(self._pebbles)}"
        self.pebble = Pebble(folder, f"{LOOPBACK}:{self.knot.port}", self.nginx.http_port)

    def stop(self) -> None:
        if hasattr(self, "pebble"):
            self.pebble.stop()
        self.nginx.stop()
        self.knot.stop()


@contextmanager
def scene(home: Path) -> Iterator[Scene]:
    made = Scene(home)
    try:
        made.start()
        yield made
    finally:
        made.stop()


# --- the product -----------------------------------------------------------------------------------------------------


def ours(scene: Scene, home: Path, at_once: int, orders: int) -> Rate:
    return service.run(_ours(scene, home, at_once, orders))


async def _ours(scene: Scene, home: Path, at_once: int, orders: int) -> Rate:
    """The worker and whoever applies are this process; its CPU is counted wholly."""
    settings = {
        "DNS_SERVERS": f"{LOOPBACK}:{scene.knot.port}", "DNS_AUTHORITATIVE_PORT": str(scene.knot.port),
        "VALIDATION_HTTP_PORT": str(scene.nginx.http_port),
    }  # fmt: skip
    async with service.product(home / f"acme-{next(_number)}", **settings) as product:
        many = {"count": 100_000, "seconds": 3600}
        added = await cas.add_ca(
            product.services, product.actor, name="pebble", directory_url=scene.pebble.directory_url,
            root_pem=scene.pebble.root_pem, public=False, contacts=("ann@bench.example",), agree_terms=True,
            limits={use.value: many for use in cas.DEFAULT_LIMITS},
        )  # fmt: skip
        await cas.check_ca(product.services, product.actor, added.id)
        worker = Worker(product.services)
        working = asyncio.create_task(worker.run())
        try:
            # So that both sides start with an account, and ours, which doesn't start for each order, with warm caches.
            await _at_once(scene, product, at_once, at_once)
            with timed(product.services.jobs) as took:
                before, begun = _spent(product), time.perf_counter()
                await _at_once(scene, product, at_once, orders)
                return Rate(orders, time.perf_counter() - begun, _spent(product) - before, dict(took))
        finally:
            worker.stop()
            await asyncio.wait([working], timeout=10)


def _spent(product: service.Product) -> float:
    return service.cpu_of(psutil.Process()) + service.cpu_of_database(product.postmaster)


async def _at_once(scene: Scene, product: service.Product, at_once: int, orders: int) -> None:
    """So many clients, each with one order at a time: apply, publish what is asked for, have it looked at, wait.

    One loop looks for all of them what there is to do, as seldom as people would, so that looking costs little.
    """
    services, actor = product.services, product.actor
    open_: set[str] = set()
    published: set[str] = set()
    placed, begun = 0, time.perf_counter()
    while open_ or placed < orders:
        while placed < orders and len(open_) < at_once:
            application = Application(
                names=(f"o{next(_number)}.{ZONE}",), validation_method="file", applicant=_APPLICANT, consent=True
            )
            made = await certificates.create_certificate(services, actor, application=application, ca="pebble")
            open_.add(made.id)
            placed += 1
        await asyncio.sleep(_LOOK_EVERY)
        rows = await product.rows(_FACTS, tuple(open_))
        for row in rows:
            if row.failure is not None:
                raise DemoError(f"an order failed: {row.failure}")
            if row.stage == State.ISSUED:
                open_.discard(row.id)
            elif row.file_name is not None and row.id not in published:
                scene.nginx.publish(f"/.well-known/acme-challenge/{row.file_name}", row.value)
                published.add(row.id)
                await certificates.check_domains(services, actor, row.id)
        if time.perf_counter() - begun > orders * _ONE_ORDER / at_once + _ONE_ORDER:
            raise DemoError(f"orders took too long; {placed - len(open_)} of {orders} were done")


# --- lego ------------------------------------------------------------------------------------------------------------


def lego_version() -> str:
    said = subprocess.run([find("lego", "lego"), "--version"], capture_output=True, text=True, check=True).stdout
    return said.strip()


def lego(scene: Scene, home: Path, at_once: int, orders: int) -> Rate:
    """One process an order, so many at once, all with one account that exists already."""
    folder = home / f"lego-{next(_number)}"
    first = _lego(scene, folder)
    if first.wait(_ONE_ORDER):
        raise DemoError("lego could not get its first certificate")
    before, begun = _children(), time.perf_counter()
    running: list[subprocess.Popen[bytes]] = []
    made = 0
    while made < orders or running:
        while made < orders and len(running) < at_once:
            running.append(_lego(scene, folder))
            made += 1
        for process in [one for one in running if one.poll() is not None]:
            running.remove(process)
            if process.returncode:
                raise DemoError(f"lego ended with {process.returncode}")
        if time.perf_counter() - begun > orders * _ONE_ORDER / at_once + _ONE_ORDER:
            for process in running:
                process.kill()
                process.wait()
            raise DemoError("lego took too long")
        time.sleep(0.01)
    return Rate(orders, time.perf_counter() - begun, _children() - before)


def _lego(scene: Scene, folder: Path) -> subprocess.Popen[bytes]:
    command = [
        find("lego", "lego"), "--server", scene.pebble.directory_url, "--accept-tos", "--email", "ann@bench.example",
        "--path", str(folder), "--domains", f"l{next(_number)}.{ZONE}", "--key-type", "ec256", "--http",
        "--http.webroot", str(scene.nginx.webroot), "run",
    ]  # fmt: skip
    environ = os.environ | {"LEGO_CA_CERTIFICATES": str(scene.pebble.root)}
    return subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime
