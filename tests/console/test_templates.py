"""Every visible text can be translated, and no template holds what the content policy forbids."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.frontend import parse_mapping_cfg
from babel.messages.pofile import read_po
from jinja2 import Environment, nodes

from certwright.entry.console import words
from certwright.entry.console.web import static_dir

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = Path(str(files("certwright.entry.console") / "templates"))
ALL = sorted(path.relative_to(TEMPLATES).as_posix() for path in TEMPLATES.rglob("*.html"))

# Proper names are the same in every language.
_NAMES = {"Certwright", "· Certwright", "Certwright · Certwright"}
_SPOKEN_ATTRIBUTES = {"alt", "title", "aria-label", "placeholder", "data-confirm", "data-copied", "label", "data-label"}
# Examples of what to type, and what every language writes the same way.
_EXAMPLES = re.compile(
    r"www\.example\.com|example\.com|ns1(\.example\.com)?|web-1|deploy-pipeline|\+49 30 123456|cert_…|usr_…|"
    r"scm:cert:\*|certificate:cert_…|-----BEGIN CERTIFICATE REQUEST-----"
)


def _environment() -> Environment:
    environment = Environment(extensions=["jinja2.ext.i18n"], autoescape=True)
    environment.install_null_translations(newstyle=True)  # type: ignore[attr-defined]
    return environment


def _markup(name: str) -> str:
    """The literal markup of a template; where an expression stood is a NUL, so that attributes keep their quotes."""
    tree = _environment().parse((TEMPLATES / name).read_text())
    parts = []
    for output in tree.find_all(nodes.Output):
        parts += [node.data if isinstance(node, nodes.TemplateData) else "\x00" for node in output.nodes]
    return "".join(parts)


class _Texts(HTMLParser):
    """Collects texts and spoken attributes with letters in them, and attributes that run code or style."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self.forbidden: list[str] = []
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("style", "script") and not any(key == "src" for key, _ in attrs):
            self.forbidden.append(f"<{tag}>")
        for key, value in attrs:
            if key == "style" or key.startswith(("on", "hx-on")) or "javascript:" in (value or ""):
                self.forbidden.append(f"{key}={value}")
            if key in ("src", "href") and re.match(r"(https?:)?//", value or ""):
                self.forbidden.append(f"{key}={value}")
            if key in _SPOKEN_ATTRIBUTES and value:
                self._take(value)
        if tag in ("pre", "code"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self._take(data)

    def _take(self, text: str) -> None:
        plain = text.replace("\x00", " ").strip()
        if plain not in _NAMES and not _EXAMPLES.fullmatch(plain) and re.search(r"[^\W\d_]{2,}", plain):
            self.found.append(plain)


@pytest.mark.parametrize("name", [name for name in ALL if name != "icons.html"])
def test_no_template_has_text_that_cannot_be_translated(name: str) -> None:
    texts = _Texts()
    texts.feed(_markup(name))
    assert texts.found == []


@pytest.mark.parametrize("name", ALL)
def test_no_template_holds_inline_style_script_or_a_foreign_address(name: str) -> None:
    texts = _Texts()
    texts.feed(_markup(name))
    assert texts.forbidden == []


def test_the_lint_finds_bare_text_in_content_and_in_spoken_attributes() -> None:
    texts = _Texts()
    texts.feed('<p>Hello <b title="there">\x00</b> <i onclick="x()" style="y">\x00</i></p>')
    assert texts.found == ["Hello", "there"]
    assert texts.forbidden == ["onclick=x()", "style=y"]


def _messages_in_templates() -> set[str]:
    found = set()
    for name in ALL:
        for _line, _function, message in _environment().extract_translations((TEMPLATES / name).read_text()):  # type: ignore[attr-defined]
            found |= {part for part in (message if isinstance(message, tuple) else (message,)) if part}
    return found


def _extracted() -> set[str]:
    with (ROOT / "babel.cfg").open() as config:
        methods, options = parse_mapping_cfg(config)
    found: set[str] = set()
    for _file, _line, message, _comments, _context in extract_from_dir(
        ROOT / "src" / "certwright", methods, options, keywords={"_": None, "N_": None, "ngettext": (1, 2)}
    ):
        found |= set(message if isinstance(message, tuple) else (message,))
    return found


def test_extraction_finds_every_message_of_the_templates_and_of_the_word_tables() -> None:
    extracted = _extracted()
    in_templates = _messages_in_templates()
    assert len(in_templates) > 300
    assert in_templates <= extracted
    tables = (words.CERTIFICATE_STATES, words.OPERATIONS, words.ROLLOUT_STEPS, words.REASONS)
    for table in tables:
        assert {word for word, _detail in table.values()} <= extracted
    assert set(words.SAID.values()) <= extracted


def test_the_shipped_catalogue_template_holds_every_message_of_the_templates() -> None:
    with (ROOT / "src/certwright/locale/certwright.pot").open("rb") as source:
        catalogue = read_po(source)
    known = set()
    for message in catalogue:
        known |= set(message.id if isinstance(message.id, tuple) else (message.id,))
    assert _messages_in_templates() - known == set(), "run the two commands named at the top of babel.cfg"


def test_every_icon_that_is_asked_for_exists() -> None:
    there = set(re.findall(r'^  "([a-z0-9-]+)": \[', (TEMPLATES / "icons.html").read_text(), re.M))
    asked = set()
    for name in ALL:
        asked |= set(re.findall(r'icon\("([a-z0-9-]+)"', (TEMPLATES / name).read_text()))
        asked |= set(re.findall(r'icon_name="([a-z0-9-]+)"', (TEMPLATES / name).read_text()))
    assert len(asked) > 20
    assert asked <= there


def _colours(theme: str) -> dict[str, str]:
    css = (static_dir() / "console.css").read_text()
    block = css[css.index(f'[data-bs-theme="{theme}"] {{') :]
    return dict(re.findall(r"(--cw-[a-z-]+): (#[0-9a-f]{3,6});", block[: block.index("}")]))


def _luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(d * 2 for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("text", "behind"),
    [
        ("text", "page"), ("text", "surface"), ("quiet", "page"), ("quiet", "surface"), ("quiet", "sunken"),
        ("accent", "surface"), ("accent", "page"), ("accent", "accent-soft"), ("on-accent", "accent"),
        ("ok", "ok-soft"), ("warn", "warn-soft"), ("bad", "bad-soft"), ("bad", "surface"), ("text", "bad-soft"),
        ("text", "warn-soft"), ("quiet", "warn-soft"), ("surface", "bad"),
    ],
)  # fmt: skip
def test_text_stands_out_from_what_is_behind_it(theme: str, text: str, behind: str) -> None:
    colours = _colours(theme)
    lighter, darker = sorted((_luminance(colours[f"--cw-{text}"]), _luminance(colours[f"--cw-{behind}"])), reverse=True)
    # WCAG 2.2, 1.4.3 (AA): 4.5 to 1 for text of ordinary size.
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5
