"""Structured logs without secrets, and the metrics registry.

A log line is an event name and facts. Keys that may hold a secret are masked whatever their value, because one
careless line is enough.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram

REGISTRY = CollectorRegistry()
STEPS_TOTAL = Counter("certwright_steps", "Steps run, by name and outcome", ["step", "outcome"], registry=REGISTRY)
STEP_SECONDS = Histogram("certwright_step_seconds", "Time one step took", ["step"], registry=REGISTRY)
REQUESTS = Counter(
    "certwright_http_requests",
    "Requests, by method, route and status",
    ["method", "route", "status"],
    registry=REGISTRY,
)

_SECRET_KEY = re.compile(
    r"passw|passphrase|secret|token|authorization|cookie|private|credential|api_key", re.IGNORECASE
)
_SECRET_TEXT = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
    r"|\bcwt_[0-9a-zA-Z]+_[0-9A-Za-z_-]+",
    re.DOTALL,
)


def mask_secrets(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Processor: values under telling keys, and key blocks, URL passwords and API tokens inside any text."""
    for key, value in event.items():
        if _SECRET_KEY.search(key):
            event[key] = "***"
        elif isinstance(value, str):
            event[key] = _SECRET_TEXT.sub("***", value)
    return event


def configure_logging(*, format: str = "auto", level: str = "info") -> None:
    """Send structlog and the standard library's loggers to stderr: text on a terminal, JSON elsewhere."""
    as_text = format == "text" or (format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        mask_secrets,
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if as_text
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer], foreign_pre_chain=shared
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING if level != "debug" else logging.INFO)
