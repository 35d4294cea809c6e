"""Asking the DNS: recursive servers for the answer, a zone's own servers for the truth.

Every question is bounded in time, and what a server said is a value (`Look`), never an exception: "no such name",
"refused" and "no answer" are facts that a check explains to a person.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import dns.asyncbackend
import dns.asyncquery
import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.rrset

from certwright.kernel.problems import Invalid
from certwright.platform.addresses import AddressGuard, IPAddress
from certwright.platform.config import host_and_port
from certwright.platform.db import assert_no_transaction

_LOOPBACK: tuple[IPAddress, ...] = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))
# RFC 9715: answers that fit in one unfragmented packet; larger ones come over TCP.
_PAYLOAD = 1232
_MAX_NAMESERVERS = 13
_MAX_ADDRESSES = 8
_MAX_CHAIN = 12
_MAX_VALUES = 100


class Outcome(StrEnum):
    """What a server's answer amounts to."""

    FOUND = "found"
    NO_SUCH_NAME = "no_such_name"
    NO_SUCH_TYPE = "no_such_type"
    ALIAS = "alias"
    """The name is a CNAME and the answer doesn't hold the asked type at its end."""
    SERVER_FAILURE = "server_failure"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    MALFORMED = "malformed"
    FORBIDDEN_ADDRESS = "forbidden_address"
    """The server's address is one the operator doesn't let us talk to."""


@dataclass(frozen=True, slots=True)
class Nameserver:
    """Where to ask: an IP address and port; `name` is what people know it by, if it has one."""

    address: str
    port: int = 53
    name: str = ""

    def __str__(self) -> str:
        where = self.address if self.port == 53 else f"{self.address} port {self.port}"
        return f"{self.name} ({where})" if self.name else where


@dataclass(frozen=True, slots=True)
class Look:
    """What one server said about one name and type.

    `values` are in presentation form, TXT as the joined text of its strings; `aliases` the CNAME targets passed
    through; `ttl` in seconds; `zone` the owner of the SOA in a negative answer.
    """

    server: str
    name: str
    type: str
    outcome: Outcome
    values: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    ttl: int | None = None
    authentic: bool = False
    authoritative: bool = False
    zone: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ZoneServer:
    """One NS of a zone; no addresses means its name doesn't resolve."""

    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Zone:
    """The zone that holds a name, with the servers its NS records name."""

    name: str
    servers: tuple[ZoneServer, ...]

    @property
    def server_names(self) -> tuple[str, ...]:
        return tuple(server.name for server in self.servers)


def normal_name(name: str) -> str:
    """Lower case, without the trailing dot."""
    return name.rstrip(".").lower()


def is_localhost(name: str) -> bool:
    """RFC 6761 6.3: `localhost` and everything below it is loopback, and no server is asked."""
    plain = normal_name(name)
    return plain == "localhost" or plain.endswith(".localhost")


def system_servers() -> tuple[Nameserver, ...]:
    """The machine's resolvers; empty when it has none."""
    try:
        configured = dns.resolver.Resolver(configure=True)
    except (dns.resolver.NoResolverConfiguration, OSError):
        return ()
    return tuple(Nameserver(str(server), configured.port) for server in configured.nameservers)


