"""What is asked outside: a CA's server on this machine serves issuers, lists and OCSP answers, good and bad ones."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from certwright.platform.limits import CheckLimit, Rate
from certwright.rooms import uploads
from certwright.x509.certificates import to_pem
from certwright.x509.workshop import pkcs7
from tests.servers.hostile_http import HostileHttp, answer, hostile_http, silent
from tests.uploads.material import NOW, access, ca, certificate, codes, key, pem_key, points

SERIAL = 4711


def judged(world: Any, leaf: bytes, *, chain: bool = True, **wishes: Any) -> uploads.Judgement:
    pem = to_pem(leaf) + (ca().pem if chain else "")
    given = uploads.Given(pem.encode(), pem_key().encode())
    return world.run(uploads.check(world.services, world.actor, given, uploads.Wishes(**wishes)))


@pytest.fixture
def port(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guarded client goes to ports 80 and 443; here a server has another one."""
    fetch = world.services.egress.fetch

    async def anywhere(url: str, **options: Any) -> Any:
        return await fetch(url, **options, allowed_ports=range(1, 65536))

    monkeypatch.setattr(type(world.services.egress), "fetch", lambda _self, url, **options: anywhere(url, **options))


def asked(server: HostileHttp, path: str) -> int:
    return len([head for head in server.requests if f" {path} " in head])


@pytest.mark.parametrize("form", ["der", "pem", "p7b"])
def test_a_missing_issuer_is_fetched_from_the_address_in_the_certificate(world: Any, port: None, form: str) -> None:
    issuing = ca().issuing
    body = {"der": issuing, "pem": to_pem(issuing).encode(), "p7b": pkcs7.write([issuing, ca().root])}[form]
    with hostile_http({"/ca": answer(200, body)}) as server:
        leaf = ca().leaf("www.example.com", extensions=(access(issuer=server.url("/ca")),))
        found = judged(world, leaf, chain=False)
        assert [link.source for link in found.links] == ["given", "fetched"]
        assert (found.chain_pem, found.chain_complete) == (to_pem(issuing), True)
        assert "chain_missing" in [repair.code for repair in found.repaired]
        assert codes(found.as_dict()) == []
        again = judged(world, leaf, chain=False)
        assert again.chain_complete
        assert asked(server, "/ca") == 1  # kept for an hour
        strict = judged(world, leaf, chain=False, strict=True)
        assert [finding.code for finding in strict.errors] == ["chain_missing"]
        assert strict.chain_pem == to_pem(issuing)  # offered all the same
        offline = judged(world, leaf, chain=False, online=False)
        assert [finding.code for finding in offline.warnings] == ["chain_missing"]


def test_issuers_of_issuers_are_fetched_up_to_the_root(world: Any, port: None) -> None:
    with hostile_http({}) as server:
        lower_key = key("lower")
        more = (access(issuer=server.url("/upper")), (x509.BasicConstraints(True, None), True))
        lower = certificate("Lower", lower_key, "Issuing", ca().issuing_key, *more)
        names = (x509.SubjectAlternativeName([x509.DNSName("www.example.com")]), False)
        leaf = certificate("x", key("leaf"), "Lower", lower_key, names, access(issuer=server.url("/lower")))
        routes = {"/lower": answer(200, lower), "/upper": answer(200, ca().issuing)}
    with hostile_http(routes, port=server.port):
        found = judged(world, leaf, chain=False, private=True)
    assert [link.subject for link in found.links] == ["CN=x", "CN=Lower", "CN=Issuing"]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (answer(404), "answered 404"),
        (answer(200, b"<html>moved</html>"), "no CA certificate"),
        (answer(200, b"x" * 300_000), "larger than"),
        (answer(200, to_pem(certificate("Leaf", key("x"), "Issuing", ca().issuing_key)).encode()), "no CA"),
    ],
)
def test_an_issuer_that_does_not_come_is_a_note(world: Any, port: None, what: Any, words: str) -> None:
    with hostile_http({"/ca": what}) as server:
        leaf = ca().leaf("www.example.com", extensions=(access(issuer=server.url("/ca")),))
        found = judged(world, leaf, chain=False)
    assert codes(found.as_dict()) == ["chain_missing", "issuer_not_fetched"]
    (note,) = [finding for finding in found.notes if finding.code == "issuer_not_fetched"]
    assert words in note.message


