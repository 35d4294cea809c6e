"""The csrs room: signing requests kept on their own, with or without their private key."""

from certwright.platform.services import Services
from certwright.rooms.csrs.actions import (
    CsrFormat,
    delete_csr,
    export_csr,
    export_key,
    generate,
    get_csr,
    lend_key,
    list_csrs,
    take,
    update_csr,
    upload,
)
from certwright.rooms.csrs.ports import Users
from certwright.rooms.csrs.rules import judge_key_algorithm, judge_names, judge_subject
from certwright.rooms.csrs.words import Csr, Download, Origin, Taken, UsedBy
from certwright.x509.csr import Subject

__all__ = [
    "Csr",
    "CsrFormat",
    "Download",
    "Origin",
    "Subject",
    "Taken",
    "UsedBy",
    "Users",
    "delete_csr",
    "export_csr",
    "export_key",
    "generate",
    "get_csr",
    "judge_key_algorithm",
    "judge_names",
    "judge_subject",
    "lend_key",
    "list_csrs",
    "register",
    "take",
    "update_csr",
    "upload",
]


def register(services: Services) -> None:
    """Nothing of this room runs by itself."""
