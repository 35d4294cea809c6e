"""`make bench`: our figures, each the median of several runs, with the machine they were taken on."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import books
import drain
import orders
import peers
import private_ca
import psutil
import seed
import workshop
from account import administrator
from rich.console import Console

from certwright.entry.cli.client import Api
from certwright.entry.demo.servers import LOOPBACK, DemoError, Nginx, Product
from certwright.platform.postgres import EmbeddedPostgres

HERE = Path(__file__).parent
CONNECTIONS = 16
SECONDS = 4
CERTIFICATES = 100_000
ENDPOINTS = 4_000
NAME = "bench.localhost"
RENEWALS = 10_000
# A drain that takes longer is stopped, and what it did until then is printed.
DRAIN_PATIENCE = 300.0
# (in parallel, orders a run)
ORDERS = ((1, 4), (16, 48))
UPLOADS = 3_000
WARM_UPLOADS = 20
# Of fewer steps of one kind there is no telling a p99.
FEWEST_STEPS = 50

console = Console()


@dataclass(frozen=True)
class Figure:
    """`aim` as the issue words it; `better` says which way the aim lies."""

    name: str
    unit: str
    values: tuple[float, ...]
    aim: float | None
    better: str
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def reached(self) -> bool | None:
        if self.aim is None:
            return None
        return self.median <= self.aim if self.better == "less" else self.median >= self.aim


class Bench:
    """A product with an administrator, set up when the first figure asks for it and measured by all."""

    def __init__(self, home: Path, runs: int, processes: int | None) -> None:
        self.home, self.runs, self.processes = home, runs, processes or 1
        self.processes_of_ca = processes or os.cpu_count() or 1
        self.figures: list[Figure] = []
        self.data = home / "data"
        self.nginx = Nginx(home / "nginx", NAME)
        self._scene: private_ca.Scene | None = None
        self._bao: peers.OpenBao | None = None
        self._bao_missing = False
        self._product: Product | None = None
        self._api: Api | None = None
        self.token = ""
        self.steps_took: dict[str, list[float]] = {}

    @property
    def product(self) -> Product:
        if self._product is None:
            self._set_up()
        assert self._product is not None
        return self._product

    @property
    def api(self) -> Api:
        if self._api is None:
            self._set_up()
        assert self._api is not None
        return self._api

    def report(
        self,
        name: str,
        unit: str,
        values: list[float],
        *,
        aim: float | None = None,
        better: str = "more",
        note: str = "",
    ) -> None:
        figure = Figure(name, unit, tuple(values), aim, better, note)
        self.figures.append(figure)
        mark = {None: " ", True: "[green]✓[/]", False: "[yellow]✗[/]"}[figure.reached]
        aimed = "" if aim is None else f"aim {'≤' if better == 'less' else '≥'} {aim:g}"
        spread = f"\\[{min(values):,.4g} .. {max(values):,.4g}] n={len(values)}"
        console.print(
            f"{mark} {name:<50} {figure.median:>10,.4g} {unit:<8} {spread:<28} {aimed:<12} [dim]{note}[/]",
            highlight=False, soft_wrap=True,
        )  # fmt: skip

    # --- the product ------------------------------------------------------------------------------------------------

    def new_product(self, data: Path) -> Product:
        return Product(
            data,
            self.home / "product.log",
            {
                "ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
                "VALIDATION_HTTP_PORT": str(self.nginx.http_port),
                "PROBE_INTERVAL": "86400",
                "UPLOADED_SERVERS": "1000000",
            },
            options=("--processes", str(self.processes)),
        )

    def _set_up(self) -> None:
        self.nginx.start()
        self._product = self.new_product(self.data)
        self.token, self._api = administrator(self.product, self.product.start())

    def close(self) -> None:
        if self._scene:
            self._scene.close()
        if self._bao:
            self._bao.stop()
        if self._api:
            self._api.close()
        if self._product:
            self._product.stop()
        self.nginx.stop()

    def in_database(self, work: Callable[[asyncpg.Connection[Any]], Awaitable[Any]]) -> Any:
        """Beside the running product, as one more user of its database."""

        async def run() -> Any:
            embedded = EmbeddedPostgres(self.data / "postgres")
            connection = await asyncpg.connect((await embedded.start()).url)
            try:
                return await work(connection)
            finally:
                await connection.close()
                await embedded.stop()

        return asyncio.run(run())

    # --- figures ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        first, warm = [], []
        for _ in range(self.runs):
            data = self.home / "start"
            for into in (first, warm):
                product = self.new_product(data)
                begun = time.perf_counter()
                product.start()
                into.append(time.perf_counter() - begun)
                product.stop()
            shutil.rmtree(data)
        self.report("first start, empty data directory", "s", first, aim=None, better="less")
        self.report("warm start", "s", warm, aim=3, better="less")

    def memory(self) -> None:
        values = []
        for _ in range(self.runs):
            time.sleep(3)
            values.append(sum(_pss(process) for process in self._processes()) / 2**20)
        self.report("memory of web, worker and PostgreSQL, idle", "MB", values, aim=250, better="less", note="PSS")

    def _processes(self) -> list[psutil.Process]:
        """The product's own, and PostgreSQL's, which are nobody's children."""
        own = psutil.Process(self.product.pid)
        postmaster = int((self.data / "postgres/cluster/postmaster.pid").read_text().split()[0])
        found = [own, *own.children(recursive=True)]
        for process in (psutil.Process(postmaster), *psutil.Process(postmaster).children(recursive=True)):
            if process not in found:
                found.append(process)
        return found

    def apply(self) -> None:
        values = []
        for number in range(max(self.runs, 10)):
            application = {
                "names": [f"a{number}.{NAME}"], "validation_method": "file", "consent": True,
                "applicant": {"name": "Ann", "email": "ann@bench.example", "phone": "+49 30 1234567"},
            }  # fmt: skip
            begun = time.perf_counter()
            made = self.api.post("/certificates", {"application": application})
            todo = made["validation"]["domains"][0]["instructions"]
            self.nginx.publish(todo["path"], todo["content"])
            self.api.post(f"/certificates/{made['id']}/validation/check")
            while self.api.get(f"/certificates/{made['id']}")["state"] != "issued":
                if time.perf_counter() - begun > 60:
                    raise DemoError("a certificate was not issued within a minute")
                time.sleep(0.005)
            values.append(time.perf_counter() - begun)
        self.report("apply to issued, file validation", "s", values, aim=1, better="less")

    def list(self) -> None:
        self._seed()
        self._rates(f"list page of 20 of {CERTIFICATES:,}", "req/s", "list.lua", aim=1000)

    def search(self) -> None:
        self._seed()
        self._rates(f"substring search over {CERTIFICATES:,}", "req/s", "search.lua", aim=300)

    def _seed(self) -> None:
        me = self.api.get("/me")
        project = self.api.get("/projects", limit=1)["items"][0]["id"]
        self.in_database(lambda c: seed.certificates(c, me["account"]["id"], project, CERTIFICATES))

    def issue(self) -> None:
        authority = next(a["id"] for a in self.api.get("/authorities")["items"] if a["kind"] == "issuing")
        self._rates(f"issued through the API, {CONNECTIONS} connections", "1/s", "issue.lua", authority, aim=800)

    def _rates(self, name: str, unit: str, script: str, *arguments: str, aim: float) -> None:
        """Requests per second, and what each costs: the CPU time is the figure that other work on the machine moves
        least."""
        rates, costs = [], []
        for _ in range(self.runs):
            before = self._cpu_seconds()
            made, rate = self._wrk(script, *arguments, secrets.token_hex(3))
            costs.append((self._cpu_seconds() - before) * 1000 / made)
            rates.append(rate)
        note = f"{statistics.median(costs):.2f} ms CPU each, PostgreSQL and follow-up work included"
        self.report(name, unit, rates, aim=aim, better="more", note=note)

    def _cpu_seconds(self) -> float:
        total = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                spent = process.cpu_times()
                total += spent.user + spent.system
        return total

    def _wrk(self, script: str, *arguments: str) -> tuple[int, float]:
        """(requests made, requests per second)"""
        program = shutil.which("wrk")
        if program is None:
            raise DemoError("wrk is not installed (Debian: apt-get install wrk)")
        done = subprocess.run(
            [program, "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--timeout", "10s", "-s", str(HERE / script),
             self.product.url, "--", *arguments],
            capture_output=True, text=True, timeout=SECONDS + 60, check=True,
            env={**os.environ, "BENCH_TOKEN": self.token},
        ).stdout  # fmt: skip
        wrong = re.search(r"(Non-2xx or 3xx responses|Socket errors).*", done)
        made, rate = re.search(r"(\d+) requests in", done), re.search(r"Requests/sec:\s+([\d.]+)", done)
        if wrong or not made or not rate:
            raise DemoError(f"{script}: {wrong[0] if wrong else done}")
        return int(made[1]), float(rate[1])

    def upload(self) -> None:
        """Each with an intermediate and a key, judged and kept."""
        authority = workshop.Authority()
        chain = workshop.pem(authority.intermediate)

        def body(host: str) -> dict[str, Any]:
            leaf, key = authority.leaf(host)
            return {"certificate": workshop.pem(leaf) + chain, "key": workshop.key_pem(key), "online": False,
                    "allow_duplicate": True}  # fmt: skip

        # The processes that lint take a second or two to start, once.
        for number in range(WARM_UPLOADS):
            self.api.post("/uploads", body(f"w{number}.example.com"))
        rates, costs = [], []
        for run in range(self.runs):
            bodies = self.home / f"uploads-{run}.jsonl"
            lines = [json.dumps(body(f"u{number}.r{run}.example.com")) for number in range(UPLOADS)]
            bodies.write_text("\n".join(lines) + "\n")
            before = self._cpu_seconds()
            made, rate = self._wrk("upload.lua", str(bodies))
            costs.append((self._cpu_seconds() - before) * 1000 / made)
            rates.append(rate)
        note = f"{statistics.median(costs):.2f} ms CPU each, PostgreSQL and follow-up work included"
        self.report(f"uploads through the API, {CONNECTIONS} connections", "1/s", rates, note=note)

    # --- figures with a database of their own -----------------------------------------------------------------------

    def orders(self) -> None:
        """Beside lego, at the same CA, by turns."""
        with orders.scene(self.home) as scene:
            for at_once, count in ORDERS:
                found: dict[str, list[orders.Rate]] = {"Certwright": [], orders.lego_version(): []}
                for _ in range(self.runs):
                    for who, order in zip(found, (orders.ours, orders.lego), strict=True):
                        try:
                            found[who].append(order(scene, self.home, at_once, count))
                        except DemoError as error:
                            # Debian's Pebble 2.4.0 sometimes stops answering when many ask at once.
                            console.print(f"  {who}, {at_once} at once: {error}", highlight=False, soft_wrap=True)
                            scene.pebble.stop()
                            scene.new_pebble()
                for who, rates in found.items():
                    self._report_orders(who, at_once, rates)

    def _report_orders(self, who: str, at_once: int, rates: list[orders.Rate]) -> None:
        if not rates:
            raise DemoError(f"{who}: no run with {at_once} at once succeeded")
        for rate in rates:
            self._keep_steps(rate.steps)
        what = f"ACME orders, {at_once} at once, {who}"
        self.report(what, "1/s", [rate.a_second for rate in rates])
        self.report(what, "1/core-s", [rate.a_core_second for rate in rates])

    def _keep_steps(self, steps: Mapping[str, list[float]]) -> None:
        for name, took in steps.items():
            self.steps_took.setdefault(name, []).extend(took)

    def drain(self) -> None:
        """One run: it is long, and steady in itself."""
        found = drain.drain(self.home, RENEWALS, DRAIN_PATIENCE)
        self._keep_steps(found.steps)
        each = 1000 / max(found.renewed, 1)
        if found.renewed < found.due:
            console.print(f"  stopped: {found.renewed:,} of {found.due:,} were renewed", highlight=False)
        workers = f"{drain.WORKERS} workers"
        self.report(f"{found.renewed:,} renewals due at once, {workers}", "s", [found.seconds])
        self.report("renewals a second", "1/s", [found.renewed / found.seconds])
        self.report("memory of the workers at most", "MB", [found.memory], note="PSS")
        self.report("CPU of the workers, a renewal", "ms", [found.worker_cpu * each])
        self.report("CPU of PostgreSQL, a renewal", "ms", [found.database_cpu * each])
        self.report("transactions, a renewal", "", [found.transactions / max(found.renewed, 1)])
        self.report("WAL, a renewal", "KB", [found.wal_mb * 1024 / max(found.renewed, 1)])

    def steps(self) -> None:
        """Of those the figures before this one ran: how long one had its row, waiting for the processor included."""
        if not self.steps_took:
            raise DemoError("no steps were run: measure orders or drain as well")
        for name, took in sorted(self.steps_took.items()):
            if len(took) >= FEWEST_STEPS:
                p50, p99 = drain.quantiles(took)
                self.report(f"step {name}, p50", "ms", [p50], note=f"of {len(took):,}")
                self.report(f"step {name}, p99", "ms", [p99])

    def ledger(self) -> None:
        found = books.books(self.home, self.runs, SECONDS / 2)
        for clients in books.PARALLEL:
            self.report(f"payments in the books, {clients} at once", "1/s", found.payments[clients])
            self.report(f"  PostgreSQL alone, one row, {clients} at once", "1/s", found.bare[clients])

    def workshop(self) -> None:
        found = workshop.workshop(self.home, self.runs, SECONDS / 2)
        self.report("check, leaf, intermediate and key", "1/core-s", found.check, aim=2000)
        self.report("check with lint", "1/core-s", found.check_lint, aim=250)
        self.report("  openssl: verify, x509, pkey", "1/core-s", found.check_openssl, note="three processes a check")
        for server, rates in found.bundle.items():
            self.report(f"bundle for {server}", "1/core-s", rates)
        self.report("certwright x509 check, cold", "ms", found.cold, aim=250, better="less")
        self.report("  openssl verify, cold", "ms", found.cold_openssl, better="less")

    # --- the private CA ---------------------------------------------------------------------------------------------

    @property
    def scene(self) -> private_ca.Scene:
        """A product of its own, with a web process a core unless another number was asked for."""
        if self._scene is None:
            self._scene = private_ca.Scene(self.home / "private-ca", self.processes_of_ca)
        return self._scene

    @property
    def bao(self) -> peers.OpenBao | None:
        if self._bao is None and not self._bao_missing:
            try:
                self._bao = peers.OpenBao(self.home / "openbao")
            except DemoError as error:
                self._bao_missing = True
                self._skipped(peers.OpenBao.name, error)
        return self._bao

    @staticmethod
    def _skipped(who: str, error: DemoError) -> None:
        console.print(f"  {who}: {error}", highlight=False, soft_wrap=True, markup=False)

    def sign_csr(self) -> None:
        found = private_ca.signing(self.scene, self.home, self.bao, self.runs)
        for who, one in found.items():
            aim = 1500 if who == "Certwright" else None
            note = f"{statistics.median(one.costs):.2f} ms CPU each, storage included"
            self.report(f"sign-CSR, stored, {CONNECTIONS} connections, {who}", "1/s", one.rates, aim=aim, note=note)

    def batch(self) -> None:
        rates = private_ca.batches(self.scene, self.runs, 2 * (os.cpu_count() or 1))
        self.report(f"batches of {private_ca.BATCH:,} requests", "1/s", rates, aim=4000, note="certificates")

    def ocsp(self) -> None:
        for who, rates in private_ca.answering(self.scene, self.home, self.bao, self.runs).items():
            aim = 15_000 if who.startswith("Certwright") else None
            self.report(f"OCSP answers, {who}", "1/s", rates, aim=aim)

    def crl(self) -> None:
        found = private_ca.long_list(self.scene, self.home)
        name = f"list of {private_ca.REVOKED:,}"
        note = f"{found.octets / 2**20:.1f} MB; from the revocation until the list says so"
        self.report(f"{name}, made and published", "s", [found.seconds], better="less", note=note)
        self.report(f"{name}, memory meanwhile", "MB", [found.grown], better="less", note="more than before")
        self.report(f"{name}, fetched", "ms", [found.fetched], better="less")
        self.report(f"{name}, asked for with its ETag", "ms", [found.known], better="less")
        if found.openssl is not None:
            self.report("  openssl ca -gencrl, as many", "s", [found.openssl], better="less")

    def acme(self) -> None:
        """Ours, then each of the others, at the same load."""
        scene = self.scene
        with scene.watched():
            self._acme("Certwright", scene.directory_url, scene.product.root, scene.http, scene.dns)
        if (bao := self.bao) is not None:
            self._acme(bao.name, bao.directory_url, bao.root, peers.HTTP, peers.DNS)
        try:
            caddy = peers.Caddy(self.home / "caddy")
        except DemoError as error:
            self._skipped(peers.Caddy.name, error)
        else:
            try:
                self._acme(caddy.name, caddy.directory_url, caddy.root, peers.HTTP, peers.DNS)
            finally:
                caddy.stop()
        try:
            pebble = orders.Pebble(self.home / "pebble", scene.dns, int(scene.http.rpartition(":")[2]))
        except DemoError as error:
            self._skipped("Pebble", error)
        else:
            try:
                self._acme("Pebble (in memory)", pebble.directory_url, pebble.root, scene.http, scene.dns)
            finally:
                pebble.stop()

    def _acme(self, who: str, directory_url: str, root: Path, http: str, dns: str) -> None:
        for clients in private_ca.CLIENTS:
            found: list[private_ca.Orders] = []
            for _ in range(self.runs):
                try:
                    found.append(private_ca.acme(directory_url, root, clients, http, dns))
                except DemoError as error:
                    self._skipped(f"{who}, {clients} clients", error)
            if not found:
                continue
            failed = sum(one.failed for one in found)
            note = f"p99 {statistics.median(one.p99 for one in found):.0f} ms"
            note += f", {failed} failed" if failed else ""
            rates = [one.a_second for one in found]
            self.report(f"ACME orders served, http-01, {clients} clients, {who}", "1/s", rates, note=note)
            first = next((one.first_failure for one in found if one.first_failure), None)
            if first:
                console.print(f"  {first}", highlight=False, soft_wrap=True, markup=False)

    def ca_memory(self) -> None:
        """Of the figures before this one."""
        if self._scene is None or not self._scene.most_memory.pss:
            raise DemoError("nothing was under load: measure sign_csr, batch, ocsp or acme as well")
        count = len(self._scene.processes())
        pss, rss = self._scene.most_memory
        note = f"PSS of {count} processes, without PostgreSQL"
        self.report("memory under load at most", "MB", [pss], aim=300, better="less", note=note)
        self.report("  with shared pages counted for each", "MB", [rss], better="less", note="RSS at that moment")
        self.report("  afterwards", "MB", [self._scene.memory().pss], better="less", note="PSS")
        if self._bao is not None:
            self.report("  OpenBao afterwards", "MB", [self._bao.rss], better="less", note="RSS")

    def probe(self) -> None:
        me = self.api.get("/me")
        project = self.api.get("/projects", limit=1)["items"][0]["id"]
        values = []
        for _ in range(self.runs):
            values.append(self.in_database(
                lambda c: seed.probed(c, me["account"]["id"], project, LOOPBACK, self.nginx.https_port, NAME, ENDPOINTS)
            ))  # fmt: skip
        note = f"{ENDPOINTS:,} endpoints, looked at and recorded by the worker beside the web process"
        self.report("endpoint probes", "1/s", values, aim=1000, better="more", note=note)