def test_a_foreign_ca_of_the_same_name_is_not_taken(world: Any, port: None) -> None:
    other = certificate("Issuing", key("other"), "Issuing", key("other"), (x509.BasicConstraints(True, None), True))
    with hostile_http({"/ca": answer(200, other)}) as server:
        leaf = ca().leaf("www.example.com", extensions=(access(issuer=server.url("/ca")),))
        found = judged(world, leaf, chain=False)
    assert (found.chain_pem, found.chain_complete) == ("", False)


def test_a_private_address_is_not_asked_and_that_is_said(world: Any) -> None:
    leaf = ca().leaf("www.example.com", extensions=(access(issuer="http://10.0.0.1/ca", ocsp="http://10.0.0.1/o"),))
    found = judged(world, leaf, chain=False)
    assert "doesn't connect to" in next(f.message for f in found.notes if f.code == "issuer_not_fetched")


def _delegate(*, may_sign: bool = True) -> x509.Certificate:
    purpose = ExtendedKeyUsageOID.OCSP_SIGNING if may_sign else ExtendedKeyUsageOID.SERVER_AUTH
    der = certificate(
        "Responder", key("responder"), "Issuing", ca().issuing_key, (x509.ExtendedKeyUsage([purpose]), False)
    )
    return x509.load_der_x509_certificate(der)


def _namesake() -> x509.Certificate:
    """Says of itself that it may sign answers."""
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
    return x509.load_der_x509_certificate(certificate("Issuing", key("x"), "Issuing", key("x"), (purpose, False)))


def _other() -> bytes:
    return ca().leaf("other.example.com")


# What the responder says → what is found.
RESPONDERS: list[tuple[str, Any, list[str]]] = [
    ("good", lambda leaf: ca().response(leaf), []),
    ("revoked", lambda leaf: ca().response(leaf, revoked=True), ["revoked"]),
    ("good, signed by a delegate", lambda leaf: ca().response(leaf, signer=key("responder"), delegate=_delegate()), []),
    (
        "signed by somebody without that right",
        lambda leaf: ca().response(leaf, revoked=True, signer=key("responder"), delegate=_delegate(may_sign=False)),
        ["revocation_unknown"],
    ),
    (
        "signed by a stranger of the issuer's name",
        lambda leaf: ca().response(leaf, revoked=True, signer=key("x"), delegate=_namesake()), ["revocation_unknown"],
    ),
    ("out of date", lambda leaf: ca().response(leaf, revoked=True, at=NOW - timedelta(9)), ["revocation_unknown"]),
    ("of the future", lambda leaf: ca().response(leaf, revoked=True, at=NOW + timedelta(9)), ["revocation_unknown"]),
    ("about another", lambda leaf: ca().response(leaf, revoked=True, about=_other()), ["revocation_unknown"]),
    ("nonsense", lambda leaf: b"no", ["revocation_unknown"]),
    ("tryLater", lambda leaf: bytes.fromhex("30030a0103"), ["revocation_unknown"]),
]  # fmt: skip


def test_only_what_the_issuer_says_of_this_certificate_now_is_believed(world: Any, port: None) -> None:
    with hostile_http({}) as server:
        leaf = ca().leaf("www.example.com", extensions=(access(ocsp=server.url("/o")),))
    for case, says, expected in RESPONDERS:
        with hostile_http({"/o": answer(200, says(leaf))}, port=server.port):
            assert codes(judged(world, leaf).as_dict()) == expected, case


def test_the_list_is_asked_where_the_responder_has_no_answer(world: Any, port: None) -> None:
    with hostile_http({}) as server:
        places = (access(ocsp=server.url("/o")), points(server.url("/crl")))
        leaf = ca().leaf("www.example.com", extensions=places, serial=SERIAL)
    cases = [
        (ca().revocation_list(SERIAL), ["revoked"]),
        (ca().revocation_list(1), []),
        (ca().revocation_list(SERIAL, signer=key("x")), ["revocation_unknown"]),
        (ca().revocation_list(SERIAL, update=NOW - timedelta(days=30)), ["revocation_unknown"]),
        (b"nothing", ["revocation_unknown"]),
    ]
    for listed, expected in cases:
        world.services.port(uploads.Fetches)._files.clear()
        with hostile_http({"/o": answer(500), "/crl": answer(200, listed)}, port=server.port):
            assert codes(judged(world, leaf).as_dict()) == expected
    revoked = judged_words(world, leaf, server.port)
    assert "on 2026-03-01 10:00 UTC (key compromise)" in revoked


