"""The runs of one sweep in MLflow: looked up by tag before they are made, so that a resumed sweep finds its own."""

from dataclasses import dataclass, field

from mlflow.entities import Run

from orchestrator.tracking.stage import TrackedStage
from orchestrator.tracking.store import KIND_TAG, STAGE_TAG, SWEEP_ID_TAG, SweepIdentity, TrackingStore


@dataclass
class SweepRuns:
    """The sweep's own run, and which run belongs to which stage."""

    store: TrackingStore
    sweep: SweepIdentity
    tags: dict[str, str]
    """Of the sweep's own run."""
    is_current: bool = False
    """What is known here is what the store has; False after a failure, whose request may have been carried out."""
    stale: set[str] = field(default_factory=set)
    """Ids of sweeps that are dead and may have left runs open."""
    _parent: Run | None = None
    _of_stage: dict[str, Run] = field(default_factory=dict)

    def connect(self) -> Run:
        """The run of the sweep, RUNNING."""
        if self._parent is not None and self.is_current:
            return self._parent
        parent = None
        for run in self.store.runs(self.sweep.condition):
            kind = run.data.tags.get(KIND_TAG)
            if kind == "sweep":
                parent = run
            elif kind == "trial":
                self._of_stage[run.data.tags[STAGE_TAG]] = run
        if parent is None:
            parent = self.store.create_run(self.sweep.name, {**self.tags, **self.sweep.tags, KIND_TAG: "sweep"})
        elif parent.info.status != "RUNNING":
            self.store.client.update_run(parent.info.run_id, status="RUNNING")
        self._parent, self.is_current = parent, True
        return parent

    def adopt(self, stage: TrackedStage) -> None:
        """Makes a stage's run a child of the sweep's, and hands it the run that an earlier process made."""
        assert self._parent is not None
        stage.parent_id = self._parent.info.run_id
        if stage.run is None and stage.stage_id in self._of_stage:
            stage.find(self._of_stage[stage.stage_id])

    def close_stale(self) -> None:
        """Marks as KILLED what dead sweeps left RUNNING, whichever study they are of."""
        if not self.stale:
            return
        is_ours = f"attributes.status = 'RUNNING' and tags.`{SWEEP_ID_TAG}` LIKE '%'"
        for run in list(self.store.runs_of_all_studies(is_ours)):
            if run.data.tags.get(SWEEP_ID_TAG) in self.stale:
                self.store.client.set_terminated(run.info.run_id, "KILLED")
        self.stale = set()
