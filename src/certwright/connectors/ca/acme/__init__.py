"""CAs that speak ACME (RFC 8555): an own client, and the ports of the certificates and cas rooms on top of it."""

from certwright.connectors.ca.acme.authority import AcmeAccounts, AcmeAuthorities, AcmeCa
from certwright.connectors.ca.acme.client import AcmeClient, Chain, Signer

__all__ = ["AcmeAccounts", "AcmeAuthorities", "AcmeCa", "AcmeClient", "Chain", "Signer"]
