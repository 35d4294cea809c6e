"""DNS operators that have no dynamic updates but an API of their own, through the providers of `dns-lexicon`."""

from __future__ import annotations

from certwright.connectors.dns.lexicon.connector import LexiconProvider, LexiconWriter

__all__ = ["LexiconProvider", "LexiconWriter"]
