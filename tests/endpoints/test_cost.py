"""The budget of a run: it adds up costs, and ends the run at its limit."""

import asyncio

import pytest

from vlmbatch.endpoints.cost import Budget


def test_costs_add_up_from_nothing() -> None:
    """The cost is unknown until a completion has one; from then on it is the sum of those that are known."""
    budget = Budget(None, asyncio.Event(), print)
    budget.spend(None)
    assert budget.spent is None
    for cost in (0.0, 0.25, None, 0.5):
        budget.spend(cost)
    assert budget.spent == pytest.approx(0.75)


def test_the_limit_ends_the_run_once() -> None:
    """The run goes on below the limit, is stopped when it is reached, and says so once."""
    told, stop = list[str](), asyncio.Event()
    budget = Budget(1.0, stop, told.append)
    budget.spend(0.75)
    assert (stop.is_set(), told) == (False, [])
    budget.spend(0.25)
    assert stop.is_set()
    budget.spend(0.25)
    assert len(told) == 1
    assert told[0].startswith("$1.0000 are spent, and --max-cost is reached")
