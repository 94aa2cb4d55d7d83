"""Files compressed in every way that is read."""

import gzip
from collections.abc import Callable

import pyarrow


def zstd(content: bytes) -> bytes:
    """One frame of Zstandard."""
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": lambda content: gzip.compress(content, compresslevel=1),
    "zstd": zstd,
}
