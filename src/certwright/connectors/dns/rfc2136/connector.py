"""The update client. It talks to the zone's primary over TCP, through the guarded egress, one value at a time."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.tsig
import dns.update

from certwright.kernel.problems import Invalid, InvalidFields, Problem, Refused, Unavailable
from certwright.platform.db import assert_no_transaction
from certwright.platform.egress import Egress
from certwright.platform.resolver import Nameserver, normal_name
from certwright.rooms.validation import DnsField, DnsOperator, DnsRecord, longest_zone

ALGORITHMS: Final = ("hmac-sha256", "hmac-sha384", "hmac-sha512")
DEFAULT_TIMEOUT = 10.0
_STRING = 255


@dataclass(frozen=True, slots=True)
class Rfc2136Provider:
    """Settings: server (host name or IP address), port (53), key_name, algorithm. Secret: the key in base 64."""

    timeout: float = DEFAULT_TIMEOUT

    def operators(self) -> tuple[DnsOperator, ...]:
        fields = (
            DnsField("server", required=True), DnsField("port", default="53"), DnsField("key_name", required=True),
            DnsField("algorithm", choices=ALGORITHMS, default=ALGORITHMS[0]),
            DnsField("secret", secret=True, required=True),
        )  # fmt: skip
        return (DnsOperator("rfc2136", "RFC 2136", "rfc2136", fields),)

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        problems: list[Problem] = []
        unknown = sorted(set(given) - {"server", "port", "key_name", "algorithm"})
        problems += [
            _wrong(name, "setting_unknown", f"An RFC 2136 connection has no setting {name!r}.",
                   "Use server, port, key_name and algorithm.")
            for name in unknown
        ]  # fmt: skip
        server, key_name = given.get("server"), given.get("key_name")
        port, algorithm = given.get("port", 53), given.get("algorithm", ALGORITHMS[0])
        if not isinstance(server, str) or not server.strip() or not server.strip().isascii() or len(server) > 253:
            problems.append(_wrong("server", "dns_server_invalid", "The DNS server is missing or not a host name.",
                                   "Enter the zone's primary, such as ns1.example.com."))  # fmt: skip
        if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
            problems.append(_wrong("port", "dns_port_invalid", "The port is not a number from 1 to 65535.",
                                   "Leave it out for 53."))  # fmt: skip
        if not isinstance(key_name, str) or not _is_key_name(key_name):
            problems.append(_wrong("key_name", "tsig_key_name_invalid", "The TSIG key's name is not a DNS name.",
                                   "Copy it from the key file of the DNS server."))  # fmt: skip
        if algorithm not in ALGORITHMS:
            problems.append(_wrong("algorithm", "tsig_algorithm_unknown", f"{algorithm!r} is not a TSIG algorithm.",
                                   f"Choose one of: {', '.join(ALGORITHMS)}."))  # fmt: skip
        if problems:
            raise InvalidFields(problems)
        return {
            "server": str(server).strip().lower(), "port": port, "key_name": normal_name(str(key_name)),
            "algorithm": algorithm,
        }  # fmt: skip

    def check_secret(self, secret: str, settings: Mapping[str, Any]) -> None:
        try:
            key = base64.b64decode(secret.strip(), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        # RFC 8945 8 asks for keys of the digest's length; BIND refuses to load very short ones.
        if len(key) < 16:
            raise Invalid(
                "tsig_secret_invalid", "The TSIG secret is not base 64 of at least 16 bytes.", field="secret",
                fix="Copy the value between the quotation marks after 'secret' in the key file.",
            )  # fmt: skip

    def writer(self, egress: Egress, zones: Sequence[str], settings: Mapping[str, Any], secret: str) -> Rfc2136Writer:
        return Rfc2136Writer(
            egress, str(settings["server"]), int(settings["port"]), tuple(normal_name(zone) for zone in zones),
            key_name=str(settings["key_name"]), algorithm=str(settings["algorithm"]), secret=secret,
            timeout=self.timeout,
        )  # fmt: skip


def _wrong(name: str, code: str, sentence: str, fix: str) -> Invalid:
    return Invalid(code, sentence, field=f"settings.{name}", fix=fix)


def _is_key_name(text: str) -> bool:
    try:
        return len(dns.name.from_text(text).labels) > 1
    except (dns.exception.DNSException, UnicodeError):
        return False


class Rfc2136Writer:
    """Updates the zones of one primary with one key. `timeout` (seconds) bounds each operation as a whole."""

    def __init__(
        self,
        egress: Egress,
        server: str,
        port: int,
        zones: tuple[str, ...],
        *,
        key_name: str,
        algorithm: str,
        secret: str,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self._egress = egress
        self._server = server
        self._port = port
        self._zones = zones
        self._key = dns.tsig.Key(key_name + ".", secret.strip(), algorithm + ".")
        self._timeout = timeout

    def zone_for(self, name: str) -> str | None:
        return longest_zone(normal_name(name), self._zones)

    async def servers(self) -> tuple[Nameserver, ...]:
        """Raises EgressProblem if the server's name doesn't resolve to a permitted address."""
        addresses = await self._egress.resolve(self._server)
        name = "" if str(addresses[0]) == self._server else self._server
        return (Nameserver(str(addresses[0]), self._port, name),)

    async def check_credentials(self) -> None:
        """An update without changes passes the same checks as a real one (RFC 2136 3.3: permission first)."""
        for zone in self._zones:
            await self._send(zone, self._update(zone))

    async def add(self, record: DnsRecord) -> None:
        zone, owner = self._placed(record.name)
        present = await self._present(zone, record)
        if _said(record) in present.values:
            return
        update = self._update(zone)
        if record.type == "CNAME":
            # Beside other records the server would silently ignore it (RFC 2136 3.4.2.2).
            update.absent(owner)
        # All records of a set share one TTL (RFC 2181 5.2): another's must not change because we joined it.
        update.add(owner, present.ttl if present.ttl is not None else record.ttl, _data(record))
        await self._send(zone, update, record.name)

    async def remove(self, record: DnsRecord) -> None:
        zone, owner = self._placed(record.name)
        update = self._update(zone)
        update.delete(owner, _data(record))
        await self._send(zone, update)

    def _placed(self, name: str) -> tuple[str, dns.name.Name]:
        zone = self.zone_for(name)
        if zone is None:
            raise Refused(
                "dns_update_not_zone", f"None of the zones of this DNS connection holds {name}.",
                fix=f"Add the zone to the connection; it has: {', '.join(self._zones)}.",
            )  # fmt: skip
        return zone, dns.name.from_text(normal_name(name) + ".")

    def _update(self, zone: str) -> dns.update.UpdateMessage:
        return dns.update.UpdateMessage(zone + ".", keyring=self._key)

    async def _present(self, zone: str, record: DnsRecord) -> _Present:
        """What the primary holds there now; beside a CNAME it would silently ignore an addition (RFC 2136 3.4.2.2)."""
        owner = dns.name.from_text(normal_name(record.name) + ".")
        query = dns.message.make_query(owner, record.type, flags=0)
        query.use_tsig(self._key)
        response = await self._exchange(zone, query)
        for rrset in response.answer:
            if rrset.name != owner:
                continue
            if rrset.rdtype == dns.rdatatype.CNAME:
                target = normal_name(str(rrset[0]))
                if record.type == "CNAME" and target == _said(record):
                    return _Present(frozenset((target,)), int(rrset.ttl))
                raise Refused(
                    "dns_update_cname",
                    f"{record.name} is a CNAME of {target}, so that no {record.type} record can be added.",
                    fix="Remove the CNAME, or choose file validation for this name.",
                )  # fmt: skip
            if rrset.rdtype == dns.rdatatype.TXT:
                values = frozenset(b"".join(r.strings).decode("utf-8", "backslashreplace") for r in rrset)
                return _Present(values, int(rrset.ttl))
        if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) or not response.flags & dns.flags.AA:
            # Not its zone, or questions with this key aren't answered: only an update tells which.
            await self._send(zone, self._update(zone))
        return _Present(frozenset(), None)

    async def _send(self, zone: str, update: dns.update.UpdateMessage, name: str = "") -> None:
        response = await self._exchange(zone, update)
        if response.rcode() == dns.rcode.YXDOMAIN:
            raise Refused(
                "dns_update_name_taken", f"{name} has other records, and a CNAME allows none beside it.",
                fix="Remove them, or choose another validation method for this name.",
            )  # fmt: skip
        if response.rcode() != dns.rcode.NOERROR:
            raise self._rejected(zone, response.rcode())

    async def _exchange(self, zone: str, message: dns.message.Message) -> dns.message.Message:
        assert_no_transaction()
        where = (await self.servers())[0]
        try:
            async with asyncio.timeout(self._timeout):
                return await self._signed(where, zone, message)
        except (dns.exception.Timeout, TimeoutError):
            raise self._unreachable(where, f"it didn't answer within {self._timeout:g} seconds") from None
        except (OSError, EOFError) as error:
            raise self._unreachable(where, _why(error)) from None
        except (dns.exception.DNSException, ValueError) as error:
            raise Unavailable(
                "dns_update_failed", f"{where} gave an answer that can't be used ({type(error).__name__}).",
                fix="Check that the address is a DNS server's.",
            ) from None  # fmt: skip

    async def _signed(self, where: Nameserver, zone: str, message: dns.message.Message) -> dns.message.Message:
        """One exchange; where servers are vague about key or zone, a second question tells what is wrong."""
        try:
            return await self._tcp(where, message)
        except dns.tsig.PeerBadTime:
            raise Unavailable(
                "dns_update_bad_time", f"The clocks of this machine and of {where} differ too much for TSIG.",
                fix="Set both clocks by NTP.",
            ) from None  # fmt: skip
        except dns.tsig.PeerBadKey:
            # Knot says "bad key" also of a key it knows but whose acl doesn't allow the update.
            if isinstance(message, dns.update.UpdateMessage) and await self._key_is_known(where, zone):
                raise self._rejected(zone, dns.rcode.REFUSED) from None
            raise self._bad_key(where, "unknown key or wrong algorithm") from None
        except (dns.tsig.PeerError, dns.tsig.BadSignature, dns.tsig.BadKey) as error:
            wrong = (
                "wrong secret" if isinstance(error, dns.tsig.PeerBadSignature) else "its answer's signature is wrong"
            )
            raise self._bad_key(where, wrong) from None
        except dns.exception.FormError:
            # An unsigned answer isn't believed; servers send one for zones they don't have, so ask about that openly.
            query = dns.message.make_query(zone + ".", dns.rdatatype.SOA, flags=0)
            if not (await self._tcp(where, query)).flags & dns.flags.AA:
                raise self._rejected(zone, dns.rcode.NOTAUTH) from None
            raise

    async def _key_is_known(self, where: Nameserver, zone: str) -> bool:
        query = dns.message.make_query(zone + ".", dns.rdatatype.SOA, flags=0)
        query.use_tsig(self._key)
        try:
            await self._tcp(where, query)
        except (dns.tsig.PeerError, dns.exception.FormError):
            return False
        return True

    async def _tcp(self, where: Nameserver, message: dns.message.Message) -> dns.message.Message:
        return await dns.asyncquery.tcp(
            message, where.address, timeout=self._timeout, port=where.port,
            backend=dns.asyncbackend.get_backend("asyncio"),
        )  # fmt: skip

    def _bad_key(self, where: Nameserver, reason: str) -> Refused:
        return Refused(
            "dns_update_bad_key",
            f"{where} doesn't accept the TSIG key {normal_name(str(self._key.name))}: {reason}.",
            fix="Compare the key's name, algorithm and secret with the DNS server's configuration.",
        )

    def _unreachable(self, where: Nameserver, reason: str) -> Unavailable:
        return Unavailable(
            "dns_update_unreachable", f"The DNS server {where} can't be reached over TCP: {reason}.",
            fix="Check that it runs and that TCP to its port is open from here.",
        )  # fmt: skip

    def _rejected(self, zone: str, rcode: dns.rcode.Rcode) -> Problem:
        said = dns.rcode.to_text(rcode)
        if rcode in (dns.rcode.NOTAUTH, dns.rcode.NOTZONE):
            return Refused(
                "dns_update_not_zone", f"{self._server} isn't a primary server of {zone} ({said}).",
                fix="Enter the zone's primary server, and the zone's name as it stands there.",
            )  # fmt: skip
        if rcode == dns.rcode.REFUSED:
            return Refused(
                "dns_update_refused", f"{self._server} refuses updates of {zone} with this key.",
                fix="Allow the key to update TXT records of the zone (BIND: update-policy; Knot: acl).",
            )  # fmt: skip
        return Unavailable(
            "dns_update_failed", f"{self._server} answered {said} to an update of {zone}.",
            fix="See the DNS server's log.",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Present:
    values: frozenset[str]
    ttl: int | None


def _why(error: OSError | EOFError) -> str:
    if isinstance(error, EOFError):
        return "it closed the connection"
    # What asyncio says of a refused connection repeats the address.
    return os.strerror(error.errno).lower() if error.errno else type(error).__name__


def _said(record: DnsRecord) -> str:
    """The value as `_Present` holds it."""
    return normal_name(record.value) if record.type == "CNAME" else record.value


def _data(record: DnsRecord) -> dns.rdata.Rdata:
    if record.type == "CNAME":
        return dns.rdata.from_text("IN", "CNAME", normal_name(record.value) + ".")
    data = record.value.encode()
    strings = [data[at : at + _STRING] for at in range(0, len(data), _STRING)] or [b""]
    return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings)
