"""The organisations room: who stands behind a certificate, verified by people, reused as long as that is allowed."""

from __future__ import annotations

from certwright.platform.services import Services
from certwright.rooms.organisations import rules
from certwright.rooms.organisations.actions import (
    add_organisation,
    delete_organisation,
    get_organisation,
    list_organisations,
    organisation_for,
    update_organisation,
    why_not_verifiable,
)
from certwright.rooms.organisations.cases import (
    cancel,
    choose,
    choose_by_link,
    forget_person,
    get_vetting,
    list_vettings,
    look_link,
    move,
    require,
    state,
)
from certwright.rooms.organisations.desk import (
    Backlog,
    approve,
    ask,
    backlog,
    claim,
    get_case,
    give_back,
    list_cases,
    record_check,
    refuse,
    release,
)
from certwright.rooms.organisations.documents import (
    attach_document,
    document_context,
    download,
    download_sent,
    send_document,
)
from certwright.rooms.organisations.jobs import CASE_STEP, case_step
from certwright.rooms.organisations.ports import Letter, Mail, Occasion, ReuseRules
from certwright.rooms.organisations.tables import organisation_cases, organisation_documents
from certwright.rooms.organisations.words import (
    REFUSED,
    VERIFIED,
    Applicant,
    Case,
    CaseState,
    CertificateType,
    Contact,
    Document,
    DocumentContent,
    Facts,
    Item,
    Kind,
    Level,
    Link,
    Operation,
    Organisation,
    Outcome,
    State,
    Turn,
    Vetting,
    Way,
)

__all__ = [
    "REFUSED",
    "VERIFIED",
    "Applicant",
    "Backlog",
    "Case",
    "CaseState",
    "CertificateType",
    "Contact",
    "Document",
    "DocumentContent",
    "Facts",
    "Item",
    "Kind",
    "Letter",
    "Level",
    "Link",
    "Mail",
    "Occasion",
    "Operation",
    "Organisation",
    "Outcome",
    "ReuseRules",
    "State",
    "Turn",
    "Vetting",
    "Way",
    "add_organisation",
    "approve",
    "ask",
    "attach_document",
    "backlog",
    "cancel",
    "choose",
    "choose_by_link",
    "claim",
    "delete_organisation",
    "download",
    "download_sent",
    "forget_person",
    "get_case",
    "get_organisation",
    "get_vetting",
    "give_back",
    "list_cases",
    "list_organisations",
    "list_vettings",
    "look_link",
    "move",
    "organisation_for",
    "record_check",
    "refuse",
    "register",
    "release",
    "require",
    "rules",
    "send_document",
    "state",
    "update_organisation",
    "why_not_verifiable",
]


def register(services: Services) -> None:
    """Called once per process by the entry."""
    services.jobs.register(CASE_STEP, organisation_cases, case_step)
    services.vault.register(organisation_documents.c.sealed_key, document_context)
