"""What we ask of a token, of PKCS#11 implementations that have nothing in common; and the oddities of tokens we can't
have here, by a module that shows them on demand."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from certwright.connectors.keykeeper import Pkcs11Token, keys
from certwright.kernel.problems import Problem
from certwright.platform.config import Settings
from certwright.x509.keys import KeyAlgorithm, PublicKey
from tests.servers import tokens
from tests.servers.tokens import IMPLEMENTATIONS, OneToken

T = TypeVar("T")

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512(),
}  # fmt: skip
WRONG = "wrong-pin-0815"


class Process:
    """The token as a process of ours has it: `again` is another process, with the same settings."""

    def __init__(self, token: OneToken, folder: Path) -> None:
        self.token = token
        self.folder = folder
        self.pin_file = folder / "pin"
        self._written = 0
        self.write_pin(token.pin)
        self.settings = Settings(
            data_dir=folder, hsm_module=token.module, hsm_token_label=token.label, hsm_pin_file=self.pin_file,
            hsm_timeout=20,
        )  # fmt: skip
        self.runner = asyncio.Runner()
        self.our = Pkcs11Token(self.settings)

    def write_pin(self, pin: str) -> None:
        """As people do it: never twice in one tick of the clock of files."""
        self.pin_file.write_text(pin + "\n")
        self._written += 1
        os.utime(self.pin_file, ns=(0, self._written * 10**9))

    def run(self, work: Awaitable[T]) -> T:
        async def go() -> T:
            return await work

        return self.runner.run(go())

    def refused(self, work: Awaitable[Any]) -> Problem:
        with pytest.raises(Problem) as refusal:
            self.run(work)
        assert refusal.value.message.endswith(".")
        assert refusal.value.fix
        return refusal.value

    def again(self, **changes: Any) -> None:
        self.run(self.our.close())
        self.our = Pkcs11Token(self.settings.model_copy(update=changes))

    def make(self, algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256) -> tuple[str, PublicKey]:
        handle = secrets.token_hex(16)
        return handle, self.run(self.our.create_key(handle, "certwright test", algorithm))

    def signs(self, key: tuple[str, PublicKey], hash_name: str = "sha256", data: bytes = b"what is signed") -> None:
        verify(key[1], self.run(self.our.sign(key[0], data, hash_name)), data, hash_name)

    def problem(self, *, anew: bool = False) -> str | None:
        found = self.run(self.our.state(anew=anew)).problem
        return found.code if found else None

    def end(self) -> None:
        self.run(self.our.close())
        self.runner.close()


def verify(public: PublicKey, signature: bytes, data: bytes, hash_name: str) -> None:
    if isinstance(public, rsa.RSAPublicKey):
        public.verify(signature, data, padding.PKCS1v15(), _HASHES[hash_name])
    else:
        assert isinstance(public, ec.EllipticCurvePublicKey)
        public.verify(signature, data, ec.ECDSA(_HASHES[hash_name]))


@pytest.fixture(scope="session")
def made() -> Iterator[dict[str, OneToken]]:
    """One of each for all tests of a process, in any order: p11-kit's client asks only once where its server is."""
    tokens_made: dict[str, OneToken] = {}
    yield tokens_made
    for each in tokens_made.values():
        each.close()


@pytest.fixture(params=list(IMPLEMENTATIONS))
def token(
    request: pytest.FixtureRequest, made: dict[str, OneToken], tmp_path_factory: pytest.TempPathFactory
) -> OneToken:
    pytest.importorskip("pkcs11", reason="python-pkcs11 isn't installed: certwright[hsm]")
    name = request.param
    if name not in made:
        made[name] = IMPLEMENTATIONS[name](tmp_path_factory.mktemp(name) / "token")
    made[name].clear()
    return made[name]


