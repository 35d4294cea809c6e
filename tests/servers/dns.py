"""Private, real DNS servers for tests: Knot DNS and BIND as authoritative servers with TSIG updates, and BIND as a
validating resolver. They run as whoever runs the tests, on free ports of loopback addresses, and die with the test.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rdatatype

from tests.servers.ports import free_port

START_SECONDS = 60


@dataclass(frozen=True)
class TsigKey:
    """A key the server knows; `may_update` False makes one that it accepts but lets change nothing."""

    name: str
    algorithm: str = "hmac-sha256"
    secret: str = field(default_factory=lambda: base64.b64encode(secrets.token_bytes(32)).decode())
    may_update: bool = True


@dataclass
class DnsServer:
    """A running server."""

    kind: str
    address: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def endpoint(self) -> str:
        return f"{self.address}:{self.port}"

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


def find(program: str) -> str | None:
    """Debian keeps servers in /usr/sbin, which ordinary users don't have on PATH."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def _unconfined(program: str, directory: Path) -> str:
    """Debian's AppArmor profile of named lets it read nothing of ours; it is bound to the path, so a copy runs free."""
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    if Path("/etc/apparmor.d/usr.sbin.named").exists() and enabled.exists() and enabled.read_text().strip() == "Y":
        return shutil.copy(program, directory / "named")
    return program


