"""How Sphinx makes the site of this project's pages: `just site` writes build/site/index.html.

The source folder is the top of the project, so that links between pages work as they do in the repository.
"""

import shutil
import tomllib
from pathlib import Path

from docutils import nodes
from pygments.lexers.data import JsonLexer
from sphinx.addnodes import download_reference
from sphinx.application import Sphinx

PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
FILES = PYPROJECT["project"]["urls"]["Source"] + "/blob/main/"

project = "vlmbatch"
version = release = PYPROJECT["project"]["version"]
author = copyright = "the authors of vlmbatch"  # noqa: A001 (Sphinx reads this name)

extensions = ["myst_nb"]  # MyST, and notebooks
nb_execution_mode = "off"  # a notebook has its outputs
highlight_language = "text"  # of a block of code that names no language
smartquotes = False  # the words stay as they were written
myst_heading_anchors = 6  # the same anchors as on GitHub
root_doc = "README"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/*.ipynb",
    "benchmarks/RESULTS.md",
    "samples/README.md",
    "vlmbatch/backends/llama_cpp/demo_model/MODEL_CARD.md",
]
exclude_patterns = [".*", "build", "tests"]

html_theme = "furo"
html_theme_options = {"light_css_variables": {"code-font-size": "76%"}}  # as wide as the first command
html_title = f"vlmbatch {release}"
html_static_path = ["site.css"]  # one file, copied into _static
html_css_files = ["site.css"]
html_copy_source = False
html_use_index = False

CONTENTS = """
```{toctree}
:hidden:
:glob:
:caption: Pages

docs/index
docs/*
```

```{toctree}
:hidden:
:caption: Project

benchmarks/RESULTS
samples/README
vlmbatch/backends/llama_cpp/demo_model/MODEL_CARD
CHANGELOG
CONTRIBUTING
SECURITY
```
"""


def add_contents(app: Sphinx, name: str, text: list[str]) -> None:
    """Add the menu to the start page; GitHub would show it there as a block of code."""
    if name == root_doc:
        text[0] += CONTENTS


def link_to_repository(app: Sphinx, page: nodes.document) -> None:
    """Let links to other files lead to the repository; MyST would copy these files into the site."""
    for node in list(page.findall(download_reference)):
        path, _ = app.env.relfn2path(node["reftarget"], app.env.docname)
        node.replace_self(nodes.reference("", "", *node.children, refuri=FILES + path))


def add_start(app: Sphinx, error: Exception | None) -> None:
    """Let the address of the site itself show the README, too."""
    if error is None:
        shutil.copyfile(app.outdir / "README.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    """Register the functions above, and show JSONL in the colours of JSON."""
    app.add_lexer("jsonl", JsonLexer)
    app.connect("source-read", add_contents)
    app.connect("doctree-read", link_to_repository, priority=400)  # before Sphinx collects the files
    app.connect("build-finished", add_start)