def cold(bench: Bench) -> None:
    """A fresh copy of the source, set up with pip and started, as somebody does who just cloned it."""
    values = []
    copy = bench.home / "copy"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=HERE.parent, capture_output=True, check=True).stdout
    for name in listed.decode().rstrip("\0").split("\0"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE.parent / name, copy / name)
    paths = [part for part in os.environ["PATH"].split(os.pathsep) if not (Path(part) / "uv").exists()]
    environ = {**os.environ, "PATH": os.pathsep.join(paths)}
    begun = time.perf_counter()
    for command in ([str(copy / "scripts/setup")], [str(copy / ".venv/bin/python"), "hatch_build.py"]):
        subprocess.run(command, cwd=copy, env=environ, check=True, stdin=subprocess.DEVNULL)
    product = bench.new_product(bench.home / "cold")
    product.start()
    values.append(time.perf_counter() - begun)
    product.stop()
    bench.report("cold start from a fresh copy, with pip", "s", values, aim=60, better="less")


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def machine() -> dict[str, Any]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


SETS = {
    "foundation": ("start", "memory", "apply", "list", "search", "issue", "probe"),
    "lifecycle": ("orders", "drain", "steps", "ledger"),
    "files": ("workshop", "upload"),
    "private-ca": ("sign_csr", "batch", "ocsp", "crl", "acme", "ca_memory"),
}
FIGURES = tuple(figure for figures in SETS.values() for figure in figures)


