"""CA keys in an HSM: a real PKCS#11 module (SoftHSM2) that is restarted, taken away, and told a wrong PIN."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp as library
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from pydantic import SecretStr

from certwright.connectors.keykeeper import Pkcs11Token
from certwright.kernel.problems import Forbidden, Invalid, Problem, Refused, Unavailable
from certwright.platform.config import Settings
from certwright.rooms import authorities
from certwright.rooms.authorities import hsm as hsm_room
from certwright.rooms.authorities.remote import RemoteSigner
from certwright.rooms.authorities.signer import LocalSigner
from certwright.rooms.authorities.signing import SigningServer
from certwright.rooms.authorities.tables import authorities as ca_table
from certwright.rooms.authorities.tables import ca_keys
from certwright.x509 import ocsp
from certwright.x509.certificates import load, to_pem
from certwright.x509.crl import read_crl
from certwright.x509.crl import to_pem as crl_to_pem
from certwright.x509.issue import issuer_facts
from certwright.x509.keys import KeyAlgorithm, generate, spki_sha256, to_pkcs8_pem
from certwright.x509.ocsp import Question
from tests.authorities.test_hierarchy import (
    BELOW,
    ROOT,
    do,
    events_of,
    leaf,
    look,
    make,
    openssl_verifies,
    pem_files,
)
from tests.conftest import Api, World
from tests.servers import softhsm
from tests.servers.softhsm import PIN, SoftHsm

IN_HSM: dict[str, Any] = {"key_store": "hsm"}


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    made = softhsm.make(tmp_path / "hsm")
    monkeypatch.setenv("SOFTHSM2_CONF", str(made.conf))
    return made


@pytest.fixture
def settings(settings: Settings, hsm: SoftHsm) -> Settings:
    settings.data_dir.mkdir(exist_ok=True)
    return settings.model_copy(
        update={"hsm_module": hsm.module, "hsm_token_label": "cas", "hsm_pin_file": hsm.pin_file}
    )


def token_of(world: World) -> Pkcs11Token:
    token = world.services.port(authorities.Token)
    assert isinstance(token, Pkcs11Token)
    return token


def restart(world: World, **changes: Any) -> Pkcs11Token:
    """What a new process has: no session, no memory of PINs, perhaps other settings."""
    restart_token(world, **changes)
    signer = authorities.LocalSigner(world.services, world.services.vault)
    world.services.ports[authorities.Signer] = signer  # type: ignore[index]
    return token_of(world)


def restart_token(world: World, **changes: Any) -> None:
    """Only the module, under the signer that is plugged."""
    world.run(token_of(world).close())
    settings = world.services.settings.model_copy(update=changes)
    world.services.ports[authorities.Token] = Pkcs11Token(settings)  # type: ignore[index]  # a plain dict, in the tests


def refused(world: World, work: Any) -> Problem:
    with pytest.raises(Problem) as refusal:
        world.run(work)
    return refusal.value


def state(world: World, *, anew: bool = False) -> authorities.HsmState:
    return world.run(authorities.hsm_state(world.services, world.actor, anew=anew))


def keys(world: World) -> list[Any]:
    async def go() -> list[Any]:
        async with world.services.db.begin() as tx:
            found = await tx.execute(sa.select(ca_keys).where(ca_keys.c.store == "hsm").order_by(ca_keys.c.id))
            return list(found.all())

    return world.run(go())


@pytest.mark.parametrize(
    ("key_algorithm", "hash_name"), [("EC_P256", "sha512"), ("EC_P384", None), ("RSA_2048", "sha384")]
)
def test_openssl_accepts_a_hierarchy_a_list_and_an_answer_whose_keys_are_in_the_hsm(
    world: World, tmp_path: Path, key_algorithm: str, hash_name: str | None
) -> None:
    kind = {"key_algorithm": key_algorithm, "hash_name": hash_name} | IN_HSM
    root = make(world, path_len=1, **kind)
    low = make(world, BELOW, parent_id=root.id, ocsp_enabled=True, **kind)
    assert (low.key_store, low.token_label, low.problem) == ("hsm", "cas", None)
    made = leaf(world, low.id)
    assert root.certificate_der
    assert low.certificate_der
    pem_files(tmp_path, root=root.certificate_der, chain=low.certificate_der, leaf=made.der)
    assert openssl_verifies(tmp_path, world) == "leaf.pem: OK"

    world.run(authorities.revoke_leaf(world.services, world.actor, low.id, made.id, "superseded"))
    world.drain()
    crl = world.run(authorities.newest_crl(world.services, low.id))
    assert made.serial in read_crl(crl.der).entries
    (tmp_path / "crl.pem").write_text(crl_to_pem(crl.der))
    shown = subprocess.run(
        ["openssl", "crl", "-in", "crl.pem", "-CAfile", "chain.pem", "-noout", "-verify"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "verify OK" in shown.stderr

    digests = ocsp.issuer_digests(issuer_facts(low.certificate_der), "sha256")
    asked = Question("sha256", *digests, int(made.serial, 16))
    said = library.load_der_ocsp_response(world.run(authorities.answer(world.services, low.id, asked)).der)
    assert said.certificate_status is library.OCSPCertStatus.REVOKED
    # The responder's key is in software; its certificate is signed in the HSM, as the two CAs' are.
    assert len(keys(world)) == 2


def test_a_request_for_a_parent_outside_is_signed_in_the_hsm(world: World, tmp_path: Path) -> None:
    made = make(world, BELOW, outside=True, **IN_HSM)
    assert made.csr_der
    (tmp_path / "csr.der").write_bytes(made.csr_der)
    shown = subprocess.run(
        ["openssl", "req", "-inform", "DER", "-in", "csr.der", "-noout", "-verify"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "OK" in shown.stdout + shown.stderr


def test_the_key_cannot_be_taken_out_of_the_token(world: World, hsm: SoftHsm) -> None:
    import pkcs11

    make(world, **IN_HSM)
    (row,) = keys(world)
    assert row.sealed is None
    world.run(token_of(world).close())
    library = pkcs11.lib(str(hsm.module))
    try:
        session = library.get_token(token_label="cas").open(user_pin=PIN)
        wanted = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}
        (key,) = session.get_objects(wanted | {pkcs11.Attribute.ID: bytes.fromhex(row.token_key)})
        assert (key[pkcs11.Attribute.EXTRACTABLE], key[pkcs11.Attribute.SENSITIVE]) == (False, True)
        assert key[pkcs11.Attribute.NEVER_EXTRACTABLE]
        with pytest.raises(pkcs11.AttributeSensitive):
            key[pkcs11.Attribute.VALUE]
    finally:
        library.finalize()


def test_a_restart_of_the_process_and_of_the_session_goes_unnoticed(world: World) -> None:
    ca = make(world, BELOW, parent_id=make(world, **IN_HSM).id, **IN_HSM)
    leaf(world, ca.id, "a.example.com")
    token = restart(world)
    leaf(world, ca.id, "b.example.com")
    session = token._session
    assert session is not None
    session.close()
    leaf(world, ca.id, "c.example.com")
    # The PIN may stand in the settings themselves, too.
    restart(world, hsm_pin=SecretStr(PIN), hsm_pin_file=None)
    leaf(world, ca.id, "d.example.com")


def test_a_token_that_goes_away_and_comes_back(world: World, hsm: SoftHsm) -> None:
    ca = make(world, BELOW, parent_id=make(world, **IN_HSM).id, **IN_HSM)
    first = leaf(world, ca.id, "a.example.com")

    # Its store is away: the module itself doesn't start any more.
    away = hsm.tokens.with_name("away")
    hsm.tokens.rename(away)
    with pytest.raises(Unavailable) as gone:
        leaf(world, ca.id, "b.example.com")
    assert gone.value.code == "hsm_unavailable"
    assert "can't be reached" in gone.value.message

    # Another HSM stands there, without this token.
    hsm.tokens.mkdir()
    hsm.add_token("another")
    with pytest.raises(Unavailable) as missing:
        leaf(world, ca.id, "b.example.com")
    assert missing.value.code == "hsm_token_missing"
    assert "'cas'" in missing.value.message

    # A revocation is on record and waits; a person sees why.
    world.run(authorities.revoke_leaf(world.services, world.actor, ca.id, first.id, "superseded"))
    world.drain()
    assert (look(world, ca.id).problem or {})["code"] == "hsm_token_missing"
    assert state(world).token.problem is not None
    assert state(world).keys is None

    hsm.tokens.rename(hsm.tokens.with_name("other"))
    away.rename(hsm.tokens)
    leaf(world, ca.id, "b.example.com")
    world.later(hours=1)
    world.drain()
    assert look(world, ca.id).problem is None
    assert ca.certificate_der
    crl = world.run(authorities.newest_crl(world.services, ca.id))
    assert first.serial in read_crl(crl.der).entries


def test_a_token_without_the_key_says_so_and_the_state_names_the_ca(world: World, hsm: SoftHsm) -> None:
    ca = make(world, **IN_HSM)
    assert (state(world).keys, state(world).missing) == (1, ())
    hsm.tokens.rename(hsm.tokens.with_name("away"))
    hsm.tokens.mkdir()
    hsm.add_token("cas")
    with pytest.raises(Unavailable) as missing:
        make(world, BELOW, parent_id=ca.id)
    assert missing.value.code == "hsm_key_missing"
    assert (state(world).keys, state(world).missing) == (0, ("Root",))


class Counted:
    """A token that counts how often somebody logs in."""

    def __init__(self, token: Any) -> None:
        self.token = token
        self.logins = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.token, name)

    def open(self, **kwargs: Any) -> Any:
        self.logins += "user_pin" in kwargs
        return self.token.open(**kwargs)


@pytest.fixture
def logins(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Counted]]:
    seen: list[Counted] = []
    real = Pkcs11Token._token

    def counted(self: Pkcs11Token, label: str) -> Any:
        seen.append(Counted(real(self, label)))
        return seen[-1]

    monkeypatch.setattr(Pkcs11Token, "_token", counted)
    yield seen
    seen.clear()


def test_a_wrong_pin_is_tried_once_and_a_corrected_one_counts_at_once(
    world: World, hsm: SoftHsm, logins: list[Counted], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ca = make(world, BELOW, parent_id=make(world, **IN_HSM).id, **IN_HSM)
    restart(world)
    hsm.pin_file.write_text("wrong-pin-0815\n")
    logins.clear()
    for _ in range(3):
        with pytest.raises(Refused) as wrong:
            leaf(world, ca.id)
        assert wrong.value.code == "hsm_pin_wrong"
    assert sum(token.logins for token in logins) == 1
    assert "PIN" in (state(world).token.problem or wrong.value).message
    # An explicit check tries it again, once.
    assert (state(world, anew=True).token.problem or Problem("", "")).code == "hsm_pin_wrong"
    assert sum(token.logins for token in logins) == 2
    hsm.pin_file.write_text(PIN + "\n")
    leaf(world, ca.id)
    assert state(world).token.problem is None
    for text in (caplog.text, repr(wrong.value.as_dict()), repr(world.services.settings), repr(state(world))):
        assert "wrong-pin" not in text
        assert PIN not in text


def test_the_last_try_of_a_pin_is_left_to_people(
    world: World, monkeypatch: pytest.MonkeyPatch, logins: list[Counted]
) -> None:
    from pkcs11.constants import TokenFlag

    make(world, **IN_HSM)
    flags = {TokenFlag.USER_PIN_FINAL_TRY: "hsm_pin_last_try", TokenFlag.USER_PIN_LOCKED: "hsm_pin_locked"}
    for flag, code in flags.items():
        monkeypatch.setattr(Counted, "flags", property(lambda _, flag=flag: flag), raising=False)
        logins.clear()
        assert (state(world).token.problem or Problem("", "")).code == code
        assert sum(token.logins for token in logins) == 0
    monkeypatch.setattr(Counted, "flags", property(lambda _: TokenFlag.USER_PIN_FINAL_TRY), raising=False)
    assert state(world, anew=True).token.problem is None


WRONGLY: list[tuple[dict[str, Any], str]] = [
    ({"hsm_module": None}, "hsm_not_configured"),
    ({"hsm_token_label": None}, "hsm_not_configured"),
    ({"hsm_pin_file": None}, "hsm_not_configured"),
    ({"hsm_pin_file": Path("/nowhere/pin")}, "hsm_not_configured"),
    ({"hsm_module": Path("/nowhere/lib.so")}, "hsm_module_missing"),
    ({"hsm_module": Path(__file__)}, "hsm_module_missing"),
    ({"hsm_token_label": "other"}, "hsm_token_missing"),
]


def test_what_is_set_up_wrongly_is_said_and_no_ca_stays_behind(world: World) -> None:
    for changes, code in WRONGLY:
        restart(world, **changes)
        problem = refused(world, authorities.create_authority(world.services, world.actor, ca_request()))
        assert (problem.code, bool(problem.fix)) == (code, True), changes
        said = state(world).token
        assert said.problem is not None
        assert said.problem.code == code
        assert said.configured == (code != "hsm_not_configured" or "hsm_pin_file" in changes), changes
    assert world.run(authorities.list_authorities(world.services, world.actor)) == []
    # What was announced and never made is forgotten once the token can be asked.
    restart(world)
    world.later(hours=2)
    world.run(hsm_room.destroy_abandoned(world.services))
    assert all(row.erased_at is not None for row in keys(world) if row.token_label == "cas")


def ca_request(**changes: Any) -> authorities.CaRequest:
    return replace(ROOT, **(IN_HSM | changes))


def test_two_tokens_of_one_label_are_not_guessed_between(world: World, hsm: SoftHsm) -> None:
    hsm.add_token("cas")
    problem = refused(world, authorities.create_authority(world.services, world.actor, ca_request()))
    assert problem.code == "hsm_token_ambiguous"


def test_a_key_that_the_settings_no_longer_name_is_not_looked_for_elsewhere(world: World, hsm: SoftHsm) -> None:
    ca = make(world, **IN_HSM)
    hsm.add_token("newer")
    restart(world, hsm_token_label="newer")
    with pytest.raises(Unavailable) as missing:
        make(world, BELOW, parent_id=ca.id)
    assert missing.value.code == "hsm_key_missing"
    assert "'cas'" in missing.value.message


def test_deleting_the_ca_destroys_its_key_once_the_token_is_there(world: World, hsm: SoftHsm) -> None:
    ca = make(world, **IN_HSM)
    do(world, "disable", ca.id)
    do(world, "delete", ca.id)
    away = hsm.tokens.with_name("away")
    hsm.tokens.rename(away)
    world.later(days=8)
    world.drain()
    (row,) = keys(world)
    assert row.erased_at is None
    away.rename(hsm.tokens)
    assert state(world).keys == 1
    world.later(hours=1)
    world.drain()
    (row,) = keys(world)
    assert row.erased_at is not None
    assert state(world).token.handles == ()


def test_a_key_whose_ca_was_not_made_is_found_and_destroyed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = make(world, **IN_HSM)

    async def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("killed before the commit")

    with monkeypatch.context() as patch:
        patch.setattr("certwright.rooms.authorities.hierarchy._insert", broken)
        with pytest.raises(RuntimeError):
            world.run(authorities.create_authority(world.services, world.actor, ca_request(name="Lost")))
    assert state(world).keys == 2

    # It may still be in the making.
    world.run(hsm_room.destroy_abandoned(world.services))
    assert state(world).keys == 2
    world.later(hours=2)
    world.run(hsm_room.destroy_abandoned(world.services))
    assert (state(world).keys, state(world).missing) == (1, ())
    make(world, BELOW, parent_id=kept.id)
    world.run(hsm_room.destroy_abandoned(world.services))
    assert sum(row.erased_at is None for row in keys(world)) == 1


def test_a_module_that_hangs_is_waited_for_so_long_and_no_longer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = make(world, **IN_HSM)
    token = restart(world, hsm_timeout=0.2)
    go_on, calls = threading.Event(), []
    real = Pkcs11Token._sign

    def hangs(self: Pkcs11Token, *args: Any) -> bytes:
        calls.append(args)
        go_on.wait(10)
        return real(self, *args)

    monkeypatch.setattr(Pkcs11Token, "_sign", hangs)
    with pytest.raises(Unavailable) as late:
        make(world, BELOW, parent_id=ca.id)
    assert late.value.code == "hsm_unavailable"
    # The module is known to hang: who comes now isn't kept waiting, and is not signed for later either.
    took = []
    for _ in range(5):
        began = time.monotonic()
        with pytest.raises(Unavailable):
            make(world, BELOW, parent_id=ca.id)
        took.append(time.monotonic() - began)
    # Not even a busy machine makes each of them late.
    assert min(took) < 0.2
    go_on.set()
    deadline = time.monotonic() + 60
    while world.run(token.state()).problem is not None:
        assert time.monotonic() < deadline
    assert len(calls) == 1
    make(world, BELOW, parent_id=ca.id)


def test_without_the_python_package_it_says_what_to_install(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    monkeypatch.setitem(sys.modules, "pkcs11.exceptions", None)
    problem = refused(world, authorities.create_authority(world.services, world.actor, ca_request()))
    assert (problem.code, "certwright[hsm]" in problem.fix) == ("hsm_module_missing", True)
    world.run(token_of(world).close())


def test_a_key_from_outside_is_not_brought_into_the_hsm(world: World) -> None:
    root = make(world)
    assert root.certificate_der
    key = to_pkcs8_pem(generate(KeyAlgorithm.EC_P256)).decode()
    bring = authorities.import_authority(
        world.services, world.actor, name="Brought", certificate=to_pem(root.certificate_der), private_key=key,
        key_store="hsm",
    )  # fmt: skip
    assert refused(world, bring).code == "hsm_no_import"
    unknown = authorities.create_authority(world.services, world.actor, ca_request(key_store="cloud"))
    problem = refused(world, unknown)
    assert (problem.code, problem.field, type(problem)) == ("key_store_unknown", "key_store", Invalid)


def test_the_database_says_where_the_key_is_and_what_it_is(world: World) -> None:
    ca = make(world, **IN_HSM)
    (row,) = keys(world)

    async def key_of() -> Any:
        async with world.services.db.begin() as tx:
            return await tx.scalar(sa.select(ca_table.c.ca_key_id).where(ca_table.c.id == ca.id))

    assert row.id == world.run(key_of())
    assert ca.certificate_der
    assert row.spki_sha256 == spki_sha256(issuer_facts(ca.certificate_der).public_key)
    assert row.algorithm == "EC P-256"
    # The record of the ceremony says so, too.
    created = next(event for event in events_of(world, ca.id) if event.action == "ccm:ca:create")
    assert (created.after["key_store"], created.after["spki_sha256"]) == ("hsm", row.spki_sha256)


def test_a_signing_process_of_its_own_signs_in_the_hsm(world: World, tmp_path: Path) -> None:
    place = tmp_path / "signing" / "socket"
    local = world.services.port(authorities.Signer)
    assert isinstance(local, LocalSigner)
    server, asking = SigningServer(world.services, local), RemoteSigner(place)
    world.run(server.listen(place))
    world.services.ports[authorities.Signer] = asking  # type: ignore[index]  # a plain dict, in the tests
    try:
        root = make(world, path_len=2, **IN_HSM)
        low = make(world, BELOW, parent_id=root.id, ocsp_enabled=True, **IN_HSM)
        made = leaf(world, low.id)
        # Kinds without a hash go the same way.
        new = make(world, BELOW, name="New", parent_id=root.id, path_len=0, key_algorithm="ML_DSA_65")
        assert leaf(world, new.id).serial
        assert root.certificate_der
        assert low.certificate_der
        pem_files(tmp_path, root=root.certificate_der, chain=low.certificate_der, leaf=made.der)
        assert openssl_verifies(tmp_path, world) == "leaf.pem: OK"
        assert read_crl(world.run(authorities.newest_crl(world.services, low.id)).der).number == 1
        world.later(days=30)
        for ca in (root, low):
            renewed = do(world, "renew", ca.id)
            assert renewed.certificate_der
            assert renewed.sha256 != ca.sha256
            # By the root's certificate of before, too: it is the same key, which never left the token.
            load(renewed.certificate_der).verify_directly_issued_by(load(root.certificate_der))
        assert (state(world).keys, state(world).token.model) == (2, "SoftHSM v2")
        restart_token(world, hsm_token_label="other")
        local._open.clear()
        with pytest.raises(Unavailable) as gone:
            leaf(world, low.id)
        # The reason in full, from the other process.
        assert (gone.value.code, "'cas'" in gone.value.message) == ("hsm_key_missing", True)
        assert (state(world).token.problem or gone.value).code == "hsm_token_missing"
    finally:
        asking.close()
        world.run(server.close())
        world.services.ports[authorities.Signer] = local  # type: ignore[index]


class TokenLife(RuleBasedStateMachine):
    """Whatever happens to token and PIN: what is signed is right, and what is refused has its true reason."""

    hsm: SoftHsm
    settings: Settings

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.token = Pkcs11Token(self.settings)
        self.keys: dict[str, ec.EllipticCurvePublicKey] = {}
        self.destroyed: set[str] = set()
        self.there, self.pin = True, PIN
        self.logged_in = False
        # Of this process, and of all.
        self.refused: str | None = None
        self.noted: int | None = None
        self.version = 0
        self.write_a_pin(PIN)

    def teardown(self) -> None:
        self.come_back()
        self.write_a_pin(PIN)
        self.runner.run(self.token.state(anew=True))
        for handle in self.keys:
            self.runner.run(self.token.destroy_key(handle))
        self.runner.run(self.token.close())
        self.runner.close()

    def expected(self) -> str | None:
        """The refusal that is right now, for work that needs the token; None if it must succeed."""
        if self.logged_in and self.there:
            return None
        self.logged_in = False
        if self.version == self.noted or self.pin == self.refused:
            return "hsm_pin_wrong"
        return self.tried_now()

    def tried_now(self) -> str | None:
        if not self.there:
            return "hsm_unavailable"
        if self.pin != PIN:
            self.refused, self.noted = self.pin, self.version
            return "hsm_pin_wrong"
        self.refused = self.noted = None
        self.logged_in = True
        return None

    def tried(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What came out; None where it is refused, rightly."""
        expected = self.expected()
        if expected is None:
            return self.runner.run(work)
        with pytest.raises(Problem) as problem:
            self.runner.run(work)
        assert problem.value.code == expected
        return None

    @rule()
    def make_a_key(self) -> None:
        handle = secrets.token_hex(16)
        public = self.tried(self.token.create_key(handle, "test", KeyAlgorithm.EC_P256))
        if public is not None:
            self.keys[handle] = public

    @precondition(lambda self: self.keys)
    @rule(data=st.data())
    def sign(self, data: st.DataObject) -> None:
        handle = data.draw(st.sampled_from(sorted(self.keys)))
        signature = self.tried(self.token.sign(handle, b"what", "sha256"))
        if signature is not None:
            self.keys[handle].verify(signature, b"what", ec.ECDSA(hashes.SHA256()))

    @precondition(lambda self: self.keys)
    @rule(data=st.data())
    def destroy(self, data: st.DataObject) -> None:
        handle = data.draw(st.sampled_from(sorted(self.keys)))
        self.tried(self.token.destroy_key(handle))
        if self.logged_in:
            del self.keys[handle]
            self.destroyed.add(handle)

    @precondition(lambda self: self.destroyed and self.there and self.pin == PIN)
    @rule(data=st.data())
    def sign_with_a_key_that_is_gone(self, data: st.DataObject) -> None:
        handle = data.draw(st.sampled_from(sorted(self.destroyed)))
        with pytest.raises(Unavailable) as missing:
            self.runner.run(self.token.sign(handle, b"what", "sha256"))
        assert missing.value.code == "hsm_key_missing"
        self.logged_in = True
        self.runner.run(self.token.destroy_key(handle))

    @precondition(lambda self: self.there)
    @rule()
    def go_away(self) -> None:
        self.hsm.tokens.rename(self.hsm.tokens.with_name("away"))
        self.there = False

    @rule()
    def come_back(self) -> None:
        if not self.there:
            self.hsm.tokens.with_name("away").rename(self.hsm.tokens)
            self.there = True

    @rule(pin=st.sampled_from([PIN, "wrong-1", "wrong-2"]))
    def write_a_pin(self, pin: str) -> None:
        self.hsm.pin_file.write_text(pin)
        self.version += 1
        # The clock of files is too slow for us.
        os.utime(self.hsm.pin_file, ns=(0, self.version * 10**9))
        self.pin = pin

    @rule()
    def start_the_process_again(self) -> None:
        self.runner.run(self.token.close())
        self.token = Pkcs11Token(self.settings)
        self.logged_in, self.refused = False, None

    @precondition(lambda self: self.there)
    @rule(anew=st.booleans())
    def look(self, anew: bool) -> None:
        self.logged_in = False
        expected = self.tried_now() if anew else self.expected()
        found = self.runner.run(self.token.state(anew=anew))
        assert (found.problem.code if found.problem else None) == expected
        if expected is None:
            assert set(found.handles) == set(self.keys)


