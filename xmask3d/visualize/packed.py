"""Arrays inside a page: compressed and encoded as letters, with their size, for unpacking in plain JavaScript."""

import base64
import zlib

import numpy as np


def pack(values: np.ndarray, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> dict[str, object]:
    """Compress the bytes of an array (raw deflate), for `unpack` of `words.js`.

    Args:
        values: little-endian numbers of any shape and type.
        strategy: strategy of zlib; Huffman codes alone suit noise, and are several times as fast.
    """
    content = np.ascontiguousarray(values).tobytes()
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15, 9, strategy)
    return {"data": base64.b64encode(deflate.compress(content) + deflate.flush()).decode("ascii"), "size": len(content)}
