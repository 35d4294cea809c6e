"""Tables and requests people give for many certificates at once, as spreadsheets and openssl write them."""

from __future__ import annotations

import csv
import io

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from certwright.entry.issuing_table import COLUMNS, read_batch
from certwright.kernel.problems import Invalid

KEY = ec.generate_private_key(ec.SECP256R1())


def request(subject: str = "", *san: x509.GeneralName) -> str:
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name.from_rfc4514_string(subject))
    if san:
        csr = csr.add_extension(x509.SubjectAlternativeName(san), critical=False)
    return csr.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names\na.example\n", [(2, ("a.example",))]),
        ("\ufeffnames,days\r\na.example b.example,\r\n", [(2, ("a.example", "b.example"))]),
        ("names;days\na.example, b.example;5\n", [(2, ("a.example", "b.example"))]),
        ('\n\nNames , Days\n"a.x\nb.x",7\nc.x,8\n', [(4, ("a.x", "b.x")), (6, ("c.x",))]),
        ("names\n\na.example\n\n", [(3, ("a.example",))]),
        ("names;days\r\n;\r\na.example;5\r\n ; \r\n;;\r\n", [(3, ("a.example",))]),
        ("names\tdays\na.example, b.example\t5\n", [(2, ("a.example", "b.example"))]),
    ],
    ids=["one column", "a spreadsheet's mark and line ends", "semicolons", "a cell of two lines", "empty lines",
         "lines of empty cells", "tabs"],
)  # fmt: skip
def test_a_table_is_read_as_spreadsheets_write_it(text: str, names: list[tuple[int, tuple[str, ...]]]) -> None:
    found = read_batch(text)
    assert [one.problem for one in found] == [None] * len(found)
    assert [(one.number, one.names) for one in found] == names


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "table_empty"),
        (" \n\n", "table_empty"),
        ("names,days\n", "table_empty"),
        ("names,days\n,\n,\n", "table_empty"),
        ("a.example,5\n", "table_column"),
        ("names,names\na,b\n", "table_column"),
        ('names\n"a\n', "table_unreadable"),
        (request("CN=x") + "-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n", "batch_other_block"),
    ],
)
def test_what_is_wrong_with_the_whole_is_said_once(text: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_batch(text)
    assert refused.value.code == code


def test_what_is_wrong_with_a_line_is_said_of_that_line() -> None:
    found = read_batch("names,days\na.example,ten\nb.example,5\nc.example,5,more\nd.example,٣\n")
    assert [(one.number, one.problem and one.problem.code) for one in found] == [
        (2, "number_invalid"), (3, None), (4, "table_line"), (5, "number_invalid"),
    ]  # fmt: skip
    assert found[1].days == 5


def test_requests_ask_for_their_own_names_and_subject() -> None:
    text = (
        request("CN=Ann,O=Shop,C=DE", x509.RFC822Name("ann@example.com"), x509.UniformResourceIdentifier("https://a.example"))
        + "what openssl req -text prints before the next one\n"
        + request("CN=old.example")
        + request("CN=Dan Example")
        + request("", x509.DirectoryName(x509.Name([])))
        + "-----BEGIN NEW CERTIFICATE REQUEST-----\nAAAA\n-----END NEW CERTIFICATE REQUEST-----\n"
    )  # fmt: skip
    ann, old, dan, odd, broken = read_batch(text)
    assert (ann.names, dict(ann.subject)) == (
        ("ann@example.com", "https://a.example"), {"common_name": "Ann", "organization": "Shop", "country": "DE"},
    )  # fmt: skip
    assert ann.csr == request_of(ann.csr)
    assert (old.names, dan.names) == (("old.example",), ())
    assert [one.problem and one.problem.code for one in (odd, broken)] == ["csr_format", "csr_format"]
    assert [one.number for one in (ann, old, dan, odd, broken)] == [1, 2, 3, 4, 5]


def request_of(pem: str | None) -> str:
    """The request as it stood in the text, whole."""
    assert pem is not None
    return x509.load_pem_x509_csr(pem.encode()).public_bytes(serialization.Encoding.PEM).decode().strip()


def test_a_request_stands_in_a_cell() -> None:
    text, asked = io.StringIO(), request("CN=x")
    writer = csv.writer(text)
    writer.writerows([("names", "profile", "csr"), ("a.example", "server", asked)])
    (one,) = read_batch(text.getvalue())
    assert (one.number, one.names, one.profile, one.csr) == (2, ("a.example",), "server", asked.strip())


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMNS, CELL)), min_size=1, max_size=5), st.booleans())
def test_what_a_table_says_is_what_is_asked(rows: list[dict[str, str]], semicolons: bool) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter=";" if semicolons else ",", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    said = [row for row in rows if any(cell.strip() for cell in row.values())]
    if not said:
        with pytest.raises(Invalid):
            read_batch(text.getvalue())
        return
    for one, row in zip(read_batch(text.getvalue()), said, strict=True):
        if one.problem is None:
            assert one.profile == row["profile"].strip()
            assert (one.subject["common_name"] or "") == row["common_name"].strip()
        else:
            assert row["days"].strip()


@given(st.text(st.characters(codec="utf-8"), max_size=200) | st.text("names,;\n\"' -BEGIN\0", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = read_batch(text)
    except Invalid:
        return
    assert found
    assert [one.number for one in found] == sorted({one.number for one in found})
