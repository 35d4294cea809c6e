"""Words in the language of the task at hand."""

from __future__ import annotations

import asyncio
import gettext

import pytest

from certwright.platform import i18n
from certwright.platform.i18n import _, ngettext, use_locale


def test_without_a_catalogue_texts_are_english() -> None:
    with use_locale("fr"):
        assert _("Open the alarm") == "Open the alarm"
        assert [ngettext("{n} day", "{n} days", count).format(n=count) for count in (0, 1, 2)] == [
            "0 days", "1 day", "2 days",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "known"),
    [("pt-BR", "pt_BR"), ("zh_CN", "zh_CN"), ("en", "en"), ("klingon!", "en"), ("", "en"), ("../../etc", "en")],
)
def test_unknown_locales_mean_english(wanted: str, known: str) -> None:
    assert i18n.known_locale(wanted) == known


def test_the_locale_belongs_to_the_task() -> None:
    async def speak(locale: str, turn: asyncio.Barrier) -> str:
        with use_locale(locale):
            await turn.wait()
            return i18n.current_locale()

    async def both() -> list[str]:
        turn = asyncio.Barrier(2)
        return list(await asyncio.gather(speak("pt_BR", turn), speak("zh_CN", turn)))

    assert asyncio.run(both()) == ["pt_BR", "zh_CN"]
    assert i18n.current_locale() == "en"


def test_a_text_catalogue_is_compiled_when_it_is_needed(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    folder = tmp_path / "locale" / "pt" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    (folder / "certwright.po").write_text(
        'msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\nPlural-Forms: nplurals=2; plural=(n > 1);\\n"\n\n'
        'msgid "Open the alarm"\nmsgstr "Abrir o alarme"\n\n'
        'msgid "{n} day"\nmsgid_plural "{n} days"\nmsgstr[0] "{n} dia"\nmsgstr[1] "{n} dias"\n',
        encoding="utf-8",
    )
    monkeypatch.setattr(i18n, "files", lambda package: tmp_path)
    i18n._catalogue.cache_clear()
    try:
        with use_locale("pt-BR"):
            assert _("Open the alarm") == "Abrir o alarme"
            assert ngettext("{n} day", "{n} days", 2).format(n=2) == "2 dias"
            assert _("Not translated") == "Not translated"
        assert i18n.available_locales() == ("en", "pt")
        assert isinstance(i18n._catalogue("pt"), gettext.GNUTranslations)
    finally:
        i18n._catalogue.cache_clear()
