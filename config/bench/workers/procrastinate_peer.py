"""procrastinate with one lock per device, on PostgreSQL.

``fill QUEUES MESSAGES`` makes the schema and defers; ``work THREADS`` works. Runs on a Python of its own.
"""

from __future__ import annotations

import asyncio
import os
import sys

import procrastinate  # type: ignore[import-not-found]  # installed beside, with psycopg 3

from .counting import hit

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["BENCH_DATABASE"]))


@app.task(name="noop")
async def noop(number: int) -> None:  # noqa: ARG001 - the same small payload as everywhere
    """Nothing, counted; on the event loop, which is its quickest kind of task."""
    hit()


async def fill(*, queues: int, messages: int) -> None:
    """Make the schema and defer ``messages``, each under the lock of its device; without locks for a single queue."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for start in range(0, messages, 1000):
            await asyncio.gather(
                *(
                    noop.configure(lock=f"device.{number % queues}" if queues > 1 else None).defer_async(number=number)
                    for number in range(start, min(start + 1000, messages))
                )
            )


async def work(*, threads: int) -> None:
    """Work until stopped."""
    async with app.open_async():
        await app.run_worker_async(concurrency=threads)


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        asyncio.run(fill(queues=int(sys.argv[2]), messages=int(sys.argv[3])))
    else:
        asyncio.run(work(threads=int(sys.argv[2])))
