"""What the certificate library does over octets that aren't what they should be: how to stand it.

It reads lazily: a name or an extension is looked into where it is asked for, so that every look may raise. And it is
written in Rust: where it is wrong about what its input can be it panics, which raises an exception that is no
`Exception`, so that no handler catches it, and that can't be imported. Behind the fence it is an error like any other,
and the reader says what it says of every input that can't be read.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

UNREADABLE: Final = (
    ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    # A TLS feature (RFC 7633) it has no name for.
    KeyError,
)  # fmt: skip
"""What it raises on purpose or by mistake; UnsupportedAlgorithm and InvalidVersion among them may deserve a sentence of
their own."""


class PanicError(ValueError):
    """The library panicked over its input."""


class Fence:
    """`with fenced:` turns a panic into PanicError and nothing else into anything else."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and is_panic(kind):
            raise PanicError("the library panicked") from error


def is_panic(kind: type[BaseException]) -> bool:
    return (kind.__module__, kind.__qualname__) == ("pyo3_runtime", "PanicException")


fenced: Final = Fence()
