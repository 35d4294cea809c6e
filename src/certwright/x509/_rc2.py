"""RC2 in CBC mode, decryption only (RFC 2268): what old exports hide their certificates with (PKCS#12 with RC2-40).

In Python because the library's RC2 takes keys of 128 bits only. It protects nothing here: it is only read.
"""

from __future__ import annotations

from typing import Final

# About 15 microseconds a block of 8 octets.
MAX_OCTETS: Final = 64 * 1024
_PI: Final = bytes.fromhex(
    "d978f9c419ddb5ed28e9fd794aa0d89dc67e37832b76538e624c6488448bfba2"
    "179a59f587b34f1361456d8d09817d32bd8f40eb86b77b0bf09521225c6b4e82"
    "54d66593ce60b21c7356c014a78cf1dc1275ca1f3bbee4d1423dd430a33cb626"
    "6fbf0eda4669075727f21d9bbc944303f811c7f690ef3ee706c3d52fc8661ed7"
    "08e8eade8052eef784aa72ac354d6a2a961ad2715a1549744b9fd05e0418a4ec"
    "c2e0416e0f51cbcc2491af50a1f47039997c3a8523b8b47afc02365b25559731"
    "2d5dfa98e38a92ae05df2910676cbac9d300e6cfe19ea82c6316013f58e289a9"
    "0d38341bab33ffb0bb480c5fb9b1cd2ec5f3db47e5a59c770aa62068fe7fc1ad"
)


def decrypt_cbc(key: bytes, iv: bytes, data: bytes) -> bytes:
    """Plain text with its padding still on; the effective key bits are those of `key`. Raises ValueError."""
    if not key or len(iv) != 8 or len(data) % 8 or len(data) > MAX_OCTETS:
        raise ValueError("not RC2-CBC of a size that is read here")
    words = _expand(key)
    out = bytearray()
    before = iv
    for at in range(0, len(data), 8):
        block = data[at : at + 8]
        out += bytes(a ^ b for a, b in zip(_block(words, block), before, strict=True))
        before = block
    return bytes(out)


def _expand(key: bytes) -> list[int]:
    table = list(key) + [0] * (128 - len(key))
    for i in range(len(key), 128):
        table[i] = _PI[(table[i - 1] + table[i - len(key)]) & 255]
    table[128 - len(key)] = _PI[table[128 - len(key)]]
    for i in range(127 - len(key), -1, -1):
        table[i] = _PI[table[i + 1] ^ table[i + len(key)]]
    return [table[2 * i] | table[2 * i + 1] << 8 for i in range(64)]


def _block(words: list[int], block: bytes) -> bytes:
    r = [int.from_bytes(block[i : i + 2], "little") for i in (0, 2, 4, 6)]
    j = 63
    for round_ in range(16):
        if round_ in (5, 11):
            for i in (3, 2, 1, 0):
                r[i] = (r[i] - words[r[i - 1] & 63]) & 0xFFFF
        for i, turn in ((3, 5), (2, 3), (1, 2), (0, 1)):
            value = (r[i] << (16 - turn) | r[i] >> turn) & 0xFFFF
            mixed = words[j] + (r[i - 1] & r[i - 2]) + (~r[i - 1] & 0xFFFF & r[i - 3])
            r[i] = (value - mixed) & 0xFFFF
            j -= 1
    return b"".join(word.to_bytes(2, "little") for word in r)
