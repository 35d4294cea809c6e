"""ACME clients nobody here wrote, as their makers ship them, get, renew and revoke certificates of a running product.

Each story below is one client's. They are told at the same time: clients mostly wait, certbot for seconds an order.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certwright.entry.acme_clients import WEB_ROOT, Asked
from certwright.entry.cli.client import Api
from tests.acme_server.lab import PATIENCE, Bench, Lab, lab, owns, served, write_script
from tests.conftest import database_for
from tests.servers.caddy import require_caddy
from tests.servers.programs import find, missing, require

GUIDE = Path(__file__).parents[2] / "docs" / "guide"


@pytest.fixture
def running(tmp_path: Path, database_server: str) -> Iterator[Lab]:
    require("knotd")
    with database_for(database_server, "clients") as url, lab(tmp_path, url) as made:
        yield made


# --- certbot ----------------------------------------------------------------------------------------------------------

Certbot = Callable[..., str]


def certbot_of(bench: Bench) -> Certbot:
    program = Path(sys.executable).with_name("certbot")
    own = [f"--{kind}-dir={bench.folder / kind}" for kind in ("config", "work", "logs")]
    root = bench.lab.product.root
    return partial(bench.run, program, "--non-interactive", *own, REQUESTS_CA_BUNDLE=root)


def certbot_over_http(lab: Lab) -> None:
    bench = lab.bench("certbot")
    certbot = certbot_of(bench)
    www, shop = bench.name("www"), bench.name("shop")
    certbot(
        "certonly", "--server", lab.open["url"], "--agree-tos", "--no-eff-email", "-m", "certbot@corp.test",
        "--standalone", "--http-01-address", bench.address, "--http-01-port", lab.http_port, "--cert-name", "shop",
        "-d", shop, "-d", www, "--ip-address", bench.address, "--required-profile", "server", "--key-type", "rsa",
        "--rsa-key-size", 2048,
    )  # fmt: skip
    live = bench.folder / "config" / "live" / "shop"
    first = bench.read(live / "fullchain.pem", shop, www, bench.address)
    assert isinstance(first.public_key(), rsa.RSAPublicKey)
    assert owns(live / "privkey.pem", first)

    certbot("revoke", "--server", lab.open["url"], "--cert-name", "shop", "--no-delete-after-revoke",
            "--reason", "superseded")  # fmt: skip
    assert lab.leaf(first)["revocation_reason"] == "superseded"
    lab.await_listed(first)

    # The certificate has 89 days to go: that it is renewed all the same is the doing of renewal information (RFC 9773).
    certbot("renew", "--no-random-sleep-on-renew")
    second = bench.read(live / "fullchain.pem", shop, www, bench.address)
    assert second.serial_number != first.serial_number
    assert lab.leaf(second)["revoked_at"] is None

    certbot("update_account", "--server", lab.open["url"], "--no-eff-email", "-m", "certbot2@corp.test")
    assert lab.account_states(lab.open, "certbot2@corp.test") == ["valid"]
    certbot("unregister", "--server", lab.open["url"])
    assert lab.account_states(lab.open, "certbot2@corp.test") == ["deactivated"]


def certbot_over_dns_with_a_key_for_binding(lab: Lab) -> None:
    bench = lab.bench("certbot", "-dns")
    certbot = certbot_of(bench)
    key_id, secret = lab.binding("certbot")
    account = ("--agree-tos", "--no-eff-email", "-m", "certbot-wild@corp.test", "--eab-kid", key_id, "--eab-hmac-key")
    said = certbot("register", "--server", lab.bound["url"], *account, secret[::-1], fails=True)
    assert "HMAC" in said, "why it was refused"
    credentials = bench.folder / "rfc2136.ini"
    credentials.write_text(
        f"dns_rfc2136_server = {lab.dns.address}\ndns_rfc2136_port = {lab.dns.port}\n"
        f"dns_rfc2136_name = {lab.tsig.name}\ndns_rfc2136_secret = {lab.tsig.secret}\n"
        f"dns_rfc2136_algorithm = {lab.tsig.algorithm.upper()}\n"
    )
    credentials.chmod(0o600)
    ordering = [
        "certonly", "--server", lab.bound["url"], *account, secret, "--dns-rfc2136", "--dns-rfc2136-credentials",
        credentials, "--dns-rfc2136-propagation-seconds", 0,
    ]  # fmt: skip
    said = certbot(*ordering, "-d", "www.elsewhere.test", fails=True)
    assert "www.elsewhere.test isn't among the names this server may order" in " ".join(said.split())

    apex, every = "certbot.corp.test", "*.certbot.corp.test"
    certbot(*ordering, "--cert-name", "wild", "-d", apex, "-d", every, "--key-type", "ecdsa")
    live = bench.folder / "config" / "live" / "wild"
    first = bench.read(live / "fullchain.pem", apex, every)
    assert isinstance(first.public_key(), ec.EllipticCurvePublicKey)
    assert lab.account_states(lab.bound, "certbot-wild@corp.test") == ["valid"]

    said = certbot("renew", "--no-random-sleep-on-renew")
    assert "not due for renewal yet" in said
    log = (bench.folder / "logs" / "letsencrypt.log").read_text()
    assert f"GET {lab.bound['url'].removeprefix(lab.product.url).removesuffix('directory')}renewal-info/" in log
    assert "suggestedWindow" in log
    certbot("renew", "--force-renewal", "--no-random-sleep-on-renew")
    second = bench.read(live / "fullchain.pem", apex, every)
    assert second.serial_number != first.serial_number

    # By the certificate's key, as whoever found it could; the account isn't asked.
    certbot("revoke", "--server", lab.bound["url"], "--cert-path", live / "cert.pem", "--key-path",
            live / "privkey.pem", "--no-delete-after-revoke", "--reason", "keycompromise")  # fmt: skip
    assert lab.leaf(second)["revocation_reason"] == "key_compromise"
    assert lab.leaf(first)["revoked_at"] is None


# --- lego -------------------------------------------------------------------------------------------------------------


def lego(lab: Lab) -> None:
    require("lego")
    bench = lab.bench("lego")
    www, shop = bench.name("www"), bench.name("shop")
    told = lab.told("lego", Asked(lab.open["url"], (shop, www), "lego@corp.test"))
    path = bench.folder / "open"
    here = {"lego --server": f"lego --path {path} --http.port {bench.http} --key-type rsa2048 --server"}
    bench.type(told, here)
    chain, key = path / "certificates" / f"{shop}.crt", path / "certificates" / f"{shop}.key"
    first = bench.read(chain, shop, www)
    assert isinstance(first.public_key(), rsa.RSAPublicKey)
    bench.type(told, here | {"http run": "http renew --days 400 --reuse-key --no-random-sleep"})
    second = bench.read(chain, shop, www)
    assert second.serial_number != first.serial_number
    assert second.public_key() == first.public_key()
    assert owns(key, second)
    bench.type(told, here | {"http run": "http revoke --reason 1", f"--domains {www}": ""})
    assert lab.leaf(second)["revocation_reason"] == "key_compromise"
    lab.await_listed(second)


def lego_with_a_key_for_binding(lab: Lab) -> None:
    require("lego")
    bench = lab.bench("lego", "-bound")
    key_id, secret = lab.binding("lego")
    path = bench.folder / "bound"
    program = partial(
        bench.run, find("lego"), "--accept-tos", "--email", "lego-bound@corp.test", "--path", path, "--server",
        lab.bound["url"], "--eab", "--kid", key_id, "--hmac", secret, LEGO_CA_CERTIFICATES=lab.product.root,
        RFC2136_NAMESERVER=lab.dns.endpoint, RFC2136_TSIG_KEY=f"{lab.tsig.name}.",
        RFC2136_TSIG_ALGORITHM=f"{lab.tsig.algorithm}.", RFC2136_TSIG_SECRET=lab.tsig.secret,
        RFC2136_POLLING_INTERVAL=0, RFC2136_SEQUENCE_INTERVAL=0,
    )  # fmt: skip
    tls = bench.name("tls")
    program("--tls", "--tls.port", bench.tls, "-d", tls, "--key-type", "ec384", "run")
    certificate = bench.read(path / "certificates" / f"{tls}.crt", tls)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP384R1)

    apex, every = "lego.corp.test", "*.lego.corp.test"
    over_dns = ("--dns", "rfc2136", "--dns.disable-cp", "--dns.resolvers", lab.dns.endpoint, "-d", every)
    program(*over_dns, "-d", apex, "run")
    chain = path / "certificates" / "_.lego.corp.test.crt"
    first = bench.read(chain, every, apex)
    assert first.not_valid_after_utc < datetime.now(UTC) + timedelta(days=8)
    program(*over_dns, "-d", apex, "renew", "--days", 30, "--no-random-sleep")
    second = bench.read(chain, every, apex)
    assert second.serial_number != first.serial_number
    program(*over_dns, "revoke")
    assert lab.leaf(second)["revoked_at"] is not None


# --- dehydrated -------------------------------------------------------------------------------------------------------


def dehydrated_of(bench: Bench, config: str) -> Callable[..., str]:
    (bench.folder / "config").write_text(f"{config}\nBASEDIR={bench.folder}\n")
    return partial(bench.run, find("dehydrated"), "--config", bench.folder / "config")


def dehydrated_over_http(lab: Lab) -> None:
    require("dehydrated")
    bench = lab.bench("dehydrated")
    shop = bench.name("shop")
    site = bench.folder / "site"
    (site / ".well-known" / "acme-challenge").mkdir(parents=True)
    told = lab.told("dehydrated", Asked(lab.open["url"], (shop,), "dehydrated@corp.test"))
    told, _, then = told.replace(WEB_ROOT, str(site)).partition("# then:")
    dehydrated = dehydrated_of(bench, f"{told}\nKEY_ALGO=rsa\nKEYSIZE=2048")
    live = bench.folder / "certs" / shop
    with served(site, bench.http):
        bench.type(then.replace("#", ""), {"dehydrated ": f"dehydrated --config {bench.folder / 'config'} "})
        first = bench.read(live / "fullchain.pem", shop)
        assert isinstance(first.public_key(), rsa.RSAPublicKey)
        dehydrated("--cron", "-d", shop, "--force")
    second = bench.read(live / "fullchain.pem", shop)
    assert second.serial_number != first.serial_number
    dehydrated("--revoke", live / "cert.pem")
    assert lab.leaf(second)["revoked_at"] is not None
    lab.await_listed(second)
    dehydrated("--deactivate")
    assert lab.account_states(lab.open, "dehydrated@corp.test") == ["deactivated"]


_RECORD = """
import sys
import dns.query, dns.rcode, dns.tsig, dns.tsigkeyring, dns.update
host, port, zone, key, secret, what, *rest = sys.argv[1:]
update = dns.update.UpdateMessage(zone, keyring={dns.name.from_text(key): dns.tsig.Key(key, secret, "hmac-sha256")})
for name, _, value in zip(rest[::3], rest[1::3], rest[2::3]):
    place = f"_acme-challenge.{name}."
    update.add(place, 1, "TXT", value) if what == "deploy_challenge" else update.delete(place, "TXT", value)
