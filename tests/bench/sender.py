"""A sender that does nothing but send: what the readers can take is what it reaches.

Run as a program with a number of readers and of frames in each `send`; it prints its port, accepts so many connections,
and on a line with a number on its input sends each of them so many frames, one connection after the other.
"""

import socket
import sys
from typing import Final

from service.model.encoding import encode
from tests.bench.ours import CHUNKS

HEADERS: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
FRAME: Final = b"id: 1763700000000-1234\ndata: %b\n\n" % encode(CHUNKS[0])


def main(readers: int, frames_a_send: int) -> None:
    """Serve until the input ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        print("port", listener.getsockname()[1], flush=True)
        connections = []
        for _ in range(readers):
            connection, _ = listener.accept()
            connection.recv(4096)
            connection.sendall(HEADERS)
            connections.append(connection)
        block = FRAME * frames_a_send
        for line in sys.stdin:
            for _ in range(int(line) // frames_a_send):
                for connection in connections:
                    connection.sendall(block)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
