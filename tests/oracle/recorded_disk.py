"""A disk that writes down the order of everything asked of it, fails on demand, and shows what a power cut may leave.

It stands between a program and the real folder by replacing the functions of `os` and `io` that change a folder, and
shares no code with the product. What POSIX promises is all it believes: bytes of a file are there after an `fsync` of
the file, names in a folder after an `fsync` of the folder. Of what was asked for since, any part may have happened.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args
from unittest.mock import patch

Kind = Literal["open", "create", "write", "truncate", "fsync", "rename", "link", "unlink", "mkdir"]
KINDS: frozenset[Kind] = frozenset(get_args(Kind))
Surviving = Literal["nothing", "everything", "the first", "any"]


@dataclass(frozen=True)
class Fault:
    """Which call fails, and how."""

    nth: int
    """Which of the calls that it may hit, from 1."""
    number: int
    """The system's error number; 0 writes half of the bytes."""
    kinds: frozenset[Kind] = KINDS
    """Kinds of calls that it may hit."""
    lasts: bool = False
    """Whether all such calls fail from then on."""


@dataclass(eq=False)
class Node:
    """A file or a folder, whatever its name is at the moment."""

    is_folder: bool


@dataclass(frozen=True)
class Change:
    """One thing that was done to a file's bytes or to a folder's names."""

    node: Node
    offset: int = 0
    data: bytes | None = None
    """Bytes written; None for a change of the length to ``offset``."""
    name: str = ""
    new_name: str = ""
    child: Node | None = None
    """What the name stands for; None where it goes away."""


@dataclass(frozen=True)
class Sync:
    """Everything done to a file or folder so far is there from now on."""

    node: Node


@dataclass(frozen=True)
class Told:
    """Something the program told the world at this point; it must be true after any later power cut."""

    fact: Any


Step = Change | Sync | Told


class _TracedFile(io.FileIO):
    """A raw file whose writes are written down, or fail."""

    def __init__(self, disk: RecordedDisk, path: Path, mode: str) -> None:
        super().__init__(path, mode)
        self._disk = disk
        self._node = disk.node_of(path)

    def write(self, data: Any) -> int:
        whole = bytes(data)
        self._disk.require_trust(self._node, "written")
        allowed = self._disk.ask("write", count=len(whole))
        offset = os.fstat(self.fileno()).st_size if "a" in self.mode else self.tell()
        super().write(whole[:allowed])
        self._disk.steps.append(Change(self._node, offset, whole[:allowed]))
        return allowed

    def truncate(self, size: int | None = None) -> int:
        self._disk.ask("truncate")
        length = self.tell() if size is None else size
        self._disk.steps.append(Change(self._node, length))
        return super().truncate(length)


