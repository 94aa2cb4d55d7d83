"""Entry of `python orchestrator/score.py MODEL HISTORIES OUT`."""

import sys
from pathlib import Path

# Under `ray job submit` this file may be all of the project that Python knows of.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# Beside it the folder `orchestrator/` itself comes first, where our modules would hide others' of the same name.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]

from orchestrator.cli import score_main  # noqa: E402

if __name__ == "__main__":
    sys.exit(score_main())
