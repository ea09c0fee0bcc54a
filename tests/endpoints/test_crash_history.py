"""The crash history of one image: suspicion, guilt and refunds."""

from vlmbatch.endpoints.crash_history import CrashHistory


def test_a_reported_crash_makes_a_suspect() -> None:
    """A reported crash among other images makes a suspect; after two crashes alone the image fails."""
    crashes = CrashHistory()
    crashes.failed("crash", alone=False, counted=True, downs=0)
    assert (crashes.suspect, crashes.reported) == (True, 0)
    crashes.failed("crash", alone=True, counted=True, downs=0)
    assert (crashes.reported, crashes.causes_crashes) == (1, False)
    crashes.failed("crash", alone=True, counted=True, downs=0)
    assert crashes.causes_crashes


def test_unreported_crashes_need_more_evidence() -> None:
    """With crashes that the engine does not report, an image fails at the fourth in all, reports included."""
    unreported, reported_once = CrashHistory(), CrashHistory()
    reported_once.failed("crash", alone=True, counted=True, downs=0)
    for downs in range(3):
        assert not unreported.causes_crashes
        assert not reported_once.causes_crashes
        for crashes in (unreported, reported_once):
            crashes.failed("connection", alone=True, counted=True, downs=downs)
            crashes.refund(downs + 1)
    assert reported_once.causes_crashes
    assert not unreported.causes_crashes
    unreported.failed("connection", alone=True, counted=True, downs=3)
    unreported.refund(4)
    assert unreported.causes_crashes


def test_a_request_lost_in_an_outage_is_a_crash_and_no_attempt() -> None:
    """A request that broke off before an outage makes a suspect, and its attempt is refunded once."""
    crashes = CrashHistory()
    crashes.failed("connection", alone=True, counted=True, downs=3)
    assert crashes.refund(3) == 0
    assert not crashes.suspect
    assert crashes.refund(4) == 1
    assert (crashes.suspect, crashes.found) == (True, 1)
    assert crashes.refund(9) == 0


def test_all_attempts_lost_in_an_outage_are_refunded() -> None:
    """Several attempts that broke off before one outage are all refunded, and are one crash."""
    crashes = CrashHistory()
    crashes.failed("server_error", alone=True, counted=True, downs=0)
    crashes.failed("connection", alone=True, counted=True, downs=0)
    assert crashes.refund(1) == 2
    assert crashes.found == 1


def test_a_free_attempt_is_not_refunded() -> None:
    """A reset of a kept connection costs no attempt, so an outage refunds none, but makes a suspect."""
    crashes = CrashHistory()
    crashes.failed("connection", alone=False, counted=False, downs=0)
    assert crashes.refund(1) == 0
    assert crashes.suspect


def test_a_failure_without_an_outage_is_no_crash() -> None:
    """A lost connection or a 500 without an outage makes no suspect, nor does a timeout before an outage."""
    crashes = CrashHistory()
    for kind in ("connection", "server_error"):
        crashes.failed(kind, alone=True, counted=True, downs=0)
        assert crashes.refund(0) == 0
    slow = CrashHistory()
    slow.failed("timeout", alone=True, counted=True, downs=0)
    assert slow.refund(1) == 0
    assert not crashes.suspect
    assert not slow.suspect
