"""A container's healthcheck: ``check.py PORT PATH [PORT…]`` exits 0 when the first port answers
``GET PATH`` with 200 and the others can be connected to. It runs every few seconds: no imports
beyond ``socket``.
"""

from __future__ import annotations

import socket
import sys

TIMEOUT = 3.0  # seconds


def main(port: str, path: str, *others: str) -> int:
    """Return 0 when all is well."""
    with socket.create_connection(("127.0.0.1", int(port)), TIMEOUT) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        answer = connection.recv(64)
    for other in others:
        socket.create_connection(("127.0.0.1", int(other)), TIMEOUT).close()
    return int(answer.split(b" ")[1:2] != [b"200"])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
