"""CA keys in an HSM, through PKCS#11 (OASIS PKCS#11 2.40) and python-pkcs11.

A session serves one thread at a time, and a module may hang in a call. So everything is said to the module by one
thread, which holds neither the event loop nor the end of the process; whoever waits for it waits for so long and no
longer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from certwright.connectors.keykeeper import keys, refusals
from certwright.connectors.keykeeper.pin import Pin
from certwright.connectors.keykeeper.thread import OneThread
from certwright.kernel.problems import Problem, Refused, Unavailable
from certwright.platform.config import Settings
from certwright.rooms.authorities import TokenState
from certwright.x509.keys import KeyAlgorithm, PublicKey

if TYPE_CHECKING:
    import pkcs11

T = TypeVar("T")

# Making a large RSA key takes an HSM many times as long as a signature.
_MAKING_TAKES: Final = 10


class _NotThere(Unavailable):
    """A new session doesn't see the key either."""


class Pkcs11Token:
    """The token the settings name: `hsm_module`, `hsm_token_label`, `hsm_pin` or `hsm_pin_file`, `hsm_timeout`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = OneThread("certwright pkcs11")
        # Below this line: touched by the thread only.
        self._session: pkcs11.Session | None = None
        self._mechanisms: frozenset[int] = frozenset()
        self._keys: dict[str, keys.Key] = {}
        self._pin = Pin(settings)
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
        return await self._run(lambda session: self._sign(session, handle, data, hash_name))

    async def destroy_key(self, handle: str) -> None:
        # A session whose token went away sees nothing, too; so what isn't seen is looked for with a new one.
        with suppress(_NotThere):
            await self._run(lambda session: self._destroy(session, handle))

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
                if refusals.is_final(error):
                    raise refusals.problem(error, label) from error
            except keys.KeyMissingError:
                pass
        self._drop()
        try:
            return work(self._open(label, anew))
        except keys.KeyMissingError:
            raise _NotThere(
                "hsm_key_missing", f"The key of this CA isn't in the token {label!r}.",
                fix="Bring back the token the key was made in (hsm_token_label), or restore the token's backup.",
            ) from None  # fmt: skip
        except PKCS11Error as error:
            self._drop()
            raise refusals.problem(error, label) from error

    def _open(self, label: str, anew: bool) -> pkcs11.Session:
        from pkcs11.constants import TokenFlag
        from pkcs11.exceptions import PKCS11Error

        pin = self._pin.read()
        if not anew and not self._pin.may_be_tried(pin):
            raise refusals.pin_wrong()
        token = self._token(label)
        if token.flags & TokenFlag.USER_PIN_LOCKED:
            raise refusals.pin_locked()
        if token.flags & TokenFlag.USER_PIN_FINAL_TRY and not anew:
            raise Refused(
                "hsm_pin_last_try", f"The token {label!r} takes one more wrong PIN and then locks; nothing was tried.",
                fix="Make sure of the PIN in the settings, then have it tried: certwright hsm check.",
            )  # fmt: skip
        try:
            session = self._log_in(token, pin)
        except PKCS11Error as error:
            if refusals.is_wrong_pin(error):
                self._pin.was_refused(pin)
            raise
        self._pin.was_taken()
        self._session = session
        try:
            self._mechanisms = frozenset(int(mechanism) for mechanism in token.slot.get_mechanisms())
        except PKCS11Error:
            # It still signs the usual way, or says why not.
            self._mechanisms = frozenset()
        return session

    def _log_in(self, token: pkcs11.Token, pin: str) -> pkcs11.Session:
        from pkcs11.constants import TokenFlag
        from pkcs11.exceptions import PKCS11Error, UserAlreadyLoggedIn

        # A token that takes no writing signs all the same.
        rw = not token.flags & TokenFlag.WRITE_PROTECTED
        try:
            return token.open(rw=rw, user_pin=pin)
        except UserAlreadyLoggedIn:
            # The login holds for the whole process: another session has it.
            return token.open(rw=rw)
        except PKCS11Error as error:
            if rw and refusals.is_read_only(error):
                return token.open(rw=False, user_pin=pin)
            raise

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
                "hsm_unavailable",
                f"The PKCS#11 module doesn't start ({refusals.word(error)}): its HSM can't be reached.",
                fix="Check the HSM and the module's own configuration, as the user Certwright runs as.",
            ) from error  # fmt: skip
        found, trouble = self._tokens_called(label)
        if not found:
            if trouble is not None:
                raise refusals.problem(trouble, label) from trouble
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

    def _tokens_called(self, label: str) -> tuple[list[pkcs11.Token], Exception | None]:
        """And what went wrong with a slot: it may be another one than ours, which is no reason to give up."""
        from pkcs11.exceptions import PKCS11Error, TokenNotPresent, TokenNotRecognised

        found: list[pkcs11.Token] = []
        trouble: Exception | None = None
        for slot in self._lib.get_slots(token_present=True):
            try:
                token = slot.get_token()
            except (TokenNotPresent, TokenNotRecognised):
                continue
            except PKCS11Error as error:
                trouble = error
                continue
            if token.label == label:
                found.append(token)
        return found, trouble

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
        self._keys.pop(handle, None)
        return keys.make(session, self._mechanisms, handle, name, algorithm)

    def _sign(self, session: pkcs11.Session, handle: str, data: bytes, hash_name: str) -> bytes:
        key = self._keys.get(handle)
        if key is None:
            key = self._keys[handle] = keys.find(session, handle)
        return keys.sign(key, self._mechanisms, data, hash_name)

    def _destroy(self, session: pkcs11.Session, handle: str) -> None:
        self._keys.pop(handle, None)
        if not keys.destroy(session, handle):
            raise keys.KeyMissingError

    def _look(self, session: pkcs11.Session, known: TokenState) -> TokenState:
        # Asked of the module itself: what the session remembers says nothing of a token that went away.
        token = session.token.slot.get_token()
        lib = self._lib
        return replace(
            known, library=f"{lib.library_description} {_version(lib.library_version)}".strip(),
            manufacturer=token.manufacturer_id, model=token.model, serial=token.serial.decode("utf-8", "replace"),
            firmware=_version(token.firmware_version),
            handles=keys.handles(session),
        )  # fmt: skip


def _version(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
