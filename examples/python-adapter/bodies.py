"""Bytes on their way. A body is a stream and a future that says how it ended.

A stream that came from the host goes back to the host as a handle: not one of its bytes enters this interpreter.
"""

import wit_world
from componentize_py_async_support import spawn
from componentize_py_async_support.futures import FutureReader
from componentize_py_async_support.streams import ByteStreamReader
from componentize_py_types import Err, Ok, Result
from wit_world.imports import types

Body = tuple[ByteStreamReader, FutureReader[Result[None, types.Error]]]


def handed_on(data: ByteStreamReader) -> Body:
    """What `store` was given, as it is. If its source fails, the host drops this whole instance: an end is the real one."""
    writer, ended = wit_world.result_unit_types_error_future(lambda: Ok(None))
    spawn(writer.write(Ok(None)))
    return data, ended


def of_bytes(content: bytes) -> Body:
    """Bytes of our own. Whoever reads them hears that they are whole only after the last one."""
    stream, reader = wit_world.byte_stream()
    broken = types.Error_Other("the adapter stopped before the end of its bytes")
    ending, ended = wit_world.result_unit_types_error_future(lambda: Err(broken))

    async def pour() -> None:
        with stream:
            await stream.write_all(content)
        await ending.write(Ok(None))

    spawn(pour())
    return reader, ended


async def read_all(body: Body, most: int) -> bytes:
    """All bytes of a reply that is known to be small, once it is known that they are all."""
    stream, ended = body
    content = b""
    with stream:
        while not stream.writer_dropped:
            content += await stream.read(most + 1)
            if len(content) > most:
                raise Err(types.Error_Corrupt(f"there are more than {most} bytes where so many are allowed"))
    how = await ended.read()
    if isinstance(how, Err):
        raise how
    return content
