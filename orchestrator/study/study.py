"""The questions of a tier, one sweep after another; what is kept is not run again."""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import yaml

from orchestrator.console import complain, progress
from orchestrator.interruption import handed_on
from orchestrator.planning.plan import make_plan
from orchestrator.report.results import collect, replace_file
from orchestrator.space.search_space import SearchSpace, load_search_space
from orchestrator.storage.stages import StageStore
from orchestrator.storage.sweep_folder import SweepFolder
from orchestrator.study.protocol import DATA_FACTS
from orchestrator.study.questions import TIERS
from orchestrator.study.rates import BEFORE_RATES, chosen_rates, waiting_depths, with_rates
from orchestrator.study.rows import keep_row, put_back
from slmrec_core.data import SequenceDataset

ROOT = Path(__file__).resolve().parents[2]
_KEEP_EVERY_S = 30.0
_PATH = "data.path"


@dataclass(frozen=True)
class Study:
    """Where a study runs and where its rows are kept."""

    storage: Path
    record: Path
    """Folder with `rows/`, and a table for each question."""
    settings: list[str]
    """`dotted.key=value`, for all questions."""

    @property
    def stages(self) -> StageStore:
        """The stage store of the machine."""
        return StageStore(self.storage / "stages")

    @property
    def rows(self) -> StageStore:
        """Rows that are kept."""
        return StageStore(self.record / "rows")

    def run(self, tier: int) -> int:
        """Answers the questions of a tier; gives 0, or the exit code of the sweep that did not end well."""
        for question in TIERS[tier]:
            if code := self.answer(question):
                complain(f"study: {question} did not end well; the rows before it are kept. The same command goes on.")
                return code
        return 0

    def answer(self, question: str) -> int:
        """Runs what is not kept of one question, keeps every row as soon as it is finished, writes the table.

        Returns:
            The sweep's exit code, 0 if there was nothing to run.
        """
        self.record.mkdir(parents=True, exist_ok=True)
        space = self._space(question)
        plan = make_plan(space)
        wanted = list(dict.fromkeys(trial.stage_id for trial in plan.trials))
        for row in wanted:
            put_back(self.rows, row, self.stages)
            keep_row(self.stages, row, self.rows)
        missing = [row for row in wanted if not self.rows.is_done(row)]
        progress(f"{question}: {len(wanted) - len(missing)} of {len(wanted)} rows are kept")
        code = self._sweep(question, space, wanted) if missing else 0
        table = collect(plan.trials, self.rows.root, read_test=space.select.read_test)
        # Where the file lay is nobody's business.
        table = table.assign(**{_PATH: [Path(path).name for path in table[_PATH]]})
        replace_file(self.record / f"{question}.csv", table.to_csv(index=False, lineterminator="\n"))
        for stage in plan.of_kind("data"):
            self._describe_data(stage.stage_id, str(table[_PATH].iloc[0]))
        return code

    def _describe_data(self, stage_id: str, name: str) -> None:
        """Keeps what the page says of the data; the data themselves are never kept."""
        if self.stages.is_done(stage_id):
            data = SequenceDataset.load(self.stages.path(stage_id))
            sizes = {"users": data.num_users, "items": data.num_items, "events": data.num_events}
            facts = {
                "file": name,
                **sizes,
                "has_timestamps": data.has_timestamps,
                "fingerprint": data.fingerprint,
            }
            replace_file(self.record / DATA_FACTS, json.dumps(facts, indent=2) + "\n")

    def _space(self, question: str) -> SearchSpace:
        space = load_search_space(f"study/{question}", self.settings)
        if question in BEFORE_RATES:
            return space
        rates = chosen_rates(self.record)
        if waiting := waiting_depths(space, rates):
            progress(f"{question}: rows with {sorted(waiting)} layers wait for their learning rate")
        return with_rates(space, rates)

    def _sweep(self, question: str, space: SearchSpace, rows: Sequence[str]) -> int:
        # Another data set or a changed file is another sweep.
        name = f"study-{question}-{sha256(','.join(rows).encode()).hexdigest()[:8]}"
        # As it is now, settings and chosen rates in it.
        file = self.storage / "study" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, yaml.safe_dump(space.model_dump(mode="json"), sort_keys=False))
        command = [sys.executable, str(ROOT / "orchestrator" / "sweep.py"), str(file), "--name", name]
        command += ["--storage", str(self.storage)]
        if SweepFolder(self.storage, name).exists:
            command.append("--resume")
        with subprocess.Popen(command) as sweep, handed_on(sweep):
            while sweep.returncode is None:
                with suppress(subprocess.TimeoutExpired):
                    sweep.wait(_KEEP_EVERY_S)
                for row in rows:
                    keep_row(self.stages, row, self.rows)
        return sweep.returncode
