"""Ray Train's trainer without the processes that a trial of ours has no use for.

Train steers each run from an actor of its own, for which the trial's process only waits, with a queue between the two.
It gives the run two more: one that hands out Ray's datasets, also where there are none, and one that frees the workers
of a controller that was lost. Here the controller runs in the trial's own process, there are no datasets, and what
frees the workers is kept for the next trial in the same process.

Ray has no setting for it, so this overrides what Ray does not promise to keep. In a version without it the trainer is
Ray's own, which is slower and nothing else.
"""

import asyncio
from typing import Any

import ray.tune
from ray.train import UserCallback
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

try:
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2._internal.execution.controller import TrainController
except ImportError:
    _STEERS_ITSELF = False
else:
    _STEERS_ITSELF = all(
        hasattr(TorchTrainer, name) for name in ("_create_default_callbacks", "_initialize_and_run_controller")
    )


def trial_trainer(*arguments: Any, **settings: Any) -> TorchTrainer:
    """A trainer for the process of a Tune trial; see `ray.train.torch.TorchTrainer`."""
    return (_SteeringTrainer if _STEERS_ITSELF else TorchTrainer)(*arguments, **settings)


def report_to_tune() -> UserCallback:
    """What passes on to the trial whatever its workers report."""
    return _Report() if _STEERS_ITSELF else TuneReportCallback()


class _Report(UserCallback):  # type: ignore[misc]  # ray ships no types here
    """Reports from the controller, which is in the trial's process; Tune ends a trial that it stops from here."""

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        ray.tune.report(dict(metrics[0]))


if _STEERS_ITSELF:

    class _SteeringTrainer(TorchTrainer):  # type: ignore[misc]  # ray ships no types here
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = [c for c in super()._create_default_callbacks() if not isinstance(c, DatasetsCallback)]
            return [_KeptCleaner() if isinstance(c, PlacementGroupCleanerCallback) else c for c in callbacks]

        def _initialize_and_run_controller(self, **settings: Any) -> Any:
            controller = TrainController(**settings)
            asyncio.run(controller.run())
            return controller.get_result()

    class _KeptCleaner(PlacementGroupCleanerCallback):  # type: ignore[misc]  # ray ships no types here
        """Starts in each process one actor that frees its workers if the process is lost, and keeps it."""

        _kept: tuple[Any, str] | None = None
        _cleaner: Any
        _controller_actor_id: Any

        def after_controller_start(self, train_run_context: Any) -> None:
            if _KeptCleaner._kept is None:
                super().after_controller_start(train_run_context)
                # None where it could not be started, which Ray only logs.
                _KeptCleaner._kept = self._cleaner and (self._cleaner, self._controller_actor_id)
            else:
                self._cleaner, self._controller_actor_id = _KeptCleaner._kept

        async def before_controller_shutdown(self) -> None:
            """It ends by itself, after this process."""

        def before_controller_abort(self) -> None:
            """The same."""
