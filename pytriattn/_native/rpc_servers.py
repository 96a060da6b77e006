"""Addresses of machines that lend their devices."""

from __future__ import annotations

from collections.abc import Sequence

from pytriattn.errors import ContextError

__all__ = ["check_rpc_servers"]


def check_rpc_servers(servers: Sequence[str] | None) -> list[str]:
    """Return the servers as a list, each ``host:port``.

    Raises:
        ContextError: one has another form, or is named twice.
    """
    if isinstance(servers, str):
        raise ContextError(f"rpc_servers is {servers!r}, it must be a list: rpc_servers=[{servers!r}]")
    result = list(servers or [])
    for server in result:
        host, _, port = server.rpartition(":") if isinstance(server, str) else ("", "", "")
        if not host or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= 65535:
            raise ContextError(f"rpc_servers has {server!r}, it must be 'host:port' with a port from 1 to 65535")
        if result.count(server) > 1:
            raise ContextError(f"rpc_servers names {server!r} twice")
    return result
