"""Record sets of Huawei Cloud DNS, through the guarded egress. The API changes whole sets, so a set is read, changed,
written and read again: of two writers at once the one whose value got lost writes once more."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from certwright.connectors.dns.huawei.signing import query_string, signed_headers
from certwright.kernel.problems import Invalid, InvalidFields, Problem, Refused, Unavailable
from certwright.platform.egress import Egress, EgressProblem
from certwright.platform.resolver import Nameserver, normal_name
from certwright.rooms.validation import DnsField, DnsOperator, DnsRecord, longest_zone

ENDPOINT: Final = "https://dns.myhuaweicloud.com"
DEFAULT_TIMEOUT = 15.0
_TRIES = 3
_MOST_BYTES = 512 * 1024
_ACCESS_KEY = re.compile(r"[A-Za-z0-9]{8,64}")
# What we publish, and no more: whatever else it holds, a record is quoted in the API's own way.
_VALUE = re.compile(r"[A-Za-z0-9=_.-]{1,255}")


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class HuaweiProvider:
    """Settings: access_key (AK), endpoint (a region's own, if not the global one). Secret: the secret key (SK)."""

    timeout: float = DEFAULT_TIMEOUT
    now: Callable[[], datetime] = _now

    def operators(self) -> tuple[DnsOperator, ...]:
        fields = (
            DnsField("access_key", required=True), DnsField("endpoint", default=ENDPOINT),
            DnsField("secret", secret=True, required=True),
        )  # fmt: skip
        return (DnsOperator("huawei", "Huawei Cloud", "huawei", fields),)

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        problems: list[Problem] = [
            _wrong(name[:40], "setting_unknown", f"A Huawei Cloud connection has no setting {name[:40]!r}.",
                   "Use access_key and endpoint.")
            for name in sorted(set(given) - {"access_key", "endpoint"})
        ]  # fmt: skip
        access_key, endpoint = given.get("access_key"), given.get("endpoint", ENDPOINT)
        if not isinstance(access_key, str) or not _ACCESS_KEY.fullmatch(access_key):
            problems.append(_wrong("access_key", "huawei_access_key_invalid", "The access key (AK) can't be one.",
                                   "Copy it from My Credentials in the cloud's console."))  # fmt: skip
        parts = urlsplit(endpoint) if isinstance(endpoint, str) else urlsplit("")
        if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query:
            problems.append(_wrong("endpoint", "huawei_endpoint_invalid", "The endpoint is not an https:// address.",
                                   f"Leave it out for {ENDPOINT}."))  # fmt: skip
        if problems:
            raise InvalidFields(problems)
        return {"access_key": access_key, "endpoint": str(endpoint).rstrip("/")}

    def check_secret(self, secret: str, settings: Mapping[str, Any]) -> None:
        if not 16 <= len(secret.strip()) <= 128 or not secret.strip().isascii():
            raise Invalid(
                "huawei_secret_invalid", "The secret key (SK) can't be one.", field="secret",
                fix="Copy it from the file that was made with the access key.",
            )  # fmt: skip

    def writer(self, egress: Egress, zones: Sequence[str], settings: Mapping[str, Any], secret: str) -> HuaweiWriter:
        return HuaweiWriter(
            egress, str(settings["endpoint"]), tuple(normal_name(zone) for zone in zones),
            access_key=str(settings["access_key"]), secret_key=secret.strip(), timeout=self.timeout, now=self.now,
        )  # fmt: skip


def _wrong(name: str, code: str, sentence: str, fix: str) -> Invalid:
    return Invalid(code, sentence, field=f"settings.{name}", fix=fix)


class HuaweiWriter:
    """One access key. `timeout` (seconds) bounds each request."""

    def __init__(
        self,
        egress: Egress,
        endpoint: str,
        zones: tuple[str, ...],
        *,
        access_key: str,
        secret_key: str,
        timeout: float,
        now: Callable[[], datetime],
    ) -> None:
        self._egress = egress
        self._endpoint = urlsplit(endpoint)
        self._zones = zones
        self._access_key = access_key
        self._secret_key = secret_key
        self._timeout = timeout
        self._now = now

    def zone_for(self, name: str) -> str | None:
        return longest_zone(normal_name(name), self._zones)

    async def servers(self) -> tuple[Nameserver, ...]:
        """None: the operator's servers are those the zone names."""
        return ()

    async def check_credentials(self) -> None:
        """That the key is accepted and sees every zone; whether it may change them the API doesn't tell beforehand."""
        for zone in self._zones:
            await self._zone_id(zone)

    async def add(self, record: DnsRecord) -> None:
        said = _said(record)
        zone_id = await self._zone_id(self._zone(record.name))
        for _ in range(_TRIES):
            there = await self._set(zone_id, record, adding=True)
            if there is not None and said in there["records"]:
                return
            asked = {"name": normal_name(record.name) + ".", "type": record.type}
            if there is None:
                made = asked | {"ttl": record.ttl, "records": [said]}
                await self._call("POST", f"/v2/zones/{zone_id}/recordsets", made)
            else:
                changed = asked | {"ttl": there["ttl"], "records": [*there["records"], said]}
                await self._call("PUT", f"/v2/zones/{zone_id}/recordsets/{there['id']}", changed)
        await self._must_be(zone_id, record, said, there=True)

    async def remove(self, record: DnsRecord) -> None:
        said = _said(record)
        zone_id = await self._zone_id(self._zone(record.name))
        for _ in range(_TRIES):
            there = await self._set(zone_id, record, adding=False)
            if there is None or said not in there["records"]:
                return
            path, left = f"/v2/zones/{zone_id}/recordsets/{there['id']}", [r for r in there["records"] if r != said]
            if left:
                asked = {"name": normal_name(record.name) + ".", "type": "TXT", "ttl": there["ttl"], "records": left}
                await self._call("PUT", path, asked)
            else:
                await self._call("DELETE", path)
        await self._must_be(zone_id, record, said, there=False)

    async def _must_be(self, zone_id: str, record: DnsRecord, said: str, *, there: bool) -> None:
        found = await self._set(zone_id, record, adding=False)
        if (found is not None and said in found["records"]) is not there:
            raise self._failed("somebody else keeps changing the same record set")

    def _zone(self, name: str) -> str:
        zone = self.zone_for(name)
        if zone is None:
            raise Refused(
                "dns_update_not_zone", f"None of the zones of this DNS connection holds {name}.",
                fix=f"Add the zone to the connection; it has: {', '.join(self._zones)}.",
            )  # fmt: skip
        return zone

    async def _zone_id(self, zone: str) -> str:
        said = await self._call("GET", "/v2/zones", query={"name": zone + ".", "search_mode": "equal"})
        # Older installations take the name as a part of it.
        ids = [str(found["id"]) for found in said["zones"] if normal_name(str(found["name"])) == zone]
        if not ids:
            raise Refused(
                "dns_update_not_zone", f"Huawei Cloud has no public zone {zone} for this access key.",
                fix="Enter the zone's name as it stands in the cloud's console, or the key of its project.",
            )  # fmt: skip
        return ids[0]

    async def _set(self, zone_id: str, record: DnsRecord, *, adding: bool) -> Mapping[str, Any] | None:
        """The record set of this type at exactly this name. Where the record is to be added, raises Refused
        `dns_update_cname` or `dns_update_name_taken` if it can't."""
        query = {"name": normal_name(record.name) + ".", "search_mode": "equal"}
        said = await self._call("GET", f"/v2/zones/{zone_id}/recordsets", query=query)
        mine = [one for one in said["recordsets"] if normal_name(str(one["name"])) == normal_name(record.name)]
        alias = next((one for one in mine if one["type"] == "CNAME"), None)
        if adding and alias is not None and _said(record) not in alias["records"]:
            target = normal_name(str(alias["records"][0]))
            raise Refused(
                "dns_update_cname",
                f"{record.name} is a CNAME of {target}, so that no {record.type} record can be added.",
                fix="Remove the CNAME, or choose file validation for this name.",
            )  # fmt: skip
        if adding and record.type == "CNAME" and alias is None and mine:
            raise Refused(
                "dns_update_name_taken", f"{record.name} has other records, and a CNAME allows none beside it.",
                fix="Remove them, or choose another validation method for this name.",
            )  # fmt: skip
        return next((one for one in mine if one["type"] == record.type), None)

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        content = b"" if body is None else json.dumps(body).encode()
        host, asked = self._endpoint.netloc, query or {}
        headers = signed_headers(
            method, host, path, asked, content, access_key=self._access_key, secret_key=self._secret_key,
            at=self._now(),
        )  # fmt: skip
        url = f"{self._endpoint.scheme}://{host}{path}" + (f"?{query_string(asked)}" if asked else "")
        ports = frozenset((self._endpoint.port or (443 if self._endpoint.scheme == "https" else 80),))
        try:
            answer = await self._egress.fetch(
                url, method=method, headers=headers, content=content, max_bytes=_MOST_BYTES, timeout=self._timeout,
                allowed_ports=ports,
            )  # fmt: skip
        except EgressProblem as problem:
            if problem.code == "egress_denied":
                raise
            raise Unavailable(
                "dns_update_unreachable", f"The API of Huawei Cloud can't be reached: {problem.message}",
                fix="Check that connections to it are possible from here.",
            ) from None  # fmt: skip
        return self._read(answer.status, answer.body)

    def _read(self, status: int, body: bytes) -> dict[str, Any]:
        try:
            said = json.loads(body) if body.strip() else {}
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise self._failed(f"status {status} without a document")
        if 200 <= status < 300:
            return said
        code = str(said.get("error_code") or said.get("code") or f"status {status}")[:40]
        if status == 401:
            raise Refused(
                "dns_update_bad_key", f"Huawei Cloud doesn't accept the access key ({code}).",
                fix="Compare AK and SK with the file they came in, and set this machine's clock by NTP.",
            )  # fmt: skip
        if status == 403:
            raise Refused(
                "dns_update_refused", f"Huawei Cloud doesn't let this access key do that ({code}).",
                fix="Give its user the actions dns:zone:list and dns:recordset:list, create, update and delete.",
            )  # fmt: skip
        raise self._failed(code)

    def _failed(self, why: str) -> Unavailable:
        return Unavailable(
            "dns_update_failed",
            f"Huawei Cloud didn't do it ({why}).",
            fix="It is tried again; see the API's log there.",
        )


def _said(record: DnsRecord) -> str:
    """The record's value as the API writes it."""
    plain = _plain(record.value)
    return normal_name(plain) + "." if record.type == "CNAME" else f'"{plain}"'


def _plain(value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise Refused(
            "dns_value_not_plain", "Only letters, digits and = _ . - are published through this kind of connection.",
            fix="Use a connection by dynamic updates (RFC 2136) for other values.",
        )  # fmt: skip
    return value
