"""`simsched why JOB`: what a server remembers of one job, as lines for a person."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from simsched.errors import SimschedError

LIMIT_S: Final = 10.0


def explain(url: str, job: str, token: str = "") -> str:
    """
    The story of a job.

    Raises:
        SimschedError: no server there, or it does not know the job.

    """
    asked = f"{url.rstrip('/')}/api/v1/jobs/{urllib.parse.quote(job, safe=':')}"
    if urllib.parse.urlsplit(asked).scheme not in ("http", "https"):
        raise SimschedError(f"why: {url}: an address of a server, such as http://127.0.0.1:5010")
    request = urllib.request.Request(asked)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as reply:
            found = msgspec.json.decode(reply.read())
    except urllib.error.HTTPError as error:
        raise SimschedError(f"why: {job}: {_reason(error)}") from None
    except (OSError, ValueError) as error:
        raise SimschedError(f"why: {url}: {error}") from None
    return "\n".join(_lines(found))


def _reason(error: urllib.error.HTTPError) -> str:
    with error:
        try:
            return str(msgspec.json.decode(error.read())["message"])
        except (msgspec.MsgspecError, KeyError, TypeError):
            return f"the server answered {error.code}"


def _lines(value: Any, indent: str = "") -> Iterator[str]:
    """A JSON value as an outline: one fact a line, tables of facts under their name."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value, 1)
    for name, inner in pairs:
        if isinstance(inner, dict | list) and inner:
            flat = isinstance(inner, list) and not any(isinstance(i, dict | list) for i in inner)
            if flat:
                yield f"{indent}{name}: {', '.join(map(str, inner))}"
                continue
            yield f"{indent}{name}:"
            yield from _lines(inner, indent + "  ")
        else:
            yield f"{indent}{name}: {inner if inner not in ({}, []) else '-'}"
