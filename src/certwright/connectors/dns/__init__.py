"""Connectors to DNS operators, each an implementation of the validation room's DnsWriter port."""