answer = dns.query.tcp(update, host, port=int(port), timeout=10)
sys.exit(answer.rcode())
"""


def dehydrated_over_dns_with_a_key_for_binding(lab: Lab) -> None:
    require("dehydrated")
    bench = lab.bench("dehydrated", "-dns")
    key_id, secret = lab.binding("dehydrated")
    record = bench.folder / "record.py"
    record.write_text(_RECORD)
    update = f"{sys.executable} {record} {lab.dns.address} {lab.dns.port} corp.test {lab.tsig.name} {lab.tsig.secret}"
    hook = write_script(bench.folder / "hook", [
        "#!/bin/sh", 'case "$1" in', f'deploy_challenge|clean_challenge) {update} "$@" ;;', "esac",
    ])  # fmt: skip
    apex, every = "dehydrated.corp.test", "*.dehydrated.corp.test"
    told = lab.told("dehydrated", Asked(lab.bound["url"], (apex,), "dehydrated-wild@corp.test", key_id, secret))
    dehydrated = dehydrated_of(
        bench, f"{told}\nCHALLENGETYPE=dns-01\nHOOK={hook}\nHOOK_CHAIN=yes\nKEY_ALGO=prime256v1\n"
    )
    dehydrated("--cron", "--accept-terms", "-d", f"{apex} {every}", "--alias", "wild")
    certificate = bench.read(bench.folder / "certs" / "wild" / "fullchain.pem", apex, every)
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    dehydrated("--revoke", bench.folder / "certs" / "wild" / "cert.pem")
    assert lab.leaf(certificate)["revoked_at"] is not None


# --- Caddy ------------------------------------------------------------------------------------------------------------


def caddy(lab: Lab) -> None:
    """It gets its certificates by itself as it starts, and serves them. When one was revoked here, it hears of it from
    renewal information the next time it asks, which is every six hours, and has another before anybody notices."""
    program = require_caddy()
    bench = lab.bench("caddy")
    key_id, secret = lab.binding("caddy")
    plain, tls, told = bench.name("plain"), bench.name("tls"), bench.name("told")
    site = "{0} {{\n tls {{\n  issuer acme {{\n   disable_{1}_challenge\n  }}\n }}\n respond {0}\n}}\n"
    (bench.folder / "Caddyfile").write_text(
        f"{{\n admin off\n skip_install_trust\n renew_interval 1s\n storage file_system {bench.folder / 'storage'}\n"
        f" http_port {lab.http_port}\n https_port {lab.tls_port}\n default_bind {bench.address}\n"
        f" email caddy@corp.test\n acme_ca {lab.bound['url']}\n acme_ca_root {lab.product.root}\n"
        f" acme_eab {{\n  key_id {key_id}\n  mac_key {secret}\n }}\n}}\n"
        + site.format(plain, "tlsalpn") + site.format(tls, "http")
        + lab.told("caddy", Asked(lab.bound["url"], (told,), "caddy@corp.test", key_id, secret))
    )  # fmt: skip
    command = [program, "run", "--adapter", "caddyfile", "--config", str(bench.folder / "Caddyfile")]

    with started(bench, command):
        first = await_served(bench, plain)
        other = await_served(bench, tls)
        await_served(bench, told)
    said = said_by_caddy(bench)
    assert {one["challenge_type"] for one in said if one["msg"] == "trying to solve challenge"} == {
        "http-01", "tls-alpn-01"
    }  # fmt: skip
    # Half the life of a week from the start on.
    windows = {one["names"][0]: one["window_start"] for one in said if one["msg"] == "got renewal info"}
    middle = first.not_valid_before_utc + (first.not_valid_after_utc - first.not_valid_before_utc) / 2
    assert abs(windows[plain] - middle.timestamp()) < 5
    assert set(windows) == {plain, tls, told}

    lab.revoke(first)
    (kept,) = bench.folder.glob(f"storage/certificates/*/{plain}/{plain}.json")
    # Six hours later.
    kept.write_text(re.sub(r'"_retryAfter": "[^"]*"', '"_retryAfter": "2026-01-01T00:00:00Z"', kept.read_text()))
    with started(bench, command):
        second = await_served(bench, plain, instead_of=first)
        assert await_served(bench, tls) == other
    assert lab.leaf(second)["revoked_at"] is None


@contextmanager
def started(bench: Bench, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with (bench.folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=bench.folder, env=bench.environ(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield process
    except OSError as error:
        raise AssertionError((bench.folder / "log").read_text()[-4000:]) from error
    finally:
        process.terminate()
        process.wait(PATIENCE)


def await_served(bench: Bench, name: str, *, instead_of: x509.Certificate | None = None) -> x509.Certificate:
    """What a client that trusts the product's root is shown for `name`."""
    context = ssl.create_default_context(cafile=str(bench.lab.product.root))
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with (
                socket.create_connection((bench.address, bench.lab.tls_port), timeout=5) as plain,
                context.wrap_socket(plain, server_hostname=name) as secured,
            ):
                der = secured.getpeercert(binary_form=True)
            assert der is not None
            found = x509.load_der_x509_certificate(der)
            if found != instead_of:
                return found
        except OSError:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "the same is still served"
        time.sleep(0.05)


