"""What errors of a PKCS#11 module mean to a person. An error is known here by the name of its class in python-pkcs11,
so that this can be said without the library."""

from __future__ import annotations

from typing import Final

from certwright.kernel.problems import Problem, Refused, Unavailable

_WRONG_PIN: Final = frozenset({"PinIncorrect", "PinInvalid", "PinLenRange"})
_LOCKED_PIN: Final = frozenset({"PinLocked", "UserPinNotInitialized"})
_AWAY: Final = frozenset({"TokenNotPresent", "TokenNotRecognised", "DeviceRemoved", "SlotIDInvalid"})
_READ_ONLY: Final = frozenset({"SessionReadOnly", "TokenWriteProtected"})
_OTHER_KIND: Final = frozenset({"MechanismInvalid", "KeySizeRange", "DomainParamsInvalid"})
_TEMPLATE: Final = frozenset(
    {"AttributeTypeInvalid", "AttributeValueInvalid", "TemplateIncomplete", "TemplateInconsistent"}
)
# CKR_ codes that the library has no class for: CKR_CURVE_NOT_SUPPORTED, CKR_KEY_FUNCTION_NOT_PERMITTED,
# CKR_ACTION_PROHIBITED.
_UNNAMED_KIND: Final = "0x140"
_UNNAMED_FINAL: Final = ("0x68", "0x1b")
# What a new session can't mend.
_FINAL: Final = frozenset(
    {
        "ArgumentsBad", "AttributeReadOnly", "AttributeSensitive", "DataInvalid", "DataLenRange", "DeviceMemory",
        "FunctionNotSupported", "FunctionRejected", "KeyTypeInconsistent", "MechanismParamInvalid", "PinExpired",
    }
) | _READ_ONLY | _OTHER_KIND | _TEMPLATE  # fmt: skip


def word(error: Exception) -> str:
    """The library has a class for each CKR_ code; other codes it says in words."""
    return type(error).__name__ if str(error) == "" else str(error)[:80]


def is_wrong_pin(error: Exception) -> bool:
    return type(error).__name__ in _WRONG_PIN


def is_read_only(error: Exception) -> bool:
    return type(error).__name__ in _READ_ONLY


def is_of_template(error: Exception) -> bool:
    """What was said of a new key was refused; it may be said otherwise."""
    return type(error).__name__ in _TEMPLATE


def is_final(error: Exception) -> bool:
    """A new session doesn't mend it."""
    return type(error).__name__ in _FINAL or _code(error) in (_UNNAMED_KIND, *_UNNAMED_FINAL)


def _code(error: Exception) -> str:
    """`0x…` of an error without a class of its own; else nothing."""
    return str(error).rpartition(" ")[2] if type(error).__name__ == "PKCS11Error" else ""


def problem(error: Exception, label: str) -> Problem:
    kind = type(error).__name__
    if kind in _WRONG_PIN:
        return pin_wrong()
    if kind in _LOCKED_PIN:
        return pin_locked()
    if kind == "PinExpired":
        return Refused(
            "hsm_pin_expired", f"The token {label!r} wants its PIN changed before it does anything.",
            fix="Change it (pkcs11-tool --module <path> --login --change-pin), then put the new one into hsm_pin_file.",
        )  # fmt: skip
    if kind in _AWAY:
        return Unavailable(
            "hsm_token_missing", f"The token {label!r} went away.", fix="Put it in or switch it on; then all goes on."
        )
    if kind == "SessionCount":
        return Unavailable(
            "hsm_sessions", f"The token {label!r} gives no more sessions.",
            fix="Each of our processes needs one: serve with fewer (or --split: one signs), or raise its limit.",
        )  # fmt: skip
    if is_final(error):
        return _final(error, label)
    return Unavailable(
        "hsm_unavailable", f"The HSM doesn't do its work now: {word(error)}.",
        fix="Look at the HSM's own log; when it is well again, all goes on by itself.",
    )  # fmt: skip


def _final(error: Exception, label: str) -> Problem:
    kind = type(error).__name__
    if kind in _READ_ONLY:
        return Refused(
            "hsm_read_only", f"The token {label!r} is write-protected: it signs, but takes and loses no key.",
            fix="Lift the write protection while you make or delete a CA.",
        )  # fmt: skip
    if kind in _OTHER_KIND or _code(error) == _UNNAMED_KIND:
        return other_kind("keys of this kind", word(error))
    if kind == "DeviceMemory":
        return Refused(
            "hsm_full", f"The token {label!r} has no room for another key.",
            fix="Delete what isn't needed any more from the token, or use another one.",
        )  # fmt: skip
    return Refused(
        "hsm_refused", f"The HSM doesn't do what was asked of it: {word(error)}.",
        fix="Look at the token's policy and the rights of its user; the HSM's own log tells more.",
    )  # fmt: skip


def other_kind(what: str, reason: str = "") -> Refused:
    because = f": {reason}" if reason else ""
    return Refused(
        "hsm_key_kind", f"The token has no {what}{because}.", field="key_algorithm",
        fix="Choose a kind of key it has (pkcs11-tool --list-mechanisms), or keep this key in software.",
    )  # fmt: skip


def pin_wrong() -> Refused:
    return Refused(
        "hsm_pin_wrong", "The HSM refused the PIN; it isn't tried again by itself, so that the token doesn't lock.",
        fix="Correct hsm_pin_file (or hsm_pin and restart), then have it tried: certwright hsm check.",
    )  # fmt: skip


def pin_locked() -> Refused:
    return Refused(
        "hsm_pin_locked", "The HSM's token takes no PIN now: it is locked, or its PIN was never set.",
        fix="Have its security officer set a new PIN (a TPM's lock passes with time), then: certwright hsm check.",
    )  # fmt: skip
