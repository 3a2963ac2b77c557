"""Has all workers read their settings again: all of them take them over, or none does."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from llmproxy.base.coroutines import FairLock, deferred
from llmproxy.base.peers import PeerAnswer
from llmproxy.process.link import LinkLost
from llmproxy.process.supervisor import Supervisor
from llmproxy.process.worker_process import WorkerProcess

PREPARATION_SECONDS = 20.0  # for a worker to read the settings, and to make what it takes to follow them
FOLLOWED = "logging"  # orders that a reload takes back


class CoordinatedReload:
    """In two steps: every worker makes what it takes, then every one goes on with it.

    Where settings need processes that start with them, the workers are replaced afterwards, one by one.
    """

    _log = Logger()

    def __init__(self, reactor: Any, supervisor: Supervisor) -> None:
        self._reactor = reactor
        self._supervisor = supervisor
        self._one_at_a_time = FairLock()
        self._rolling: Deferred[bool] | None = None

    @deferred
    async def reload(self) -> dict[str, Any]:
        """Give C{problem}, or C{changed} and C{rolling} settings and what each worker has done."""
        async with self._one_at_a_time.within(0, self._reactor, LinkLost()):
            late = [each for each in self._supervisor.workers if each.state == "starting"]
            found = await self._reload()
            for worker in late:  # it may have read the settings before they were written
                worker.when_ready().addCallbacks(lambda _, worker=worker: self._alone(worker), lambda failure: None)
        if found["problem"]:
            self._log.error("The settings were not reloaded, nothing has changed: {reason}", reason=found["problem"])
            return found
        self._log.info(
            "Reloaded the settings in {count} workers: {changed} changed, {rolling} need new processes.",
            count=len(found["workers"]),
            changed=", ".join(found["changed"]) or "nothing",
            rolling=", ".join(found["rolling"]) or "none",
        )
        if found["rolling"]:
            self._rolling = self._supervisor.roll()
        return found

    async def _reload(self) -> dict[str, Any]:
        answers = await self._supervisor.ask_each("reload.prepare", seconds=PREPARATION_SECONDS)
        serving = [each for each in answers if not _is_absent(self._supervisor, each)]
        problem = _problem(serving)
        if problem:
            await self._supervisor.ask("reload.abandon", problem)
            return {"problem": problem}
        done = {each.worker: each for each in await self._supervisor.ask_each("reload.commit")}
        self._supervisor.orders.revoke(FOLLOWED)
        workers = [
            {"worker": each.worker, "result": done[each.worker].problem or done[each.worker].answer}
            if each in serving
            else {"worker": each.worker, "result": f"{each.problem}: it reads the settings when it starts"}
            for each in answers
        ]
        return {
            "problem": "",
            "changed": _all(each.answer["changed"] for each in serving),
            "rolling": _all(each.answer["pending"] for each in serving),
            "workers": workers,
        }

    @deferred
    async def _alone(self, worker: WorkerProcess) -> None:
        try:
            prepared = await worker.link.ask("reload.prepare", None, PREPARATION_SECONDS)
            if not prepared["problem"]:
                await worker.link.ask("reload.commit")
        except LinkLost as e:
            self._log.warn("Worker {name} did not reload the settings: {error}", name=worker.name, error=str(e))


def _is_absent(supervisor: Supervisor, answer: PeerAnswer) -> bool:
    """Whether nobody serves in that place, so that there was nobody to ask."""
    return bool(answer.problem) and not any(
        each.number == answer.worker and each.state == "ready" for each in supervisor.workers
    )


def _problem(answers: list[PeerAnswer]) -> str:
    """Why not all of them can follow the settings; C{""} where they can."""
    problems = {each.worker: each.problem or each.answer["problem"] for each in answers}
    if not answers:
        return "Nothing was changed. No worker serves."
    if any(problems.values()):
        same = set(problems.values())
        if len(same) == 1:
            return same.pop()
        named = "; ".join(f"worker {worker}: {problem}" for worker, problem in problems.items() if problem)
        return f"Nothing was changed in any worker. {named}"
    if len({each.answer["digest"] for each in answers}) > 1:
        return "Nothing was changed. The settings were being written while they were read; try again."
    return ""


def _all(paths: Any) -> list[str]:
    return sorted({path for each in paths for path in each})
