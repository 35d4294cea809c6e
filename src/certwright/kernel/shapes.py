"""Reading JSON of servers nobody here trusts: whatever is missing, of another type or too long raises `Malformed`, and
nothing else is ever raised. A reader takes a JSON value and gives what it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

import orjson

LONGEST_TEXT = 4000
MOST_ENTRIES = 1000

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)


class Malformed(ValueError):
    """The answer isn't of the published shape; the text names the member and never repeats long content."""


def document(body: bytes) -> Mapping[str, Any]:
    """The JSON object that a whole answer is."""
    try:
        return mapping(orjson.loads(body))
    except orjson.JSONDecodeError:
        raise Malformed("the answer is not JSON") from None


def needed(members: Mapping[str, Any], name: str, read: Callable[[Any], T]) -> T:
    if members.get(name) is None:
        raise Malformed(f"{name} is missing")
    return _read(members, name, read)


def member(members: Mapping[str, Any], name: str, read: Callable[[Any], T], default: Any) -> Any:
    """What `read` gives, or the default; some servers send null or "" for what they leave out."""
    return default if members.get(name) in (None, "") else _read(members, name, read)


def _read(members: Mapping[str, Any], name: str, read: Callable[[Any], T]) -> T:
    try:
        return read(members[name])
    except Malformed as error:
        raise Malformed(f"{name}: {error}") from None


def mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Malformed("not a JSON object")
    return value


def line(value: Any) -> str:
    """One printable line of at most `LONGEST_TEXT` characters."""
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or not value.isprintable():
        raise Malformed("not a short text")
    return value


def list_of(read: Callable[[Any], T], most: int = MOST_ENTRIES) -> Callable[[Any], tuple[T, ...]]:
    def read_list(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise Malformed("not a list")
        if len(value) > most:
            raise Malformed(f"more than {most} entries")
        return tuple(read(entry) for entry in value)

    return read_list


def one_of(kind: type[E]) -> Callable[[Any], E]:
    def read_word(value: Any) -> E:
        try:
            return kind(value)
        except ValueError:
            raise Malformed(f"not one of {', '.join(kind)}") from None

    return read_word
