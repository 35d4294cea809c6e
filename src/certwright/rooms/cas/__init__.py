"""The cas room: accounts with CAs outside (ACME today), the orders placed there, and a mirror of their rate limits."""

from __future__ import annotations

from certwright.platform.services import Services
from certwright.rooms.cas import orders, purchases, store
from certwright.rooms.cas.actions import (
    add_ca,
    api_key_context,
    change_key,
    check_ca,
    credentials,
    delete_ca,
    eab_context,
    get_ca,
    limits_used,
    list_cas,
    new_account,
    shop_credentials,
    shown,
    update_ca,
)
from certwright.rooms.cas.actions import (
    register as register_account,
)
from certwright.rooms.cas.ports import AccountKeeper, Dependents, Storefront
from certwright.rooms.cas.rules import DEFAULT_LIMITS, DEFAULT_SHOP, Answer, shop_settings_of, why_answer
from certwright.rooms.cas.tables import ca_orders, ca_purchases, cas
from certwright.rooms.cas.words import (
    Ca,
    CaKind,
    CaOrder,
    Credentials,
    Limit,
    Offers,
    Purchase,
    ShopCredentials,
    ShopSettings,
    Use,
)

__all__ = [
    "DEFAULT_LIMITS",
    "DEFAULT_SHOP",
    "AccountKeeper",
    "Answer",
    "Ca",
    "CaKind",
    "CaOrder",
    "Credentials",
    "Dependents",
    "Limit",
    "Offers",
    "Purchase",
    "ShopCredentials",
    "ShopSettings",
    "Storefront",
    "Use",
    "add_ca",
    "api_key_context",
    "ca_orders",
    "ca_purchases",
    "cas",
    "change_key",
    "check_ca",
    "credentials",
    "delete_ca",
    "get_ca",
    "limits_used",
    "list_cas",
    "new_account",
    "orders",
    "purchases",
    "register",
    "register_account",
    "shop_credentials",
    "shop_settings_of",
    "shown",
    "store",
    "update_ca",
    "why_answer",
]


def register(services: Services) -> None:
    services.vault.register(cas.c.eab_key, eab_context)
    services.vault.register(cas.c.api_key, api_key_context)
