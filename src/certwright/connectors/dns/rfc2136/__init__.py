"""Dynamic updates (RFC 2136) signed with TSIG (RFC 8945): BIND, Knot DNS, PowerDNS and others."""

from __future__ import annotations

from certwright.connectors.dns.rfc2136.connector import ALGORITHMS, Rfc2136Provider, Rfc2136Writer

__all__ = ["ALGORITHMS", "Rfc2136Provider", "Rfc2136Writer"]
