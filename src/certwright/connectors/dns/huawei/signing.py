"""Signatures of Huawei Cloud requests: SDK-HMAC-SHA256, from the published description of the algorithm. Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote

ALGORITHM = "SDK-HMAC-SHA256"


def signed_headers(
    method: str,
    host: str,
    path: str,
    query: Mapping[str, str],
    body: bytes,
    *,
    access_key: str,
    secret_key: str,
    at: datetime,
) -> dict[str, str]:
    """The headers that make a request genuine; `host` with its port where it isn't the usual one, `at` in UTC."""
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    headers = {"content-type": "application/json", "host": host, "x-sdk-date": stamp}
    names = ";".join(sorted(headers))
    canonical = "\n".join([
        method,
        quote(path, safe="/~") if path.endswith("/") else quote(path, safe="/~") + "/",
        query_string(query),
        *(f"{name}:{headers[name]}" for name in sorted(headers)),
        "",
        names,
        hashlib.sha256(body).hexdigest(),
    ])  # fmt: skip
    to_sign = f"{ALGORITHM}\n{stamp}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.new(secret_key.encode(), to_sign.encode(), hashlib.sha256).hexdigest()
    return {
        "Content-Type": headers["content-type"], "X-Sdk-Date": stamp,
        "Authorization": f"{ALGORITHM} Access={access_key}, SignedHeaders={names}, Signature={signature}",
    }  # fmt: skip


def query_string(query: Mapping[str, str]) -> str:
    """In the order and the encoding that are signed."""
    return "&".join(f"{quote(name, safe='~')}={quote(query[name], safe='~')}" for name in sorted(query))
