"""People who use a shared studio all at once, and not all of them patiently."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

OVER = ("finished", "failed", "cancelled")
LOOK_AGAIN_S = 0.2
_WANTED = 1
PROMPTS = ("a red circle", "a small blue star on a white background", "a green ring")


@dataclass
class Seen:
    """What all visitors met."""

    accepted: dict[str, str] = field(default_factory=dict[str, str])
    """Job → who asked for it."""
    endings: dict[str, str] = field(default_factory=dict[str, str])
    lost: list[str] = field(default_factory=list[str])
    cross_talk: list[str] = field(default_factory=list[str])
    faults: int = 0
    """Connections that were dropped, jobs that were cancelled, ids of others that were asked for."""
    turned_away: int = 0
    seconds: list[float] = field(default_factory=list[float])
    """Of every request that waits for no drawing."""

    def p95_s(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.95)] if self.seconds else 0.0


class Visitor:
    """One of them: asks, watches, loses the connection and comes back, stops, looks through what there is."""

    def __init__(self, name: str, url: str, password: str, seen: Seen, rng: random.Random) -> None:
        self.name, self._seen, self._rng = name, seen, rng
        headers = {"Authorization": f"Bearer {password}", "X-Flash-Visitor": name}
        self._client = httpx.AsyncClient(base_url=f"{url}/api/v1", headers=headers, timeout=60)
        self._own: list[str] = []
        self._last_event: dict[str, int] = {}

    async def stay(self, until: float) -> None:
        """Do one thing after the other until that instant; then want the last jobs only, and wait for those."""
        things = (self._ask, self._ask, self._watch, self._watch, self._stop, self._look, self._pry)
        async with self._client:
            while time.monotonic() < until:
                await self._rng.choice(things)()
                await asyncio.sleep(self._rng.uniform(0, 0.3))
            for job_id in self._own[:-_WANTED]:
                await self._send("DELETE", f"/jobs/{job_id}")
            for job_id in self._own:
                await self._see_the_end(job_id)
            await self._check_own()

    async def _get(self, path: str, **given: Any) -> httpx.Response:
        return await self._send("GET", path, **given)

    async def _send(self, method: str, path: str, **given: Any) -> httpx.Response:
        began = time.monotonic()
        answer = await self._client.request(method, path, **given)
        self._seen.seconds.append(time.monotonic() - began)
        if answer.status_code >= 500 and answer.status_code != 503:
            self._seen.lost.append(f"{method} {path}: {answer.status_code}")
        return answer

    async def _ask(self) -> None:
        body = {
            "kind": "generate", "prompt": self._rng.choice(PROMPTS), "num_inference_steps": 4,
            "seed": self._rng.getrandbits(31), "num_images": self._rng.randint(1, 2),
        }  # fmt: skip
        answer = await self._send("POST", "/jobs", json=body)
        if answer.status_code == 202:
            job_id = answer.json()["id"]
            self._own.append(job_id)
            self._seen.accepted[job_id] = self.name
        elif answer.status_code in (429, 503) and int(answer.headers.get("retry-after", 0)) >= 1:
            self._seen.turned_away += 1
        else:
            self._seen.lost.append(f"asked: {answer.status_code} {answer.text}")

    async def _watch(self) -> None:
        """Follow a job from where it was left; often go away in the middle."""
        if not self._own:
            return
        job_id = self._rng.choice(self._own[-3:])
        patience = self._rng.choice((1, 2, 1000))
        async with contextlib.aclosing(self._events(job_id)) as events:
            async for event in events:
                patience -= 1
                if patience == 0 and event["event"] not in OVER:
                    self._seen.faults += 1
                    return

    async def _events(self, job_id: str) -> AsyncGenerator[dict[str, Any], None]:
        after = self._last_event.get(job_id, -1)
        headers = {"Last-Event-ID": f"{after}"} if after >= 0 else {}
        async with self._client.stream("GET", f"/jobs/{job_id}/events", headers=headers) as stream:
            if stream.status_code == 204:
                return
            if stream.status_code != 200:
                self._seen.lost.append(f"events of {job_id}: {stream.status_code}")
                return
            async for event in _read(stream):
                index = int(event["id"])
                if event["data"]["job_id"] != job_id:
                    self._seen.cross_talk.append(f"{job_id} told of {event['data']['job_id']}")
                if index <= self._last_event.get(job_id, -1):
                    self._seen.lost.append(f"{job_id}: event {index} came twice")
                self._last_event[job_id] = index
                if event["event"] in OVER:
                    self._seen.endings[job_id] = event["event"]
                yield event

    async def _stop(self) -> None:
        if self._own:
            self._seen.faults += 1
            await self._send("DELETE", f"/jobs/{self._rng.choice(self._own[-3:])}")

    async def _look(self) -> None:
        for path in ("/jobs", "/pictures?limit=20", "/models", "/styles"):
            answer = await self._get(path)
            if path == "/jobs" and answer.status_code == 200:
                strange = [job["id"] for job in answer.json()["jobs"] if self._seen.accepted[job["id"]] != self.name]
                self._seen.cross_talk += [f"{self.name} was shown {job_id}" for job_id in strange]

    async def _pry(self) -> None:
        """Ask for what is another's, by its id."""
        others = [job_id for job_id, who in self._seen.accepted.items() if who != self.name]
        if not others:
            return
        job_id = self._rng.choice(others[-50:])
        method, path = self._rng.choice(
            (("GET", ""), ("GET", "/events"), ("GET", "/result"), ("DELETE", ""), ("POST", "/cancel"))
        )
        self._seen.faults += 1
        answer = await self._send(method, f"/jobs/{job_id}{path}", **({"json": {}} if method == "POST" else {}))
        if answer.status_code != 404:
            self._seen.cross_talk.append(f"{self.name} got {answer.status_code} of {method} {path} of another's job")

    async def _see_the_end(self, job_id: str) -> None:
        """Wait for a job as one who comes back later: by asking how it stands."""
        while (answer := await self._get(f"/jobs/{job_id}")).json().get("state") in ("queued", "running"):
            await asyncio.sleep(LOOK_AGAIN_S)
        told = answer.json()
        self._check_ending(job_id, told)
        if told.get("state") != "done":
            return
        for picture in told["pictures"]:
            shown = await self._get(f"/pictures/{picture['id']}")
            if shown.status_code != 200:
                self._seen.lost.append(f"picture {picture['id']}: {shown.status_code}")

    def _check_ending(self, job_id: str, told: Mapping[str, Any]) -> None:
        ending = {"done": "finished"}.get(told.get("state", "lost"), told.get("state", "lost"))
        if ending not in OVER or self._seen.endings.setdefault(job_id, ending) != ending:
            self._seen.lost.append(f"{job_id} is {told}, and its events said {self._seen.endings.get(job_id)}")

    async def _check_own(self) -> None:
        """Every picture that is listed is of a job of one's own."""
        answer = await self._get("/pictures?limit=100")
        strange = [made["id"] for made in answer.json()["pictures"] if made["job_id"] not in self._own]
        self._seen.cross_talk += [f"{self.name} was shown picture {picture}" for picture in strange]


async def _read(stream: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
    event: dict[str, Any] = {}
    async for line in stream.aiter_lines():
        name, _, value = line.partition(": ")
        if line:
            event[name] = json.loads(value) if name == "data" else value
        elif "data" in event:
            yield event
            event = {}
        else:
            event = {}


async def visit(url: str, password: str, count: int, seconds: float, seed: int) -> Seen:
    """So many visitors for so long; returns when all that they asked for is over."""
    seen = Seen()
    until = time.monotonic() + seconds
    visitors = [
        Visitor(f"visitor-{number:03}-{'x' * 16}", url, password, seen, random.Random(f"{seed} {number}"))
        for number in range(count)
    ]
    await asyncio.gather(*(visitor.stay(until) for visitor in visitors))
    return seen


def run(url: str, password: str, count: int, seconds: float, seed: int) -> Seen:
    """`visit`, from code that waits."""
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        return loop.run_until_complete(visit(url, password, count, seconds, seed))