def said_by_caddy(bench: Bench) -> list[dict[str, Any]]:
    lines = (bench.folder / "log").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


# --- Apache -----------------------------------------------------------------------------------------------------------

_APACHE = """
ServerRoot {place}
PidFile {place}/pid
DefaultRuntimeDir {place}
Mutex default:{place}
ErrorLog {place}/log
LogLevel warn md:debug
ServerName apache.corp.test
User nobody
Group nogroup
{modules}
Listen {http}
Listen {tls} https
SSLSessionCache none
Protocols http/1.1 acme-tls/1
MDPortMap 80:{http_port} 443:{tls_port}
MDStoreDir {place}/md
# The second kind of key is what many have beside the first, and what acme-tls/1 stumbles over.
MDPrivateKeys secp384r1 rsa2048
MDCAChallenges http-01
MDStapling on
MDInitialDelay 0s
MDCheckInterval 1s
MDRetryDelay 1s
<MDomain {over_tls}>
MDCAChallenges tls-alpn-01
</MDomain>
<VirtualHost {http}>
DocumentRoot {place}
</VirtualHost>
<VirtualHost {tls}>
ServerName {over_tls}
SSLEngine on
</VirtualHost>
"""


def apache(lab: Lab) -> None:
    """Its mod_md gets certificates for two kinds of keys at http-01 and tls-alpn-01, staples the CA's answers about
    them, and when one was revoked hears of it from renewal information."""
    require("apache2")
    bench = lab.bench("apache")
    key_id, secret = lab.binding("apache")
    www, shop, over_tls = bench.name("www"), bench.name("shop"), bench.name("tls")
    modules = [one for one in ("mpm_event", "authz_core", "watchdog", "ssl", "md") if module(one).exists()]
    # It works as another user, to whom the folders of tests are closed.
    with tempfile.TemporaryDirectory(prefix="apache-") as made:
        place = Path(made)
        place.chmod(0o755)
        root = place / "root.pem"
        root.write_bytes(lab.product.root.read_bytes())
        told = lab.told("apache", Asked(lab.bound["url"], (www, shop), "apache@corp.test", key_id, secret))
        config = _APACHE.format(
            place=place, modules="\n".join(f"LoadModule {one}_module {module(one)}" for one in modules),
            http=bench.http, tls=bench.tls, over_tls=over_tls, http_port=lab.http_port, tls_port=lab.tls_port,
        )  # fmt: skip
        (place / "conf").write_text(config + told.replace("*:443", bench.tls).replace(str(lab.product.root), str(root)))
        with started(bench, [str(find("apache2")), "-f", str(place / "conf"), "-DFOREGROUND"]) as process:
            await_staged(place, www, over_tls)
            process.send_signal(signal.SIGUSR1)
            first = await_stapled(bench, www)
            await_stapled(bench, over_tls)
            chains = [place / "md" / "domains" / www / f"pubcert{kind}.pem" for kind in (".secp384r1", "")]
            pair = [bench.read(chain, www, shop) for chain in chains]
            assert first in pair
            assert [isinstance(one.public_key(), rsa.RSAPublicKey) for one in pair] == [False, True]

            lab.revoke(first)
            await_staged(place, www)
            process.send_signal(signal.SIGUSR1)
            second = await_stapled(bench, www, instead_of=first)
    assert lab.leaf(second)["revoked_at"] is None
    newest, before, *_ = lab.orders(lab.bound, www)
    assert newest["state"] == before["state"] == "valid"
    assert newest["replaces"] is not None


