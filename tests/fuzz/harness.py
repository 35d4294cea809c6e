"""Coverage-guided fuzzing of every place where foreign bytes are read.

`python tests/fuzz/harness.py ENTRY [libFuzzer options]`, where ENTRY is one of `entries.ENTRIES`. A finding is what
`entries` says, a panic of the library, and five seconds or 500 MB for one input.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
with atheris.instrument_imports(include=["certwright.x509", "certwright.acme"]):
    from tests.fuzz.entries import ENTRIES, guarded, seeds

from certwright.x509 import reading
from tests.fuzz.mutate import mutated


def mutate(data: bytes, most: int, seed: int) -> bytes:
    return mutated(bytes(data), most, seed, lambda octets, size: bytes(atheris.Mutate(octets, size)))


def main() -> None:
    name, *options = sys.argv[1:]
    # A panic is a finding: what a reader says of such an input is better said before the library sees it.
    reading.is_panic = lambda _: False
    # A child's highest memory begins with what its parent had when it forked; libFuzzer counts from zero.
    inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    # libFuzzer writes what it finds into the first directory: not into the repository.
    with tempfile.TemporaryDirectory() as found:
        listed = Path(found, "seeds")
        listed.write_text(",".join(map(str, seeds(name))))
        kept = Path(found, "kept")
        kept.mkdir()
        arguments = [sys.argv[0], str(kept), f"-seed_inputs=@{listed}", "-timeout=5"]
        arguments += [f"-rss_limit_mb={inherited + 500}", *options]
        atheris.Setup(arguments, guarded(ENTRIES[name]), custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
