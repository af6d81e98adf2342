"""Takes jobs from the queue, one at a time, does them and reports each to the application.

Must not lose a job: it stays on a list of its own until it was reported, and is queued again by the next start.
"""

import asyncio
import urllib.request

import redis.asyncio

from svcd import Context

QUEUE, IN_HAND = "jobs:waiting", "jobs:in-hand"


def report(url: str, text: str) -> None:
    with urllib.request.urlopen(f"{url}/done", data=text.encode(), timeout=5) as answer:
        answer.read()


async def work(ctx: Context) -> None:
    database = redis.asyncio.Redis(port=int(ctx.config["redis_port"]), decode_responses=True)
    try:
        while await database.lmove(IN_HAND, QUEUE, "LEFT", "RIGHT"):
            ctx.logger.info("a job of the last run is queued again")
        while True:
            job = await database.blmove(QUEUE, IN_HAND, timeout=0, src="RIGHT", dest="LEFT")
            await asyncio.to_thread(report, ctx.config["web"], job.upper())
            await database.lrem(IN_HAND, 1, job)
            print(f"did {job!r}", flush=True)
    finally:
        await database.aclose()
