from pathlib import Path

import pytest

from vlmbatch.config import RunConfig, options
from vlmbatch.config.spec import parse_duration, parse_failures, parse_pixels, parse_size, redact
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
    """A flat name lands in the group that declares it, for every option there is."""
    for option in options():
        config = RunConfig.of("photos")
        assert getattr(getattr(config, option.group), option.name) == option.default


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    """A misspelt option name is an error that names the right one."""
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
    """Every value that cannot work is refused when the config is made, by the flag's name."""
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
        ({"prompt": ["a", "b"]}, "--prompt takes a text"),
        ({"system": True}, "--system takes a text"),
        ({"exclude": 5}, "--exclude takes texts"),
        ({"quiet": 3}, "--quiet takes true or false"),
        ({"timeout": "soon"}, "--timeout"),
        ({"prompt": "caf\udcc3\udca9"}, "--prompt is not valid UTF-8"),
    ],
)
def test_a_value_of_another_type_names_its_flag(given: dict[str, object], message: str) -> None:
    """What a file or a program sets is checked like what is typed, and never taken for something else."""
    with pytest.raises(ConfigError, match=message):
        RunConfig.of("photos", **given)


def test_values_are_taken_as_people_write_them() -> None:
    """A path is a text, one glob is a list of one, and sizes and times may have units."""
    config = RunConfig.of(
        "photos", output=Path("o.jsonl"), exclude="*.gif", include=["a", "b"], timeout="5m", max_bytes="5MB"
    )
    assert config.output.output == "o.jsonl"
    assert (config.input.exclude, config.input.include) == (("*.gif",), ("a", "b"))
    assert (config.run.timeout, config.input.max_bytes) == (300, 5_000_000)


def test_no_path_is_an_error() -> None:
    """A run needs at least one PATH."""
    with pytest.raises(ConfigError, match="no PATH"):
        RunConfig.of()


def test_the_key_stays_out_of_every_repr() -> None:
    """Printing a config, as a log or a traceback may, does not show the key."""
    assert "s3cret" not in repr(RunConfig.of("photos", api_key="s3cret"))


def test_a_url_is_told_without_its_secrets() -> None:
    """User, password and query of a URL never reach a message, even that of a bad URL."""
    assert redact("https://me:s3cret@host:8000/v1?key=abc") == "https://host:8000/v1"
    with pytest.raises(ConfigError) as error:
        RunConfig.of("photos", base_url="ftp://me:s3cret@host/?key=abc")
    assert "s3cret" not in str(error.value)
    assert "abc" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["http://me:p@ssword@host/v1", "http://me:pa/ss@word@host", "http://me:p@ss@host:99999"]
)
def test_no_part_of_a_password_is_told(url: str) -> None:
    """A password with an @ or a slash in it is left out whole, from a good URL and from a broken one."""
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
def test_sizes_are_read_as_people_type_them(text: str, size: int) -> None:
    """A size may carry a unit, in thousands or in 1024."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "pixels"), [("200000000", 2 * 10**8), ("200MP", 2 * 10**8), ("1.5M", 1_500_000)]
)
def test_pixels_are_read_in_megapixels(text: str, pixels: int) -> None:
    """A number of pixels may be typed in megapixels."""
    assert parse_pixels(text) == pixels


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("0.5", 0.5)]
)
def test_durations_are_read_with_units(text: str, seconds: float) -> None:
    """A duration is in seconds unless it says otherwise."""
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
def test_what_makes_no_sense_is_refused_with_an_example(parse: object, text: str) -> None:
    """A value that cannot be read is an error that shows how to write it."""
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
    """Failures are within the limit up to and including N, or N percent of all images."""
    assert RunConfig.of("photos", max_failures=allowed).run.tolerates(failed, total) is good


def test_concurrency_is_a_number_or_auto() -> None:
    """`auto` is the default, in a program, in a file and on the command line."""
    for typed, meant in (("auto", None), ("AUTO ", None), ("8", 8), (8, 8)):
        assert RunConfig.of("photos", concurrency=typed).run.concurrency == meant
    assert RunConfig.of("photos").run.concurrency is None


def test_flaws_to_accept_are_told_in_any_order() -> None:
    """`loop,length` and `length, loop` are the same."""
    for typed in ("loop,length", "length, loop", "length,loop,"):
        assert RunConfig.of("photos", accept=typed).generation.accept == "length,loop"
    assert RunConfig.of("photos", accept="").generation.accept == ""
