"""Repair, then judge: what is in an upload, what was put right, what is still wrong, and the chain it makes.

One call looks at everything and says all it finds; it never raises for what it was given. What only others know (other
certificates of the account, revocation, known intermediates) comes as `Known`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from cryptography import x509

from certwright.kernel.problems import Invalid, Problem
from certwright.x509 import keys
from certwright.x509.certificates import CertificateFacts, extension_value, load_with_facts, to_pem
from certwright.x509.keys import PrivateKey
from certwright.x509.workshop import chains, containers, judge
from certwright.x509.workshop.chains import Chain, Link, Pool
from certwright.x509.workshop.containers import IN_WORDS, Container, Contents, Item, Kind
from certwright.x509.workshop.policy import Blocklist, PublicPolicy
from certwright.x509.workshop.words import Finding, Place, Repair, Severity, error, from_problem, warning

CERTIFICATE, KEY, CHAIN = "certificate", "key", "chain"
# Reading one takes up to a millisecond if it is as large as may be.
_MAX_KEYS: Final = 16
# Nobody reads more; a thousand damaged blocks make a thousand.
MAX_FINDINGS: Final = 100


class Purpose(StrEnum):
    """What an upload is for."""

    SERVER = "server"
    CLIENT_CA = "client_ca"


@dataclass(frozen=True, slots=True)
class Known:
    """What the caller knows beyond the upload.

    `certificates`: SHA-256 → what to call the certificate that is there already; `keys`: SHA-256 of the public key →
    the certificate that has it; `moduli`: RSA moduli of other certificates; `revoked`: SHA-256 → since when and why, in
    words that follow "was revoked".
    """

    pool: Pool = field(default_factory=Pool)
    certificates: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    moduli: Sequence[int] = ()
    revoked: Mapping[str, str] = field(default_factory=dict)
    blocklist: Blocklist | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Options:
    """How strictly to judge.

    `at`: the moment it is judged for, aware. `policy`: the rules of public trust; None for private certificates, which
    drops their findings. `strict`: PEM only, key without passphrase, chain complete. `key_required`: a server upload
    without a key is an error. `duplicates_allowed`, `legacy_rsa`: what the account's policy admits.
    """

    at: datetime
    policy: PublicPolicy | None = None
    purpose: Purpose = Purpose.SERVER
    strict: bool = False
    key_required: bool = False
    duplicates_allowed: bool = False
    legacy_rsa: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it. `chain` is ordered and without the root; `key` is set if it belongs to the leaf.

    `issuer_urls`: where the missing issuer's certificate can be fetched (http only), for a second try with a larger
    pool. `added`: those of `chain` that came from the pool. For client CAs `leaf` is the first, `chain` the others.
    """

    repaired: tuple[Repair, ...]
    findings: tuple[Finding, ...]
    leaf: CertificateFacts | None
    chain: tuple[CertificateFacts, ...] = ()
    added: tuple[CertificateFacts, ...] = ()
    key: PrivateKey | None = field(default=None, repr=False)
    issuer_urls: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is at error severity."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)

    @property
    def certificate_pem(self) -> str:
        return to_pem(self.leaf.der) if self.leaf else ""

    @property
    def chain_pem(self) -> str:
        return "".join(to_pem(facts.der) for facts in self.chain)

    def as_dict(self) -> dict[str, Any]:
        """The report as documents hold it; without key material and without the certificates themselves."""
        return {
            "ok": self.ok,
            "repaired": list(dict.fromkeys(repair.code for repair in self.repaired)),
            "findings": [finding.as_dict() for finding in self.findings],
            "leaf": summary(self.leaf) if self.leaf else None,
        }


def summary(facts: CertificateFacts) -> dict[str, Any]:
    """A certificate in a document: times RFC 3339, fingerprints hexadecimal."""
    return {
        "subject": facts.subject,
        "issuer": facts.issuer,
        "serial": facts.serial,
        "not_before": facts.not_before.isoformat(),
        "not_after": facts.not_after.isoformat(),
        "names": [*facts.dns_names, *facts.ip_addresses],
        "common_name": facts.common_name,
        "key_algorithm": facts.key_algorithm,
        "signature_algorithm": facts.signature_algorithm,
        "sha256": facts.sha256,
        "sha1": facts.sha1,
        "spki_sha256": facts.spki_sha256,
        "is_ca": facts.is_ca,
        "self_signed": facts.self_signed,
    }