@contextmanager
def prepared(runs: int, processes: int | None) -> Iterator[Bench]:
    home = Path(tempfile.mkdtemp(prefix="certwright-bench-"))
    bench = None
    try:
        bench = Bench(home, runs, processes)
        yield bench
    finally:
        if bench:
            bench.close()
        shutil.rmtree(home, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", default=",".join(SETS), help=f"sets ({', '.join(SETS)}) or figures ({', '.join(FIGURES)})"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--processes", type=int, help="web processes; default 1, for the private CA one a core")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    console.quiet = given.json
    chosen = [figure for word in given.only.split(",") for figure in SETS.get(word, (word,))]
    unknown = sorted(set(chosen) - set(FIGURES))
    if unknown:
        parser.error(f"there is no figure {', '.join(unknown)}")
    about = machine()
    console.print(
        f"{about['cpu']}, {about['cores']} cores, {about['memory_gb']} GB, Linux {about['kernel']}, "
        f"Python {about['python']}, load {about['load']}, {about['at']}; "
        f"web processes: {given.processes or '1, private CA one a core'}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    failed = 0
    with prepared(given.runs, given.processes) as bench:
        if given.cold:
            cold(bench)
        for name in chosen:
            begun = time.perf_counter()
            try:
                getattr(bench, name)()
                console.print(f"  [dim]{name}: {time.perf_counter() - begun:.0f} s[/]", highlight=False)
            except DemoError as error:
                failed += 1
                console.print(f"[red]✗ {name}: {error}[/]", highlight=False, soft_wrap=True)
        if given.json:
            figures = [
                asdict(figure) | {"median": figure.median, "reached": figure.reached} for figure in bench.figures
            ]
            sys.stdout.write(json.dumps({"machine": about, "figures": figures}, indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
