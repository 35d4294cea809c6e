"""What glibc keeps of freed memory, in processes of their own: it is set for a whole process."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from certwright.platform import memory

pytestmark = pytest.mark.skipif(memory._glibc() is None, reason="only glibc's allocator is set")

# Blocks that are freed between small ones that stay; says how many MB the process then has more than before.
FREES = """
import asyncio
from pathlib import Path
from certwright.platform import memory

def held():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) / 1024

def more(size, count):
    one = bytearray(16 * 2**20)
    del one  # glibc now takes that for a usual size
    before, freed, kept = held(), [], []
    for _ in range(count):
        freed.append(bytearray(size))
        kept.append(bytearray(1000))
    del freed
    after_freeing()
    return held() - before

def after_freeing():
    pass
"""


def grown(script: str) -> float:
    command = [sys.executable, "-c", FREES + script]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout)


SET = "memory.give_back_large_blocks()\n"


def test_large_blocks_go_back_at_once() -> None:
    blocks = "print(more(2**20, 60))"
    assert grown(blocks) > 50, "there is something to be given back"
    assert grown(SET + blocks) < 10


REGULARLY = """
memory._EVERY = 0

def after_freeing():
    async def for_a_while():
        try:
            await asyncio.wait_for(memory.give_back_regularly(), 0.1)
        except TimeoutError:
            pass
    asyncio.run(for_a_while())
"""


def test_pages_between_blocks_in_use_go_back_after_a_while() -> None:
    blocks = "print(more(60_000, 1000))"
    assert grown(SET + blocks) > 50, "there is something to be given back"
    assert grown(SET + REGULARLY + blocks) < 15


def test_while_modules_are_loaded_nothing_is_looked_for_and_afterwards_it_is_however_that_ended() -> None:
    with memory.loading():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), memory.loading():
        raise ImportError
    assert gc.isenabled()