def check(
    certificate: bytes | str,
    *,
    options: Options,
    key: bytes | str | None = None,
    chain: bytes | str | None = None,
    passphrase: bytes | None = None,
    known: Known | None = None,
) -> Report:
    """Judges an upload: the certificate (with whatever stands beside it), its key, its chain.

    Takes at most a second and 100 MB for 1 MiB of anything. Raises nothing for what it is given.
    """
    return _Check(options, known or Known()).run(certificate, key, chain, passphrase)


class _Check:
    def __init__(self, options: Options, known: Known) -> None:
        self._options = options
        self._known = known
        self._repairs: list[Repair] = []
        self._findings: list[Finding] = []

    def run(
        self, certificate: bytes | str, key: bytes | str | None, chain: bytes | str | None, passphrase: bytes | None
    ) -> Report:
        main = self._open(certificate, CERTIFICATE, passphrase)
        key_part = self._open(key, KEY, passphrase) if key is not None else None
        chain_part = self._open(chain, CHAIN, passphrase) if chain is not None else None
        self._expect_certificates(main, key_part)
        if chain_part is not None:
            self._expect_certificates(chain_part, None)
        links = self._links(main) + (self._links(chain_part) if chain_part else [])
        if self._options.purpose is Purpose.CLIENT_CA:
            return self._client_ca(links, main)
        private = self._key(main, key_part, {link.facts.spki_sha256 for link in links})
        if not links:
            return self._report(None)
        leaf = _leaf(links, private)
        if leaf.facts.is_ca and not leaf.facts.self_signed and len(links) < len(main.of(Kind.CERTIFICATE)):
            return self._report(None)  # the server's own is the one that can't be read
        return self._server(leaf, links, private, ordered=main.container in (Container.PEM, Container.DER))

    def _report(self, leaf: CertificateFacts | None, **more: Any) -> Report:
        findings = self._findings
        if len(findings) > MAX_FINDINGS:
            # Sorting is stable; what blocks must not be cut off.
            findings = sorted(findings, key=lambda finding: finding.severity is not Severity.ERROR)[:MAX_FINDINGS]
        return Report(tuple(self._repairs), tuple(findings), leaf, **more)

    # --- what is there ---

    def _open(self, data: bytes | str, name: str, passphrase: bytes | None) -> Contents:
        opened = containers.open_input(data, name, passphrase)
        self._findings += [self._named(finding, name) for finding in opened.findings]
        self._repairs += opened.repairs
        if self._options.strict and opened.container is not Container.PEM:
            self._findings.append(
                error(
                    "not_pem",
                    f"Only PEM is taken in strict mode; this is {_CONTAINER_WORDS[opened.container]}.",
                    "Convert it: certwright x509 convert <file> --to pem --out <new>.",
                    Place(name),
                )
            )
        return opened

    def _named(self, finding: Finding, name: str) -> Finding:
        """Nothing where a key belongs has its own code."""
        if name != KEY or finding.code != "empty":
            return finding
        return error("key_missing", "There is no private key.", _PASTE_KEY, finding.where)

    def _expect_certificates(self, part: Contents, key_part: Contents | None) -> None:
        keys_inside = part.of(Kind.KEY)
        if part.of(Kind.CERTIFICATE):
            if keys_inside and (self._options.strict or self._options.purpose is Purpose.CLIENT_CA):
                self._findings.append(
                    error(
                        "wrong_block",
                        "A private key stands among the certificates.",
                        "Put the key into its own field."
                        if self._options.purpose is Purpose.SERVER
                        else "Remove the key: for checking clients the CA's certificate is all that is needed.",
                        keys_inside[0].place,
                    )
                )
            return
        if not part.items or any(f.where.input == part.items[0].place.input for f in part.findings):
            return
        first = part.items[0]
        swapped = first.kind is Kind.KEY and key_part is not None and bool(key_part.of(Kind.CERTIFICATE))
        self._findings.append(
            error(
                "wrong_block",
                f"This is {_in_words(first)} where a certificate belongs.",
                "The two fields are swapped: put the certificate here and the key there."
                if swapped
                else "Paste the certificate here; it begins with -----BEGIN CERTIFICATE-----.",
                first.place,
            )
        )

    def _links(self, part: Contents) -> list[Link]:
        found = []
        for item in part.of(Kind.CERTIFICATE):
            try:
                cert, facts = load_with_facts(item.der)
            except Problem as problem:
                self._findings.append(from_problem(problem, item.place))
                continue
            found.append(Link(cert, facts, item.place))
        return found

    # --- the key ---

    def _key(self, main: Contents, part: Contents | None, wanted: set[str]) -> tuple[PrivateKey, Place] | None:
        """The key, preferably one that belongs to a certificate that is there."""
        candidates = main.of(Kind.KEY)
        if part is not None:
            if part.of(Kind.KEY):
                candidates = part.of(Kind.KEY)
            elif not part.findings:
                self._findings.append(_no_key(part, swapped=bool(candidates) and not main.of(Kind.CERTIFICATE)))
                return None
            else:
                return None
        elif not main.of(Kind.CERTIFICATE) and candidates:
            candidates = []  # said already: a key where the certificate belongs
        if not candidates:
            if part is None and self._options.key_required and not _said_of_key(main):
                self._findings.append(error("key_missing", "There is no private key.", _PASTE_KEY, Place(KEY)))
            return None
        found: dict[str, tuple[PrivateKey, Place]] = {}
        refused: list[Finding] = []
        for item in list({item.source: item for item in candidates}.values())[:_MAX_KEYS]:
            try:
                private = self._open_key(item)
            except Problem as problem:
                refused.append(from_problem(problem, item.place))
                continue
            found.setdefault(keys.spki_sha256(private), (private, item.place))
        matching = [spki for spki in found if spki in wanted]
        if matching:
            return found[matching[0]]
        self._findings += refused
        if len(found) > 1:
            self._findings.append(
                error(
                    "key_format",
                    f"There are {len(found)} different private keys, and none belongs to the certificate.",
                    "Give exactly one: the certificate's.",
                    candidates[0].place,
                )
            )
            return None
        return next(iter(found.values()), None)

    def _open_key(self, item: Item) -> PrivateKey:
        if not self._options.strict:
            return keys.read_private_key(item.source, item.passphrase)
        try:
            return keys.read_private_key(item.source)
        except Invalid as problem:
            if problem.code == "key_encrypted":
                problem.fix = "Strict mode takes no encrypted key: openssl pkey -in <key> -out <new key>."
            raise

    # --- a server certificate ---

    def _server(
        self, leaf: Link, links: list[Link], private: tuple[PrivateKey, Place] | None, *, ordered: bool
    ) -> Report:
        place = leaf.place or Place(CERTIFICATE)
        if private is not None and keys.spki_sha256(private[0]) != leaf.facts.spki_sha256:
            self._findings.append(
                error(
                    "key_mismatch",
                    "The private key isn't the one this certificate was made for.",
                    "Use the key made with the request. Compare: openssl pkey -in <key> -pubout, and openssl x509 -in "
                    "<certificate> -noout -pubkey.",
                    private[1],
                )
            )
        unique = self._without_duplicates(links)
        try:
            chain = chains.build(leaf, unique, self._known.pool)
        except Problem as problem:
            self._findings.append(from_problem(problem, place))
            chain = Chain((leaf,), None, (), (), None)
        else:
            self._chain(chain, unique, place, ordered=ordered)
        self._judge(chain, place)
        self._account(leaf.facts, place)
        matches = private is not None and keys.spki_sha256(private[0]) == leaf.facts.spki_sha256
        last = chain.path[-1].facts
        return self._report(
            leaf.facts,
            chain=tuple(link.facts for link in chain.path[1:]),
            added=tuple(link.facts for link in chain.added),
            key=private[0] if private and matches else None,
            issuer_urls=_plain(last.aia_urls) if chain.is_missing else (),
        )

    def _without_duplicates(self, links: list[Link]) -> list[Link]:
        unique: dict[bytes, Link] = {}
        for link in links:
            if link.facts.der in unique:
                self._repairs.append(Repair("duplicate_block", link.place or Place(CERTIFICATE)))
            unique.setdefault(link.facts.der, link)
        return list(unique.values())

    def _chain(self, chain: Chain, given: list[Link], place: Place, *, ordered: bool) -> None:
        leaf = chain.path[0]
        if chain.is_missing and chain.namesake is not None:
            self._findings.append(
                error(
                    "chain_broken",
                    f"A CA certificate named {leaf.facts.issuer[:80]!r} is there, but its key didn't sign this one.",
                    "Use the intermediate certificates that came with this very certificate; CAs change them often.",
                    chain.namesake.place or place,
                )
            )
        elif chain.is_missing or (self._options.strict and chain.added):
            self._findings.append((error if self._options.strict else warning)(*_chain_missing(leaf.facts), place))
        elif chain.namesake is not None:
            last = chain.path[-1]
            self._findings.append(
                error(
                    "chain_broken",
                    f"A CA certificate named {last.facts.issuer[:80]!r} is there, but it didn't sign the one before.",
                    "Use the intermediate certificates that came with this very certificate.",
                    chain.namesake.place or place,
                )
            )
        if chain.added and not self._options.strict:
            self._repairs.append(Repair("chain_missing", place))
        strangers = [link for link in chain.strangers if link is not chain.namesake]
        for link in strangers:
            self._findings.append(
                warning(
                    "chain_stranger",
                    f"The certificate {link.facts.subject[:80]!r} belongs to no chain of this one.",
                    "Remove it; clients ignore it at best.",
                    link.place or place,
                )
            )
        dropped = [link for link in given if link.facts.self_signed and link is not leaf and link not in strangers]
        if dropped:
            self._repairs.append(Repair("root_included", dropped[0].place or place))
        path = [link for link in chain.path if link.place is not None]
        if ordered and [link for link in given if link in path] != path:
            self._repairs.append(Repair("chain_order", place))
        self._findings += chains.path_findings(chain, place)

    def _judge(self, chain: Chain, fallback: Place) -> None:
        options = self._options
        for number, link in enumerate(chain.path):
            place = link.place or fallback
            self._findings += judge.times(link.cert, place, at=options.at, is_leaf=number == 0)
            self._strength(link, place)
            self._findings += judge.signature(link.cert, link.facts, place)
            self._findings += judge.extensions(link.cert, place)
        if options.policy is not None:
            self._findings += judge.public_policy(chain.path[0].facts, fallback, options.policy)

    def _strength(self, link: Link, place: Place) -> None:
        self._findings += judge.strength(
            link.cert,
            place,
            public=self._options.policy is not None,
            legacy_rsa=self._options.legacy_rsa,
            blocklist=self._known.blocklist,
            moduli=self._known.moduli,
        )

    # --- a CA for checking clients ---

    def _client_ca(self, links: list[Link], main: Contents) -> Report:
        if not links:
            return self._report(None)
        unique = self._without_duplicates(links)
        for link in unique:
            place = link.place or Place(CERTIFICATE)
            self._findings += judge.authority(link.cert, link.facts, place)
            self._findings += judge.times(link.cert, place, at=self._options.at, is_leaf=False)
            self._findings += judge.strength(
                link.cert, place, public=False, legacy_rsa=self._options.legacy_rsa, blocklist=self._known.blocklist
            )
            self._findings += judge.signature(link.cert, link.facts, place, is_root=link.facts.self_signed)
            self._findings += judge.extensions(link.cert, place)
        self._account(unique[0].facts, unique[0].place or Place(CERTIFICATE), of_server=False)
        return self._report(unique[0].facts, chain=tuple(link.facts for link in unique[1:]))

    # --- what the account has ---

    def _account(self, facts: CertificateFacts, place: Place, *, of_server: bool = True) -> None:
        there = self._known.certificates.get(facts.sha256)
        if there is not None:
            self._findings.append(duplicate(there, place, allowed=self._options.duplicates_allowed))
        other = self._known.keys.get(facts.spki_sha256)
        if of_server and other is not None and there is None:
            self._findings.append(
                warning(
                    "key_reused",
                    f"The certificate {other} has the same key.",
                    "Make a new key for each certificate, so that losing one doesn't lose the other.",
                    place,
                )
            )
        revoked = self._known.revoked.get(facts.sha256)
        if revoked is not None:
            self._findings.append(
                error(
                    "revoked",
                    f"The certificate was revoked {revoked}.",
                    "Have a new one issued, with a new key.",
                    place,
                )
            )


