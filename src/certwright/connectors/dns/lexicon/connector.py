"""The port's side: settings, credentials, and a worker process for each operation."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from certwright.kernel.problems import Invalid, InvalidFields, Problem, Refused, Unavailable
from certwright.platform.db import assert_no_transaction
from certwright.platform.egress import Egress
from certwright.platform.resolver import Nameserver, normal_name
from certwright.rooms.validation import longest_zone

DEFAULT_TIMEOUT = 60.0
_WORKER: Final = Path(__file__).with_name("worker.py")
_NAME = re.compile(r"[a-z0-9_]{1,40}")
_SECRET_LINE = re.compile(r"([a-z][a-z0-9_]{1,40})=(.+)")
# What we publish, and no more: providers differ in how they quote anything else.
_VALUE = re.compile(r"[A-Za-z0-9=_.-]{1,255}")
# They edit files of this machine, speak a protocol we speak ourselves, or guess.
_NOT_HERE: Final = frozenset(("auto", "ddns", "localzone"))
_NAMES_A_HOST = re.compile(r"(server|host|hostname|endpoint|url|uri)$")
# A process that was handed credentials gets nothing else but how to reach the world.
_PASSED_ON: Final = (
    "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE", "SYSTEMROOT",
    "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LexiconProvider:
    """Settings: provider (lexicon's name of the operator) and that provider's options that aren't secret. Secret: lines
    `option=value`, or one line that is the provider's `auth_token`."""

    timeout: float = DEFAULT_TIMEOUT

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        problems: list[Problem] = []
        provider = given.get("provider")
        if not isinstance(provider, str) or not _NAME.fullmatch(provider) or provider in _NOT_HERE:
            said = f"{str(provider)[:40]!r} can't be used here."
            problems.append(_wrong("provider", "lexicon_provider_invalid", said,
                                   "Enter the operator as dns-lexicon calls it, such as cloudflare."))  # fmt: skip
        for name, value in given.items():
            if name == "provider":
                continue
            if not _NAME.fullmatch(name) or not isinstance(value, str | int) or len(str(value)) > 500:
                said = f"{name[:40]!r} is not an option with a short value."
                problems.append(_wrong(name[:40], "setting_unknown", said,
                                       "Use the provider's options, such as auth_username."))  # fmt: skip
            elif _is_path(str(value)):
                problems.append(_wrong(name, "lexicon_option_is_path", f"{name} is a path on this machine.",
                                       "Enter a web address that begins with https://."))  # fmt: skip
        if problems:
            raise InvalidFields(problems)
        return {name: str(value) for name, value in given.items()}

    def check_secret(self, secret: str) -> None:
        _credentials(secret)

    def writer(self, egress: Egress, zones: Sequence[str], settings: Mapping[str, Any], secret: str) -> LexiconWriter:
        options = {name: str(value) for name, value in settings.items() if name != "provider"}
        return LexiconWriter(
            egress, str(settings["provider"]), tuple(normal_name(zone) for zone in zones),
            options | _credentials(secret), timeout=self.timeout,
        )  # fmt: skip


def _wrong(name: str, code: str, sentence: str, fix: str) -> Invalid:
    return Invalid(code, sentence, field=f"settings.{name}", fix=fix)


def _is_path(value: str) -> bool:
    return "/" in value and urlsplit(value).scheme not in ("http", "https")


def _credentials(secret: str) -> dict[str, str]:
    lines = [line.strip() for line in secret.splitlines() if line.strip()]
    read = [_SECRET_LINE.fullmatch(line) for line in lines]
    if len(lines) == 1 and read[0] is None and lines[0].isprintable():
        return {"auth_token": lines[0]}
    found = {match[1]: match[2] for match in read if match is not None}
    if not lines or len(found) != len(lines):
        raise Invalid(
            "lexicon_secret_invalid", "The secret is neither one token nor lines of option=value.", field="secret",
            fix="Enter the API token alone, or lines such as auth_username=… and auth_token=….",
        )  # fmt: skip
    return found


class LexiconWriter:
    """One account at one operator. `timeout` (seconds) bounds each operation as a whole; then its process is killed."""

    def __init__(
        self, egress: Egress, provider: str, zones: tuple[str, ...], options: Mapping[str, str], *, timeout: float
    ) -> None:
        self._egress = egress
        self._provider = provider
        self._zones = zones
        self._options = options
        self._timeout = timeout

    def zone_for(self, name: str) -> str | None:
        return longest_zone(normal_name(name), self._zones)

    async def servers(self) -> tuple[Nameserver, ...]:
        """None: the operator's servers are those the zone names."""
        return ()

    async def check_credentials(self) -> None:
        """Only that the operator knows the credentials and the zone: most can't be asked what is permitted."""
        for zone in self._zones:
            await self._run("check", zone)

    async def add_txt(self, name: str, value: str, ttl: int) -> None:
        await self._run("add", self._zone(name), name, _plain(value), ttl)

    async def remove_txt(self, name: str, value: str) -> None:
        await self._run("remove", self._zone(name), name, _plain(value))

    def _zone(self, name: str) -> str:
        zone = self.zone_for(name)
        if zone is None:
            raise Refused(
                "dns_update_not_zone", f"None of the zones of this DNS connection holds {name}.",
                fix=f"Add the zone to the connection; it has: {', '.join(self._zones)}.",
            )  # fmt: skip
        return zone

    async def _run(self, operation: str, zone: str, name: str = "", value: str = "", ttl: int = 300) -> None:
        assert_no_transaction()
        await self._permitted()
        job = {
            "provider": self._provider, "zone": zone, "options": dict(self._options), "operation": operation,
            "name": normal_name(name), "value": value, "ttl": ttl,
        }  # fmt: skip
        self._raise(await run_worker(job, self._timeout), zone, name)

    async def _permitted(self) -> None:
        """Where an option names the operator's server, its address must be one this server may talk to. The provider
        resolves it once more by itself: this keeps mistakes out, and nobody who controls that name's DNS."""
        for option, value in self._options.items():
            if "://" in value or _NAMES_A_HOST.search(option):
                host = urlsplit(value if "://" in value else f"//{value}").hostname
                if host:
                    await self._egress.resolve(host)

    def _raise(self, said: Mapping[str, Any], zone: str, name: str) -> None:
        """Raises what the outcome means; nothing when it is done."""
        who, detail = self._provider, said.get("detail", "")
        match said["outcome"], said.get("status"):
            case "done", _:
                return
            case "cname", _:
                raise Refused(
                    "dns_update_cname", f"{name} is a CNAME of {detail}, so that no TXT record can be added.",
                    fix="Remove the CNAME, or choose file validation for this name.",
                )  # fmt: skip
            case ("denied", _) | ("status", 401):
                raise Refused(
                    "dns_update_bad_key", f"{who} doesn't accept the credentials ({detail}).",
                    fix="Compare them with what the operator's console shows, or make new ones.",
                )  # fmt: skip
            case "status", 403:
                raise Refused(
                    "dns_update_refused", f"{who} refuses changes of {zone} with these credentials ({detail}).",
                    fix="Allow them to edit records of the zone in the operator's console.",
                )  # fmt: skip
            case "status", 404 | 422:
                raise Refused(
                    "dns_update_not_zone", f"{who} has no zone {zone} for these credentials ({detail}).",
                    fix="Enter the zone's name as it stands in the operator's console.",
                )  # fmt: skip
            case "missing", _:
                raise Refused(
                    "lexicon_missing", f"This server lacks the package {detail}, which {who} needs.",
                    fix=f"Install it beside Certwright: pip install '{detail}'.",
                )  # fmt: skip
            case "unreachable", _:
                raise Unavailable(
                    "dns_update_unreachable", f"The API of {who} can't be reached ({detail}).",
                    fix="Check that connections to it are possible from here.",
                )  # fmt: skip
        raise Unavailable(
            "dns_update_failed", f"{who} didn't do it ({detail}).",
            fix="Check the options of this provider in the documentation of dns-lexicon.",
        )  # fmt: skip


def _plain(value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise Refused(
            "dns_value_not_plain", "Only letters, digits and = _ . - are published through this kind of connection.",
            fix="Use a connection by dynamic updates (RFC 2136) for other values.",
        )  # fmt: skip
    return value


async def run_worker(job: Mapping[str, Any], timeout: float) -> Mapping[str, Any]:
    """One run; the secret goes through a pipe and into no list of processes."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", str(_WORKER), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        # Providers log requests with their credentials.
        stderr=asyncio.subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout):
            out, _ = await process.communicate(json.dumps(job).encode())
    except TimeoutError:
        return {"outcome": "unreachable", "detail": f"no answer within {timeout:g} seconds"}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        said = json.loads(out)
    except ValueError:
        return {"outcome": "failed", "detail": f"its process ended with {process.returncode}"}
    return said if isinstance(said, dict) and "outcome" in said else {"outcome": "failed", "detail": "no outcome"}
