"""One nginx: the rollout steps of the Target port. The README beside says what each does and why in this order."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from posixpath import dirname

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from certwright.connectors.target.handshake import NoHandshake, NothingAnswers, fingerprint, served_certificate
from certwright.connectors.target.nginx import commands
from certwright.connectors.target.nginx.config import (
    Directive,
    all_listeners,
    expand,
    included,
    is_main,
    parse,
    shown,
    split_dump,
    tls_servers,
)
from certwright.connectors.target.nginx.discover import installed_in, sites_of
from certwright.connectors.target.nginx.files import (
    ABSENT,
    Journal,
    Kept,
    Lock,
    Phase,
    RolloutDirectory,
    check_place,
    problem_of,
    prune,
    read_file,
    remove,
    restore,
    staged_path,
    state_of,
    swap_in,
    with_phase,
    write_file,
)
from certwright.kernel.problems import Problem, Refused, Unavailable
from certwright.rooms.deployment.ports import Workspace
from certwright.rooms.deployment.words import (
    Caution,
    Change,
    ConfigFault,
    Deployment,
    Discovery,
    Expectation,
    KeyKind,
    Material,
    Plan,
    Role,
    Site,
    Slot,
    Step,
    StepResult,
)

_HANDSHAKES_AT_ONCE = 20
_CLEAN_ROUNDS = 3
# What is undone is what the workers before the reload served as well, so that seeing it says less: look for longer.
_CLEAN_ROUNDS_OF_UNDO = 10
_POLL = 0.05
_BACKUPS_KEPT = 5
_LARGEST_MAIN_FILE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Options:
    """A checked configuration of an nginx target."""

    nginx: str
    config: str
    prefix: str | None
    reload: tuple[str, ...] | None
    connect_host: str
    verify_seconds: float
    command_seconds: float


class NginxTarget:
    """The Target port for one local nginx."""

    def __init__(self, options: Options, workspace: Workspace) -> None:
        self._options = options
        self._workspace = workspace
        self._lock = Lock(workspace, options.config)

    async def discover(self) -> Discovery:
        """Raises Refused `nginx_config_broken` if the files can't be read even without nginx's help."""
        software = await self._version()
        ran = await self._nginx("-T")
        fault = None
        if ran.code == 0:
            files = split_dump(ran.out)
        else:
            fault = commands.fault_in(ran.err)
            if fault.certificate_file is None:
                raise commands.broken(fault, "Its sites can't be listed until that is corrected.")
            # nginx prints nothing when a certificate file is bad; just those sites are the ones to repair.
            files = await asyncio.to_thread(_read_configuration, self._options.config)
        return await asyncio.to_thread(self._sites, software, files, fault)

    def _sites(self, software: str, files: Mapping[str, str], fault: ConfigFault | None) -> Discovery:
        main = next(iter(files), self._options.config)
        directives = expand(files, main)
        servers = tls_servers(directives, dirname(main))
        sites = sites_of(servers, all_listeners(directives), _read_if_possible, self._options.connect_host)
        return Discovery(software, sites, fault)

    async def plan(self, rollout_id: str, deployments: Sequence[Deployment]) -> Plan:
        """Raises Refused `site_missing`, `site_not_managed`, `no_slot_for_key_type`, `conflicting_deployments`,
        `shared_certificate`, places that can't be written, or Unavailable `nginx_not_running`."""
        discovery = await self.discover()
        chosen = await asyncio.to_thread(_choose, discovery, deployments)
        changes = await asyncio.to_thread(_changes, discovery, chosen)
        affected = _affected(discovery, changes)
        cautions = await asyncio.to_thread(_cautions, affected, chosen, changes)
        by_certificate = {c.certificate_path: d for d, _, c in chosen}
        wanted = [e for site in affected for e in _expectations(site, by_certificate)]
        before = await _look_at_all(wanted)
        if wanted and all(seen.silent for seen in before):
            places = ", ".join(dict.fromkeys(e.address.text for e in wanted))
            raise Unavailable(
                "nginx_not_running",
                f"Nothing answers on {places}.",
                fix="Start nginx (or reload it, if these sites are new to it), then deploy again.",
            )
        expectations = tuple(replace(e, before=seen.sha256) for e, seen in zip(wanted, before, strict=True))
        return Plan(rollout_id, changes, expectations, tuple(site.key for site in affected), cautions)

    async def stage(self, plan: Plan, materials: Mapping[str, Material]) -> StepResult:
        """Raises Refused `nginx_config_broken` before anything is touched, `key_mismatch`, `disk_full`,
        `permission_denied`; Unavailable `target_busy`."""
        contents = _contents(plan, materials)
        await self._check_trust()
        directory = RolloutDirectory(self._workspace, plan.rollout_id)
        async with self._held(plan):
            journal = await asyncio.to_thread(directory.journal)
            if journal is not None and journal.phase is not Phase.STAGING:
                return StepResult(Step.STAGE, ("Staged already.",))
            fault_before = await self._fault_to_repair(plan)
            await asyncio.to_thread(directory.make)
            await asyncio.to_thread(
                directory.write,
                Journal(plan.rollout_id, self._options.config, Phase.STAGING, fault_before=fault_before),
            )
            kept = await asyncio.to_thread(self._stage_files, plan, contents, directory)
            await asyncio.to_thread(
                directory.write,
                Journal(plan.rollout_id, self._options.config, Phase.STAGED, kept, fault_before=fault_before),
            )
        return StepResult(
            Step.STAGE, tuple(f"{'Backed up' if k.old != ABSENT else 'Will create'} {k.path}" for k in kept)
        )

    async def test(self, plan: Plan) -> StepResult:
        """Raises Refused `nginx_refuses_certificate`."""
        directory, journal = await self._open(plan)
        if journal.phase is not Phase.STAGED:
            return StepResult(Step.TEST, ("Tested already.",))
        async with self._held(plan):
            trial = directory.path / "trial"
            build = await self._program("-V")
            await asyncio.to_thread(_write_trial, trial, plan, build.err)
            try:
                ran = await self._program("-t", "-p", f"{trial}/", "-c", str(trial / "nginx.conf"), cwd=trial)
            finally:
                await asyncio.to_thread(shutil.rmtree, trial, ignore_errors=True)
        if ran.code:
            fault = commands.fault_in(ran.err)
            raise Refused(
                "nginx_refuses_certificate",
                f"This nginx can't load the new certificate: {fault.message}.",
                fix="Choose a key type this nginx and its TLS library support.",
            )
        return StepResult(Step.TEST, ("nginx loads the new certificate and key.",))

    async def activate(self, plan: Plan) -> StepResult:
        """Raises Refused `nginx_config_broken` (files put back, nginx not reloaded), `changed_by_someone_else`;
        Unavailable `nginx_not_running`, `reload_failed`."""
        directory, journal = await self._open(plan)
        if journal.phase in (Phase.ACTIVE, Phase.KEPT):
            return StepResult(Step.ACTIVATE, ("Activated already.",))
        if journal.phase not in (Phase.STAGED, Phase.ACTIVATING):
            raise _wrong_order(plan, journal)
        await self._check_trust()
        async with self._held(plan):
            journal = await asyncio.to_thread(_swap_all, directory, journal)
            ran = await self._nginx("-t")
            if ran.code:
                fault = commands.fault_in(ran.err)
                await asyncio.to_thread(_restore_all, directory, journal)
                raise commands.broken(fault, "The previous files are back; nginx was not reloaded.")
            journal = await asyncio.to_thread(directory.write, replace(journal, reload_started=True))
            await self._reload()
            await asyncio.to_thread(directory.write, with_phase(journal, Phase.ACTIVE))
        return StepResult(
            Step.ACTIVATE, (f"{len(journal.files)} files replaced.", "nginx -t is content.", "nginx was reloaded once.")
        )

    async def verify(self, plan: Plan) -> StepResult:
        """Raises Refused `not_served` with what each address served instead."""
        wrong = await self._poll({e: frozenset({e.sha256}) for e in plan.expectations})
        if wrong:
            raise Refused(
                "not_served",
                f"After {self._options.verify_seconds:g} seconds the new certificate is not served everywhere: "
                + "; ".join(f"{e.address.text} {said}" for e, said in wrong[:5])
                + ".",
                fix="Check that the site is the one meant and that nginx's error log shows a finished reload.",
                extra={"addresses": [e.address.text for e, _ in wrong]},
            )
        seen = tuple(f"{e.address.text} serves {e.sha256[:16]}…" for e in plan.expectations)
        return StepResult(Step.VERIFY, seen or ("No address of these sites can be told apart from outside.",))

    async def keep(self, plan: Plan) -> StepResult:
        directory, journal = await self._open(plan)
        async with self._held(plan):
            await asyncio.to_thread(_remove_staged, plan)
            if journal.phase is Phase.ACTIVE:
                await asyncio.to_thread(directory.write, with_phase(journal, Phase.KEPT))
            elif journal.phase is not Phase.KEPT:
                raise _wrong_order(plan, journal)
            await asyncio.to_thread(prune, self._workspace, self._options.config, _BACKUPS_KEPT)
            await asyncio.to_thread(self._lock.release, plan.rollout_id)
        return StepResult(Step.KEEP, ("Temporary copies removed; the sealed backup is kept.",))

    async def undo(self, plan: Plan) -> StepResult:
        """Raises Refused `undo_incomplete`, `previous_not_served`; Unavailable as `activate` does."""
        directory = RolloutDirectory(self._workspace, plan.rollout_id)
        async with self._held(plan):
            journal = await asyncio.to_thread(directory.journal)
            await asyncio.to_thread(_remove_staged, plan)
            said: tuple[str, ...] = ("Nothing had been changed.",)
            if journal is not None and journal.phase is not Phase.UNDONE:
                said = await self._put_back(plan, directory, journal)
                await asyncio.to_thread(directory.write, with_phase(journal, Phase.UNDONE))
                await asyncio.to_thread(directory.drop_backups)
            await asyncio.to_thread(self._lock.release, plan.rollout_id)
        return StepResult(Step.UNDO, said)

    async def abandon(self, rollout_id: str) -> None:
        await asyncio.to_thread(self._lock.release, rollout_id)

    async def _put_back(self, plan: Plan, directory: RolloutDirectory, journal: Journal) -> tuple[str, ...]:
        if journal.phase in (Phase.STAGING, Phase.STAGED):
            return ("The staged files were removed; nothing had been activated.",)
        left_alone = await asyncio.to_thread(_restore_all, directory, journal)
        # From here on the files are nobody's any more: another rollout need not wait for what may still go wrong.
        await asyncio.to_thread(directory.write, with_phase(journal, Phase.RESTORED))
        said = ["The previous files are back.", *left_alone]
        if not journal.reload_started:
            return (*said, "nginx had not been reloaded.")
        ran = await self._nginx("-t")
        if ran.code:
            fault = commands.fault_in(ran.err)
            if journal.fault_before is not None:
                return (*said, f"As before the rollout, nginx refuses its configuration: {fault.message}.")
            raise Refused(
                "undo_incomplete",
                f"The previous files are back, but nginx now refuses its configuration: {fault.message}. Until it is "
                "corrected and reloaded, nginx goes on serving from memory.",
                fix="Correct that line, then undo this rollout again.",
                extra={"file": fault.file, "line": fault.line},
            )
        await self._reload()
        if left_alone:
            return tuple(said)
        old_leaves = {k.old_leaf for k in journal.files if k.old_leaf}
        accepted = {e: frozenset({e.before, *old_leaves}) for e in plan.expectations if e.before}
        wrong = await self._poll(accepted, _CLEAN_ROUNDS_OF_UNDO)
        if wrong:
            raise Refused(
                "previous_not_served",
                "The previous files are back and nginx was reloaded, but the previous certificate is not served: "
                + "; ".join(f"{e.address.text} {what}" for e, what in wrong[:5])
                + ".",
                fix="Look at nginx's error log, then undo this rollout again.",
            )
        return (*said, *(f"{e.address.text} serves the previous certificate." for e in accepted))

    async def _poll(
        self, accepted: Mapping[Expectation, frozenset[str]], rounds: int = _CLEAN_ROUNDS
    ) -> list[tuple[Expectation, str]]:
        """Look until every address served an accepted certificate `rounds` times running; what is wrong at the end.

        A client that can't be told which kind of key to take may be offered the site's other certificate instead.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.verify_seconds
        clean = 0
        while True:
            looks = await _look_at_all(accepted)
            wrong = [
                (e, seen.text)
                for (e, good), seen in zip(accepted.items(), looks, strict=True)
                if seen.sha256 not in good and (seen.exact or seen.sha256 not in e.alternatives)
            ]
            # An old worker may answer one connection after a new one answered another: once is not enough.
            clean = 0 if wrong else clean + 1
            if clean >= rounds or not accepted:
                return []
            if loop.time() >= deadline:
                return wrong
            await asyncio.sleep(_POLL)

    def _stage_files(self, plan: Plan, contents: Mapping[str, bytes], directory: RolloutDirectory) -> tuple[Kept, ...]:
        kept = []
        for index, change in enumerate(plan.changes):
            check_place(change.path)
            old_content = read_file(change.path)
            content = contents[change.path]
            if change.role is Role.PASSPHRASE and change.shared and old_content:
                content += old_content if old_content.endswith(b"\n") else old_content + b"\n"
            record = _record(change, old_content, content)
            if record.link is None and old_content is not None:
                directory.keep(index, old_content)
            mode = 0o644 if change.role is Role.CERTIFICATE else 0o600
            write_file(staged_path(plan.rollout_id, index, change.path), content, mode, (record.uid, record.gid))
            kept.append(record)
        return tuple(kept)

    async def _fault_to_repair(self, plan: Plan) -> str | None:
        """Refuse a broken configuration, unless all that is wrong is a certificate file this rollout replaces."""
        ran = await self._nginx("-t")
        if ran.code == 0:
            return None
        fault = commands.fault_in(ran.err)
        if fault.certificate_file is not None and fault.certificate_file in {c.path for c in plan.changes}:
            return fault.message
        raise commands.broken(fault, "Nothing was changed.")

    @contextlib.asynccontextmanager
    async def _held(self, plan: Plan) -> AsyncIterator[None]:
        with self._lock.held(plan.rollout_id):
            yield

    async def _open(self, plan: Plan) -> tuple[RolloutDirectory, Journal]:
        directory = RolloutDirectory(self._workspace, plan.rollout_id)
        journal = await asyncio.to_thread(directory.journal)
        if journal is None:
            raise Refused(
                "not_staged", f"Rollout {plan.rollout_id} was not staged on this machine.",
                fix="Start the deployment again.",
            )  # fmt: skip
        return directory, journal

    async def _version(self) -> str:
        ran = await self._program("-v")
        lines = shown(ran.err or ran.out).strip().splitlines()
        return lines[0].removeprefix("nginx version: ")[:100] if lines else "nginx"

    async def _check_trust(self) -> None:
        await asyncio.to_thread(commands.check_program, self._options.nginx)
        await asyncio.to_thread(_check_configuration, self._options.config)

    async def _program(self, *arguments: str, cwd: Path | None = None) -> commands.Ran:
        """Run the program, after looking again at what it is."""
        program = await asyncio.to_thread(commands.check_program, self._options.nginx)
        return await commands.run([program, *arguments], seconds=self._options.command_seconds, cwd=cwd)

    async def _nginx(self, *arguments: str) -> commands.Ran:
        """Run it with the target's configuration, after looking again at what that is."""
        await asyncio.to_thread(_check_configuration, self._options.config)
        prefix = ("-p", self._options.prefix) if self._options.prefix else ()
        return await self._program(*prefix, "-c", self._options.config, *arguments)

    async def _reload(self) -> None:
        if self._options.reload is None:
            ran = await self._nginx("-s", "reload")
        else:
            ran = await commands.run(self._options.reload, seconds=self._options.command_seconds)
        if ran.code == 0:
            return
        message = commands.fault_in(ran.err).message
        if "pid" in message.lower() or "No such process" in message:
            raise Unavailable(
                "nginx_not_running",
                f"nginx could not be reloaded because it doesn't run: {message}.",
                fix="Start nginx, then deploy again.",
            )
        raise Unavailable(
            "reload_failed", f"nginx could not be reloaded: {message}.",
            fix="Run the reload command by hand to see what stops it.",
        )  # fmt: skip


