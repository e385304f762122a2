"""Load on an HTTP server: clients that each send a request after the other, or at a fixed rate.

A client is a keep-alive connection that writes prepared bytes, so that the load costs little of the
processor that it shares with the server. Prints one JSON object: requests, failures by status,
seconds, requests/s, and latencies in milliseconds.
"""

import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Load:
    """What a run has measured."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)


def main() -> None:
    """Run one load, described by a JSON object on stdin: url, bodies, clients, seconds, rate."""
    plan = json.load(sys.stdin)
    print(json.dumps(asyncio.run(run(plan))))


async def run(plan: dict[str, Any]) -> dict[str, Any]:
    """Return the measurements of a plan."""
    url = urlsplit(plan["url"])
    bodies = itertools.cycle([_request(url, body) for body in plan["bodies"]])
    load = Load()
    began = time.perf_counter()
    until = began + plan["seconds"]
    if rate := plan.get("rate"):
        await _at_rate(url, bodies, load, until, rate, plan["clients"])
    else:
        clients = [_client(url, bodies, load, until) for _ in range(plan["clients"])]
        await asyncio.gather(*clients)
    seconds = time.perf_counter() - began
    good = load.statuses[200]
    return {
        "requests": good,
        "statuses": dict(load.statuses),
        "seconds": seconds,
        "per_second": good / seconds,
        **{f"p{share}_ms": _quantile(load.latencies, share / 100) for share in (50, 95, 99)},
    }


async def _client(url: Any, bodies: Any, load: Load, until: float) -> None:
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    while time.perf_counter() < until:
        await _ask(reader, writer, next(bodies), load)
    writer.close()


async def _at_rate(
    url: Any, bodies: Any, load: Load, until: float, rate: float, clients: int
) -> None:
    """Send requests at a rate, whether earlier ones are answered or not, over idle connections."""
    idle: asyncio.Queue[Any] = asyncio.Queue()
    for _ in range(clients):
        idle.put_nowait(await asyncio.open_connection(url.hostname, url.port))
    tasks = set()

    async def one() -> None:
        connection = await idle.get()
        await _ask(*connection, next(bodies), load)
        idle.put_nowait(connection)

    due = time.perf_counter()
    while due < until:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.add(asyncio.create_task(one()))
        due += 1 / rate
    await asyncio.gather(*tasks)


async def _ask(reader: Any, writer: Any, request: bytes, load: Load) -> None:
    began = time.perf_counter()
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    await reader.readexactly(length)
    load.statuses[status] += 1
    if status == 200:
        load.latencies.append(1000 * (time.perf_counter() - began))


def _request(url: Any, body: Any) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _quantile(values: list[float], share: float) -> float | None:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


if __name__ == "__main__":
    main()
