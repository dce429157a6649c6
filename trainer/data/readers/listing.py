"""The files of a folder or an archive, by name, and a count of what is left out."""

import os
import re
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .source import is_litter, reading

ZipEntries = dict[str, zipfile.ZipInfo]
"""Those of a zip, by their names as they are listed."""

_HIDDEN = "hidden files or folders"


@dataclass(slots=True)
class Listing:
    """Names of files, with / between folders."""

    names: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """How many there are of each kind that is not listed."""
    outside: int = 0
    """How many of the listed are links out of the folder, or lie behind one."""
    unsure: int = 0
    """How many of the names are in a code page that the zip does not say."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of what is left out, and of what comes from elsewhere."""
        outside = f"{self.outside:,} files are reached through links that lead out of the folder"
        unsure = (
            f"{self.unsure:,} names in the zip are not in UTF-8 and are read as of code page 437; if names of "
            "classes are wrong, unpack it, and name the folder"
        )
        left_out = ", ".join(f"{count:,} {kind}" for kind, count in self.left_out.items())
        noted = {outside: self.outside, unsure: self.unsure, f"left aside: {left_out}": left_out}
        return tuple(note for note, is_so in noted.items() if is_so)


def list_folder(root: Path) -> Listing:
    """The files of a folder and of all folders in it. Links are followed, but no folder is entered twice.

    Folders that are links come last, so that what lies in the folder itself goes by its own name. Raises DataError
    if the folder cannot be read; one within it that cannot be is counted.
    """
    walk = _Walk(root)
    with reading(root, OSError):
        while walk.folders or walk.links:
            walk.enter((walk.folders or walk.links).pop())
    return walk.listing


class _Walk:
    """A walk through a folder."""

    def __init__(self, root: Path) -> None:
        self.listing = Listing()
        self.folders, self.links = [""], list[str]()
        """Folders that are not entered yet, and those that are links."""
        self._root = root
        self._home = Path(os.path.realpath(root))
        self._entered: set[tuple[int, int]] = set()

    def enter(self, name: str) -> None:
        """List a folder, and note the folders in it."""
        folder = self._root / name
        real = Path(os.path.realpath(folder))
        state = os.stat(folder)
        is_outside = not real.is_relative_to(self._home)
        if (state.st_dev, state.st_ino) in self._entered or (is_outside and self._home.is_relative_to(real)):
            self.listing.left_out["links to folders that are read already, or to what they lie in"] += 1
            return
        self._entered.add((state.st_dev, state.st_ino))
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if not name:
                raise
            self.listing.left_out[f"folders that cannot be opened ({error.strerror})"] += 1
            return
        for entry in found:
            self._take(entry, f"{name}/{entry.name}" if name else entry.name, is_outside=is_outside)

    def _take(self, entry: os.DirEntry[str], name: str, *, is_outside: bool) -> None:
        listing, kind = self.listing, _leads_to(entry)
        if is_litter(entry.name):
            listing.left_out[_HIDDEN] += 1
        elif kind == "folder":
            (self.links if entry.is_symlink() else self.folders).append(name)
        elif kind == "file":
            listing.names.append(name)
            leads_out = entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(self._home)
            listing.outside += is_outside or leads_out
        else:
            listing.left_out["links that lead nowhere" if kind == "nothing" else "pipes, sockets or devices"] += 1


def _leads_to(entry: os.DirEntry[str]) -> str:
    """What an entry is, or links to: "folder", "file", "nothing" for a broken link or a circle, or "other"."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError:  # of a circle of links, or of one that may not be followed
        pass
    return "nothing" if entry.is_symlink() else "other"


def list_zip(archive: zipfile.ZipFile) -> tuple[Listing, ZipEntries]:
    """The files of a zip, with / between folders, and their entries; of several of one name the last counts."""
    entries: ZipEntries = {}
    listing = Listing()
    for entry in archive.infolist():
        name, is_sure = _name_of(entry)
        if name.endswith("/"):
            continue
        if is_litter(name):
            listing.left_out[_HIDDEN] += 1
            continue
        if name in entries:
            listing.left_out["older files of the same name"] += 1
        entries[name] = entry
        listing.unsure += not is_sure
    listing.names = list(entries)
    return listing, entries


def _name_of(entry: zipfile.ZipInfo) -> tuple[str, bool]:
    """The name of an entry, and whether that is sure.

    Some programs write UTF-8 and do not say so, backslashes between folders, or "./" before all of it.
    """
    name, is_sure = entry.filename, True
    if not (name.isascii() or entry.flag_bits & 0x800):  # it was read as of the IBM PC's code page, cp437
        try:
            name = name.encode("cp437").decode()
        except UnicodeError:
            is_sure = False
    return re.sub(r"(?<![^/])\./+", "", name.replace("\\", "/")), is_sure