def zone_text(zone: str, records: Sequence[str] = (), servers: Mapping[str, str] | None = None) -> str:
    """A zone file: SOA, NS and their addresses (default: ns1 at 127.0.0.1), and `records` as they stand."""
    named = servers if servers is not None else {f"ns1.{zone}": "127.0.0.1"}
    lines = [
        f"$ORIGIN {zone}.", "$TTL 300",
        f"@ SOA {next(iter(named))}. hostmaster.{zone}. 1 3600 600 86400 5",
        *(f"@ NS {name}." for name in named),
        *(f"{name}. A {address}" for name, address in named.items() if name.endswith("." + zone)),
        *records,
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


@contextmanager
def authoritative(
    directory: Path,
    zones: Mapping[str, str],
    *,
    keys: Sequence[TsigKey] = (),
    kind: str = "knot",
    address: str = "127.0.0.1",
    port: int | None = None,
    signed: Sequence[str] = (),
) -> Iterator[DnsServer]:
    """An authoritative server for `zones` (name → zone file text); `signed` zones (Knot only) get DNSSEC."""
    directory.mkdir(parents=True, exist_ok=True)
    chosen = port or free_port(address)
    write = {"knot": _knot, "bind": _bind}[kind]
    command = write(directory, zones, keys, address, chosen, signed)
    first = next(iter(zones))
    with _running(kind, command, directory, address, chosen, first) as server:
        yield server


@contextmanager
def validating_resolver(
    directory: Path, forward: Mapping[str, str], trust_anchors: Mapping[str, str], *, address: str = "127.0.0.1"
) -> Iterator[DnsServer]:
    """BIND as a resolver: `forward` maps zones to HOST:PORT, `trust_anchors` zones to their DS text."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port(address)
    zones = []
    for zone, server in forward.items():
        host, _, at = server.rpartition(":")
        zones.append(f'zone "{zone}" {{ type forward; forward only; forwarders {{ {host} port {at}; }}; }};')
    anchors = []
    for zone, ds in trust_anchors.items():
        tag, algorithm, digest_type, *digest = ds.split()
        anchors.append(f'"{zone}" static-ds {tag} {algorithm} {digest_type} "{"".join(digest)}";')
    config = directory / "named.conf"
    config.write_text(
        _bind_options(directory, address, port, "recursion yes; dnssec-validation yes; empty-zones-enable no;")
        + "\n".join(zones)
        + f"\ntrust-anchors {{ {' '.join(anchors)} }};\n"
    )
    program = find("named")
    assert program is not None
    command = [_unconfined(program, directory), "-g", "-c", str(config)]
    with _running("bind", command, directory, address, port, "") as server:
        yield server


def ds_of(directory: Path, zone: str) -> str:
    """The DS text of a zone that `authoritative` signed with Knot below `directory`."""
    keymgr = find("keymgr")
    assert keymgr is not None
    out = subprocess.run(
        [keymgr, "-c", str(directory / "knot.conf"), zone, "ds"], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    for line in out.splitlines():
        fields = line.split()
        if len(fields) >= 6 and fields[4] == "2":
            return " ".join(fields[2:])
    raise AssertionError(f"keymgr printed no SHA-256 DS: {out!r}")


def _knot(
    directory: Path, zones: Mapping[str, str], keys: Sequence[TsigKey], address: str, port: int, signed: Sequence[str]
) -> list[str]:
    program = find("knotd")
    assert program is not None
    (directory / "db").mkdir(exist_ok=True)
    lines = [
        "server:", f"    rundir: {directory}", f"    listen: [ {address}@{port} ]", "    udp-workers: 1",
        "    tcp-workers: 1", "    background-workers: 1",
        "log:", "  - target: stderr", "    any: info",
        "database:", f"    storage: {directory}/db", "    journal-db-max-size: 16M", "    kasp-db-max-size: 16M",
        "    timer-db-max-size: 16M",
    ]  # fmt: skip
    if keys:
        lines.append("key:")
        for key in keys:
            lines += [f"  - id: {key.name}", f"    algorithm: {key.algorithm}", f"    secret: {key.secret}"]
        lines.append("acl:")
        for key in keys:
            lines += [f"  - id: acl-{key.name}", f"    key: {key.name}"]
            lines.append("    action: update" if key.may_update else "    action: notify")
    if signed:
        lines += ["policy:", "  - id: single", "    algorithm: ecdsap256sha256", "    single-type-signing: on"]
    lines.append("zone:")
    for number, (zone, text) in enumerate(zones.items()):
        path = directory / f"zone{number}.zone"
        path.write_text(text)
        lines += [f"  - domain: {zone}", f"    file: {path}", "    zonefile-sync: -1", "    zonefile-load: difference"]
        lines.append("    journal-content: all")
        if keys:
            lines.append(f"    acl: [ {', '.join('acl-' + key.name for key in keys)} ]")
        if zone in signed:
            lines += ["    dnssec-signing: on", "    dnssec-policy: single"]
    config = directory / "knot.conf"
    config.write_text("\n".join(lines) + "\n")
    return [program, "-c", str(config)]


def _bind_options(directory: Path, address: str, port: int, more: str) -> str:
    return f"""options {{
    directory "{directory}"; pid-file none; session-keyfile none; managed-keys-directory "{directory}";
    listen-on port {port} {{ {address}; }}; listen-on-v6 {{ none; }}; allow-query {{ any; }};
    notify no; max-cache-size 8m; {more}
}};
controls {{ }};
"""


def _bind(
    directory: Path, zones: Mapping[str, str], keys: Sequence[TsigKey], address: str, port: int, signed: Sequence[str]
) -> list[str]:
    program = find("named")
    assert program is not None
    assert not signed
    text = _bind_options(directory, address, port, "recursion no; dnssec-validation no;")
    for key in keys:
        text += f'key "{key.name}" {{ algorithm {key.algorithm}; secret "{key.secret}"; }};\n'
    allowed = " ".join(f'key "{key.name}";' for key in keys if key.may_update) or "none;"
    for number, (zone, content) in enumerate(zones.items()):
        path = directory / f"zone{number}.zone"
        path.write_text(content)
        text += f'zone "{zone}" {{ type primary; file "{path}"; allow-update {{ {allowed} }}; }};\n'
    config = directory / "named.conf"
    config.write_text(text)
    return [_unconfined(program, directory), "-g", "-c", str(config)]


@contextmanager
def _running(
    kind: str, command: Sequence[str], directory: Path, address: str, port: int, zone: str
) -> Iterator[DnsServer]:
    log = directory / f"{kind}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=directory)
    server = DnsServer(kind, address, port, process, log)
    try:
        _await_answer(server, zone)
        yield server
    finally:
        server.stop()


def _await_answer(server: DnsServer, zone: str) -> None:
    """Wait until the server answers for the zone (any answer when `zone` is empty)."""
    query = dns.message.make_query((zone or "version.bind") + ".", dns.rdatatype.SOA)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            answer = dns.query.udp(query, server.address, port=server.port, timeout=0.3)
        except (OSError, dns.exception.DNSException):
            continue
        if not zone or answer.answer:
            return
    raise RuntimeError(f"{server.kind} didn't start:\n{server.log.read_text(errors='replace')[-3000:]}")
