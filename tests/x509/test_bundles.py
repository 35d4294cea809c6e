"""Download archives: the right files, named in their note, the same octets every time."""

from __future__ import annotations

import io
import re
import zipfile
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.x509 import bundles, certificates, keys
from tests.x509.factory import NOW, hierarchy

H = hierarchy()


def nginx(name: str, key: keys.PrivateKey | None = None, at: datetime = NOW) -> bytes:
    contents = bundles.Contents(name, [H.leaf, H.issuing], key)
    return bundles.archive(bundles.Server.NGINX, contents, at=at, random=bytes)


def unpacked(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return {entry: opened.read(entry) for entry in opened.namelist()}


def test_the_nginx_archive_holds_chain_key_and_a_note_that_names_them() -> None:
    files = unpacked(nginx("www.certwright.dev", H.leaf_key))
    assert list(files) == ["www.certwright.dev.crt", "www.certwright.dev.key", "README.txt"]
    assert [c.der for c in certificates.read_certificates(files["www.certwright.dev.crt"])] == [H.leaf, H.issuing]
    assert certificates.key_matches(
        keys.read_private_key(files["www.certwright.dev.key"]), certificates.facts_of(H.leaf)
    )
    note = files["README.txt"].decode()
    assert "ssl_certificate     /etc/nginx/certs/www.certwright.dev.crt;" in note
    assert "ssl_certificate_key /etc/nginx/certs/www.certwright.dev.key;" in note


def test_without_a_key_the_archive_says_where_it_stayed() -> None:
    files = unpacked(nginx("a.dev"))
    assert list(files) == ["a.dev.crt", "README.txt"]
    assert b"no key" in files["README.txt"]


def test_only_the_owner_may_read_the_unpacked_key() -> None:
    archive = nginx("a.dev", H.leaf_key)
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        modes = {entry.filename: entry.external_attr >> 16 & 0o777 for entry in opened.infolist()}
    assert modes == {"a.dev.crt": 0o644, "a.dev.key": 0o600, "README.txt": 0o644}


@pytest.mark.parametrize("at", [NOW, datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 2, 28, tzinfo=UTC)])
def test_the_same_arguments_give_the_same_octets(at: datetime) -> None:
    one, two = (nginx("a.dev", at=at) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("www.a.dev", "www.a.dev"),
        ("*.a.dev", "_.a.dev"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("2001:db8::7", "2001_db8_7"),
        ("münchen.de", "m_nchen.de"),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("nul.example", "certificate_nul.example"),
        ("", "certificate"),
        ("a" * 300, "a" * 100),
    ],
)
def test_a_file_name_holds_nothing_surprising(name: str, expected: str) -> None:
    assert bundles.safe_file_name(name) == expected


@given(st.text(max_size=200))
def test_any_text_becomes_a_safe_file_name(text: str) -> None:
    name = bundles.safe_file_name(text)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name)
    assert len(name) <= 120
    assert not name.endswith(".")
    assert name.partition(".")[0].lower() not in bundles._RESERVED
