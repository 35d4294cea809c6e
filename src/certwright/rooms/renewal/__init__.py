"""The renewal room: nobody has to remember a certificate."""

from certwright.platform.services import Services
from certwright.rooms.renewal import campaigns, jobs
from certwright.rooms.renewal.actions import (
    add_freeze,
    add_window,
    delete_freeze,
    delete_window,
    due_soon,
    expected,
    get_freeze,
    get_renewal,
    get_window,
    list_freezes,
    list_limits,
    list_renewals,
    list_windows,
    set_limit,
    update_freeze,
    update_window,
)
from certwright.rooms.renewal.ports import Serving
from certwright.rooms.renewal.readiness import list_readiness, summarize
from certwright.rooms.renewal.tables import campaign_items, renewal_queues, renewals
from certwright.rooms.renewal.tables import campaigns as campaigns_table
from certwright.rooms.renewal.words import (
    Allowed,
    Campaign,
    CampaignItem,
    CampaignReason,
    CampaignState,
    Criteria,
    Expected,
    Freeze,
    FreezeView,
    ItemState,
    LimitView,
    Preview,
    Priority,
    Proof,
    ReadinessLine,
    ReadinessSummary,
    RenewalView,
    Renewer,
    Survival,
    Window,
    WindowView,
)

__all__ = [
    "Allowed",
    "Campaign",
    "CampaignItem",
    "CampaignReason",
    "CampaignState",
    "Criteria",
    "Expected",
    "Freeze",
    "FreezeView",
    "ItemState",
    "LimitView",
    "Preview",
    "Priority",
    "Proof",
    "ReadinessLine",
    "ReadinessSummary",
    "RenewalView",
    "Renewer",
    "Serving",
    "Survival",
    "Window",
    "WindowView",
    "add_freeze",
    "add_window",
    "campaigns",
    "delete_freeze",
    "delete_window",
    "due_soon",
    "expected",
    "get_freeze",
    "get_renewal",
    "get_window",
    "list_freezes",
    "list_limits",
    "list_readiness",
    "list_renewals",
    "list_windows",
    "register",
    "set_limit",
    "summarize",
    "update_freeze",
    "update_window",
]


def register(services: Services) -> None:
    services.jobs.register(jobs.STEP, renewals, jobs.renew_step)
    services.jobs.register(jobs.ADMIT, renewal_queues, jobs.admit_step)
    services.jobs.register(campaigns.STEP, campaigns_table, campaigns.campaign_step)
    services.jobs.register(campaigns.ITEM_STEP, campaign_items, campaigns.replace_step)
    events = services.events
    events.subscribe_batch("certificate.version_issued", "renewal", jobs.version_issued)
    events.subscribe_batch("certificate.version_issued", "renewal.campaigns", campaigns.version_issued)
    events.subscribe("certificate.auto_renew_set", "renewal", jobs.auto_renew_set)
    events.subscribe("certificate.moved", "renewal", jobs.moved)
    events.subscribe("certificate.moved", "renewal.campaigns", campaigns.moved)
    for ended in ("certificate.application_failed", "certificate.application_withdrawn"):
        events.subscribe(ended, "renewal", jobs.attempt_over)
        events.subscribe(ended, "renewal.campaigns", campaigns.attempt_over)
