"""Recognise the pairs of a published dataset: FoundIR's layout and list files, BasicSR's folders, or two globs.

A pair is two pictures of one name in two folders that stand beside each other, one for the ground truth and one
for the degraded side. Where a folder could be read in two ways, the reader says so instead of guessing.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Literal

from catalog.errors import CatalogError, ExitCode

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
GT_NAMES = frozenset(
    {
        "gt",
        "groundtruth",
        "ground_truth",
        "hq",
        "hr",
        "high",
        "target",
        "targets",
        "clean",
        "clear",
        "sharp",
        "norain",
        "reference",
        "ref",
    }
)
LQ_NAMES = frozenset(
    {
        "lq",
        "lr",
        "low",
        "input",
        "inputs",
        "degraded",
        "noisy",
        "blur",
        "blurry",
        "rain",
        "rainy",
        "hazy",
        "haze",
        "snow",
        "raindrop",
        "dark",
        "data",
    }
)
_WILDCARDS = {"*": "([^/]*)", "?": "([^/])", "**": "(.*)", "**/": "((?:.*/)?)"}
_MAX_DEPTH = 6
_MAX_LIST_BYTES = 500_000_000

Problem = Literal["no_partner", "ambiguous", "unreadable"]


class PairFolderError(CatalogError, ValueError):
    """A folder holds no pairs that can be recognised, or more than one way to read it."""

    code = "CAT-PFO-001"
    exit_code = ExitCode.INVALID_INPUT


@dataclass(frozen=True, order=True)
class PairFiles:
    """Two files that belong together."""

    group: str
    """Class: the folder that the two sides stand in, relative to the root; empty at the root itself."""
    name: str
    gt: Path
    lq: Path

    @property
    def pair(self) -> str:
        """Group and name."""
        return f"{self.group}/{self.name}" if self.group else self.name


@dataclass(frozen=True, order=True)
class OddFile:
    """A file or a line that makes no pair."""

    group: str
    name: str
    path: Path
    problem: Problem
    why: str


@dataclass(frozen=True)
class PairListing:
    """Everything found below a root."""

    root: Path
    layout: str
    """How the pairs were recognised, in words."""
    pairs: tuple[PairFiles, ...]
    odd: tuple[OddFile, ...]


def list_pairs(
    folder: Path | None, *, gt: str | None = None, lq: str | None = None, pairs_list: Path | None = None
) -> PairListing:
    """List pairs in the one way that is asked for: two patterns, a list, or what the folder looks like.

    Raises:
        PairFolderError: Nothing or two things were asked for, or there are no pairs.
    """
    if gt is not None and lq is not None and folder is None and pairs_list is None:
        return match_globs(gt, lq)
    if folder is None or gt is not None or lq is not None:
        raise PairFolderError(
            "which pairs is not clear",
            next_step="give either FOLDER, or FOLDER with --list FILE, or --gt GLOB with --lq GLOB",
        )
    root = Path(os.path.normpath(folder.absolute()))
    return find_pairs(root) if pairs_list is None else read_list(root, pairs_list)


def find_pairs(root: Path) -> PairListing:
    """Recognise the pairs below a folder.

    Tried in this order: folders of the two sides beside each other (FoundIR, BasicSR and most others), at the
    root or below; files of one folder told apart by their endings (``0001_GT.png``, ``0001_LQ.png``).

    Raises:
        PairFolderError: The folder is missing, holds nothing recognisable, or can be read in two ways.
    """
    if not root.is_dir():
        raise PairFolderError(f"{root}: no such folder", next_step="give the folder of a dataset")
    listing = _by_folders(root) or _by_endings(root)
    if listing is None:
        raise PairFolderError(
            f"{root}: no pairs recognised; looked for folders such as GT and LQ beside each other and for names"
            " such as 0001_GT.png",
            next_step="say which files belong together: --gt GLOB --lq GLOB, or --list FILE",
        )
    return listing


def _by_folders(root: Path) -> PairListing | None:
    sites = list(_sites(root, 0))
    if not sites:
        return None
    pairs, odd = _joined(_match(root, gt, lq) for gt, lq in sites)
    names = sorted({(gt.name, lq.name) for gt, lq in sites})
    words = " and ".join(f"{gt}/ with {lq}/" for gt, lq in names)
    return PairListing(root, f"folders: {words}", pairs, odd)


def _sites(folder: Path, depth: int) -> Iterator[tuple[Path, Path]]:
    """Yield every two folders of the two sides that stand beside each other."""
    children = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    clean = [p for p in children if _role(p.name) == "gt"]
    worse = [p for p in children if _role(p.name) == "lq"]
    if clean and worse:
        yield _only(clean, "ground truth"), _only(worse, "degraded side")
        return
    if depth < _MAX_DEPTH:
        for child in children:
            yield from _sites(child, depth + 1)


def _role(name: str) -> Literal["gt", "lq"] | None:
    """Tell the side by a folder's name; endings such as ``_crops`` and a scale do not matter."""
    plain = re.sub(r"([_-]?(x\d|sub|crops?|patches|images?|imgs?))+$", "", name.lower())
    if plain in GT_NAMES:
        return "gt"
    return "lq" if plain in LQ_NAMES else None


