"""Tenants and people. The door also shows the tables that the access room joins with its own in one query."""

from __future__ import annotations

from datetime import timedelta

from certwright.platform.services import Services
from certwright.rooms.accounts import rules, store, tables
from certwright.rooms.accounts.actions import (
    check_current_password,
    check_new_password,
    check_person,
    claim_setup,
    create_account,
    default_project,
    email_taken,
    ensure_account,
    forget_over,
    fresh_setup_link,
    insert_user,
    link_invalid,
    new_link,
    open_session,
    password_link_user,
    setup_is_open,
    sign_in,
    use_password_link,
)
from certwright.rooms.accounts.secrets import hash_password, hash_secret, new_secret, verify_password
from certwright.rooms.accounts.words import Account, Group, OneTimeLink, Project, Session, SignedIn, Token, User

__all__ = [
    "Account",
    "Group",
    "OneTimeLink",
    "Project",
    "Session",
    "SignedIn",
    "Token",
    "User",
    "check_current_password",
    "check_new_password",
    "check_person",
    "claim_setup",
    "create_account",
    "default_project",
    "email_taken",
    "ensure_account",
    "fresh_setup_link",
    "hash_password",
    "hash_secret",
    "insert_user",
    "link_invalid",
    "new_link",
    "new_secret",
    "open_session",
    "password_link_user",
    "register",
    "rules",
    "setup_is_open",
    "sign_in",
    "store",
    "tables",
    "use_password_link",
    "verify_password",
]


def register(services: Services) -> None:
    services.jobs.every("accounts.forget_over", timedelta(minutes=10), forget_over)
