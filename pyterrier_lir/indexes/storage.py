"""How an index lies on disk: shards that are written whole, and a metadata file that is written last.

    x.lir/                 a complete index
      pt_meta.json         what it is, which shards it has; written last
      00000/ 00001/ ...    a shard: docnos, fields and the arrays of the index's kind
      deleted-N.npy        True for documents that are no more; the metadata names the one that counts
      engines/             what search engines made of the vectors
    x.lir.building/        a build under way, or one that was interrupted
      build.json           what it will be, where it started
      00000/ ...           complete shards; one under way ends in .part

A shard is made under another name, brought to the disk and renamed; so is the index.  Whatever kills a build, the index
is either as before or not there, and the complete shards wait for `mode="resume"`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .arrays import write_array

VERSION = 1
META, BUILD = "pt_meta.json", "build.json"
# where an index lies that is being replaced: inside the new one, where nobody else keeps anything
REPLACED = ".replaced-by-build"
Mode = Literal["create", "overwrite", "append", "resume"]
MODES: tuple[str, ...] = get_args(Mode)


@dataclass(frozen=True)
class Shard:
    """A part of an index: its folder, its number of documents, and the docid of its first."""

    folder: Path
    docs: int
    start: int


def _real(path: Path) -> Path:
    """Where an index lies; a link to it stays as it is."""
    return path.resolve() if path.is_symlink() else path


def building_path(path: Path) -> Path:
    """Where a build of the index at `path` is under way: on its file system, wherever a link leads."""
    path = _real(path)
    return path.with_name(path.name + ".building")


def read_meta(path: Path) -> dict[str, Any]:
    """The metadata of a complete index.

    Raises:
        FileNotFoundError: if there is no index, or only a part of one.
        ValueError: if it was written by a later version, or is no index of this package.
    """
    if not (path / META).is_file():
        _complete(path)
    if not (path / META).is_file():
        if building_path(path).is_dir():
            raise FileNotFoundError(
                f"{path} is incomplete: its build was interrupted. Index again with mode='resume' to go on, or with "
                "mode='overwrite' to start anew."
            )
        raise FileNotFoundError(f"{path} is no index: it has no {META}.")
    meta: dict[str, Any] = json.loads((path / META).read_text(encoding="utf-8"))
    if meta.get("format") != "lir":
        raise ValueError(f"{path} is a {meta.get('type')} of format {meta.get('format')!r}, not of this package.")
    if meta["version"] > VERSION:
        raise ValueError(
            f"{path} was written by a later version (format {meta['version']}; this one reads up to {VERSION})."
        )
    return meta


def _complete(path: Path) -> None:
    """Do the last step of a build that was killed before it: what is there is whole, but not in its place."""
    if (building_path(path) / META).is_file():
        with contextlib.suppress(OSError):
            building_path(path).rename(_real(path))


def stamp_of(path: Path) -> tuple[int, int] | None:
    """What changes with every change of the index in a folder; None where there is none."""
    try:
        found = (path / META).stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino


def docids_stamp(path: Path, meta: dict[str, Any]) -> list[tuple[str, int, int]]:
    """What changes whenever docids come to mean other documents, which deletions alone do not do."""
    files = [(shard, path / shard["name"] / "docnos.rows.npy") for shard in meta["shards"]]
    return [(s["name"], s["docs"], file.stat().st_mtime_ns if file.is_file() else 0) for s, file in files]


def comparable(header: dict[str, Any]) -> dict[str, Any]:
    """What indexes that belong together have in common: a model is known by its weights, wherever it lies.

    >>> one, other = ({"model": {"source": place, "fingerprint": "1"}} for place in ("/a/model", "/b/model"))
    >>> comparable(one) == comparable(other)
    True
    """
    model = header.get("model", {})
    return {**header, "model": {k: v for k, v in model.items() if k != "source" or not model.get("fingerprint")}}


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """By name the values that keep what two headers describe apart; the size of no vectors, None, fits any.

    >>> differences({"size": None, "config": {"a": 1, "b": 2}}, {"size": 3, "config": {"a": 1, "b": 4}})
    {"config's b": (2, 4)}
    """
    one, other = comparable(one), comparable(other)
    pairs = {name: (value, other.get(name)) for name, value in one.items()}
    if None in pairs.get("size", ()):
        del pairs["size"]
    for name in ("config", "model"):
        ours, theirs = pairs.pop(name, ({}, {}))
        pairs |= {f"{name}'s {key}": (ours.get(key), (theirs or {}).get(key)) for key in {**ours, **(theirs or {})}}
    return {name: values for name, values in pairs.items() if values[0] != values[1]}


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file that is either the old or the new one, whenever the machine stops."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(values, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_deleted(path: Path, deleted: NDArray[np.bool_], before: str | None) -> str:
    """Write a mask of deleted documents beside the one that counts so far, and return its name."""
    number = 1 + (int(Path(before).stem.partition("-")[2]) if before else 0)
    write_array(path / f"deleted-{number}.npy", deleted)
    return f"deleted-{number}.npy"


def delete(path: Path, deleted: NDArray[np.bool_]) -> None:
    """Let the index have these deleted documents, and no others."""
    meta = read_meta(path)
    write_json(path / META, {**meta, "deleted": write_deleted(path, deleted, meta.get("deleted"))})
    tidy(path)


def tidy(path: Path) -> None:
    """Remove what does not belong to the index, such as what a change left that was killed at its very end."""
    if (path / META).is_file():
        (path / BUILD).unlink(missing_ok=True)
        named = read_meta(path).get("deleted")
        for file in path.glob("deleted-*.npy"):
            if file.name != named:
                file.unlink(missing_ok=True)
        shutil.rmtree(path / REPLACED, ignore_errors=True)


def discard(path: Path) -> None:
    """Give up a build that was interrupted; what was there before it stays."""
    _complete(path)
    shutil.rmtree(building_path(path), ignore_errors=True)
    if (path / META).is_file():
        named = {shard["name"] for shard in read_meta(path)["shards"]}
        for shard in path.glob("[0-9]" * 5):  # that an append which was killed at its end had moved already
            if shard.name not in named:
                shutil.rmtree(shard)
    tidy(path)


def shards_of(path: Path, meta: dict[str, Any]) -> list[Shard]:
    """The shards of a complete index, in the order of docids."""
    found, start = [], 0
    for entry in meta["shards"]:
        found.append(Shard(path / entry["name"], entry["docs"], start))
        start += entry["docs"]
    return found


class Build:
    """A build under way in the folder beside the index.

    Args:
        path: where the index will be.
        mode: `create` refuses what is there, `overwrite` replaces it, `append` adds to it, `resume` goes on with an
            interrupted build (and starts one where there is none).
        header: what the index will be: its type and settings, JSON values.  Those of an index that is appended to or
            of a build that goes on must be the same.
        copies: whether the documents are those of other indexes, so that an interrupted build is begun anew.
        replace: whether documents take the place of those that have their docno.

    Attributes:
        complete: whether there is an index, and no build of it to go on with.
        replace: as given, or as it was when an interrupted build that goes on was begun.
        docs: documents that are already in complete shards of this build; the stream begins with them.
        start: docid of the first document that this build adds.

    Raises:
        FileExistsError: if there is an index or an interrupted build that the mode does not allow for.
        FileNotFoundError: if there is no index to append to.
        ValueError: for an unknown mode or other settings.
    """

    def __init__(
        self, path: Path, mode: Mode, header: dict[str, Any], copies: bool = False, replace: bool = False
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode={mode!r}; allowed: {', '.join(map(repr, MODES))}.")
        self.path, self.work = _real(path), building_path(path)
        self._header, self._copies, self.replace = header, copies, replace
        self.complete = False
        _complete(path)
        state = self._state(mode)
        tidy(path)
        self._base: list[dict[str, Any]] = state["base"]
        self._shards: list[dict[str, Any]] = state["shards"]
        self.start = sum(shard["docs"] for shard in self._base)
        self.docs = sum(shard["docs"] for shard in self._shards)
        for part in (*self.work.glob("*.part"), *self.work.glob("deleted-*.npy")):
            shutil.rmtree(part) if part.is_dir() else part.unlink()

    def _state(self, mode: Mode) -> dict[str, Any]:
        if self.work.is_dir() and ((mode == "overwrite" and not self._copies) or self._worthless()):
            shutil.rmtree(self.work)
        if self.work.is_dir():
            return self._interrupted(mode)
        base: list[dict[str, Any]] = []
        if (self.path / META).exists() and mode != "overwrite":
            if mode == "create":
                raise FileExistsError(f"{self.path} already holds an index; choose mode='overwrite' or 'append'.")
            meta = read_meta(self.path)
            self._same(meta)
            base = meta["shards"]
            if mode == "resume":
                self.complete = True
                return {"base": base, "shards": []}
        elif mode == "append":
            read_meta(self.path)
        elif self.path.exists() and mode != "overwrite" and any(self.path.iterdir()):
            raise FileExistsError(f"{self.path} exists and is no index; choose another path.")
        elif self.path.exists() and mode == "overwrite":
            read_meta(self.path)  # nothing else than an index is overwritten
        self.work.mkdir(parents=True)
        state = {"header": self._header, "base": base, "copies": self._copies, "replace": self.replace, "shards": []}
        write_json(self.work / BUILD, state)
        return state

    def _worthless(self) -> bool:
        """Whether nothing is lost with the build that was interrupted."""
        file = self.work / BUILD
        if not file.is_file():  # nothing was written yet
            return True
        state = json.loads(file.read_text(encoding="utf-8"))
        if state["copies"]:
            return True
        # all is in the index already, to which it was appended
        appended = bool(state["base"] and state["shards"]) and self.path.is_dir()
        return appended and read_meta(self.path)["shards"] == [*state["base"], *state["shards"]]

    def _interrupted(self, mode: Mode) -> dict[str, Any]:
        if mode != "resume":
            raise FileExistsError(
                f"{self.work} holds an interrupted build of {self.path}: index with mode='resume' to go on with it, or "
                f"{self.instead()}."
            )
        state: dict[str, Any] = json.loads((self.work / BUILD).read_text(encoding="utf-8"))
        self._same(state["header"])
        self.replace |= state.get("replace", False)
        write_json(self.work / BUILD, {**state, "replace": self.replace})
        return state

    def instead(self) -> str:
        """What can be done instead of going on with a build that was interrupted, in words."""
        if not (self.path / META).is_file():
            return "with mode='overwrite' to start anew"
        docs = read_meta(self.path)["docs"]
        return (
            f"give it up by the index's discard(), which keeps the {docs} documents that were indexed before; "
            "mode='overwrite' drops them too"
        )

    def _same(self, other: dict[str, Any]) -> None:
        """Compare what this build makes with what is there."""
        changed = differences(self._header, other)
        if changed:
            told = "; ".join(f"{name}: {there!r} there, {now!r} now" for name, (now, there) in changed.items())
            raise ValueError(f"{self.path} was begun with other settings ({told}).")
        if self._header.get("size", 0) is None:  # of an empty stream
            self._header = {**self._header, "size": other["size"]}

    @contextmanager
    def shard(self) -> Iterator[tuple[Path, Callable[[int], None]]]:
        """A folder for the next shard, and a function that is told its number of documents when it is whole."""
        name = f"{len(self._base) + len(self._shards):05d}"
        part = self.work / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()

        def whole(docs: int) -> None:
            sync_folder(part)
            shutil.rmtree(self.work / name, ignore_errors=True)  # of an interruption before the next lines
            part.rename(self.work / name)
            self._shards.append({"name": name, "docs": docs})
            state = json.loads((self.work / BUILD).read_text(encoding="utf-8"))
            write_json(self.work / BUILD, {**state, "shards": self._shards})
            self.docs += docs

        try:
            yield part, whole
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def abandon(self) -> None:
        """Leave nothing of a build that has no complete shard."""
        shutil.rmtree(self.work, ignore_errors=True)

    def shards(self) -> list[Shard]:
        """The shards of the index that is appended to, then the complete ones of this build."""
        folders = [(self.path, shard) for shard in self._base] + [(self.work, shard) for shard in self._shards]
        found, start = [], 0
        for folder, shard in folders:
            place = folder / shard["name"]  # an interrupted end of an appending build has moved some already
            found.append(Shard(place if place.is_dir() else self.path / shard["name"], shard["docs"], start))
            start += shard["docs"]
        return found

    def finish(self, deleted: NDArray[np.bool_] | None = None) -> None:
        """Make the index of the shards.

        Args:
            deleted: documents (by docid) that are no more, if they are to be others than before.
        """
        shards = [*self._base, *self._shards]
        docs = sum(shard["docs"] for shard in shards)
        meta = {"version": VERSION, **self._header, "docs": docs, "shards": shards}
        if self._base:
            before = read_meta(self.path).get("deleted")
            now = write_deleted(self.path, deleted, before) if deleted is not None and deleted.any() else before
            meta |= {"deleted": now} if now else {}
            for shard in self._shards:
                if (self.work / shard["name"]).is_dir():
                    shutil.rmtree(self.path / shard["name"], ignore_errors=True)
                    (self.work / shard["name"]).rename(self.path / shard["name"])
            shutil.rmtree(self.path / "engines", ignore_errors=True)
            write_json(self.path / META, meta)
            shutil.rmtree(self.path / "engines", ignore_errors=True)  # made of what was there until the line before
            shutil.rmtree(self.work)
            tidy(self.path)
            return
        if deleted is not None and deleted.any():
            meta["deleted"] = write_deleted(self.work, deleted, None)
        write_json(self.work / META, meta)
        if self.path.exists():
            self.path.rename(self.work / REPLACED)
        _complete(self.path)
        sync_folder(self.path.parent)
        tidy(self.path)
