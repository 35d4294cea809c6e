"""Each download is proved by its server: started on the files of the archive as they are, it serves the chain."""

from __future__ import annotations

import io
import os
import socket
import ssl
import subprocess
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from certwright.x509 import bundles
from certwright.x509.bundles import Contents, Server, archive
from certwright.x509.certificates import to_pem
from certwright.x509.keys import KeyAlgorithm
from tests.servers.ports import free_port
from tests.servers.programs import find, require
from tests.x509.factory import NOW, hierarchy

HIERARCHIES = {"EC": hierarchy(), "RSA": hierarchy(KeyAlgorithm.RSA_2048)}
PATIENCE = 60.0
CATALINA = Path("/usr/share/tomcat10")


def unpacked(server: Server, which: str, place: Path) -> dict[str, Path]:
    """The files of the archive as unzip leaves them, by their names."""
    made = HIERARCHIES[which]
    contents = Contents("www.certwright.dev", [made.leaf, made.issuing], made.leaf_key)
    octets = archive(server, contents, at=NOW, random=os.urandom)
    with zipfile.ZipFile(io.BytesIO(octets)) as opened:
        for entry in opened.infolist():
            (place / entry.filename).write_bytes(opened.read(entry))
            (place / entry.filename).chmod(entry.external_attr >> 16 & 0o777)
        return {name: place / name for name in opened.namelist()}


def note_of(files: dict[str, Path]) -> str:
    return files["README.txt"].read_text()


