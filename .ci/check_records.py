"""Reads records on standard input: exactly one good one for each image in the folder that is named."""

import json
import sys
from pathlib import Path

IMAGES = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".tif", ".tiff", ".avif", ".heic", ".bmp"}

records = [json.loads(line) for line in sys.stdin]
wanted = sorted(p.as_posix() for p in Path(sys.argv[1]).rglob("*") if p.suffix.lower() in IMAGES)
assert len(wanted) >= 12, wanted
assert sorted(r["id"] for r in records) == wanted, records
assert all(r["status"] == "ok" and r["response"] and r["v"] == 1 for r in records), records
assert {r["backend"] for r in records} == {"llama-cpp"}
print(f"{len(records)} images, {len(records)} records")
