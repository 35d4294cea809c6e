"""Providers outside that move money. None is shipped: an installed package adds one by an entry point.

The entry point's group is `certwright.payment_providers`, its name is the payment method's, and it names a callable
that takes `Services` and returns a `billing.PaymentProvider`.
"""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from typing import Final

from certwright.kernel.problems import Invalid
from certwright.platform.services import Services
from certwright.rooms import billing

GROUP: Final = "certwright.payment_providers"
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def installed(services: Services) -> billing.PaymentProviders:
    """The providers of the installed packages by name. Raises Invalid `payment_provider_name` for a name that is built
    in, not usable, or there twice."""
    found: dict[str, billing.PaymentProvider] = {}
    for point in entry_points(group=GROUP):
        if point.name in (*billing.BUILT_IN_METHODS, *found) or not _NAME.fullmatch(point.name):
            raise Invalid(
                "payment_provider_name", f"A payment provider can't be called {point.name[:40]!r}.",
                fix="Use lower-case letters, digits, _ and -, and no name that is built in or used by another package.",
            )  # fmt: skip
        found[point.name] = point.load()(services)
    return billing.PaymentProviders(found)