def _only(folders: Sequence[Path], side: str) -> Path:
    if len(folders) == 1:
        return folders[0]
    names = ", ".join(p.name for p in folders)
    raise PairFolderError(
        f"{folders[0].parent}: several folders may be the {side}: {names}",
        next_step="say which: --gt GLOB --lq GLOB",
    )


def _match(root: Path, gt: Path, lq: Path) -> tuple[list[PairFiles], list[OddFile]]:
    """Match two folders by path below them without the suffix; else by what is left of the names' endings."""
    site = _group(root, gt.parent)
    clean, worse = _by_key(gt), _by_key(lq)
    if not clean.keys() & worse.keys():
        clean, worse = _without_endings(clean), _without_endings(worse)
    return _paired(site, clean, worse)


def _group(root: Path, folder: Path) -> str:
    relative = folder.relative_to(root).as_posix()
    return "" if relative == "." else relative


def _by_key(folder: Path) -> dict[str, list[Path]]:
    found = defaultdict(list)
    for path in _pictures(folder):
        found[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    return dict(found)


def _pictures(folder: Path) -> Iterator[Path]:
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(files):
            path = Path(base, name)
            if path.suffix.lower() in PICTURE_SUFFIXES and not name.startswith("."):
                yield path


def _without_endings(files: Mapping[str, Sequence[Path]]) -> dict[str, list[Path]]:
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for key, paths in files.items():
        found[_ending(key)[0]].extend(paths)
    return dict(found)


def _ending(key: str) -> tuple[str, Literal["gt", "lq"] | None]:
    """Split ``0001_GT`` into its name and its side; ``0001x4`` loses its scale."""
    found = re.fullmatch(r"(.*?)[_.-]?(x[2-8])?", key)
    stem = found[1] if found else key
    head, _, tail = stem.replace("-", "_").rpartition("_")
    role = _role(tail) or ("gt" if tail.lower() == "mean" else None)
    return (stem[: len(head)], role) if head and role else (stem, None)


def _paired(
    site: str, clean: Mapping[str, Sequence[Path]], worse: Mapping[str, Sequence[Path]]
) -> tuple[list[PairFiles], list[OddFile]]:
    pairs, odd = [], []
    for key in sorted(clean.keys() | worse.keys()):
        below, _, name = key.rpartition("/")
        group = "/".join(part for part in (site, below) if part)
        gt, lq = clean.get(key, ()), worse.get(key, ())
        if len(gt) == 1 and len(lq) == 1:
            pairs.append(PairFiles(group, name, gt[0], lq[0]))
        else:
            odd.append(_odd(group, name, gt, lq))
    return pairs, odd


def _odd(group: str, name: str, gt: Sequence[Path], lq: Sequence[Path]) -> OddFile:
    if gt and lq:
        files = ", ".join(sorted(p.name for p in (*gt, *lq)))
        return OddFile(group, name, gt[0], "ambiguous", f"several files of one name: {files}")
    missing = "degraded picture" if gt else "ground truth"
    return OddFile(group, name, (*gt, *lq)[0], "no_partner", f"no {missing} of this name")


def _joined(
    parts: Iterable[tuple[list[PairFiles], list[OddFile]]],
) -> tuple[tuple[PairFiles, ...], tuple[OddFile, ...]]:
    found = list(parts)
    return (
        tuple(sorted(pair for pairs, _ in found for pair in pairs)),
        tuple(sorted(item for _, odd in found for item in odd)),
    )


def _by_endings(root: Path) -> PairListing | None:
    """Pair the files of each folder by endings such as ``_GT`` and ``_LQ``."""
    folders: dict[Path, dict[str, dict[str, list[Path]]]] = defaultdict(lambda: {"gt": {}, "lq": {}})
    for path in _pictures(root):
        name, role = _ending(path.stem)
        if role:
            folders[path.parent][role].setdefault(name, []).append(path)
    pairs, odd = _joined(_paired(_group(root, f), s["gt"], s["lq"]) for f, s in sorted(folders.items()))
    return PairListing(root, "file names ending in GT and LQ", pairs, odd) if pairs else None


def read_list(root: Path, list_file: Path) -> PairListing:
    """Read a list in FoundIR's form: one pair per line, the ground truth's path, a comma, the degraded one's.

    Paths are relative to ``root`` and must stay below it.

    Raises:
        PairFolderError: The list is missing, too large, no text, or names no pair.
    """
    pairs, odd = [], []
    for number, line in enumerate(_lines(list_file), start=1):
        if not line.strip():
            continue
        sides = [part.strip() for part in (line.split(", ") if ", " in line else line.split(","))]
        if len(sides) != 2 or not all(_inside(side) for side in sides):
            why = f"line {number} of {list_file.name} is no 'GT path, LQ path' below the folder"
            odd.append(OddFile("", f"line-{number}", root, "ambiguous", why))
            continue
        pairs.append(_listed(root, *sides))
    if not pairs:
        raise PairFolderError(
            f"{list_file}: no line reads 'GT path, LQ path'", next_step="give FoundIR's list of pairs"
        )
    return PairListing(root, f"the list {list_file.name}", tuple(sorted(set(pairs))), tuple(sorted(odd)))


def _lines(list_file: Path) -> list[str]:
    try:
        if list_file.stat().st_size > _MAX_LIST_BYTES:
            raise PairFolderError(f"{list_file}: larger than {_MAX_LIST_BYTES} bytes; no list of pairs")
        return list_file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PairFolderError(
            f"{list_file}: cannot be read as UTF-8 text ({error})", next_step="give FoundIR's list of pairs"
        ) from error


def _inside(side: str) -> bool:
    return bool(side) and not Path(side).is_absolute() and ".." not in Path(side).parts


def _listed(root: Path, gt: str, lq: str) -> PairFiles:
    folder = Path(lq).parent
    group = folder.parent if _role(folder.name) else folder
    text = group.as_posix()
    return PairFiles("" if text == "." else text, Path(lq).stem, root / gt, root / lq)


def match_globs(gt: str, lq: str) -> PairListing:
    """Pair two sets of files by what the wildcards of two patterns stand for.

    ``gt/*_mean.png`` and ``noisy/*_shot1.jpg`` pair by what stands for ``*``. A pattern that names one file
    is paired with every file of the other.

    Raises:
        PairFolderError: A pattern matches nothing, or nothing matches both.
    """
    clean, worse = _expanded(gt), _expanded(lq)
    if len(clean) == 1 and not _wild(gt):
        clean = {key: next(iter(clean.values())) for key in worse}
    elif len(worse) == 1 and not _wild(lq):
        worse = {key: next(iter(worse.values())) for key in clean}
    paths = [p for found in (clean, worse) for group in found.values() for p in group]
    root = Path(os.path.commonpath([p.parent for p in paths]))
    pairs, odd = _paired("", clean, worse)
    if not pairs:
        raise PairFolderError(
            f"{gt} and {lq}: no file of one has the same part for the wildcards as one of the other",
            next_step="write the patterns so that the wildcards cover the same text on both sides",
        )
    return PairListing(root, f"patterns {Path(gt).name} and {Path(lq).name}", tuple(pairs), tuple(odd))


def _wild(pattern: str) -> bool:
    return any(c in pattern for c in "*?[")


def _expanded(pattern: str) -> dict[str, list[Path]]:
    found: defaultdict[str, list[Path]] = defaultdict(list)
    shape = _captured(pattern)
    for name in sorted(glob(pattern, recursive=True)):  # noqa: PTH207  # a pattern may be absolute
        path = Path(name)
        if path.is_file() and path.suffix.lower() in PICTURE_SUFFIXES:
            found[_captured_key(shape, path)].append(Path(os.path.normpath(path.absolute())))
    if not found:
        raise PairFolderError(
            f"{pattern}: no picture matches", next_step="quote the pattern and check it with ls"
        )
    return dict(found)


def _captured_key(shape: re.Pattern[str], path: Path) -> str:
    match = shape.fullmatch(path.with_suffix("").as_posix())
    parts = [text.strip("/") for text in match.groups()] if match else []
    return "-".join(part for part in parts if part) or path.stem


def _captured(pattern: str) -> re.Pattern[str]:
    """Turn a glob, less its suffix, into an expression whose groups are what the wildcards stand for."""
    plain = re.sub(r"\.[^./]*$", "", pattern)
    parts = re.split(r"(\*\*/?|\*|\?|\[[^]]+\])", plain.removeprefix("./"))
    try:
        return re.compile("".join(_WILDCARDS.get(p) or _class_or_text(p) for p in parts))
    except re.error as error:
        raise PairFolderError(
            f"{pattern}: not a pattern of file names ({error.msg})",
            next_step="the wildcards are * ? ** and [abc]",
        ) from None


def _class_or_text(part: str) -> str:
    is_class = part.startswith("[") and part.endswith("]")
    return f"({part.replace('[!', '[^')})" if is_class else re.escape(part)
