"""The suite every CA passes, over a CA that sells."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from certwright.rooms import validation
from certwright.rooms.certificates import Wanted
from tests.cas import work
from tests.certificates.ca_conformance import CaConformance, Subject
from tests.conftest import World
from tests.servers.certcentral import fake_certcentral


class TestCertCentral(CaConformance):
    @pytest.fixture
    def subject(self, world: World) -> Iterator[Subject]:
        with fake_certcentral() as ca:
            ca.now = world.clock.now
            added = work.add_shop(world, ca)

            def publish(wanted: Wanted) -> None:
                assert wanted.method is validation.Method.FILE
                assert wanted.place == "fileauth.txt"
                ca.published[wanted.name] = wanted.value

            yield Subject(world, added.id, ("a.demo.localhost", "b.demo.localhost"), publish)
