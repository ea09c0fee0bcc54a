"""Refuses a new output file whose name promises another form than JSON lines, such as captions.csv."""

import re
import shlex
from pathlib import Path

from vlmbatch.errors import ConfigError
from vlmbatch.writers.resume import BLANK, HEAD_BYTES, is_ours

_TABLE = (
    """jq -rs '["id", "status", "response"], """
    "(group_by([.id, .run])[] | last | [.id, .status, .response]) | @FORM' RECORDS > FILE"
)
"""A heading, and the last record of each image and run: an image that failed before has several."""
_TO_CSV = _TABLE.replace("FORM", "csv")
_TO_HTML = (
    """jq -rs '"<meta charset=utf-8>", (.[] | "<h2>\\(.id | @html)</h2>"""
    """<p>\\(.response // .error.message | @html)</p>")' RECORDS > FILE"""
)
_TO_PARQUET = (
    "python -c 'import duckdb, sys; duckdb.read_json(sys.argv[1]).write_parquet(sys.argv[2])' RECORDS FILE"
)
FORMS = {
    ".csv": ("CSV", ".csv", _TO_CSV),
    ".tsv": ("TSV", ".tsv", _TABLE.replace("FORM", "tsv")),
    ".json": ("one JSON array", ".json", "jq -s . RECORDS > FILE"),
    ".txt": ("text", ".txt", "jq -r '.id, (.response // .error.message), \"\"' RECORDS > FILE"),
    ".md": (
        "Markdown",
        ".md",
        """jq -r '"## \\(.id)\\n\\n\\(.response // .error.message)\\n"' RECORDS > FILE""",
    ),
    ".html": ("HTML", ".html", _TO_HTML),
    ".htm": ("HTML", ".html", _TO_HTML),
    ".parquet": ("Parquet (after: pip install duckdb)", ".parquet", _TO_PARQUET),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), ("CSV for a spreadsheet", ".csv", _TO_CSV)),
}
"""For each ending: what to turn the records into, the ending of that file, and the command."""


def require_records_name(output: str) -> None:
    """Raise ConfigError if the name has an ending of FORMS; a file that holds our records keeps its name."""
    path = Path(output)
    form = FORMS.get(path.suffix.lower())
    if form is None or _is_in_use(path):
        return
    what, ending, command = form
    records = shlex.quote(str(path.with_suffix(".jsonl")))
    names = {"RECORDS": records, "FILE": shlex.quote(str(path.with_suffix(ending)))}
    told = re.sub("RECORDS|FILE", lambda found: names[found[0]], command)
    raise ConfigError(
        f"--output {output}: a run writes JSON lines, not {path.suffix[1:].upper()}; write -o {records}, and "
        f"turn the records into {what} afterwards with: {told}"
    )


def _is_in_use(path: Path) -> bool:
    """Whether the path is a pipe or a device, or a file that holds records already."""
    try:
        if not path.is_file():
            return path.exists()
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:  # the writer says what is wrong
        return True
    return bool(head.strip(BLANK)) and is_ours(head)
