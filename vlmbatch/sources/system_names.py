"""The names of files and folders that a system or a NAS makes for itself, never for photos of the user."""

from collections.abc import Iterator

HIDDEN = "hidden"
"""The kind of names that begin with a dot, such as .DS_Store, .Trash-1000 and AppleDouble (._a.jpg)."""

_NAMES = (
    # NAS: thumbnails, recycle bins and snapshots of Synology, QNAP and NetApp
    "@eaDir", "#recycle", "#snapshot", "@sharesnap",
    "@Recycle", "@Recently-Snapshot", "@__thumb", "@Transcode", "~snapshot",
    # recovered pieces of files: ext2 to ext4, and SD cards of Android
    "lost+found", "LOST.DIR",
    # macOS: AppleDouble files in a ZIP, and deleted files on an AFP share
    "__MACOSX", "Network Trash Folder",
    # Windows XP; Recycler may be the name of a user's folder
    "RECYCLER",
)  # fmt: skip
_NAMES_OF_ANY_CASE = (
    "$RECYCLE.BIN", "System Volume Information",
    "Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini",
)  # fmt: skip


def _spellings() -> Iterator[tuple[str, str]]:
    yield from ((name, name) for name in _NAMES)
    for name in _NAMES_OF_ANY_CASE:
        for spelling in (name, name.lower(), name.upper(), name.title(), name.capitalize()):
            yield spelling, name


SYSTEM_NAMES = dict(_spellings())
"""The usual spelling of each name, by the spellings that occur, such as $Recycle.Bin and $RECYCLE.BIN."""


def skipped_kind(name: str) -> str | None:
    """Why a walk skips an entry with this name: `hidden`, or its usual name; None for any other name."""
    return HIDDEN if name.startswith(".") else SYSTEM_NAMES.get(name)