def module(name: str) -> Path:
    return Path(f"/usr/lib/apache2/modules/mod_{name}.so")


def await_staged(place: Path, *names: str) -> None:
    """Until Apache has all it would put to use when it is told to reload."""
    deadline = time.monotonic() + PATIENCE
    jobs = [place / "md" / "staging" / name / "job.json" for name in names]
    while not all(job.exists() and '"finished": true' in job.read_text() for job in jobs):
        said = (place / "log").read_text()[-3000:] if (place / "log").exists() else "no log"
        assert time.monotonic() < deadline, said
        time.sleep(0.05)


def await_stapled(bench: Bench, name: str, *, instead_of: x509.Certificate | None = None) -> x509.Certificate:
    """What is served for `name`, together with the CA's word that it is good."""
    command = [
        "openssl", "s_client", "-connect", bench.tls, "-servername", name, "-status", "-verify_return_error",
        "-CAfile", str(bench.lab.product.root),
    ]  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode == 0 and "Cert Status: good" in done.stdout:
            found = x509.load_pem_x509_certificate(done.stdout[done.stdout.rindex("-----BEGIN CERT") :].encode())
            if found != instead_of:
                return found
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(0.05)


# --- uacme ------------------------------------------------------------------------------------------------------------

_HOOK = """#!/bin/sh
case "$1 $2" in
"begin http-01") printf %s "$5" >"{site}/$4" ;;
"begin dns-01") {update} deploy_challenge "$3" x "$5" ;;
*" http-01") rm "{site}/$4" ;;
*" dns-01") {update} clean_challenge "$3" x "$5" ;;
*) exit 1 ;;
esac
"""


