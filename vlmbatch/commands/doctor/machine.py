"""What is installed on this machine."""

import platform
from importlib import metadata

from vlmbatch.commands.doctor.finding import Finding
from vlmbatch.imaging.capabilities import Support, support


def check_machine() -> list[Finding]:
    """Python, the formats that can be opened, and the accelerator."""
    version, python = metadata.version("vlmbatch"), platform.python_version()
    told = f"vlmbatch {version} on Python {python}, {platform.platform()}"
    found = support()
    return [Finding(check="version", mark="ok", told=told), formats(found), accelerator(found)]


def formats(found: Support) -> Finding:
    """Which pictures can be opened beside those that always can."""
    missing = [name for name, there in (("AVIF", found.avif), ("HEIC", found.heic)) if not there]
    there = ["JPEG, PNG, WebP, GIF, TIFF, BMP", *(n for n in ("AVIF", "HEIC") if n not in missing)]
    told = f"Pillow {found.pillow} opens {', '.join(there)}"
    if not missing:
        return Finding(check="formats", mark="ok", told=told)
    ways = {
        "HEIC": 'for photos of iPhones: pip install "vlmbatch[heic]"',
        "AVIF": "for AVIF: pip install --force-reinstall pillow",
    }
    return Finding(
        check="formats",
        mark="warning",
        told=f"{told}, not {' and '.join(missing)}",
        advice="; ".join(ways[name] for name in missing),
    )


def accelerator(found: Support) -> Finding:
    """Whether pictures are resized with the vector instructions of the processor."""
    if found.fast:
        return Finding(check="resizing", mark="ok", told="accelerated (cykooz.resizer)")
    return Finding(
        check="resizing",
        mark="warning",
        told="not accelerated; everything works, and takes more of the CPU",
        advice='pip install "vlmbatch[fast]"',
    )