def _wrong_order(plan: Plan, journal: Journal) -> Problem:
    return Refused(
        "rollout_out_of_order",
        f"Rollout {plan.rollout_id} is {journal.phase} on this machine, so this step can't be done.",
        fix="Undo it and start again.",
    )


def _read_if_possible(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError):  # ValueError: a NUL in a path
        return None


def _check_configuration(path: str) -> None:
    """Refuse a file that is no nginx configuration, before nginx reads it: its complaints quote what it reads.

    Whoever may create a target could otherwise read the first words of any file that our user can read.
    """
    commands.check_configuration_file(path)
    try:
        with Path(path).open("rb") as file:
            text = file.read(_LARGEST_MAIN_FILE).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise Refused(
            "permission_denied", f"Certwright may not read {path}.", field="config.config",
            fix="Run Certwright as the user that may read the configuration.",
        ) from error  # fmt: skip
    if is_main(parse(text, path)) or is_main(_directives(path)):
        return
    raise Refused(
        "not_nginx_configuration",
        f"{path} is not the main configuration file of an nginx: it has no events block.",
        field="config.config",
        fix="Enter the path of nginx's main file, often /etc/nginx/nginx.conf.",
    )


def _directives(main: str) -> tuple[Directive, ...]:
    """Of the main file as it is on the disk, includes followed."""
    return expand(_read_configuration(main), main)