@pytest.fixture
def process(token: OneToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    token.set_environment(monkeypatch)
    process = Process(token, tmp_path)
    yield process
    process.end()


@pytest.fixture
def logins(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The PINs that were said to a token."""
    said: list[str] = []
    real = Pkcs11Token._log_in

    def counted(self: Pkcs11Token, token: Any, pin: str) -> Any:
        said.append(pin)
        return real(self, token, pin)

    monkeypatch.setattr(Pkcs11Token, "_log_in", counted)
    return said


# --- what any token has to do ----------------------------------------------------------------------------------------


KINDS = [(name, kind) for name in IMPLEMENTATIONS for kind in ("EC_P256", "EC_P384", "RSA_2048")]
# Long RSA keys take seconds; and the TPM has none of 4096 bits.
LONG = [("softhsm", "RSA_3072"), ("softhsm", "RSA_4096"), ("tpm", "RSA_4096")]


@pytest.mark.parametrize(("token", "algorithm"), KINDS + LONG, indirect=["token"])
def test_a_key_is_made_signs_in_another_process_and_is_destroyed(process: Process, algorithm: str) -> None:
    kind = KeyAlgorithm(algorithm)
    if algorithm in process.token.lacks:
        handle = secrets.token_hex(16)
        problem = process.refused(process.our.create_key(handle, "certwright test", kind))
        assert (problem.code, problem.field) == ("hsm_key_kind", "key_algorithm")
        assert algorithm in problem.message
        assert process.run(process.our.state()).handles == ()
        return
    key = process.make(kind)
    for hash_name in _HASHES:
        process.signs(key, hash_name)
    process.signs(key, data=b"a long list" * 100_000)
    process.again()
    process.signs(key)
    assert process.run(process.our.state()).handles == (key[0],)
    process.run(process.our.destroy_key(key[0]))
    process.run(process.our.destroy_key(key[0]))
    assert process.refused(process.our.sign(key[0], b"what", "sha256")).code == "hsm_key_missing"
    assert process.run(process.our.state()).handles == ()


def test_the_key_stays_in_the_token_and_may_do_nothing_but_sign(process: Process) -> None:
    from pkcs11 import Attribute, AttributeSensitive, AttributeTypeInvalid, ObjectClass

    handle, _ = process.make()

    def look() -> None:
        session = process.our._session
        assert session is not None
        wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: bytes.fromhex(handle)}
        (key,) = list(session.get_objects(wanted))
        assert [key[a] for a in (Attribute.SENSITIVE, Attribute.EXTRACTABLE, Attribute.SIGN)] == [True, False, True]
        for right in (Attribute.DECRYPT, Attribute.UNWRAP, Attribute.DERIVE):
            assert not key[right]
        with pytest.raises((AttributeSensitive, AttributeTypeInvalid)):
            key[Attribute.VALUE]

    process.run(process.our._thread.run(look, 10))
    process.run(process.our.destroy_key(handle))


def test_many_ask_at_once(process: Process) -> None:
    handle, public = process.make()

    async def all_at_once() -> list[bytes]:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(process.our.sign(handle, b"%d" % number, "sha256")) for number in range(30)]
        return [task.result() for task in asked]

    for number, signature in enumerate(process.run(all_at_once())):
        verify(public, signature, b"%d" % number, "sha256")
    process.run(process.our.destroy_key(handle))


_SIGNING = """
import asyncio, sys
from pathlib import Path
from certwright.connectors.keykeeper import Pkcs11Token
from certwright.platform.config import Settings

async def main():
    token = Pkcs11Token(Settings.model_validate_json(sys.argv[1]))
    for _ in range(int(sys.argv[3])):
        print((await token.sign(sys.argv[2], b"what is signed", "sha256")).hex(), flush=True)
    await token.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("token", ["softhsm"], indirect=True)
def test_several_processes_sign_with_one_key_at_the_same_time(process: Process) -> None:
    key = process.make()
    settings = process.settings.model_dump_json(include={"data_dir", "hsm_module", "hsm_token_label", "hsm_pin_file"})
    words = [sys.executable, "-c", _SIGNING, settings, key[0], "40"]
    others = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    process.signs(key)
    for other in others:
        said, _ = other.communicate(timeout=60)
        signatures = said.split()
        assert (other.returncode, len(signatures)) == (0, 40)
        for signature in signatures:
            verify(key[1], bytes.fromhex(signature), b"what is signed", "sha256")
    # What others did to the token changed nothing for this session.
    process.signs(key)
    process.run(process.our.destroy_key(key[0]))


# The library ends a search that was never begun, and what comes of it is said by Python to stderr.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("token", ["softhsm", "p11-kit", "tpm"], indirect=True)
def test_the_token_goes_away_and_comes_back(process: Process) -> None:
    token = process.token
    key = process.make()
    token.go_away()
    try:
        for work in (process.our.sign(key[0], b"what", "sha256"), process.our.destroy_key(key[0])):
            assert process.refused(work).code in ("hsm_unavailable", "hsm_token_missing")
        assert process.problem() in ("hsm_unavailable", "hsm_token_missing")
    finally:
        token.come_back()
    process.signs(key)
    # Gone and back before anybody asked: handles and sessions of before mean nothing to it.
    token.go_away()
    token.come_back()
    process.signs(key)
    process.run(process.our.destroy_key(key[0]))


def test_another_label_is_no_token_of_ours(process: Process) -> None:
    process.again(hsm_token_label="another")
    problem = process.refused(process.our.sign("00" * 16, b"what", "sha256"))
    assert (problem.code, "'another'" in problem.message) == ("hsm_token_missing", True)


def test_a_wrong_pin_is_said_once_by_all_processes_together(
    process: Process, logins: list[str], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    key = process.make()
    process.again()
    process.write_pin(WRONG)
    messages = []
    for _ in range(3):
        messages.append(process.refused(process.our.sign(key[0], b"what", "sha256")))
        assert process.problem() == "hsm_pin_wrong"
        # Started again, it doesn't know the PIN that was refused, only that this file's was.
        process.again()
    assert {problem.code for problem in messages} == {"hsm_pin_wrong"}
    assert logins.count(WRONG) == 1
    # A person asks for it: once more, and a new process doesn't.
    assert process.problem(anew=True) == "hsm_pin_wrong"
    process.again()
    assert process.problem() == "hsm_pin_wrong"
    assert logins.count(WRONG) == 2
    process.write_pin(process.token.pin)
    process.signs(key)
    assert process.problem() is None
    assert not (process.folder / "hsm-pin-refused").exists()
    process.run(process.our.destroy_key(key[0]))
    printed = capfd.readouterr()
    for text in (caplog.text, printed.out, printed.err, repr([problem.as_dict() for problem in messages])):
        assert WRONG not in text
        assert process.token.pin not in text


def test_what_is_noted_of_a_refused_pin_does_not_tell_it(process: Process) -> None:
    process.write_pin(WRONG)
    assert process.problem() == "hsm_pin_wrong"
    note = (process.folder / "hsm-pin-refused").read_text()
    assert note.startswith(process.token.label + "\n")
    assert WRONG not in note
    # The note is of this token and this file; another token may have this PIN.
    (process.folder / "hsm-pin-refused").write_text(note.replace(process.token.label, "another"))
    process.again()
    assert process.problem() == "hsm_pin_wrong"
    process.write_pin(process.token.pin)
    assert process.problem() is None


@pytest.mark.parametrize("token", ["softhsm"], indirect=True)
def test_what_a_person_had_tried_in_one_process_counts_in_the_others(process: Process, logins: list[str]) -> None:
    """The PIN in the file was right, and the token's was wrong; somebody set it at the token."""
    other = Pkcs11Token(process.settings)
    key = process.make()
    process.again()
    before = process.token.pin
    process.write_pin(WRONG)
    try:
        assert process.problem() == "hsm_pin_wrong"
        # It has read the file while the note was not there, say, and remembers the PIN itself.
        (process.folder / "hsm-pin-refused").unlink()
        assert process.refused(other.sign(key[0], b"what", "sha256")).code == "hsm_pin_wrong"
        process.token.change_pin(WRONG)
        for token in (other, process.our):
            assert process.refused(token.sign(key[0], b"what", "sha256")).code == "hsm_pin_wrong"
        assert logins.count(WRONG) == 2
        assert process.problem(anew=True) is None
        verify(key[1], process.run(other.sign(key[0], b"what", "sha256")), b"what", "sha256")
        process.run(other.close())
        process.again()
    finally:
        process.token.change_pin(before)
    process.write_pin(before)
    process.run(process.our.destroy_key(key[0]))


def test_an_empty_pin_is_not_tried(process: Process, logins: list[str]) -> None:
    process.write_pin("")
    assert process.problem() == "hsm_not_configured"
    assert logins == []


def test_the_pin_is_changed_while_the_product_runs(process: Process) -> None:
    key = process.make()
    before, after = process.token.pin, "another-pin-1234"
    if process.token.alone:
        process.again()
    process.token.change_pin(after)
    try:
        if not process.token.alone:
            # Who is logged in stays so.
            process.signs(key)
        process.again()
        assert process.refused(process.our.sign(key[0], b"what", "sha256")).code == "hsm_pin_wrong"
        process.write_pin(after)
        process.signs(key)
        process.again()
    finally:
        process.token.change_pin(before)
    process.write_pin(before)
    process.signs(key)
    process.run(process.our.destroy_key(key[0]))


@pytest.mark.parametrize("token", ["tpm"], indirect=True)
def test_a_token_that_locked_says_so(process: Process) -> None:
    assert process.token.tries is not None
    seen = []
    for number in range(process.token.tries + 1):
        process.write_pin(f"{WRONG}-{number}")
        seen.append(process.problem())
    assert (seen[0], seen[-1]) == ("hsm_pin_wrong", "hsm_pin_locked")
    process.write_pin(process.token.pin)
    assert process.problem() == "hsm_pin_locked"


# --- oddities --------------------------------------------------------------------------------------------------------


class Odd(Process):
    """SoftHSM2 behind `odd_token.c`; `now` is how it behaves from now on."""

    def now(self, words: str = "") -> None:
        (self.folder / "odd").write_text(words)

    def calls(self) -> list[str]:
        """Of functions of the module, since the last time."""
        found = (self.folder / "calls").read_text().split()
        (self.folder / "calls").write_text("")
        return found


@pytest.fixture(scope="module")
def odd_softhsm(tmp_path_factory: pytest.TempPathFactory) -> OneToken:
    pytest.importorskip("pkcs11", reason="python-pkcs11 isn't installed: certwright[hsm]")
    folder = tmp_path_factory.mktemp("odd")
    made = tokens.in_softhsm(folder / "token")
    made.environment["ODD_MODULE"] = str(made.module)
    made.module = tokens.odd(made.module, folder / "module.so")
    return made


@pytest.fixture
def odd(odd_softhsm: OneToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Odd]:
    odd_softhsm.set_environment(monkeypatch)
    monkeypatch.setenv("ODD_FILE", str(tmp_path / "odd"))
    monkeypatch.setenv("ODD_LOG", str(tmp_path / "calls"))
    made = Odd(odd_softhsm, tmp_path)
    yield made
    made.now()
    for handle in made.run(made.our.state()).handles:
        made.run(made.our.destroy_key(handle))
    made.end()


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("bare-point", id="points without the OCTET STRING around them"),
        pytest.param("curve-name", id="curves by name"),
        pytest.param("no-curve", id="keys that don't say their curve"),
        pytest.param("spelled-out", id="templates that must say what a key shall not do"),
        pytest.param("keeps-rights", id="attributes that can't be changed"),
        pytest.param("strange-slot", id="a slot that is out of order before ours"),
        pytest.param("C_GetMechanismList=54", id="no list of mechanisms"),
    ],
)
@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384])
def test_tokens_differ_and_all_serve(odd: Odd, words: str, algorithm: KeyAlgorithm) -> None:
    odd.now(words)
    key = odd.make(algorithm)
    odd.again()
    for hash_name in _HASHES:
        odd.signs(key, hash_name)
    assert odd.run(odd.our.state()).handles == (key[0],)
    odd.run(odd.our.destroy_key(key[0]))


