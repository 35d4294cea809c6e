"""What was typed is read in time that grows with its length, however its brackets stand."""

from __future__ import annotations

import pytest

from certwright.platform.typed_yaml import DEEPEST, TooDeep, tokens


@pytest.mark.parametrize(
    "level",
    ["[", "{a: ", "- ", "a:\n"],
    ids=["lists in brackets", "fields in braces", "lists with hyphens", "fields by indentation"],
)
def test_one_level_more_than_the_deepest_is_refused_with_its_line(level: str) -> None:
    def nested(levels: int) -> str:
        lines = (("" if level[0] in "[{" else " " * number) + level for number in range(levels))
        return "a: 1\nb:\n " + "\n ".join("\n".join(lines).split("\n"))

    opened = [token for token in tokens(nested(DEEPEST - 1)) if "Start" in type(token).__name__]
    assert len(opened) == DEEPEST + 1, "the stream, the outermost fields, and each level"
    with pytest.raises(TooDeep) as caught:
        list(tokens(nested(DEEPEST)))
    assert caught.value.line > DEEPEST


def test_lists_beside_each_other_are_no_levels() -> None:
    assert sum(1 for _ in tokens("[" + "[], " * 1000 + "]")) > 3000


def test_sixty_thousand_brackets_are_refused_at_once() -> None:
    """PyYAML alone takes four minutes."""
    with pytest.raises(TooDeep):
        list(tokens("[" * 60_000))