def _read_configuration(main: str) -> dict[str, str]:
    """The main file and everything it includes, read by ourselves."""
    files: dict[str, str] = {}
    waiting = [main]
    while waiting:
        path = waiting.pop(0)
        content = _read_if_possible(path)
        if path in files or content is None:
            continue
        text = content.decode("utf-8", "surrogateescape")
        files[path] = text
        stack = list(parse(text, path))
        while stack:
            directive = stack.pop(0)
            stack += directive.block or ()
            if directive.name == "include" and len(directive.words) == 2:
                waiting += _on_disk(directive.words[1], dirname(main))
    return files


def _on_disk(pattern: str, folder: str) -> list[str]:
    if "\0" in pattern:
        return []
    base = Path(pattern) if pattern.startswith("/") else Path(folder) / pattern
    names = {str(path): None for path in Path("/").glob(str(base).lstrip("/"))}
    return included(pattern, folder, names)


Chosen = tuple[Deployment, Site, Slot]


def _choose(discovery: Discovery, deployments: Sequence[Deployment]) -> tuple[Chosen, ...]:
    sites = {site.key: site for site in discovery.sites}
    chosen = []
    for deployment in deployments:
        site = sites.get(deployment.site_key)
        if site is None:
            raise Refused(
                "site_missing", "nginx's configuration no longer has one of the chosen sites.",
                fix="Discover the target's sites again and bind the certificate anew.",
                extra={"site": deployment.site_key},
            )  # fmt: skip
        if not site.managed:
            raise Refused(
                "site_not_managed",
                f"The site at {site.source} can't be changed: {site.unmanaged_reason}",
                fix="Choose another site, or change its configuration to plain file names.",
                extra={"reason": site.unmanaged_code},
            )
        chosen.append((deployment, site, _slot_for(site, deployment)))
    return tuple(chosen)


