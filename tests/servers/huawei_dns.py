"""A contract server for the part of Huawei Cloud DNS v2 we use, from its published interface. It checks every signature
by its own reading of the algorithm, and refuses stale ones."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

AUTHORIZATION = re.compile(r"SDK-HMAC-SHA256 Access=(\w+), SignedHeaders=([\w;-]+), Signature=([0-9a-f]{64})")


@dataclass
class HuaweiDns:
    """`keys`: AK → (SK, may do anything). `sets`: id → record set. `lost_writes`: how many changes are taken and lost,
    as when somebody else writes the same set at the same time."""

    zone: str
    keys: dict[str, tuple[str, bool]]
    sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    lost_writes: int = 0
    requests: list[str] = field(default_factory=list)
    port: int = 0
    _made: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, name: str, rdtype: str, data: str, ttl: int) -> None:
        self._made += 1
        made = {"id": f"set{self._made}", "name": name + ".", "type": rdtype, "ttl": ttl, "records": [data]}
        self.sets[str(made["id"])] = made

    def txt(self, name: str) -> tuple[set[str], int | None]:
        for one in self.sets.values():
            if one["name"] == name + "." and one["type"] == "TXT":
                return {record[1:-1] for record in one["records"]}, one["ttl"]
        return set(), None

    def cname(self, name: str) -> str | None:
        found = [one for one in self.sets.values() if (one["name"], one["type"]) == (name + ".", "CNAME")]
        return found[0]["records"][0].rstrip(".") if found else None

    def refusal(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, Any]] | None:
        match = AUTHORIZATION.fullmatch(handler.headers.get("Authorization", ""))
        stamp = handler.headers.get("X-Sdk-Date", "")
        wrong = {"error_code": "APIGW.0301", "error_msg": "Incorrect IAM authentication information"}
        if match is None or match[1] not in self.keys:
            return 401, wrong
        secret, permitted = self.keys[match[1]]
        sent_at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(datetime.now(UTC) - sent_at) > timedelta(minutes=15):
            return 401, wrong
        names = match[2].split(";")
        assert "x-sdk-date" in names
        assert "host" in names
        parts = urlsplit(handler.path)
        path = "/".join(quote(unquote(segment), safe="~") for segment in parts.path.split("/")).rstrip("/") + "/"
        pairs = sorted(parse_qsl(parts.query, keep_blank_values=True))
        lines = [handler.command, path, "&".join(f"{quote(k, safe='~')}={quote(v, safe='~')}" for k, v in pairs)]
        lines += [f"{name}:{handler.headers.get(name, '').strip()}" for name in names] + ["", match[2]]
        lines.append(hashlib.sha256(body).hexdigest())
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        good = hmac.new(secret.encode(), f"SDK-HMAC-SHA256\n{stamp}\n{digest}".encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(good, match[3]):
            return 401, wrong
        if not permitted:
            return 403, {"code": "DNS.0403", "message": "Policy doesn't allow this action"}
        return None

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.requests.append(f"{method} {path}")
        if path == "/v2/zones":
            known = [{"id": "zone1", "name": self.zone + "."}]
            return 200, {"zones": [z for z in known if query["name"] in (z["name"], z["name"].rstrip("."))]}
        assert path.startswith("/v2/zones/zone1/recordsets")
        set_id = path.removeprefix("/v2/zones/zone1/recordsets").strip("/")
        if method == "GET":
            return 200, {"recordsets": [s for s in self.sets.values() if s["name"] == query["name"]]}
        if self.lost_writes:
            self.lost_writes -= 1
            return 202, {"status": "PENDING_UPDATE"}
        if method == "DELETE":
            return (202, self.sets.pop(set_id)) if set_id in self.sets else (404, {"code": "DNS.0004"})
        assert body["name"].endswith("."), "names are absolute"
        if body["type"] == "TXT":
            assert all(r[0] == r[-1] == '"' for r in body["records"]), "TXT is quoted"
        else:
            assert all(r.endswith(".") for r in body["records"]), "targets are absolute"
        if method == "PUT":
            self.sets[set_id] |= body
            return 202, self.sets[set_id]
        if any(s["name"] == body["name"] and s["type"] == body["type"] for s in self.sets.values()):
            return 400, {"code": "DNS.0312", "message": "Attribute 'name' conflicts with Record Set"}
        self._made += 1
        self.sets[f"set{self._made}"] = body | {"id": f"set{self._made}"}
        return 202, self.sets[f"set{self._made}"]


@contextmanager
def huawei_dns(zone: str, keys: dict[str, tuple[str, bool]]) -> Iterator[HuaweiDns]:
    service = HuaweiDns(zone, keys)

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = urlsplit(self.path)
            refused = service.refusal(self, body)
            status, said = refused or service.answer(
                self.command, parts.path, dict(parse_qsl(parts.query)), json.loads(body or b"{}")
            )
            out = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815  # the names http.server looks for

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