def uacme(lab: Lab) -> None:
    """A client in C: an account with EAB, another address for it, another key; by HTTP for an IP address, by DNS for a
    wildcard; what was revoked, as OCSP says, it replaces before its time."""
    require("uacme", "unshare")
    bench = lab.bench("uacme")
    key_id, secret = lab.binding("uacme")
    site = bench.folder / "site" / ".well-known" / "acme-challenge"
    record = bench.folder / "record.py"
    record.write_text(_RECORD)
    update = f"{sys.executable} {record} {lab.dns.address} {lab.dns.port} corp.test {lab.tsig.name} {lab.tsig.secret}"
    # While there is no site it declines http-01.
    hook = write_script(bench.folder / "hook", [_HOOK.format(site=site, update=update)])
    # It knows the system's roots and no others, so it is shown a system of its own.
    trusted = 'mount -t tmpfs none /etc/ssl/certs && cp "$0" /etc/ssl/certs/ca-certificates.crt && exec "$@"'
    if subprocess.run([str(find("unshare")), "--map-root-user", "--mount", "true"], capture_output=True).returncode:
        missing("no namespaces here, in which uacme could be shown the root")
    program = partial(
        bench.run, find("unshare"), "--map-root-user", "--mount", "sh", "-c", trusted, lab.product.root, find("uacme"),
        "--yes", "--hook", hook, "--confdir", bench.folder, "--type", "EC", "--acme-url",
    )  # fmt: skip
    bound = lab.bound["url"]
    assert "requires external credentials" in program(bound, "new", "uacme@corp.test", fails=True)
    program(bound, "--eab", f"{key_id}:{secret}", "new", "uacme@corp.test")
    program(bound, "newkey")
    program(bound, "update", "uacme-new@corp.test")
    assert lab.account_states(lab.bound, "uacme-new@corp.test") == ["valid"]

    apex, every = "uacme.corp.test", "*.uacme.corp.test"
    program(bound, "--bits", 384, "issue", every, apex)
    chain = bench.folder / apex / "cert.pem"
    first = bench.read(chain, every, apex)
    key = first.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP384R1)
    again = program(bound, "--verbose", "--days", 1, "issue", every, apex, fails=True)
    assert "skipping" in again
    lab.revoke(first)
    program(bound, "--days", 1, "issue", every, apex)
    second = bench.read(chain, every, apex)
    assert second.serial_number != first.serial_number

    program(bound, "--reason", 4, "revoke", chain)
    assert lab.leaf(second)["revocation_reason"] == "superseded"
    program(bound, "deactivate")
    assert lab.account_states(lab.bound, "uacme-new@corp.test") == ["deactivated"]
    assert "The account was deactivated" in program(bound, "issue", apex, fails=True)

    program(lab.open["url"], "--confdir", bench.folder / "open", "--type", "RSA", "new")
    site.mkdir(parents=True)
    with served(bench.folder / "site", bench.http):
        program(lab.open["url"], "--confdir", bench.folder / "open", "--type", "RSA", "issue", bench.address)
    bench.read(bench.folder / "open" / bench.address / "cert.pem", bench.address)


