"""The sockets of the service."""

import asyncio
import socket

from vlmbatch.config.service import ServiceOptions
from vlmbatch.service.server import bound_sockets


async def test_a_reply_is_sent_without_a_delay() -> None:
    """The kernel sends each part of a reply at once, and does not wait until the client confirms one.

    Otherwise each request on a kept connection would take 40 ms longer.
    """
    (listening,) = bound_sockets(ServiceOptions(port=0))
    delays: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connected(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        delays.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async with await asyncio.start_server(connected, sock=listening):
        _, writer = await asyncio.open_connection(*listening.getsockname())
        assert await delays == 1
        writer.close()
        await writer.wait_closed()
