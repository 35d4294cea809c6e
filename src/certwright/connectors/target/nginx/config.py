"""Reads what `nginx -T` prints: files, directives, server blocks. Pure, and content with any text whatever.

It follows nginx's own tokenizer (quotes, escapes, `${name}`, comments only where a word could begin) and its rules of
inheritance for the directives that matter here. nginx itself stays the judge of what is valid; this reader never
refuses, it only reports less.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import translate
from posixpath import dirname, join, normpath

from certwright.rooms.deployment.words import Listener

_MARKER = re.compile(r"^# configuration file (/[^\n]*):$", re.MULTILINE)
_SPACE = " \t\r\n"
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", '"': '"', "'": "'", "\\": "\\"}
_INCLUDE_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Directive:
    """`words[0]` is the directive's name; `block` is None when it ends in a semicolon."""

    words: tuple[str, ...]
    file: str
    line: int
    block: tuple[Directive, ...] | None = None

    @property
    def name(self) -> str:
        return self.words[0]


@dataclass(frozen=True, slots=True)
class Server:
    """One TLS server block with what it inherits. Paths are absolute unless they hold variables or prefixes."""

    protocol: str
    listeners: tuple[Listener, ...]
    names: tuple[str, ...]
    certificates: tuple[str, ...]
    keys: tuple[str, ...]
    passphrases: str | None
    file: str
    line: int
    rejects_handshake: bool = False


def split_dump(dump: str) -> dict[str, str]:
    """Configuration files by path from the output of `nginx -T`, the main one first.

    A path seen before is no new file: nginx prints each once, so such a line is a comment inside one.
    """
    files: dict[str, str] = {}
    marks: list[re.Match[str]] = []
    for match in _MARKER.finditer(dump):
        if all(match[1] != known[1] for known in marks):
            marks.append(match)
    for match, following in zip(marks, [*marks[1:], None], strict=True):
        files[match[1]] = dump[match.end() + 1 : following.start() if following else len(dump)]
    return files


def is_main(directives: tuple[Directive, ...]) -> bool:
    """Whether these are the directives of a main file: nginx starts with no configuration that lacks `events { … }`."""
    return any(directive.words == ("events",) and directive.block is not None for directive in directives)


def shown(text: str) -> str:
    """Text of a configuration as it can be stored and shown: bytes that are no UTF-8, and NUL, as `\\xe9`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\0", "\\x00")


@dataclass(slots=True)
class _Token:
    text: str
    line: int
    mark: bool = False
    """Whether it is one of `;`, `{`, `}` standing by itself."""


def tokens(text: str) -> Iterator[_Token]:
    """Words and marks as nginx sees them; an unfinished quote reaches to the end."""
    at, line, end = 0, 1, len(text)
    while at < end:
        char = text[at]
        if char in _SPACE:
            line += char == "\n"
            at += 1
        elif char == "#":
            newline = text.find("\n", at)
            at = end if newline < 0 else newline
        elif char in ";{}":
            yield _Token(char, line, mark=True)
            at += 1
        else:
            began = line
            word, at, line = _quoted(text, at, line) if char in "\"'" else _bare(text, at, line)
            yield _Token(word, began)


_PLAIN_IN_QUOTES = {quote: re.compile(rf"[^{quote}\\]+") for quote in "\"'"}
_PLAIN = re.compile(r"[^ \t\r\n;{\\]+")


def _quoted(text: str, at: int, line: int) -> tuple[str, int, int]:
    quote, out = text[at], []
    at += 1
    while at < len(text) and text[at] != quote:
        if text[at] == "\\":
            out.append(_escaped(text[at + 1 : at + 2]))
            line += text[at + 1 : at + 2] == "\n"
            at += 2
        elif plain := _PLAIN_IN_QUOTES[quote].match(text, at):
            out.append(plain[0])
            line += plain[0].count("\n")
            at = plain.end()
    return "".join(out), at + 1, line


def _bare(text: str, at: int, line: int) -> tuple[str, int, int]:
    out: list[str] = []
    while at < len(text):
        if text[at] == "\\":
            out.append(_escaped(text[at + 1 : at + 2]))
            line += text[at + 1 : at + 2] == "\n"
            at += 2
        elif text[at] == "{" and out and out[-1].endswith("$"):
            out.append("{")
            at += 1
        elif plain := _PLAIN.match(text, at):
            out.append(plain[0])
            at = plain.end()
        else:
            break
    return "".join(out), at, line


def _escaped(char: str) -> str:
    return _ESCAPES.get(char, "\\" + char)


def parse(text: str, file: str) -> tuple[Directive, ...]:
    """The directives of one file, unexpanded; unbalanced braces end where the file does."""
    # The bottom frame collects the file's directives; each `{` puts the words it follows on the stack.
    frames: list[tuple[tuple[str, ...], int, list[Directive]]] = [((), 0, [])]
    words: list[str] = []
    line = 0
    stream = _without_lua(text)
    for token in tokens(stream):
        if not token.mark:
            if not words:
                line = token.line
            words.append(token.text)
        elif token.text == ";":
            if words:
                frames[-1][2].append(Directive(tuple(words), file, line))
            words = []
        elif token.text == "{":
            frames.append((tuple(words) or ("",), line or token.line, []))
            words = []
        else:
            words = []
            if len(frames) > 1:
                _close(frames, file)
    while len(frames) > 1:
        _close(frames, file)
    return tuple(frames[0][2])


def _close(frames: list[tuple[tuple[str, ...], int, list[Directive]]], file: str) -> None:
    head, line, inside = frames.pop()
    frames[-1][2].append(Directive(head, file, line, tuple(inside)))


_LUA = re.compile(r"(?<![\w$\"'#])\w+_by_lua_block\s*\{")


def _without_lua(text: str) -> str:
    """Blank out the bodies of OpenResty's `*_by_lua_block { … }`: their braces follow Lua's rules, not nginx's."""
    if "_by_lua_block" not in text:
        return text
    out, at = [], 0
    while match := _LUA.search(text, at):
        out.append(text[at : match.end()])
        close = _lua_end(text, match.end())
        out.append("\n" * text.count("\n", match.end(), close))
        at = close
    out.append(text[at:])
    return "".join(out)


