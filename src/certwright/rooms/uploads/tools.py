"""The workshop's tools for people at a server: in the process pool, and nothing that comes is kept.

What to do is the workshop's (x509); here is only who may ask outside, and what the files are called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from certwright.kernel.actor import Actor
from certwright.kernel.problems import Invalid
from certwright.platform.processes import Processes
from certwright.platform.services import Services
from certwright.rooms import certificates
from certwright.rooms.uploads import actions
from certwright.rooms.uploads.words import ChainLink, Given, Judgement, Wishes, judgement
from certwright.x509.bundles import Server
from certwright.x509.workshop import toolbox
from certwright.x509.workshop.convert import Format, Wish
from certwright.x509.workshop.toolbox import Around, Judged

MAX_INPUTS: Final = 20
_PEM: Final = "application/x-pem-file"
_TYPES: Final = {
    Format.DER: ("der", "application/octet-stream"),
    Format.P7B: ("p7b", "application/x-pkcs7-certificates"),
    Format.PFX: ("pfx", "application/x-pkcs12"),
    Format.JKS: ("jks", "application/octet-stream"),
}
_KEY_FORMS: Final = (Format.PKCS8, Format.PKCS1, Format.SEC1)
_Kind = TypeVar("_Kind", Format, Server)


@dataclass(frozen=True, slots=True)
class File:
    """What a tool made; its repr shows no octets, which may be a private key."""

    name: str
    media_type: str
    content: bytes

    def __repr__(self) -> str:
        return f"File({self.name!r}, {self.media_type!r}, {len(self.content)} bytes)"


@dataclass(frozen=True, slots=True)
class Completed:
    """A chain: the leaf and its intermediates, without the root. `missing`: the issuer that wasn't found, or ""."""

    complete: bool
    missing: str
    links: tuple[ChainLink, ...]
    pem: str
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class Matched:
    """`match`: all keys are the same. `parts`: what was compared (kind, where, key_algorithm, spki_sha256)."""

    match: bool
    parts: tuple[dict[str, str], ...]


@dataclass(frozen=True, slots=True)
class MadeCsr:
    """`key_pem` is None where the key was given."""

    csr_pem: str
    key_pem: str | None

    def __repr__(self) -> str:
        return "MadeCsr(…)"


async def check(services: Services, actor: Actor, given: Given, wishes: Wishes) -> Judgement:
    """Judge an upload by itself, pkilint's opinion included; missing issuers are fetched if `wishes.online`."""
    return (await _judged(services, actor, given, wishes))[1]


async def _judged(services: Services, actor: Actor, given: Given, wishes: Wishes) -> tuple[Judged, Judgement]:
    """With issuers the account knows, or that could be fetched."""
    pool = services.port(Processes)
    async with services.db.read() as tx:
        options = await actions.options_for(tx, services, actor, wishes, key_required=False)
    around = Around(blocklist=actions.weak_keys(services), lint=True)
    judged = await pool.run(toolbox.judge, given, options, around)
    if judged.leaf is not None and judged.missing:
        async with services.db.read() as tx:
            known = await certificates.known_issuers(tx, actor.account_id, judged.leaf, judged.missing)
        if known:
            around = replace(around, pool=known)
            judged = await pool.run(toolbox.judge, given, options, around)
    judged, found = await actions.completed(services, actor, given, wishes, options, around, judged)
    return judged, judgement(judged, more=found.notes, fetched=[facts.sha256 for facts in found.issuers])


async def inspect(services: Services, content: bytes, passphrase: bytes | None = None) -> dict[str, Any]:
    """What a file holds. Of a private key only its kind and the hash of its public half."""
    return await services.port(Processes).run(toolbox.inspect, content, passphrase)


async def chain(
    services: Services, actor: Actor, content: bytes, passphrase: bytes | None = None, *, online: bool = True
) -> Completed:
    """Complete and order the chain of a server certificate. Raises the Invalid of a file that holds none."""
    given = Given(content, passphrase=passphrase)
    judged, said = await _judged(services, actor, given, Wishes(private=True, online=online))
    if judged.leaf is None:
        first = said.findings[0]
        raise Invalid(first.code, first.message, fix=first.fix, field="content")
    missing = judged.missing or (judged.leaf.issuer if _is_broken(said) else "")
    return Completed(not missing, missing, said.links, said.certificate_pem + said.chain_pem, said)


def _is_broken(said: Judgement) -> bool:
    return any(finding.code in ("chain_missing", "chain_broken") for finding in said.findings)


