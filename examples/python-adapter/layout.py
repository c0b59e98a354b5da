"""Where an object lies below the grant, and how its id says so.

The id of an object is its path, so it stays valid when the settings change. The paths are those of the adapter `fs`, which
can take over from this one and give back to it: `fan-out` puts KEY at `ab/cd/KEY`, where `ab` and `cd` come from a hash of the
key, `flat` puts it at `KEY`. Beside an object there may be its side file, `KEY.base` (side.py).
"""

from dataclasses import dataclass

from componentize_py_types import Err
from wit_world.imports import settings, types

SIDE = ".base"
MAX_PREFIX_BYTES = 900

SPECS = [
    types.SettingSpec(
        "prefix",
        types.SettingKind.TEXT,
        False,
        "A directory below the grant in which new objects go. Without it: the grant itself.",
    ),
    types.SettingSpec(
        "layout",
        types.SettingKind.TEXT,
        False,
        "`fan-out` (without it) spreads objects over two levels of directories; `flat` keeps them in one.",
    ),
]


def invalid(why: str) -> Err:
    """The error for a request that makes no sense."""
    return Err(types.Error_Invalid(why))


@dataclass
class Layout:
    """The settings."""

    prefix: str
    flat: bool

    @staticmethod
    def configured() -> "Layout":
        """As the operator has set it."""
        prefix, layout = text("prefix", ""), text("layout", "fan-out")
        if layout not in ("fan-out", "flat"):
            raise invalid("setting `layout` must be `fan-out` or `flat`")
        if len(prefix.encode()) > MAX_PREFIX_BYTES or (prefix and not is_path(prefix)):
            raise invalid("setting `prefix` must be a relative path without `..`, as in `vm/images`")
        return Layout(prefix, layout == "flat")

    def path(self, key: str) -> str:
        """The path, and so the id, of a new object."""
        return self.below(key if self.flat else f"{fan(key)}/{key}")

    def below(self, path: str) -> str:
        """A path below the prefix; either may be empty."""
        return "/".join(part for part in (self.prefix, path) if part)


def text(name: str, otherwise: str) -> str:
    value = settings.get(name)
    return value.value if isinstance(value, types.SettingValue_Text) else otherwise


def is_control(character: str) -> bool:
    return ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0


def is_path(path: str) -> bool:
    """Whether a path stays below where it starts and is none of the host's unfinished files."""
    parts = path.split("/")
    wrong = any(part in ("", ".", "..") or part.startswith(".tmp") for part in parts)
    return not (wrong or "\\" in path or any(map(is_control, path)))


def is_key(name: str) -> bool:
    """Whether a file of that name is an object: a key as the host gives them."""
    return 0 < len(name) <= 64 and all(c in "abcdefghijklmnopqrstuvwxyz0123456789-" for c in name)


def is_fan(name: str) -> bool:
    """Whether a directory of that name is one of the fan-out."""
    return len(name) == 2 and all(c in "0123456789abcdef" for c in name)


def object_path(id: str) -> str:
    """The path of an object from its id."""
    if not is_path(id) or len(id.encode()) > 1024:
        raise invalid(f"`{id}` is not a path below the backend's root")
    if id.endswith(SIDE):
        raise invalid(f"`{id}` is a side file, not an object")
    return id


def fan(key: str) -> str:
    """The two directories of a key: FNV-1a of it, folded to 16 bits."""
    hash = 0xCBF2_9CE4_8422_2325
    for byte in key.encode():
        hash = ((hash ^ byte) * 0x0100_0000_01B3) & 0xFFFF_FFFF_FFFF_FFFF
    hash ^= hash >> 32
    hash ^= hash >> 16
    return f"{hash & 0xFF:02x}/{hash >> 8 & 0xFF:02x}"
