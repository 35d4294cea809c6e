"""The private CA under load, beside others: ACME orders, certificates from requests, batches, OCSP, a long list.

The product runs as it would on this machine, with one web process a core. Its peers are started one at a time and stop
when their figure has been taken, except where two are measured by turns.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import asyncpg
import peers
import psutil
from account import administrator
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from service import cpu_of, cpu_of_database

from certwright.entry.demo.servers import LOOPBACK, DemoError, Product, free_ports
from certwright.kernel.ids import new_id
from certwright.platform.postgres import EmbeddedPostgres
from certwright.x509.crl import read_crl

HERE = Path(__file__).parent
CONNECTIONS = 16
SECONDS = 5
REQUESTS = 4_000
KEYS = 200
QUESTIONS = 100
BATCH = 1_000
BATCHES = 12
REVOKED = 100_000
CLIENTS = (1, 16)
_PATIENCE = 120.0


# --- the product -----------------------------------------------------------------------------------------------------


class Memory(NamedTuple):
    """MB of several processes: with pages that they share shared out among them (PSS), and counted for each (RSS)."""

    pss: float
    rss: float


class Scene:
    """The product with an administrator, one web process a core, and a CA that answers OCSP."""

    def __init__(self, home: Path, processes: int) -> None:
        self.data = home / "data"
        http, dns, status = free_ports(3)
        self.http, self.dns = f"{LOOPBACK}:{http}", f"{LOOPBACK}:{dns}"
        self.status_url = f"http://{LOOPBACK}:{status}"
        settings = {
            "ALLOWED_NETWORKS": "127.0.0.0/8", "VALIDATION_HTTP_PORT": str(http), "DNS_SERVERS": self.dns,
            "DNS_AUTHORITATIVE_PORT": str(dns), "STATUS_LISTEN": f"{LOOPBACK}:{status}",
        }  # fmt: skip
        home.mkdir(exist_ok=True)
        self.product = Product(self.data, home / "product.log", settings, options=("--processes", str(processes)))
        self.token, self.api = administrator(self.product, self.product.start())
        self.root_id = next(a["id"] for a in self.api.get("/authorities")["items"] if a["kind"] == "root")
        self.ca = self.new_ca("Bench CA")
        directory = {"name": "bench", "authority_id": self.ca["id"], "eab_required": False, "challenges": ["http-01"]}
        self.directory_url: str = self.api.post("/acme-directories", directory)["url"]
        self.most_memory = Memory(0.0, 0.0)

    def new_ca(self, name: str, *, ocsp: bool = True) -> dict[str, Any]:
        asked = {"name": name, "subject": {"common_name": name}, "parent_id": self.root_id, "ocsp_enabled": ocsp}
        made: dict[str, Any] = self.api.post("/authorities", asked)
        return made

    @property
    def header(self) -> str:
        return f"Authorization: Bearer {self.token}"

    def processes(self) -> list[psutil.Process]:
        """The product's own, without PostgreSQL."""
        found = [psutil.Process(self.product.pid)]
        for child in found[0].children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "postgres" not in child.name():
                    found.append(child)
        return found

    def memory(self) -> Memory:
        """Now."""
        shared_out = in_each = 0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                found = process.memory_full_info()
                shared_out, in_each = shared_out + int(found.pss), in_each + int(found.rss)
        return Memory(shared_out / 2**20, in_each / 2**20)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Keeps in mind the most memory meanwhile."""
        over = threading.Event()

        def watch() -> None:
            # A look costs 12 ms of CPU.
            while not over.wait(0.5):
                self.most_memory = max(self.most_memory, self.memory())

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            yield
        finally:
            over.set()
            watching.join()

    def issue(self, ca_id: str, requests: Sequence[dict[str, Any]]) -> list[x509.Certificate]:
        answer = self.api.post(f"/authorities/{ca_id}/issued", {"requests": list(requests)})
        return [
            x509.load_pem_x509_certificate(one["certificate"]["certificate_pem"].encode()) for one in answer["items"]
        ]

    def in_database(self, statement: str, *arguments: Any, rows: Sequence[tuple[Any, ...]] = ()) -> None:
        """One statement, or with `rows` a COPY into the columns it names, beside the running product."""

        async def run() -> None:
            embedded = EmbeddedPostgres(self.data / "postgres")
            connection = await asyncpg.connect((await embedded.start()).url)
            try:
                if rows:
                    columns = [name.strip() for name in statement.split(",")]
                    await connection.copy_records_to_table(arguments[0], records=rows, columns=columns)
                else:
                    await connection.execute(statement, *arguments)
            finally:
                await connection.close()
                await embedded.stop()

        asyncio.run(run())

    def cpu(self) -> float:
        """Seconds the product has used, PostgreSQL included."""
        postmaster = int((self.data / "postgres/cluster/postmaster.pid").read_text().split()[0])
        return cpu_of(*self.processes()) + cpu_of_database(postmaster)

    def close(self) -> None:
        self.api.close()
        self.product.stop()


# --- what is asked ---------------------------------------------------------------------------------------------------


def csrs(count: int) -> list[str]:
    """Requests (PEM) with P-256 keys of their own."""
    made = []
    for number in range(count):
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(f"h{number}.load.test")])
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        made.append(
            request.add_extension(names, critical=False)
            .sign(key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
            .decode()
        )
    return made


def _request(csr: str, name: str) -> dict[str, Any]:
    return {"profile": "server", "names": [name], "csr": csr}


def wrk(url: str, script: str, *arguments: str, header: str = "X-Bench: 1") -> float:
    """Requests per second. Raises DemoError for anything but success."""
    program = shutil.which("wrk")
    if program is None:
        raise DemoError("wrk is not installed (Debian: apt-get install wrk)")
    done = subprocess.run(
        [program, "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--timeout", "10s", "-s", str(HERE / script), url, "--",
         *arguments],
        capture_output=True, text=True, timeout=SECONDS + 60, check=True, env={**os.environ, "BENCH_HEADER": header},
    ).stdout  # fmt: skip
    wrong = re.search(r"(Non-2xx or 3xx responses|Socket errors).*", done)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done)
    if wrong or not rate:
        raise DemoError(f"{script}: {wrong[0] if wrong else done}")
    return float(rate[1])


# --- figures ---------------------------------------------------------------------------------------------------------


@dataclass
class Signing:
    """Certificates a second, and what each cost in milliseconds of CPU, storage included."""

    rates: list[float]
    costs: list[float]


def signing(scene: Scene, home: Path, bao: peers.OpenBao | None, runs: int) -> dict[str, Signing]:
    """Certificates from requests, stored before the answer, by whose they are."""
    requests = csrs(KEYS)
    ours, theirs = home / "sign.jsonl", home / "sign-openbao.jsonl"
    named = [(requests[number % KEYS], f"h{number}.load.test") for number in range(REQUESTS)]
    ours.write_text("".join(json.dumps({"requests": [_request(csr, name)]}) + "\n" for csr, name in named))
    theirs.write_text("".join(json.dumps({"csr": csr, "common_name": name}) + "\n" for csr, name in named))
    found: dict[str, Signing] = {}

    def measure(who: str, cpu: Callable[[], float], url: str, path: str, bodies: Path, header: str) -> None:
        before = cpu()
        rate = wrk(url, "post.lua", path, str(bodies), header=header)
        one = found.setdefault(who, Signing([], []))
        one.rates.append(rate)
        one.costs.append(1000 * (cpu() - before) / (rate * SECONDS))

    with scene.watched():
        for _ in range(runs):
            path = f"/api/v1/authorities/{scene.ca['id']}/issued"
            measure("Certwright", scene.cpu, scene.product.url, path, ours, scene.header)
            if bao is not None:
                token = f"X-Vault-Token: {bao.token}"
                measure(bao.name, bao.cpu, bao.url, "/v1/pki/sign/store", theirs, token)
    return found


def batches(scene: Scene, runs: int, at_once: int) -> list[float]:
    """Certificates a second in calls of a thousand, so many calls at once."""
    requests = csrs(KEYS)
    path = f"/api/v1/authorities/{scene.ca['id']}/issued"
    split = urlsplit(scene.product.url)
    context = ssl.create_default_context(cafile=str(scene.product.root))
    headers = {"Authorization": f"Bearer {scene.token}", "Content-Type": "application/json"}

    def body(run: int, batch: int) -> bytes:
        names = (f"h{number}.b{batch}.r{run}.load.test" for number in range(BATCH))
        asked = [_request(requests[number % KEYS], name) for number, name in enumerate(names)]
        return json.dumps({"requests": asked}).encode()

    def caller(bodies: Sequence[bytes]) -> None:
        connection = http.client.HTTPSConnection(str(split.hostname), split.port, timeout=60, context=context)
        for one in bodies:
            connection.request("POST", path, one, headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200 or content.count(b'"problem":null') != BATCH:
                raise DemoError(f"a batch was answered {answer.status}: {content[:300]!r}")
        connection.close()

    rates = []
    with scene.watched(), ThreadPoolExecutor(at_once) as pool:
        for run in range(runs + 1):
            bodies = [body(run, batch) for batch in range(BATCHES if run else at_once)]
            begun = time.perf_counter()
            list(pool.map(caller, [bodies[first::at_once] for first in range(at_once)]))
            if run:  # the first warms up
                rates.append(len(bodies) * BATCH / (time.perf_counter() - begun))
    return rates


def _question(leaf: x509.Certificate, issuer: x509.Certificate) -> bytes:
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA1())  # noqa: S303  # as clients ask
    return builder.build().public_bytes(serialization.Encoding.DER)


def _written(path: Path, leaves: Sequence[x509.Certificate], issuer: x509.Certificate) -> tuple[str, str]:
    """Files of questions for GET and for POST."""
    asked = [_question(leaf, issuer) for leaf in leaves]
    get, post = path.with_suffix(".get"), path.with_suffix(".post")
    get.write_text("".join(quote(base64.b64encode(one).decode(), safe="") + "\n" for one in asked))
    post.write_text("".join(one.hex() + "\n" for one in asked))
    return str(get), str(post)


def answering(scene: Scene, home: Path, bao: peers.OpenBao | None, runs: int) -> dict[str, list[float]]:
    """Answers a second over HTTP about a hundred certificates."""
    requests = csrs(QUESTIONS)
    leaves = scene.issue(scene.ca["id"], [_request(csr, f"q{number}.load.test") for number, csr in enumerate(requests)])
    issuer = x509.load_pem_x509_certificate(scene.ca["certificate_pem"].encode())
    get, post = _written(home / "ours", leaves, issuer)
    path = f"/ocsp/{scene.ca['id']}"
    asked: list[tuple[str, tuple[str, ...]]] = [
        ("Certwright, GET", (scene.status_url, "ocsp.lua", path, "GET", get)),
        ("Certwright, POST", (scene.status_url, "ocsp.lua", path, "POST", post)),
    ]
    if bao is not None:
        theirs = [bao.sign(csr, f"q{number}.load.test") for number, csr in enumerate(requests)]
        _, post = _written(home / "bao", theirs, x509.load_pem_x509_certificate(bao.ca_pem.encode()))
        asked.append((f"{bao.name}, POST, signed each time", (bao.url, "ocsp.lua", "/v1/pki/ocsp", "POST", post)))
    with scene.watched(), _cfssl(home, asked):
        return {who: [wrk(*arguments) for _ in range(runs)] for who, arguments in asked}


@contextmanager
def _cfssl(home: Path, asked: list[tuple[str, tuple[str, ...]]]) -> Iterator[None]:
    issuer, key, leaves = _small_ca(QUESTIONS)
    try:
        responder = peers.Cfssl(home / "cfssl", issuer, key, leaves)
    except DemoError as error:
        print(f"  {peers.Cfssl.name}: {error}", file=sys.stderr)
        yield
        return
    try:
        _, post = _written(home / "cfssl" / "questions", leaves, issuer)
        asked.append((f"{responder.name}, POST, signed beforehand", (responder.url, "ocsp.lua", "/", "POST", post)))
        yield
    finally:
        responder.stop()


def _small_ca(count: int) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey, list[x509.Certificate]]:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Bench CA")])
    now = datetime.now(UTC)

    def made(name: x509.Name, public: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        builder = x509.CertificateBuilder().issuer_name(issuer).subject_name(name).public_key(public)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now)
        builder = builder.not_valid_after(now + timedelta(days=90))
        basic = x509.BasicConstraints(ca=ca, path_length=None)
        return builder.add_extension(basic, critical=True).sign(key, hashes.SHA256())

    leaf_key = ec.generate_private_key(ec.SECP256R1()).public_key()
    names = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"q{number}")]) for number in range(count))
    return made(issuer, key.public_key(), ca=True), key, [made(name, leaf_key, ca=False) for name in names]


# --- a long list -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LongList:
    """`seconds` from the revocation to the list that says so; MB of RSS the process with the worker grew by."""

    seconds: float
    octets: int
    grown: float
    fetched: float
    known: float
    openssl: float | None


def long_list(scene: Scene, home: Path) -> LongList:
    """One more revocation at a CA with a hundred thousand."""
    # Else a hundred thousand answers would be signed ahead while the figures after this one are taken.
    ca = scene.new_ca("Long list", ocsp=False)
    _fill(scene, ca["id"])
    last = scene.api.post(
        f"/authorities/{ca['id']}/issued", {"requests": [_request(csrs(1)[0], "last.load.test")]}
    )["items"][0]["certificate"]  # fmt: skip
    time.sleep(3)  # the CA's first steps are over
    worker = psutil.Process(scene.product.pid)
    before = most = worker.memory_info().rss
    begun = time.perf_counter()
    scene.api.post(f"/authorities/{ca['id']}/issued/{last['id']}/revoke", {"reason": "superseded"})
    url = f"/crl/{ca['id']}.crl"
    etag = None
    while True:
        status, headers, body = _get(scene, url, etag)
        if status == 200 and len(body) > 10 * REVOKED:
            break
        etag = headers.get("ETag") if status == 200 else etag
        if time.perf_counter() - begun > _PATIENCE:
            raise DemoError("the long list wasn't published")
        most = max(most, worker.memory_info().rss)
        time.sleep(0.02)
    seconds = time.perf_counter() - begun
    most = max(most, worker.memory_info().rss)
    if last["serial"] not in read_crl(body).entries:
        raise DemoError("the long list doesn't name the last revocation")
    fetched = _took(lambda: _get(scene, url, None))
    known = _took(lambda: _get(scene, url, headers["ETag"]))
    return LongList(seconds, len(body), (most - before) / 2**20, fetched, known, _openssl_list(home))


def _took(work: Any, times: int = 5) -> float:
    """Milliseconds, the middle one of several."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        found.append(1000 * (time.perf_counter() - begun))
    return sorted(found)[times // 2]


def _get(scene: Scene, path: str, etag: str | None) -> tuple[int, dict[str, str], bytes]:
    split = urlsplit(scene.status_url)
    connection = http.client.HTTPConnection(str(split.hostname), split.port, timeout=60)
    try:
        connection.request("GET", path, headers={} if etag is None else {"If-None-Match": etag})
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def _fill(scene: Scene, ca_id: str) -> None:
    """Revoked certificates, as the product has them after some busy years."""
    me = scene.api.get("/me")
    project = scene.api.get("/projects", limit=1)["items"][0]["id"]
    now = datetime.now(UTC)
    columns = (
        "id, authority_id, account_id, project_id, reference, profile, serial, names, der, not_before, not_after,"
        "issued_at, revoked_at, revocation_reason"
    )

    def row(number: int) -> tuple[Any, ...]:
        own = new_id("crt", now)
        serial = (1 << 152) + int.from_bytes(os.urandom(18), "big")
        return (
            own, ca_id, me["account"]["id"], project, own, "server", f"{serial:x}", [f"h{number}.load.test"], b"0", now,
            now + timedelta(days=90), now, now, "superseded" if number % 2 else None,
        )  # fmt: skip

    scene.in_database(columns, "issued_certificates", rows=[row(number) for number in range(REVOKED)])
    scene.in_database("ANALYZE issued_certificates")


def _openssl_list(home: Path) -> float | None:
    """Seconds `openssl ca -gencrl` takes for as many."""
    program = shutil.which("openssl")
    if program is None:
        return None
    folder = home / "openssl"
    folder.mkdir()
    issuer, key, _ = _small_ca(0)
    (folder / "ca.pem").write_bytes(issuer.public_bytes(serialization.Encoding.PEM))
    (folder / "ca.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    serials = ((1 << 152) + int.from_bytes(os.urandom(18), "big") for _ in range(REVOKED))
    lines = (f"R\t301231235959Z\t251231235959Z\t{serial:040X}\tunknown\t/CN=h\n" for serial in serials)
    (folder / "index.txt").write_text("".join(lines))
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca = it\n[it]\ndatabase = index.txt\ncertificate = ca.pem\nprivate_key = ca.key\n"
        "default_md = sha256\ndefault_crl_days = 7\n"
    )
    begun = time.perf_counter()
    command = [program, "ca", "-gencrl", "-config", "ca.cnf", "-out", "list.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=_PATIENCE)
    return time.perf_counter() - begun


# --- ACME ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Orders:
    """`failed` orders don't count."""

    a_second: float
    p99: float
    failed: int
    first_failure: str


def acme(directory_url: str, root: Path, clients: int, http: str, dns: str) -> Orders:
    """A load of its own process. Raises DemoError where no order succeeds."""
    command = [
        sys.executable, str(HERE / "acme_load.py"), directory_url, "--clients", str(clients), "--seconds", str(SECONDS),
        "--root", str(root), "--http", http, "--dns", dns,
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        raise DemoError("the orders took too long") from error
    if done.returncode:
        raise DemoError(done.stderr.strip().splitlines()[-1][:300] if done.stderr.strip() else "the load ended")
    said = json.loads(done.stdout)
    if not said["orders"]:
        raise DemoError(f"no order succeeded: {said['first_failure']}")
    return Orders(said["orders"] / said["seconds"], said["p99"], said["failed"], said["first_failure"])