# --- our own ----------------------------------------------------------------------------------------------------------


def certwright_itself(lab: Lab) -> None:
    """The product's own ACME client at the product's own ACME server: by DNS, with EAB, and a new account key."""
    key_id, secret = lab.binding("certwright")
    api: Api = lab.api
    operator = {"server": lab.dns.address, "port": lab.dns.port, "key_name": lab.tsig.name}
    api.post("/dns-connections", {"name": "knot", "zones": ["corp.test"], "settings": operator,
                                  "secret": lab.tsig.secret})  # fmt: skip
    ca = api.post("/cas", {
        "name": "ourselves", "directory_url": lab.bound["url"], "public": False, "contacts": ["own@corp.test"],
        "root_pem": lab.product.root.read_text(), "eab_kid": key_id, "eab_key": secret,
    })  # fmt: skip
    tested = api.post(f"/cas/{ca['id']}/test")
    assert tested["problem"] is None
    assert api.post(f"/cas/{ca['id']}/change-key")["problem"] is None
    names = ["certwright.corp.test", "*.certwright.corp.test"]
    applicant = {"name": "Ann", "email": "ann@corp.test", "phone": "+49 30 1234567"}
    application = {"names": names, "validation_method": "dns", "applicant": applicant, "consent": True}
    made = api.post("/certificates", {"name": "own", "ca": "ourselves", "application": application})

    def await_version(number: int) -> x509.Certificate:
        deadline = time.monotonic() + PATIENCE
        while True:
            now = api.get(f"/certificates/{made['id']}")
            if now["state"] == "issued" and len(now["versions"]) == number:
                break
            assert time.monotonic() < deadline, now
            time.sleep(0.1)
        pem = api.call("GET", f"/certificates/{made['id']}/download", params={"format": "fullchain"}).content
        return x509.load_pem_x509_certificates(pem)[0]

    first = await_version(1)
    api.post(f"/certificates/{made['id']}/reissue", {})
    second = await_version(2)
    assert second.serial_number != first.serial_number
    newest, before = lab.orders(lab.bound, names[0])
    assert newest["replaces"] is not None
    assert before["replaces"] is None


