"""What commands print: tables for people at a terminal, tab-separated lines for pipes, documents for programs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from certwright.entry.cli.errors import CliError

Columns = Sequence[tuple[str, str]]
"""(heading, key) pairs; a key may lead into nested documents: `site.label`."""

_TONES = {
    "issued": "green", "valid": "green", "deployed": "green", "healthy": "green", "hosted": "green", "ok": "green",
    "revoked": "red", "expired": "red", "approval_failed": "red", "failed": "red", "undone": "red", "critical": "red",
    "unhealthy": "red", "major": "red", "pending": "yellow", "to_be_issued": "yellow", "running": "yellow",
    "pending_domain_validation": "yellow", "undoing": "yellow", "minor": "yellow",
}  # fmt: skip


def document(value: Any) -> None:
    """The API's document as it came, for `--json`."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """For people, where the output proper must stay clean."""
    sys.stderr.write(text + "\n")


def rows(items: Iterable[Mapping[str, Any]], columns: Columns) -> None:
    """A table, or lines with tabs where nobody looks at them. Says so when there is nothing."""
    found = list(items)
    if not sys.stdout.isatty():
        lines = ["\t".join(heading for heading, _ in columns)]
        lines += ["\t".join(cell(dig(item, key), full=True) for _, key in columns) for item in found]
        sys.stdout.write("\n".join(lines) + "\n")
        return
    if not found:
        note("There is nothing to show.")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, key in columns:
        # An id that is cut can't be copied.
        table.add_column(heading, no_wrap=key.endswith("id"), overflow="ignore" if key.endswith("id") else "fold")
    for item in found:
        texts = [cell(dig(item, key)) for _, key in columns]
        table.add_row(*(Text(text, style=_TONES.get(text, "")) for text in texts))
    Console().print(table)


def details(item: Mapping[str, Any], *, skip: Sequence[str] = ()) -> None:
    """One document: its fields line by line, lists of documents as tables below."""
    shown = {k: v for k, v in item.items() if k not in skip and v not in (None, "", [], {})}
    width = max((len(k) for k, v in shown.items() if not _is_table(v)), default=0)
    for key, value in shown.items():
        if isinstance(value, str) and "\n" in value.strip():
            continue  # PEM and the like: there are downloads for that
        if isinstance(value, Mapping):
            say(f"{key + ':':<{width + 1}}")
            for inner, text in value.items():
                if text not in (None, "", [], {}) and not _is_table(text):
                    say(f"    {inner}: {cell(text, full=True)}")
        elif not _is_table(value):
            say(f"{key + ':':<{width + 1}} {cell(value, full=True)}")
    for key, value in {**shown, **_tables_inside(shown)}.items():
        if _is_table(value):
            say(f"\n{key}:")
            rows(value, _columns_of(value))


def _tables_inside(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{key}.{inner}": value
        for key, found in item.items()
        if isinstance(found, Mapping)
        for inner, value in found.items()
        if _is_table(value)
    }


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, Mapping) for entry in value)


def _columns_of(items: Sequence[Mapping[str, Any]]) -> Columns:
    """The fields that say something in a few words; at a terminal as many as fit beside each other."""
    keys = [k for k, v in items[0].items() if not isinstance(v, Mapping) and not _is_table(v)]
    used = [k for k in keys if any(entry.get(k) not in (None, "", []) for entry in items)]
    short = [(key.upper(), key) for key in used if max(len(cell(e.get(key), full=True)) for e in items) <= 64][:8]
    if not sys.stdout.isatty():
        return short
    left = shutil.get_terminal_size().columns
    fitting: list[tuple[str, str]] = []
    for heading, key in short:
        width = max(len(heading), *(len(cell(entry.get(key))) for entry in items))
        if width <= left or not fitting:
            fitting.append((heading, key))
            left -= width + 1
    return fitting


def dig(item: Mapping[str, Any], key: str) -> Any:
    value: Any = item
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def cell(value: Any, *, full: bool = False) -> str:
    """One value in few words; never with a tab or a line break in it."""
    match value:
        case None | "":
            return "-"
        case list() | Mapping() if not value:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list() if any(isinstance(entry, Mapping) for entry in value):
            return f"{len(value)} entries"
        case list():
            shown = value if full else value[:3]
            return ", ".join(str(v) for v in shown) + (
                f" +{len(value) - len(shown)}" if len(value) > len(shown) else ""
            )
        case Mapping():
            return ", ".join(f"{k}={cell(v, full=full)}" for k, v in value.items() if v not in (None, ""))
        case str() if not full and _is_time(value):
            return datetime.fromisoformat(value).astimezone().strftime("%Y-%m-%d %H:%M")
    return " ".join(str(value).split())


def _is_time(text: str) -> bool:
    if len(text) < 19 or text[4:5] != "-" or text[10:11] != "T":
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def problem(error: CliError, *, as_json: bool) -> None:
    """The sentence, then what to do, then the code; every field of a form on its own line."""
    if as_json:
        document(error.document)
    note(f"Error: {error.message}" + (f" (field {error.field})" if error.field else ""))
    for inner in error.document.get("errors", []) if isinstance(error.document.get("errors"), list) else []:
        if isinstance(inner, Mapping) and inner.get("message") != error.message:
            said = f"{inner.get('message', '')} {inner.get('fix', '')}".strip()
            note(f"  {inner.get('field', '?')}: {said} [{inner.get('code', '')}]")
    allowed = error.document.get("allowed_operations")
    if isinstance(allowed, list):
        note(f"  Possible now: {', '.join(map(str, allowed)) or 'nothing'}")
    if error.fix:
        note(f"  {error.fix}")
    note(f"  Code: {error.code}")


class Progress:
    """What a long piece of work does at present: a moving line at a terminal, a line per change elsewhere."""

    def __init__(self) -> None:
        self._last = ""
        self._status: Any = None
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status("")
            self._status.start()

    def show(self, text: str) -> None:
        if self._status is not None:
            self._status.update(text)
        elif text != self._last:
            note(text)
        self._last = text

    def stop(self) -> None:
        if self._status is not None:
            self._status.stop()