def _slot_for(site: Site, deployment: Deployment) -> Slot:
    slots = [slot for slot in site.slots if slot.managed]
    if len(site.slots) == 1:
        return slots[0]
    # Several certificates of a site differ by key type; a new one must never push out one of another type.
    fitting = [s for s in slots if s.installed is not None and s.installed.key_kind is deployment.key_kind]
    unreadable = [s for s in slots if s.installed is None]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting and len(unreadable) == 1:
        return unreadable[0]
    raise Refused(
        "no_slot_for_key_type",
        f"The site at {site.source} has {len(site.slots)} certificates, and it isn't clear which one an "
        f"{deployment.key_kind.upper()} certificate should replace.",
        fix="Issue a certificate whose key type is that of exactly one of the site's certificates.",
    )


def _changes(discovery: Discovery, chosen: Sequence[Chosen]) -> tuple[Change, ...]:
    changes: dict[str, Change] = {}
    for deployment, _, slot in chosen:
        passphrase = slot.passphrase_path if slot.passphrase_path and _is_encrypted(slot.key_path) else None
        wanted: list[tuple[str, Role, str | None]] = []
        if slot.certificate_path == slot.key_path:
            wanted.append((slot.key_path, Role.COMBINED, passphrase))
        else:
            wanted.append((slot.key_path, Role.KEY, passphrase))
            wanted.append((slot.certificate_path, Role.CERTIFICATE, None))
        if passphrase:
            wanted.insert(0, (passphrase, Role.PASSPHRASE, None))
        for path, role, phrase in wanted:
            known = changes.get(path)
            if known is None:
                check_place(path)
                shared = role is Role.PASSPHRASE and _others_use(discovery, path, chosen)
                changes[path] = Change(
                    path, role, deployment.version_id, exists=os.path.lexists(path), passphrase_path=phrase,
                    shared=shared,
                )  # fmt: skip
            elif role is not Role.PASSPHRASE and known.version_id != deployment.version_id:
                raise Refused(
                    "conflicting_deployments",
                    f"Two of the chosen sites share the file {path} but should get different certificates.",
                    fix="Deploy one certificate to both, or give each site files of its own.",
                )
    _refuse_half_shared(discovery, changes)
    return tuple(changes.values())


