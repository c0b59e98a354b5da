"""An adapter in Python: objects are files below one directory, as the adapter `fs` keeps them.

It is built against the same world as an adapter in Rust, streams included, and is as little in the way: what is stored and
read passes from host to host. `layout.py` says where an object lies, `side.py` how its base and labels are kept, `bodies.py`
how bytes are handed on, `walk.py` how all objects are listed.

No object without its lineage: the side file is written first, and the object, which makes both visible, after it.
"""

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import directory, types
from wit_world.imports.directory import WriteOptions

import walk
from bodies import Body, handed_on, of_bytes, read_all
from componentize_py_async_support.streams import ByteStreamReader
from layout import SIDE, SPECS, Layout, object_path
from side import MAX_BYTES, Side

# `grants.directory.objects` in the configuration.
OBJECTS = "objects"


class Adapter(exports.Adapter):
    """The operations. Each runs in a fresh instance: nothing that is kept in memory survives it."""

    def describe(self) -> types.Description:
        features = types.Features.RANGES | types.Features.LINEAGE | types.Features.UNSIZED_INPUT | types.Features.LABELS
        summary = "Keeps objects as files in a directory; written in Python."
        return types.Description("python-fs", "0.1.0", summary, features, SPECS)

    async def store(self, data: ByteStreamReader, hint: types.StoreHint) -> types.Receipt:
        return await write(data, hint, None)

    async def incremental_update(self, base: str, delta: ByteStreamReader, hint: types.StoreHint) -> types.Receipt:
        await directory.stat(OBJECTS, object_path(base))
        return await write(delta, hint, base)

    async def retrieve(self, id: str, range: types.ByteRange | None) -> Body:
        return (await directory.read(OBJECTS, object_path(id), range)).body

    async def stat(self, id: str) -> types.ObjectStat:
        path = object_path(id)
        info = await directory.stat(OBJECTS, path)
        side = await read_side(path + SIDE) or Side()
        return types.ObjectStat(info.size, side.base, None, info.modified, side.labels)

    async def remove(self, id: str) -> None:
        path = object_path(id)
        await directory.remove(OBJECTS, path)
        await directory.remove(OBJECTS, path + SIDE)

    async def probe(self) -> types.Health:
        Layout.configured()
        await directory.list_entries(OBJECTS, "", None, 1)
        return types.Health(True, "the directory answers")


class Inventory(exports.Inventory):
    """What is there, for a host that has lost its catalogue."""

    async def list_objects(self, cursor: str | None, limit: int) -> walk.Page:
        return await walk.page(OBJECTS, Layout.configured(), cursor, limit)


async def write(data: ByteStreamReader, hint: types.StoreHint, base: str | None) -> types.Receipt:
    """Writes the side file, if there is anything to be kept, and then the object."""
    path = Layout.configured().path(hint.key)
    side = Side(base, hint.labels)
    if side:
        await write_side(path + SIDE, side)
    try:
        size = await directory.write(OBJECTS, path, handed_on(data), WriteOptions(hint.size, True))
        return types.Receipt(path, size)
    except Err as error:
        # After a conflict the side file is that of the object which is there.
        if side and not isinstance(error.value, types.Error_Conflict):
            await clear(path)
        raise


async def write_side(path: str, side: Side) -> None:
    """Writes a side file. One that is there already and says the same is what an earlier attempt left."""
    content = side.encode()
    try:
        await directory.write(OBJECTS, path, of_bytes(content), WriteOptions(len(content), True))
    except Err as error:
        if not isinstance(error.value, types.Error_Conflict) or await read_side(path) != side:
            raise


async def read_side(path: str) -> Side | None:
    """The side file at that path, if there is one."""
    try:
        file = await directory.read(OBJECTS, path, None)
    except Err as error:
        if isinstance(error.value, types.Error_NotFound):
            return None
        raise
    return Side.decode(await read_all(file.body, MAX_BYTES))


async def clear(path: str) -> None:
    """After a failed write: takes the side file away, but only when it is certain that no object needs it."""
    try:
        await directory.stat(OBJECTS, path)
    except Err as error:
        if isinstance(error.value, types.Error_NotFound):
            try:
                await directory.remove(OBJECTS, path + SIDE)
            except Err:
                pass  # No news beside the error that led here.
