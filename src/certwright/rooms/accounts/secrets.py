"""Secrets of people: hashing passwords away from the event loop, and random secrets that are stored as a hash only."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from certwright.rooms.accounts.rules import normal_password

# Argon2id with 19 MiB: two at a time, so that a burst of sign-ins costs neither the machine's memory nor its cores.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_threads = ThreadPoolExecutor(2, thread_name_prefix="password")


@lru_cache(maxsize=1)
def _nobodys() -> str:
    return _hasher.hash(secrets.token_hex(16))


async def hash_password(password: str) -> str:
    return await asyncio.get_running_loop().run_in_executor(_threads, _hasher.hash, normal_password(password))


async def verify_password(stored: str | None, password: str) -> bool:
    """Whether it is the password; does the same work when there is none, so that time doesn't tell who exists."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _verify, stored, normal_password(password))


def _verify(stored: str | None, password: str) -> bool:
    try:
        return _hasher.verify(stored or _nobodys(), password) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


def needs_rehash(stored: str) -> bool:
    return _hasher.check_needs_rehash(stored)


def new_secret() -> str:
    """256 random bits for a cookie, a token or a link."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> bytes:
    """SHA-256: enough for secrets of 256 random bits, and fast enough for every request."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
