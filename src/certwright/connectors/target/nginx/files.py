"""The file side of a rollout: safe places, atomic swaps, sealed backups, the journal and the lock.

All of it is synchronous and short; callers run it in a thread. Every write is followed by fsync of file and directory,
and every swap is a rename inside one directory, so that after a crash a file is either wholly old or wholly new.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from certwright.kernel.problems import Problem, Refused, Unavailable
from certwright.rooms.deployment.ports import Workspace

ABSENT = "absent"


class Phase(StrEnum):
    """How far a rollout has come on this machine; written before the act it names."""

    STAGING = "staging"
    STAGED = "staged"
    ACTIVATING = "activating"
    ACTIVE = "active"
    KEPT = "kept"
    RESTORED = "restored"
    """The previous files are back; whether they are served is not seen yet."""
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class Kept:
    """What a file was before. `old`/`new` are states as `state_of` tells them; mode and owner are of the file."""

    path: str
    old: str
    new: str
    mode: int
    uid: int
    gid: int
    link: str | None
    old_leaf: str | None
    """SHA-256 of the certificate that was in the file, if it was one."""


@dataclass(frozen=True, slots=True)
class Journal:
    """The rollout's memory on this machine. Holds no secrets: digests, modes and owners only."""

    rollout_id: str
    config: str
    phase: Phase
    files: tuple[Kept, ...] = ()
    reload_started: bool = False
    fault_before: str | None = None


def problem_of(error: OSError, path: str | Path, doing: str) -> Problem:
    """The refusal for a failed file operation; disk full, permissions and the rest told apart."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refused(
            "disk_full",
            f"The disk is full: {path} could not be {doing}.",
            fix="Free space on that file system, then deploy again; nothing was changed.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Refused(
            "permission_denied",
            f"{path} could not be {doing}: {os.strerror(error.errno).lower()}.",
            fix="Let the user Certwright runs as write that directory, or run it as the user that owns the files.",
        )
    reason = os.strerror(error.errno).lower() if error.errno else "unknown error"
    return Unavailable(
        "target_file_error", f"{path} could not be {doing}: {reason}.", fix="Check the file system, then deploy again."
    )


def check_place(path: str) -> None:
    """Refuse to write where others could swap the file under us, or where there is no file to replace.

    The file may be missing or a symbolic link (the link itself is replaced, what it points to stays untouched); its
    directory must exist. Links in the directory part are followed, and every real directory must be closed to others.
    """
    fix = "Point ssl_certificate and ssl_certificate_key at files in a directory only the administrator can write."
    if not path.startswith("/") or "\0" in path:
        raise Refused("path_not_absolute", f"{path!r} is not an absolute path.", fix=fix)
    target = Path(path)
    try:
        folder = target.parent.resolve(strict=True)
        closed = folder.stat().st_mode & stat.S_IWOTH == 0
        # A sticky directory such as /tmp is good enough higher up: others can't replace what isn't theirs.
        for above in folder.parents:
            mode = above.stat().st_mode
            closed = closed and (not mode & stat.S_IWOTH or bool(mode & stat.S_ISVTX))
    except (FileNotFoundError, NotADirectoryError):
        raise Refused("directory_missing", f"The directory of {path} doesn't exist.", fix=fix) from None
    except OSError as error:
        raise problem_of(error, path, "looked at") from error
    if not closed:
        raise Refused("unsafe_directory", f"Everybody may write the directory of {path} or one above it.", fix=fix)
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise problem_of(error, path, "looked at") from error
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise Refused("not_a_regular_file", f"{path} is neither a file nor a link to one.", fix=fix)


def state_of(path: str) -> str:
    """`absent`, `link:<where>` or the SHA-256 of the content: what tells old, new and somebody else's apart."""
    try:
        if Path(path).is_symlink():
            return f"link:{Path(path).readlink()}"
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ABSENT
    except OSError as error:
        raise problem_of(error, path, "read") from error


def read_file(path: str) -> bytes | None:
    """The content, following a link; None when it isn't there."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise problem_of(error, path, "read") from error


def write_file(path: Path, content: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Write a new file durably. It is closed to others before it holds a byte; a half-written one is removed.

    Raises Refused `disk_full`, `permission_denied` or Unavailable `target_file_error`.
    """
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if owner is not None and owner != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), *owner)
                os.fchmod(file.fileno(), mode)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise problem_of(error, path, "written") from error


def swap_in(staged: Path, path: str) -> None:
    """Put a staged file in its place: atomic, durable."""
    try:
        staged.replace(path)
        sync_directory(Path(path).parent)
    except OSError as error:
        raise problem_of(error, path, "replaced") from error


def sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file of ours; content to find it gone."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise problem_of(error, path, "removed") from error


