"""Runs one operation of one lexicon provider, in a process of its own: a job on standard input, its outcome on standard
output, both JSON. See docs/decisions for why this isn't done in the server's process.

Only the standard library and lexicon are imported, so that `python -I worker.py` is enough.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def _provider(job: dict[str, Any]) -> Any:
    from lexicon._private.discovery import load_provider_module
    from lexicon.config import ConfigResolver

    # Not lexicon's Client: it would download a list of public suffixes to guess the zone that we know.
    resolver: Any = ConfigResolver  # its constructor has no types
    config = resolver().with_dict({
        "provider_name": job["provider"], "domain": job["zone"], "ttl": job["ttl"], job["provider"]: job["options"],
    })  # fmt: skip
    return load_provider_module(job["provider"]).Provider(config)


def _plain(content: object) -> str:
    return str(content).strip('"')


def _same(rdtype: str, content: object, value: str) -> bool:
    if rdtype == "CNAME":
        return str(content).rstrip(".").lower() == value.rstrip(".").lower()
    return _plain(content) == value


def _run(job: dict[str, Any]) -> dict[str, Any]:
    provider = _provider(job)
    provider.authenticate()
    try:
        return _operate(provider, job)
    finally:
        provider.cleanup()


def _operate(provider: Any, job: dict[str, Any]) -> dict[str, Any]:
    if job["operation"] == "check":
        return {"outcome": "done"}
    name, rdtype, value = job["name"] + ".", job["type"], job["value"]
    there = [record for record in provider.list_records(rdtype, name) if _same(rdtype, record["content"], value)]
    if job["operation"] == "add":
        if there:
            return {"outcome": "done"}
        aliases = provider.list_records("CNAME", name)
        if aliases:
            return {"outcome": "cname", "detail": str(aliases[0]["content"]).rstrip(".")[:253]}
        # Not every operator refuses it, and lexicon can't ask for records of all types.
        if rdtype == "CNAME" and any(provider.list_records(other, name) for other in ("A", "AAAA", "TXT", "MX")):
            return {"outcome": "taken"}
        provider.create_record(rdtype, name, value)
        # Some providers take a target for a name below the zone, whatever dot it ends with.
        if rdtype == "CNAME" and not any(
            _same(rdtype, r["content"], value) for r in provider.list_records(rdtype, name)
        ):
            provider.delete_record(rtype=rdtype, name=name)
            return {"outcome": "changed"}
    elif there:
        provider.delete_record(rtype=rdtype, name=name, content=there[0]["content"] if rdtype == "CNAME" else value)
    return {"outcome": "done"}


def _options(providers: list[str]) -> dict[str, list[str]]:
    import argparse

    from lexicon._private.discovery import load_provider_module

    found = {}
    for name in providers:
        parser = argparse.ArgumentParser(add_help=False)
        load_provider_module(name).Provider.configure_parser(parser)
        found[name] = [action.dest.replace("-", "_") for action in parser._actions]
    return found


def _outcome(job: dict[str, Any]) -> dict[str, Any]:
    """What happened, without the words of the provider: they may repeat credentials."""
    import requests
    from lexicon.exceptions import AuthenticationError

    try:
        return _run(job)
    except AuthenticationError:
        return {
            "outcome": "denied",
            "detail": "the operator refused the credentials, or doesn't hold the zone for them",
        }
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        return {"outcome": "status", "status": status, "detail": f"status {status}"}
    except requests.RequestException as error:
        return {"outcome": "unreachable", "detail": type(error).__name__}
    except Exception as error:  # noqa: BLE001  # providers raise whatever they like, plain Exception among them
        return {"outcome": "failed", "detail": type(error).__name__}


def main() -> None:
    job = json.load(sys.stdin)
    try:
        from lexicon._private.discovery import find_providers
    except ImportError:
        said: dict[str, Any] = {"outcome": "missing", "detail": "dns-lexicon"}
    else:
        available = find_providers()
        if job["operation"] == "providers":
            said = {"outcome": "done", "providers": available, "options": _options(list(available))}
        elif not available.get(job["provider"]):
            said = {"outcome": "missing", "detail": f"dns-lexicon[{job['provider']}]"}
        else:
            said = _outcome(job)
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
