"""What people typed, read carefully, and what was wrong with it, placed beside the fields."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from certwright.kernel.problems import Invalid, InvalidFields, Problem, TooLarge

MOST_BYTES = 1024 * 1024
MOST_FIELDS = 1000
MOST_FILE_BYTES = 11 * 1024 * 1024
"""Of a form with a file in it: a document of 10 MiB and what is around it."""
MOST_FILES_BYTES = 2 * 1024 * 1024
"""Of a form with several files, as much as the API takes: certificates and keys are small."""


class Form:
    """The fields of a posted form or a query string, in order; texts are trimmed, a missing field is empty."""

    def __init__(
        self, pairs: list[tuple[str, str]], files: Mapping[str, Sequence[tuple[str, bytes]]] | None = None
    ) -> None:  # fmt: skip
        self._pairs = pairs
        self._files = files or {}

    def files(self, name: str) -> list[tuple[str, bytes]]:
        """What each file is called on its owner's machine, and its content; a field nobody filled has none."""
        return [found for found in self._files.get(name, ()) if found[0]]

    def file(self, name: str) -> tuple[str, bytes]:
        """The first of `files`. Raises Invalid `file_missing`."""
        found = self.files(name)
        if not found:
            raise Invalid("file_missing", "No file is chosen.", field=name, fix="Choose one and send the form again.")
        return found[0]

    def text(self, name: str, default: str = "") -> str:
        return next((value.strip() for key, value in self._pairs if key == name), default)

    def raw(self, name: str) -> str:
        """As typed, spaces included: for passwords."""
        return next((value for key, value in self._pairs if key == name), "")

    def optional(self, name: str) -> str | None:
        return self.text(name) or None

    def many(self, name: str) -> tuple[str, ...]:
        return tuple(value.strip() for key, value in self._pairs if key == name and value.strip())

    def lines(self, name: str) -> tuple[str, ...]:
        """One entry per line; commas and semicolons part entries too, because people paste lists of every kind."""
        text = self.text(name).replace(",", "\n").replace(";", "\n")
        return tuple(line.strip() for line in text.splitlines() if line.strip())

    def checked(self, name: str) -> bool:
        return bool(self.text(name))

    def __contains__(self, name: object) -> bool:
        return any(key == name for key, _ in self._pairs)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)

    def values(self) -> dict[str, str]:
        """The first value of every field, to fill a form with again."""
        return dict(reversed(self._pairs))


def parse(text: str) -> Form:
    """Raises Invalid `form_unreadable` for too many fields and for NUL, which no text column can hold."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="replace", max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise Invalid("form_unreadable", "The form has too many fields.", fix="Go back and send it again.") from error
    if any("\x00" in key or "\x00" in value for key, value in pairs):
        raise Invalid("form_unreadable", "The form holds a NUL character.", fix="Remove it and send the form again.")
    return Form(pairs)


async def read(request: Request) -> Form:
    """The posted form; raises TooLarge `form_too_large` beyond 1 MiB, whatever the announced length was."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise TooLarge("form_too_large", "The form holds more than 1 MiB.", fix="Send less text.")
    return parse(body.decode("latin-1") if body.isascii() else body.decode("utf-8", "replace"))


class _Parts(MultiPartParser):
    # Documents are confidential: they never touch a disk as they are.
    spool_max_size = MOST_FILE_BYTES


async def read_with_file(request: Request) -> Form:
    """A posted form with at most one file. Raises TooLarge `form_too_large`, Invalid `form_unreadable`."""
    return await _read_parts(request, 1, MOST_FILE_BYTES)


async def read_with_files(request: Request, most: int) -> Form:
    """A posted form with at most `most` files of 2 MiB together. Raises what `read_with_file` raises."""
    return await _read_parts(request, most, MOST_FILES_BYTES)


async def _read_parts(request: Request, most_files: int, most_bytes: int) -> Form:
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await read(request)
    try:
        parts = await _Parts(
            request.headers, _at_most(request, most_bytes), max_files=most_files, max_fields=MOST_FIELDS,
            max_part_size=MOST_FILES_BYTES,
        ).parse()  # fmt: skip
    except MultiPartException as error:
        raise Invalid("form_unreadable", "The form can't be read.", fix="Go back and send it again.") from error
    pairs: list[tuple[str, str]] = []
    files: dict[str, list[tuple[str, bytes]]] = {}
    for name, part in parts.multi_items():
        if isinstance(part, UploadFile):
            files.setdefault(name, []).append((part.filename or "", await part.read()))
            await part.close()
        else:
            pairs.append((name, part))
    if any("\x00" in text for pair in pairs for text in pair) or any(
        "\x00" in name for found in files.values() for name, _content in found
    ):
        raise Invalid("form_unreadable", "The form holds a NUL character.", fix="Remove it and send the form again.")
    return Form(pairs, files)


async def _at_most(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > most:
            raise TooLarge(
                "form_too_large", f"The form holds more than {most // (1024 * 1024)} MiB.", fix="Send smaller files."
            )
        yield chunk


@dataclass(frozen=True, slots=True)
class Faults:
    """The problems of one submission, by the field they belong to."""

    problems: tuple[Mapping[str, str], ...] = ()

    @classmethod
    def of(cls, problem: Problem | None, renamed: Mapping[str, str] | None = None) -> Faults:
        """`renamed` maps the API's field names to the form's where they differ."""
        if problem is None:
            return cls()
        parts = problem.problems if isinstance(problem, InvalidFields) else (problem,)
        return cls(
            tuple(
                {
                    "code": part.code,
                    "message": part.message,
                    "fix": part.fix,
                    "field": _form_field(part.field, renamed or {}),
                }
                for part in parts
            )
        )

    def at(self, field: str) -> tuple[Mapping[str, str], ...]:
        return tuple(problem for problem in self.problems if problem["field"] == field)

    def __bool__(self) -> bool:
        return bool(self.problems)


def _form_field(field: str | None, renamed: Mapping[str, str]) -> str:
    if field is None:
        return ""
    if field in renamed:
        return renamed[field]
    # names[3] is the fourth line of the field "names"; applicant.email has an input of its own.
    root = re.split(r"[.\[]", field, maxsplit=1)[0]
    return renamed.get(root, root)
