"""What OV and EV certificates of the built-in CA say of each kind of organisation."""

from __future__ import annotations

import pytest
from cryptography.x509 import NameOID
from cryptography.x509.name import _ASN1Type

from certwright.connectors.ca.builtin import _subject
from certwright.rooms.certificates import CertificateOrder, CertificateType
from tests.organisations.desk import facts

EV_ONLY = {NameOID.SERIAL_NUMBER, NameOID.BUSINESS_CATEGORY, NameOID.JURISDICTION_COUNTRY_NAME}


def subject(kind: str, type: CertificateType, **changes: str) -> dict[object, str]:
    order = CertificateOrder(
        "app_1",
        "acc_1",
        "prj_1",
        ("www.example.com",),
        b"",
        certificate_type=type,
        organisation=facts(kind=kind, **changes),
    )
    made = _subject(order)
    assert made is not None
    return {attribute.oid: str(attribute.value) for attribute in made.as_name()}


@pytest.mark.parametrize("type", [CertificateType.OV, CertificateType.OV_PRO])
def test_ov_names_the_organisation_its_place_and_country_and_nothing_of_ev(type: CertificateType) -> None:
    """BR 7.1.2.7.4."""
    found = subject("company", type)
    assert found[NameOID.ORGANIZATION_NAME] == "Beispiel Maschinenbau GmbH"
    assert (found[NameOID.LOCALITY_NAME], found[NameOID.COUNTRY_NAME]) == ("Berlin", "DE")
    assert not EV_ONLY & set(found)
    assert NameOID.ORGANIZATIONAL_UNIT_NAME not in found


@pytest.mark.parametrize("type", [CertificateType.EV, CertificateType.EV_PRO])
@pytest.mark.parametrize(
    ("kind", "category"),
    [
        ("company", "Private Organization"),
        ("non_profit", "Private Organization"),
        ("sole_trader", "Business Entity"),
        ("public_body", "Government Entity"),
    ],
)
def test_ev_adds_category_number_and_place_of_registration(kind: str, category: str, type: CertificateType) -> None:
    """EVG 7.1.4.2.3 to 7.1.4.2.5."""
    found = subject(kind, type)
    assert found[NameOID.BUSINESS_CATEGORY] == category
    assert found[NameOID.SERIAL_NUMBER] == "HRB 12345 B"
    assert found[NameOID.JURISDICTION_COUNTRY_NAME] == "DE"
    assert found[NameOID.JURISDICTION_STATE_OR_PROVINCE_NAME] == "Berlin"


def test_a_public_body_without_a_number_says_that_it_is_one() -> None:
    """EVG 7.1.4.2.5."""
    assert subject("public_body", CertificateType.EV, registration_number="")[NameOID.SERIAL_NUMBER] == (
        "Government Entity"
    )


def test_number_and_countries_are_printable_strings() -> None:
    """X.520: serialNumber and the country names have no other form."""
    order = CertificateOrder(
        "app_1", "acc_1", "prj_1", ("a.example",), b"", certificate_type=CertificateType.EV, organisation=facts()
    )
    made = _subject(order)
    assert made is not None
    kinds = {attribute.oid: attribute._type for attribute in made.as_name()}
    for oid in (NameOID.SERIAL_NUMBER, NameOID.COUNTRY_NAME, NameOID.JURISDICTION_COUNTRY_NAME):
        assert kinds[oid] is _ASN1Type.PrintableString
