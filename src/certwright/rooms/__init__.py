"""One folder per capability; each room's `__init__` is its door and everything else in it is private."""
