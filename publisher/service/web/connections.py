"""Connections have a bounded number, and end if their clients neither send requests nor read."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 1000
"""How many connections there may be."""

SECONDS = 30.0
"""How long a client may take to send a request, or to read a part of an answer."""


def bounded(most: int = MOST, seconds: float = SECONDS) -> type[H11Protocol]:
    """Return a protocol for uvicorn that closes connections beyond `most`, and stalled ones.

    Each connection is looked at every `seconds`. It is closed if since the last look no request
    was complete and none is being answered, or if the client has read nothing of an answer.
    """

    class Bounded(H11Protocol):
        _looked: object = None
        _unsent = 0

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            super().connection_made(transport)
            if len(self.connections) > most:
                transport.abort()
            else:
                self.loop.call_later(seconds, self._look)

        def _look(self) -> None:
            if self not in self.connections:
                return
            unsent = self.transport.get_write_buffer_size()
            # Before the first request, there is no cycle.
            is_answering = not getattr(self.cycle, "response_complete", True)
            has_requested = self.cycle is not self._looked
            is_stuck = unsent >= self._unsent > 0
            is_silent = not (unsent or is_answering or has_requested)
            if is_stuck or is_silent:
                self.transport.abort()
                return
            self._looked, self._unsent = self.cycle, unsent
            self.loop.call_later(seconds, self._look)

    return Bounded