def _is_encrypted(key_path: str) -> bool:
    content = _read_if_possible(key_path)
    return content is None or b"ENCRYPTED" in content


def _others_use(discovery: Discovery, passphrase_path: str, chosen: Sequence[Chosen]) -> bool:
    keys = {slot.key_path for _, _, slot in chosen}
    return any(
        slot.passphrase_path == passphrase_path and slot.key_path not in keys
        for site in discovery.sites
        for slot in site.slots
    )


def _refuse_half_shared(discovery: Discovery, changes: Mapping[str, Change]) -> None:
    """A site that uses the same certificate with another key file (or the reverse) would be torn apart."""
    for site in discovery.sites:
        for slot in site.slots:
            if (slot.certificate_path in changes) != (slot.key_path in changes):
                shared = slot.certificate_path if slot.certificate_path in changes else slot.key_path
                raise Refused(
                    "shared_certificate",
                    f"The site at {site.source} uses {shared} too, but with another "
                    f"{'key' if shared == slot.certificate_path else 'certificate'}; replacing it would break it.",
                    fix="Give that site a certificate and a key file of its own.",
                )


def _affected(discovery: Discovery, changes: Sequence[Change]) -> tuple[Site, ...]:
    paths = {change.path for change in changes}
    return tuple(site for site in discovery.sites if any({s.certificate_path, s.key_path} & paths for s in site.slots))


