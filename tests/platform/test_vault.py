"""Envelope encryption: what opens, what doesn't, and what survives a rotation."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.kernel.problems import Unavailable
from certwright.platform.vault import FileKeyKeeper, Vault


@pytest.fixture
def keeper(tmp_path: Path) -> FileKeyKeeper:
    return FileKeyKeeper(tmp_path / "keys" / "keyring.json")


def test_the_keyring_is_readable_by_its_owner_only(keeper: FileKeyKeeper, tmp_path: Path) -> None:
    keeper.active()
    assert (tmp_path / "keys" / "keyring.json").stat().st_mode & 0o777 == 0o600


def test_a_keyring_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    FileKeyKeeper(path).active()
    path.chmod(0o644)
    with pytest.raises(Unavailable, match="can be read by other users") as caught:
        FileKeyKeeper(path)
    assert caught.value.code == "keyring_permissions"


def test_a_keyring_is_made_when_it_is_needed_and_not_again_when_it_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "keyring.json"
    keeper = FileKeyKeeper(path)
    assert not keeper.knows("0" * 8)
    assert not path.exists()
    keeper.active()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        keeper.active()
    assert not path.exists()


def test_a_secret_opens_in_its_own_context_only(keeper: FileKeyKeeper) -> None:
    vault = Vault(keeper)
    sealed = vault.seal(b"secret", "private_keys:key_1")
    assert vault.open(sealed, "private_keys:key_1") == b"secret"
    with pytest.raises(Unavailable) as caught:
        vault.open(sealed, "private_keys:key_2")
    assert caught.value.code == "secret_unreadable"


def test_the_sealed_value_does_not_hold_the_secret(keeper: FileKeyKeeper) -> None:
    assert b"secret" not in Vault(keeper).seal(b"secret", "c")


def test_any_changed_octet_keeps_it_from_opening(keeper: FileKeyKeeper) -> None:
    vault = Vault(keeper)
    sealed = vault.seal(b"secret", "c")
    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 1
        with pytest.raises(Unavailable):
            vault.open(bytes(changed), "c")


@given(st.binary(max_size=200))
def test_arbitrary_octets_never_open(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.raises(Unavailable):
        Vault(FileKeyKeeper(Path(directory) / "k.json")).open(b"CW1" + data, "c")


def test_what_was_sealed_before_a_rotation_still_opens_and_new_secrets_use_the_new_key(keeper: FileKeyKeeper) -> None:
    vault = Vault(keeper)
    old = vault.seal(b"old", "c")
    first = keeper.active()
    second = keeper.rotate()
    assert second != first
    assert vault.open(old, "c") == b"old"
    assert vault.seal(b"new", "c")[3:11].decode() == second


def test_another_process_sees_the_rotation(keeper: FileKeyKeeper, tmp_path: Path) -> None:
    other = FileKeyKeeper(tmp_path / "keys" / "keyring.json")
    sealed_there = Vault(other).seal(b"x", "c")
    keeper.rotate()
    assert Vault(other).keeper.active() == keeper.active()
    assert Vault(keeper).open(sealed_there, "c") == b"x"


def test_a_forgotten_key_makes_its_secrets_unreadable_for_good(keeper: FileKeyKeeper) -> None:
    vault = Vault(keeper)
    sealed = vault.seal(b"old", "c")
    keeper.forget(keep=keeper.rotate())
    with pytest.raises(Unavailable) as caught:
        vault.open(sealed, "c")
    assert caught.value.code == "keyring_key_missing"


def test_processes_starting_together_make_one_first_key(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    pids = []
    for _ in range(6):
        pid = os.fork()
        if pid == 0:
            FileKeyKeeper(path).active()
            os._exit(0)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 6
    assert len(json.loads(path.read_text())["keys"]) == 1
