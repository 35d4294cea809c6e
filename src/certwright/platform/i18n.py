"""Words for people in their language: a thin gettext with the locale of the task at hand.

Catalogues are the text files Babel makes (`locale/<language>/LC_MESSAGES/certwright.po`), compiled in memory at first
use, so that no binary is kept. A string without a translation stays English.
"""

from __future__ import annotations

import gettext as _gettext
import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from importlib.resources import files

from babel import Locale, UnknownLocaleError
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

DOMAIN = "certwright"
DEFAULT_LOCALE = "en"

_locale: ContextVar[str] = ContextVar("locale", default=DEFAULT_LOCALE)


def current_locale() -> str:
    """The locale texts are made in now, such as `en` or `zh_CN`."""
    return _locale.get()


@contextmanager
def use_locale(locale: str) -> Iterator[None]:
    """Make texts in `locale` inside the block. An unknown or malformed locale means English."""
    token = _locale.set(known_locale(locale))
    try:
        yield
    finally:
        _locale.reset(token)


def known_locale(wanted: str) -> str:
    """`wanted` (`pt-BR`, `zh_CN`, `en`) as Babel spells it, or English if there is no such locale."""
    try:
        found = Locale.parse(wanted.replace("-", "_"))
    except (UnknownLocaleError, ValueError, TypeError):
        return DEFAULT_LOCALE
    # Catalogues are named by language and country; the script Babel adds on its own would hide them.
    return f"{found.language}_{found.territory}" if found.territory else str(found.language)


def available_locales() -> tuple[str, ...]:
    """English and every language with a catalogue."""
    root = files(DOMAIN) / "locale"
    found = {entry.name for entry in root.iterdir() if (entry / "LC_MESSAGES" / f"{DOMAIN}.po").is_file()}
    return (DEFAULT_LOCALE, *sorted(found - {DEFAULT_LOCALE}))


def _(message: str) -> str:
    """`message` in the current locale."""
    return _catalogue(_locale.get()).gettext(message)


def ngettext(one: str, many: str, count: int) -> str:
    """The form of the message that belongs to `count`; the caller fills in the number."""
    return _catalogue(_locale.get()).ngettext(one, many, count)


def N_(message: str) -> str:  # noqa: N802 - the customary name, which Babel's extraction looks for
    """Marks a text kept in data for extraction; it is translated by `_` when it is shown."""
    return message


@lru_cache(maxsize=32)
def _catalogue(locale: str) -> _gettext.NullTranslations:
    language = locale.partition("_")[0]
    for name in dict.fromkeys((locale, language)):
        source = files(DOMAIN) / "locale" / name / "LC_MESSAGES" / f"{DOMAIN}.po"
        if source.is_file():
            compiled = io.BytesIO()
            write_mo(compiled, read_po(io.BytesIO(source.read_bytes()), locale=name))
            compiled.seek(0)
            return _gettext.GNUTranslations(compiled)
    return _gettext.NullTranslations()
