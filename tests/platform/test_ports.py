"""Ports of the tests' own servers: nobody else gets one between its choice and its use."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from certwright.entry.demo import servers as demo
from tests.servers import ports


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> range:
    """Three ports, of which nobody has one yet: they aren't among those that tests get."""
    three = range(32_500, 32_503)
    monkeypatch.setattr(ports, "PORTS", three)
    monkeypatch.setattr(ports, "_given", set())
    claims = os.open(tmp_path / "claims", os.O_RDWR | os.O_CREAT)
    monkeypatch.setattr(ports, "_claims", lambda: claims)
    return three


def test_a_port_is_given_once(few: range) -> None:
    assert {ports.free_port() for _ in few} == set(few)
    with pytest.raises(RuntimeError, match="no free port"):
        ports.free_port()


def test_a_port_of_another_process_is_not_given_and_one_of_a_dead_process_is(few: range, tmp_path: Path) -> None:
    script = f"""
import fcntl, os
claims = os.open({str(tmp_path / "claims")!r}, os.O_RDWR)
for port in {list(few[:2])}:
    fcntl.lockf(claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
print("claimed", flush=True)
input()
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        assert ports.free_port() == few[2]
        with pytest.raises(RuntimeError, match="no free port"):
            ports.free_port()
        other.communicate("\n")
    assert {ports.free_port() for _ in range(2)} == set(few[:2])


def test_a_port_somebody_listens_at_is_not_given(few: range) -> None:
    with socket.create_server(("127.0.0.1", few[0])), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", few[1]))
        assert ports.free_port() == few[2]


def test_neither_is_one_that_connections_go_out_from() -> None:
    """The system gives those to anybody at any time, from 32768 on; the demonstration keeps to its own."""
    assert max(demo._PORTS) < min(ports.PORTS) < max(ports.PORTS) < 32_768
    assert set(demo.free_ports(2)) <= set(demo._PORTS)
