"""The zones part of PowerDNS's HTTP API as its documentation describes it, with keys that may do more or less."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class PowerDns:
    """`records` maps (name with final dot, type) to TTL and contents as in a zone file. `keys` maps API keys to whether
    they may change anything. `hang`: take requests and never answer them."""

    zone: str
    keys: dict[str, bool]
    records: dict[tuple[str, str], tuple[int, list[str]]] = field(default_factory=dict)
    hang: bool = False
    requests: list[str] = field(default_factory=list)
    port: int = 0
    leaving: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, name: str, rdtype: str, data: str, ttl: int) -> None:
        self.records[(name + ".", rdtype)] = (ttl, [data])

    def txt(self, name: str) -> tuple[set[str], int | None]:
        ttl, contents = self.records.get((name + ".", "TXT"), (None, []))
        assert all(content[0] == content[-1] == '"' for content in contents), "TXT is quoted (API rules)"
        return {content[1:-1] for content in contents}, ttl

    def cname(self, name: str) -> str | None:
        _, contents = self.records.get((name + ".", "CNAME"), (None, []))
        return contents[0].rstrip(".") if contents else None

    def answer(self, method: str, path: str, key: str, body: dict[str, Any]) -> tuple[int, Any]:
        self.requests.append(f"{method} {path}")
        if key not in self.keys:
            return 401, {"error": "Unauthorized"}
        if not self.keys[key]:
            return 403, {"error": "Forbidden"}
        if path.rstrip(".") != f"/api/v1/servers/localhost/zones/{self.zone}":
            return 404, {"error": "Could not find domain"}
        if method == "GET":
            rrsets = [
                {"name": name, "type": rdtype, "ttl": ttl, "comments": [],
                 "records": [{"content": content, "disabled": False} for content in contents]}
                for (name, rdtype), (ttl, contents) in self.records.items()
            ]  # fmt: skip
            return 200, {"name": self.zone + ".", "kind": "Native", "rrsets": rrsets}
        assert method == "PATCH"
        for rrset in body["rrsets"]:
            place = (rrset["name"], rrset["type"])
            assert place[0].endswith("."), "names are absolute (API rules)"
            contents = [record["content"] for record in rrset["records"]]
            if rrset["changetype"] == "DELETE" or not contents:
                self.records.pop(place, None)
            else:
                self.records[place] = (rrset["ttl"], contents)
        return 204, None


@contextmanager
def powerdns(zone: str, keys: dict[str, bool]) -> Iterator[PowerDns]:
    service = PowerDns(zone, keys)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if service.hang:
                service.leaving.wait(30)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            key = self.headers.get("X-API-Key", "")
            status, said = service.answer(self.command, self.path, key, json.loads(body or b"{}"))
            self.send_response(status)
            out = b"" if said is None else json.dumps(said).encode()
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        do_PATCH = do_GET  # noqa: N815  # the name http.server looks for

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.leaving.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
