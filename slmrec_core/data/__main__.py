"""`python -m slmrec_core.data inspect PATH`: what a file is, and whether it can be trusted, before anything is trained.

Exit code 0 = the file was read, whatever it is like; 2 = a mistake of the user's, with one message on standard error.
"""

import argparse
import sys
from collections.abc import Sequence

from slmrec_core.data.inspection import inspect_interactions
from slmrec_core.data.interactions import NAMED_SETS, DataConfig, load_interactions
from slmrec_core.data.readers import FORMATS
from slmrec_core.errors import UserError

EXIT_USER_ERROR = 2
_COLUMNS = ("user_column", "item_column", "timestamp_column", "title_column", "rating_column")


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads a file as `load_interactions` does and writes what `Inspection.lines` says.

    Args:
        arguments: Of the command line; None = those of the process.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(arguments)
    try:
        interactions = load_interactions(
            options.path,
            format=options.format,
            user_column=options.user_column,
            item_column=options.item_column,
            timestamp_column=_or_none(options.timestamp_column),
            title_column=_or_none(options.title_column),
            rating_column=options.rating_column,
            min_rating=options.min_rating,
        )
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USER_ERROR
    for line in inspect_interactions(interactions).lines():
        sys.stdout.write(f"{line}\n")
    return 0


def _or_none(column: str | None) -> str | None:
    return None if column == "null" else column


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m slmrec_core.data", description="Interaction files.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    inspect = commands.add_parser("inspect", help="say what a file is and whether its order is one in time")
    inspect.add_argument("path", metavar="PATH", help=f"a file, or one of: {', '.join(NAMED_SETS)}")
    inspect.add_argument("--format", metavar="NAME", help=f"as data.format, one of: {', '.join(FORMATS)}")
    for name in _COLUMNS:
        default = DataConfig.model_fields[name].default
        inspect.add_argument(
            f"--{name.replace('_', '-')}",
            default=default,
            metavar="NAME",
            help=f"as data.{name} (default: {'null' if default is None else default})",
        )
    inspect.add_argument("--min-rating", type=float, metavar="RATING", help="as data.min_rating (default: null)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