def _cautions(affected: Sequence[Site], chosen: Sequence[Chosen], changes: Sequence[Change]) -> tuple[Caution, ...]:
    out = []
    picked = {site.key for _, site, _ in chosen}
    for site in affected:
        if site.key not in picked:
            out.append(
                Caution(
                    "also_changes", f"The site at {site.source} uses the same files and changes with it.", site.names
                )
            )
        if not site.addresses:
            out.append(
                Caution(
                    "not_verifiable",
                    f"The site at {site.source} has no name or address of its own, so what it serves can't be seen "
                    "from outside.",
                    site.names,
                )
            )
    for deployment, site, slot in chosen:
        was = slot.installed.key_kind if slot.installed else None
        if was is not None and was is not deployment.key_kind:
            out.append(
                Caution(
                    "key_type_changes",
                    f"The key of the site at {site.source} changes from {was.upper()} to "
                    f"{deployment.key_kind.upper()}: very old clients may not support it.",
                    site.names,
                )
            )
    for change in changes:
        if Path(change.path).is_symlink():
            out.append(
                Caution(
                    "link_replaced",
                    f"{change.path} is a link; it becomes a file of its own and what it points to stays untouched. A "
                    "program that renews through this link stops doing so.",
                )
            )
        elif change.role in (Role.KEY, Role.COMBINED) and _is_open(change.path):
            out.append(
                Caution(
                    "key_closed",
                    f"{change.path} can be read by other users now; the new key is readable by its owner only.",
                )
            )
    return tuple(out)


