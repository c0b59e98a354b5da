"""The side file: what an object's bytes do not say. The format is that of the adapter `fs`, a line for each fact:

    tidelock-side 1
    base ab/cd/0k3z
    label agent crawler%0A7
    end

In values `%`, control characters and everything outside ASCII is percent-encoded. `end` tells a whole file from a damaged one.
"""

from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from componentize_py_types import Err
from wit_world.imports import types

from layout import is_key

HEAD = "tidelock-side 1"
MAX_BYTES = 64 << 10


@dataclass
class Side:
    """The base and the labels of an object."""

    base: str | None = None
    labels: list[tuple[str, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.base is not None or bool(self.labels)

    def encode(self) -> bytes:
        """The file."""
        lines = [HEAD]
        if self.base is not None:
            lines.append(f"base {escape(self.base)}")
        lines += [f"label {name} {escape(value)}" for name, value in self.labels]
        file = "\n".join([*lines, "end\n"]).encode()
        if len(file) > MAX_BYTES:
            raise Err(types.Error_Invalid("the labels of an object must fit into 64 KiB"))
        return file

    @staticmethod
    def decode(file: bytes) -> "Side":
        """What is in a file."""
        try:
            lines = file.decode("ascii").split("\n")
            if lines[0] != HEAD or lines[-2:] != ["end", ""]:
                raise ValueError("it is not whole")
            side = Side()
            for line in lines[1:-2]:
                side.take(*line.split(" ", 1))
            return side
        except (ValueError, TypeError) as why:
            raise Err(types.Error_Corrupt(f"the side file is damaged: {why}"))

    def take(self, kind: str, rest: str) -> None:
        if kind == "base" and self.base is None and rest:
            self.base = unescape(rest)
        elif kind == "label" and is_key(rest.split(" ", 1)[0]):
            name, value = rest.split(" ", 1)
            self.labels.append((name, unescape(value)))
        else:
            raise ValueError("it has a line that is neither a base nor a label")


def escape(text: str) -> str:
    return "".join(chr(b) if 0x20 <= b < 0x7F and b != 0x25 else f"%{b:02X}" for b in text.encode())


def unescape(text: str) -> str:
    return unquote_to_bytes(text).decode()
