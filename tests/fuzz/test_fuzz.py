"""Readers of foreign bytes: the same inputs each time here, new ones with `make fuzz`; and all that ever broke one.

Nothing is found here by chance: inputs are drawn with seeds that never change, from files that seldom do, so that a
failure is a change's doing. What `make fuzz` finds, guided by coverage, goes into `corpus`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from certwright.kernel.problems import Problem
from certwright.x509 import certificates, crl, csr, keys, ocsp, reading
from certwright.x509.workshop import containers, convert, decode, jks, pkcs7, pkcs12, revocation
from tests.fuzz.entries import ENTRIES, guarded, seeds
from tests.fuzz.mutate import mutated
from tests.x509.factory import hierarchy

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SECONDS = int(os.environ.get("FUZZ_SECONDS", "0"))
# So many that each entry takes about a second.
RUNS = dict.fromkeys(ENTRIES, 3000) | {"check": 250, "inspect": 1000, "convert": 1000, "text": 1500}
LONGEST = 16 * 1024


@pytest.mark.parametrize("name", ENTRIES)
def test_each_input_is_read_or_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A panic of the library is a finding too.
    monkeypatch.setattr(reading, "is_panic", lambda _: False)
    one = guarded(ENTRIES[name])
    lot = random.Random(name)
    kept = [data for path in seeds(name) if len(data := path.read_bytes()) <= LONGEST]
    for _ in range(RUNS[name]):
        data = lot.choice(kept)
        for _ in range(lot.choice((1, 1, 2, 4))):
            data = mutated(data, LONGEST, lot.getrandbits(64))
        began = time.process_time()
        try:
            one(data)
        except BaseException as error:
            place = tmp_path / "input"
            place.write_bytes(data)
            error.add_note(f"The input is in {place}: {data[:2000]!r}")
            raise
        assert time.process_time() - began < 5, data[:2000]


def test_one_seed_gives_one_input() -> None:
    data = seeds("certificate")[-1].read_bytes()
    made = [mutated(data, LONGEST, seed) for seed in range(50)]
    assert made == [mutated(data, LONGEST, seed) for seed in range(50)]
    assert len(set(made)) > 40


@pytest.mark.parametrize("name", ENTRIES if SECONDS else ["key"])
def test_new_inputs_are_read_or_refused(name: str, tmp_path: Path) -> None:
    """`make fuzz`. Else only that the fuzzer runs: a few runs, one seed."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("not installed: atheris (its wheels are for some Pythons on Linux only)")
    long = [f"-max_total_time={SECONDS}"] if SECONDS else ["-seed=1", "-runs=300"]
    command = [sys.executable, str(HERE / "harness.py"), name, "-print_final_stats=1", *long]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120 + 10 * SECONDS
    )
    assert done.returncode == 0, done.stderr[-4000:]
    runs = [line for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    assert int(runs[0].split()[-1]) > 100
    assert [path.name for path in tmp_path.iterdir()] == []


KEPT = sorted(path for path in (HERE / "corpus").rglob("*") if path.is_file())
H = hierarchy()
AT = datetime(2026, 3, 1, tzinfo=UTC)
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
STRANGERS = [revocation.read_ocsp, revocation.read_list]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_what_is_kept_is_refused_or_read(path: Path) -> None:
    read = 0
    for reader in READERS:
        with contextlib.suppress(Problem):
            reader(path.read_bytes())
            read += 1
    assert read < len(READERS)
    for ask in STRANGERS:
        answer = ask(path.read_bytes(), H.leaf, H.issuing, AT)
        assert answer.why
        assert not answer.good
        assert not answer.revoked