# --- the guide --------------------------------------------------------------------------------------------------------


def a_newcomer_reads_the_page(lab: Lab) -> None:
    """Every command of docs/guide/acme-server.md up to "Other clients", as it stands there: only addresses and places
    of this machine are put in, and what `sudo` and `systemctl` do is let be."""
    bench = lab.bench("newcomer")
    _, making, ordering, renewing = sections("acme-server.md")[:4]
    programs = bench.folder / "bin"
    programs.mkdir()
    write_script(programs / "sudo", ["#!/bin/sh", 'while [ "${1#-}" != "$1" ]; do shift; done', 'exec "$@"'])
    write_script(programs / "systemctl", ["#!/bin/sh", f'echo "$@" >>{bench.folder}/systemctl.log'])
    # Where certbot itself looks for what differs on a machine.
    (bench.folder / ".config" / "letsencrypt").mkdir(parents=True)
    (bench.folder / ".config" / "letsencrypt" / "cli.ini").write_text(
        "".join(f"{kind}-dir = {bench.folder}/etc/letsencrypt/{kind}\n" for kind in ("config", "work", "logs"))
        + f"http-01-port = {lab.http_port}\nhttp-01-address = {bench.address}\n"
        # Nobody sits at a terminal here, and then it takes its time before it renews.
        + "no-random-sleep-on-renew = true\n"
    )
    (bench.folder / "etc").mkdir()
    environ = {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}", "CERTWRIGHT_URL": lab.product.url,
        "CERTWRIGHT_TOKEN": lab.token, "CERTWRIGHT_CA_FILE": lab.product.root,
    }  # fmt: skip

    said = bench.type(making, {}, **environ)
    printed = dict(re.findall(r"^(\w+): +(\S+)$", said, re.MULTILINE))
    assert printed["url"] == f"{lab.product.url}/acme/shop-servers/directory"
    (key_id,) = re.findall(r"^id: +(eab_\w+)$", said, re.MULTILINE)
    secret = printed["secret"]
    here = {"https://certs.shop.internal:8443": lab.product.url, " /etc/": f" {bench.folder}/etc/"}
    said = bench.type(ordering + renewing, here | {
        "--eab-kid eab_… --eab-hmac-key …": f"--eab-kid {key_id} --eab-hmac-key {secret}",
        "=/etc/": f"={bench.folder}/etc/",
    }, **environ)  # fmt: skip

    (root,) = x509.load_pem_x509_certificates(lab.product.root.read_bytes())
    assert root.fingerprint(hashes.SHA256()).hex(":").upper() in said
    live = bench.folder / "etc" / "letsencrypt" / "config" / "live" / "www.shop.internal"
    certificate = bench.read(live / "fullchain.pem", "www.shop.internal")
    renewed = [order for order in lab.orders_of("shop-servers") if order["state"] == "valid"]
    assert len(renewed) == 2
    assert int(renewed[0]["serial"], 16) == certificate.serial_number
    asked_of_systemd = (bench.folder / "systemctl.log").read_text().splitlines()
    assert asked_of_systemd == ["reload nginx", "daemon-reload", "reload nginx"]
    # What the timer will do, with the environment the page gave it.
    drop_in = (bench.folder / "etc/systemd/system/certbot.service.d/certwright.conf").read_text()
    name, _, value = drop_in.partition("Environment=")[2].strip().partition("=")
    assert "not due for renewal yet" in bench.run("certbot", "renew", "--non-interactive", **environ | {name: value})


