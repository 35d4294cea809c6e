"""What applicants agree to, whom they name, and what is erased of it: in the room, through the API, on pages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.problems import InvalidFields
from certwright.platform.config import Settings, load_settings
from certwright.rooms import authorities, certificates
from certwright.rooms.certificates import Applicant, CertificateOrder
from certwright.rooms.certificates.privacy import SHIPPED, SHIPPED_VERSION, Statement
from certwright.rooms.certificates.tables import applications, privacy_statements
from certwright.rooms.certificates.tables import certificates as certificate_table
from tests.certificates.test_lifecycle import Site, create, issue, look, product, rows, settings, site, wanted
from tests.conftest import World
from tests.console.conftest import web

__all__ = ["product", "settings", "site", "web"]

SignIn = Callable[[Any], Any]

TECHNICAL = Applicant("Tina Tech", "tina@example.com", "+49 30 777777")
OURS = "# Ours\nWe keep what\nyou type.\n\nNothing else.\n"
VERSION = hashlib.sha256(OURS.strip().encode()).hexdigest()[:12]


@pytest.fixture
def own_text(tmp_path: Path) -> Path:
    file = tmp_path / "privacy.txt"
    file.write_text(OURS)
    return file


def with_text(world: World, file: Path) -> None:
    """As if the product had been started with this setting."""
    changed = world.services.settings.model_copy(update={"privacy_statement_file": file})
    object.__setattr__(world.services, "settings", changed)  # frozen for everybody else


# --- the statement --------------------------------------------------------------------------------------------------


def test_a_consent_is_kept_with_its_time_its_version_and_the_text(product: World) -> None:
    asked = create(product, wanted()).application
    assert asked is not None
    assert (asked.consent_version, asked.consent_at) == (SHIPPED_VERSION, product.clock.now())
    assert rows(product, sa.select(privacy_statements.c.version, privacy_statements.c.text)) == [
        (SHIPPED_VERSION, SHIPPED)
    ]


def test_an_operators_text_takes_the_place_of_the_shipped_one_and_older_texts_stay_readable(
    product: World, own_text: Path
) -> None:
    with_text(product, own_text)
    asked = create(product, wanted()).application
    assert asked is not None
    assert asked.consent_version == VERSION
    with_text(product, own_text.with_name("other.txt"))
    own_text.with_name("other.txt").write_text("Another text.\n")
    then = product.run(certificates.privacy_statement(product.services, VERSION))
    assert (then.version, then.text) == (VERSION, OURS)
    assert product.run(certificates.privacy_statement(product.services, SHIPPED_VERSION)).text == SHIPPED


def test_who_read_an_older_text_is_asked_to_read_todays(product: World, own_text: Path) -> None:
    with_text(product, own_text)
    with pytest.raises(InvalidFields) as caught:
        create(product, wanted(consent_version=SHIPPED_VERSION))
    assert [(p.code, p.field) for p in caught.value.problems] == [("privacy_statement_outdated", "consent_version")]
    assert create(product, wanted(consent_version=VERSION)).application is not None


def test_a_statement_is_headings_and_paragraphs() -> None:
    assert Statement("1", OURS).parts == (
        ("heading", "Ours"), ("paragraph", "We keep what you type."), ("paragraph", "Nothing else."),
    )  # fmt: skip
    assert Statement("1", SHIPPED).parts[0] == ("heading", "What is kept")


def test_a_file_that_is_not_there_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidFields) as caught:
        load_settings({"CERTWRIGHT_PRIVACY_STATEMENT_FILE": str(tmp_path / "nothing.txt"),
                       "CERTWRIGHT_DATA_DIR": str(tmp_path)})  # fmt: skip
    assert "CERTWRIGHT_PRIVACY_STATEMENT_FILE" in str(caught.value.problems[0].field)
    assert Settings().privacy_statement_file is None


def test_everybody_signed_in_reads_it_through_the_api_and_on_a_page(api: Any, web: SignIn, own_text: Path) -> None:
    shown = api.get("/api/v1/certificates/privacy-statement").json()
    assert shown == {"version": SHIPPED_VERSION, "current": True, "text": SHIPPED}
    assert api.get("/api/v1/certificates/privacy-statement?version=nothing").status_code == 404
    assert api.anonymous().get("/api/v1/certificates/privacy-statement").status_code == 401
    me = web(api.world.actor)
    assert "<h2>What is kept</h2>" in me.get("/privacy-statement").text
    assert 'href="/privacy-statement"' in me.get("/certificates/new").text
    with_text(api.world, own_text)
    assert "We keep what you type." in me.get("/privacy-statement").text
    earlier = me.get(f"/privacy-statement?version={SHIPPED_VERSION}").text
    assert "This is an earlier version" in earlier
    assert me.get("/privacy-statement?version=nothing").status_code == 404


# --- whom to ask ----------------------------------------------------------------------------------------------------


def test_a_technical_contact_may_be_named_beside_the_applicant(product: World) -> None:
    asked = create(product, wanted(technical_contact=TECHNICAL)).application
    assert asked is not None
    assert asked.technical_contact == TECHNICAL.as_dict()
    none = create(product, wanted()).application
    assert none is not None
    assert none.technical_contact is None


def test_a_technical_contact_is_judged_by_its_own_fields(product: World) -> None:
    with pytest.raises(InvalidFields) as caught:
        create(product, wanted(technical_contact=Applicant("", "nobody", "x")))
    assert {p.field for p in caught.value.problems} == {
        "technical_contact.name", "technical_contact.email", "technical_contact.phone",
    }  # fmt: skip
    assert all("technical contact's" in p.message for p in caught.value.problems)


def test_the_ca_is_told_the_contacts_and_the_hash_that_was_chosen(product: World, site: Site) -> None:
    ca = product.services.port(certificates.AuthorityDirectory).by_id["builtin"]
    orders: list[CertificateOrder] = []
    submit = ca.submit

    async def seen(order: CertificateOrder) -> str:
        orders.append(order)
        return await submit(order)

    ca.submit = seen
    issue(product, site, wanted(technical_contact=TECHNICAL, root_hash="sha256"))
    assert [(order.technical_contact, order.root_hash) for order in orders] == [(TECHNICAL, "sha256")]


@pytest.mark.parametrize(
    ("root_hash", "offered", "code"),
    [
        ("md5", ("default", "sha256"), "root_hash_unknown"),
        ("sha256", ("default",), "root_hash_not_offered"),
        ("sha256", ("default", "sha256"), None),
        ("default", ("default",), None),
    ],
)
def test_the_hash_of_the_root_is_one_the_ca_lets_people_choose(
    root_hash: str, offered: tuple[str, ...], code: str | None
) -> None:
    def judged() -> str:
        return certificates.judge_application(
            wanted(root_hash=root_hash), public_ca=False, root_hashes=offered
        ).root_hash  # fmt: skip

    if code is None:
        assert judged() == root_hash
        return
    with pytest.raises(InvalidFields) as caught:
        judged()
    assert [p.code for p in caught.value.problems] == [code]


def test_withdrawing_privacy_erases_every_contact_also_those_of_a_draft(product: World, site: Site) -> None:
    detail = issue(product, site, wanted(technical_contact=TECHNICAL))
    kept = create(product)
    product.run(certificates.save_draft(product.services, product.actor, kept.id, wanted(technical_contact=TECHNICAL)))
    for one in (detail.id, kept.id):
        assert look(product, one).allowed[certificates.Operation.WITHDRAW_PRIVACY] is None
        product.run(certificates.withdraw_privacy(product.services, product.actor, one))
    stored = [
        *rows(product, sa.select(sa.cast(applications.c.technical_contact, sa.Text))),
        *rows(product, sa.select(sa.cast(applications.c.applicant, sa.Text))),
        *rows(product, sa.select(sa.cast(certificate_table.c.draft, sa.Text))),
    ]
    assert all(text is None for (text,) in stored)


# --- the form -------------------------------------------------------------------------------------------------------

FORM = {
    "names": "shop.demo.localhost\nwww.demo.localhost", "certificate_type": "dv", "validation_method": "dns",
    "key_source": "system", "key_algorithm": "EC_P256", "applicant_name": "Ada Lovelace",
    "applicant_email": "ada@example.com", "applicant_phone": "+44 20 7946 0000", "consent": "yes",
}  # fmt: skip


@pytest.fixture
def me(api: Any, web: SignIn) -> Any:
    world = api.world
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    return web(world.actor)


def applied(me: Any, **fields: str) -> certificates.ApplicationView:
    answer = me.form("/certificates/new", FORM | fields | {"step": "submit"})
    assert answer.status_code == 303, answer.text
    found = look(me.api.world, answer.headers["location"].split("/")[2]).application
    assert found is not None
    return found


def test_the_form_takes_a_method_for_single_names_and_a_technical_contact(me: Any, api: Any) -> None:
    me.api.world = api.world
    typed = {
        "per_name_methods": "www.demo.localhost file", "technical_name": "Tina Tech",
        "technical_email": "tina@example.com", "technical_phone": "+49 30 777777", "root_hash": "sha256",
    }  # fmt: skip
    review = me.form("/certificates/new", FORM | typed | {"step": "review"}).text
    assert "www.demo.localhost: File on the web server" in review
    assert "Tina Tech" in review
    asked = applied(me, **typed)
    assert asked.per_name_methods == {"www.demo.localhost": "file"}
    assert asked.technical_contact == TECHNICAL.as_dict()
    assert asked.root_hash == "sha256"


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"per_name_methods": "www.demo.localhost"}, "e-per_name_methods-1"),
        ({"per_name_methods": "other.demo.localhost file"}, "e-per_name_methods-1"),
        ({"technical_name": "Tina"}, "e-technical_email-1"),
        ({"key_source": "kept"}, "No kept CSR is chosen."),
        ({"fallback_ca": "builtin"}, "The second CA is the first one."),
        ({"consent_version": "2020-01"}, "was changed since it was read"),
    ],
)
def test_what_is_wrong_stands_beside_its_field(me: Any, fields: dict[str, str], place: str) -> None:
    answer = me.form("/certificates/new", FORM | fields | {"step": "submit"})
    assert answer.status_code in (409, 422)
    assert place in answer.text


def test_the_form_takes_a_kept_csr_and_keeps_its_key(me: Any, api: Any) -> None:
    from certwright.rooms import csrs

    world = me.api.world = api.world
    kept = world.run(csrs.generate(world.services, world.actor, names=["kept.demo.localhost"], name="kept-one"))
    assert "kept-one (kept.demo.localhost; its key is here)" in me.get("/certificates/new").text
    typed = {"names": "", "key_source": "kept", "csr_id": kept.id, "pin_key": "yes"}
    review = me.form("/certificates/new", FORM | typed | {"step": "review"}).text
    assert "of the CSR kept-one, which is kept here" in review
    asked = applied(me, **typed)
    assert (asked.csr_id, asked.key_pinned, asked.names) == (kept.id, True, ("kept.demo.localhost",))


def test_a_draft_keeps_everything_the_form_takes(me: Any) -> None:
    typed = FORM | {"per_name_methods": "www.demo.localhost file", "technical_name": "Tina", "root_hash": "sha256",
                    "step": "draft"}  # fmt: skip
    where = me.form("/certificates/new", typed).headers["location"]
    shown = me.get(f"{where}/apply").text
    assert "www.demo.localhost file</textarea>" in shown
    assert 'name="technical_name" type="text" value="Tina"' in shown
    assert '<option value="sha256" selected>' in shown
