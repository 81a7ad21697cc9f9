"""How fast does the service answer many clients, while many follow logs?

    python -m bench.service [--images N] [--clients N] [--logs N] [--seconds S]

Writes a repository of N images, serves it by `publisher serve`, opens live logs of a job that runs,
and lets the clients request pages and documents of the catalogue in turn. Prints the goal with what
is measured, by kind of request, and the processor time of the service for each, which other load of
the machine changes little. The clients accept gzip, as browsers do. Run it on an idle machine: the
clients use its processors, too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

import requests

from bench.large_repository import Numbers, write_repository
from tests.service import AskedJobs, HostProcess, eventually, running_host

GOAL = 0.1
"""Seconds within which 95 of 100 requests are answered."""

_KINDS = ("index.html", "wishes.html", "removals.html", "images?limit=100", "images?sort=-bytes")


def main() -> None:
    """Serve, measure and print."""
    parser = argparse.ArgumentParser(prog="bench.service", description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--entries", type=int, default=500, help="of each image")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--logs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--plain", action="store_true", help="the clients accept no compression")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-service-") as work:
        folder = Path(work)
        usual = Numbers()
        numbers = Numbers(given.images, given.entries, usual.bases, usual.base, usual.runtime)
        write_repository(folder / "images", numbers)
        _measure(folder, given)


def _measure(folder: Path, given: argparse.Namespace) -> None:
    waits = folder / "slow.yaml"
    os.mkfifo(waits)  # an ingest of it runs until the end
    repository = {
        "url": f"dir:{folder}/images",
        "lists": {"slow": {"source": str(waits)}},
    }
    host = HostProcess(
        "serve",
        folder / "host",
        {
            "repositories": {"images": repository},
            "access": {"anonymous": "everything"},
            "limits": {"requests": 10_000_000},  # all clients have one address
        },
    )
    with running_host(host):
        eventually(lambda: host.status("/readyz") == 200)
        asked = AskedJobs(f"sqlite:///{folder}/host/state/jobs.sqlite")
        job = asked.submit("ingest-list", "images", "slow")
        eventually(lambda: asked.jobs.get(job.id).started is not None)
        began = time.monotonic()
        page = f"http://127.0.0.1:{host.port}/repositories/images/index.html"
        assert requests.get(page, timeout=600).status_code == 200
        print(f"load {os.getloadavg()[0]:.1f}; first page after {time.monotonic() - began:.2f} s")
        used = _processor_seconds(host.process.pid)
        found = asyncio.run(_load(host.port, job.id, given))
        used = _processor_seconds(host.process.pid) - used
        asked.jobs.cancel(job.id, "bench")
    everything = sorted(value for values in found.values() for value in values)
    rate = len(everything) / given.seconds
    each = 1000 * used / len(everything)
    print(
        f"{given.clients} clients, {given.logs} live logs: {rate:.0f} requests/s; "
        f"{each:.2f} ms of processor time of the service for each"
    )
    print(f"{'':32}{'goal':>10}{'p50':>10}{'p95':>10}{'longest':>10}  in ms")
    for kind, values in found.items():
        _print(kind, "", values)
    _print("all", f"{GOAL * 1000:.0f}", everything)


def _processor_seconds(process: int) -> float:
    """Return the processor time that a process has used, without its children."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _print(kind: str, goal: str, seconds: list[float]) -> None:
    quantiles = statistics.quantiles(seconds, n=20)
    values = (statistics.median(seconds), quantiles[18], max(seconds))
    shown = "".join(f"{1000 * value:10.1f}" for value in values)
    print(f"{kind:32}{goal:>10}{shown}")


async def _load(port: int, job: str, given: argparse.Namespace) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    logs = [await _follow(port, job, number) for number in range(given.logs)]
    until = time.monotonic() + given.seconds
    try:
        clients = (_client(port, n, until, found, given.plain) for n in range(given.clients))
        await asyncio.gather(*clients)
    finally:
        for writer in logs:
            writer.close()
    return found


async def _follow(port: int, job: str, number: int) -> asyncio.StreamWriter:
    """Open a live log, whose lines are not read further than the first ones."""
    address = f"127.0.0.{2 + number // 100}"  # each may follow 100
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    writer.write(f"GET /api/v1/jobs/{job}/live HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    status = await reader.readline()
    assert b" 200 " in status, status
    return writer


async def _client(
    port: int, number: int, until: float, found: dict[str, list[float]], plain: bool
) -> None:
    more = "" if plain else "Accept-Encoding: gzip\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < until:
        kind = _KINDS[number % len(_KINDS)]
        number += 1
        is_page = kind.endswith(".html")
        folder = "/repositories/images" if is_page else "/api/v1/repositories/images"
        began = time.monotonic()
        writer.write(f"GET {folder}/{kind} HTTP/1.1\r\nHost: bench\r\n{more}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.partition(b"\r\n")[0], head
        [length] = [
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ]
        await reader.readexactly(length)
        found[kind].append(time.monotonic() - began)
    writer.close()


if __name__ == "__main__":
    main()
