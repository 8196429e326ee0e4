"""What is wrong in a YAML file or a flag, in one line: which file, which line, and the nearest valid name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

import yaml

Keys = tuple[str, ...]

_UNKNOWN = re.compile(r"Option '([^']+)' is not accepted|Group '([^']+)' does not accept option '([^']+)'")
_KEY = re.compile(r'^( *)(?:- )?Parser key "([^"]+)":', re.MULTILINE)
_CLASS = re.compile(r"Problem with given class_path '([^']+)'")
_EXPECTED = re.compile(r"Expected an? (.+?)\.?(?: Got value: .*)?$", re.MULTILINE)
_GIVEN = re.compile(r"(?:Given|Got) value: (.*)$", re.MULTILINE)
_NO_CLASS = re.compile(r"Expected a dot import path string: (.+)$", re.MULTILINE)
_FLAGS = re.compile(r"unrecognized arguments: (.+)")
_NO_FILE = re.compile(r"File does not exist: '([^']+)'")
_SYNTAX = re.compile(r"Problems parsing config: (.+?)(?:\n|$).*?line (\d+)", re.DOTALL)
_QUOTED = re.compile(r"'([^']*)'")
_MISSING = re.compile(r"the following arguments are required: (.+)")


class ConfigError(ValueError):
    """A mistake at one place of a configuration.

    Args:
        message: what was given, what is allowed.
        keys: that lead to the place from the top; numbers count in lists.
    """

    def __init__(self, message: str, keys: Iterable[str | int]) -> None:
        super().__init__(message)
        self.keys: Keys = tuple(map(str, keys))


def explain(message: str, files: Sequence[Path], known: Iterable[str]) -> str:
    """What jsonargparse found wrong, in one line, with the file, the line and the nearest valid name.

    Args:
        message: of jsonargparse's error.
        files: the YAML files that were given; where a key is in several, the last one counts.
        known: valid names, dotted (trainer.max_steps); names of classes, where keys take some.

    >>> explain("Option 'sise' is not accepted", [], ["size", "name"])
    "unknown name 'sise'. Did you mean 'size'?"
    """
    if found := _SYNTAX.search(message):
        where = f"{files[-1]}, line {found[2]}: " if files else ""
        return f"{where}no valid YAML: {found[1].strip()}."
    problem, keys = diagnose(message, known)
    return place(files, keys) + problem


def diagnose(message: str, known: Iterable[str]) -> tuple[str, list[str]]:
    """What jsonargparse found wrong, in one line, and the keys that lead to it (none if a flag says it all).

    >>> diagnose("Group 'trainer' does not accept option 'max_stepz'", ["trainer.max_steps"])
    ("unknown name 'trainer.max_stepz'. Did you mean 'max_steps'?", ['trainer', 'max_stepz'])
    """
    names = list(known)
    if found := _UNKNOWN.search(message):
        return _unknown_key(message, found, names)
    if found := _FLAGS.search(message):
        flag = found[1].split()[0].partition("=")[0]
        return f"unknown flag {flag}.{did_you_mean(flag, [f'--{name}' for name in names])}", []
    if found := _MISSING.search(message):
        return f"{found[1]} is needed.", []
    if found := _NO_FILE.search(message):
        return f"{found[1]}: no such file.{_near_file(Path(found[1]))}", []
    if _KEY.search(message):
        return _wrong_value(message, names)
    return " ".join(message.split()), []


def locate(error: ConfigError, files: Sequence[Path]) -> str:
    """The message of an error, behind the file and the line that it is about."""
    return f"{place(files, error.keys)}{error}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with the nearest of the names, or nothing if none is near.

    >>> did_you_mean("rerankr", ["reranker", "text"]), did_you_mean("x", ["reranker"])
    (" Did you mean 'reranker'?", '')
    """
    names = sorted(set(known))
    lower = {one.lower(): one for one in names}
    near = get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    return f" Did you mean {lower[near[0]]!r}?" if near else ""


def place(files: Sequence[Path], keys: Sequence[str]) -> str:
    """`FILE, line N: ` where the keys are, or nothing if they are in none of the files."""
    wanted = _parts(keys)
    for length in range(len(wanted), 0, -1):
        for file in reversed(files):
            lines = [(len(found), line) for found, line in _lines(file) if _leads_to(found, wanted[:length])]
            if lines:
                return f"{file}, line {min(lines)[1]}: "
    return ""


