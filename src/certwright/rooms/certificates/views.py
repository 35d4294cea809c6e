"""What doors show of a certificate: stored facts with the computed state, progress, badge and allowed operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import idna

from certwright.kernel.problems import Refused
from certwright.rooms.certificates import rules
from certwright.rooms.certificates.words import CertificateFacts, DomainType, Operation, Purchase, Purpose, State
from certwright.rooms.validation import ValidationState
from certwright.x509.certificates import CertificateFacts as X509Facts

_STATES = {state.value: state for state in State}


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of the list."""

    id: str
    project_id: str
    name: str
    description: str
    tags: Mapping[str, str]
    state: State
    progress: int | None
    expires_soon: bool
    ca: str
    uploaded: bool
    primary_name: str
    names: tuple[str, ...]
    key_algorithm: str | None
    sha256: str | None
    serial: str | None
    not_before: datetime | None
    not_after: datetime | None
    auto_renew: bool
    notify: bool
    created_at: datetime
    updated_at: datetime
    revision: int


@dataclass(frozen=True, slots=True)
class ApplicationView:
    id: str
    kind: str
    names: tuple[str, ...]
    unicode_names: tuple[str, ...]
    domain_type: str
    validation_method: str
    key_algorithm: str
    key_source: str
    csr_id: str | None
    key_pinned: bool
    certificate_type: str
    organisation_id: str | None
    applicant: Mapping[str, str] | None
    technical_contact: Mapping[str, str] | None
    root_hash: str
    per_name_methods: Mapping[str, str]
    consent_at: datetime | None
    consent_version: str
    submitted_at: datetime
    validated_at: datetime | None
    issued_at: datetime | None
    withdrawn_at: datetime | None
    withdrawal_refused: str | None
    """What the CA said to a withdrawal that came too late."""
    failed_at: datetime | None
    failure: Mapping[str, Any] | None
    waiting_for: Mapping[str, Any] | None
    """The last problem of the step that should move it on, while it is being retried."""


@dataclass(frozen=True, slots=True)
class VersionView:
    id: str
    number: int
    names: tuple[str, ...]
    subject: str
    issuer: str
    serial: str
    sha256: str
    sha1: str
    key_algorithm: str
    signature_algorithm: str
    has_key: bool
    not_before: datetime
    not_after: datetime
    issued_at: datetime
    superseded_at: datetime | None
    revoke_asked_at: datetime | None
    revoked_at: datetime | None
    revocation_reason: str | None
    revoked_by: str | None
    """`account`, `key` or `control`; None for those revoked before it was written down."""
    waiting_for: Mapping[str, Any] | None
    """The last problem of a revocation that is still being tried."""
    chain: tuple[str, ...]
    """Subjects from the leaf's issuer up."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was bought: the time paid for is longer than one version lives, and served by renewing it. It begins with
    the first issue; `inherited_days` come from the certificate this one renews."""

    order_id: str
    product: str
    certificate_type: str
    domain_type: str
    names: int
    wildcards: int
    years: int
    starts_at: datetime | None
    ends_at: datetime | None
    inherited_days: int
    renews_certificate_id: str | None
    renewed_by: tuple[str, ...] = ()
    """Certificates of renewal orders for this one, oldest first."""


@dataclass(frozen=True, slots=True)
class ConfirmationView:
    """A link mailed to the applicant of an OV or EV certificate before a version is revoked; `address` is masked.

    `state` is waiting, confirmed, ran_out, or replaced by a newer link.
    """

    id: str
    version_id: str
    version: int
    address: str
    mailed_at: datetime
    expires_at: datetime
    confirmed_at: datetime | None
    state: str


@dataclass(frozen=True, slots=True)
class Detail:
    summary: Summary
    purpose: Purpose
    application: ApplicationView | None
    validation: ValidationState | None
    versions: tuple[VersionView, ...]
    renew_at: datetime | None
    fallback_ca: str | None
    coverage: Coverage | None
    confirmations: tuple[ConfirmationView, ...]
    only_by_program: Refused | None
    """Why it is not deleted on a page of the console, though the API does."""
    allowed: Mapping[Operation, Refused | None]

    @property
    def id(self) -> str:
        return self.summary.id

    @property
    def allowed_operations(self) -> list[str]:
        return [operation.value for operation, verdict in self.allowed.items() if verdict is None]


