"""Zones signed by hand, so that they can be broken afterwards: text for an authoritative server that doesn't sign."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import dns.dnssec
import dns.name
import dns.node
import dns.rdataset
import dns.rdatatype
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec

from tests.servers.dns import zone_text

_DAY = 24 * 3600


@dataclass(frozen=True)
class SignedZone:
    """A zone file with signatures, and the DS text that vouches for its key."""

    text: str
    ds: str

    def with_changed(self, old: str, new: str) -> SignedZone:
        """Another value under the signature of the old one."""
        assert old in self.text
        return replace(self, text=self.text.replace(old, new))


def signed_zone(name: str, records: Sequence[str], *, expired: bool = False) -> SignedZone:
    """Signed with a fresh ECDSA P-256 key, from a day ago; until tomorrow, or (`expired`) until an hour ago."""
    zone = dns.zone.from_text(zone_text(name, records), origin=name + ".", relativize=False)
    key = ec.generate_private_key(ec.SECP256R1())
    dnskey = dns.dnssec.make_dnskey(key.public_key(), dns.dnssec.Algorithm.ECDSAP256SHA256, flags=257)
    now = int(time.time())
    until = now - 3600 if expired else now + _DAY
    apex = dns.name.from_text(name + ".")
    with zone.writer() as changes:
        dns.dnssec.sign_zone(
            zone, changes, keys=[(key, dnskey)], inception=now - _DAY, expiration=until, dnskey_ttl=300, add_dnskey=True
        )
    ds = dns.dnssec.make_ds(apex, dnskey, "SHA256")
    return SignedZone(f"$ORIGIN {name}.\n" + zone.to_text(relativize=False), str(ds))
