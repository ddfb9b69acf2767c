"""The server held to its own OpenAPI schema by Schemathesis: what it says it takes and answers is what it does."""

from __future__ import annotations

import pytest

from tests.server.conftest import Served

schemathesis = pytest.importorskip("schemathesis")
hypothesis = pytest.importorskip("hypothesis")

PATHS = (
    "/v1/embeddings",
    "/v1/search",
    "/v1/rerank",
    "/tokenize",
    "/v1/models",
    "/info",
    "/health",
    "/ready",
    "/metrics",
)


def held_to_the_schema(served: Served, path: str, cases: int) -> int:
    """Send generated requests, well-formed and not, to a route; return how many were sent."""
    base = str(served.client.base_url)
    schema = schemathesis.openapi.from_url(f"{base}/openapi.json")
    left_out = [
        schemathesis.checks.positive_data_acceptance
    ]  # the schema cannot say which models and columns there are
    sent = 0
    [operation] = [found.ok() for found in schema.get_all_operations() if found.ok().path == path]
    positive, negative = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
    for mode in [positive, negative] if operation.body else [positive]:

        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        @hypothesis.settings(
            max_examples=cases,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def hold(case) -> None:
            nonlocal sent
            sent += 1
            case.call_and_validate(excluded_checks=left_out)

        hold()
    return sent


@pytest.mark.parametrize("path", PATHS)
def test_requests_and_answers_are_those_of_the_schema(served: Served, path: str) -> None:
    assert held_to_the_schema(served, path, 8) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS[:4])
def test_many_requests(served: Served, path: str) -> None:
    assert held_to_the_schema(served, path, 300) >= 300