def _lines(file: Path) -> Iterator[tuple[list[str], int]]:
    """Every key and every item of a list, as the keys that lead to it, with its line."""
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, yaml.YAMLError):
        return
    yield from _walk(root, ())


def _walk(node: yaml.Node | None, above: Keys) -> Iterator[tuple[list[str], int]]:
    pairs: list[tuple[str, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        pairs = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        pairs = [(str(i), item, item) for i, item in enumerate(node.value)]
    for name, marked, value in pairs:
        yield _parts((*above, name)), marked.start_mark.line + 1
        yield from _walk(value, (*above, name))


def _parts(keys: Iterable[str]) -> list[str]:
    return [part for key in keys for part in key.split(".")]


def _leads_to(found: list[str], wanted: list[str]) -> bool:
    """Whether the last parts are the same, and the others of `wanted` are in `found`, in this order."""
    rest = iter(found)
    return found[-1] == wanted[-1] and all(part in rest for part in wanted)


def _unknown_key(message: str, found: re.Match[str], known: list[str]) -> tuple[str, list[str]]:
    """A key, or a setting of a class, that there is not."""
    outer = [match[2] for match in _KEY.finditer(message, 0, found.start())]
    keys = _parts([*outer, *(part for part in found.groups() if part)])
    inside = list(_CLASS.finditer(message, 0, found.start()))
    if inside:
        return f"unknown name {keys[-1]!r}.{_hint(keys[-1], _settings_of(inside[-1][1]))}", keys
    length = next((i for i in range(1, len(keys) + 1) if not _is_known(keys[:i], known)), len(keys))
    above = "".join(f"{part}." for part in keys[: length - 1])
    siblings = {one.removeprefix(above).partition(".")[0] for one in known if one.startswith(above)}
    return f"unknown name {above + keys[length - 1]!r}.{_hint(keys[length - 1], siblings)}", keys[:length]


def _hint(name: str, known: set[str]) -> str:
    """The nearest name, else all names."""
    return did_you_mean(name, known) or (f" Allowed: {', '.join(sorted(known))}." if known else "")


def _is_known(keys: list[str], known: list[str]) -> bool:
    name = ".".join(keys)
    return any(one == name or one.startswith(f"{name}.") for one in known)


def _settings_of(class_path: str) -> set[str]:
    """What a class and those above it are made with."""
    module, _, name = class_path.rpartition(".")
    kind = getattr(import_module(module), name, None) if module else None
    kinds = kind.__mro__ if isinstance(kind, type) else [kind] if kind else []
    return {parameter for one in kinds for parameter in _parameters(one)} - {"self", "args", "kwargs"}


def _parameters(kind: object) -> Iterable[str]:
    made = kind.__dict__.get("__init__") if isinstance(kind, type) else kind
    return inspect.signature(made).parameters if callable(made) and kind is not object else ()


def _wrong_value(message: str, known: list[str]) -> tuple[str, list[str]]:
    """A value of another type than its key has."""
    matches = list(_KEY.finditer(message))
    keys, name = _parts(match[2] for match in matches), matches[-1][2]
    inner = _block(message, matches[-1])
    if no_class := _NO_CLASS.search(inner):
        return f"{name}: no class {no_class[1]!r}.{did_you_mean(no_class[1], known)}", keys
    expected = " or ".join(dict.fromkeys(_type_name(one) for one in _EXPECTED.findall(inner)))
    if not expected:
        return f"{name}: {' '.join(inner.split())}", keys
    given = _GIVEN.search(inner)
    value = given[1].strip() if given else ""
    shown = f"={value}" if given else ""
    return f"{name}{shown}; allowed: {expected}.{did_you_mean(value, re.findall(_QUOTED, expected))}", keys


def _block(message: str, key: re.Match[str]) -> str:
    """What is said of a key: the lines that are indented behind it."""
    first, *others = message[key.end() :].split("\n")
    inner = [first]
    for line in others:
        if len(line) - len(line.lstrip()) <= len(key[1]):
            break
        inner.append(line)
    return "\n".join(inner)


def _type_name(text: str) -> str:
    """A type as a user writes it: `<class 'int'>` is `int`.

    >>> _type_name("<class 'NoneType'>"), _type_name("typing.Literal['a', 'b']")
    ('null', "'a', 'b'")
    """
    text = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", text)
    text = re.sub(r"^typing\.Literal\[(.+)\]$", r"\1", text)
    return {"NoneType": "null"}.get(text, text)


def _near_file(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path()
    return did_you_mean(path.name, [one.name for one in folder.iterdir() if one.is_file()])
