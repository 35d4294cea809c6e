"""The kit for mutual TLS on a real nginx and a real HAProxy: a listed client gets in, a revoked one is refused by the
list, a foreign one is refused."""

from __future__ import annotations

import io
import os
import re
import ssl
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from certwright.entry.public import crl_document
from certwright.rooms import authorities
from certwright.rooms.authorities.words import LeafRequest
from certwright.x509.certificates import to_pem
from certwright.x509.issue import Subject
from tests.authorities.test_hierarchy import BELOW, make, signed_outside
from tests.conftest import World
from tests.servers.ports import free_port
from tests.servers.programs import find, require
from tests.x509.test_bundles_served import running

REFUSED = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.ConnectError)


@pytest.fixture
def now(world: World) -> World:
    """Real servers have the real time."""
    world.clock.set(datetime.now(UTC))
    return world


def kit(world: World, folder: Path, who: str, **where: str) -> Path:
    """The unpacked files of one client."""
    request = LeafRequest("client", (f"{who}@example.com",), Subject(common_name=who))
    name, content = world.run(authorities.client_kit(world.services, world.actor, request, **where))  # type: ignore[arg-type]
    assert name == f"{who}_example.com-mutual-tls.zip"
    place = folder / who
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(place)
    return place


def server_certificate(folder: Path) -> Path:
    """Any certificate for the listener itself; clients here don't look at it."""
    key, cert = folder / "server.key", folder / "server.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    both = folder / "server.pem"
    both.write_text(cert.read_text() + key.read_text())
    return both


def comes_in(port: int, client: Path | None) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if client is not None:
        (crt,) = client.glob("*.crt")
        context.load_cert_chain(crt, crt.with_suffix(".key"))
    try:
        with httpx2.Client(verify=context) as web:
            return web.get(f"https://127.0.0.1:{port}/").status_code == 200
    except REFUSED:
        return False


@contextmanager
def nginx(place: Path, listener: Path, server: Path) -> Iterator[int]:
    port = free_port()
    note = (listener / "README.txt").read_text()
    lines = [line.strip() for line in note.splitlines() if line.strip().startswith("ssl_")]
    asks = "\n".join(lines).replace("/etc/nginx/certs", str(listener))
    user = "user root;" if os.geteuid() == 0 else ""
    conf = place / "nginx.conf"
    conf.write_text(
        f"{user} daemon off; pid {place}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; server {{ listen 127.0.0.1:{port} ssl;\n"
        f"ssl_certificate {server}; ssl_certificate_key {server};\n{asks}\nlocation / {{ return 200 in; }} }} }}\n"
    )
    with running([str(find("nginx")), "-e", "stderr", "-c", str(conf)], port, place / "log"):
        yield port


@contextmanager
def haproxy(place: Path, listener: Path, server: Path) -> Iterator[int]:
    port = free_port()
    note = (listener / "README.txt").read_text()
    (bind,) = [line.strip() for line in note.splitlines() if line.strip().startswith("bind")]
    bind = bind.replace("/etc/haproxy/certs/server.pem", str(server)).replace("/etc/haproxy/certs", str(listener))
    conf = place / "haproxy.cfg"
    conf.write_text(
        "defaults\n mode http\n timeout client 5s\n timeout connect 5s\n timeout server 5s\n"
        f"frontend in\n {bind.replace(':443', f'127.0.0.1:{port}')}\n\n"
        " http-request return status 200 content-type text/plain string in\n"
    )
    with running([str(find("haproxy")), "-db", "-f", str(conf)], port, place / "log"):
        yield port


def test_the_lists_are_had_where_the_readme_says_in_the_form_a_listener_reads(now: World, tmp_path: Path) -> None:
    listener = kit(now, tmp_path, "ann", ca_name="Shop clients")
    names = re.findall(r"/crl/(\S+)", (listener / "README.txt").read_text())
    found = [now.run(crl_document(now.services, name)).content for name in names]
    assert len(found) == 2  # of the CA and of its root: nginx refuses everybody where one is missing
    assert b"".join(filter(None, found)) == (listener / "crl.pem").read_bytes()


@pytest.mark.parametrize("whole", [True, False], ids=["with its chain", "without"])
def test_whose_lists_are_led_elsewhere_is_told_with_what_to_do(now: World, tmp_path: Path, whole: bool) -> None:
    ca = make(now, BELOW, outside=True)
    assert ca.csr_der is not None
    child, root = signed_outside(now, ca.csr_der)
    pem = to_pem(child) + (to_pem(root) if whole else "")
    now.run(authorities.install_certificate(now.services, now.actor, ca.id, pem))
    note = (kit(now, tmp_path, "ann", authority_id=ca.id) / "README.txt").read_text()
    elsewhere = "CN=Outside root" if whole else "CN=Outside root (and its certificate into ca.pem)"
    assert f"\n    {elsewhere}: ask whoever leads it\n" in note
    assert "isn't whole yet" not in (kit(now, tmp_path, "bob", ca_name="Shop clients") / "README.txt").read_text()


@pytest.mark.parametrize("server", [nginx, haproxy], ids=["nginx", "HAProxy"])
def test_a_listed_client_gets_in_a_revoked_and_a_foreign_one_do_not(now: World, tmp_path: Path, server: Any) -> None:
    require(server.__name__)
    ann = kit(now, tmp_path, "ann", ca_name="Shop clients")
    (ca,) = [c for c in now.run(authorities.list_authorities(now.services, now.actor)) if c.name == "Shop clients"]
    bob = kit(now, tmp_path, "bob", authority_id=ca.id)
    foreign = kit(now, tmp_path, "eve", ca_name="Other clients")
    leaves = now.run(authorities.list_leaves(now.services, now.actor, ca.id, search="bob@example.com"))
    now.run(authorities.revoke_leaf(now.services, now.actor, ca.id, leaves[0].id, "key_compromise"))
    # The next client's kit brings the list as it is now.
    listener = kit(now, tmp_path, "cy", authority_id=ca.id)
    with server(tmp_path, listener, server_certificate(tmp_path)) as port:
        assert comes_in(port, ann)
        assert comes_in(port, listener)
        assert not comes_in(port, bob)
        assert not comes_in(port, foreign)
        assert not comes_in(port, None)
