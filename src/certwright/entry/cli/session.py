"""`certwright login`, `logout`, `whoami`: who we are, and why we believe the server is the one it says."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certwright.entry.cli import output, settings
from certwright.entry.cli.common import Json, open_api, present
from certwright.entry.cli.errors import NOT_REACHABLE, NOT_SIGNED_IN, USAGE, CliError

if TYPE_CHECKING:
    from certwright.entry.cli.client import Api

_LONGEST_PATH = 5


def login(
    url: Annotated[str | None, typer.Argument(help="https://host:port; default: the product on this machine.")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="PEM file with the server's root certificate.")] = None,
    trust_fingerprint: Annotated[
        str | None, typer.Option(help="SHA-256 of the server's root, known from elsewhere: trust just that one.")
    ] = None,
    email: Annotated[str | None, typer.Option(help="Your e-mail address; else you are asked.")] = None,
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Read an API token from standard input instead of signing in.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, max=365, help="How long the new token is good.")] = 90,
) -> None:
    """Sign in, and store an API token for the other commands in a file that only you can read.

    There is no option for password or token: what stands on a command line can be read by others on the machine.
    """
    address = settings.normal_url(url or os.environ.get("CERTWRIGHT_URL") or settings.DEFAULT_URL)
    trusted = _trust(address, ca_file, trust_fingerprint)
    from certwright.entry.cli.client import Api

    if token_stdin:
        token, token_id = sys.stdin.readline().strip(), None
        if not token:
            raise CliError("token_missing", "There was no token on standard input.", exit_code=USAGE)
        with Api(settings.Connection(address, token, trusted)) as api:
            me = api.get("/me")
    else:
        with Api(settings.Connection(address, None, trusted)) as api:
            made, me = sign_in(api, *_ask(email), name=f"CLI on {socket.gethostname()}"[:100], days=days)
        token, token_id = made["token"], made["id"]
    ca_text = str(trusted.resolve()) if trusted else None
    path = settings.write_stored(settings.Stored(address, token, token_id, ca_text), os.environ)
    output.say(f"Signed in to {address} as {me['name']} ({me['account']['name']}). Kept in {path}.")


def _ask(email: str | None) -> tuple[str, str]:
    if not sys.stdin.isatty():
        raise CliError(
            "no_terminal", "Nobody can be asked for a password here.",
            "Pipe an API token instead: certwright login --token-stdin < file", exit_code=USAGE,
        )  # fmt: skip
    import getpass

    return email or typer.prompt("E-mail address"), getpass.getpass("Password: ")


def sign_in(api: Api, email: str, password: str, *, name: str, days: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A fresh API token (its document, with the text) and who we are; the session that made it is ended."""
    # What a browser would send: changes made with a session cookie must come from the server's own pages.
    own = {"Origin": api.url}
    api.call("POST", "/sign-in", body={"email": email, "password": password}, headers=own)
    try:
        made = api.call("POST", "/tokens", body={"name": name, "days": days}, headers=own).document
        me = api.get("/me")
    finally:
        api.call("POST", "/sign-out", headers=own)
    return made, me


def logout() -> None:
    """Revoke the stored token and forget it."""
    stored = settings.read_stored(os.environ)
    if stored is None:
        output.say("Nobody is signed in.")
        return
    if stored.token_id:
        from certwright.entry.cli.client import Api

        ca_file = Path(stored.ca_file) if stored.ca_file else None
        try:
            with Api(settings.Connection(stored.url, stored.token, ca_file)) as api:
                api.delete(f"/tokens/{stored.token_id}")
        except CliError as error:
            if error.exit_code != NOT_SIGNED_IN:
                raise
            # It is no longer good: what we wanted.
    settings.forget_stored(os.environ)
    output.say(f"Signed out of {stored.url}.")


def whoami(as_json: Json = False) -> None:
    """Show who we are to the server, and what we may do."""
    with open_api() as api:
        me = api.get("/me")
    present(me, as_json=as_json)


# --- trust ----------------------------------------------------------------------------------------------------------


def _trust(url: str, ca_file: Path | None, fingerprint: str | None) -> Path | None:
    """The file with the root to verify `url` against; None when the system's roots do."""
    if ca_file is not None:
        if not ca_file.is_file():
            raise CliError("ca_file_missing", f"There is no file {ca_file}.", exit_code=USAGE)
        _probe(url, ca_file)
        return ca_file
    named = os.environ.get("CERTWRIGHT_CA_FILE")
    for known in (Path(named) if named else None, _root_path(url), settings.local_root(os.environ), None):
        if known is not None and not known.is_file():
            continue
        try:
            _probe(url, known)
        except CliError as error:
            if error.code != "certificate_not_trusted":
                raise
            continue
        return known
    return _trust_on_first_use(url, fingerprint)


