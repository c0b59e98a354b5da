"""Listing the objects, page by page, with nothing remembered between pages but the cursor.

The directories of the fan-out are visited in order. A cursor is the directory to go on with and, behind a `:`, the host's own
cursor in it; the flat layout has one directory, which has no name. A page costs at most about `MAX_LISTINGS` listings.
"""

from componentize_py_types import Err
from wit_world.imports import directory, types

# The records of an exported interface are generated beside it.
from wit_world.exports.inventory import Entry, Page

from layout import Layout, invalid, is_fan, is_key

MAX_LISTINGS = 1024


async def page(grant: str, layout: Layout, cursor: str | None, limit: int) -> Page:
    """At most `limit` objects, and where to go on."""
    start, rest = parse(cursor, layout.flat)
    found: list[Entry] = []
    left = MAX_LISTINGS
    async for leaf in leaves(grant, layout, start):
        if leaf != start:
            rest = None
        while True:
            if len(found) >= limit or left <= 0:
                return Page(found, f"{leaf}:{rest or ''}")
            left -= 1
            path = layout.below(leaf)
            listed = await entries(grant, path, rest, limit - len(found))
            files = (entry for entry in listed.entries if not entry.is_directory and is_key(entry.name))
            found += [Entry(f"{path}/{file.name}" if path else file.name, file.size, file.modified) for file in files]
            rest = listed.next
            if rest is None:
                break
    return Page(found, None)


async def leaves(grant: str, layout: Layout, start: str):
    """The directories that hold objects, from one of them on."""
    if layout.flat:
        yield ""
        return
    for outer in await folders(grant, layout.below("")):
        if outer >= start[:2]:
            for inner in await folders(grant, layout.below(outer)):
                if f"{outer}/{inner}" >= start:
                    yield f"{outer}/{inner}"


async def folders(grant: str, path: str) -> list[str]:
    """The directories of the fan-out in one directory. There are at most 256."""
    found: list[str] = []
    cursor = None
    while True:
        listed = await entries(grant, path, cursor, 512)
        found += [entry.name for entry in listed.entries if entry.is_directory and is_fan(entry.name)]
        cursor = listed.next
        if cursor is None:
            return found


async def entries(grant: str, path: str, cursor: str | None, limit: int) -> directory.Page:
    """One listing. A directory that is not there (yet, or any more) is an empty one."""
    try:
        return await directory.list_entries(grant, path, cursor, limit)
    except Err as error:
        if isinstance(error.value, types.Error_NotFound):
            return directory.Page([], None)
        raise


def parse(cursor: str | None, flat: bool) -> tuple[str, str | None]:
    """The directory, and where to go on in it."""
    leaf, colon, rest = (cursor or ("" if flat else "00/00") + ":").partition(":")
    if not colon or (leaf != "" if flat else [*map(is_fan, leaf.split("/"))] != [True, True]):
        raise invalid("the cursor is not one that this adapter gave with these settings")
    return leaf, rest or None