def summary(row: Any, now: datetime, attempt: Any = None) -> Summary:
    """Of a row with the table's columns by name; `attempt` is its open application, if there is one."""
    found = summary_of_columns(
        (
            row.id, row.project_id, row.name, row.description, row.tags, row.stage, row.ca, row.uploaded,
            row.primary_name, row.names, row.key_algorithm, row.sha256, row.serial, row.not_before, row.not_after,
            row.auto_renew, row.notify, row.created_at, row.updated_at, row.revision,
        ),
        now,
    )  # fmt: skip
    return found if attempt is None else with_progress(found, attempt)


def with_progress(found: Summary, attempt: Any) -> Summary:
    """How far an addition or a reissue is; `attempt` has validated_at, organisation_id and organisation_ok_at."""
    awaits = attempt.organisation_id is not None and attempt.organisation_ok_at is None
    done = rules.progress(found.state, validated=attempt.validated_at is not None, awaits_organisation=awaits)
    return replace(found, progress=done)


def summary_of_columns(columns: Sequence[Any], now: datetime) -> Summary:
    """Of `store.SUMMARY_COLUMNS`, taken by place: looking columns up by name costs more than the query."""
    (
        certificate_id, project_id, name, description, tags, stage, ca, uploaded, primary_name, names, key_algorithm,
        sha256, serial, not_before, not_after, auto_renew, notify, created_at, updated_at, revision,
    ) = columns  # fmt: skip
    state = rules.shown_state(_STATES[stage], not_after, now)
    soon = rules.expires_soon(state, not_before, not_after, now)
    return Summary(
        certificate_id, project_id, name, description, tags, state, rules.progress(state), soon, ca, uploaded,
        primary_name, tuple(names), key_algorithm, sha256, serial, not_before, not_after, auto_renew, notify,
        created_at, updated_at, revision,
    )  # fmt: skip


def facts(
    row: Any, versions: Sequence[Any], bound_to: tuple[str, ...], now: datetime, *, holds_personal_data: bool = False
) -> CertificateFacts:
    """Of a certificate's row and its versions' (`store.VERSION_FACTS` suffices)."""
    asked = [version for version in versions if version.revoke_asked_at is not None]
    earlier = (v.number for v in versions if v.superseded_at and v.not_after > now and v.revoke_asked_at is None)
    return CertificateFacts(
        state=rules.shown_state(State(row.stage), row.not_after, now),
        has_version=row.current_version_id is not None,
        has_key=row.key_id is not None,
        uploaded=row.uploaded,
        client_ca=row.purpose == Purpose.CLIENT_CA,
        bound_to=bound_to,
        revocation_asked=any(version.superseded_at is None for version in asked),
        revoking=any(version.revoked_at is None for version in asked),
        earlier=tuple(sorted(earlier)),
        domain_type=DomainType(row.domain_type) if row.domain_type else _natural_type(row.names),
        name_count=len(row.names),
        purchase=_purchase(row, versions, now),
        holds_personal_data=holds_personal_data,
    )


def coverage(row: Any, renewed_by: Sequence[str] = ()) -> Coverage | None:
    if row.order_id is None:
        return None
    return Coverage(
        order_id=row.order_id, product=row.product_id, certificate_type=row.certificate_type,
        domain_type=row.domain_type, names=row.domain_quota or 0, wildcards=row.wildcard_quota or 0,
        years=row.coverage_years or 0, starts_at=row.coverage_starts_at, ends_at=row.coverage_ends_at,
        inherited_days=row.inherited_days or 0, renews_certificate_id=row.renews_certificate_id,
        renewed_by=tuple(renewed_by),
    )  # fmt: skip


def _natural_type(names: Sequence[str]) -> DomainType | None:
    if len(names) > 1:
        return DomainType.MULTI
    if not names:
        return None
    return DomainType.WILDCARD if names[0].startswith("*.") else DomainType.SINGLE


