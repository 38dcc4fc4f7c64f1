"""Servers under test get ports that no connection can have."""

import socket

from tests.ports import LOW, free_port


def test_ports_in_a_row_are_free_and_stay_so() -> None:
    """Three servers can listen, and no outgoing connection is given one of the ports meanwhile."""
    first = free_port(3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(100):
            with socket.create_connection(server.getsockname()) as connection:
                assert connection.getsockname()[1] not in range(first, first + 3)
                server.accept()[0].close()
    servers = [socket.create_server(("127.0.0.1", port)) for port in range(first, first + 3)]
    for each in servers:
        each.close()

    assert first >= LOW


def test_a_port_in_use_is_not_given() -> None:
    """With all but a few ports free, one that is listened on is passed over."""
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        assert all(port not in range(first, first + 2) for first in (free_port(2) for _ in range(200)))