class RolloutDirectory:
    """`<workspace>/<rollout id>`: journal and sealed backups of one rollout."""

    def __init__(self, workspace: Workspace, rollout_id: str) -> None:
        if not rollout_id or "/" in rollout_id or rollout_id.startswith("."):
            raise ValueError("a rollout id is a file name")
        self._workspace = workspace
        self._id = rollout_id
        self.path = workspace.directory / rollout_id
        self._journal = self.path / "journal.json"

    def make(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise problem_of(error, self.path, "made") from error

    def journal(self) -> Journal | None:
        """None before staging began."""
        content = read_file(str(self._journal))
        if content is None:
            return None
        data: dict[str, Any] = json.loads(content)
        files = tuple(Kept(**kept) for kept in data.pop("files"))
        return Journal(**(data | {"phase": Phase(data["phase"]), "files": files}))

    def write(self, journal: Journal) -> Journal:
        """Store it durably, atomically; returns it."""
        temporary = self.path / "journal.new"
        write_file(temporary, json.dumps(asdict(journal)).encode(), 0o600)
        swap_in(temporary, str(self._journal))
        return journal

    def keep(self, index: int, content: bytes) -> None:
        """Seal what file `index` held."""
        sealed = self._workspace.sealer.seal(content, f"rollout:{self._id}:{index}")
        write_file(self.path / f"backup-{index}.sealed", sealed, 0o600)

    def kept(self, index: int) -> bytes:
        sealed = read_file(str(self.path / f"backup-{index}.sealed"))
        if sealed is None:
            raise Refused(
                "backup_missing",
                f"The backup of rollout {self._id} is gone, so it can't be undone.",
                fix="Deploy the certificate you want served instead.",
            )
        return self._workspace.sealer.open(sealed, f"rollout:{self._id}:{index}")

    def drop_backups(self) -> None:
        for backup in sorted(self.path.glob("backup-*.sealed")):
            remove(backup)


def staged_path(rollout_id: str, index: int, path: str) -> Path:
    """Where file `index` of a rollout waits: beside its destination, hidden from `include *`, found after a crash."""
    return Path(path).parent / f".certwright-{rollout_id}-{index}.new"


def restore(kept: Kept, index: int, directory: RolloutDirectory, rollout_id: str) -> str | None:
    """Put back one file. Returns a sentence when somebody else changed it meanwhile and it was left alone."""
    now = state_of(kept.path)
    if now == kept.old:
        return None
    if now != kept.new:
        return f"{kept.path} was changed by somebody else meanwhile and left as it is."
    staged = staged_path(rollout_id, index, kept.path)
    if kept.old == ABSENT:
        remove(Path(kept.path))
    elif kept.link is not None:
        remove(staged)
        try:
            staged.symlink_to(kept.link)
        except OSError as error:
            raise problem_of(error, staged, "written") from error
        swap_in(staged, kept.path)
    else:
        write_file(staged, directory.kept(index), kept.mode, (kept.uid, kept.gid))
        swap_in(staged, kept.path)
    return None


class Lock:
    """One rollout at a time for one nginx configuration, across processes and crashes.

    The file names the rollout that has reserved it, and stays reserved while that rollout is between steps; an flock
    on it guards the step itself against a second worker. A reservation whose rollout is finished, or never wrote a
    journal, is free to be taken.
    """

    def __init__(self, workspace: Workspace, config: str) -> None:
        self._workspace = workspace
        name = hashlib.sha256(os.path.realpath(config).encode()).hexdigest()[:32]
        self._path = workspace.directory / "locks" / name

    @contextlib.contextmanager
    def held(self, rollout_id: str) -> Iterator[None]:
        """Reserve for this rollout and hold during a step. Raises Unavailable `target_busy`."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = self._path.open("a+", encoding="ascii")
        except OSError as error:
            raise problem_of(error, self._path, "written") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._busy("another worker") from None
            file.seek(0)
            holder = file.read().strip()
            if holder and holder != rollout_id and not self._is_over(holder):
                raise self._busy(f"rollout {holder}")
            if holder != rollout_id:
                self._store(file, rollout_id)
            yield

    def release(self, rollout_id: str) -> None:
        """Free the reservation, if it is this rollout's; call while it is held."""
        with contextlib.suppress(FileNotFoundError), self._path.open("r+", encoding="ascii") as file:
            if file.read().strip() == rollout_id:
                self._store(file, "")

    def holder(self) -> str | None:
        try:
            return self._path.read_text(encoding="ascii").strip() or None
        except FileNotFoundError:
            return None

    def _store(self, file: Any, text: str) -> None:
        # Emptied and filled in place: a crash in between reads as "free", which is what a rollout without a journal is.
        file.seek(0)
        file.truncate()
        file.write(text)
        file.flush()
        os.fsync(file.fileno())

    def _is_over(self, rollout_id: str) -> bool:
        journal = RolloutDirectory(self._workspace, rollout_id).journal()
        return journal is None or journal.phase in (Phase.KEPT, Phase.RESTORED, Phase.UNDONE)

    def _busy(self, who: str) -> Unavailable:
        return Unavailable(
            "target_busy",
            f"This nginx is being changed by {who} at the moment.",
            fix="Wait until that rollout is finished; this one goes on by itself then.",
        )


def with_phase(journal: Journal, phase: Phase) -> Journal:
    return replace(journal, phase=phase)


def prune(workspace: Workspace, config: str, keep: int) -> None:
    """Forget the backups of all but the newest `keep` finished rollouts of this configuration (ids sort by age)."""
    finished = []
    for folder in sorted(workspace.directory.iterdir(), reverse=True):
        if folder.name == "locks" or not folder.is_dir():
            continue
        journal = RolloutDirectory(workspace, folder.name).journal()
        if journal is not None and journal.config == config and journal.phase in (Phase.KEPT, Phase.UNDONE):
            finished.append(folder)
    for folder in finished[keep:]:
        for file in sorted(folder.iterdir()):
            remove(file)
        folder.rmdir()
