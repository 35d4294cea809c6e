"""The keys room: private keys of certificates, sealed, opened only with a reason that is audited."""

from certwright.rooms.keys.actions import (
    NewKey,
    copy_key,
    erase,
    move,
    new_key,
    open_key,
    register,
    store_key,
    store_keys,
)

__all__ = ["NewKey", "copy_key", "erase", "move", "new_key", "open_key", "register", "store_key", "store_keys"]