def duplicate(there: str, place: Place, *, allowed: bool) -> Finding:
    """`there` is what the certificate that is there already is called."""
    return (warning if allowed else error)(
        "duplicate", f"This very certificate is there already: {there}.", "Use the one that is there.", place
    )


# --- words -------------------------------------------------------------------------------------------------------

_PASTE_KEY: Final = "Paste the key file's content, from -----BEGIN to -----END."
_CONTAINER_WORDS: Final = {
    Container.DER: "binary (DER)",
    Container.P7B: "a PKCS#7 bundle",
    Container.PFX: "a PKCS#12 store",
    Container.JKS: "a JKS store",
}


def _in_words(item: Item) -> str:
    return IN_WORDS[item.kind] if item.kind is not Kind.UNKNOWN else f"a {item.label} block"


def _no_key(part: Contents, *, swapped: bool) -> Finding:
    """What stands where the key belongs."""
    if not part.items:
        return error("key_missing", "There is no private key in it.", _PASTE_KEY, Place(KEY))
    first = part.items[0]
    kinds = {item.kind for item in part.items}
    if kinds == {Kind.PARAMETERS}:
        return error(
            "ec_parameters_only", "The text holds only the curve's parameters, not the key.",
            "Paste also the block -----BEGIN EC PRIVATE KEY----- that follows in the key file.", first.place,
        )  # fmt: skip
    if Kind.SSH_KEY in kinds:
        return error(
            "key_format", "The key is in OpenSSH's own format.", "Convert a copy: ssh-keygen -p -m PEM -f <copy>.",
            first.place,
        )  # fmt: skip
    if first.label.endswith("PRIVATE KEY"):
        return error(
            "key_format", f"Keys of kind {first.label} aren't supported.",
            "Make a new key: EC P-256 or RSA 2048.", first.place,
        )  # fmt: skip
    return error(
        "wrong_block", f"This is {_in_words(first)} where the private key belongs.",
        "The two fields are swapped: put the key here and the certificate there."
        if swapped
        else "Paste the private key here; it begins with -----BEGIN PRIVATE KEY----- or similar.",
        first.place,
    )  # fmt: skip


