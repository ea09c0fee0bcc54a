import json
from pathlib import Path

import pytest

from vlmbatch.config import RunConfig, options
from vlmbatch.config.spec import parse_duration, parse_failures, parse_pixels, parse_size, redact
from vlmbatch.config.toml_options import options_in
from vlmbatch.errors import ConfigError


def test_every_option_has_one_flag_one_variable_and_one_key() -> None:
    """No two options share a flag, a short flag, an environment variable or a TOML key."""
    found = list(options())
    for names in (
        [o.flag for o in found],
        [o.env for o in found],
        [o.key for o in found],
        [o.spec.short for o in found if o.spec.short],
    ):
        assert len(names) == len(set(names))
    assert {"--prompt", "--max-size", "--retry-failed"} <= {o.flag for o in found}


def test_every_group_is_reached_by_flat_names() -> None:
    """Each option's flat name sets the field in the group that declares it."""
    for option in options():
        config = RunConfig.of("photos")
        assert getattr(getattr(config, option.group), option.name) == option.default


def test_the_error_for_an_unknown_name_suggests_the_nearest() -> None:
    """A misspelt option name is an error that suggests the right one."""
    with pytest.raises(ConfigError, match=r"'max_sise'.*max_size"):
        RunConfig.of("photos", max_sise=3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_size": 10}, "--max-size"),
        ({"max_size": 70000}, "--max-size"),
        ({"quality": 0}, "--quality"),
        ({"concurrency": 0}, "--concurrency"),
        ({"timeout": 0}, "--timeout"),
        ({"rpm": 0}, "--rpm"),
        ({"concurrency": "many"}, "--concurrency"),
        ({"accept": "nonsense"}, "--accept"),
        ({"retries": -1}, "--retries"),
        ({"max_tokens": 0}, "--max-tokens"),
        ({"temperature": 3}, "--temperature"),
        ({"limit": 0}, "--limit"),
        ({"max_bytes": 0}, "--max-bytes"),
        ({"max_pixels_in": 0}, "--max-pixels-in"),
        ({"give_up_after": -1}, "--give-up-after"),
        ({"backend": "olama"}, "--backend olama"),
        ({"prompt": "a", "prompt_file": "b"}, "--prompt and --prompt-file"),
        ({"prompt": "  "}, "--prompt is empty"),
        ({"quiet": True, "verbose": True}, "--quiet and --verbose"),
        ({"overwrite": True, "append": True, "output": "o"}, "--overwrite and --append"),
        ({"overwrite": True}, "--overwrite needs an output file"),
        ({"retry_failed": True}, "--retry-failed needs an output file"),
        ({"base_url": "localhost:8000"}, "--base-url localhost:8000"),
        ({"base_url": "http://host:99999"}, "--base-url"),
        ({"base_url": "ftp://host"}, "--base-url"),
    ],
)
def test_a_value_out_of_range_names_its_flag(given: dict[str, object], message: str) -> None:
    """RunConfig refuses every value out of range, and the message names the flag."""
    with pytest.raises(ConfigError, match=message):
        RunConfig.of("photos", **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"limit": True}, "--limit takes a whole number"),
        ({"limit": 1.5}, "--limit takes a whole number"),
        ({"retries": False}, "--retries takes a whole number"),
        ({"max_size": 76.8}, "--max-size takes a whole number"),
        ({"temperature": float("inf")}, "--temperature takes a number"),
        ({"temperature": float("nan")}, "--temperature takes a number"),
        ({"temperature": 10**400}, "--temperature takes a number"),
        ({"seed": 10**400}, "--seed takes a number of at most"),
        ({"seed": -(10**400)}, "--seed takes a number of at most"),
        ({"max_tokens": 10**19}, "--max-tokens takes a number of at most"),
        ({"max_bytes": "9" * 400}, "--max-bytes: it is larger than"),
        ({"max_pixels": "9" * 20 + "MP"}, "--max-pixels: it is larger than"),
        ({"prompt": ["a", "b"]}, "--prompt takes a text"),
        ({"system": True}, "--system takes a text"),
        ({"exclude": 5}, "--exclude takes texts"),
        ({"quiet": 3}, "--quiet takes true or false"),
        ({"timeout": "soon"}, "--timeout"),
        ({"prompt": "caf\udcc3\udca9"}, "--prompt is not UTF-8 text; write it in UTF-8"),
    ],
)
def test_a_value_of_another_type_names_its_flag(given: dict[str, object], message: str) -> None:
    """RunConfig refuses a value of another type from a file or a program, and the message names the flag."""
    with pytest.raises(ConfigError, match=message):
        RunConfig.of("photos", **given)


def test_values_may_have_natural_forms() -> None:
    """A path becomes a text, one glob becomes a list of one, and sizes and times may have units."""
    config = RunConfig.of(
        "photos", output=Path("o.jsonl"), exclude="*.gif", include=["a", "b"], timeout="5m", max_bytes="5MB"
    )
    assert config.output.output == "o.jsonl"
    assert (config.input.exclude, config.input.include) == (("*.gif",), ("a", "b"))
    assert (config.run.timeout, config.input.max_bytes) == (300, 5_000_000)