@contextmanager
def running(command: Sequence[str], port: int, log: Path, **environment: str) -> Iterator[None]:
    """The server until it is asked to end; waits until it listens."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **environment})
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None, log.read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline, log.read_text()
            # There is no fact to wait for but the port itself.
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


def served(port: int, which: str) -> None:
    """The server shows leaf and intermediate, and a client that knows only the root trusts it by name."""
    made = HIERARCHIES[which]
    context = ssl.create_default_context(cadata=to_pem(made.root))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="www.certwright.dev") as tls,
    ):
        assert tls.getpeercert(binary_form=True) == made.leaf
    shown = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "www.certwright.dev", "-showcerts"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    assert shown.count("BEGIN CERTIFICATE") == 2
    assert to_pem(made.issuing) in shown


@pytest.mark.parametrize("which", HIERARCHIES)
def test_nginx(which: str, tmp_path: Path) -> None:
    require("nginx")
    files, port = unpacked(Server.NGINX, which, tmp_path), free_port()
    lines = [line.strip() for line in note_of(files).splitlines() if "ssl_certificate" in line]
    assert len(lines) == 2
    site = "\n".join(lines).replace("/etc/nginx/certs", str(tmp_path))
    user = "user root;" if os.geteuid() == 0 else ""
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        f"{user} daemon off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; server {{ listen 127.0.0.1:{port} ssl; {site} }} }}\n"
    )
    with running([str(find("nginx")), "-e", "stderr", "-c", str(conf)], port, tmp_path / "log"):
        served(port, which)


@pytest.mark.parametrize("which", HIERARCHIES)
def test_apache(which: str, tmp_path: Path) -> None:
    require("apache2")
    files, port = unpacked(Server.APACHE, which, tmp_path), free_port()
    lines = [line.strip() for line in note_of(files).splitlines() if line.strip().startswith("SSL")]
    assert len(lines) == 4
    modules = "\n".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so"
        for name in ("mpm_event", "ssl", "socache_shmcb", "authz_core")
        if Path(f"/usr/lib/apache2/modules/mod_{name}.so").exists()
    )
    conf = tmp_path / "apache.conf"
    conf.write_text(
        f"ServerRoot {tmp_path}\nServerName localhost\nPidFile {tmp_path}/pid\nErrorLog {tmp_path}/error.log\n"
        f"DefaultRuntimeDir {tmp_path}\nMutex posixsem\n{modules}\nListen 127.0.0.1:{port}\n"
        + "\n".join(lines).replace("/etc/apache2/certs", str(tmp_path))
        + "\n"
    )
    with running([str(find("apache2")), "-f", str(conf), "-DFOREGROUND"], port, tmp_path / "log"):
        served(port, which)


@pytest.mark.parametrize("which", HIERARCHIES)
def test_haproxy(which: str, tmp_path: Path) -> None:
    require("haproxy")
    files, port = unpacked(Server.HAPROXY, which, tmp_path), free_port()
    (line,) = [line.strip() for line in note_of(files).splitlines() if line.strip().startswith("bind ")]
    bind = line.replace(":443", f"127.0.0.1:{port}").replace("/etc/haproxy/certs", str(tmp_path))
    conf = tmp_path / "haproxy.cfg"
    conf.write_text(
        f"defaults\n  mode http\n  timeout client 5s\n  timeout server 5s\n  timeout connect 5s\nfrontend f\n  {bind}\n"
    )
    with running([str(find("haproxy")), "-db", "-f", str(conf)], port, tmp_path / "log"):
        served(port, which)


@pytest.mark.parametrize("store", ["pfx", "jks"])
@pytest.mark.parametrize("which", HIERARCHIES)
def test_tomcat(which: str, store: str, tmp_path: Path) -> None:
    if not (CATALINA / "bin" / "catalina.sh").exists():
        require("tomcat10")
    files, port = unpacked(Server.TOMCAT, which, tmp_path), free_port()
    password = files["www.certwright.dev.password.txt"].read_text().strip()
    text = note_of(files)
    connector = text[text.index("<Connector") : text.index("</Connector>") + len("</Connector>")]
    connector = connector.replace('port="443"', f'port="{port}" address="127.0.0.1"').replace('"..."', f'"{password}"')
    connector = connector.replace("/etc/tomcat10", str(tmp_path))
    if store == "jks":
        connector = connector.replace(".pfx", ".jks").replace('Type="PKCS12"', 'Type="JKS"')
    base = tmp_path / "base"
    for folder in ("conf", "logs", "temp", "webapps", "work"):
        (base / folder).mkdir(parents=True)
    (base / "conf" / "web.xml").write_text('<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0"/>')
    (base / "conf" / "server.xml").write_text(
        f'<Server port="-1"><Service name="Catalina">{connector}<Engine name="Catalina" defaultHost="localhost">'
        '<Host name="localhost" appBase="webapps"/></Engine></Service></Server>'
    )
    environment = {"CATALINA_HOME": str(CATALINA), "CATALINA_BASE": str(base)}
    with running([str(CATALINA / "bin" / "catalina.sh"), "run"], port, tmp_path / "log", **environment):
        served(port, which)


def test_a_chain_of_one_needs_no_chain_file(tmp_path: Path) -> None:
    made = HIERARCHIES["EC"]
    octets = archive(Server.APACHE, Contents("a.dev", [made.leaf], made.leaf_key), at=NOW, random=os.urandom)
    with zipfile.ZipFile(io.BytesIO(octets)) as opened:
        assert opened.namelist() == ["a.dev.crt", "a.dev.key", "README.txt"]
        assert b"_chain" not in opened.read("README.txt")


def test_the_same_arguments_give_the_same_archive_but_for_encryption() -> None:
    made = HIERARCHIES["EC"]
    contents = Contents("a.dev", [made.leaf, made.issuing], made.leaf_key, made.root)
    for server in (Server.NGINX, Server.APACHE, Server.WEBLOGIC, Server.KUBERNETES, Server.CHAIN, Server.P7B):
        one, two = (archive(server, contents, at=NOW, random=bytes) for _ in range(2))
        assert one == two


@pytest.mark.parametrize(
    ("name", "secret"),
    [("www.a.dev", "www.a.dev-tls"), ("_.a.dev", "a.dev-tls"), ("A_b..c", "a-b.c-tls"), ("2001_db8", "2001-db8-tls")],
)
def test_a_secret_has_a_name_kubernetes_takes(name: str, secret: str) -> None:
    assert bundles.secret_name(name) == secret
