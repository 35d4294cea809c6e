"""YAML that somebody typed: what would keep its reader busy for minutes is found while it is split into tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import yaml

DEEPEST: Final = 32
"""Levels of lists and fields within each other."""

_OPENS: Final = (
    yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken, yaml.BlockSequenceStartToken, yaml.BlockMappingStartToken,
)  # fmt: skip
_CLOSES: Final = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


class TooDeep(ValueError):
    """`line`, counted from 1, opens one level too many."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line} opens level {DEEPEST + 1}")
        self.line = line


def tokens(text: str) -> Iterator[yaml.Token]:
    """The tokens of the text. Raises TooDeep, and yaml.YAMLError for what is no YAML.

    The time PyYAML takes grows with the square of the brackets that are open: 64 KiB of them are four minutes.
    """
    depth = 0
    for token in yaml.scan(text, yaml.SafeLoader):
        if isinstance(token, _OPENS):
            depth += 1
            if depth > DEEPEST:
                raise TooDeep(token.start_mark.line + 1)
        elif isinstance(token, _CLOSES):
            depth -= 1
        yield token
