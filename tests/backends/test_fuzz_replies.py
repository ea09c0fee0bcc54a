"""Mutated replies of servers cost their own record, hint or endpoint, and no more."""

import asyncio
from pathlib import Path

import pytest
from fuzz_replies import Case, Fuzzing, Server, cases
from hypothesis import HealthCheck, Phase, given, settings


@pytest.mark.slow
@pytest.mark.long
def test_mutated_replies_end_as_an_answer_or_a_backend_error(tmp_path: Path) -> None:
    """Changed replies on every route raise only errors of vlmbatch, and each record is strict JSON."""
    with asyncio.Runner() as runner:
        server = Server()
        listening = server.started()
        started = Fuzzing.started(runner.run(listening.__aenter__()), tmp_path / "prices.json")
        fuzzing = runner.run(started.__aenter__())

        @settings(
            max_examples=250,
            derandomize=True,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(cases())
        def fuzz(case: Case) -> None:
            server.case = case
            runner.run(fuzzing.meet(case.kind, case.work))

        fuzz()
        runner.run(started.__aexit__(None, None, None))
        runner.run(listening.__aexit__(None, None, None))
    assert sum(fuzzing.outcomes.values()) >= 250
    assert fuzzing.outcomes["complete ok"] > 15
    assert fuzzing.outcomes["complete bad_response"] > 15