def _probe(url: str, ca_file: Path | None) -> None:
    """Raises CliError unless the server is there and proves who it is."""
    from certwright.entry.cli.client import Api

    with Api(settings.Connection(url, None, ca_file)) as api:
        try:
            api.get("/me")
        except CliError as error:
            if error.exit_code != NOT_SIGNED_IN:
                raise


def _root_path(url: str) -> Path:
    name = "".join(c if c.isalnum() or c in ".-" else "_" for c in url.removeprefix("https://"))
    return settings.config_dir(os.environ) / f"root-{name}.pem"


def _trust_on_first_use(url: str, fingerprint: str | None) -> Path:
    """Fetch the server's root without trust, show its fingerprint, and keep it if a person says that it is right."""
    root_pem, found = fetch_root(url)
    shown = ":".join(found[i : i + 2] for i in range(0, len(found), 2)).upper()
    output.say(f"{url} proves itself with a root this machine doesn't know:\n  SHA-256 {shown}")
    output.say("Compare it on the server: openssl x509 -noout -fingerprint -sha256 -in <data directory>/root.pem")
    if fingerprint is not None:
        if fingerprint.replace(":", "").strip().lower() != found:
            raise CliError(
                "fingerprint_differs", "The root has another fingerprint than the one given.",
                "Don't go on: somebody may be in between.", exit_code=NOT_REACHABLE,
            )  # fmt: skip
    elif not sys.stdin.isatty():
        raise CliError(
            "certificate_not_trusted", f"The root of {url} is not trusted, and nobody can be asked here.",
            "Give --ca-file, or --trust-fingerprint with a fingerprint known from elsewhere.",
            exit_code=NOT_REACHABLE,
        )  # fmt: skip
    else:
        typer.confirm("Is it the same?", abort=True)
    path = settings.write_private(_root_path(url), root_pem)
    _probe(url, path)
    return path


def fetch_root(url: str) -> tuple[str, str]:
    """(PEM, SHA-256 in hex) of the self-signed certificate above what `url` serves. Nothing is verified yet.

    Climbs the caIssuers addresses of the certificates (RFC 5280 4.2.2.1), but only on this very server.
    """
    import ssl
    from urllib.parse import urlsplit

    import httpx2
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding

    split = urlsplit(url)
    try:
        pem = ssl.get_server_certificate((split.hostname or "", split.port or 443), timeout=10)
        certificate = x509.load_pem_x509_certificate(pem.encode())
        # This one connection can't be verified: what it fetches is shown to a person before anything relies on it.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with httpx2.Client(verify=context, timeout=10, trust_env=False) as client:
            for _ in range(_LONGEST_PATH):
                if certificate.issuer == certificate.subject:
                    certificate.verify_directly_issued_by(certificate)
                    text = certificate.public_bytes(Encoding.PEM).decode()
                    return text, certificate.fingerprint(SHA256()).hex()
                answer = client.get(url + urlsplit(_issuer_address(certificate)).path)
                issuer = x509.load_der_x509_certificate(answer.content)
                certificate.verify_directly_issued_by(issuer)
                certificate = issuer
    except (OSError, httpx2.HTTPError) as error:
        raise CliError(
            "not_reachable", f"{url} can't be reached: {error}.", "Check the address and that the server runs.",
            exit_code=NOT_REACHABLE,
        ) from error  # fmt: skip
    except (ValueError, TypeError, _no_signature()) as error:
        raise _no_root(url) from error
    raise _no_root(url)


def _no_signature() -> type[Exception]:
    from cryptography.exceptions import InvalidSignature

    return InvalidSignature


def _issuer_address(certificate: Any) -> str:
    from cryptography import x509
    from cryptography.x509.oid import AuthorityInformationAccessOID as Method

    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound as error:
        raise ValueError("no issuer address") from error
    for entry in access:
        if entry.access_method == Method.CA_ISSUERS:
            return str(entry.access_location.value)
    raise ValueError("no issuer address")


def _no_root(url: str) -> CliError:
    return CliError(
        "root_not_found", f"The root certificate of {url} can't be fetched from it.",
        "Copy root.pem from the server's data directory and name it: --ca-file root.pem", exit_code=NOT_REACHABLE,
    )  # fmt: skip
