"""What to type into ACME clients to have them get and renew certificates here: for the console and the command line."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

ROOT_FILE = "/etc/certwright-root.pem"
WEB_ROOT = "/var/www/html"


@dataclass(frozen=True, slots=True)
class Asked:
    """`key_id` and `secret` are those of a key for binding; empty where the service needs none, and `…` where one has
    yet to be made."""

    url: str
    names: tuple[str, ...]
    email: str = "admin@example.internal"
    key_id: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Commands or configuration for one client; `file` names the file it belongs into, None for a shell."""

    client: str
    name: str
    text: str
    file: str | None = None


def recipes(asked: Asked) -> tuple[Recipe, ...]:
    """One for each client people use, the most used first; of acme.sh and cert-manager by their documentation."""
    return tuple(make(asked) for make in (_certbot, _lego, _caddy, _apache, _acme_sh, _dehydrated, _cert_manager))


def _lines(*lines: str) -> str:
    return "\n".join(line for line in lines if line)


def _command(*parts: str) -> str:
    """One command over several lines, a part on each."""
    return " \\\n    ".join(part for part in parts if part)


def _option(name: str, value: str) -> str:
    # An ellipsis stands for what has yet to be filled in; quotes would only hide it.
    return f"{name} {value if value == '…' else shlex.quote(value)}" if value else ""


def _each(option: str, names: tuple[str, ...]) -> str:
    return " ".join(f"{option} {shlex.quote(name)}" for name in names)


def _certbot(asked: Asked) -> Recipe:
    return Recipe("certbot", "certbot", _lines(
        f"export REQUESTS_CA_BUNDLE={ROOT_FILE}",
        _command(
            f"certbot certonly --standalone {_each('-d', asked.names)}",
            f"--server {asked.url}",
            " ".join(filter(None, (_option("--eab-kid", asked.key_id), _option("--eab-hmac-key", asked.secret)))),
            f"--email {asked.email} --agree-tos --non-interactive",
        ),
    ))  # fmt: skip


def _lego(asked: Asked) -> Recipe:
    return Recipe("lego", "lego", _lines(
        f"export LEGO_CA_CERTIFICATES={ROOT_FILE}",
        _command(
            f"lego --server {asked.url}",
            f"--email {asked.email} --accept-tos",
            " ".join(filter(None, (
                "--eab" if asked.key_id else "", _option("--kid", asked.key_id), _option("--hmac", asked.secret),
            ))),
            f"{_each('--domains', asked.names)} --http run",
        ),
    ))  # fmt: skip


def _caddy(asked: Asked) -> Recipe:
    # Beside the site, not among the global options: Caddy would take .internal names for its own CA there.
    return Recipe("caddy", "Caddy", _lines(
        f"{', '.join(asked.names)} {{",
        f"    tls {asked.email} {{",
        f"        ca {asked.url}",
        f"        ca_root {ROOT_FILE}",
        f"        eab {asked.key_id} {asked.secret}" if asked.key_id else "",
        "    }",
        '    respond "It works"',
        "}",
    ), "Caddyfile")  # fmt: skip


def _apache(asked: Asked) -> Recipe:
    return Recipe("apache", "Apache", _lines(
        f"MDCertificateAuthority {asked.url}",
        f"MDCACertificateFile {ROOT_FILE}",
        f"MDExternalAccountBinding {asked.key_id} {asked.secret}" if asked.key_id else "",
        f"MDContactEmail {asked.email}",
        "MDCertificateAgreement accepted",
        f"MDomain {' '.join(asked.names)}",
        "<VirtualHost *:443>",
        f"    ServerName {asked.names[0]}",
        f"    ServerAlias {' '.join(asked.names[1:])}" if len(asked.names) > 1 else "",
        "    SSLEngine on",
        "</VirtualHost>",
        "# then: a2enmod md ssl && systemctl restart apache2",
        "#       systemctl reload apache2 when it has the certificate, and each day for renewed ones",
    ), "/etc/apache2/sites-enabled/certwright.conf")  # fmt: skip


def _acme_sh(asked: Asked) -> Recipe:
    return Recipe("acme.sh", "acme.sh", _lines(
        _command(
            f"acme.sh --register-account --server {asked.url}",
            f"--ca-bundle {ROOT_FILE} --email {asked.email}",
            " ".join(filter(None, (_option("--eab-kid", asked.key_id), _option("--eab-hmac-key", asked.secret)))),
        ),
        _command(
            f"acme.sh --issue --server {asked.url}",
            f"--ca-bundle {ROOT_FILE} {_each('-d', asked.names)} -w {WEB_ROOT}",
        ),
    ))  # fmt: skip


def _dehydrated(asked: Asked) -> Recipe:
    return Recipe("dehydrated", "dehydrated", _lines(
        f'CA="{asked.url}"',
        f'CURL_OPTS="--cacert {ROOT_FILE}"',
        f'EAB_KID="{asked.key_id}"' if asked.key_id else "",
        f'EAB_HMAC_KEY="{asked.secret}"' if asked.key_id else "",
        f'CONTACT_EMAIL="{asked.email}"',
        f'WELLKNOWN="{WEB_ROOT}/.well-known/acme-challenge"',
        "# then: dehydrated --register --accept-terms",
        f"#       dehydrated --cron {_each('--domain', asked.names)}",
    ), "/etc/dehydrated/config")  # fmt: skip


def _cert_manager(asked: Asked) -> Recipe:
    secret = _lines(
        "apiVersion: v1",
        "kind: Secret",
        "metadata: {name: certwright-binding, namespace: cert-manager}",
        f"stringData: {{secret: {asked.secret}}}",
        "---",
    )
    binding = _lines(
        "    externalAccountBinding:",
        f"      keyID: {asked.key_id}",
        "      keySecretRef: {name: certwright-binding, key: secret}",
    )
    return Recipe("cert-manager", "cert-manager", _lines(
        secret if asked.key_id else "",
        "apiVersion: cert-manager.io/v1",
        "kind: ClusterIssuer",
        "metadata: {name: certwright}",
        "spec:",
        "  acme:",
        f"    server: {asked.url}",
        f"    email: {asked.email}",
        f"    caBundle: …  # base64 -w0 {ROOT_FILE}",
        binding if asked.key_id else "",
        "    privateKeySecretRef: {name: certwright-account}",
        "    solvers: [{http01: {ingress: {ingressClassName: nginx}}}]",
    ), "issuer.yaml")  # fmt: skip
