"""The checks of this machine: versions, image formats and the accelerator."""

import platform
from importlib import metadata

from vlmbatch.commands.doctor.finding import Finding
from vlmbatch.imaging.capabilities import Support, support


def check_machine() -> list[Finding]:
    """Check Python, the image formats and the accelerator."""
    version, python = metadata.version("vlmbatch"), platform.python_version()
    told = f"vlmbatch {version} on Python {python}, {platform.platform()}"
    found = support()
    return [Finding(check="version", mark="ok", told=told), formats(found), accelerator(found)]


def formats(found: Support) -> Finding:
    """Check which image formats can be opened, and whether AVIF or HEIC is missing."""
    missing = [name for name, present in (("AVIF", found.avif), ("HEIC", found.heic)) if not present]
    present = ["JPEG, PNG, WebP, GIF, TIFF, BMP", *(n for n in ("AVIF", "HEIC") if n not in missing)]
    told = f"Pillow {found.pillow} opens {', '.join(present)}"
    if not missing:
        return Finding(check="formats", mark="ok", told=told)
    ways = {
        "HEIC": 'for iPhone photos: pip install "vlmbatch[heic]"',
        "AVIF": "for AVIF: pip install --force-reinstall pillow",
    }
    return Finding(
        check="formats",
        mark="warning",
        told=f"{told}, not {' and '.join(missing)}",
        advice="; ".join(ways[name] for name in missing),
    )


def accelerator(found: Support) -> Finding:
    """Check whether pictures are resized with the vector instructions of the CPU."""
    if found.fast:
        return Finding(check="resizing", mark="ok", told="accelerated (cykooz.resizer)")
    return Finding(
        check="resizing",
        mark="warning",
        told="not accelerated; everything works, but uses more CPU",
        advice='pip install "vlmbatch[fast]"',
    )
