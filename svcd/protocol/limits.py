"""How large anything on the wire may be; the bounds that decoding enforces on what strangers send.

Must not hold timeouts or policy: sizes alone.
"""

from __future__ import annotations

from typing import Final

MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
"""One message body. The sockets enforce it as well (``ZMQ_MAXMSGSIZE``)."""

MAX_STRING_BYTES: Final = 4 * 1024 * 1024
"""One string; the longest honest one is a service's ``code``."""

MAX_COLLECTION_LENGTH: Final = 64 * 1024
"""Entries of one array or map."""

MAX_COLLECTIONS: Final = 256 * 1024
"""Arrays and maps in one message: an empty one is a single byte on the wire and 64 in memory."""

MAX_DEPTH: Final = 32
"""Nesting of the free-form part of a message (``ServiceSpec.config``)."""

MAX_TAG_LENGTH: Final = 64

MAX_TRACEBACK_BYTES: Final = 64 * 1024
"""What a stub sends of one traceback; it cuts the middle out of longer ones."""

MAX_EXCEPTION_TEXT_BYTES: Final = 8 * 1024
"""What a stub sends of one exception's own text."""

MAX_FRAMES: Final = 64
"""Frames of one traceback, innermost kept."""

MAX_SOCKET_PATH_BYTES: Final = 107
"""A Unix socket's path: ``sun_path`` holds 108 bytes, the last one zero (unix(7))."""

MAX_STATE_BYTES: Final = 64 * 1024 * 1024
"""What a service exports of its state."""

MAX_STATE_PART_BYTES: Final = 1024 * 1024
"""It travels in parts of at most this size, so that other messages get their turn between them."""

MAX_OMITTED: Final = 100
"""How many things that were left out of a state are named."""

# ---- calls and events between services -------------------------------------------------------------------------------

MAX_CALL_BYTES: Final = 256 * 1024 * 1024
"""All frames of one call, result, item or event; an endpoint may be given less or more."""

MAX_BUFFERS: Final = 64
"""Large bytes and arrays in one value, each a frame of its own."""

OWN_FRAME_BYTES: Final = 32 * 1024
"""From this size on, bytes and arrays travel as a frame of their own, uncopied."""

MAX_HEAD_BYTES: Final = 128 * 1024
"""The first frame of a message of the data plane; the longest honest one carries a traceback."""

MAX_LIST_LENGTH: Final = 1024 * 1024
"""Entries of one list in a value."""

MAX_MAP_LENGTH: Final = 64 * 1024
"""Entries of one map in a value: keys of an enemy's choice may all collide, and cost the square of this."""

MAX_METHOD_LENGTH: Final = 200
"""A method's or topic's name."""
