"""A short run of the fuzzer, and every input that ever broke an entry. `make fuzz` runs long."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from certwright.kernel.problems import Problem
from certwright.x509 import certificates, crl, csr, keys, ocsp
from certwright.x509.workshop import containers, convert, decode, jks, pkcs7, pkcs12

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SECONDS = int(os.environ.get("FUZZ_SECONDS", "2"))
# The names of harness.ENTRIES, which can't be imported where there is no atheris.
NAMES = [
    "check",
    "inspect",
    "convert",
    "text",
    "pkcs12",
    "pkcs7",
    "jks",
    "key",
    "certificate",
    "csr",
    "crl",
    "ocsp",
    "acme",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_short_run_finds_nothing(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("not installed: atheris (its wheels are for some Pythons on Linux only)")
    command = [sys.executable, str(HERE / "harness.py"), name, f"-max_total_time={SECONDS}", "-print_final_stats=1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120 + 10 * SECONDS
    )
    assert done.returncode == 0, done.stderr[-4000:]
    runs = [line for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    assert int(runs[0].split()[-1]) > 100
    assert [path.name for path in tmp_path.iterdir()] == []


BROKEN = sorted(path for path in (HERE / "corpus").rglob("*") if path.is_file())
READERS = [
    lambda data: decode.describe(containers.open_input(data, "x", b"x")),
    lambda data: convert.material([containers.open_input(data, "x", b"x")]),
    lambda data: pkcs12.read(data, b"x"),
    pkcs7.read,
    lambda data: jks.read(data, b"x"),
    lambda data: keys.read_private_key(data, b"x"),
    certificates.read_certificates,
    csr.read_csr,
    crl.read_crl,
    ocsp.read_question,
]


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.name)
def test_what_once_broke_a_reader_is_refused_or_read(path: Path) -> None:
    read = 0
    for reader in READERS:
        with contextlib.suppress(Problem):
            reader(path.read_bytes())
            read += 1
    assert read < len(READERS)
