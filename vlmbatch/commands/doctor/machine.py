"""The checks of this machine: versions, image formats and the accelerator."""

import importlib.util
import platform
import shlex
import shutil
import sys
from importlib import metadata
from pathlib import Path

from vlmbatch.commands.doctor.finding import Finding
from vlmbatch.imaging.capabilities import Support, support


def check_machine() -> list[Finding]:
    """Check Python, the image formats and the accelerator."""
    version, python = metadata.version("vlmbatch"), platform.python_version()
    told = f"vlmbatch {version} on Python {python}, {platform.platform()}"
    found = support()
    return [Finding(check="version", mark="ok", told=told), formats(found), accelerator(found)]


def formats(found: Support) -> Finding:
    """Check which image formats can be opened, and which of the optional ones are missing."""
    optional = {"AVIF": found.avif, "HEIC": found.heic, "scientific TIFF": found.tiff}
    missing = [name for name in optional if not optional[name]]
    present = ["JPEG, PNG, WebP, GIF, TIFF, BMP", *(name for name in optional if optional[name])]
    told = f"Pillow {found.pillow} opens {', '.join(present)}"
    if not missing:
        return Finding(check="formats", mark="ok", told=told)
    ways = {
        "HEIC": f"for iPhone photos: {_install('heic')}",
        "scientific TIFF": f"for TIFF with floats or 32 bits: {_install('tiff')}",
        "AVIF": f"for AVIF: {_pip()} --force-reinstall pillow",
    }
    return Finding(
        check="formats",
        mark="warning",
        told=f"{told}, not {', '.join(missing)}",
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
        advice=_install("fast"),
    )


def _install(extra: str) -> str:
    return f'{_pip()} "vlmbatch[{extra}]"'


def _pip() -> str:
    """The command that installs into the environment of vlmbatch; the pip on PATH may be of another one."""
    python = shlex.quote(sys.executable)
    if importlib.util.find_spec("pip") is None:  # the environment was made by uv
        return f"uv pip install --python {python}"
    first = shutil.which("pip")
    if first is not None and Path(first).parent == Path(sys.executable).parent:
        return "pip install"
    return f"{python} -m pip install"