class RecordedDisk:
    """Writes down what is done to a folder while the context lasts; syncing costs nothing.

    Args:
        root: The folder; what is in it is taken as safely there.
        fault: What fails; by default nothing.
    """

    def __init__(self, root: Path, fault: Fault | None = None) -> None:
        self.root = Node(is_folder=True)
        self.steps: list[Step] = []
        self.calls: Counter[Kind] = Counter()
        """Calls so far that change the folder."""
        self.failed: list[Kind] = []
        """Kinds of the calls that failed, in order."""
        self.trusted_again: list[str] = []
        """Files that were written or synced once more although a sync had failed: nobody knows what is in them."""
        self._doubtful: set[Node] = set()
        self._fault = fault
        self._path = root.resolve()
        self._nodes = {self._path: self.root}
        self._take_stock(self._path)
        self._stack = ExitStack()
        self._real = {
            name: getattr(os, name) for name in ("open", "fsync", "replace", "link", "unlink", "mkdir")
        }
        self._real_open = io.open

    def _take_stock(self, folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            self._enter(path, is_folder=path.is_dir())
            if path.is_dir():
                self._take_stock(path)
            else:
                self.steps += [Change(self._nodes[path], 0, path.read_bytes()), Sync(self._nodes[path])]
        self.steps.append(Sync(self._nodes[folder]))

    def __enter__(self) -> RecordedDisk:
        swaps: list[tuple[Any, str, Callable[..., Any]]] = [
            (io, "open", self._open), (builtins, "open", self._open), (os, "open", self._os_open),
            (os, "fsync", self._fsync), (os, "rename", self._rename), (os, "replace", self._rename),
            (os, "link", self._link), (os, "unlink", self._unlink), (os, "remove", self._unlink),
            (os, "mkdir", self._mkdir),
        ]  # fmt: skip
        for module, name, function in swaps:
            self._stack.enter_context(patch.object(module, name, function))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def tell(self, fact: Any) -> None:
        """Note what the program has told the world by now."""
        self.steps.append(Told(fact))

    def ask(self, kind: Kind, *, count: int = 0) -> int:
        """Count a call and let it fail if it is its turn; returns how many of ``count`` bytes may be written."""
        self.calls[kind] += 1
        fault = self._fault
        if fault is None or kind not in fault.kinds:
            return count
        nth = sum(self.calls[k] for k in fault.kinds)
        if nth < fault.nth or (nth > fault.nth and not fault.lasts):
            return count
        self.failed.append(kind)
        if fault.number == 0:
            return max(count // 2, min(count, 1))
        raise OSError(fault.number, os.strerror(fault.number))

    def node_of(self, path: Path) -> Node:
        """Return what stands at a path, which was opened just now."""
        return self._nodes[path.resolve()]

    def require_trust(self, node: Node, what: str) -> None:
        """Note when a file is used again after its sync had failed; a folder has no other to take its place."""
        if node in self._doubtful and not node.is_folder:
            name = next((p.name for p, n in self._nodes.items() if n is node), "a file without a name")
            self.trusted_again.append(f"{name} was {what} again")

    def _is_inside(self, path: Any) -> bool:
        return isinstance(path, (str, os.PathLike)) and Path(path).resolve().is_relative_to(self._path)

    def _enter(self, path: Path, *, is_folder: bool) -> None:
        path = path.resolve()
        node = self._nodes[path] = Node(is_folder)
        self.steps.append(Change(self._nodes[path.parent], name=path.name, child=node))

    def _open(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        if not self._is_inside(file) or not set(mode) & set("wax+"):
            return self._real_open(file, mode, buffering, *rest, **named)
        assert "b" in mode, f"{file}: only bytes are written"
        path, existed = Path(file), Path(file).exists()
        self.ask("open" if existed else "create")
        if existed and "x" in mode:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        if not existed:
            self._enter(path, is_folder=False)
        elif "w" in mode:
            self.steps.append(Change(self.node_of(path), 0))
        raw = _TracedFile(self, path, mode.replace("b", "").replace("x", "w"))
        return raw if buffering == 0 else io.BufferedWriter(raw)

    def _os_open(self, path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if self._is_inside(path) and not flags & os.O_PATH:
            is_new = bool(flags & os.O_CREAT) and not Path(path).exists()
            self.ask("create" if is_new else "open")
            if is_new:
                self._enter(Path(path), is_folder=False)
        return int(self._real["open"](path, flags, *rest, **named))

    def _fsync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path not in self._nodes:
            return
        node = self._nodes[path]
        self.require_trust(node, "synced")
        try:
            self.ask("fsync")
        except OSError:
            self._doubtful.add(node)
            raise
        self.steps.append(Sync(node))

    def _rename(self, source: Any, target: Any) -> None:
        if self._is_inside(source):
            old, new = Path(source).resolve(), Path(target).resolve()
            self.ask("rename")
            assert old.parent == new.parent, "a move to another folder is not known here"
            node = self._nodes[new] = self._nodes.pop(old)
            self.steps.append(Change(self._nodes[old.parent], name=old.name, new_name=new.name, child=node))
        self._real["replace"](source, target)

    def _link(self, source: Any, target: Any, **named: Any) -> None:
        self.ask("link")
        path = Path(target).resolve()
        self._nodes[path] = self.node_of(Path(source))
        self.steps.append(Change(self._nodes[path.parent], name=path.name, child=self._nodes[path]))
        self._real["link"](source, target, **named)

    def _unlink(self, path: Any, **named: Any) -> None:
        if self._is_inside(path) and Path(path).exists():
            self.ask("unlink")
            gone = Path(path).resolve()
            del self._nodes[gone]
            self.steps.append(Change(self._nodes[gone.parent], name=gone.name))
        self._real["unlink"](path, **named)

    def _mkdir(self, path: Any, *rest: Any, **named: Any) -> None:
        if self._is_inside(path) and not Path(path).exists():
            self.ask("mkdir")
            self._enter(Path(path), is_folder=True)
        self._real["mkdir"](path, *rest, **named)


@dataclass
class _Kept:
    """What is safely there of one file or folder, and what may be."""

    data: bytearray = field(default_factory=bytearray)
    names: dict[str, Node] = field(default_factory=dict)
    since: list[Change] = field(default_factory=list)
    """Changes since the last sync."""

    def settle(self) -> None:
        self.apply(self.since)
        self.since = []

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.node.is_folder:
                self._rename(change)
            elif change.data is None:
                self._resize(change.offset)
            else:
                self._resize(max(len(self.data), change.offset))
                self.data[change.offset : change.offset + len(change.data)] = change.data

    def _resize(self, size: int) -> None:
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))

    def _rename(self, change: Change) -> None:
        self.names.pop(change.name, None)
        if change.child is not None:
            self.names[change.new_name or change.name] = change.child


class PowerCut:
    """The moment after some steps at which the power went.

    Args:
        root: The folder that was recorded.
        steps: What had been asked for by then.
    """

    def __init__(self, root: Node, steps: Sequence[Step]) -> None:
        self._root = root
        self.told = [s.fact for s in steps if isinstance(s, Told)]
        self._kept: dict[Node, _Kept] = {root: _Kept()}
        for step in steps:
            if isinstance(step, Change):
                self._kept.setdefault(step.node, _Kept()).since.append(step)
            elif isinstance(step, Sync):
                self._kept.setdefault(step.node, _Kept()).settle()

    def lay_out(self, folder: Path, surviving: Surviving, draw: random.Random) -> None:
        """Make a folder as it may be found when the power is back.

        Args:
            folder: Does not exist yet.
            surviving: What is left of the changes that nobody had synced.
            draw: Draws which ones.
        """
        self._lay_out(self._root, folder, surviving, draw)

    def _lay_out(self, node: Node, place: Path, surviving: Surviving, draw: random.Random) -> None:
        safe = self._kept.get(node, _Kept())
        found = _Kept(bytearray(safe.data), dict(safe.names))
        found.apply(_survivors(safe.since, surviving, draw))
        if not node.is_folder:
            place.write_bytes(found.data)
            return
        place.mkdir()
        for name, child in found.names.items():
            self._lay_out(child, place / name, surviving, draw)


def _survivors(changes: list[Change], surviving: Surviving, draw: random.Random) -> list[Change]:
    if surviving == "nothing":
        return []
    if surviving == "everything":
        return changes
    if surviving == "the first":
        kept = changes[: draw.randint(0, len(changes))]
    else:
        kept = [c for c in changes if draw.random() < 0.5]
    return [*kept[:-1], _torn(kept[-1], draw)] if kept else []


def _torn(change: Change, draw: random.Random) -> Change:
    """Cut the last write somewhere, or leave zeros where its bytes should be: the length may be there before them."""
    if not change.data or draw.random() < 0.4:
        return change
    length = draw.randint(0, len(change.data))
    torn = change.data[:length] if draw.random() < 0.5 else bytes(length) + change.data[length:]
    return Change(change.node, change.offset, torn)
