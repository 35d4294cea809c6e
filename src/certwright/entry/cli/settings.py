"""Where the server is and who we are: environment first, then `cli.toml`, then the product on this machine.

`CERTWRIGHT_URL`, `CERTWRIGHT_TOKEN` and `CERTWRIGHT_CA_FILE` beat the file. A stored token is only ever sent to the
address it was stored for.
"""

from __future__ import annotations

import os
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from certwright.entry.cli.errors import USAGE, CliError

DEFAULT_URL = "https://127.0.0.1:8443"


@dataclass(frozen=True, slots=True)
class Connection:
    """`ca_file` None: the system's roots."""

    url: str
    token: str | None
    ca_file: Path | None


@dataclass(frozen=True, slots=True)
class Stored:
    """What `certwright login` keeps. `token_id` lets `logout` revoke the token."""

    url: str
    token: str
    token_id: str | None = None
    ca_file: str | None = None


def config_dir(environ: Mapping[str, str]) -> Path:
    """Ours below the user's configuration directory; `CERTWRIGHT_CLI_DIR` names another."""
    named = environ.get("CERTWRIGHT_CLI_DIR")
    if named:
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_config_dir("certwright"))


def config_file(environ: Mapping[str, str]) -> Path:
    return config_dir(environ) / "cli.toml"


def load(environ: Mapping[str, str] | None = None) -> Connection:
    """Raises CliError for an address or a file that can't be used."""
    environ = os.environ if environ is None else environ
    stored = read_stored(environ)
    url = normal_url(environ.get("CERTWRIGHT_URL") or (stored.url if stored else DEFAULT_URL))
    token = environ.get("CERTWRIGHT_TOKEN") or (stored.token if stored and stored.url == url else None)
    ca_file: Path | None = None
    if environ.get("CERTWRIGHT_CA_FILE"):
        ca_file = Path(environ["CERTWRIGHT_CA_FILE"])
        if not ca_file.is_file():
            raise CliError(
                "ca_file_missing", f"CERTWRIGHT_CA_FILE names {ca_file}, which is not there.",
                "Correct it, or unset it to use the system's roots.", exit_code=USAGE,
            )  # fmt: skip
    elif stored and stored.url == url and stored.ca_file:
        ca_file = Path(stored.ca_file)
    elif is_local(url):
        ca_file = local_root(environ)
    return Connection(url, token, ca_file)


def normal_url(text: str) -> str:
    """`host[:port]` or an https:// address, without path and slash."""
    split = urlsplit(text if "://" in text else f"https://{text}")
    if split.scheme != "https" or not split.hostname or split.username or split.path.strip("/") or split.query:
        raise CliError(
            "url_invalid", f"{text!r} is not the address of a server.", "Write https://host:port.", exit_code=USAGE
        )
    return f"https://{split.netloc.lower()}"


def is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def local_root(environ: Mapping[str, str]) -> Path | None:
    """The root that `certwright serve` on this machine wrote beside its data."""
    named = environ.get("CERTWRIGHT_DATA_DIR")
    if named:
        path = Path(named) / "root.pem"
    else:
        import platformdirs

        path = Path(platformdirs.user_data_dir("certwright")) / "root.pem"
    try:
        return path if path.is_file() else None
    except PermissionError:
        return None


def read_stored(environ: Mapping[str, str]) -> Stored | None:
    path = config_file(environ)
    try:
        found = tomllib.loads(path.read_text())
        return Stored(found["url"], found["token"], found.get("token_id"), found.get("ca_file"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as error:
        raise CliError(
            "cli_config_unreadable", f"{path} can't be used: {error}.", "Remove it and run certwright login.",
            exit_code=USAGE,
        ) from error  # fmt: skip


def write_stored(stored: Stored, environ: Mapping[str, str]) -> Path:
    """Replace the file at once, readable by its owner alone."""
    import tomli_w

    found = {"url": stored.url, "token": stored.token, "token_id": stored.token_id, "ca_file": stored.ca_file}
    return write_private(config_file(environ), tomli_w.dumps({k: v for k, v in found.items() if v is not None}))


def write_private(path: Path, text: str) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def forget_stored(environ: Mapping[str, str]) -> None:
    config_file(environ).unlink(missing_ok=True)
