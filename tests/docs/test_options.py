"""docs/options.md matches the program: its options, and what it promises about them."""

import re
import runpy
import tomllib

import pytest
from documents import ROOT, blocks, page, section

from vlmbatch.config import Option, RunConfig, options

PAGE = page("docs/options.md")
refreshing = runpy.run_path(str(ROOT / "docs" / "refresh.py"))


@pytest.mark.parametrize("name", refreshing["GENERATED"])
def test_the_generated_parts_are_up_to_date(name: str) -> None:
    """Each part of a page that docs/refresh.py makes is what it would make now."""
    where, content = refreshing["GENERATED"][name]
    text = page(f"docs/{where}")
    assert refreshing["between_marks"](text, name, content()) == text, (
        f"docs/{where} is old; run: just docs (python docs/refresh.py)"
    )


def test_refreshing_replaces_one_part_and_nothing_else() -> None:
    """docs/refresh.py replaces only what stands between the marks of the name."""
    before = "a\n<!-- x: made -->\nold\n\nold\n<!-- end of x -->\n<!-- y: made -->\n<!-- end of y -->\nb\n"
    after = refreshing["between_marks"](before, "x", "new \\1")
    assert after == before.replace("old\n\nold", "new \\1")
    with pytest.raises(ValueError, match="no marks"):
        refreshing["between_marks"](before, "z", "new")


@pytest.mark.parametrize("option", list(options()), ids=lambda option: option.name)
def test_every_option_has_a_row_below_its_heading(option: Option) -> None:
    """Each option has one row with its flag, below the heading that it has in the help."""
    name = option.flag.replace("--", "--(?:no-)?", 1)
    row = re.compile(rf"^\| (?:`-\w`, )?`{name}[ `].*\|$", re.MULTILINE)
    assert len(row.findall(PAGE)) == 1
    assert row.search(section(section(PAGE, "## All options"), f"### {option.section}"))


def test_the_repeatable_options_are_listed() -> None:
    """The page names exactly the options that are repeatable."""
    text = section(PAGE, "## An option that is given twice").partition("All their")[0]
    repeatable = [option.flag for option in options() if option.type == tuple[str, ...]]
    assert sorted(re.findall(r"`(--[a-z-]+)`", text)) == sorted(repeatable)
    assert all("epeatable" in option.spec.help for option in options() if option.flag in repeatable)


def test_the_example_of_a_settings_file_is_valid() -> None:
    """The settings file on the page sets options that exist, and ./vlmbatch.toml may set each of them."""
    (shown,) = (tomllib.loads(block) for block in blocks(PAGE, "toml"))
    given = {key.replace("-", "_"): value for key, value in shown.items()}
    RunConfig.of("photos", **given)
    harmless = {option.name: option.spec for option in options()}
    assert [name for name, value in given.items() if not harmless[name].is_harmless(value)] == []


def test_the_values_that_can_be_completed_are_listed() -> None:
    """The page names exactly the options whose values the Tab key completes."""
    listed = re.findall(r"`(--[a-z-]+)`", section(PAGE, "## The Tab key").partition("It also")[0])
    fixed = [option.flag for option in options() if option.spec.choices or option.spec.words]
    assert sorted(listed) == sorted(fixed)