def test_points_are_told_from_what_is_around_them_by_their_length() -> None:
    for octets in (32, 48):
        for first in range(256):
            bare = b"\x04" + bytes([first]) + bytes(2 * octets - 1)
            assert keys.point(bare) == bare
            assert keys.point(b"\x04" + bytes([len(bare)]) + bare) == bare
        for sign in (b"\x02", b"\x03"):
            short = sign + bytes(octets)
            assert keys.point(short) == short
            assert keys.point(b"\x04" + bytes([len(short)]) + short) == short


def test_a_token_that_only_signs_what_it_digested_gets_what_is_to_be_signed(odd: Odd) -> None:
    odd.now("no-raw")
    key = odd.make(KeyAlgorithm.RSA_2048)
    for hash_name in _HASHES:
        odd.signs(key, hash_name)
        odd.signs(key, hash_name, b"a long list" * 20_000)


@pytest.mark.parametrize("token", ["tpm"], indirect=True)
@pytest.mark.parametrize(("kind", "hash_name"), [("EC_P256", "sha256"), ("EC_P384", "sha384")])
def test_so_does_a_token_that_digests_for_ecdsa(
    token: OneToken, kind: str, hash_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SoftHSM2 has no such mechanism; the TPM has both kinds."""
    token.set_environment(monkeypatch)
    monkeypatch.setenv("ODD_MODULE", str(token.module))
    monkeypatch.setenv("ODD_FILE", str(tmp_path / "odd"))
    module = tokens.odd(token.module, tmp_path / "module.so")
    odd = Odd(OneToken("odd tpm", module, label=token.label, pin=token.pin), tmp_path)
    try:
        odd.now("no-raw")
        key = odd.make(KeyAlgorithm(kind))
        odd.signs(key, hash_name)
        odd.signs(key, hash_name, b"a long list" * 20_000)
        odd.run(odd.our.destroy_key(key[0]))
    finally:
        odd.end()


MAKING: list[tuple[str, str]] = [
    ("no-ec", "hsm_key_kind"),
    ("C_GenerateKeyPair=70", "hsm_key_kind"),  # CKR_MECHANISM_INVALID
    ("C_GenerateKeyPair=140", "hsm_key_kind"),  # CKR_CURVE_NOT_SUPPORTED
    ("C_GenerateKeyPair=31", "hsm_full"),  # CKR_DEVICE_MEMORY
    ("C_GenerateKeyPair=1b", "hsm_refused"),  # CKR_ACTION_PROHIBITED
    ("C_GenerateKeyPair=d1", "hsm_refused"),  # CKR_TEMPLATE_INCONSISTENT, whatever is said
    ("C_GenerateKeyPair=5", "hsm_unavailable"),  # CKR_GENERAL_ERROR
    ("C_Sign=68", "hsm_refused"),  # CKR_KEY_FUNCTION_NOT_PERMITTED
    ("wrong-signature", "hsm_key_unusable"),
    ("write-protected", "hsm_read_only"),
    ("C_OpenSession=b1", "hsm_sessions"),  # CKR_SESSION_COUNT
    ("C_GetTokenInfo=e0", "hsm_token_missing"),  # CKR_TOKEN_NOT_PRESENT
    ("C_GetTokenInfo=30", "hsm_unavailable"),  # CKR_DEVICE_ERROR
    ("C_Login=a0", "hsm_pin_wrong"),  # CKR_PIN_INCORRECT
    ("C_Login=a2", "hsm_pin_wrong"),  # CKR_PIN_LEN_RANGE
    ("C_Login=a3", "hsm_pin_expired"),  # CKR_PIN_EXPIRED
    ("C_Login=a4", "hsm_pin_locked"),  # CKR_PIN_LOCKED
    ("C_Login=102", "hsm_pin_locked"),  # CKR_USER_PIN_NOT_INITIALIZED
    ("C_Initialize=5", "hsm_unavailable"),
]


def test_each_refusal_has_its_reason_and_leaves_no_key_behind(odd: Odd) -> None:
    for words, code in MAKING:
        odd.again()
        odd.now(words)
        handle = secrets.token_hex(16)
        problem = odd.refused(odd.our.create_key(handle, "certwright test", KeyAlgorithm.EC_P256))
        assert problem.code == code, (words, problem.message)
        assert problem.__cause__ is None or odd.token.pin not in repr(problem.__cause__)
        odd.now()
        assert odd.problem(anew=True) is None, words
        assert odd.run(odd.our.state()).handles == (), words


# Codes by which a session, a handle, a login or the token itself says that it is no more.
LOST = {
    "CKR_DEVICE_ERROR": 0x30, "CKR_DEVICE_REMOVED": 0x32, "CKR_KEY_HANDLE_INVALID": 0x60,
    "CKR_OBJECT_HANDLE_INVALID": 0x82, "CKR_OPERATION_NOT_INITIALIZED": 0x91, "CKR_SESSION_CLOSED": 0xB0,
    "CKR_SESSION_HANDLE_INVALID": 0xB3, "CKR_TOKEN_NOT_PRESENT": 0xE0, "CKR_USER_NOT_LOGGED_IN": 0x101,
    "CKR_CRYPTOKI_NOT_INITIALIZED": 0x190, "CKR_GENERAL_ERROR": 0x5, "CKR_FUNCTION_FAILED": 0x6,
}  # fmt: skip


def test_what_is_lost_in_between_is_opened_anew_and_nobody_notices(odd: Odd) -> None:
    key = odd.make()
    for name, code in LOST.items():
        for function in ("C_SignInit", "C_Sign"):
            odd.calls()
            odd.now(f"{function}={code:x}!")
            odd.signs(key)
            assert odd.calls().count("C_Login") == 1, (name, function)


def test_a_fault_that_stays_costs_one_new_login_a_request_and_no_more(odd: Odd) -> None:
    key = odd.make()
    odd.now("C_Sign=30")
    for _ in range(2):
        odd.calls()
        assert odd.refused(odd.our.sign(key[0], b"what", "sha256")).code == "hsm_unavailable"
        assert odd.calls().count("C_Login") == 1
    odd.now()
    odd.signs(key)


def test_a_pin_that_is_refused_when_the_session_was_lost_is_not_said_again(odd: Odd) -> None:
    """Somebody changed it at the token: what was right in the morning is wrong now."""
    key = odd.make()
    odd.calls()
    odd.now("C_SignInit=b3 C_Login=a0")
    for _ in range(3):
        assert odd.refused(odd.our.sign(key[0], b"what", "sha256")).code == "hsm_pin_wrong"
        odd.again()
    assert odd.calls().count("C_Login") == 1


def test_a_write_protected_token_signs(odd: Odd) -> None:
    key = odd.make()
    odd.again()
    odd.now("write-protected")
    odd.signs(key)
    assert odd.problem() is None
    assert odd.refused(odd.our.destroy_key(key[0])).code == "hsm_read_only"
    odd.signs(key)


def test_keys_of_other_programs_do_not_disturb(odd: Odd) -> None:
    from pkcs11 import Attribute, KeyType

    key = odd.make()

    def others() -> None:
        session = odd.our._session
        assert session is not None
        parameters: Any = session.create_domain_parameters(
            KeyType.EC, {Attribute.EC_PARAMS: bytes.fromhex("06052b8104000a")}, local=True
        )
        made.extend(parameters.generate_keypair(label="theirs", store=True))

    made: list[Any] = []
    odd.run(odd.our._thread.run(others, 10))
    assert odd.run(odd.our.state()).handles == (key[0],)
    odd.signs(key)

    def gone() -> None:
        session = odd.our._session
        assert session is not None
        for half in session.get_objects({Attribute.LABEL: "theirs"}):
            half.destroy()

    odd.run(odd.our._thread.run(gone, 10))