def _said_of_key(main: Contents) -> bool:
    """Whether the findings of opening tell already why there is no key."""
    return any(finding.code in ("key_encrypted", "wrong_passphrase", "key_format") for finding in main.findings)


def _leaf(links: list[Link], private: tuple[PrivateKey, Place] | None) -> Link:
    """The server's certificate: the key's, else the first that isn't one of a CA, else the first."""
    if private is not None:
        spki = keys.spki_sha256(private[0])
        matching = [link for link in links if link.facts.spki_sha256 == spki]
        if matching:
            return next((link for link in matching if not link.facts.is_ca), matching[0])
    return next((link for link in links if not link.facts.is_ca), links[0])


def _chain_missing(facts: CertificateFacts) -> tuple[str, str, str]:
    return (
        "chain_missing",
        f"The certificate of the CA that issued it is missing: {facts.issuer[:120]!r}.",
        "Add the intermediate certificates the CA sent with it, or let certwright x509 chain <file> find them.",
    )


def _plain(urls: Sequence[str]) -> tuple[str, ...]:
    return tuple(url for url in urls[:5] if url.startswith("http://"))


def is_authorities(contents: Contents) -> bool:
    """Whether every certificate is one of a CA by basicConstraints and by keyCertSign, and none holds names."""
    found = []
    for item in contents.of(Kind.CERTIFICATE):
        try:
            found.append(load_with_facts(item.der))
        except Problem:
            return False
    for cert, facts in found:
        usage = extension_value(cert.extensions, x509.KeyUsage)
        if not facts.is_ca or usage is None or not usage.key_cert_sign or facts.dns_names or facts.ip_addresses:
            return False
    return bool(found)