def _lua_end(text: str, at: int) -> int:
    depth = 1
    skip = re.compile(
        r"--\[(=*)\[.*?\]\1\]|--[^\n]*|\[(=*)\[.*?\]\2\]|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", re.DOTALL
    )
    while at < len(text):
        if passed := skip.match(text, at):
            at = passed.end()
            continue
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return at
        at += 1
    return at


def expand(files: Mapping[str, str], main: str) -> tuple[Directive, ...]:
    """The main file's directives with every `include` replaced by what it names among `files`."""
    parsed = {path: parse(text, path) for path, text in files.items()}
    folder = dirname(main)

    def replaced(directives: tuple[Directive, ...], open_files: tuple[str, ...]) -> tuple[Directive, ...]:
        out: list[Directive] = []
        for directive in directives:
            if directive.name == "include" and len(directive.words) == 2 and directive.block is None:
                for path in included(directive.words[1], folder, parsed):
                    if path not in open_files and len(open_files) < _INCLUDE_DEPTH:
                        out += replaced(parsed[path], (*open_files, path))
            elif directive.block is not None:
                out.append(replace(directive, block=replaced(directive.block, open_files)))
            else:
                out.append(directive)
        return tuple(out)

    return replaced(parsed.get(main, ()), (main,))


def included(pattern: str, folder: str, files: Mapping[str, object]) -> list[str]:
    """The paths an `include` names, in nginx's order; relative ones count from the main file's directory."""
    path = _absolute(pattern, folder)
    if path in files:
        return [path]
    if not any(c in path for c in "*?["):
        return []
    # glob(3): `*` and `?` stop at slashes and skip leading dots; fnmatch knows neither, so compare part by part.
    wanted = [re.compile(translate(part)) for part in path.split("/")]
    plain = path.split("/")
    found = []
    for candidate in files:
        parts = candidate.split("/")
        if len(parts) == len(wanted) and all(
            w.match(p) and (not p.startswith(".") or q.startswith("."))
            for w, p, q in zip(wanted, parts, plain, strict=True)
        ):
            found.append(candidate)
    return sorted(found)


def _absolute(path: str, folder: str) -> str:
    return normpath(path) if path.startswith("/") else normpath(join(folder, path))


@dataclass(slots=True)
class _Scope:
    """What a block passes on to the blocks in it (nginx merges these directives as a whole, never line by line)."""

    certificates: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    passphrases: str | None = None
    flags: dict[str, str] = field(default_factory=dict)

    def inner(self, directives: tuple[Directive, ...], folder: str) -> _Scope:
        certificates, keys = [], []
        inner = _Scope(self.certificates, self.keys, self.passphrases, dict(self.flags))
        for directive in directives:
            if len(directive.words) < 2 or directive.block is not None:
                continue
            match directive.name:
                case "ssl_certificate":
                    certificates.append(_file(directive.words[1], folder))
                case "ssl_certificate_key":
                    keys.append(_file(directive.words[1], folder))
                case "ssl_password_file":
                    inner.passphrases = _file(directive.words[1], folder)
                case "ssl" | "http2" | "ssl_reject_handshake":
                    inner.flags[directive.name] = directive.words[1]
        if certificates:
            inner.certificates = tuple(certificates)
        if keys:
            inner.keys = tuple(keys)
        return inner


