"""Checks the site: a browser loads nothing from another host, and linked files of the project exist."""

import re
import sys
from pathlib import Path

FILES = "https://github.com/vlmbatch/vlmbatch/blob/main/"
LOADED = re.compile(  # what a browser loads by itself, other than a link that a reader follows
    r"""<(?:script|img|iframe|source|object|embed|video|audio)\b[^>]*?\b(?:src|data|srcset)="((?:https?:)?//[^"]*)"""
    r"""|<link\b(?=[^>]*\brel="(?:stylesheet|preload|icon|preconnect)")[^>]*?\bhref="((?:https?:)?//[^"]*)"""
    r"""|(?:@import\s+["']?|url\(\s*["']?)((?:https?:)?//[^"')]*)"""
)

site = Path(sys.argv[1])
pages = sorted(site.rglob("*.html"))
texts = {
    path: path.read_text(encoding="utf-8") for path in [*pages, *site.rglob("*.css"), *site.rglob("*.svg")]
}
loaded = [f"{path} loads {''.join(found)}" for path, text in texts.items() for found in LOADED.findall(text)]
missing = [
    f"{path} links to {name}, which is no file of the project"
    for path in pages
    for name in re.findall(rf'href="{FILES}([^"#]*)', texts[path])
    if not Path(name).exists()
]
if not pages or loaded or missing:
    sys.exit("\n".join([*loaded, *missing]) or f"{site} has no page")
print(f"{len(pages)} pages; nothing comes from another host")