def test_the_key_stays_out_of_every_repr() -> None:
    """Printing a config, as a log or a traceback may, does not show the key."""
    assert "s3cret" not in repr(RunConfig.of("photos", api_key="s3cret"))


def test_a_message_shows_a_url_without_its_secrets() -> None:
    """User, password and query of a URL never appear in a message, not even for a bad URL."""
    assert redact("https://me:s3cret@host:8000/v1?key=abc") == "https://host:8000/v1"
    with pytest.raises(ConfigError) as error:
        RunConfig.of("photos", base_url="ftp://me:s3cret@host/?key=abc")
    assert "s3cret" not in str(error.value)
    assert "abc" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["http://me:p@ssword@host/v1", "http://me:pa/ss@word@host", "http://me:p@ss@host:99999"]
)
def test_no_message_shows_a_part_of_a_password(url: str) -> None:
    """A password with an @ or a slash in it is removed completely, from a good URL and from a broken one."""
    try:
        told = redact(RunConfig.of("photos", base_url=url).endpoint.url or "")
    except ConfigError as error:
        told = str(error)
    assert "host" in told
    assert not any(part in told for part in ("ss", "pa", "word"))


@pytest.mark.parametrize(
    ("text", "size"),
    [("500", 500), ("20k", 20_000), ("100MB", 10**8), ("1.5 GiB", 1536 * 2**20), ("2M", 2 * 10**6)],
)
def test_sizes_are_read_with_units(text: str, size: int) -> None:
    """A size may have a unit of 1000 or of 1024."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "pixels"), [("200000000", 2 * 10**8), ("200MP", 2 * 10**8), ("1.5M", 1_500_000)]
)
def test_pixels_are_read_in_megapixels(text: str, pixels: int) -> None:
    """A number of pixels may be written in megapixels."""
    assert parse_pixels(text) == pixels


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("0.5", 0.5)]
)
def test_durations_are_read_with_units(text: str, seconds: float) -> None:
    """A duration is in seconds unless it has another unit."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_size, "big"),
        (parse_size, "-3"),
        (parse_duration, "soon"),
        (parse_failures, "-1"),
        (parse_failures, "x%"),
    ],
)
def test_the_error_for_an_unreadable_value_shows_an_example(parse: object, text: str) -> None:
    """The error for a value that cannot be parsed shows how to write it."""
    with pytest.raises(ValueError, match=r"write|%"):
        parse(text)  # type: ignore[operator]  # one of the parsers above


@pytest.mark.parametrize(
    ("allowed", "failed", "total", "good"),
    [
        ("0", 0, 10, True),
        ("0", 1, 10, False),
        ("2", 2, 10, True),
        ("1%", 1, 100, True),
        ("1%", 2, 100, False),
        ("0%", 0, 0, True),
    ],
)
def test_max_failures_counts_or_takes_a_share(allowed: str, failed: int, total: int, good: bool) -> None:
    """--max-failures tolerates up to and including N failures, or N percent of all images."""
    assert RunConfig.of("photos", max_failures=allowed).run.tolerates(failed, total) is good


def test_concurrency_is_a_number_or_auto() -> None:
    """--concurrency takes a number or `auto`, as text in any case or as a number; the default is `auto`."""
    for typed, meant in (("auto", None), ("AUTO ", None), ("8", 8), (8, 8)):
        assert RunConfig.of("photos", concurrency=typed).run.concurrency == meant
    assert RunConfig.of("photos").run.concurrency is None


def test_flaws_to_accept_may_be_in_any_order() -> None:
    """`loop,length` and `length, loop` give the same value."""
    for typed in ("loop,length", "length, loop", "length,loop,"):
        assert RunConfig.of("photos", accept=typed).generation.accept == "length,loop"
    assert RunConfig.of("photos", accept="").generation.accept == ""


@pytest.mark.parametrize("typed", ["1d", "30 m", "soon", "1.5", "2w", "-", "1h30"])
def test_a_time_that_ollama_does_not_know(typed: str) -> None:
    """--keep-alive with a time that Ollama cannot read is refused at once, with times that it can."""
    with pytest.raises(ConfigError, match=r"--keep-alive .* write seconds.* 24h, or -1"):
        RunConfig.of("photos", keep_alive=typed)


@pytest.mark.parametrize("typed", ["", "0", "300", "-1", "30m", "1h30m", "-1m", "1.5h", ".5s", "500ms"])
def test_times_that_ollama_knows(typed: str) -> None:
    """--keep-alive takes seconds and every duration of Ollama as it is."""
    assert RunConfig.of("photos", keep_alive=typed).endpoint.keep_alive == typed


def test_a_settings_file_may_hold_the_schema_as_a_table() -> None:
    """A table is the schema itself, with its keys in the order of the file."""
    table = b"[schema.properties]\nb = {type = 'string'}\na = {type = 'string'}\n"
    values, _ = options_in(table, "vlmbatch.toml")
    assert list(json.loads(values["schema"])["properties"]) == ["b", "a"]
