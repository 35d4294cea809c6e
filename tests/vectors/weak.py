"""Weak RSA keys made on purpose, the same ones every time. For vectors only: their factors are no secret to anybody."""

from __future__ import annotations

import math
import random
from functools import cache

from cryptography.hazmat.primitives.asymmetric import rsa

SMALL = [p for p in range(2, 2000) if all(p % q for q in range(2, math.isqrt(p) + 1))]


def is_prime(n: int) -> bool:
    """Miller and Rabin's test with fixed bases: enough for numbers nobody chose against it."""
    if any(n % p == 0 for p in SMALL if p < n):
        return False
    d, s = n - 1, 0
    while d % 2 == 0:
        d, s = d // 2, s + 1
    for base in SMALL[:24]:
        x = pow(base, d, n)
        if x in (1, n - 1):
            continue
        if all((x := x * x % n) != n - 1 for _ in range(s - 1)):
            return False
    return True


def next_prime(n: int, e: int = 65537) -> int:
    n |= 1
    while not is_prime(n) or math.gcd(n - 1, e) != 1:
        n += 2
    return n


def prime(bits: int, seed: str, e: int = 65537) -> int:
    drawn = random.Random(f"certwright vectors {seed}").getrandbits(bits)
    return next_prime(drawn | 3 << (bits - 2), e)


def key(p: int, q: int, e: int = 65537) -> rsa.RSAPrivateKey:
    p, q = max(p, q), min(p, q)
    d = pow(e, -1, math.lcm(p - 1, q - 1))
    public = rsa.RSAPublicNumbers(e, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


@cache
def small_modulus(bits: int) -> rsa.RSAPrivateKey:
    return key(prime(bits // 2, f"a{bits}"), prime(bits // 2, f"b{bits}"))


@cache
def small_exponent() -> rsa.RSAPrivateKey:
    return key(prime(1024, "c", 3), prime(1024, "d", 3), 3)


@cache
def close_primes() -> rsa.RSAPrivateKey:
    p = prime(1024, "close")
    return key(p, next_prime(p + 2))


@cache
def shared_prime(which: str) -> rsa.RSAPrivateKey:
    return key(prime(1024, "shared"), prime(1024, f"own {which}"))


@cache
def roca() -> rsa.RSAPrivateKey:
    """Both primes of the shape k*M + 65537^a mod M (CVE-2017-15361), M the product of the first 126 primes."""
    m = math.prod(SMALL[:126])
    drawn = random.Random("certwright vectors roca")
    found: list[int] = []
    while len(found) < 2:
        candidate = drawn.randrange((3 << 1022) // m, (1 << 1024) // m) * m + pow(65537, drawn.getrandbits(200), m)
        if candidate.bit_length() == 1024 and is_prime(candidate) and math.gcd(candidate - 1, 65537) == 1:
            found.append(candidate)
    return key(*found)


# A key from a Debian system with CVE-2008-0166, published so that checks can be tested.
DEBIAN_MODULUS = int(
    "c096530c4c4a343fc388ff8b6e14c88b617485966dd0f757f3decb2f03dfdfe6f518e0948f5387059bd5aa124f26d38f"
    "139dd6ebc234360561689758e9b14e03f714508167374cbf64e24e26c3cd95ed5a5d04e3c404be157bb8090e9ada9cdc"
    "53ef7e806c1e77b5f10242150a24e9adf991088daf20a75beb54bc91fe43dd8755447fd3abdefb9f1c987a8b04198245"
    "04e213f8dd26a9c6b7ed2f2103d8422720f7a7400ce34743e4ce40440c69013efea2a39790fcdfccbb424da1d824adfe"
    "58071ed76d41af836e4093ea60f5719e250fa214f8631153a81eefc17d82e3f819da57691ed9602550074fdea73ac9e5"
    "cfe10f6b91adc31b402c3e370b03a559",
    16,
)
