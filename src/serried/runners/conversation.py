"""Lines to and fro over a socket, without ever waiting for the other side and without believing in its manners."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
from collections.abc import Callable

from serried.runners.orders import LINE_BYTES, line_of

__all__ = ["Conversation", "is_ours"]

_CHUNK_BYTES = 2**16
_MOST_UNSENT_BYTES = 2 * LINE_BYTES   # a listener that is so far behind has to ask anew


def is_ours(connection: socket.socket) -> bool:
    """Whether the other side belongs to this user, or to root."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", credentials)[1] in (0, os.getuid())


class Conversation:
    """One connection. heard: called with every line; closed: called once when it is over, from either side.

    Not safe for threads by itself: whoever shares it holds a lock around every call.
    """

    def __init__(self, connection: socket.socket, selector: selectors.BaseSelector, *,
                 heard: Callable[[Conversation, bytes], None], closed: Callable[[Conversation], None]) -> None:
        self._connection, self._selector, self._heard, self._closed = connection, selector, heard, closed
        self._unread, self._unsent = bytearray(), bytearray()
        self.open = True
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ, self)

    def say(self, line: bytes) -> None:
        """Send what can be sent now, and the rest when it can."""
        if not self.open:
            return
        idle = not self._unsent
        self._unsent += line
        if idle:
            self._send()
        if self.open and self._unsent:
            if len(self._unsent) > _MOST_UNSENT_BYTES:
                self.close()
            else:
                self._selector.modify(self._connection, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def move(self, events: int) -> None:
        """The socket can be read or written."""
        if self.open and events & selectors.EVENT_WRITE:
            self._send()
            if self.open and not self._unsent:
                self._selector.modify(self._connection, selectors.EVENT_READ, self)
        if self.open and events & selectors.EVENT_READ:
            self._receive()

    def close(self) -> None:
        """Hang up."""
        if self.open:
            self.open = False
            self._selector.unregister(self._connection)
            self._connection.close()
            self._closed(self)

    def flush(self) -> None:
        """Last words: what is left is sent if the other side takes it at once."""
        if self.open:
            self._send()
            self.close()

    def _send(self) -> None:
        try:
            sent = self._connection.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        del self._unsent[:sent]

    def _receive(self) -> None:
        try:
            data = self._connection.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        searched = len(self._unread)
        self._unread += data
        while self.open and (end := self._unread.find(b"\n", searched)) >= 0:
            line = bytes(self._unread[:end])
            del self._unread[:end + 1]
            searched = 0
            self._heard(self, line)
        if self.open and len(self._unread) > LINE_BYTES:
            with contextlib.suppress(OSError):
                self._connection.send(line_of({"refused": f"expected lines of at most {LINE_BYTES} bytes"}))
            self.close()
