"""At most a second and 100 MB for a mebibyte of anything. Measured in a process of its own, in CPU time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.x509.workshop import hostile

ROOT = Path(__file__).resolve().parents[3]
# Reads a file, looks at it as an upload and as something to show; prints what it cost beyond an ordinary one.
_MEASURE = """
import json, resource, sys, time
from datetime import datetime, UTC
from pathlib import Path
from certwright.entry.public_policy import public_policy
from certwright.x509.workshop import containers, convert, decode, upload
at = datetime(2026, 11, 21, 12, tzinfo=UTC)
options = upload.Options(at=at, policy=public_policy())
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
good = Path(sys.argv[1]).read_bytes()
upload.check(good, options=options, key=good)
out = []
for name in sys.argv[2:]:
    data = Path(name).read_bytes()
    before, began = peak(), time.process_time()
    report = upload.check(data, options=options, passphrase=b"x")
    checked = time.process_time()
    decode.describe(containers.open_input(data, "x", b"x"))
    out.append({"check": checked - began, "inspect": time.process_time() - checked, "mb": peak() - before,
                "findings": len(report.findings)})
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    place = tmp_path_factory.mktemp("hostile")
    for number, (_, data) in enumerate(hostile.all_kinds()):
        (place / f"{number:03}").write_bytes(data)
    files = sorted(str(path) for path in place.iterdir())
    good = ROOT / "tests" / "vectors" / "combined.pem"
    command = [sys.executable, "-c", _MEASURE, str(good), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return dict(zip(hostile.KINDS, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("kind", hostile.KINDS)
def test_a_mebibyte_of_anything_is_judged_within_a_second_and_100_mb(
    kind: str, costs: dict[str, dict[str, Any]]
) -> None:
    cost = costs[kind]
    assert cost["check"] < 1
    assert cost["inspect"] < 1
    assert cost["mb"] < 100
    assert cost["findings"] <= 100


def test_the_hostile_inputs_are_as_large_as_may_be() -> None:
    small = {kind for kind, data in hostile.all_kinds() if len(data) < 256 * 1024}
    assert small == {"a PKCS#12 with a slow MAC", "a PKCS#12 of slow bags"}
