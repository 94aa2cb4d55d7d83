"""Entry of `python -m orchestrator.study`."""

import sys

from orchestrator.cli import study_main

if __name__ == "__main__":
    sys.exit(study_main())