class Resolver:
    """Bounded, asynchronous look-ups.

    `servers` are the operator's recursive resolvers as HOST:PORT with IP addresses (empty: the machine's) and are
    trusted; `public` ones are those of others, asked in `lookup_everywhere` only. The servers of a zone are named by
    strangers, so that their addresses pass `guard` first. `timeout` bounds
    one question to one server, in seconds.
    """

    def __init__(
        self,
        servers: Sequence[str] = (),
        *,
        guard: AddressGuard | None = None,
        authoritative_port: int = 53,
        timeout: float = 4.0,
        public: Sequence[str] = (),
    ) -> None:
        self._configured = tuple(_configured(server) for server in servers)
        self._public = tuple(_configured(server) for server in public)
        self._guard = guard or AddressGuard()
        self._port = authoritative_port
        self._timeout = timeout

    @property
    def servers(self) -> tuple[Nameserver, ...]:
        """The recursive servers; read anew for the system's, whose list may change under a long-lived process."""
        return self._configured or system_servers()

    async def lookup(self, name: str, rdtype: str) -> Look:
        """Ask the recursive servers in order until one gives a usable answer; the last failure otherwise."""
        look = Look("no server", normal_name(name), rdtype, Outcome.UNREACHABLE, detail="no DNS server is configured")
        for server in self.servers:
            look = await self.ask(server, name, rdtype)
            if look.outcome not in _TRY_NEXT:
                return look
        return look

    async def lookup_everywhere(self, name: str, rdtype: str) -> tuple[Look, ...]:
        """Ask each recursive server, ours and `public` ones, for telling where an answer has arrived and where not."""
        everyone = dict.fromkeys((*self.servers, *self._public))
        return tuple(await asyncio.gather(*(self.ask(server, name, rdtype) for server in everyone)))

    async def dnssec_broken(self, name: str, rdtype: str) -> str | None:
        """Why a validating resolver rejects this name although the data is there; None when it doesn't.

        Such a server answers SERVFAIL, and answers properly when told not to check (CD bit, RFC 4035 3.2.2).
        """
        for server in self.servers:
            look = await self.ask(server, name, rdtype)
            if look.outcome is not Outcome.SERVER_FAILURE:
                continue
            unchecked = await self.ask(server, name, rdtype, check=False)
            if unchecked.outcome in (Outcome.FOUND, Outcome.NO_SUCH_NAME, Outcome.NO_SUCH_TYPE, Outcome.ALIAS):
                return f"{look.server}: {look.detail or 'SERVFAIL, but an answer when told not to check signatures'}"
        return None

    async def ask(
        self, server: Nameserver, name: str, rdtype: str, *, recurse: bool = True, check: bool = True
    ) -> Look:
        """One question to one server. `check=False` sets the CD bit; never raises for what the server does."""
        assert_no_transaction()
        asked = normal_name(name)
        try:
            query = dns.message.make_query(
                dns.name.from_text(asked + "."), rdtype, use_edns=0, payload=_PAYLOAD, flags=0
            )
        except (dns.exception.DNSException, UnicodeError):
            return Look(str(server), asked, rdtype, Outcome.NO_SUCH_NAME, detail="the name can't stand in the DNS")
        if recurse:
            query.flags |= dns.flags.RD | dns.flags.AD
        if not check:
            query.flags |= dns.flags.CD
        try:
            async with asyncio.timeout(self._timeout):
                response, _ = await dns.asyncquery.udp_with_fallback(
                    query, server.address, timeout=self._timeout, port=server.port,
                    ignore_unexpected=True, ignore_errors=True, backend=dns.asyncbackend.get_backend("asyncio"),
                )  # fmt: skip
        except (dns.exception.Timeout, TimeoutError):
            return Look(str(server), asked, rdtype, Outcome.TIMEOUT)
        except (OSError, EOFError) as error:
            return Look(str(server), asked, rdtype, Outcome.UNREACHABLE, detail=_reason(error))
        except (dns.exception.DNSException, ValueError) as error:
            return Look(str(server), asked, rdtype, Outcome.MALFORMED, detail=type(error).__name__)
        return _read(response, str(server), asked, rdtype)

    async def addresses(self, host: str) -> tuple[tuple[IPAddress, ...], Look | None]:
        """A and AAAA of a host; when there are none, the look that explains why."""
        if is_localhost(host):
            return _LOOPBACK, None
        looks = await asyncio.gather(self.lookup(host, "A"), self.lookup(host, "AAAA"))
        found = tuple(ipaddress.ip_address(value) for look in looks for value in look.values)
        if found:
            return found[:_MAX_ADDRESSES], None
        failed = [look for look in looks if look.outcome in _TRY_NEXT]
        return (), (failed or looks)[0]

    async def zone_of(self, name: str) -> Zone | None:
        """The closest enclosing zone, found by climbing; None when the DNS doesn't say (look at `lookup` for why).

        A failed look-up ends the climb: above a zone that doesn't answer stands a parent that knows nothing of it.
        """
        at = normal_name(name)
        while True:
            look = await self.lookup(at, "SOA")
            if look.outcome in _TRY_NEXT:
                return None
            # Behind a CNAME the SOA is that of the target's zone; the alias itself stands in a zone further up.
            if not look.aliases:
                if look.outcome is Outcome.FOUND:
                    return await self._zone(at)
                if look.zone is not None and _is_within(at, look.zone):
                    return await self._zone(look.zone)
            _, dot, at = at.partition(".")
            if not dot:
                return None

    async def _zone(self, apex: str) -> Zone:
        look = await self.lookup(apex or ".", "NS")
        names = [normal_name(value) for value in look.values[:_MAX_NAMESERVERS]]
        found = await asyncio.gather(*(self.addresses(name) for name in names))
        return Zone(
            apex,
            tuple(
                ZoneServer(name, tuple(str(address) for address in addresses))
                for name, (addresses, _) in sorted(zip(names, found, strict=True), key=lambda pair: pair[0])
            ),
        )

    async def authoritative(self, zone: Zone, name: str, rdtype: str) -> tuple[Look, ...]:
        """Ask every server of the zone directly, each at its first address of each kind.

        An address that can't be reached is left out when the same server answered at its other address, as IPv6
        addresses do on a machine without IPv6.
        """
        looks = await asyncio.gather(*(self._ask_zone_server(server, name, rdtype) for server in zone.servers))
        return tuple(look for group in looks for look in group)

    async def _ask_zone_server(self, server: ZoneServer, name: str, rdtype: str) -> list[Look]:
        if not server.addresses:
            nowhere = "the server's name has no address"
            return [Look(server.name, normal_name(name), rdtype, Outcome.UNREACHABLE, detail=nowhere)]
        addresses = _first_of_each_kind(server.addresses)
        looks = await asyncio.gather(
            *(self.ask_stranger(Nameserver(address, self._port, server.name), name, rdtype) for address in addresses)
        )
        reached = [look for look in looks if look.outcome is not Outcome.UNREACHABLE]
        return reached or list(looks)

    async def ask_stranger(self, server: Nameserver, name: str, rdtype: str) -> Look:
        """Ask a server somebody else named for what it holds itself, unless its address is forbidden."""
        refused = self._guard.refusal(ipaddress.ip_address(server.address))
        if refused is not None:
            detail = f"a {refused} address, which allowed_networks doesn't open"
            return Look(str(server), normal_name(name), rdtype, Outcome.FORBIDDEN_ADDRESS, detail=detail)
        return await self.ask(server, name, rdtype, recurse=False)


