"""What a process denied itself it really can't have; tried by processes of their own, for there is no way back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from certwright.platform import confinement

pytestmark = pytest.mark.skipif(not confinement.can_forbid(), reason="this kernel has no Landlock")


def confined(paths: list[Path], code: str, *, before: str = "") -> dict[str, str]:
    """What becomes of each line of `code` in a process that denied itself `paths`."""
    tries = [line.strip() for line in code.splitlines() if line.strip()]
    program = textwrap.dedent(
        f"""
        import json, os, subprocess, sys, threading
        from pathlib import Path
        from certwright.platform import confinement
        {before}
        assert confinement.forbid([Path(path) for path in {[str(path) for path in paths]!r}])
        found = {{}}
        for line in {tries!r}:
            try:
                found[line] = repr(eval(line))
            except Exception as error:
                found[line] = type(error).__name__
        print(json.dumps(found))
        """
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, str] = json.loads(ran.stdout)
    return found


def test_what_is_forbidden_is_out_of_reach_and_its_neighbours_are_not(tmp_path: Path) -> None:
    secret, open_, below = tmp_path / "secret", tmp_path / "open", tmp_path / "secret" / "deep"
    below.mkdir(parents=True)
    open_.mkdir()
    for place in (secret, open_, below):
        (place / "file").write_text("x")
    (tmp_path / "link").symlink_to(secret / "file")
    (tmp_path / "known").write_text("x")
    refused = f"""
        open({str(secret / "file")!r}).read()
        open({str(below / "file")!r}).read()
        open({str(tmp_path / "link")!r}).read()
        open({str(secret / "file")!r}, 'w').write('y')
        open({str(secret / "new")!r}, 'w').write('y')
        os.truncate({str(secret / "file")!r}, 0)
        os.remove({str(secret / "file")!r})
        os.rename({str(secret)!r}, {str(open_ / "moved")!r})
        os.rename({str(secret / "file")!r}, {str(open_ / "moved")!r})
        os.link({str(secret / "file")!r}, {str(open_ / "linked")!r})
        os.rename({str(open_ / "file")!r}, {str(secret / "file")!r})
        subprocess.check_output(['cat', {str(secret / "file")!r}], stderr=subprocess.DEVNULL)
        open({str(tmp_path / "new")!r}, 'w').write('y')
        open('/proc/self/root{secret}/file').read()
        open('/proc/{os.getpid()}/mem', 'rb').read(1)
        open('/proc/{os.getpid()}/environ', 'rb').read(1)
        """
    allowed = f"""
        open({str(tmp_path / "known")!r}).read()
        open({str(tmp_path / "known")!r}, 'w').write('z')
        open({str(open_ / "new")!r}, 'w').write('z')
        os.replace({str(open_ / "new")!r}, {str(open_ / "file")!r})
        open({str(open_ / "file")!r}).read()
        os.mkdir({str(open_ / "folder")!r})
        open('/etc/passwd').readline()[:0]
        open('/dev/null', 'w').write('z')
        subprocess.check_output(['true'])
        threading.Thread(target=print, args=('', ), kwargs={{'end': ''}}).start()
        """
    # One file more below a forbidden directory must not open the directory.
    found = confined([secret, secret / "file"], refused + allowed)
    lines = [line.strip() for line in refused.splitlines() if line.strip()]
    assert {line: found[line] for line in lines if not found[line].endswith("Error")} == {}
    others = {line: what for line, what in found.items() if line not in lines}
    assert {line: what for line, what in others.items() if what.endswith("Error")} == {}
    assert (secret / "file").read_text() == (below / "file").read_text() == "x"


def test_a_second_thread_would_go_on_unconfined_and_is_refused(tmp_path: Path) -> None:
    before = "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    program = "import threading, time\nfrom pathlib import Path\nfrom certwright.platform import confinement\n"
    program += f"{before}\nconfinement.forbid([Path({str(tmp_path)!r})])"
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) as ran:
        # The thread lasts until the process is gone.
        assert ran.stderr is not None
        said = ran.stderr.read()
    assert b"other threads" in said


def test_the_memory_of_a_process_that_hides_it_is_nobody_elses() -> None:
    program = (
        "import os, sys\nfrom certwright.platform import confinement\nassert confinement.hide_memory()\n"
        "print(os.stat('/proc/self/mem').st_uid, flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stdout.readline() == b"0\n", "its files in /proc are root's"
        dumpable = Path(f"/proc/{running.pid}/status").read_text()
        running.communicate()
    assert "CoreDumping" in dumpable
