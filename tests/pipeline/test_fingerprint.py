"""What of the options shapes an answer."""

from vlmbatch.config import RunConfig
from vlmbatch.config.spec import redact
from vlmbatch.pipeline.fingerprint import answer_settings, run_digest
from vlmbatch.records import Endpoint


def test_settings_hold_no_secrets_and_name_a_run() -> None:
    """The key is in no setting; other weights under the same name are another run."""
    config = RunConfig.of("photos", api_key="s3cret", base_url="http://me:pa55@host/v1")
    runs = set()
    for digest in ("aa", "bb", None):
        endpoint = Endpoint(backend="ollama", url=redact("http://me:pa55@host/v1"), model="m", digest=digest)
        settings = answer_settings(config, endpoint, "p")
        assert "s3cret" not in str(settings)
        assert "pa55" not in str(settings)
        runs.add(run_digest(settings))
    assert len(runs) == 3
    assert all(len(run) == 12 for run in runs)


def test_where_a_model_is_served_does_not_matter() -> None:
    """Moving the same weights from one server to another goes on with the same run."""
    config = RunConfig.of("photos")
    here = Endpoint(backend="ollama", url="http://a", model="m", digest="aa")
    there = Endpoint(backend="ollama", url="http://b", model="m", digest="aa")
    assert run_digest(answer_settings(config, here, "p")) == run_digest(answer_settings(config, there, "p"))


def test_a_whole_number_names_the_same_run() -> None:
    """A temperature of 0, as a program gives it, is that of 0.0."""
    found = Endpoint(backend="ollama", url="http://a", model="m")
    runs = {run_digest(answer_settings(RunConfig.of("p", temperature=t), found, "p")) for t in (0, 0.0)}
    assert len(runs) == 1
