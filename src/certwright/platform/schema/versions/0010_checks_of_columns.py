"""The checks that 0001 to 0009 left out, because they stood inside columns"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_CHECKS = (
    ("targets", "ck_targets_health", "health IN ('unknown', 'healthy', 'unhealthy')"),
    ("rollouts", "ck_rollouts_trigger", "trigger IN ('user', 'new_version')"),
    (
        "rollouts",
        "ck_rollouts_next_step",
        "next_step IN ('plan', 'stage', 'test', 'activate', 'verify', 'keep', 'undo')",
    ),
    ("rollouts", "ck_rollouts_state", "state IN ('running', 'undoing', 'deployed', 'undone', 'failed')"),
    (
        "rollout_steps",
        "ck_rollout_steps_step",
        "step IN ('plan', 'stage', 'test', 'activate', 'verify', 'keep', 'undo')",
    ),
    ("alarms", "ck_alarms_severity", "severity IN ('critical', 'major', 'minor', 'warning')"),
    ("authorities", "ck_authorities_crl_days", "crl_days BETWEEN 1 AND 30"),
    ("authorities", "ck_authorities_kind", "kind IN ('root', 'issuing')"),
    ("endpoints", "ck_endpoints_origin", "origin IN ('manual', 'binding')"),
    ("endpoints", "ck_endpoints_port", "port BETWEEN 1 AND 65535"),
    ("evidence", "ck_evidence_ca_kind", "ca_kind IN ('public', 'private')"),
    ("evidence", "ck_evidence_scope", "scope IN ('exact', 'subtree')"),
    ("private_keys", "ck_private_keys_origin", "origin IN ('generated', 'uploaded')"),
    (
        "alarm_history",
        "ck_alarm_history_what",
        "what IN ('raised', 'changed', 'cleared', 'acknowledged', 'unacknowledged')",
    ),
    (
        "certificates",
        "ck_certificates_stage",
        "stage IN ('pending_application', 'pending_domain_validation', 'pending_organization_validation', 'to_be_issued', 'issued', 'approval_failed', 'verifying_domain_addition', 'verifying_reissue', 'verifying_withdrawal', 'verifying_revocation', 'revocation_pending_domain_validation', 'revoked', 'hosted', 'refund_review')",
    ),
    ("challenges", "ck_challenges_ca_kind", "ca_kind IN ('public', 'private')"),
    ("applications", "ck_applications_domain_type", "domain_type IN ('single', 'multi', 'wildcard')"),
    ("rollout_steps", "ck_rollout_steps_outcome", "outcome IN ('done', 'failed')"),
)


def upgrade() -> None:
    for table, name, condition in _CHECKS:
        op.create_check_constraint(op.f(name), table, condition)


def downgrade() -> None:
    raise NotImplementedError("tables are never taken back; restore a backup instead")