_TRY_NEXT = frozenset(
    (Outcome.SERVER_FAILURE, Outcome.REFUSED, Outcome.TIMEOUT, Outcome.UNREACHABLE, Outcome.MALFORMED)
)


def _configured(server: str) -> Nameserver:
    host, port = host_and_port(server)
    try:
        return Nameserver(str(ipaddress.ip_address(host)), port)
    except ValueError:
        raise Invalid(
            "setting_invalid",
            f"The DNS server {server!r} is not an IP address and port.",
            field="dns_servers",
            fix="Write it like 192.0.2.53:53; a resolver can't be found by its name.",
        ) from None


def _first_of_each_kind(addresses: Sequence[str]) -> list[str]:
    chosen: dict[int, str] = {}
    for address in addresses:
        chosen.setdefault(ipaddress.ip_address(address).version, address)
    return list(chosen.values())


def _is_within(name: str, zone: str) -> bool:
    return zone == "" or name == zone or name.endswith("." + zone)


def _reason(error: OSError | EOFError) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "the connection was closed"


def _read(response: dns.message.Message, server: str, asked: str, rdtype: str) -> Look:
    """Turn a message into a look, following CNAMEs inside the answer section only."""
    detail = "; ".join(_extended_errors(response))
    authentic = bool(response.flags & dns.flags.AD)
    authoritative = bool(response.flags & dns.flags.AA)

    def look(outcome: Outcome, values: tuple[str, ...] = (), ttl: int | None = None) -> Look:
        return Look(server, asked, rdtype, outcome, values, tuple(aliases), ttl, authentic, authoritative, zone, detail)

    aliases: list[str] = []
    zone = _negative_zone(response)
    rcode = response.rcode()
    if rcode == dns.rcode.REFUSED:
        return look(Outcome.REFUSED)
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        detail = detail or dns.rcode.to_text(rcode)
        return look(Outcome.SERVER_FAILURE)
    wanted = dns.rdatatype.from_text(rdtype)
    at = asked
    for _ in range(_MAX_CHAIN):
        answer = _rrset(response.answer, at, wanted)
        if answer is not None:
            values = tuple(sorted(_text(rdata) for rdata in list(answer)[:_MAX_VALUES]))
            return look(Outcome.FOUND, values, int(answer.ttl))
        alias = _rrset(response.answer, at, dns.rdatatype.CNAME)
        if alias is None:
            break
        at = normal_name(_text(alias[0]))
        aliases.append(at)
    if aliases:
        return look(Outcome.ALIAS)
    if rcode == dns.rcode.NXDOMAIN:
        return look(Outcome.NO_SUCH_NAME)
    # A referral or an empty answer without authority says "not my zone" as REFUSED does (lame delegation).
    if not authoritative and zone is None and response.authority and not response.flags & dns.flags.RA:
        return look(Outcome.REFUSED)
    return look(Outcome.NO_SUCH_TYPE)


def _rrset(section: Sequence[dns.rrset.RRset], name: str, rdtype: dns.rdatatype.RdataType) -> dns.rrset.RRset | None:
    for rrset in section:
        if rrset.rdtype == rdtype and rrset.rdclass == dns.rdataclass.IN and normal_name(str(rrset.name)) == name:
            return rrset
    return None


def _negative_zone(response: dns.message.Message) -> str | None:
    for rrset in response.authority:
        if rrset.rdtype == dns.rdatatype.SOA:
            return normal_name(str(rrset.name))
    return None


def _text(rdata: object) -> str:
    strings = getattr(rdata, "strings", None)
    if strings is not None:
        return b"".join(strings).decode("utf-8", "backslashreplace")
    return str(rdata)


def _extended_errors(response: dns.message.Message) -> list[str]:
    """RFC 8914: what a validating resolver says about its SERVFAIL."""
    said = []
    for option in response.options:
        if isinstance(option, dns.edns.EDEOption):
            name = dns.edns.EDECode.to_text(option.code).replace("_", " ").lower()
            said.append(f"{name}: {option.text[:200]}" if option.text else name)
    return said
