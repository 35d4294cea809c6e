"""CAs that sell certificates over an ordering API like DigiCert's Services API v2 (CertCentral)."""

from certwright.connectors.ca.certcentral.authority import CertCentralCa, CertCentralShop
from certwright.connectors.ca.certcentral.client import KEY_HEADER, CertCentralClient

__all__ = ["KEY_HEADER", "CertCentralCa", "CertCentralClient", "CertCentralShop"]
