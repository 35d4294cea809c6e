"""nginx on this machine: sites from `nginx -T`, certificates swapped as files, one reload, checked by handshake."""

from __future__ import annotations

from certwright.connectors.target.nginx.kind import NginxKind

__all__ = ["NginxKind"]
