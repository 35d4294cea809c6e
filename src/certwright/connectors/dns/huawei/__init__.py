"""Huawei Cloud DNS (API v2), signed with an access key."""

from __future__ import annotations

from certwright.connectors.dns.huawei.connector import HuaweiProvider, HuaweiWriter

__all__ = ["HuaweiProvider", "HuaweiWriter"]