def _purchase(row: Any, versions: Sequence[Any], now: datetime) -> Purchase | None:
    if row.order_id is None:
        return None
    current = next((version for version in versions if version.superseded_at is None), None)
    return rules.purchase(
        paid=bool(row.paid), quota=(row.domain_quota or 0) + (row.wildcard_quota or 0), names=len(row.names),
        reissue_days=(row.product or {}).get("reissue_days"), years=row.coverage_years or 0,
        issued_at=None if current is None else current.issued_at, not_after=row.not_after,
        coverage_ends_at=row.coverage_ends_at, now=now,
    )  # fmt: skip


def application_view(row: Any) -> ApplicationView:
    return ApplicationView(
        id=row.id,
        kind=row.kind,
        names=tuple(row.names),
        unicode_names=tuple(unicode_name(name) for name in row.names),
        domain_type=row.domain_type,
        validation_method=row.validation_method,
        key_algorithm=row.key_algorithm,
        key_source="uploaded_csr" if row.csr_uploaded else "system",
        csr_id=row.csr_id,
        key_pinned=row.key_pinned,
        certificate_type=row.certificate_type,
        organisation_id=row.organisation_id,
        applicant=row.applicant,
        technical_contact=row.technical_contact,
        root_hash=row.root_hash,
        per_name_methods=row.per_name_methods,
        consent_at=row.consent_at,
        consent_version=row.consent_version,
        submitted_at=row.submitted_at,
        validated_at=row.validated_at,
        issued_at=row.issued_at,
        withdrawn_at=row.withdrawn_at,
        withdrawal_refused=row.withdrawal_refused,
        failed_at=row.failed_at,
        failure=row.failure,
        waiting_for=row.step_problem,
    )


def version_view(row: Any, chain: tuple[str, ...]) -> VersionView:
    return VersionView(
        id=row.id,
        number=row.number,
        names=tuple(row.names),
        subject=row.subject,
        issuer=row.issuer,
        serial=row.serial,
        sha256=row.sha256,
        sha1=row.sha1,
        key_algorithm=row.key_algorithm,
        signature_algorithm=row.signature_algorithm,
        has_key=row.key_id is not None,
        not_before=row.not_before,
        not_after=row.not_after,
        issued_at=row.issued_at,
        superseded_at=row.superseded_at,
        revoke_asked_at=row.revoke_asked_at,
        revoked_at=row.revoked_at,
        revocation_reason=row.revocation_reason,
        revoked_by=row.revoked_by,
        waiting_for=row.step_problem if row.revoke_asked_at is not None and row.revoked_at is None else None,
        chain=chain,
    )


def confirmation_views(rows: Sequence[Any], now: datetime) -> tuple[ConfirmationView, ...]:
    """Of `store.confirmation_list`, newest first."""
    newest: dict[str, str] = {}
    found = []
    for row in rows:
        latest = newest.setdefault(row.version_id, row.id) == row.id
        if row.confirmed_at is not None:
            state = "confirmed"
        elif not latest and row.expires_at - row.created_at < rules.LINK_GOOD_FOR:
            state = "replaced"
        else:
            state = "ran_out" if row.expires_at <= now else "waiting"
        found.append(
            ConfirmationView(
                row.id, row.version_id, row.number, rules.masked(row.address), row.created_at, row.expires_at,
                row.confirmed_at, state,
            )
        )  # fmt: skip
    return tuple(found)


def unicode_name(name: str) -> str:
    """The U-label form for people; a label that doesn't decode is shown as it is."""
    try:
        return ".".join(idna.decode(label) if label.startswith("xn--") else label for label in name.split("."))
    except idna.IDNAError:
        return name


def version_issued_payload(
    *, version_id: str, number: int, application_id: str | None, leaf: X509Facts, project_id: str
) -> dict[str, Any]:
    """What the event `certificate.version_issued` tells; times are RFC 3339. No application: it was uploaded."""
    return {
        "version_id": version_id,
        "number": number,
        "application_id": application_id,
        "sha256": leaf.sha256,
        "not_before": leaf.not_before.isoformat(),
        "not_after": leaf.not_after.isoformat(),
        "project_id": project_id,
    }
