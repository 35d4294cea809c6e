"""Certwright: a self-hosted certificate manager."""

__version__ = "0.1.0"