async def convert(
    services: Services,
    inputs: Sequence[bytes],
    to: str,
    *,
    passphrase: bytes | None = None,
    out_passphrase: bytes | None = None,
    alias: str = "",
    legacy: bool = False,
) -> File:
    """Certificates and keys of all inputs as one file. Raises Invalid of the workshop, `format_unknown`."""
    wanted = _one_of(Format, to, "to")
    octets, title = await services.port(Processes).run(
        toolbox.converted, _few(inputs), passphrase, wanted, Wish(out_passphrase, legacy, alias), services.clock.now()
    )
    ending, media_type = _TYPES.get(wanted, ("key" if wanted in _KEY_FORMS else "pem", _PEM))
    return File(f"{title}.{ending}", media_type, octets)


async def join(services: Services, inputs: Sequence[bytes], passphrase: bytes | None = None) -> File:
    """Everything as one PEM: keys first, then certificates in order."""
    octets, title = await services.port(Processes).run(toolbox.joined, _few(inputs), passphrase)
    return File(f"{title}.pem", _PEM, octets)


async def split(services: Services, inputs: Sequence[bytes], passphrase: bytes | None = None) -> tuple[File, ...]:
    """Each part as a PEM of its own."""
    found = await services.port(Processes).run(toolbox.parts, _few(inputs), passphrase)
    return tuple(File(name, _PEM, octets) for name, octets in found.items())


async def match(services: Services, inputs: Sequence[bytes], passphrase: bytes | None = None) -> Matched:
    """Whether certificates, requests and keys belong together."""
    return Matched(*await services.port(Processes).run(toolbox.matched, _few(inputs), passphrase))


async def csr(
    services: Services,
    names: Sequence[str],
    *,
    key_algorithm: str = "EC_P256",
    key: bytes | None = None,
    passphrase: bytes | None = None,
    common_name: bool = False,
) -> MadeCsr:
    """A signing request with a key of theirs or a new one; `passphrase` opens theirs, or encrypts the new one."""
    made = await services.port(Processes).run(
        toolbox.request, tuple(names), key_algorithm, key, passphrase, common_name=common_name
    )
    return MadeCsr(*made)


async def bundle(
    services: Services,
    actor: Actor,
    inputs: Sequence[bytes],
    server: str,
    *,
    name: str = "",
    passphrase: bytes | None = None,
    legacy: bool = False,
    online: bool = True,
) -> File:
    """The zip for a server. Missing intermediates are added from what is known, and fetched if `online`."""
    wanted = _one_of(Server, server, "server")
    pool = services.port(Processes)
    given = await pool.run(toolbox.certificates_of, _few(inputs), passphrase)
    judged, _ = await _judged(services, actor, Given(given), Wishes(private=True, online=online))
    known = tuple(facts.der for facts in judged.chain)
    octets, title = await pool.run(
        toolbox.archive, _few(inputs), passphrase, wanted, name, known, services.clock.now(), legacy=legacy
    )
    return File(f"{title}_{wanted.value}.zip", "application/zip", octets)


async def key(
    services: Services,
    content: bytes,
    *,
    passphrase: bytes | None = None,
    out_passphrase: bytes | None = None,
    form: str = "pkcs8",
) -> File:
    """A private key in another form: encrypted under `out_passphrase`, or without one where there is none."""
    wanted = _one_of(Format, form, "form")
    if wanted not in _KEY_FORMS:
        raise Invalid(
            "format_unknown", f"A key has no form {form!r}.", field="form", fix="Use pkcs8, pkcs1 or sec1."
        )  # fmt: skip
    octets = await services.port(Processes).run(toolbox.key_as, content, passphrase, out_passphrase, wanted)
    return File("private.key", _PEM, octets)


def _few(inputs: Sequence[bytes]) -> tuple[bytes, ...]:
    if not 1 <= len(inputs) <= MAX_INPUTS:
        raise Invalid(
            "inputs_count", f"This takes 1 to {MAX_INPUTS} files, not {len(inputs)}.", field="inputs",
            fix="Give the certificate, its chain and its key.",
        )  # fmt: skip
    return tuple(inputs)


def _one_of(kind: type[_Kind], text: str, field: str) -> _Kind:
    try:
        return kind(text)
    except ValueError:
        raise Invalid(
            "format_unknown", f"There is no format {text[:40]!r}.", field=field, fix=f"Use one of: {', '.join(kind)}."
        ) from None  # fmt: skip


__all__ = [
    "Completed",
    "File",
    "MadeCsr",
    "Matched",
    "bundle",
    "chain",
    "check",
    "convert",
    "csr",
    "inspect",
    "join",
    "key",
    "match",
    "split",
]
