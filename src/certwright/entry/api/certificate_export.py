"""Lists of certificates as files: CSV for spreadsheets, JSON for programs; written while they are read."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Literal, get_args

from fastapi.responses import StreamingResponse

from certwright.entry.api.base import json_bytes
from certwright.rooms.certificates import Summary

ExportFormat = Literal["csv", "json"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

_MEDIA: Mapping[ExportFormat, str] = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
COLUMNS = (
    "id", "name", "state", "primary_name", "names", "ca", "key_algorithm", "not_before", "not_after", "expires_soon",
    "auto_renew", "notify", "uploaded", "sha256", "serial", "description", "tags", "project_id", "created_at",
    "updated_at",
)  # fmt: skip


async def export_response(found: AsyncIterator[Summary], format: ExportFormat) -> StreamingResponse:
    """The file as an answer. The first line is read before it begins, so that what can't be read is refused."""
    first = await anext(found, None)
    headers = {"content-disposition": f'attachment; filename="certificates.{format}"', "cache-control": "no-store"}
    lines = _csv(first, found) if format == "csv" else _json(first, found)
    return StreamingResponse(lines, media_type=_MEDIA[format], headers=headers)


async def _csv(first: Summary | None, rest: AsyncIterator[Summary]) -> AsyncIterator[bytes]:
    # The mark lets spreadsheets see that it is UTF-8.
    yield b"\xef\xbb\xbf" + _line(COLUMNS)
    async for summary in _all(first, rest):
        yield _line(tuple(_cell(getattr(summary, name)) for name in COLUMNS))


async def _json(first: Summary | None, rest: AsyncIterator[Summary]) -> AsyncIterator[bytes]:
    yield b'{"items":['
    between = b""
    async for summary in _all(first, rest):
        yield between + json_bytes(summary)
        between = b","
    yield b"]}\n"


async def _all(first: Summary | None, rest: AsyncIterator[Summary]) -> AsyncIterator[Summary]:
    if first is not None:
        yield first
    async for summary in rest:
        yield summary


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.isoformat()
        case Mapping():
            return _harmless(" ".join(f"{key}={text}" for key, text in value.items()))
        case tuple():
            return _harmless(" ".join(value))
    return _harmless(str(value))


def _harmless(text: str) -> str:
    """A spreadsheet takes a cell that begins so for a formula, and runs it."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _line(cells: tuple[str, ...]) -> bytes:
    written = io.StringIO()
    csv.writer(written).writerow(cells)
    return written.getvalue().encode()
