"""Guard of the live viewer: accepts only connections and messages from its own page.

A browser lets any web page open a WebSocket to a server of this machine, and an attacker's domain name may point to
this machine. viser accepts all such connections, and lets a client set any attribute of a control, send files, and
request a public tunnel. With this guard, a handshake must come from the page of this server, and only messages of that
page's own controls reach viser.
"""

import http
import inspect
import ipaddress
import math
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import msgspec
import websockets.asyncio.server
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from xmask3d.errors import UserError

MAX_MESSAGE = 16 << 20
"""Largest size of a message, in bytes. The largest message is a picture drawn by the page."""

MAX_CLIENTS = 32
EVERYWHERE = ("", "0.0.0.0", "::")

Rule = Callable[[Any], bool]

_lock = threading.Lock()  # held because `serve` is replaced while a server starts


class Guard:
    """Rules of one server.

    Args:
        host: address of the server, as given by the user.
    """

    def __init__(self, host: str) -> None:
        self._host = host.lower()
        self._values: dict[str, Rule] = {}
        self._open = 0

    def allow(self, control: Any, rule: Rule) -> None:
        """Allow clients to set a control to values that `rule` accepts."""
        self._values[control._impl.uuid] = rule

    def forget(self, control: Any) -> None:
        """Reject values for a control that no longer exists."""
        self._values.pop(control._impl.uuid, None)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Guard the viser server that is started in this context.

        Raises:
            UserError: the server was started in an unknown way, and would be open to every web page.
        """
        serve, guarded = websockets.asyncio.server.serve, []

        def serve_guarded(handler: Callable, *arguments: Any, **options: Any) -> Any:
            if not getattr(handler, "__module__", "").startswith("viser."):
                return serve(handler, *arguments, **options)
            guarded.append(True)
            options |= {"max_size": MAX_MESSAGE, "max_queue": 4}
            options["process_request"] = self._checked_request(options["process_request"])
            return serve(self._checked_messages(handler), *arguments, **options)

        with _lock, patch.object(websockets.asyncio.server, "serve", serve_guarded):
            yield
        if not guarded:
            raise UserError("this version of viser cannot be kept from other web pages: pip install -U viser")

    def _checked_request(self, answer: Callable) -> Callable:
        async def process(connection: ServerConnection, request: Request) -> Response | None:
            address = connection.local_address[:2]
            hosts, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
            if len(hosts) != 1 or not self.serves(hosts[0], address):
                return _refusal(http.HTTPStatus.MISDIRECTED_REQUEST, "not the address that is served")
            if origins and origins != [f"http://{hosts[0]}"]:
                return _refusal(http.HTTPStatus.FORBIDDEN, "another page's connection")
            upgrade = "Upgrade" in request.headers
            if upgrade and self._open >= MAX_CLIENTS:
                return _refusal(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many pages")
            response = answer(connection, request)
            if inspect.isawaitable(response):
                response = await response
            if response is not None:
                response.headers["X-Frame-Options"] = "SAMEORIGIN"
            return response

        return process

    def serves(self, host: str, address: tuple[str, int]) -> bool:
        """Return True if a `Host` header names the address of the server.

        Args:
            host: value of the header.
            address: IP address and port of this machine at which the connection arrived.
        """
        try:
            parts = urlsplit(f"//{host}")
            name, port = parts.hostname, parts.port or 80
        except ValueError:
            return False
        if name is None or parts.netloc != host or parts.username is not None or port != address[1]:
            return False
        here = _ip(address[0])
        if (ip := _ip(name)) is not None:
            return ip == here
        own = {self._host} if self._host not in EVERYWHERE else {socket.gethostname().lower(), socket.getfqdn().lower()}
        return name in own or (name == "localhost" and here is not None and here.is_loopback)

    def _checked_messages(self, handler: Callable) -> Callable:
        async def handle(connection: ServerConnection) -> None:
            receive = connection.recv

            async def receive_allowed(*arguments: Any, **options: Any) -> Any:
                while True:
                    message = await receive(*arguments, **options)
                    if self.takes(message):
                        return message

            connection.recv = receive_allowed  # type: ignore[method-assign]
            self._open += 1
            try:
                await handler(connection)
            finally:
                self._open -= 1

        handle.__module__ = handler.__module__
        return handle

    def takes(self, message: Any) -> bool:
        """Return True if a client's message is of a kind that the page sends."""
        try:
            content = msgspec.msgpack.decode(message)
            rules = _MESSAGES[content.pop("type")]
            if content.keys() != rules.keys() or not all(rules[key](value) for key, value in content.items()):
                return False
            if "updates" not in content:
                return True
            rule = self._values.get(content["uuid"])
            return rule is not None and rule(content["updates"]["value"])
        except (msgspec.DecodeError, RecursionError, TypeError, AttributeError, LookupError, ValueError):
            return False


def _refusal(status: http.HTTPStatus, reason: str) -> Response:
    body = f"{reason}\n".encode()
    headers = Headers({"Content-Type": "text/plain", "Content-Length": str(len(body)), "Connection": "close"})
    return Response(status, status.phrase, headers, body)


def _ip(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def number(low: float = -1e9, high: float = 1e9) -> Rule:
    """Make a rule for finite numbers between two limits."""
    return lambda value: type(value) in (int, float) and math.isfinite(value) and low <= value <= high


def text(longest: int) -> Rule:
    """Make a rule for text with a largest number of characters."""
    return lambda value: isinstance(value, str) and len(value) <= longest


def one_of(*options: Any) -> Rule:
    """Make a rule for values that equal one of a list, including the type."""
    return lambda value: any(type(value) is type(option) and value == option for option in options)


def _vector(length: int) -> Rule:
    rule = number()
    return lambda value: isinstance(value, list) and len(value) == length and all(map(rule, value))


def _ray(value: Any) -> bool:
    return value is None or _vector(3)(value)


def _places(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 2 and all(map(_vector(2), value))


_SIZE = number(1, 1 << 15)
_MESSAGES: dict[str, dict[str, Rule]] = {
    "GuiUpdateMessage": {
        "uuid": text(100),
        "updates": lambda value: isinstance(value, dict) and value.keys() == {"value"},
    },
    "ViewerCameraMessage": {
        "wxyz": _vector(4), "position": _vector(3), "fov": number(), "near": number(), "far": number(),
        "image_height": _SIZE, "image_width": _SIZE, "look_at": _vector(3), "up_direction": _vector(3),
    },
    "ScenePointerMessage": {
        "event_type": one_of("click"), "ray_origin": _ray, "ray_direction": _ray, "screen_pos": _places,
        "modifier": lambda value: value is None or text(40)(value),
    },
    "GetRenderResponseMessage": {"payload": lambda value: isinstance(value, bytes), "render_uuid": text(100)},
}  # fmt: skip
"""Fields of the messages that the page sends. All others, such as uploads and requests for a tunnel, are dropped."""
