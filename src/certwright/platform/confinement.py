"""What a process of ours denies itself, so that whoever takes it over can't have it either.

`forbid` keeps this process and all it starts from reading and changing what lies below some paths, by Landlock, which
needs no privilege and binds root too. `hide_memory` keeps other processes of the same user from reading this one's
memory. Both are for Linux; elsewhere, and on kernels without Landlock, they say that they did nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

# The same numbers on every architecture Linux got Landlock on (5.13); the constants are those of linux/landlock.h.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE = 1 << 1, 1 << 2
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))
_REFER = 1 << 13  # from version 2: renames and links between directories
_TRUNCATE = 1 << 14  # from version 3
_SCOPE_SIGNAL = 1 << 1  # from version 6
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 24, 38
# What root could look around Landlock with, by its number in linux/capability.h: reading files by handle, modules, raw
# memory and disks, other processes, mounts, the boot, devices, the kernel log, tracing.
_WAYS_AROUND = (2, 16, 17, 19, 21, 22, 27, 34, 38, 39, 40)
_CAPABILITY_VERSION = 0x20080522


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Whose(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    """Two of these: the lower and the upper 32."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def hide_memory() -> bool:
    """No process but root's with CAP_SYS_PTRACE reads this one's memory from now on, and no core is dumped of it."""
    if not sys.platform.startswith("linux"):
        return False
    return int(_libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)) == 0


def can_forbid() -> bool:
    """Whether this kernel has Landlock, and it is in use."""
    return _version() > 0


def forbid(paths: Sequence[Path], *, signals: bool = False) -> bool:
    """Never again read, write, make or remove anything below `paths`; with `signals`, nor signal processes outside.

    Call it before threads are started (RuntimeError): it holds for this thread and what comes of it. In the directories
    above the paths nothing new can be made any more either, and what others make directly in them later can't be read.
    False where the kernel has no Landlock. Programs started from here can't gain privileges (sudo), unless we are root;
    root gives up what leads around it, and with it all disks are barred.
    """
    version = _version()
    if version == 0:
        return False
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise RuntimeError("other threads of this process would go on without these limits")
    everything = _WRITE_FILE | _READ_FILE | _REMOVE_AND_MAKE
    everything |= (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    scoped = _SCOPE_SIGNAL if signals and version >= 6 else 0
    ruleset = _Ruleset(everything, 0, scoped)
    # Older kernels know a shorter structure.
    size = ctypes.sizeof(ruleset) if version >= 6 else ctypes.sizeof(ctypes.c_uint64)
    fd = _call(_CREATE_RULESET, ctypes.byref(ruleset), size, 0)
    try:
        disks = [path for path in Path("/dev").iterdir() if path.is_block_device() and not path.is_symlink()]
        for path, is_directory in _all_but([Path(os.path.realpath(path)) for path in [*paths, *disks]]):
            _allow(fd, path, everything if is_directory else everything & (_WRITE_FILE | _READ_FILE | _TRUNCATE))
        try:
            _call(_RESTRICT_SELF, fd, 0)
        except PermissionError:
            if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "no_new_privs can't be set") from None
            _call(_RESTRICT_SELF, fd, 0)
    finally:
        os.close(fd)
    _close_ways_around()
    return True


def _close_ways_around() -> None:
    libc = _libc()
    whose, held = _Whose(_CAPABILITY_VERSION, 0), (_Capabilities * 2)()
    if libc.capget(ctypes.byref(whose), held) != 0:
        raise OSError(ctypes.get_errno(), "the capabilities can't be read")
    if not any(part.permitted for part in held):
        return
    for number in _WAYS_AROUND:
        # Also for what is started from here, which root would have them again in. Older kernels don't know the last.
        libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
        part, bit = held[number // 32], 1 << number % 32
        for word in ("effective", "permitted", "inheritable"):
            setattr(part, word, getattr(part, word) & ~bit)
    if libc.capset(ctypes.byref(whose), held) != 0:
        raise OSError(ctypes.get_errno(), "the capabilities can't be given up")


def _all_but(forbidden: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """What is there besides `forbidden` and the directories above it: each with whether it is a directory."""
    # What lies below another one is no reason to open that one's other contents.
    outermost = [path for path in forbidden if not any(parent in forbidden for parent in path.parents)]
    above = {parent for path in outermost for parent in path.parents}
    for directory in sorted(above):
        try:
            entries = list(os.scandir(directory))
        except OSError:
            continue  # not there, or not ours to look into, and so not ours to read
        for entry in entries:
            path = Path(entry.path)
            # A link leads to something that has a place of its own in this list, or is forbidden.
            if path not in above and path not in forbidden and not entry.is_symlink():
                yield path, entry.is_dir(follow_symlinks=False)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # gone meanwhile
    try:
        # Sockets and the like: a rule can't be made for them, and nothing is read from them by their path.
        if stat.S_IFMT(os.fstat(fd).st_mode) in (stat.S_IFDIR, stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO):
            _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(_PathBeneath(rights, fd)), 0)
    finally:
        os.close(fd)


def _version() -> int:
    if not sys.platform.startswith("linux"):
        return 0
    try:
        return _call(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError as error:
        # Not built in, switched off, or barred by a container's rules.
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            return 0
        raise


def _call(number: int, *arguments: object) -> int:
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    done = int(_libc().syscall(ctypes.c_long(number), *words))
    if done < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return done


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
