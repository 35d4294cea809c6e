"""The renewal room: nobody has to remember a certificate."""

from certwright.platform.services import Services
from certwright.rooms.renewal.actions import (
    STEP,
    attempt_over,
    auto_renew_set,
    due_soon,
    renew_step,
    version_issued,
)
from certwright.rooms.renewal.tables import renewals

__all__ = ["due_soon", "register"]


def register(services: Services) -> None:
    services.jobs.register(STEP, renewals, renew_step)
    services.events.subscribe("certificate.version_issued", "renewal", version_issued)
    services.events.subscribe("certificate.auto_renew_set", "renewal", auto_renew_set)
    services.events.subscribe("certificate.application_failed", "renewal", attempt_over)
    services.events.subscribe("certificate.application_withdrawn", "renewal", attempt_over)
