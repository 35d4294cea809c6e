"""ACME (RFC 8555 and what grew around it) without input or output: octets in, values out, time and chance passed in."""
