"""Pure decisions: good facts, who can be verified at all, what a case needs, who may do what, whose turn it is.

What is checked follows the Baseline Requirements 3.2.2.1 and 3.2.5 (OV) and the EV Guidelines 3.2.2 (EV); that a second
person looks at EV is EV Guidelines 3.2.2.13.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from certwright.kernel.problems import Forbidden, Invalid, InvalidFields, Problem, Refused, TooLarge
from certwright.rooms.accounts.rules import normal_email
from certwright.rooms.organisations.words import (
    ENDED,
    Applicant,
    CaseFacts,
    CertificateType,
    Contact,
    Facts,
    Item,
    Kind,
    Level,
    Operation,
    Outcome,
    Progress,
    State,
    Turn,
    Way,
)

_Word = TypeVar("_Word", bound=StrEnum)

# --- the facts of an organisation ------------------------------------------------------------------------------------

_COUNTRIES = (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ "
    "CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO "
    "FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE "
    "JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO "
    "MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW "
    "PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM "
    "TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"
)
COUNTRIES = frozenset(_COUNTRIES.split())
"""ISO 3166-1 alpha-2, the codes officially assigned."""

# (field of Facts, what the API calls it, longest, needed). The lengths are the upper bounds of RFC 5280 A.1 for the
# attribute each goes to, so that what was verified fits the certificate.
_TEXTS = (
    ("legal_name", "legal_name", 64, True),
    ("registration_number", "registration_number", 64, False),
    ("jurisdiction_region", "jurisdiction.region", 128, False),
    ("street", "address.street", 128, True),
    ("city", "address.city", 128, True),
    ("province", "address.province", 128, False),
    ("postal_code", "address.postal_code", 40, False),
    ("phone_source", "phone.source", 300, True),
)
MOST_CONTACTS = 10
_PHONE_SIGNS = re.compile(r"[\s().\-/]")
_INVISIBLE = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
# White space, and the joiners without which Persian and Indic names are misspelt.
_SEEN_BY_THEIR_EFFECT = frozenset("\t\n\r\u200c\u200d")


def judge_facts(given: Mapping[str, Any]) -> Facts:
    """Facts from texts by the names of `Facts`. Raises InvalidFields naming every wrong one."""
    problems: list[Problem] = []
    found: dict[str, str] = {}
    for name, field, longest, needed in _TEXTS:
        try:
            found[name] = judge_text(given.get(name) or "", field, longest, needed=needed)
        except Problem as problem:
            problems.append(problem)
    for name, field in (("country", "address.country"), ("jurisdiction_country", "jurisdiction.country")):
        try:
            found[name] = judge_country(given.get(name) or "", field)
        except Problem as problem:
            problems.append(problem)
    try:
        found["phone"] = judge_phone(given.get("phone") or "", "phone.number")
    except Problem as problem:
        problems.append(problem)
    kind: Kind | None = None
    try:
        kind = judge_word(Kind, given.get("kind") or "", "kind", "kind of organization")
    except Problem as problem:
        problems.append(problem)
    if kind not in (None, Kind.PUBLIC_BODY, Kind.UNLISTED) and not found.get("registration_number", "-"):
        problems.append(
            Invalid(
                "registration_number_missing", "The number in the public register is missing.",
                field="registration_number", fix="Enter it as the register spells it; only public bodies have none.",
            )
        )  # fmt: skip
    if problems or kind is None:
        raise InvalidFields(problems)
    return Facts(kind=kind, **found)


def judge_text(text: str, field: str, longest: int, *, needed: bool = True) -> str:
    """One line in one spelling (NFC, single spaces). Raises Invalid."""
    plain = _plain(text, field)
    if not plain and not needed:
        return ""
    # BR 7.1.4.3: an attribute must not hold only '.', '-' or ' ' as a sign that there is no value.
    if not any(c.isalnum() for c in plain):
        raise Invalid(
            "text_empty", "The text says nothing: it has neither letters nor digits.", field=field,
            fix="Enter what it should say." if needed else "Enter it, or leave it empty.",
        )  # fmt: skip
    return _not_longer(plain, field, longest)


def judge_note(text: str, field: str, longest: int, *, needed: bool = True) -> str:
    """Like `judge_text`, for words of several lines."""
    lines = [_plain(line, field) for line in text.strip().splitlines()]
    whole = "\n".join(line for line in lines if line)
    if needed:
        judge_text(whole.replace("\n", " "), field, longest)
    return _not_longer(whole, field, longest)


def _plain(text: str, field: str) -> str:
    if any(unicodedata.category(c) in _INVISIBLE and c not in _SEEN_BY_THEIR_EFFECT for c in text):
        raise Invalid(
            "text_invisible", "The text holds characters that can't be seen.", field=field,
            fix="Type it anew instead of pasting it.",
        )  # fmt: skip
    return " ".join(unicodedata.normalize("NFC", text).split())


def _not_longer(plain: str, field: str, longest: int) -> str:
    if len(plain) > longest:
        raise Invalid(
            "text_too_long", f"The text has {len(plain)} characters; there is room for {longest}.", field=field,
            fix="Say it shorter; for names use the registered short form.",
        )  # fmt: skip
    return plain


def judge_country(text: str, field: str) -> str:
    code = text.strip().upper()
    if code not in COUNTRIES:
        raise Invalid(
            "country_unknown", f"{text.strip()[:20]!r} is no country code of ISO 3166-1.", field=field,
            fix="Enter the two letters, such as DE, CN or US.",
        )  # fmt: skip
    return code


def judge_phone(text: str, field: str) -> str:
    """`+493012345` from `+49 (30) 123-45` (E.164: at most 15 digits, the country's first)."""
    number = _PHONE_SIGNS.sub("", text)
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", number):
        raise Invalid(
            "phone_invalid", "That is not a telephone number with its country code.", field=field,
            fix="Write it as +49 30 1234567.",
        )  # fmt: skip
    return number


def judge_word(kind: type[_Word], text: str, field: str, what: str) -> _Word:
    try:
        return kind(text)
    except ValueError:
        raise Invalid(
            "word_unknown", f"There is no {what} {text[:40]!r}.", field=field,
            fix=f"Use one of: {', '.join(kind)}.",
        ) from None  # fmt: skip


def judge_contacts(given: Sequence[Mapping[str, Any]]) -> tuple[Contact, ...]:
    if len(given) > MOST_CONTACTS:
        raise Invalid(
            "too_many_contacts", f"An organization has at most {MOST_CONTACTS} contacts.", field="contacts",
            fix="Name the people a specialist should ask.",
        )  # fmt: skip
    return tuple(_contact(contact, f"contacts.{number}") for number, contact in enumerate(given))


def _contact(given: Mapping[str, Any], field: str) -> Contact:
    return Contact(
        name=judge_text(given.get("name") or "", f"{field}.name", 100),
        email=normal_email(given.get("email") or "", field=f"{field}.email"),
        phone=judge_phone(given["phone"], f"{field}.phone") if given.get("phone") else "",
        role=judge_text(given.get("role") or "", f"{field}.role", 100, needed=False),
    )


def judge_applicant(applicant: Applicant) -> Applicant:
    """Name, e-mail and phone in one spelling. Raises Invalid (fields applicant.name, .email, .phone)."""
    return replace(
        applicant,
        name=judge_text(applicant.name, "applicant.name", 100),
        email=normal_email(applicant.email, field="applicant.email"),
        phone=judge_phone(applicant.phone, "applicant.phone"),
    )


def hash_of(facts: Facts) -> str:
    """Names exactly these facts; a verification belongs to it."""
    return hashlib.sha256(json.dumps(asdict(facts), sort_keys=True, ensure_ascii=True).encode()).hexdigest()


# --- who can be verified, and for how long ---------------------------------------------------------------------------

KINDS: Mapping[Kind, str] = {
    Kind.COMPANY: "A company in a commercial register.",
    Kind.SOLE_TRADER: "A person in business under a registered trade name.",
    Kind.NON_PROFIT: "An association, foundation or other body in a public register.",
    Kind.PUBLIC_BODY: "A government body, municipality, university or other body made by law.",
    Kind.UNLISTED: "A body that is in no public register, such as a military or security service.",
}
"""Every kind with a sentence by which people recognise it."""


def why_not_verifiable(kind: Kind) -> Refused | None:
    """To be asked before anybody pays for OV or EV: why an organisation of this kind can't be verified, or None."""
    if kind is not Kind.UNLISTED:
        return None
    return Refused(
        "organisation_not_verifiable",
        "An organization that is in no public register can't be verified, so OV and EV certificates can't be issued "
        "to it.",
        field="kind", fix="Choose a DV certificate, or have a registered parent organization apply.",
    )  # fmt: skip


def levels_that_serve(level: Level) -> tuple[Level, ...]:
    """Verifications of these levels may be reused for `level`: what was looked at for EV is enough for OV."""
    return (Level.EV,) if level is Level.EV else (Level.OV, Level.EV)


def is_fresh(evidence_at: datetime, now: datetime, reuse: timedelta) -> bool:
    """Whether a certificate may be issued at `now` on facts looked up then; `reuse` is the rule in force at `now`."""
    return now - evidence_at <= reuse


# --- how a case stands -----------------------------------------------------------------------------------------------

REQUIRED: Mapping[Level, tuple[Item, ...]] = {
    Level.OV: (Item.EXISTENCE, Item.ADDRESS, Item.PHONE, Item.APPLICANT_AUTHORITY),
    Level.EV: (
        Item.EXISTENCE, Item.ADDRESS, Item.PHONE, Item.APPLICANT_AUTHORITY, Item.OPERATIONAL_EXISTENCE,
        Item.REQUESTER_AUTHORITY, Item.APPROVER_AUTHORITY,
    ),
}  # fmt: skip

PATIENCE = timedelta(days=30)
"""An applicant who is silent for so long is refused."""
REMINDERS = (timedelta(days=3), timedelta(days=7), timedelta(days=14), timedelta(days=25))
IDLE = timedelta(hours=24)
"""A claim nobody worked on for so long may be ended by a colleague."""

MOST_DOCUMENTS = 30
MOST_BYTES = 10 * 1024 * 1024


def state_of(facts: CaseFacts) -> State:
    """The first of these that holds. `store.is_in` says the same in SQL."""
    if facts.verified_at is not None:
        return State.VERIFIED
    if facts.refused_at is not None:
        return State.REFUSED
    if facts.cancelled_at is not None:
        return State.CANCELLED
    if facts.way is None:
        return State.AWAITING_CHOICE
    if facts.approved_by is not None:
        return State.AWAITING_SECOND
    if facts.waiting_since is not None:
        return State.AWAITING_DOCUMENTS
    return State.IN_REVIEW if facts.claimed_by is not None else State.QUEUED


def turn_of(state: State) -> Turn:
    if state in ENDED:
        return Turn.NOBODY
    return Turn.APPLICANT if state in (State.AWAITING_CHOICE, State.AWAITING_DOCUMENTS) else Turn.DESK


def missing(facts: CaseFacts) -> tuple[Item, ...]:
    """Required items whose newest check didn't pass, or that nobody checked yet."""
    return tuple(item for item in REQUIRED[facts.level] if facts.outcomes.get(item) is not Outcome.PASSED)


OWN_CA = "builtin"
"""The CA whose certificates nobody else has to trust."""


def may_be_alone(level: Level, ca: str, *, own_account: bool, setting: bool) -> bool:
    """Whether applicants may verify themselves: for OV of the operator's own CA, in the operator's own account, where
    the operator said so. EV takes two people whatever the setting."""
    return setting and own_account and level is Level.OV and ca == OWN_CA


# Where no product says how long a review takes.
_REVIEW_DAYS = {Level.OV: 5, Level.EV: 10}


def review_ends(since: datetime, level: Level, days: int) -> datetime:
    """When the desk should be done that got a case at `since`: after so many working days, Monday to Friday in UTC, of
    its product (0: of its level)."""
    left, at = days or _REVIEW_DAYS[level], since
    while left:
        at += timedelta(days=1)
        left -= at.weekday() < 5
    return at


# --- who may do what -------------------------------------------------------------------------------------------------

_OPEN = frozenset(State) - ENDED

ALLOWED_IN: Mapping[Operation, frozenset[State]] = {
    Operation.CHOOSE: frozenset((State.AWAITING_CHOICE, State.AWAITING_DOCUMENTS, State.QUEUED)),
    Operation.SEND: frozenset((State.AWAITING_DOCUMENTS, State.QUEUED, State.IN_REVIEW)),
    Operation.CLAIM: frozenset((State.QUEUED,)),
    Operation.RELEASE: frozenset((State.IN_REVIEW, State.AWAITING_DOCUMENTS)),
    Operation.CHECK: frozenset((State.IN_REVIEW, State.AWAITING_DOCUMENTS)),
    Operation.ATTACH: frozenset((State.IN_REVIEW, State.AWAITING_DOCUMENTS)),
    Operation.ASK: frozenset((State.IN_REVIEW,)),
    Operation.APPROVE: frozenset((State.IN_REVIEW, State.AWAITING_SECOND)),
    Operation.RETURN: frozenset((State.AWAITING_SECOND,)),
    Operation.REFUSE: frozenset((State.IN_REVIEW, State.AWAITING_DOCUMENTS, State.AWAITING_SECOND)),
    Operation.CANCEL: _OPEN,
    Operation.EXPIRE: frozenset((State.AWAITING_CHOICE, State.AWAITING_DOCUMENTS)),
}

_OF_THE_DESK = frozenset((
    Operation.CLAIM, Operation.RELEASE, Operation.CHECK, Operation.ATTACH, Operation.ASK, Operation.APPROVE,
    Operation.RETURN, Operation.REFUSE,
))  # fmt: skip


def why_not(operation: Operation, facts: CaseFacts, person: str | None, now: datetime) -> Problem | None:
    """The reason to refuse, or None. `person` is the user id of whoever wants it; permissions are asked elsewhere."""
    state = state_of(facts)
    if state not in ALLOWED_IN[operation]:
        return _not_now(operation, facts, state)
    if operation in _OF_THE_DESK:
        return _why_not_at_the_desk(operation, facts, state, person, now)
    if operation is Operation.SEND and facts.documents >= MOST_DOCUMENTS:
        return _too_many_documents()
    if operation is Operation.CHOOSE and facts.claimed_by is not None:
        return Refused(
            "case_claimed", "A specialist is at work on it; the way can't be changed any more.",
            fix="Send what is asked for, or ask the specialist.",
        )  # fmt: skip
    if operation is Operation.EXPIRE and (facts.waiting_since is None or now - facts.waiting_since < PATIENCE):
        return Refused("case_not_silent", "The applicant still has time.", fix="Wait.")
    return None


def _not_now(operation: Operation, facts: CaseFacts, state: State) -> Refused:
    if operation is Operation.CLAIM and state is State.IN_REVIEW:
        return Refused(
            "case_claimed", "Somebody else has taken this case.", fix="Take another one from the queue.",
            extra={"state": state.value},
        )  # fmt: skip
    return Refused(
        "case_state", f"This can't be done ({operation.value}) while the case is {state.value.replace('_', ' ')}.",
        fix=_AHEAD[state], extra={"state": state.value, "operation": operation.value},
    )  # fmt: skip


_AHEAD: Mapping[State, str] = {
    State.AWAITING_CHOICE: "The applicant has to choose first how to be verified.",
    State.AWAITING_DOCUMENTS: "The applicant has to send documents first.",
    State.QUEUED: "A specialist has to take the case first.",
    State.IN_REVIEW: "The specialist at work has to finish or release it.",
    State.AWAITING_SECOND: "A second specialist has to decide.",
    State.VERIFIED: "Nothing remains to be done.",
    State.REFUSED: "Apply again.",
    State.CANCELLED: "Apply again.",
}


def _why_not_at_the_desk(
    operation: Operation, facts: CaseFacts, state: State, person: str | None, now: datetime
) -> Problem | None:
    if person is None:
        return Forbidden(
            "person_needed", "Only a person can verify an organization.", fix="Sign in, or use a token of a user."
        )
    if person in facts.applicants and not facts.may_be_alone:
        return Forbidden(
            "own_case", "You applied here, or sent the applicant's documents: nobody verifies their own application.",
            fix="Leave the case to a colleague. Who runs this server alone may verify OV with the setting lone_desk.",
        )  # fmt: skip
    if operation is Operation.CLAIM:
        return None
    if state is State.AWAITING_SECOND:
        return _why_not_second(facts, person)
    if facts.claimed_by != person:
        idle = facts.worked_at is not None and now - facts.worked_at >= IDLE
        if operation is Operation.RELEASE and facts.claimed_by is not None and idle:
            return None
        return Refused(
            "case_not_yours", "The case is not in your hands.",
            fix="Take it from the queue. A claim nobody worked on for 24 hours can be released by anybody.",
        )  # fmt: skip
    if operation is Operation.ATTACH and facts.documents >= MOST_DOCUMENTS:
        return _too_many_documents()
    if operation is Operation.APPROVE and (left := missing(facts)):
        return Refused(
            "checks_missing", f"These checks haven't passed yet: {', '.join(left)}.",
            fix="Record each with its source, or refuse the case.", extra={"missing": list(left)},
        )  # fmt: skip
    return None


def _why_not_second(facts: CaseFacts, person: str) -> Problem | None:
    if person == facts.approved_by:
        return Refused(
            "four_eyes", "You approved it already; for EV a second person has to decide.",
            fix="Ask a colleague to look at it.",
        )  # fmt: skip
    if person in facts.checkers:
        return Refused(
            "four_eyes", "You recorded checks of this case; the second person must not have gathered the evidence.",
            fix="Ask a colleague who had no part in it.",
        )  # fmt: skip
    return None


def _too_many_documents() -> Refused:
    return Refused(
        "too_many_documents", f"A case holds at most {MOST_DOCUMENTS} documents.",
        fix="Put several pages into one PDF.",
    )  # fmt: skip


def judge_reasons(given: Sequence[str]) -> list[str]:
    """One to ten sentences for the applicant."""
    if not 1 <= len(given) <= 10:
        raise Invalid(
            "reasons_needed", "A refusal needs one to ten reasons.", field="reasons",
            fix="Write for the applicant what is wrong and what would help.",
        )  # fmt: skip
    return [judge_text(reason, f"reasons.{number}", 500) for number, reason in enumerate(given)]


def asks_for(way: Way, sent: int) -> str | None:
    """What the applicant is asked for after this choice, when they sent so many documents before."""
    return SEND_DOCUMENTS if way is Way.DOCUMENTS and not sent else None


def silent() -> str:
    return f"Nothing was heard from the applicant for {PATIENCE.days} days."


def next_look(waiting_since: datetime, now: datetime) -> tuple[int, timedelta]:
    """(how many reminders are due by `now`, how long until the next reminder or the end of patience)."""
    due = sum(waiting_since + after <= now for after in REMINDERS)
    following = REMINDERS[due] if due < len(REMINDERS) else PATIENCE
    return due, max(waiting_since + following - now, timedelta(0))


# --- documents -------------------------------------------------------------------------------------------------------

EXTENSIONS: Mapping[str, str] = {"application/pdf": "pdf", "image/png": "png", "image/jpeg": "jpg"}
_BEGINNINGS = (
    (b"%PDF-", "application/pdf"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"),
)  # fmt: skip
_NOT_IN_NAMES = frozenset('/\\<>:"|?*')


def judge_document(name: str, content: bytes) -> tuple[str, str]:
    """(the name as kept, the media type its content has). Raises TooLarge, Invalid.

    What the sender claims about the type is not asked.
    """
    if len(content) > MOST_BYTES:
        raise TooLarge(
            "document_too_large", "The document is larger than 10 MB.", field="content",
            fix="Send fewer pages, or scan them with fewer dots per inch.",
        )  # fmt: skip
    found = next((kind for beginning, kind in _BEGINNINGS if content.startswith(beginning)), None)
    if found is None:
        raise Invalid(
            "document_type", "The content is neither PDF nor PNG nor JPEG.", field="content",
            fix="Save or scan the document as PDF, PNG or JPEG.",
        )  # fmt: skip
    return judge_file_name(name), found


def judge_file_name(name: str) -> str:
    """A name for people to read; nothing that is a path, markup or hidden."""
    plain = judge_text(name, "name", 120)
    if _NOT_IN_NAMES & set(plain) or plain.startswith(".") or ".." in plain:
        raise Invalid(
            "document_name", "The file name holds signs that don't belong into one.", field="name",
            fix='Use letters, digits, spaces, - and _; none of / \\ < > : " | ? * and no dot in front.',
        )  # fmt: skip
    return plain


# --- what the applicant sees -----------------------------------------------------------------------------------------

WAYS: Mapping[Way, str] = {
    Way.PHONE: "a call to the telephone number of the public directory",
    Way.DOCUMENTS: "documents you send",
    Way.OFFICIAL_MAIL: "a letter to the registered address",
}

SEND_DOCUMENTS = (
    "Send an extract of the public register and a paper, signed for the organization, that says you may apply for it."
)

_CHECKED: Mapping[Item, str] = {
    Item.EXISTENCE: "That the organization exists in its public register",
    Item.ADDRESS: "The address",
    Item.PHONE: "The telephone number in a public directory",
    Item.APPLICANT_AUTHORITY: "That you may apply for the organization",
    Item.OPERATIONAL_EXISTENCE: "That the organization is in business",
    Item.REQUESTER_AUTHORITY: "That the person who requests the certificate may do so",
    Item.APPROVER_AUTHORITY: "That the person who approves the request may do so",
}


def progress(facts: CaseFacts) -> tuple[Progress, ...]:
    """Every item of a case in order: done, open, later or failed, and whose turn it is."""
    state = state_of(facts)
    lines = [_choice(facts, state)]
    if facts.asked:
        lines.append(_documents(state))
    lines += [_checked(item, facts, state) for item in REQUIRED[facts.level]]
    lines += _decisions(facts, state)
    return tuple(lines)


def _line(item: str, state: str, turn: Turn, sentence: str) -> Progress:
    return Progress(item, state, Turn.NOBODY if state in ("done", "failed") else turn, sentence)


def _stopped(item: str, state: State, sentence: str) -> Progress:
    done = state is State.VERIFIED
    return _line(item, "done" if done else "failed", Turn.NOBODY, f"{sentence} {'is' if done else 'was not'} verified.")


def _choice(facts: CaseFacts, state: State) -> Progress:
    if facts.way is not None:
        return _line("way", "done", Turn.APPLICANT, f"You chose to be verified by {WAYS[facts.way]}.")
    if state is State.VERIFIED:
        return _line("way", "done", Turn.NOBODY, "The organization was verified before; nothing has to be chosen.")
    if state in ENDED:
        return _line("way", "failed", Turn.NOBODY, "No way to be verified was chosen.")
    return _line("way", "open", Turn.APPLICANT, "Choose how you want to be verified; the link was mailed to you.")


def _documents(state: State) -> Progress:
    if state is State.AWAITING_DOCUMENTS:
        return _line("documents", "open", Turn.APPLICANT, "Send the documents that were asked for.")
    if state in (State.REFUSED, State.CANCELLED):
        return _line("documents", "failed", Turn.NOBODY, "No more documents are needed.")
    return _line("documents", "done", Turn.APPLICANT, "Your documents arrived.")


def _checked(item: Item, facts: CaseFacts, state: State) -> Progress:
    what = _CHECKED[item]
    outcome = facts.outcomes.get(item)
    if outcome is Outcome.PASSED or state is State.VERIFIED:
        return _line(item.value, "done", Turn.DESK, f"{what} is verified.")
    if state in ENDED:
        return _stopped(item.value, state, what)
    if outcome is Outcome.FAILED:
        # Not the end: the specialist may find a better source, or refuse.
        return _line(item.value, "open", Turn.DESK, f"{what} couldn't be verified yet; a specialist looks further.")
    if state in (State.QUEUED, State.IN_REVIEW):
        return _line(item.value, "open", Turn.DESK, f"{what} is being verified; you have nothing to do.")
    return _line(item.value, "later", Turn.DESK, f"{what} is verified next.")


def _decisions(facts: CaseFacts, state: State) -> list[Progress]:
    names = [("approval", "A specialist")]
    if facts.level is Level.EV:
        names.append(("second_approval", "A second specialist"))
    if state is State.VERIFIED:
        return [_line(item, "done", Turn.DESK, f"{who} approved.") for item, who in names]
    if state is State.REFUSED:
        said = " ".join(facts.reasons) or "The organization was not verified."
        return [_line("approval", "failed", Turn.DESK, said)]
    if state is State.CANCELLED:
        return [_line("approval", "failed", Turn.DESK, "The application was withdrawn.")]
    passed = not missing(facts)
    approvals = 1 if state is State.AWAITING_SECOND else 0
    lines = []
    for number, (item, who) in enumerate(names):
        if number < approvals:
            lines.append(_line(item, "done", Turn.DESK, f"{who} approved."))
        elif number == approvals and passed:
            lines.append(_line(item, "open", Turn.DESK, f"{who} decides; you have nothing to do."))
        else:
            lines.append(_line(item, "later", Turn.DESK, f"{who} decides when everything before is verified."))
    return lines


def judge_type(text: str) -> CertificateType:
    return judge_word(CertificateType, text, "type", "OV or EV certificate type")