def _is_open(path: str) -> bool:
    try:
        return bool(Path(path).stat().st_mode & 0o077)
    except OSError:
        return False


def _expectations(site: Site, by_certificate: Mapping[str, Deployment]) -> list[Expectation]:
    after = []
    for slot in site.slots:
        deployment = by_certificate.get(slot.certificate_path)
        after.append((deployment, deployment.sha256 if deployment else slot.installed.sha256 if slot.installed else ""))
    out = []
    for deployment, sha256 in after:
        if deployment is not None:
            others = tuple(other for _, other in after if other and other != sha256)
            out += [
                Expectation(site.key, address, deployment.key_kind, sha256, None, others) for address in site.addresses
            ]
    return out


@dataclass(frozen=True, slots=True)
class Seen:
    """What an address served: a fingerprint, or why there is none. `exact`: the client took only one kind of key."""

    sha256: str | None
    why_not: str = ""
    silent: bool = False
    exact: bool = False

    @property
    def text(self) -> str:
        return f"serves {self.sha256[:16]}…" if self.sha256 else self.why_not


async def _look(expectation: Expectation, gate: asyncio.Semaphore) -> Seen:
    async with gate:
        try:
            if expectation.alternatives and expectation.key_kind is not KeyKind.EDWARDS:
                with contextlib.suppress(NoHandshake):
                    der = await served_certificate(expectation.address, expectation.key_kind)
                    return Seen(fingerprint(der), exact=True)
            return Seen(fingerprint(await served_certificate(expectation.address)))
        except NoHandshake:
            return Seen(None, "answers, but not with TLS")
        except NothingAnswers:
            return Seen(None, "doesn't answer", silent=True)


async def _look_at_all(expectations: Iterable[Expectation]) -> list[Seen]:
    gate = asyncio.Semaphore(_HANDSHAKES_AT_ONCE)
    return await asyncio.gather(*(_look(expectation, gate) for expectation in expectations))


def _contents(plan: Plan, materials: Mapping[str, Material]) -> dict[str, bytes]:
    """What goes into each file. Passphrases are made here and live nowhere but in their file."""
    phrases = {c.path: secrets.token_urlsafe(32).encode() for c in plan.changes if c.role is Role.PASSPHRASE}
    out = {}
    for change in plan.changes:
        if change.role is Role.PASSPHRASE:
            out[change.path] = phrases[change.path] + b"\n"
            continue
        material = materials[change.version_id]
        leaf = x509.load_der_x509_certificate(material.leaf_der)
        if _spki(leaf.public_key()) != _spki(material.private_key.public_key()):
            raise Refused(
                "key_mismatch",
                "The private key doesn't belong to the certificate.",
                fix="Deploy a version whose key is the one it was issued for.",
            )
        chain = b"".join(
            x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
            for der in (material.leaf_der, *material.chain_ders)
        )
        protection: KeySerializationEncryption = NoEncryption()
        if change.passphrase_path is not None:
            # PKCS #8 with AES-256-CBC, which every OpenSSL that nginx is built with reads.
            protection = BestAvailableEncryption(phrases[change.passphrase_path])
        key = material.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)
        out[change.path] = {Role.CERTIFICATE: chain, Role.KEY: key, Role.COMBINED: chain + key}[change.role]
    return out


