"""One typed, frozen Settings value per process, read from the environment and a TOML file and checked at start.

Environment wins over the file: `CERTWRIGHT_LISTEN=0.0.0.0:8443` or `listen = "0.0.0.0:8443"` in
`certwright.toml` of the data directory (or the file `CERTWRIGHT_CONFIG` names).
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import platformdirs
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from certwright.kernel.problems import Invalid, InvalidFields, Problem

PREFIX = "CERTWRIGHT_"

# Read by the command line and at start, not settings of the product.
_OF_THE_COMMAND_LINE = ("config", "url", "token", "ca_file")


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
Networks = Annotated[tuple[IPvAnyNetwork, ...], BeforeValidator(_split)]


def host_and_port(text: str) -> tuple[str, int]:
    """`"127.0.0.1:8443"`, `"[::1]:53"` or `"ns1.example.com:53"` as (host, port); raises ValueError."""
    split = urlsplit("//" + text)
    if split.hostname is None or split.port is None or split.path or split.username:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return split.hostname, split.port


class Settings(BaseModel):
    """Everything an operator can set. Durations are in seconds unless the name says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir("certwright")))
    """Database, keyring and backups; made with mode 0700."""
    database_url: SecretStr | None = None
    """postgresql://… of an external server; unset means the embedded one below data_dir."""
    database_pool: int = Field(default=12, ge=3, le=200)
    app_database_url: SecretStr | None = None
    """With `serve --split` on an external server: the role of web and worker, which can't read CA keys."""
    signer_database_url: SecretStr | None = None
    """With `serve --split` on an external server: the role of the signing process."""

    listen: str = "127.0.0.1:8443"
    public_url: str | None = None
    """How users and CRL readers reach this server; default https://<listen>."""
    status_listen: str | None = None
    """HOST:PORT where revocation lists, OCSP and CA certificates, and nothing else, are had without TLS; default
    nowhere."""
    status_url: str | None = Field(default=None, validate_default=True)
    """How those who check certificates reach `status_listen`; new certificates name it. Default
    http://<status_listen>, and without that the address of the product."""
    trusted_proxies: Networks = ()
    """Reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    organization: str = "Certwright"
    """Name in the subjects of the built-in CA made at first start."""
    private_ca_quota: int = Field(default=100, ge=2, le=100_000)
    """How many private CAs an account may have."""
    ca_keyring_file: Path | None = None
    """The keyring that opens CA keys and nothing else; default signing/keyring.json below data_dir."""
    signer_socket: Path | None = None
    """Where a signing process of its own listens; set, web and worker ask it instead of opening CA keys."""
    signer_group: str | None = None
    """Members of this group of the operating system may ask the signing process, besides its own user."""
    hsm_module: Path | None = None
    """The HSM's PKCS#11 library (.so), for CA keys that never leave it; unset means there is no HSM."""
    hsm_token_label: str | None = None
    """The token CA keys are made in."""
    hsm_pin: SecretStr | None = None
    hsm_pin_file: Path | None = None
    """A file with the user's PIN; in place of hsm_pin, which others on the machine may see in the environment."""
    hsm_timeout: float = Field(default=10, gt=0, le=300)
    """How long the HSM may take for a signature; for making a key ten times as long."""

    allowed_networks: Networks = ()
    """Private networks that checks, probes and webhooks may reach (default: public addresses only)."""
    dns_servers: Words = ()
    """Recursive resolvers as HOST:PORT; default the system's."""
    public_resolvers: Words = ()
    """Resolvers of others, HOST:PORT with IP addresses, asked whether a record has arrived there too; they learn the
    names."""
    dns_authoritative_port: int = Field(default=53, ge=1, le=65535)
    validation_http_port: int = Field(default=80, ge=1, le=65535)
    """Where file validation looks; anything but 80 is only right for a private network."""
    validation_tls_port: int = Field(default=443, ge=1, le=65535)
    """Where tls-alpn-01 is looked for; anything but 443 is only right for a private network."""
    tls_alpn_listen: str | None = None
    """HOST:PORT where tls-alpn-01 is answered for CAs, which connect to port 443 of the name; default nowhere."""

    observations_days: int = Field(default=90, ge=1)
    """What endpoints served is forgotten so long after they began to serve something else."""
    alarms_days: int = Field(default=400, ge=1)
    """Cleared alarms are forgotten so long after, with their history."""
    messages_days: int = Field(default=90, ge=1)
    """Messages are forgotten so long after they were sent or given up."""

    lone_desk: bool = False
    """Applicants of the operator's account may verify their own OV applications to the built-in CA."""
    ca_patience_hours: float = Field(default=6, gt=0, le=24 * 14)
    """A CA that is away is waited for so long before a certificate's second CA is asked."""
    superseded_grace_days: float = Field(default=7, ge=0, le=90)
    """A version that was reissued is revoked so long after nothing serves it any more."""
    privacy_statement_file: Path | None = None
    """A UTF-8 text in place of the shipped privacy statement that applicants agree to."""
    service_statement_file: Path | None = None
    """A UTF-8 text in place of the shipped service statement that buyers agree to."""

    uploaded_servers: int = Field(default=100, ge=0)
    """How many server certificates issued elsewhere an account may hold."""
    uploaded_client_cas: int = Field(default=100, ge=0)
    """How many CA certificates for checking clients an account may hold."""
    weak_keys_file: Path | None = None
    """A list of keys whose private half is public: badkeys' blocklist.dat or a text of Debian's openssl-blacklist."""

    smtp_host: str | None = None
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_security: str = Field(default="starttls", pattern="^(none|starttls|tls)$")
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    smtp_from: str = "certwright@localhost"

    probe_interval: float = Field(default=300, gt=0)
    sweep_interval: float = Field(default=1.0, gt=0)
    """How often the worker looks for due rows."""
    step_lease: float = Field(default=60, gt=0)
    """After this long a step of a killed worker is run again."""
    worker_heartbeat: float = Field(default=20, gt=0)
    """A job whose worker was not heard of for this long is handed to another."""

    session_hours: float = Field(default=12, gt=0, le=24 * 30)
    log_format: str = Field(default="auto", pattern="^(auto|json|text)$")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    @field_validator("listen", "status_listen", "tls_alpn_listen")
    @classmethod
    def _listen(cls, value: str | None) -> str | None:
        if value is not None:
            host_and_port(value)
        return value

    @field_validator("dns_servers", "public_resolvers")
    @classmethod
    def _servers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for server in value:
            host_and_port(server)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: tuple[IPvAnyNetwork, ...]) -> tuple[IPvAnyNetwork, ...]:
        for network in value:
            if network.prefixlen == 0:
                raise ValueError(f"with {network} anybody could claim to be anybody; name the proxies' own addresses")
        return value

    @field_validator("privacy_statement_file", "service_statement_file", "weak_keys_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"there is no file {value}")
        return value

    @field_validator("status_url")
    @classmethod
    def _status_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        address = info.data.get("status_listen")
        anywhere = ("0.0.0.0", "::")  # noqa: S104  # read, not bound
        if value is None and address is not None and host_and_port(address)[0] in anywhere:
            raise ValueError(f"{address} is every address of this machine; say which one certificates shall name")
        return cls._url(value)

    @field_validator("public_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(value).scheme not in ("http", "https"):
            raise ValueError("it must begin with https:// or http://")
        return value.rstrip("/") if value else None

    @property
    def base_url(self) -> str:
        """The address users type, without a trailing slash."""
        return self.public_url or f"https://{self.listen}"

    @property
    def status_base_url(self) -> str:
        """Where certificates say that lists, OCSP and their issuer are found, without a trailing slash."""
        if self.status_url is not None:
            return self.status_url
        return f"http://{self.status_listen}" if self.status_listen is not None else self.base_url


def load_settings(environ: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read file and environment; raises InvalidFields naming each wrong setting the way it was given."""
    environ = os.environ if environ is None else environ
    given: dict[str, Any] = {}
    source: dict[str, str] = {}
    path = config_file(environ)
    if path is not None:
        try:
            for key, value in tomllib.loads(path.read_text()).items():
                given[key], source[key] = value, f"{key} in {path.name}"
        except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
            raise Invalid(
                "config_unreadable", f"The configuration {path} can't be read: {error}.", field="CERTWRIGHT_CONFIG",
                fix="Correct the file; it is TOML with one setting a line.",
            ) from error  # fmt: skip
    for variable, value in environ.items():
        key = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and key not in Settings.model_fields and key not in _OF_THE_COMMAND_LINE:
            meant = difflib.get_close_matches(key, Settings.model_fields, 1, 0.8)
            if meant:
                raise Invalid(
                    "setting_unknown", f"There is no setting {variable}.", field=variable,
                    fix=f"Perhaps {PREFIX}{meant[0].upper()} is meant.",
                )  # fmt: skip
        if variable.startswith(PREFIX) and key in Settings.model_fields:
            given[key], source[key] = value, variable
    for key, value in (overrides or {}).items():
        given[key], source[key] = value, key
    try:
        return Settings(**given)
    except ValidationError as error:
        raise InvalidFields(_setting_problem(e, source) for e in error.errors(include_input=False)) from None


def config_file(environ: Mapping[str, str]) -> Path | None:
    named = environ.get(PREFIX + "CONFIG")
    if named:
        return Path(named)
    default = Path(environ.get(PREFIX + "DATA_DIR") or platformdirs.user_data_dir("certwright")) / "certwright.toml"
    return default if default.is_file() else None


def _setting_problem(error: Any, source: Mapping[str, str]) -> Problem:
    key = str(error["loc"][0]) if error["loc"] else "settings"
    name = source.get(key, key)
    if error["type"] == "extra_forbidden":
        return Invalid("setting_unknown", f"There is no setting {key!r}.", field=name, fix="Check the spelling.")
    reason = error["msg"].removeprefix("Value error, ")
    return Invalid("setting_invalid", f"{name} is not usable: {reason}.", field=name, fix=f"Set {name} anew.")
