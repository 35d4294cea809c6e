"""The uploads room: certificates that were issued elsewhere, and the workshop's tools for people at a server."""

from certwright.platform.services import Services
from certwright.rooms.uploads import tools
from certwright.rooms.uploads.actions import (
    check,
    get_policy,
    moved,
    quotas,
    records,
    replace,
    set_policy,
    upload,
)
from certwright.rooms.uploads.outside import Fetches
from certwright.rooms.uploads.words import (
    ChainLink,
    Finding,
    Given,
    Judgement,
    Place,
    Purpose,
    Quota,
    Record,
    Reference,
    Repaired,
    Severity,
    Source,
    Uploaded,
    UploadPolicy,
    UploadRefused,
    Wishes,
)

__all__ = [
    "ChainLink",
    "Fetches",
    "Finding",
    "Given",
    "Judgement",
    "Place",
    "Purpose",
    "Quota",
    "Record",
    "Reference",
    "Repaired",
    "Severity",
    "Source",
    "UploadPolicy",
    "UploadRefused",
    "Uploaded",
    "Wishes",
    "check",
    "get_policy",
    "quotas",
    "records",
    "register",
    "replace",
    "set_policy",
    "tools",
    "upload",
]


def register(services: Services) -> None:
    services.events.subscribe("certificate.moved", "uploads", moved)
