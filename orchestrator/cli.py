"""The orchestrator's command lines: of `sweep.py`, of `score.py`, and of `python -m orchestrator.study`."""

import argparse
import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from orchestrator.console import complain, say
from orchestrator.planning.agreement import Settings, agreed_settings, differences
from orchestrator.planning.plan import Plan, make_plan, wanted, waves
from orchestrator.planning.shared_stages import plan_shared_stages
from orchestrator.ray_environment import RAY_ENVIRONMENT
from orchestrator.resources import Node, allocate
from orchestrator.resume_command import resume_command
from orchestrator.space.search_space import SearchSpace, load_search_space, space_names
from orchestrator.storage.failures import describe
from orchestrator.storage.stages import StageStore
from orchestrator.storage.sweep_folder import SweepFolder, sweeps
from orchestrator.study.questions import RECORD, TIERS
from slmrec_core.errors import ConfigError, RunError, UserError
from slmrec_core.progress_bar import QUIET

EXIT_FAILED, EXIT_USER_ERROR = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `sweep.py [SPACE] [--set dotted.key=value]... [--storage DIR] [--name NAME] [--resume] [--dry-run]`.

    Returns:
        0 done, 1 a run failed, 2 the user's mistake, 128 + n ended by signal n.
    """
    return _guarded(_run, _parser().parse_args(arguments))


def study_main(arguments: Sequence[str] | None = None) -> int:
    """Runs `python -m orchestrator.study [--tier N] [--set KEY=VALUE]... [--storage DIR] [--record DIR] [--page]`.

    Returns:
        As `main`, of the first sweep that did not end well.
    """
    return _guarded(_run_study, _study_parser().parse_args(arguments))


def score_main(arguments: Sequence[str] | None = None) -> int:
    """Runs `score.py MODEL HISTORIES OUT [-k K] [--include-seen]`.

    Returns:
        As `main`.
    """
    return _guarded(_run_score, _score_parser().parse_args(arguments))


def _guarded(run: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Exit codes and messages of what can go wrong."""
    if options.quiet:
        # For the processes that it starts, too.
        os.environ[QUIET] = "1"
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("slmrec_core").setLevel(logging.WARNING if options.quiet else logging.INFO)
    try:
        return run(options)
    except UserError as error:
        complain(str(error))
        return EXIT_USER_ERROR
    except (RunError, OSError) as error:
        complain(describe(error))
        return EXIT_FAILED


def _run(options: argparse.Namespace) -> int:
    space = load_search_space(options.space, options.set)
    plan = make_plan(space)
    if space.sampled_group() is not None:
        plan_shared_stages(plan, space)
    storage = storage_folder(options.storage)
    space_name = Path(options.space).stem
    if options.dry_run:
        _say_plan(plan, space, storage)
        return 0
    folder = _folder(storage, space_name, options.name, options.resume, agreed_settings(plan, space))
    command = resume_command(options.space, options.set, storage, folder.name)
    os.environ.update(RAY_ENVIRONMENT)
    # Ray, torch's trainers and MLflow take seconds to import; a mistake above is answered without them.
    from orchestrator.runner import Sweep, run_sweep  # noqa: PLC0415

    return run_sweep(Sweep(space_name, space, plan, storage, folder, command))


def _run_study(options: argparse.Namespace) -> int:
    # matplotlib and pandas, for people who only ask for --help.
    from orchestrator.study.page import write_page  # noqa: PLC0415
    from orchestrator.study.study import Study  # noqa: PLC0415

    study = Study(storage_folder(options.storage), Path(options.record), options.set)
    code = 0 if options.page else study.run(options.tier)
    say(f"Written  {write_page(study.record)}")
    return code


def _run_score(options: argparse.Namespace) -> int:
    os.environ.update(RAY_ENVIRONMENT)
    # Ray takes seconds to import.
    from orchestrator.scoring import run_scoring  # noqa: PLC0415

    model, histories, out = (
        Path(path).expanduser().absolute() for path in (options.model, options.histories, options.out)
    )
    return run_scoring(model, histories, out, options.k, not options.include_seen)


def _score_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="score.py", description="Recommends to every user of a parquet file, on all CPUs or GPUs of the cluster."
    )
    parser.add_argument("model", metavar="MODEL", help="a directory that save_pretrained, or a sweep, wrote")
    parser.add_argument("histories", metavar="HISTORIES", help="parquet with user_id and history, a list of item ids")
    parser.add_argument(
        "out", metavar="OUT", help="a folder for parquet; the same command goes on where it was stopped"
    )
    parser.add_argument("-k", type=int, default=10, help="items for each user (default: 10)")
    parser.add_argument("--include-seen", action="store_true", help="items of the history may be recommended again")
    return _with_quiet(parser)


