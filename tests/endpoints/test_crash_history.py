"""The crashes of an engine during the requests of one image."""

from vlmbatch.endpoints.crash_history import CrashHistory


def test_an_engine_that_says_it_crashed_makes_a_suspect() -> None:
    """A crash among others makes a suspect; two of them alone make the image guilty."""
    crashes = CrashHistory()
    crashes.failed("crash", alone=False, counted=True, downs=0)
    assert (crashes.suspect, crashes.reported) == (True, 0)
    crashes.failed("crash", alone=True, counted=True, downs=0)
    assert (crashes.reported, crashes.is_guilty) == (1, False)
    crashes.failed("crash", alone=True, counted=True, downs=0)
    assert crashes.is_guilty


def test_an_engine_that_is_found_gone_may_have_been_restarted() -> None:
    """Without a word from the engine it takes four crashes alone, or fewer where it told of one."""
    silent, one_word = CrashHistory(), CrashHistory()
    one_word.failed("crash", alone=True, counted=True, downs=0)
    for downs in range(3):
        assert not silent.is_guilty
        assert not one_word.is_guilty
        for crashes in (silent, one_word):
            crashes.failed("connection", alone=True, counted=True, downs=downs)
            crashes.refund(downs + 1)
    assert one_word.is_guilty
    assert not silent.is_guilty
    silent.failed("connection", alone=True, counted=True, downs=3)
    silent.refund(4)
    assert silent.is_guilty


def test_a_request_that_went_down_with_the_endpoint_is_a_crash_and_no_attempt() -> None:
    """Broken off, and then nobody was there: a suspect, and its attempt is given back, once."""
    crashes = CrashHistory()
    crashes.failed("connection", alone=True, counted=True, downs=3)
    assert crashes.refund(3) == 0
    assert not crashes.suspect
    assert crashes.refund(4) == 1
    assert (crashes.suspect, crashes.found) == (True, 1)
    assert crashes.refund(9) == 0


def test_all_attempts_that_an_outage_took_are_given_back() -> None:
    """Several requests may break off before the outage shows; they are one crash."""
    crashes = CrashHistory()
    crashes.failed("server_error", alone=True, counted=True, downs=0)
    crashes.failed("connection", alone=True, counted=True, downs=0)
    assert crashes.refund(1) == 2
    assert crashes.found == 1


def test_what_cost_nothing_is_not_given_back() -> None:
    """A reset of a kept connection was asked again for nothing, so that there is nothing to refund."""
    crashes = CrashHistory()
    crashes.failed("connection", alone=False, counted=False, downs=0)
    assert crashes.refund(1) == 0
    assert crashes.suspect


def test_a_failure_while_the_endpoint_stays_is_no_crash() -> None:
    """A lost connection or a 500 alone makes no suspect, and neither does a timeout before an outage."""
    crashes = CrashHistory()
    for kind in ("connection", "server_error"):
        crashes.failed(kind, alone=True, counted=True, downs=0)
        assert crashes.refund(0) == 0
    slow = CrashHistory()
    slow.failed("timeout", alone=True, counted=True, downs=0)
    assert slow.refund(1) == 0
    assert not crashes.suspect
    assert not slow.suspect
