"""Search for a free port for a page, done in advance because viser waits forever if there is none."""

import os
import socket

from xmask3d.errors import UserError

LAST_PORT = 65_535
TRIED = 1000  # number of ports to try, from the requested one on


def free_port(host: str, port: int) -> int:
    """Return the first usable port from `port` on; 0, which means any port, stays 0.

    Raises:
        UserError: the port or the address is invalid, or all ports are taken.
    """
    if not 0 <= port <= LAST_PORT:
        raise UserError(f"--port {port}: no port; give one up to {LAST_PORT}, or 0 for any that is free")
    try:
        _bind(host, 0)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"--host {host}: cannot be served on ({why}); give an address of this machine, such as 127.0.0.1"
        ) from error
    for candidate in range(port, min(port + TRIED, LAST_PORT + 1)):
        try:
            _bind(host, candidate)
        except OSError:
            continue
        return candidate
    raise UserError(f"--port {port}: taken, and so are those after it; give another")


def _bind(host: str, port: int) -> None:
    """Bind a port of all addresses of a host, as asyncio will, and release it."""
    addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in addresses:
        try:
            probe = socket.socket(family, kind, protocol)
        except OSError:  # this machine does not have the address family
            continue
        with probe:
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
