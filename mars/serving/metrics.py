"""What ``/metrics`` tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mars.serving.desk import Desk, GoneError, Ticket
from mars.serving.messages import Ended

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
PER_FORWARD = (1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 6, 8, 12, 16)
TAU = "Threshold of requests that bring none; 1: one token per forward"
REQUESTS = "Requests; gone: the client went away, full: too many were waiting"
OUTCOMES = ("answered", "gone", "refused", "full", "failed")


class Metrics:
    """Counts of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("mars_requests", REQUESTS, ["outcome"], registry=registry)
        for outcome in OUTCOMES:
            self.requests.labels(outcome)
        self.tokens = Counter("mars_tokens", "Tokens of complete answers", registry=registry)
        self.forwards = Counter(
            "mars_forwards", "Forwards that each complete answer took part in", registry=registry
        )
        self.per_forward = Histogram(
            "mars_tokens_per_forward",
            "Tokens per forward of each complete answer",
            buckets=PER_FORWARD,
            registry=registry,
        )
        self.latency = Histogram(
            "mars_request_seconds",
            "From the arrival of a request to its last token",
            buckets=SECONDS,
            registry=registry,
        )
        self.first_token = Histogram(
            "mars_first_token_seconds",
            "From the arrival of a request to its first token",
            buckets=SECONDS,
            registry=registry,
        )

    def watch(self, desk: Desk) -> None:
        """Show the present state of a desk."""
        self._gauge("mars_slots", "Sequences decoded side by side", lambda: desk.facts.slots)
        self._gauge("mars_slots_in_use", "Sequences being decoded", lambda: desk.running)
        self._gauge("mars_requests_waiting", "Requests without a slot", lambda: desk.waiting)
        self._gauge("mars_tau", TAU, lambda: 1 if desk.tau is None else desk.tau)

    def _gauge(self, name: str, about: str, value: Callable[[], float]) -> None:
        Gauge(name, about, registry=self.registry).set_function(value)

    def ended(self, ticket: Ticket) -> None:
        """Count a request that was taken."""
        match ticket.outcome:
            case Ended(decoded=decoded, started=started, ended=ended):
                self.requests.labels("answered").inc()
                self.tokens.inc(len(decoded.tokens))
                self.forwards.inc(decoded.forwards)
                self.per_forward.observe(len(decoded.tokens) / decoded.forwards)
                self.latency.observe(ended - ticket.arrived)
                self.first_token.observe(started - ticket.arrived)
            case GoneError():
                self.requests.labels("gone").inc()
            case _:
                self.requests.labels("failed").inc()

    def refused(self, status: int) -> None:
        """Count a request that was not taken."""
        self.requests.labels("full" if status == 429 else "refused").inc()

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
