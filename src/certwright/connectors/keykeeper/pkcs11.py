"""CA keys in an HSM, through PKCS#11 (OASIS PKCS#11 2.40) and python-pkcs11.

A session serves one thread at a time, and a module may hang in a call. So everything is said to the module by one
thread, which holds neither the event loop nor the end of the process; whoever waits for it waits for so long and no
longer.
"""

from __future__ import annotations

import asyncio
import hashlib
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from certwright.kernel.problems import Problem, Refused, Unavailable
from certwright.platform.config import Settings
from certwright.rooms.authorities import TokenState
from certwright.x509.keys import KeyAlgorithm, PublicKey

if TYPE_CHECKING:
    import pkcs11

T = TypeVar("T")

# Making a large RSA key takes an HSM many times as long as a signature.
_MAKING_TAKES: Final = 10
_HANDLE_OCTETS: Final = 16

# OIDs of the named curves (RFC 5480 section 2.1.1.1), DER, as CKA_EC_PARAMS has them, with the octets of a coordinate.
_P256: Final = bytes.fromhex("06082a8648ce3d030107")
_P384: Final = bytes.fromhex("06052b81040022")
_CURVES: Final[dict[KeyAlgorithm, bytes]] = {KeyAlgorithm.EC_P256: _P256, KeyAlgorithm.EC_P384: _P384}
_COORDINATES: Final[dict[bytes, tuple[ec.EllipticCurve, int]]] = {
    _P256: (ec.SECP256R1(), 32),
    _P384: (ec.SECP384R1(), 48),
}
_RSA_BITS: Final[dict[KeyAlgorithm, int]] = {
    KeyAlgorithm.RSA_2048: 2048, KeyAlgorithm.RSA_3072: 3072, KeyAlgorithm.RSA_4096: 4096,
}  # fmt: skip

# DigestInfo up to the digest (RFC 8017 section 9.2, note 1): CKM_RSA_PKCS pads, and leaves this to us.
_DIGEST_INFOS: Final = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


# --- the thread ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Call:
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


class _OneThread:
    """Runs calls one after the other in a daemon thread, which ends with the process whatever it waits for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy_since: float | None = None

    @property
    def started(self) -> bool:
        return self._thread is not None

    async def run(self, work: Callable[[], T], seconds: float) -> T:
        """Raises TimeoutError; at once while an earlier call hangs. A call given up before its turn is never made."""
        busy_since = self._busy_since
        if busy_since is not None and time.monotonic() - busy_since > seconds:
            raise TimeoutError
        loop = asyncio.get_running_loop()
        call = _Call(work, loop, loop.create_future())
        self._calls.put(call)
        if self._thread is None:
            self._thread = threading.Thread(target=self._go, name=self._name, daemon=True)
            self._thread.start()
        async with asyncio.timeout(seconds):
            found: T = await call.answer
            return found

    def end(self) -> None:
        self._calls.put(None)
        self._thread = None

    def _go(self) -> None:
        while (call := self._calls.get()) is not None:
            if call.answer.cancelled():
                continue
            self._busy_since = time.monotonic()
            try:
                found, error = call.work(), None
            except Exception as raised:  # noqa: BLE001  # whatever it is goes to whoever called; the thread lives on
                found, error = None, raised
            self._busy_since = None
            # The loop is closed when the process ends while a call hangs.
            with suppress(RuntimeError):
                call.loop.call_soon_threadsafe(_answer, call.answer, found, error)


def _answer(future: asyncio.Future[Any], found: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(found)
    else:
        future.set_exception(error)


# --- the token -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Key:
    """A private key of the open session; `coordinate` is the octets of a coordinate of its curve, 0 for RSA."""

    found: Any
    coordinate: int


class _KeyMissingError(Exception):
    """The session sees no such key: it isn't there, or the token went away."""


class _NotThere(Unavailable):
    """A new session doesn't see the key either."""


