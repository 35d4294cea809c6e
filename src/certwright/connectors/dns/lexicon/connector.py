"""The port's side: settings, credentials, and a worker process for each operation."""

from __future__ import annotations

import asyncio
import difflib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from certwright.kernel.problems import Invalid, InvalidFields, Problem, Refused, Unavailable
from certwright.platform.db import assert_no_transaction
from certwright.platform.egress import Egress
from certwright.platform.resolver import Nameserver, normal_name
from certwright.rooms.validation import DnsField, DnsOperator, DnsRecord, longest_zone

DEFAULT_TIMEOUT = 60.0
_WORKER: Final = Path(__file__).with_name("worker.py")
_SECRET_LINE = re.compile(r"([a-z][a-z0-9_]{1,40})=(.+)")
# What we publish, and no more: providers differ in how they quote anything else.
_VALUE = re.compile(r"[A-Za-z0-9=_.-]{1,255}")
_NAMES_A_HOST = re.compile(r"(server|host|hostname|endpoint|url|uri)$")
# A process that was handed credentials gets nothing else but how to reach the world.
_PASSED_ON: Final = (
    "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE", "SYSTEMROOT",
    "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LexiconProvider:
    """Settings: provider (lexicon's name of the operator) and that provider's options that aren't secret. Secret: lines
    `option=value`, or one line that is the provider's only secret option, else its `auth_token`."""

    timeout: float = DEFAULT_TIMEOUT

    def operators(self) -> tuple[DnsOperator, ...]:
        return tuple(known_operators().values())

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        problems: list[Problem] = []
        operator = _operator(given.get("provider"))
        fields = {one.name: one for one in operator.fields}
        for name, value in given.items():
            if name == "provider":
                continue
            if name not in fields:
                said = f"{operator.title} has no option {name[:40]!r}."
                problems.append(_wrong(name[:40], "setting_unknown", said, f"Use: {', '.join(fields)}."))
            elif fields[name].secret:
                problems.append(_wrong(name, "lexicon_option_secret", f"{name} is secret, and settings are shown.",
                                       f"Give it as the secret, in a line {name}=…."))  # fmt: skip
            elif not isinstance(value, str | int) or len(str(value)) > 500:
                problems.append(_wrong(name, "lexicon_option_invalid", f"{name} is not a text of up to 500 characters.",
                                       "Copy it from the operator's console."))  # fmt: skip
            elif fields[name].choices and value not in fields[name].choices:
                problems.append(_wrong(name, "lexicon_option_invalid", f"{str(value)[:40]!r} is no value of {name}.",
                                       f"Choose one of: {', '.join(fields[name].choices)}."))  # fmt: skip
            elif _is_path(str(value)):
                problems.append(_wrong(name, "lexicon_option_is_path", f"{name} is a path on this machine.",
                                       "Enter a web address that begins with https://."))  # fmt: skip
        if problems:
            raise InvalidFields(problems)
        return {name: str(value) for name, value in given.items()}

    def check_secret(self, secret: str, settings: Mapping[str, Any]) -> None:
        _credentials(secret, _operator(settings.get("provider")))

    def writer(self, egress: Egress, zones: Sequence[str], settings: Mapping[str, Any], secret: str) -> LexiconWriter:
        options = {name: str(value) for name, value in settings.items() if name != "provider"}
        return LexiconWriter(
            egress, str(settings["provider"]), tuple(normal_name(zone) for zone in zones),
            options | _credentials(secret, _operator(settings["provider"])), timeout=self.timeout,
        )  # fmt: skip


@lru_cache(maxsize=1)
def known_operators() -> Mapping[str, DnsOperator]:
    """By lexicon's name; see the file for where it comes from."""
    found = {}
    for line in Path(__file__).with_name("operators.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            name, title, options = (part.strip() for part in line.split("|", 2))
            fields = tuple(_field(option) for option in options.split())
            found[name] = DnsOperator(f"lexicon.{name}", title, "lexicon", fields, {"provider": name})
    return found


def _operator(name: object) -> DnsOperator:
    """Raises InvalidFields `lexicon_provider_invalid`."""
    known = known_operators()
    if isinstance(name, str) and name in known:
        return known[name]
    near = difflib.get_close_matches(str(name), known, 3) or ["cloudflare"]
    said = f"dns-lexicon has no operator {str(name)[:40]!r} that can be used here."
    fix = f"Enter the operator as dns-lexicon calls it, such as {' or '.join(near)}."
    raise InvalidFields([_wrong("provider", "lexicon_provider_invalid", said, fix)])


def _field(option: str) -> DnsField:
    text, _, choices = option.partition("=")
    return DnsField(text.rstrip("*"), secret=text.endswith("*"), choices=tuple(filter(None, choices.split("|"))))


def _wrong(name: str, code: str, sentence: str, fix: str) -> Invalid:
    return Invalid(code, sentence, field=f"settings.{name}", fix=fix)


def _is_path(value: str) -> bool:
    return "/" in value and urlsplit(value).scheme not in ("http", "https")


def _credentials(secret: str, operator: DnsOperator) -> dict[str, str]:
    """Every refusal says which options there are, and nothing of what was given."""
    names, hidden = [one.name for one in operator.fields], [one.name for one in operator.fields if one.secret]
    lines = [line.strip() for line in secret.splitlines() if line.strip()]
    read = [_SECRET_LINE.fullmatch(line) for line in lines]
    found = {match[1]: match[2] for match in read if match is not None and match[1] in names}
    alone = hidden[0] if len(hidden) == 1 else "auth_token"
    # A token may itself look like a line of another option.
    if len(lines) == 1 and not found and lines[0].isprintable() and alone in hidden:
        return {alone: lines[0]}
    if not lines or len(found) != len(lines) or not set(found) & set(hidden):
        many = " and ".join(f"{name}=…" for name in hidden)
        raise Invalid(
            "lexicon_secret_invalid", f"The secret is not what {operator.title} needs.", field="secret",
            fix=f"Enter {'the value alone, or ' if alone in hidden else ''}a line for each of {many}.",
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

    @property
    def options(self) -> Mapping[str, str]:
        """What the provider gets, secrets among it."""
        return self._options

    def zone_for(self, name: str) -> str | None:
        return longest_zone(normal_name(name), self._zones)

    async def servers(self) -> tuple[Nameserver, ...]:
        """None: the operator's servers are those the zone names."""
        return ()

    async def check_credentials(self) -> None:
        """Only that the operator knows the credentials and the zone: most can't be asked what is permitted."""
        for zone in self._zones:
            await self._run("check", zone)

    async def add(self, record: DnsRecord) -> None:
        await self._run("add", self._zone(record.name), record)

    async def remove(self, record: DnsRecord) -> None:
        await self._run("remove", self._zone(record.name), record)

    def _zone(self, name: str) -> str:
        zone = self.zone_for(name)
        if zone is None:
            raise Refused(
                "dns_update_not_zone", f"None of the zones of this DNS connection holds {name}.",
                fix=f"Add the zone to the connection; it has: {', '.join(self._zones)}.",
            )  # fmt: skip
        return zone

    async def _run(self, operation: str, zone: str, record: DnsRecord | None = None) -> None:
        assert_no_transaction()
        name, what = (normal_name(record.name), _plain(record.value)) if record is not None else ("", "")
        rdtype = record.type if record is not None else ""
        if rdtype == "CNAME":
            # Without the dot many operators take a name as one below the zone.
            what = normal_name(what) + "."
        await self._permitted()
        job = {
            "provider": self._provider, "zone": zone, "options": dict(self._options), "operation": operation,
            "name": name, "value": what, "type": rdtype, "ttl": record.ttl if record else 300,
        }  # fmt: skip
        self._raise(await run_worker(job, self._timeout), zone, name, rdtype)

    async def _permitted(self) -> None:
        """Where an option names the operator's server, its address must be one this server may talk to. The provider
        resolves it once more by itself: this keeps mistakes out, and nobody who controls that name's DNS."""
        for option, value in self._options.items():
            if "://" in value or _NAMES_A_HOST.search(option):
                host = urlsplit(value if "://" in value else f"//{value}").hostname
                if host:
                    await self._egress.resolve(host)

    def _raise(self, said: Mapping[str, Any], zone: str, name: str, rdtype: str) -> None:
        """Raises what the outcome means; nothing when it is done."""
        who, detail = self._provider, said.get("detail", "")
        match said["outcome"], said.get("status"):
            case "done", _:
                return
            case "cname", _:
                raise Refused(
                    "dns_update_cname", f"{name} is a CNAME of {detail}, so that no {rdtype} record can be added.",
                    fix="Remove the CNAME, or choose file validation for this name.",
                )  # fmt: skip
            case "taken", _:
                raise Refused(
                    "dns_update_name_taken", f"{name} has other records, and a CNAME allows none beside it.",
                    fix="Remove them, or choose another validation method for this name.",
                )  # fmt: skip
            case "changed", _:
                raise Refused(
                    "dns_update_changed", f"{who} keeps another target than the one asked for; {name} was not added.",
                    fix="Add this CNAME in the operator's console, or choose another validation method for this name.",
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