def is_plain_path(path: str) -> bool:
    """Whether a file name in the configuration means one file: no variables, engines or inline data."""
    return "$" not in path and not path.startswith(("data:", "engine:", "store:"))


def _file(path: str, folder: str) -> str:
    return _absolute(path, folder) if is_plain_path(path) else path


def tls_servers(directives: tuple[Directive, ...], folder: str) -> list[Server]:
    """Every server block of http, stream and mail that terminates TLS. `folder` is the main file's directory."""
    out: list[Server] = []
    top = _Scope().inner(directives, folder)
    for block in directives:
        if block.name in ("http", "stream", "mail") and block.block is not None:
            out += _servers_of(block, top.inner(block.block, folder), folder)
    return out


def all_listeners(directives: tuple[Directive, ...]) -> list[Listener]:
    """Every address any server block listens on, TLS or not."""
    out: list[Listener] = []
    for block in directives:
        if block.name in ("http", "stream", "mail") and block.block is not None:
            for server in block.block:
                if server.name == "server" and server.block is not None:
                    out += _listeners(server.block, block.name)
    return out


def _servers_of(block: Directive, scope: _Scope, folder: str) -> list[Server]:
    assert block.block is not None
    servers = [s for s in block.block if s.name == "server" and s.block is not None]
    listens = [_listeners(server.block or (), block.name) for server in servers]
    # Options belong to the address, not to the block: `listen 443;` beside another block's `listen 443 ssl;` is TLS.
    shared: dict[str, Listener] = {}
    for listener in (one for several in listens for one in several):
        known = shared.get(listener.text)
        shared[listener.text] = listener if known is None else replace(
            known,
            tls=known.tls or listener.tls,
            http2=known.http2 or listener.http2,
            quic=known.quic or listener.quic,
            proxy_protocol=known.proxy_protocol or listener.proxy_protocol,
        )  # fmt: skip
    defaults = {one.text for several in listens for one in several if one.default_server}
    out = []
    seen: set[str] = set()
    for server, own in zip(servers, listens, strict=True):
        inside = scope.inner(server.block or (), folder)
        listeners = []
        for listener in own:
            # Without an explicit default_server the first block of an address is its default.
            is_default = listener.default_server or (listener.text not in defaults and listener.text not in seen)
            seen.add(listener.text)
            listeners.append(
                replace(
                    shared[listener.text],
                    default_server=is_default,
                    tls=shared[listener.text].tls or inside.flags.get("ssl") == "on",
                    http2=shared[listener.text].http2 or inside.flags.get("http2") == "on",
                )
            )
        if not any(listener.tls for listener in listeners):
            continue
        names = [n.lower() for d in server.block or () if d.name == "server_name" for n in d.words[1:]]
        out.append(
            Server(
                protocol=block.name,
                listeners=tuple(listener for listener in listeners if listener.tls),
                names=tuple(dict.fromkeys(names)),
                certificates=inside.certificates,
                keys=inside.keys,
                passphrases=inside.passphrases,
                file=server.file,
                line=server.line,
                rejects_handshake=inside.flags.get("ssl_reject_handshake") == "on",
            )
        )
    return out


def _listeners(directives: tuple[Directive, ...], protocol: str) -> list[Listener]:
    out = []
    for directive in directives:
        if directive.name == "listen" and len(directive.words) > 1:
            out += parse_listen(directive.words[1:])
    if not out and protocol == "http":
        out.append(Listener("*", 80, default_server=False))
    return out


def parse_listen(words: tuple[str, ...]) -> list[Listener]:
    """One `listen` directive's arguments; several listeners for a range of ports, none if it can't be read."""
    place, options = words[0], words[1:]
    flags = Listener(
        "*",
        0,
        tls="ssl" in options or "quic" in options,
        default_server="default_server" in options or "default" in options,
        http2="http2" in options,
        quic="quic" in options,
        proxy_protocol="proxy_protocol" in options,
    )
    if place.startswith("unix:"):
        return [replace(flags, host=place.removeprefix("unix:"), unix=True)]
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
        ports = _ports(rest.removeprefix(":")) if rest else [80]
        return [replace(flags, host=host.lower(), port=port) for port in ports]
    if _DIGITS.fullmatch(place):
        return [replace(flags, port=port) for port in _ports(place)]
    host, colon, rest = place.partition(":")
    ports = _ports(rest) if colon else [80]
    host = "*" if host in ("*", "0.0.0.0") else host.lower()  # noqa: S104 - read, not bound
    return [replace(flags, host=host, port=port) for port in ports]


_DIGITS = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?")
_MOST_PORTS = 1000


def _ports(text: str) -> list[int]:
    if not _DIGITS.fullmatch(text):
        return []
    first, _, last = text.partition("-")
    ports = range(int(first), int(last or first) + 1)[:_MOST_PORTS]
    return [port for port in ports if 0 < port < 65536]
