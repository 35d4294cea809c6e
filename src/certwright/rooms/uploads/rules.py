"""Pure decisions about uploads: what a replacement must keep, what may be asked outside, how many there may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from certwright.kernel.names import covers
from certwright.kernel.problems import Refused
from certwright.rooms.certificates import Held, Purpose
from certwright.rooms.uploads.words import Finding, Place
from certwright.x509.certificates import CertificateFacts
from certwright.x509.workshop.words import error, note, warning

_CERTIFICATE: Final = Place("certificate")
_HIDDEN: Final = "one in a project that you may not see"
_PURPOSES: Final = {Purpose.SERVER: "server certificates", Purpose.CLIENT_CA: "client CA certificates"}


def known_certificates(same: Sequence[Held], sha256: str) -> dict[str, str]:
    """For `Known.certificates`: what to call the one that is there; those the caller may see go first."""
    return {sha256: _called(same)} if same else {}


def known_keys(same_key: Sequence[Held], spki_sha256: str, replaces: str | None = None) -> dict[str, str]:
    """For `Known.keys`; `replaces` is the certificate it is to be a version of."""
    return {spki_sha256: _called(same_key, replaces)} if same_key else {}


def _called(held: Sequence[Held], replaces: str | None = None) -> str:
    one = min(held, key=lambda each: (not each.visible, not each.is_current))
    if not one.visible:
        return _HIDDEN
    version = ""
    if not one.is_current:
        version = f", its earlier version {one.version}"
    elif one.certificate_id == replaces:
        version = f", its present version {one.version}"
    return f"{one.name} ({one.certificate_id}{version})"


def judge_replacement(
    leaf: CertificateFacts, *, before: Iterable[str], ends: datetime, allow_fewer_names: bool
) -> tuple[Finding, ...]:
    """What a new version takes from those who use the certificate: names, and time. `before` are its names so far."""
    names = [*leaf.dns_names, *leaf.ip_addresses]
    lost = [name for name in before if name not in names and not any(covers(pattern, name) for pattern in names)]
    found = []
    if lost:
        shown = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        found.append(
            (warning if allow_fewer_names else error)(
                "names_missing", f"The new version isn't for {shown}, which the present one is for.",
                "Upload it as a certificate of its own, or say that fewer names are meant (allow_fewer_names).",
                _CERTIFICATE,
            )
        )  # fmt: skip
    if leaf.not_after < ends:
        found.append(
            warning(
                "expires_earlier",
                f"The new version ends on {leaf.not_after:%Y-%m-%d}, before the present one ({ends:%Y-%m-%d}).",
                "Check that it is the renewed certificate and not an older one.", _CERTIFICATE,
            )
        )  # fmt: skip
    return tuple(found)


def over_quota(purpose: Purpose, used: int, limit: int) -> Refused | None:
    """None while one more fits."""
    if used < limit:
        return None
    return Refused(
        "upload_quota_reached",
        f"The account holds {used} uploaded {_PURPOSES[purpose]}; {limit} are allowed.",
        fix="Delete those that are no longer used, or have the operator of this server raise the limit.",
        extra={"used": used, "limit": limit},
    )


def revocation_unknown(why: str) -> Finding:
    return note(
        "revocation_unknown", f"Whether the certificate was revoked couldn't be found out: {why.rstrip('.')}.",
        "Nothing needs to be done here; check it again later.", _CERTIFICATE,
    )  # fmt: skip


def issuer_not_fetched(url: str, why: str) -> Finding:
    return note(
        "issuer_not_fetched", f"The issuer's certificate couldn't be fetched from {url[:200]}: {why.rstrip('.')}.",
        "Add the intermediate certificates the CA sent with it.", _CERTIFICATE,
    )  # fmt: skip
