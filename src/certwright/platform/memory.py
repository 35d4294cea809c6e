"""How this process holds its memory: glibc's allocator set for a server of one thread, and what was loaded left alone
by the garbage collector. Elsewhere than on glibc only the latter does something."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# malloc.h of glibc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
# For each request TLS takes a buffer of 256 KB and shrinks it at once. As a mapping that costs 25 us, from the heap 1,
# if its end isn't given back each time.
_LARGE: Final = 512 * 1024
_KEPT_AT_THE_END: Final = 2 * 1024 * 1024
_EVERY: Final = 10.0


def give_back_large_blocks() -> None:
    """From `_LARGE` octets on a block is a mapping of its own and goes back with its last use, and threads share one
    arena. Call it before threads are started.

    Left to itself, glibc raises that limit with every large block that is freed, up to 32 MB: bodies of requests with
    a thousand certificates would then lie among small blocks that keep their pages.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT_AT_THE_END)
        libc.mallopt(_ARENA_MAX, 1)


async def give_back_regularly() -> None:
    """Also the pages between blocks that are in use, which glibc keeps: every ten seconds, for ever. It takes under a
    millisecond, after a list of a hundred thousand entries ten."""
    libc = _glibc()
    while libc is not None:
        await asyncio.sleep(_EVERY)
        libc.malloc_trim(0)


@contextmanager
def loading() -> Iterator[None]:
    """While the product's modules are imported: what they make stays, and looking through it for garbage took a sixth
    of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def freeze_loaded() -> None:
    """What was made until now stays: the garbage collector looks through it no more, which took a fifth of a busy
    server's time, and writes nothing into pages that are shared with other processes."""
    gc.collect()
    gc.freeze()


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    # Others have a mallopt, too, that knows other numbers.
    return libc if hasattr(libc, "gnu_get_libc_version") else None