def _study_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orchestrator.study", description="The redundancy study: its rows, its tests and its page."
    )
    parser.add_argument("--tier", type=int, choices=sorted(TIERS), default=1, help="which questions (default: 1)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting for all questions")
    parser.add_argument("--storage", metavar="DIR", help="as for sweep.py")
    parser.add_argument("--record", default=str(RECORD), metavar="DIR", help="where rows are kept (docs/study)")
    parser.add_argument("--page", action="store_true", help="run nothing, write the page from what is kept")
    return _with_quiet(parser)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sweep.py", description="How many LLM layers does next-item ranking need? Runs a search space on Ray."
    )
    parser.add_argument(
        "space",
        nargs="?",
        default="depth",
        metavar="SPACE",
        help=f"a file, or one of: {', '.join(space_names())} (default: depth)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting under its dotted name, e.g. --set seeds=3; on a swept key it replaces the axis",
    )
    parser.add_argument(
        "--storage",
        metavar="DIR",
        help="where everything is kept (default: $SLMREC_STORAGE, else ~/slmrec-runs)",
    )
    parser.add_argument("--name", help="of the sweep (default: <space>-<UTC time>)")
    parser.add_argument("--resume", action="store_true", help="go on with a sweep that did not finish")
    parser.add_argument("--dry-run", action="store_true", help="print stages and trials, start nothing")
    return _with_quiet(parser)


def _with_quiet(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--quiet", action="store_true", help="results and faults alone: no progress lines, no bars")
    return parser


def storage_folder(given: str | None) -> Path:
    """The storage directory: as given, else `$SLMREC_STORAGE`, else `~/slmrec-runs`.

    Raises:
        ConfigError: It is a URI.
    """
    named = given or os.environ.get("SLMREC_STORAGE") or "~/slmrec-runs"
    if ":/" in named:
        raise ConfigError(f"--storage: must be a directory that every node sees, got the URI {named!r}. Mount it.")
    return Path(named).expanduser().absolute()


def _made(storage: Path) -> None:
    try:
        for folder in (storage, storage / "stages", storage / "sweeps"):
            folder.mkdir(parents=True, exist_ok=True)
        # Checkpoints in it are pickles: nobody else may write there. A sticky folder, as /tmp, is everybody's.
        if not storage.stat().st_mode & stat.S_ISVTX:
            # On a mount that belongs to another user, who may write is not ours to say.
            with suppress(PermissionError):
                storage.chmod(0o700)
        tempfile.TemporaryFile(dir=storage).close()
    except OSError as error:
        raise ConfigError(
            f"--storage: must be a directory that can be written, got {storage} ({error.strerror}: {error.filename})."
            " Give another --storage."
        ) from error


def _folder(storage: Path, space: str, name: str | None, resume: bool, settings: Settings) -> SweepFolder:
    if not resume:
        _made(storage)
        folder = SweepFolder(storage, name or f"{space}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
        if folder.exists:
            raise ConfigError(f"--name: a sweep of this name exists, got {folder.name!r}. Add --resume, or rename.")
        return folder
    if name is None:
        unfinished = [s for s in sweeps(storage) if s.space == space and s.state != "finished" and not s.is_alive]
        if not unfinished:
            raise ConfigError(f"--resume: no unfinished sweep of {space!r} is in {storage}, got none. Start one.")
        folder = unfinished[0]
    else:
        folder = SweepFolder(storage, name)
    if changes := differences(folder.planned_settings(), settings):
        listed = "\n".join(f"  {change}" for change in changes[:20])
        raise ConfigError(f"--resume: settings must be those of sweep {folder.name}, got changes:\n{listed}")
    return folder


def _say_plan(plan: Plan, space: SearchSpace, storage: Path) -> None:
    todo = wanted(plan, StageStore(storage / "stages"))
    say(f"Study {space.study}, seeds {space.seeds}, storage {storage}")
    say("\nStages")
    for wave in waves(plan):
        for stage in wave:
            say(f"  {'to run' if stage.stage_id in todo else 'done  '}  {stage.stage_id}")
    say("\nTrials")
    for trial in plan.trials:
        say(f"  {trial.trial_id}  ({trial.method}, stage {trial.stage_id})")
    if space.sampled_group() is not None:
        say(f"  … and {space.budget.num_trials} points drawn by {space.search.algorithm}")
    # It takes a second to import, which a mistake in the settings need not wait for.
    import torch  # noqa: PLC0415

    here = [Node("this machine", float(os.cpu_count() or 1), float(torch.cuda.device_count()))]
    try:
        share = allocate(plan.workers, here).describe()
    except ConfigError as error:
        # Not the user's mistake: the cluster may be larger.
        share = f"they do not fit. {error}"
    say(f"\nWorkers on this machine alone: {share}")
