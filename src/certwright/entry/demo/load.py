"""Customers: clients that keep requesting while the certificate is switched, one TLS connection for every request."""

from __future__ import annotations

import hashlib
import http.client
import socket
import ssl
import threading
from collections import Counter

from certwright.entry.demo.servers import LOOPBACK

_CLIENTS = 2
_TIMEOUT = 10.0


class Load:
    """Requests from `start` to `stop`. `served` counts answers by the SHA-256 of the certificate they came with."""

    def __init__(self, name: str, port: int) -> None:
        self.made = 0
        self.failures: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self._name, self._port = name, port
        self._context = ssl.create_default_context()
        # The site's first certificate has expired: these customers clicked the warning away.
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._keep_asking, daemon=True) for _ in range(_CLIENTS)]

    @property
    def failed(self) -> int:
        return self.failures.total()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Content when it was never started."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(2 * _TIMEOUT)

    def _keep_asking(self) -> None:
        while not self._stopping.is_set():
            try:
                fingerprint, failure = self._ask(), ""
            except (OSError, http.client.HTTPException, ssl.SSLError) as error:
                fingerprint, failure = "", f"{type(error).__name__}: {error}"
            with self._lock:
                self.made += 1
                if failure:
                    self.failures[failure] += 1
                else:
                    self.served[fingerprint] += 1

    def _ask(self) -> str:
        with (
            socket.create_connection((LOOPBACK, self._port), timeout=_TIMEOUT) as plain,
            self._context.wrap_socket(plain, server_hostname=self._name) as tls,
        ):
            der = tls.getpeercert(binary_form=True) or b""
            tls.sendall(f"GET / HTTP/1.1\r\nHost: {self._name}\r\nConnection: close\r\n\r\n".encode())
            answer = http.client.HTTPResponse(tls)
            answer.begin()
            answer.read()
            if answer.status != 200:
                raise http.client.HTTPException(f"status {answer.status}")
            return hashlib.sha256(der).hexdigest()
