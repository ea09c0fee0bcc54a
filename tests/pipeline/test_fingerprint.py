"""The fingerprint: which options and endpoints name another run."""

from vlmbatch.config import RunConfig
from vlmbatch.config.spec import redact
from vlmbatch.pipeline.fingerprint import answer_settings, run_digest
from vlmbatch.prompts.schemas import schema_text
from vlmbatch.records import Endpoint


def test_settings_hold_no_secrets_and_name_a_run() -> None:
    """Settings contain no key and no password, and other weights under the same name are another run."""
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


def test_the_url_of_the_endpoint_does_not_matter() -> None:
    """The same weights at another URL have the same fingerprint."""
    config = RunConfig.of("photos")
    here = Endpoint(backend="ollama", url="http://a", model="m", digest="aa")
    there = Endpoint(backend="ollama", url="http://b", model="m", digest="aa")
    assert run_digest(answer_settings(config, here, "p")) == run_digest(answer_settings(config, there, "p"))


def test_a_whole_number_names_the_same_run() -> None:
    """The temperatures 0 and 0.0 have the same fingerprint."""
    found = Endpoint(backend="ollama", url="http://a", model="m")
    runs = {run_digest(answer_settings(RunConfig.of("p", temperature=t), found, "p")) for t in (0, 0.0)}
    assert len(runs) == 1


def test_the_order_of_settings_does_not_matter() -> None:
    """Settings have one fingerprint in any order, as in a lock file that another program has written."""
    settings = answer_settings(RunConfig.of("p"), Endpoint(backend="ollama", url="http://a", model="m"), "p")
    assert run_digest(dict(reversed(settings.items()))) == run_digest(settings)


def test_sizes_have_fingerprints_of_their_own() -> None:
    """--max-size auto and two sizes in pixels are three runs."""
    found = Endpoint(backend="ollama", url="http://a", model="m")
    sizes = ("auto", "512", "1024")
    runs = {run_digest(answer_settings(RunConfig.of("p", max_size=size), found, "p")) for size in sizes}
    assert len(runs) == 3


def test_what_was_sorted_keeps_its_fingerprint() -> None:
    """A schema and an extra body whose keys are sorted have their earlier digest; blanks do not count."""
    found = Endpoint(backend="vllm", url="http://a", model="m")
    extra = '{"a": 1, "b": {"c": [1.5, true]}}'
    sorted_schema = '{"properties":{"animal":{"type":"string"},"legs":{"type":"integer"}},"type":"object"}'
    for schema in (sorted_schema, sorted_schema.replace(":", " :\n")):
        config = RunConfig.of("p", extra_body=extra, schema=schema)
        assert run_digest(answer_settings(config, found, "p", schema_text(schema))) == "4e66f5270f32"


def test_the_order_of_a_schema_names_another_run() -> None:
    """Schemas that differ only in the order of their keys are two runs, since their answers differ."""
    found = Endpoint(backend="vllm", url="http://a", model="m")
    schemas = ('{"properties": {"why": {}, "animal": {}}}', '{"properties": {"animal": {}, "why": {}}}')
    config = RunConfig.of("p")
    runs = {run_digest(answer_settings(config, found, "p", schema_text(schema))) for schema in schemas}
    assert len(runs) == 2


def test_only_the_last_value_of_an_option_counts() -> None:
    """The order of --option does not matter, but the last of two values of one name counts."""
    found = Endpoint(backend="ollama", url="http://a", model="m")

    def digest(*options: str) -> str:
        return run_digest(answer_settings(RunConfig.of("p", option=options), found, "p"))

    assert digest("top_k=1", "min_p=0") == digest("min_p=0", "top_k=1")
    assert digest("top_k=1", "top_k=2") == digest("top_k=2") != digest("top_k=2", "top_k=1")
