"""
The pages of one instance: health, metrics, the JSON API, the dashboard. GET only, no waiting.

An answer is made from a path, a query string and headers, synchronously and in bounded time; who
holds the socket sends it. Errors of the API are JSON, `{code, message}`, one clear line each.

Access: health pages and the dashboard's own files are open, they say nothing of sessions. All
else (`/metrics`, `/api/`) is open on loopback; beyond it a client's or a node's token is asked for
where the server has any, as `Authorization: Bearer TOKEN`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote

import msgspec

from simsched.errors import ConfigError
from simsched.live import dry_run, stats
from simsched.live.admission import TokenBook, shown_token
from simsched.live.gauges import Gauges
from simsched.live.metrics import CONTENT_TYPE
from simsched.live.serving import Serving
from simsched.live.settings_rules import is_loopback
from simsched.units import MS

QUERY_MAX: Final = 4_096
"""Characters of a query string; the longest that makes sense is a few hundred."""

FIELDS_MAX: Final = 64
LIMIT_MAX: Final = 500
LAG_ALIVE_NS: Final = 5_000 * MS
"""A loop that was later than this for its last timer is not healthy."""

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
PAGES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
    "/dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
    "/uPlot.iife.min.js": ("uPlot.iife.min.js", "text/javascript; charset=utf-8"),
    "/uPlot.min.css": ("uPlot.min.css", "text/css; charset=utf-8"),
}
"""The dashboard's files: nothing else of the disk can be asked for."""

_encode = msgspec.json.Encoder().encode


class HttpAnswer(NamedTuple):
    """What goes back: the body is complete."""

    status: int
    content_type: str
    body: bytes


Handler = Callable[[Mapping[str, list[str]]], HttpAnswer]


def as_json(value: Any, status: int = 200) -> HttpAnswer:
    """A JSON answer."""
    return HttpAnswer(status, JSON, _encode(value))


def failure(status: int, code: str, message: str) -> HttpAnswer:
    """An error as the API tells it."""
    return as_json({"code": code, "message": message}, status)


def dashboard_file(name: str) -> bytes:
    """One file of the dashboard, as it was installed."""
    return (resources.files("simsched.live") / "dashboard" / name).read_bytes()


class Api:
    """Answers for one instance."""

    def __init__(self, instance: Serving) -> None:
        self._instance = instance
        auth, host = instance.settings.auth, instance.settings.server.host
        files = (auth.client_tokens_file, auth.node_tokens_file)
        guarded = not is_loopback(host)
        self._tokens = [TokenBook.read(Path(file)) for file in files if file and guarded]
        instance.metrics.on_scrape.append(Gauges(instance).refresh)
        self._open: dict[str, Handler] = {
            "/health": lambda _: HttpAnswer(200, TEXT, b"OK"),
            "/healthz": self._alive,
            "/readyz": self._ready,
        }
        self._guarded: dict[str, Handler] = {
            "/metrics": lambda _: HttpAnswer(200, CONTENT_TYPE, instance.metrics.render()),
            "/api/v1/stats": lambda _: as_json(stats.stats(instance)),
            "/api/v1/metrics": lambda _: as_json(stats.metrics_json(instance)),
            "/api/v1/cluster": self._cluster,
            "/api/v1/phase3/pools": lambda _: as_json(dry_run.pools(instance)),
            "/api/v1/phase3/simulate": lambda query: as_json(dry_run.simulate(instance, query)),
            "/api/v1/decisions": self._decisions,
        }

    def answer(self, path: str, query: str, headers: Mapping[str, str]) -> HttpAnswer:
        """
        The answer to one GET.

        Args:
            path: of the URL, without the query.
            query: what stands after its question mark, "" for none.
            headers: by name; names in any case.

        """
        page = PAGES.get(path)
        if page is not None:
            return HttpAnswer(200, page[1], dashboard_file(page[0]))
        handler = self._open.get(path)
        if handler is not None:
            return handler({})
        if not path.startswith(("/api/", "/metrics")):
            return failure(404, "NOT_FOUND", f"no such page: {path[:100]}")
        if not self._may(headers):
            return failure(401, "UNAUTHENTICATED", "a token is needed: Authorization: Bearer ...")
        try:
            return self._api(path, _parsed(query))
        except ConfigError as error:
            return failure(400, "INVALID_QUERY", str(error))

    def _api(self, path: str, query: dict[str, list[str]]) -> HttpAnswer:
        handler = self._guarded.get(path)
        if handler is not None:
            return handler(query)
        prefix = "/api/v1/jobs/"
        if path.startswith(prefix) and len(path) > len(prefix):
            return self._job(unquote(path.removeprefix(prefix)))
        return failure(404, "NOT_FOUND", f"no such page: {path[:100]}")

    def _may(self, headers: Mapping[str, str]) -> bool:
        if not self._tokens:
            return True
        token = shown_token({name.lower(): value for name, value in headers.items()})
        return bool(token) and any(book.name_of(token) is not None for book in self._tokens)

    # Health

    def _alive(self, _query: Mapping[str, list[str]]) -> HttpAnswer:
        lag_ns = self._instance.metrics.last_lag_ns
        told = {"status": "ok" if lag_ns < LAG_ALIVE_NS else "lagging", "loop_lag_ms": lag_ns / MS}
        return as_json(told, 200 if lag_ns < LAG_ALIVE_NS else 503)

    def _ready(self, _query: Mapping[str, list[str]]) -> HttpAnswer:
        if self._instance.draining:
            return failure(503, "SERVER_DRAINING", "takes no more sessions")
        connection = self._instance.store.connection
        if not connection.is_up:
            reason = connection.last_error or "not connected"
            return failure(503, "SCHEDULER_DEPENDENCY_DOWN", f"the store is away: {reason}")
        return as_json({"status": "ready"})

    # The API

    def _cluster(self, _query: Mapping[str, list[str]]) -> HttpAnswer:
        if not self._instance.settings.store.redis_url:
            return failure(
                503, "NOT_SHARED", "one instance on a store of its own: set store.redis_url"
            )
        return as_json(stats.cluster(self._instance))

    def _decisions(self, query: Mapping[str, list[str]]) -> HttpAnswer:
        for name in query:
            if name != "limit":
                raise ConfigError("query", name, "limit")
        limit = _limit(query.get("limit", ["50"])[-1])
        log = self._instance.decisions
        return as_json({"decisions": log.recent(limit), "jobs": log.jobs(limit)})

    def _job(self, job_id: str) -> HttpAnswer:
        found = self._instance.decisions.job(job_id)
        if found is None:
            return failure(404, "UNKNOWN_JOB", f"no such job is remembered: {job_id[:200]}")
        return as_json(found)


def _parsed(query: str) -> dict[str, list[str]]:
    if len(query) > QUERY_MAX:
        raise ConfigError("query", "length", f"at most {QUERY_MAX} characters")
    try:
        return parse_qs(
            query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=FIELDS_MAX,
            errors="strict",
        )  # fmt: skip
    except (ValueError, UnicodeDecodeError):
        raise ConfigError("query", "form", f"name=value&..., at most {FIELDS_MAX}") from None


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= LIMIT_MAX):
        raise ConfigError("query", "limit", f"a whole number from 1 to {LIMIT_MAX}")
    return int(text)
