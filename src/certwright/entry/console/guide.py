"""The guide as pages: the markdown files of `docs/guide`, shipped in the wheel, rendered without any markup of theirs.

Only files that are there at the first look are ever served, by name; what they hold is text, tables, code and links.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import PurePosixPath
from posixpath import normpath

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from certwright.entry.guide import guide_pages
from certwright.x509.workshop.words import CODES, REPAIRS

HOME = "index"


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its title as plain text, and what follows it as HTML."""

    name: str
    title: str
    body: Markup


@lru_cache(maxsize=256)
def page(name: str) -> Page | None:
    """The page `start` or `findings/expired`; None where there is none."""
    path = guide_pages().get(name)
    return rendered(name, path.read_text(encoding="utf-8")) if path is not None else None


def address(code: str) -> str:
    """Where the guide tells about a finding or a repair; "" for codes it has no page for."""
    if f"findings/{code}" in guide_pages():
        return f"/guide/findings/{code}"
    return f"/guide/findings/repairs#{code}" if code in REPAIRS else ""


def findings() -> list[tuple[str, str]]:
    """Code and title of the page of every finding, in the catalogue's order."""
    found = [(code, page(f"findings/{code}")) for code in CODES]
    return [(code, made.title.partition(": ")[2]) for code, made in found if made is not None]


def rendered(name: str, text: str) -> Page:
    """The page called `name` made of markdown. Its own HTML is shown as text, and addresses of scripts are no links."""
    tokens = _markdown().parse(text)
    title = name
    if tokens and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
        title = _plain(tokens[1])
        tokens = tokens[3:]
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor(_plain(tokens[at + 1])))
        inside = token.children or []
        for inner, after in pairwise(inside):
            if inner.type == "link_open":
                _lead(inner, after, name)
    # The package's own pages, rendered with raw HTML switched off.
    return Page(name, title, Markup(_markdown().renderer.render(tokens, _markdown().options, {})))  # noqa: S704


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    made.add_render_rule("table_open", lambda *_: '<div class="table-wrap"><table class="table">')
    made.add_render_rule("table_close", lambda *_: "</table></div>\n")
    made.add_render_rule("th_open", lambda *_: '<th scope="col">')
    # Without the alignment, which would be an inline style.
    made.add_render_rule("td_open", lambda *_: "<td>")
    return made


def _plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or () if child.type in ("text", "code_inline"))


def anchor(heading: str) -> str:
    """As GitHub makes it: lower case, spaces to hyphens, other signs dropped."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _lead(link: Token, text: Token, name: str) -> None:
    """Points a link between the files at the page, and calls that by its title instead of the file's name.

    A link that leaves the guide loses its address.
    """
    href = str(link.attrGet("href") or "")
    if href.startswith("https://"):
        link.attrSet("rel", "noopener noreferrer")
        return
    place, sharp, rest = href.partition("#")
    if not place:
        return
    target = normpath(str(PurePosixPath(name).parent / place)).removesuffix(".md")
    if not place.endswith(".md") or target not in guide_pages():
        link.attrs.pop("href", None)
        return
    link.attrSet("href", f"/guide/{target}".removesuffix(f"/{HOME}") + sharp + rest)
    if text.content == PurePosixPath(place).name or text.content == place:
        text.content = _title(target)


@lru_cache(maxsize=256)
def _title(name: str) -> str:
    """From the file's first line, without rendering the page: pages name each other."""
    first = guide_pages()[name].read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("# ").replace("`", "")
