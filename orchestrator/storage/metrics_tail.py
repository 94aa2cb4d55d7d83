"""Reads the metrics that a stage writes, while it writes them and after it is done."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MetricRow:
    """One line of `metrics.jsonl`."""

    step: int
    timestamp_ms: int
    metrics: dict[str, float]


@dataclass
class MetricsTail:
    """Follows one stage: the folder in which it is being built, whichever that is at the time, then the finished one.

    What a trial of a search has reported lies under its name in `reports`: one that is stopped early leaves no stage.
    A builder that was lost is replaced by another with a folder of its own, whose rows repeat what the first had
    reported; whoever reads them must expect a step twice.
    """

    stages: Path
    stage_id: str
    reports: Path | None = None
    """None = nothing is kept elsewhere."""
    _source: Path | None = field(default=None, init=False)
    _offset: int = field(default=0, init=False)

    @property
    def is_finished(self) -> bool:
        """The stage is in its place, so no more rows will come."""
        return (self.stages / self.stage_id / "result.json").is_file()

    def read(self) -> list[MetricRow]:
        """Rows since the last call; a line that is still being written waits for the next one."""
        source = self._find()
        if source is None:
            return []
        if source != self._source:
            self._source, self._offset = source, 0
        try:
            with source.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            # Moved into its place, or given up, since it was found.
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [row for line in whole.splitlines() if (row := self._parse(line, source)) is not None]

    def _find(self) -> Path | None:
        finished = self.stages / self.stage_id / "metrics.jsonl"
        if finished.is_file():
            return finished
        # Before the folder of its builder, which may be killed between its last report and its last line.
        if self.reports is not None and (kept := self.reports / self.stage_id / "metrics.jsonl").is_file():
            return kept
        found = []
        for path in self.stages.glob(f".building-{self.stage_id}-*/metrics.jsonl"):
            try:
                found.append((path.stat().st_mtime_ns, path))
            except FileNotFoundError:
                # Its builder finished or was removed between the listing and now.
                continue
        return max(found)[1] if found else None

    def _parse(self, line: bytes, source: Path) -> MetricRow | None:
        try:
            row = json.loads(line)
            metrics = {str(name): float(value) for name, value in row["metrics"].items()}
            return MetricRow(int(row["step"]), int(row["timestamp_ms"]), metrics)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # A builder that was killed while it wrote leaves half a line; the next one appends to it.
            logger.warning("%s: a line is not a row of metrics and is left out, got %s.", source, error)
            return None
