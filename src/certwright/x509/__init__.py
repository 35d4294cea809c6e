"""Keys, certificates, requests and revocation lists as pure functions: bytes in, values out, time passed in.

Import the modules: keys, certificates, csr, issue, crl, bundles.
"""
