"""Reading nginx's configuration: its own tokenizer, includes, inheritance, listeners."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.connectors.target.nginx.config import (
    all_listeners,
    expand,
    included,
    parse,
    parse_listen,
    split_dump,
    tls_servers,
    tokens,
)
from certwright.connectors.target.nginx.discover import sites_of
from certwright.rooms.deployment.words import Listener, Site


def words_of(text: str) -> list[str]:
    return [token.text for token in tokens(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("listen 443 ssl;", ["listen", "443", "ssl", ";"], id="words end at spaces and semicolons"),
        pytest.param("a{b c;}", ["a", "{", "b", "c", ";", "}"], id="braces need no spaces"),
        pytest.param("a # b ; {\nc;", ["a", "c", ";"], id="a comment hides marks until the line ends"),
        pytest.param("a b#c;", ["a", "b#c", ";"], id="a hash inside a word is no comment"),
        pytest.param('a "b;{} #c";', ["a", "b;{} #c", ";"], id="quotes hide marks"),
        pytest.param("a 'b\"c';", ["a", 'b"c', ";"], id="the other quote is an ordinary character"),
        pytest.param(r'a "b\"c\\d";', ["a", 'b"c\\d', ";"], id="escaped quotes and backslashes"),
        pytest.param(r"a ^\.x\{2};", ["a", r"^\.x\{2}", ";"], id="other escapes keep their backslash"),
        pytest.param(r"a b\;c;", ["a", r"b\;c", ";"], id="an escaped semicolon does not end the word"),
        pytest.param("a ${b}c;", ["a", "${b}c", ";"], id="a variable's braces belong to the word"),
        pytest.param('a "never ends', ["a", "never ends"], id="an unfinished quote reaches to the end"),
        pytest.param("", [], id="nothing"),
    ],
)
def test_words_are_read_as_nginx_reads_them(text: str, expected: list[str]) -> None:
    assert words_of(text) == expected


def test_every_directive_knows_its_file_and_line() -> None:
    http = parse("events {}\n\nhttp {\n  # x\n  server {\n    listen\n 443;\n  }\n}\n", "/n.conf")[1]
    assert http.block is not None
    server = http.block[0]
    assert server.block is not None
    assert (server.line, server.block[0].line, server.block[0].words) == (5, 6, ("listen", "443"))


@pytest.mark.parametrize("text", ["a { b {", "}}} a;", "{ x; }", ";;;", "a; }", 'a "'])
def test_unbalanced_text_is_read_as_far_as_it_goes(text: str) -> None:
    assert isinstance(parse(text, "/n.conf"), tuple)


def test_lua_blocks_do_not_confuse_the_braces() -> None:
    lua = 'server { content_by_lua_block {\n local s = "}" -- }\n if x then t = {1} end\n s = [[ } ]]\n} listen 443; }'
    (server,) = parse(lua, "/n.conf")
    assert server.block is not None
    assert [d.name for d in server.block] == ["content_by_lua_block", "listen"]
    assert server.block[1].line == 5


@given(st.text(alphabet=st.sampled_from("abc;{}\"'\\$# \n\t#es[]*"), max_size=200))
def test_any_text_is_read_without_complaint(text: str) -> None:
    files = {"/n.conf": text}
    servers = tls_servers(expand(files, "/n.conf"), "/")
    sites_of(servers, all_listeners(expand(files, "/n.conf")), lambda _: None, "127.0.0.1")


WORD = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=12)


def quoted(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


Tree = list[tuple[list[str], "Tree | None"]]
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.lists(st.tuples(st.lists(WORD, min_size=1, max_size=3), st.none()), max_size=3),
    lambda inner: st.lists(st.tuples(st.lists(WORD, min_size=1, max_size=3), inner), max_size=3),
    max_leaves=20,
)


@given(TREES)
def test_what_is_written_with_quotes_is_read_back_the_same(tree: Tree) -> None:
    def written(nodes: Tree) -> str:
        out = ""
        for words, block in nodes:
            head = " ".join(quoted(word) for word in words)
            out += f"{head};\n" if block is None else f"{head} {{ # }}\n{written(block)}}}\n"
        return out

    def read(directives: object) -> Tree:
        assert isinstance(directives, tuple)
        return [(list(d.words), None if d.block is None else read(d.block)) for d in directives]

    assert read(parse(written(tree), "/n.conf")) == tree


def test_a_dump_is_split_at_its_markers_and_a_repeated_one_is_a_comment() -> None:
    dump = (
        "# configuration file /etc/nginx/nginx.conf:\nevents {}\n\n"
        "# configuration file /etc/nginx/a.conf:\nx;\n# configuration file /etc/nginx/nginx.conf:\ny;\n\n"
    )
    files = split_dump(dump)
    assert list(files) == ["/etc/nginx/nginx.conf", "/etc/nginx/a.conf"]
    assert [d.words for d in parse(files["/etc/nginx/a.conf"], "/a")] == [("x",), ("y",)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        pytest.param("a.conf", ["/etc/nginx/a.conf"], id="relative to the main file"),
        pytest.param("/etc/nginx/../nginx/a.conf", ["/etc/nginx/a.conf"], id="normalised"),
        pytest.param("d/*.conf", ["/etc/nginx/d/1.conf", "/etc/nginx/d/2.conf"], id="sorted"),
        pytest.param("d/*", ["/etc/nginx/d/1.conf", "/etc/nginx/d/2.conf"], id="no hidden files, no deeper ones"),
        pytest.param("d/[!1].conf", ["/etc/nginx/d/2.conf"], id="sets"),
        pytest.param("none*", [], id="nothing"),
    ],
)
def test_an_include_names_files_as_glob_does(pattern: str, expected: list[str]) -> None:
    names = ["/etc/nginx/a.conf", "/etc/nginx/d/2.conf", "/etc/nginx/d/1.conf", "/etc/nginx/d/.h.conf",
             "/etc/nginx/d/e/3.conf"]  # fmt: skip
    assert included(pattern, "/etc/nginx", dict.fromkeys(names)) == expected


def test_includes_that_go_round_in_a_circle_end() -> None:
    files = {"/n.conf": "include a; x;", "/a": "include b; y;", "/b": "include a; include n.conf; z;"}
    assert [d.name for d in expand(files, "/n.conf")] == ["z", "y", "x"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("443 ssl", [Listener("*", 443, tls=True)], id="port"),
        pytest.param("*:443 ssl http2", [Listener("*", 443, tls=True, http2=True)], id="star"),
        pytest.param("0.0.0.0:443 ssl", [Listener("*", 443, tls=True)], id="all IPv4"),
        pytest.param("127.0.0.1:8443 ssl default_server", [Listener("127.0.0.1", 8443, True, True)], id="address"),
        pytest.param("[::]:443 ssl ipv6only=on", [Listener("::", 443, tls=True)], id="all IPv6"),
        pytest.param("[2001:DB8::1] ssl", [Listener("2001:db8::1", 80, tls=True)], id="IPv6 without port"),
        pytest.param("localhost", [Listener("localhost", 80)], id="name without port"),
        pytest.param("443 quic reuseport", [Listener("*", 443, tls=True, quic=True)], id="quic is TLS"),
        pytest.param(
            "443 ssl proxy_protocol", [Listener("*", 443, tls=True, proxy_protocol=True)], id="proxy protocol"
        ),
        pytest.param("unix:/run/n.sock ssl", [Listener("/run/n.sock", 0, tls=True, unix=True)], id="socket"),
        pytest.param("8443-8445 ssl", [Listener("*", p, tls=True) for p in (8443, 8444, 8445)], id="range"),
        pytest.param("a:b:c", [], id="unreadable"),
        pytest.param("1:99999", [], id="no such port"),
    ],
)
def test_a_listen_directive_is_read(text: str, expected: list[Listener]) -> None:
    assert parse_listen(tuple(text.split())) == expected


def sites(text: str, **more: str) -> tuple[Site, ...]:
    files = {"/etc/nginx/nginx.conf": text} | {f"/etc/nginx/{k}.conf": v for k, v in more.items()}
    directives = expand(files, "/etc/nginx/nginx.conf")
    return sites_of(tls_servers(directives, "/etc/nginx"), all_listeners(directives), lambda _: None, "127.0.0.1")


CERT = "ssl_certificate c.pem; ssl_certificate_key /k/k.pem;"


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        pytest.param(
            f"http {{ server {{ listen 443 ssl; {CERT} }} }}",
            [("/etc/nginx/c.pem", "/k/k.pem", None)],
            id="relative paths count from the main file",
        ),
        pytest.param(
            f"http {{ {CERT} ssl_password_file p; server {{ listen 443 ssl; }} }}",
            [("/etc/nginx/c.pem", "/k/k.pem", "/etc/nginx/p")],
            id="inherited from http",
        ),
        pytest.param(
            f"http {{ {CERT} server {{ listen 443 ssl; ssl_certificate d.pem; ssl_certificate_key d.key; }} }}",
            [("/etc/nginx/d.pem", "/etc/nginx/d.key", None)],
            id="the server's own wins whole",
        ),
        pytest.param(
            f"http {{ server {{ listen 443 ssl; {CERT} ssl_certificate r.pem; ssl_certificate_key r.key; }} }}",
            [("/etc/nginx/c.pem", "/k/k.pem", None), ("/etc/nginx/r.pem", "/etc/nginx/r.key", None)],
            id="two certificates, paired in order",
        ),
        pytest.param(
            f"stream {{ server {{ listen 443 ssl; {CERT} }} }}", [("/etc/nginx/c.pem", "/k/k.pem", None)], id="stream"
        ),
        pytest.param(
            f"http {{ server {{ listen 443; ssl on; {CERT} }} }}",
            [("/etc/nginx/c.pem", "/k/k.pem", None)],
            id="the old ssl on",
        ),
        pytest.param(
            "http { server { include tls.conf; } }",
            [("/etc/nginx/c.pem", "/k/k.pem", None)],
            id="from an included file",
        ),
    ],
)
def test_a_tls_site_has_the_slots_nginx_would_load(text: str, slots: list[tuple[str, str, str | None]]) -> None:
    (site,) = sites(text, tls=f"listen 443 ssl; {CERT}")
    assert site.managed
    assert [(s.certificate_path, s.key_path, s.passphrase_path) for s in site.slots] == slots


@pytest.mark.parametrize(
    ("inside", "code"),
    [
        pytest.param(
            "ssl_certificate $ssl_server_name.pem; ssl_certificate_key k;", "path_with_variable", id="variable"
        ),
        pytest.param('ssl_certificate "data:$x"; ssl_certificate_key k;', "path_with_variable", id="data"),
        pytest.param("ssl_certificate c; ssl_certificate_key engine:pkcs11:1;", "not_a_file", id="engine"),
        pytest.param("", "no_certificate_path", id="none"),
        pytest.param("ssl_certificate c;", "no_key_path", id="no key"),
        pytest.param("ssl_reject_handshake on;", "rejects_handshake", id="rejects"),
    ],
)
def test_a_site_that_can_not_be_managed_says_why(inside: str, code: str) -> None:
    (site,) = sites(f"http {{ server {{ listen 443 ssl; {inside} }} }}")
    assert not site.managed
    assert site.unmanaged_code == code
    assert site.unmanaged_reason


def test_a_site_in_clear_is_no_site_of_ours() -> None:
    assert sites(f"http {{ {CERT} server {{ listen 80; }} server {{ server_name x; }} }}") == ()


def test_tls_belongs_to_the_address_not_to_the_block() -> None:
    first, second = sites(
        f"http {{ {CERT} server {{ listen 443 ssl; server_name a.example; }}"
        " server { listen 443; server_name b.example; } }"
    )
    assert second.listeners[0].tls
    assert first.listeners[0].default_server
    assert not second.listeners[0].default_server


def asked(site: Site) -> list[tuple[str, str | None]]:
    return [(address.host, address.server_name) for address in site.addresses]


def test_each_site_is_looked_at_by_names_only_it_answers_to() -> None:
    first, second, third = sites(
        f"http {{ {CERT}"
        " server { listen 443 ssl; server_name a.example ~^x; }"
        " server { listen 443 ssl; server_name a.example *.b.example .c.example; }"
        " server { listen 443 ssl default_server; server_name _; } }"
    )
    assert asked(first) == [("127.0.0.1", "a.example")]
    assert asked(second) == [("127.0.0.1", "certwright-check.b.example"), ("127.0.0.1", "c.example")]
    assert asked(third) == [("127.0.0.1", None)]


def test_a_site_on_all_addresses_is_reached_where_no_other_listener_catches_the_connection() -> None:
    wide, narrow = sites(
        f"http {{ {CERT} server {{ listen 443 ssl; server_name a.example; }}"
        " server { listen 127.0.0.1:443 ssl; server_name b.example; } server { listen 127.0.0.2:443; } }"
    )[:2]
    assert {host for host, _ in asked(wide)} == {"127.0.0.3"}
    assert {host for host, _ in asked(narrow)} == {"127.0.0.1"}


def test_a_pattern_alone_leaves_nothing_to_look_at() -> None:
    _, site = sites(
        f"http {{ {CERT} server {{ listen 443 ssl default_server; }} server {{ listen 443 ssl; server_name ~^x; }} }}"
    )
    assert site.addresses == ()


def test_a_site_keeps_its_key_when_it_moves_within_the_file() -> None:
    server = f"server {{ listen 443 ssl; server_name a.example b.example; {CERT} }}"
    other = f"server {{ listen 443 ssl; server_name c.example; {CERT} }}"
    before = sites(f"http {{ {server} {other} }}")
    after = sites(f"http {{\n\n {other} {server.replace('a.example b.example', 'b.example a.example')} }}")
    assert before[0].key == after[1].key
    assert before[1].key == after[0].key
    assert before[0].key != before[1].key


def test_two_equal_blocks_get_keys_of_their_own() -> None:
    first, second = sites(f"http {{ {CERT} server {{ listen 443 ssl; }} server {{ listen 443 ssl; }} }}")
    assert first.key != second.key