class Pkcs11Token:
    """The token the settings name: `hsm_module`, `hsm_token_label`, `hsm_pin` or `hsm_pin_file`, `hsm_timeout`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = _OneThread("certwright pkcs11")
        # Below this line: touched by the thread only.
        self._session: pkcs11.Session | None = None
        self._keys: dict[str, _Key] = {}
        self._refused_pin: str | None = None
        self._lib: Any = None

    @property
    def label(self) -> str:
        label = self._settings.hsm_token_label
        if self._settings.hsm_module is None or label is None:
            raise Refused(
                "hsm_not_configured", "No HSM is set up on this server.", field="key_store",
                fix="Set hsm_module, hsm_token_label and hsm_pin_file, or keep the key in software.",
            )  # fmt: skip
        return label

    async def create_key(self, handle: str, name: str, algorithm: KeyAlgorithm) -> PublicKey:
        return await self._run(lambda session: self._make(session, handle, name, algorithm), _MAKING_TAKES)

    async def sign(self, handle: str, data: bytes, hash_name: str) -> bytes:
        digest = hashlib.new(hash_name, data).digest()
        return await self._run(lambda session: self._sign(session, handle, digest, hash_name))

    async def destroy_key(self, handle: str) -> None:
        # A session whose token went away sees nothing, too; so what isn't seen is looked for with a new one.
        with suppress(_NotThere):
            await self._run(lambda session: self._destroy(session, handle, must=True))

    async def state(self, *, anew: bool = False) -> TokenState:
        try:
            label = self.label
        except Refused as problem:
            return TokenState(configured=False, problem=problem)
        known = TokenState(configured=True, label=label, module=str(self._settings.hsm_module))
        try:
            return await self._run(lambda session: self._look(session, known), fresh=True, anew=anew)
        except Problem as problem:
            return replace(known, problem=problem)

    async def close(self) -> None:
        if self._thread.started:
            with suppress(TimeoutError):
                await self._thread.run(self._drop, 1)
            self._thread.end()

    async def _run(
        self, work: Callable[[pkcs11.Session], T], times: int = 1, *, fresh: bool = False, anew: bool = False
    ) -> T:
        label = self.label
        seconds = self._settings.hsm_timeout * times
        try:
            return await self._thread.run(lambda: self._with_session(label, work, fresh, anew), seconds)
        except TimeoutError:
            raise Unavailable(
                "hsm_unavailable", f"The HSM didn't answer within {seconds:g} seconds.",
                fix="Check its cable or network and its own log; if it is only slow, raise hsm_timeout.",
            ) from None  # fmt: skip

    # --- in the thread ---

    def _with_session(self, label: str, work: Callable[[pkcs11.Session], T], fresh: bool, anew: bool) -> T:
        """Once with the session there is; if that is lost, once more with everything opened anew."""
        try:
            from pkcs11.exceptions import PKCS11Error
        except ImportError:
            raise Unavailable(
                "hsm_module_missing", "The Python package python-pkcs11 isn't installed.",
                fix="Install it: pip install 'certwright[hsm]'.",
            ) from None  # fmt: skip
        if self._session is not None and not fresh:
            try:
                return work(self._session)
            except PKCS11Error as error:
                if type(error).__name__ in _FINAL:
                    raise _refused(error) from error
            except _KeyMissingError:
                pass
        self._drop()
        try:
            return work(self._open(label, anew))
        except _KeyMissingError:
            raise _NotThere(
                "hsm_key_missing", f"The key of this CA isn't in the token {label!r}.",
                fix="Bring back the token the key was made in (hsm_token_label), or restore the token's backup.",
            ) from None  # fmt: skip
        except PKCS11Error as error:
            self._drop()
            raise _problem(error, label) from error

    def _open(self, label: str, anew: bool) -> pkcs11.Session:
        from pkcs11.constants import TokenFlag
        from pkcs11.exceptions import PKCS11Error, UserAlreadyLoggedIn

        pin = self._pin()
        if anew:
            self._refused_pin = None
        if pin == self._refused_pin:
            raise _pin_wrong()
        token = self._token(label)
        if token.flags & TokenFlag.USER_PIN_LOCKED:
            raise _pin_locked()
        if token.flags & TokenFlag.USER_PIN_FINAL_TRY and not anew:
            raise Refused(
                "hsm_pin_last_try", f"The token {label!r} takes one more wrong PIN and then locks; nothing was tried.",
                fix="Make sure of the PIN in the settings, then have it tried: certwright hsm check.",
            )  # fmt: skip
        try:
            session = token.open(rw=True, user_pin=pin)
        except UserAlreadyLoggedIn:
            # The login holds for the whole process: another session has it.
            session = token.open(rw=True)
        except PKCS11Error as error:
            if type(error).__name__ in _WRONG_PIN:
                self._refused_pin = pin
            raise
        self._session = session
        return session

    def _token(self, label: str) -> pkcs11.Token:
        """The module started anew, and its token of this label."""
        import pkcs11
        from pkcs11.exceptions import PKCS11Error

        path = self._settings.hsm_module
        if path is None or not path.is_file():
            raise Unavailable(
                "hsm_module_missing", f"The HSM's PKCS#11 module {path} isn't there.",
                fix="Install what the HSM's maker provides, and set hsm_module to the path of its .so.",
            )  # fmt: skip
        try:
            # A module looks for its tokens when it starts.
            self._lib = pkcs11.lib(str(path))
        except PKCS11Error as error:
            if type(error) is PKCS11Error and "loading" in str(error):
                raise Unavailable(
                    "hsm_module_missing", f"The PKCS#11 module {path} can't be loaded.",
                    fix="Check that it is a PKCS#11 library for this machine: pkcs11-tool --module <path> --show-info.",
                ) from error  # fmt: skip
            raise Unavailable(
                "hsm_unavailable", f"The PKCS#11 module doesn't start ({_word(error)}): its HSM can't be reached.",
                fix="Check the HSM and the module's own configuration; SoftHSM2 needs its directory of tokens.",
            ) from error  # fmt: skip
        found = list(self._lib.get_tokens(token_label=label))
        if not found:
            raise Unavailable(
                "hsm_token_missing", f"The HSM has no token {label!r} now.",
                fix="Put it in or switch it on, and check hsm_token_label: pkcs11-tool --module <path> --list-slots.",
            )  # fmt: skip
        if len(found) > 1:
            raise Refused(
                "hsm_token_ambiguous", f"The HSM has {len(found)} tokens called {label!r}.", field="hsm_token_label",
                fix="Give the token for CA keys a label of its own.",
            )  # fmt: skip
        token: pkcs11.Token = found[0]
        return token

    def _pin(self) -> str:
        """Read each time, so that a new PIN in the file counts without a restart."""
        if self._settings.hsm_pin is not None:
            return self._settings.hsm_pin.get_secret_value()
        path = self._settings.hsm_pin_file
        if path is None:
            raise Refused(
                "hsm_not_configured", "The HSM's PIN isn't set.", field="hsm_pin_file",
                fix="Write the PIN into a file only the server may read, and set hsm_pin_file.",
            )  # fmt: skip
        try:
            return path.read_text().strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(
                "hsm_not_configured", f"The file {path} with the HSM's PIN can't be read: {_reason(error)}.",
                field="hsm_pin_file", fix="Check the path and that the server's user may read it.",
            ) from None  # fmt: skip

    def _drop(self) -> None:
        """Forget the session and stop the module, so that it looks for its tokens again."""
        session, self._session = self._session, None
        self._keys.clear()
        if self._lib is None:
            return
        from pkcs11.exceptions import PKCS11Error

        # What is gone can't be closed; the module is told and its complaints don't matter.
        with suppress(PKCS11Error):
            if session is not None:
                session.close()
        with suppress(PKCS11Error):
            if self._lib.initialized:
                self._lib.finalize()

    def _make(self, session: pkcs11.Session, handle: str, name: str, algorithm: KeyAlgorithm) -> PublicKey:
        from pkcs11 import Attribute, KeyType, MechanismFlag

        self._destroy(session, handle)
        what: dict[str, Any] = {
            "id": bytes.fromhex(handle), "label": name, "store": True,
            "capabilities": MechanismFlag.SIGN | MechanismFlag.VERIFY,
            "private_template": {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
        }  # fmt: skip
        if algorithm in _RSA_BITS:
            public, private = session.generate_keypair(KeyType.RSA, _RSA_BITS[algorithm], **what)
        else:
            curve = {Attribute.EC_PARAMS: _CURVES[algorithm]}
            parameters: Any = session.create_domain_parameters(KeyType.EC, curve, local=True)
            public, private = parameters.generate_keypair(**what)
        if private[Attribute.EXTRACTABLE] or not private[Attribute.SENSITIVE]:
            self._destroy(session, handle)
            raise Refused(
                "hsm_key_extractable", "The token made a key that could be taken out of it; the key was destroyed.",
                fix="Change the token's policy so that keys are sensitive and not extractable.",
            )  # fmt: skip
        if algorithm in _RSA_BITS:
            modulus, exponent = (int.from_bytes(public[a]) for a in (Attribute.MODULUS, Attribute.PUBLIC_EXPONENT))
            return rsa.RSAPublicNumbers(exponent, modulus).public_key()
        kind, octets = _COORDINATES[_CURVES[algorithm]]
        return ec.EllipticCurvePublicKey.from_encoded_point(kind, public[Attribute.EC_POINT][-(2 * octets + 1) :])

    def _sign(self, session: pkcs11.Session, handle: str, digest: bytes, hash_name: str) -> bytes:
        from pkcs11 import Mechanism

        key = self._keys.get(handle) or self._find(session, handle)
        if not key.coordinate:
            padded: bytes = key.found.sign(_DIGEST_INFOS[hash_name] + digest, mechanism=Mechanism.RSA_PKCS)
            return padded
        # A digest longer than the curve's order counts with its leftmost bits (FIPS 186-5 section 6.4.1).
        pair: bytes = key.found.sign(digest[: key.coordinate], mechanism=Mechanism.ECDSA)
        half = len(pair) // 2
        return encode_dss_signature(int.from_bytes(pair[:half]), int.from_bytes(pair[half:]))

    def _find(self, session: pkcs11.Session, handle: str) -> _Key:
        from pkcs11 import Attribute, KeyType, ObjectClass

        wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: bytes.fromhex(handle)}
        found: Any = next(iter(list(session.get_objects(wanted))), None)
        if found is None:
            raise _KeyMissingError
        coordinate = 0
        if found[Attribute.KEY_TYPE] != KeyType.RSA:
            coordinate = _COORDINATES[found[Attribute.EC_PARAMS]][1]
        key = self._keys[handle] = _Key(found, coordinate)
        return key

    def _destroy(self, session: pkcs11.Session, handle: str, *, must: bool = False) -> None:
        from pkcs11 import Attribute

        self._keys.pop(handle, None)
        halves = list(session.get_objects({Attribute.ID: bytes.fromhex(handle)}))
        if must and not halves:
            raise _KeyMissingError
        for half in halves:
            half.destroy()

    def _look(self, session: pkcs11.Session, known: TokenState) -> TokenState:
        from pkcs11 import Attribute, ObjectClass

        # Asked of the module itself: what the session remembers says nothing of a token that went away.
        token = session.token.slot.get_token()
        found = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
        ids = [bytes(key[Attribute.ID]) for key in found]
        lib = self._lib
        return replace(
            known, library=f"{lib.library_description} {_version(lib.library_version)}".strip(),
            manufacturer=token.manufacturer_id, model=token.model, serial=token.serial.decode("utf-8", "replace"),
            firmware=_version(token.firmware_version),
            handles=tuple(sorted(i.hex() for i in ids if len(i) == _HANDLE_OCTETS)),
        )  # fmt: skip


def _version(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


# --- what errors mean ------------------------------------------------------------------------------------------------

_WRONG_PIN: Final = frozenset({"PinIncorrect", "PinInvalid", "PinLenRange"})
_LOCKED_PIN: Final = frozenset({"PinLocked", "PinExpired", "UserPinNotInitialized"})
# What a new session can't mend.
_FINAL: Final = frozenset(
    {
        "ArgumentsBad", "AttributeReadOnly", "AttributeSensitive", "AttributeTypeInvalid", "AttributeValueInvalid",
        "DataInvalid", "DataLenRange", "DeviceMemory", "DomainParamsInvalid", "FunctionNotSupported",
        "FunctionRejected", "KeySizeRange", "KeyTypeInconsistent", "MechanismInvalid", "MechanismParamInvalid",
        "SessionReadOnly", "TemplateIncomplete", "TemplateInconsistent", "TokenWriteProtected",
    }
)  # fmt: skip


def _word(error: Exception) -> str:
    """The library has a class for each CKR_ code; other codes it says in words."""
    return type(error).__name__ if str(error) == "" else str(error)[:80]


def _reason(error: Exception) -> str:
    return f"{error.strerror}" if isinstance(error, OSError) else "it isn't text"


def _problem(error: Exception, label: str) -> Problem:
    kind = type(error).__name__
    if kind in _WRONG_PIN:
        return _pin_wrong()
    if kind in _LOCKED_PIN:
        return _pin_locked()
    if kind in _FINAL:
        return _refused(error)
    if kind in ("TokenNotPresent", "TokenNotRecognised", "DeviceRemoved", "SlotIDInvalid"):
        return Unavailable(
            "hsm_token_missing", f"The token {label!r} went away.", fix="Put it in or switch it on; then all goes on."
        )
    return Unavailable(
        "hsm_unavailable", f"The HSM doesn't do its work now: {_word(error)}.",
        fix="Look at the HSM's own log; when it is well again, all goes on by itself.",
    )  # fmt: skip


def _refused(error: Exception) -> Refused:
    return Refused(
        "hsm_refused", f"The HSM doesn't do what was asked of it: {_word(error)}.",
        fix="Choose a kind of key it supports (pkcs11-tool --list-mechanisms), and look at its free room and rights.",
    )  # fmt: skip


def _pin_wrong() -> Refused:
    return Refused(
        "hsm_pin_wrong", "The HSM refused the PIN; it isn't tried again by itself, so that the token doesn't lock.",
        fix="Correct hsm_pin_file (or hsm_pin and restart), then have it tried: certwright hsm check.",
    )  # fmt: skip


def _pin_locked() -> Refused:
    return Refused(
        "hsm_pin_locked", "The HSM's token takes no PIN any more: it is locked, expired or was never set.",
        fix="Have the token's security officer set a new PIN, put it into hsm_pin_file, then: certwright hsm check.",
    )  # fmt: skip