def sections(page: str) -> list[str]:
    """The shell commands of each numbered or named part of a page of the guide, in its order."""
    parts = (GUIDE / page).read_text().split("\n## ")[1:]
    return ["".join(re.findall(r"^```sh\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)) for part in parts]


STORIES: tuple[Callable[[Lab], None], ...] = (
    certbot_over_http, certbot_over_dns_with_a_key_for_binding, lego, lego_with_a_key_for_binding,
    dehydrated_over_http, dehydrated_over_dns_with_a_key_for_binding, caddy, apache, uacme, certwright_itself,
    a_newcomer_reads_the_page,
)  # fmt: skip


def test_clients_get_renew_and_revoke_certificates(running: Lab, subtests: pytest.Subtests) -> None:
    with ThreadPoolExecutor(len(STORIES)) as pool:
        told = [(story.__name__, pool.submit(story, running)) for story in STORIES]
    for name, story in told:
        with subtests.test(name):
            story.result()


@pytest.mark.parametrize(
    ("program", "option"),
    [("lego", "--version"), ("dehydrated", "--version"), ("uacme", "--version"), ("apache2", "-v")],
)
def test_the_distribution_has_the_client(program: str, option: str) -> None:
    """A story that is left out because its client is missing isn't in the summary of a run by several workers."""
    require(program)
    done = subprocess.run([str(find(program)), option], capture_output=True, timeout=PATIENCE)
    assert b"version" in (done.stdout + done.stderr).lower()
