"""What is remembered of one image and the crashes of the engine."""

from vlmbatch.pipeline.task import CrashHistory


def test_an_engine_that_says_it_crashed_makes_a_suspect() -> None:
    """A crash among others makes a suspect; two of them alone make the image guilty."""
    trail = CrashHistory()
    trail.broke("crash", alone=False, counted=True, downs=0)
    assert (trail.suspect, trail.told) == (True, 0)
    trail.broke("crash", alone=True, counted=True, downs=0)
    assert (trail.told, trail.guilty) == (1, False)
    trail.broke("crash", alone=True, counted=True, downs=0)
    assert trail.guilty


def test_an_engine_that_is_found_gone_may_have_been_restarted() -> None:
    """Without a word from the engine it takes four crashes alone, or fewer where it told of one."""
    silent, one_word = CrashHistory(), CrashHistory()
    one_word.broke("crash", alone=True, counted=True, downs=0)
    for downs in range(3):
        assert not silent.guilty
        assert not one_word.guilty
        for trail in (silent, one_word):
            trail.broke("connection", alone=True, counted=True, downs=downs)
            trail.refund(downs + 1)
    assert one_word.guilty
    assert not silent.guilty
    silent.broke("connection", alone=True, counted=True, downs=3)
    silent.refund(4)
    assert silent.guilty


def test_a_request_that_went_down_with_the_endpoint_is_a_crash_and_no_attempt() -> None:
    """Broken off, and then nobody was there: a suspect, and its attempt is given back, once."""
    trail = CrashHistory()
    trail.broke("connection", alone=True, counted=True, downs=3)
    assert trail.refund(3) == 0
    assert not trail.suspect
    assert trail.refund(4) == 1
    assert (trail.suspect, trail.found) == (True, 1)
    assert trail.refund(9) == 0


def test_all_attempts_that_an_outage_took_are_given_back() -> None:
    """Several requests may break off before the outage shows; they are one crash."""
    trail = CrashHistory()
    trail.broke("server_error", alone=True, counted=True, downs=0)
    trail.broke("connection", alone=True, counted=True, downs=0)
    assert trail.refund(1) == 2
    assert trail.found == 1


def test_what_cost_nothing_is_not_given_back() -> None:
    """A reset of a kept connection was asked again for nothing, so that there is nothing to refund."""
    trail = CrashHistory()
    trail.broke("connection", alone=False, counted=False, downs=0)
    assert trail.refund(1) == 0
    assert trail.suspect


def test_a_failure_while_the_endpoint_stays_is_no_crash() -> None:
    """A lost connection or a 500 alone makes no suspect, and neither does a timeout before an outage."""
    trail = CrashHistory()
    for kind in ("connection", "server_error"):
        trail.broke(kind, alone=True, counted=True, downs=0)
        assert trail.refund(0) == 0
    slow = CrashHistory()
    slow.broke("timeout", alone=True, counted=True, downs=0)
    assert slow.refund(1) == 0
    assert not trail.suspect
    assert not slow.suspect
