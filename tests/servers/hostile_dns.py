"""A DNS server that says whatever a test wants: other answers the second time, nothing at all, damage, SERVFAIL."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import dns.message
import dns.rdatatype
import dns.rrset

from tests.servers.ports import free_port

Answer = Callable[[dns.message.Message], "dns.message.Message | bytes | None"]


@dataclass
class HostileDns:
    """Running on UDP and TCP; `asked` lists "name type" of every question in order."""

    address: str
    port: int
    asked: list[str] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"{self.address}:{self.port}"


def reply(
    query: dns.message.Message, *records: str, authority: Sequence[str] = (), rcode: int = 0
) -> dns.message.Message:
    """An answer holding records written as in a zone file: "name. ttl IN type data"."""
    response = dns.message.make_response(query, recursion_available=True)
    for section, texts in ((response.answer, records), (response.authority, authority)):
        for text in texts:
            name, ttl, rdclass, rdtype, data = text.split(None, 4)
            section.append(dns.rrset.from_text(name, int(ttl), rdclass, rdtype, data))
    response.set_rcode(rcode)  # type: ignore[arg-type]
    return response


@contextmanager
def hostile_dns(answer: Answer, *, address: str = "127.0.0.1") -> Iterator[HostileDns]:
    """Serve `answer`: a message, raw bytes, or None for silence."""
    server = HostileDns(address, free_port(address))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    udp.bind((address, server.port))
    tcp.bind((address, server.port))
    tcp.listen(16)

    def respond(wire: bytes) -> bytes | None:
        query = dns.message.from_wire(wire, keyring=False)  # signed ones are read, not checked
        question = query.question[0]
        server.asked.append(f"{question.name} {dns.rdatatype.to_text(question.rdtype)}")
        said = answer(query)
        return said.to_wire() if isinstance(said, dns.message.Message) else said

    def serve_udp() -> None:
        while True:
            try:
                wire, peer = udp.recvfrom(65535)
            except OSError:
                return
            out = respond(wire) if wire else None
            if out is not None:
                udp.sendto(out, peer)

    def serve_tcp() -> None:
        while True:
            try:
                stream, _ = tcp.accept()
            except OSError:
                return
            with stream:
                stream.settimeout(5)
                try:
                    length = struct.unpack("!H", stream.recv(2))[0]
                    out = respond(stream.recv(length))
                    if out is not None:
                        stream.sendall(struct.pack("!H", len(out)) + out)
                except (OSError, struct.error):
                    continue

    threads = [threading.Thread(target=serve, daemon=True) for serve in (serve_udp, serve_tcp)]
    for thread in threads:
        thread.start()
    try:
        yield server
    finally:
        for end in (udp, tcp):
            with suppress(OSError):  # an unconnected UDP socket complains, and is woken all the same
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in threads:
            thread.join(5)
