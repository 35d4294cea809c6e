"""Where keys are kept outside the database: an HSM through PKCS#11."""

from certwright.connectors.keykeeper.pkcs11 import Pkcs11Token

__all__ = ["Pkcs11Token"]
