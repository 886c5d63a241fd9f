"""Where nothing can be served is said at once; the server itself would wait for ever."""

import socket

import pytest

from xmask3d.errors import UserError
from xmask3d.segment.ports import LAST_PORT, free_port


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 99_999, "--port 99999: no port; give one up to 65535"),
        ("127.0.0.1", -1, "--port -1: no port"),
        ("no.such.host.invalid", 8080, "--host no.such.host.invalid: cannot be served on"),
        ("192.0.2.7", 8080, "--host 192.0.2.7: cannot be served on"),  # an address that no machine has
        ("a" * 70, 8080, "--host aaa.*: cannot be served on"),
    ],
)
def test_what_cannot_be_served_is_one_line(host: str, port: int, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        free_port(host, port)
    assert "\n" not in str(caught.value)


def test_the_next_port_is_taken_where_one_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        used = server.getsockname()[1]
        assert used < free_port("127.0.0.1", used) < used + 1000
    assert free_port("127.0.0.1", 0) == 0


def test_there_is_no_port_after_the_last() -> None:
    with socket.create_server(("127.0.0.1", LAST_PORT)), pytest.raises(UserError, match="taken"):
        free_port("127.0.0.1", LAST_PORT)
