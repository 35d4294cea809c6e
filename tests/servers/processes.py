"""Twin of `platform.processes.Processes` that works in this process, by pickle all the same.

Starting processes for each test takes a second. That the real ones do it: tests/platform/test_processes.py, and one
test of tests/uploads.
"""

from __future__ import annotations

import pickle
from typing import Any


class Here:
    async def run(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        work, args, kwargs = pickle.loads(pickle.dumps((function, args, kwargs)))
        return pickle.loads(pickle.dumps(work(*args, **kwargs)))

    async def close(self) -> None:
        pass