def test_any_life_of_a_token(settings: Settings, hsm: SoftHsm) -> None:
    TokenLife.hsm, TokenLife.settings = hsm, settings
    run_state_machine_as_test(
        TokenLife, settings=hypothesis.settings(max_examples=8, stateful_step_count=30, deadline=None)
    )


def test_only_administrators_of_the_operator_look_at_the_hsm(world: World) -> None:
    make(world, **IN_HSM)
    for actor in (world.other_actor, world.actor_with("ccm:*")):
        with pytest.raises(Forbidden):
            world.run(authorities.hsm_state(world.services, actor))
    may_look = world.actor_with("iam:setting:get")
    assert world.run(authorities.hsm_state(world.services, may_look)).keys == 1
    with pytest.raises(Forbidden):
        world.run(authorities.hsm_state(world.services, may_look, anew=True))


def test_the_api_makes_cas_in_the_hsm_and_shows_its_token(api: Api) -> None:
    body = {"name": "Root in the HSM", "subject": {"common_name": "Root in the HSM"}, "key_store": "hsm"}
    made = api.post("/api/v1/authorities", body)
    assert made.status_code == 201
    assert (made.json()["key_store"], made.json()["token_label"]) == ("hsm", "cas")
    shown = api.get("/api/v1/hsm").json()
    assert (shown["configured"], shown["label"], shown["keys"], shown["missing"]) == (True, "cas", 1, [])
    assert shown["model"].startswith("SoftHSM")
    assert shown["problem"] is None
    assert api.post("/api/v1/hsm/check").json() == shown
    assert api.as_actor(api.world.other_actor).get("/api/v1/hsm").status_code == 403
    restart(api.world, hsm_token_label="other")
    away = api.get("/api/v1/hsm").json()
    assert away["problem"]["code"] == "hsm_token_missing"
    refused_now = api.post("/api/v1/authorities", body | {"name": "Another"})
    assert (refused_now.status_code, refused_now.json()["code"]) == (503, "hsm_token_missing")
    assert PIN not in made.text + str(shown) + refused_now.text