def _spki(public_key: PublicKeyTypes) -> bytes:
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _record(change: Change, old_content: bytes | None, content: bytes) -> Kept:
    """What there is to put back, and what tells our file from somebody else's."""
    old = state_of(change.path)
    try:
        status = Path(change.path).stat()
    except FileNotFoundError:
        mode, uid, gid = 0o600, os.geteuid(), os.getegid()
    else:
        mode, uid, gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    found = installed_in(old_content) if change.role in (Role.CERTIFICATE, Role.COMBINED) else None
    return Kept(
        path=change.path,
        old=old,
        new=hashlib.sha256(content).hexdigest(),
        mode=mode,
        uid=uid,
        gid=gid,
        link=str(Path(change.path).readlink()) if old.startswith("link:") else None,
        old_leaf=found.sha256 if found else None,
    )


def _swap_all(directory: RolloutDirectory, journal: Journal) -> Journal:
    if journal.phase is Phase.STAGED:
        journal = directory.write(with_phase(journal, Phase.ACTIVATING))
    for index, kept in enumerate(journal.files):
        now = state_of(kept.path)
        if now == kept.new:
            continue  # done before a crash
        if now != kept.old:
            _restore_all(directory, journal)
            raise Refused(
                "changed_by_someone_else",
                f"{kept.path} was changed by somebody else since it was backed up; the rollout stopped.",
                fix="Find out which other program manages this file, then deploy again.",
                extra={"file": kept.path},
            )
        swap_in(staged_path(journal.rollout_id, index, kept.path), kept.path)
    return journal


def _restore_all(directory: RolloutDirectory, journal: Journal) -> tuple[str, ...]:
    said = [restore(k, index, directory, journal.rollout_id) for index, k in enumerate(journal.files)]
    return tuple(sentence for sentence in said if sentence)


def _remove_staged(plan: Plan) -> None:
    for index, change in enumerate(plan.changes):
        remove(staged_path(plan.rollout_id, index, change.path))


_TEMPORARY = {"proxy": "http_proxy", "fastcgi": "http_fastcgi", "uwsgi": "http_uwsgi", "scgi": "http_scgi"}


def _write_trial(trial: Path, plan: Plan, build: str) -> None:
    """A private configuration that loads every staged pair and nothing else.

    Its temporary paths are its own: run as root, nginx gives those to its default user, and the live ones must not
    change hands. It listens on a socket inside the trial directory, so no port is touched.
    """
    staged = {c.path: str(staged_path(plan.rollout_id, i, c.path)) for i, c in enumerate(plan.changes)}
    certificates = {c.version_id: staged[c.path] for c in plan.changes if c.role in (Role.CERTIFICATE, Role.COMBINED)}
    servers = ""
    for change in plan.changes:
        if change.role in (Role.KEY, Role.COMBINED):
            servers += (
                "server { listen unix:trial.sock ssl; server_name " + f"n{len(servers)};"
                f" ssl_certificate {_quoted(certificates[change.version_id])};"
                f" ssl_certificate_key {_quoted(staged[change.path])};"
                + (f" ssl_password_file {_quoted(staged[change.passphrase_path])};" if change.passphrase_path else "")
                + " }\n"
            )
    temporary = "client_body_temp_path t;\n" + "".join(
        f"{name}_temp_path t;\n" for name, module in _TEMPORARY.items() if f"--without-{module}_module" not in build
    )
    text = f"pid trial.pid; error_log stderr; events {{ }}\nhttp {{ access_log off;\n{temporary}{servers}}}\n"
    try:
        shutil.rmtree(trial, ignore_errors=True)
        trial.mkdir(mode=0o700)
    except OSError as error:
        raise problem_of(error, trial, "made") from error
    write_file(trial / "nginx.conf", text.encode("utf-8", "surrogateescape"), 0o600)


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
