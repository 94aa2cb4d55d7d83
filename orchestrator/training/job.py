"""What is sent to a process that builds a stage: plain data, so that it survives pickling and Tune's storage."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.storage.failures import failure_file
from orchestrator.storage.stages import Stage, StageStore
from orchestrator.training.workers import WorkersConfig

TRAINED_KINDS = ("finetune", "distill")
"""Kinds of stage that a group of workers trains; any other is built by one process."""


@dataclass(frozen=True)
class Job:
    """One stage, where it goes, and what may be used for it."""

    stage: Stage
    experiment: dict[str, Any]
    """An `ExperimentConfig` as JSON values: processes that only steer need not import what it describes."""
    storage: Path
    sweep: str
    workers: WorkersConfig
    threads: int
    """Of torch in each process; Ray would set them from fractional CPUs."""
    cpus: float
    """Of each worker or task."""
    use_gpu: bool
    provenance: dict[str, Any]
    """Versions, commit and host, for manifests."""
    point: int | None = None
    """Number of a point that a search drew; None = a row that was known beforehand."""

    @property
    def store(self) -> StageStore:
        """The stage store."""
        return StageStore(self.storage / "stages")

    @property
    def failure_file(self) -> Path:
        """Where the message is kept if the stage fails."""
        return failure_file(self.storage, self.sweep, self.stage.stage_id)

    @property
    def run_name(self) -> str:
        """Of the Ray Train run. Train resumes what ran under its name before, so it holds sweep and stage, and the
        number of a point: equal points may be trained at a time."""
        name = f"{self.sweep}--{self.stage.stage_id}"
        return name if self.point is None else f"{name}--{self.point}"

    @property
    def runs_folder(self) -> Path:
        """Where Ray Train keeps this sweep's checkpoints while a stage is being trained."""
        return self.storage / "ray" / self.sweep

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **{
                name: getattr(self, name)
                for name in ("experiment", "sweep", "threads", "cpus", "use_gpu", "provenance", "point")
            },
            "stage": asdict(self.stage),
            "workers": self.workers.model_dump(mode="json"),
            "storage": str(self.storage),
        }

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "Job":
        """What `to_dict` made."""
        return cls(
            **{
                **raw,
                "stage": Stage(**raw["stage"]),
                "workers": WorkersConfig.model_validate(raw["workers"]),
                "storage": Path(raw["storage"]),
            }
        )