def judged_words(world: Any, leaf: bytes, at: int) -> str:
    world.services.port(uploads.Fetches)._files.clear()
    with hostile_http({"/o": silent(), "/crl": answer(200, ca().revocation_list(SERIAL))}, port=at):
        # A responder that says nothing costs its seconds and no more; the list answers then.
        from certwright.rooms.uploads import outside

        before, outside._SECONDS = outside._SECONDS, 0.1
        try:
            return str(judged(world, leaf).errors)
        finally:
            outside._SECONDS = before


def test_a_revoked_certificate_is_not_stored(api: Any, port: None) -> None:
    with hostile_http({}) as server:
        leaf = ca().leaf("www.example.com", extensions=(access(ocsp=server.url("/o")),))
    with hostile_http({"/o": answer(200, ca().response(leaf, revoked=True))}, port=server.port):
        sent = {"certificate": to_pem(leaf) + ca().pem, "key": pem_key()}
        refused = api.post("/api/v1/uploads", sent)
    assert (refused.status_code, refused.json()["code"]) == (422, "revoked")
    assert api.get("/api/v1/certificates").json()["items"] == []


def test_whoever_asks_too_often_is_not_asked_for_outside_but_judged(world: Any, port: None) -> None:
    world.services.ports[CheckLimit] = CheckLimit(Rate(burst=1, per_second=0.01))
    with hostile_http({}) as server:
        leaf = ca().leaf("www.example.com", extensions=(access(ocsp=server.url("/o")),))
    with hostile_http({"/o": answer(200, ca().response(leaf))}, port=server.port) as running:
        assert codes(judged(world, leaf).as_dict()) == []
        found = judged(world, leaf)
        assert codes(found.as_dict()) == ["revocation_unknown"]
        assert "Too many checks" in found.notes[-1].message
        assert len(running.requests) == 1


def test_no_transaction_is_open_while_others_are_asked(world: Any, port: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from certwright.platform import db

    seen = []
    fetch = type(world.services.egress).fetch

    async def looking(self: Any, url: str, **options: Any) -> Any:
        seen.append(db._open_transactions.get())
        return await fetch(self, url, **options)

    monkeypatch.setattr(type(world.services.egress), "fetch", looking)
    with hostile_http({}) as server:
        places = (access(ocsp=server.url("/o"), issuer=server.url("/ca")), points(server.url("/crl")))
        leaf = ca().leaf("www.example.com", extensions=places)
    routes = {"/ca": answer(200, ca().issuing), "/o": answer(500), "/crl": answer(200, ca().revocation_list())}
    with hostile_http(routes, port=server.port):
        given = uploads.Given(to_pem(leaf).encode(), pem_key().encode())
        made = world.run(uploads.upload(world.services, world.actor, given, uploads.Wishes()))
    assert seen == [0, 0, 0]
    assert codes(made.judgement.as_dict()) == []


def test_chains_the_account_has_are_used_without_asking_anybody(world: Any) -> None:
    first = uploads.Given((to_pem(ca().leaf("a.example.com")) + ca().pem).encode(), pem_key().encode())
    world.run(uploads.upload(world.services, world.actor, first, uploads.Wishes(online=False)))
    leaf = ca().leaf("b.example.com", extensions=(access(issuer="http://192.0.2.1/never"),))
    found = judged(world, leaf, chain=False, online=False)
    assert [link.source for link in found.links] == ["given", "known"]


def test_keys_on_the_operators_list_are_refused(world: Any, tmp_path: Any) -> None:
    import hashlib

    public = key("leaf").public_key().public_numbers().x
    octets = public.to_bytes((public.bit_length() + 7) // 8, "big")
    place = tmp_path / "blocklist.dat"
    place.write_bytes(hashlib.sha256(octets).digest()[:15] + b"\x00")
    object.__setattr__(world.services, "settings", world.services.settings.model_copy(update={"weak_keys_file": place}))
    found = judged(world, ca().leaf("www.example.com"), online=False)
    assert [finding.code for finding in found.errors] == ["weak_key"]
