"""Products as data: the model every product is checked against, and the catalogue shipped with the package."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from certwright.kernel.money import Money
from certwright.kernel.problems import Invalid, InvalidFields, Problem
from certwright.rooms.billing.words import CertificateType, DomainType, WildcardRule

_FILE = "catalogue.yaml"
MOST_NAMES = 250
MOST_YEARS = 5

Code = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{1,62}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
Price = Annotated[Decimal, Field(ge=0, le=1_000_000_000, max_digits=14, decimal_places=4)]
Percent = Annotated[Decimal, Field(ge=0, lt=100, max_digits=4, decimal_places=2)]

METHODS = frozenset(("dns", "file", "email", "http-01", "dns-01", "tls-alpn-01"))


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prices(_Strict):
    """For one year of one certificate, in the product's currency."""

    base: Price = Decimal(0)
    """With `included_names` names, or with its one wildcard."""
    additional_name: Price = Decimal(0)
    wildcard: Price = Decimal(0)
    """Each wildcard name of a multi-domain certificate."""


class ReviewDays(_Strict):
    """Working days the CA usually takes to verify the organisation."""

    least: Annotated[int, Field(ge=0, le=60)] = 0
    most: Annotated[int, Field(ge=0, le=60)] = 0


class Product(_Strict):
    """What can be ordered: CA brand × certificate type × domain type, with its prices and rules."""

    code: Code
    name: Text
    brand: Text
    type: CertificateType
    domain_type: DomainType
    ca: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
    """Which configured CA fulfils it, by the id stored on certificates."""
    public: bool = True
    """Trusted publicly, so that the rules of public trust hold."""
    free: bool = False
    available: bool = True
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    prices: Prices = Prices()
    included_names: Annotated[int, Field(ge=0, le=MOST_NAMES)] = 1
    max_names: Annotated[int, Field(ge=1, le=MOST_NAMES)] = 1
    wildcards: WildcardRule = WildcardRule.NONE
    years: Mapping[Annotated[int, Field(ge=1, le=MOST_YEARS)], Percent] = Field(
        default={1: Decimal(0)}, validate_default=True
    )
    """Coverage that can be bought, in years, each with the percentage it takes off."""
    quantity_discounts: Mapping[Annotated[int, Field(ge=2, le=100)], Percent] = {}
    """From so many certificates on, so many percent off."""
    reissue_days: Annotated[int, Field(ge=1, le=400)] | None = None
    """How long after issue it may be reissued; None while it is valid."""
    methods: tuple[str, ...] = ("dns", "file")
    review_days: ReviewDays = ReviewDays()

    @model_validator(mode="after")
    def _consistent(self) -> Product:
        prices = (self.prices.base, self.prices.additional_name, self.prices.wildcard)
        if self.free and any(prices):
            raise ValueError("a free product has no prices")
        if not self.free and not self.prices.base:
            raise ValueError("a product that isn't free needs a base price")
        for price in prices:
            _exact(price, self.currency)
        if not self.years:
            raise ValueError("at least one number of years must be for sale")
        unknown = [method for method in self.methods if method not in METHODS]
        if unknown or not self.methods:
            raise ValueError(f"methods are some of {', '.join(sorted(METHODS))}")
        if self.review_days.least > self.review_days.most:
            raise ValueError("review_days.least is more than review_days.most")
        match self.domain_type:
            case DomainType.SINGLE if self.max_names != 1 or self.wildcards is not WildcardRule.NONE:
                raise ValueError("a single-domain product has max_names 1 and wildcards none")
            case DomainType.WILDCARD if self.max_names != 1 or self.wildcards is not WildcardRule.ONLY:
                raise ValueError("a wildcard product has max_names 1 and wildcards only")
            case DomainType.WILDCARD if "dns" not in self.methods and "dns-01" not in self.methods:
                raise ValueError("a wildcard is proven by dns, so dns must be among the methods")
            case DomainType.MULTI if self.max_names < 2 or self.wildcards is WildcardRule.ONLY:
                raise ValueError("a multi-domain product takes two names at least, and not only wildcards")
            case DomainType.MULTI if (
                self.public
                and self.wildcards is WildcardRule.ALLOWED
                and self.type not in (CertificateType.OV, CertificateType.OV_PRO)
            ):
                raise ValueError("wildcards in multi-domain certificates are for OV and OV Pro only")
        return self

    def price(self, amount: Decimal) -> Money:
        return Money.of(amount, self.currency)


def _exact(price: Decimal, currency: str) -> None:
    try:
        Money.of(price, currency)
    except Invalid as problem:
        raise ValueError(problem.message.rstrip(".")) from problem


def checked(document: Mapping[str, Any]) -> Product:
    """The product a document describes. Raises InvalidFields with one `product_invalid` per wrong field."""
    try:
        return Product.model_validate(document)
    except ValidationError as error:
        problems: list[Problem] = [
            Invalid(
                "product_invalid", f"{e['msg'].removeprefix('Value error, ').rstrip('.')}.",
                field=".".join(str(part) for part in e["loc"])[:200] or "product",
                fix="Correct the product; docs/guide/ordering.md says what each field takes.",
            )
            for e in error.errors(include_input=False, include_url=False)[:50]
        ]  # fmt: skip
        raise InvalidFields(problems) from None


@lru_cache(maxsize=1)
def shipped() -> Mapping[str, Product]:
    """The catalogue of this release, by code. Its prices are examples for an administrator to set."""
    text = (files("certwright.rooms.billing") / _FILE).read_text()
    found: dict[str, Product] = {}
    for document in yaml.safe_load(text)["products"]:
        product = checked(document)
        if product.code in found:
            raise RuntimeError(f"{_FILE} names {product.code} twice")
        found[product.code] = product
    return found
