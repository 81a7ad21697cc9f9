"""The end of a run closes all connections, whatever they wait for."""

from __future__ import annotations

import contextlib
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from urllib3.util.wait import wait_for_write

from publisher.errors import PublisherError
from publisher.oci.reference import parse_reference
from publisher.sources import SourceError
from publisher.sources.http.answer import Answer
from publisher.sources.http.connections import _Watched
from publisher.sources.settings import RegistrySettings, Settings
from tests.certificates import Authority, server_context
from tests.clocks import WatchedClock
from tests.registry import OwnRegistry, wait_for
from tests.registry_faults import slow, status
from tests.registry_images import fast_sources, open_image, read_blob, sample_image
from tests.threads import threads_in


def test_closing_ends_requests_that_wait(registry: OwnRegistry) -> None:
    registry.misbehave(status(503, retry_after="200"))
    clock = WatchedClock()
    with fast_sources(clock=clock) as sources, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(open_image(sources, registry).resolve)
        assert clock.waiting.wait(60)
        sources.close()
        with pytest.raises(PublisherError, match="ending"):
            waiting.result(60)


@pytest.mark.parametrize("stalls_in", ["header", "manifest", "blob"])
@pytest.mark.parametrize("tls", [False, True])
def test_closing_ends_requests_at_once_that_wait_for_a_silent_server(
    stalls_in: str, tls: bool, tmp_path: Path
) -> None:
    """urllib3 alone would wait for the next byte until its timeout, a minute."""
    authority = Authority.create(tmp_path)
    context = server_context(authority.issue("server")) if tls else None
    built = sample_image(2_000_000)
    with OwnRegistry(tls=context) as registry:
        registry.add("library/x", "latest", built)
        stalled = slow(delay=300) if stalls_in == "header" else slow(pause=300, piece=100)
        registry.misbehave(stalled)
        settings = Settings({registry.host: RegistrySettings(ca=authority.own.certificate)})
        with fast_sources(settings) as sources, ThreadPoolExecutor(1) as pool:
            source = open_image(sources, registry)
            if stalls_in == "blob":
                waiting = pool.submit(read_blob, source, built.layers[0].descriptor)
            else:
                waiting = pool.submit(lambda: source.manifest().data)
            reads = [] if stalls_in == "header" else [Answer.chunks]
            wait_for(lambda: threads_in(_Watched.readinto, *reads) == 1)
            sources.close()
            with pytest.raises(SourceError):
                waiting.result(30)


@pytest.mark.parametrize("stalls_in", ["connect", "handshake"])
def test_closing_ends_requests_at_once_that_are_being_connected(
    stalls_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.sources.http.exchange.TIMEOUTS", (300.0, 300.0))
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listening.getsockname()
        if stalls_in == "connect":  # the kernel does not answer further connections
            stack.enter_context(socket.create_connection(address))
        sources = stack.enter_context(fast_sources(Settings({})))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        reference = parse_reference(f"127.0.0.1:{address[1]}/library/x:latest")
        waiting = pool.submit(lambda: sources.open(reference).resolve())
        function = wait_for_write if stalls_in == "connect" else ssl.SSLSocket.do_handshake
        wait_for(lambda: threads_in(function) == 1)
        sources.close()
        with pytest.raises(SourceError):
            waiting.result(60)
