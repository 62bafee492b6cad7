"""JSON, one line a message, over a TCP connection that never blocks: the watchdog's own channel, outside of MPI."""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import select
import socket
import struct
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

LINE_LIMIT = 16 << 20  # bytes of one message; the stacks of a thousand threads are smaller
STRANGER_LIMIT = 4096  # bytes that somebody who has not shown the token may send
BACKLOG_LIMIT = 32 << 20  # bytes that wait for a peer which does not read; more are not kept
_PIECE = 1 << 16


class LineSocket:
    """One end of the connection.

    Args:
        connection: a connected TCP socket, from now on this object's.
        limit: bytes that a line may have; a longer one closes the connection.
    """

    def __init__(self, connection: socket.socket, limit: int = LINE_LIMIT) -> None:
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.limit = limit
        self.open = True
        self.lost = False  # closed because the network has failed, which says nothing about the peer
        self._connection = connection
        self._incoming = bytearray()
        self._outgoing = bytearray()

    def fileno(self) -> int:
        """The descriptor, for ``select``; -1 when closed."""
        return self._connection.fileno()

    @property
    def sending(self) -> bool:
        """Whether something waits to be sent."""
        return self.open and bool(self._outgoing)

    def send(self, message: Message) -> None:
        """Sends as much as the peer takes; the rest goes with the next call, or with :meth:`flush`."""
        if not self.open:
            return
        if len(self._outgoing) < BACKLOG_LIMIT:
            self._outgoing += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Sends what waits, as much as the peer takes."""
        try:
            while self._outgoing:
                sent = self._connection.send(self._outgoing[:_PIECE])
                del self._outgoing[:sent]
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)

    def receive(self) -> list[Message]:
        """The messages that have arrived; a peer that has gone, or talks nonsense, leaves the socket closed."""
        messages: list[Message] = []
        ended = False
        try:
            while not ended:
                piece = self._connection.recv(_PIECE)
                ended = not piece
                self._incoming += piece
                if len(self._incoming) > self.limit + _PIECE:
                    break
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._fail(error)
        *lines, rest = self._incoming.split(b"\n")
        self._incoming = bytearray(rest)
        for line in lines:
            try:
                message = json.loads(line) if len(line) <= self.limit else None
            except ValueError:
                message = None
            if not isinstance(message, dict):
                ended = True
                break
            messages.append(message)
        if ended or len(self._incoming) > self.limit:
            self.close()
        return messages

    def _fail(self, error: OSError) -> None:
        # the system closes or resets the connections of a process that ends; everything else is the network's
        self.lost = self.lost or not isinstance(error, ConnectionResetError | BrokenPipeError)
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self.open = False
        with contextlib.suppress(OSError):
            self._connection.close()


def ready(readers: Sequence[Any], writers: Sequence[Any], timeout: float) -> tuple[list[Any], list[Any]]:
    """Those that can be read and written at once, by ``poll``: ``select`` knows no descriptor above 1023.

    Args:
        readers: objects with ``fileno()``, open ones.
        writers: the same.
        timeout: seconds.
    """
    poll = select.poll()
    wanted: dict[int, int] = {}
    for items, event in ((readers, select.POLLIN), (writers, select.POLLOUT)):
        for item in items:
            wanted[item.fileno()] = wanted.get(item.fileno(), 0) | event
    for descriptor, events in wanted.items():
        poll.register(descriptor, events)
    found = dict(poll.poll(timeout * 1000))
    readable = [item for item in readers if found.get(item.fileno(), 0) & ~select.POLLOUT]  # also what has failed
    return readable, [item for item in writers if found.get(item.fileno(), 0) & select.POLLOUT]


def own_addresses() -> list[str]:
    """The IPv4 addresses of this host's interfaces but for loopback, the one that its name stands for first."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        found += [str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = array.array("B", struct.pack("256s", name.encode()[:15]))
            with contextlib.suppress(OSError):
                fcntl.ioctl(probe.fileno(), 0x8915, request)  # SIOCGIFADDR of Linux
                found.append(socket.inet_ntoa(request[20:24].tobytes()))
    return [address for address in dict.fromkeys(found) if not address.startswith("127.")]


def connect(addresses: list[tuple[str, int]], hello: Message, answer: str, patience: float) -> LineSocket | None:
    """A connection to the first address that answers as expected.

    Args:
        addresses: (IPv4 address, port).
        hello: what is said first.
        answer: the token that shows that the peer is who it should be.
        patience: seconds for each address.

    Returns:
        The connection, or None.
    """
    for address in addresses:
        with contextlib.suppress(OSError, ValueError):
            raw = socket.create_connection(address, timeout=patience)
            try:
                raw.sendall(json.dumps(hello).encode() + b"\n")
                line = bytearray()
                while not line.endswith(b"\n") and len(line) < STRANGER_LIMIT:
                    octet = raw.recv(1)  # no more than the line: what follows is for the LineSocket
                    if not octet:
                        break
                    line += octet
                if json.loads(line or b"{}").get("answer") == answer:
                    return LineSocket(raw)
            except BaseException:
                raw.close()
                raise
            raw.close()
    return None
