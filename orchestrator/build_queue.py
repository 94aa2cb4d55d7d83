"""What a sweep has to build, given out as soon as all that it reads is there."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.storage.failures import read_failure
from orchestrator.training.job import Job


@dataclass(frozen=True)
class Build:
    """What is built in one go: a stage, or several that cost one pass over what they read."""

    jobs: list[Job]

    @property
    def stage_ids(self) -> list[str]:
        """Of the stages."""
        return [job.stage.stage_id for job in self.jobs]

    @property
    def inputs(self) -> set[str]:
        """Stages that are read."""
        return {name for job in self.jobs for name in job.stage.inputs.values()}


class BuildQueue:
    """Builds in the order in which they are wanted; each is given out once what it reads is built.

    Args:
        builds: None before one whose stages it reads. What they read and none of them builds is taken to be there.
    """

    def __init__(self, builds: Sequence[Build]) -> None:
        self._waiting = list(builds)
        self._open = {name for build in builds for name in build.stage_ids}
        self._running: dict[str, Build] = {}
        self.failures: dict[str, str] = {}
        """Messages by stage id: of those that failed, and of those that could not be built without them."""

    @property
    def num_waiting(self) -> int:
        """Builds that were not given out."""
        return len(self._waiting)

    def next(self) -> Build | None:
        """The first build that lacks nothing; None = all that are left wait for one that is running."""
        ready = next((build for build in self._waiting if not build.inputs & self._open), None)
        if ready is not None:
            self._waiting.remove(ready)
            self._running[ready.stage_ids[0]] = ready
            for job in ready.jobs:
                job.failure_file.unlink(missing_ok=True)
        return ready

    def end(self, first: Job) -> list[str]:
        """Told that a build is over, one way or another.

        Args:
            first: Of its jobs.

        Returns:
            The stages of it that are there now.
        """
        build = self._running.pop(first.stage.stage_id)
        self._open -= set(build.stage_ids)
        built = []
        for job in build.jobs:
            name = job.stage.stage_id
            if job.store.is_whole(name):
                built.append(name)
            else:
                message = read_failure(job.failure_file)
                self.failures[name] = message or f"{name}: it was not built, and nothing says why."
        self._give_up_readers()
        return built

    def _give_up_readers(self) -> None:
        # None stands before one that it reads, so one pass finds the readers of readers as well.
        for build in list(self._waiting):
            if lost := sorted(build.inputs & self.failures.keys()):
                self._waiting.remove(build)
                self._open -= set(build.stage_ids)
                reason = f"its input {lost[0]} failed: {self.failures[lost[0]]}"
                self.failures |= {name: f"{name}: {reason}" for name in build.stage_ids}
