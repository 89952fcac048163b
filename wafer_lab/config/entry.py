"""What stands between a user's mistake and a traceback: for train.py, sweep.py and the command line tool."""

import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, OverrideParseException
from hydra.types import RunMode
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

from wafer_lab.config import resolvers
from wafer_lab.config.messages import ConfigWarning, Problem, did_you_mean, refuse
from wafer_lab.config.validate import resolver_message
from wafer_lab.errors import DivergedError, OutOfMemoryError, UserError
from wafer_lab.processes import local_rank, rank

FAILED = 2
STUDIES = "sweep"  # the primary config that has a search space
INTERRUPTED = 130  # what a shell reports for Ctrl-C: 128 + SIGINT
_WITH_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"  # as the user set it, before user_errors does
_RED, _YELLOW, _PLAIN = "\033[31m", "\033[33m", "\033[0m"


@contextmanager
def user_errors(config_dir: Path | None = None, config_name: str = "train") -> Iterator[None]:
    """Show a user's mistake as one message with exit status 2; let everything else keep its traceback.

    With a `config_dir`, the command line is checked before Hydra makes a folder or starts a job: all its
    mistakes are listed together, and all jobs of a --multirun are checked before the first one runs.

    It is also a decorator. Directly on a job function, under `@hydra.main`, it reports the job's own mistakes
    before Hydra adds lines of its own; jobs of a sweep go on to the next one, as Hydra does.

    Set HYDRA_FULL_ERROR=1 to see the traceback as well.

    Args:
        config_dir: the folder of configs that `@hydra.main` composes from; None where it is not used.
        config_name: the primary config.

    Raises:
        SystemExit: 2 after a user's mistake, 130 after Ctrl-C.
    """
    resolvers.register()
    # else Hydra prints exceptions itself and exits with status 1
    with _environment("HYDRA_FULL_ERROR", "1"), warnings.catch_warnings():
        _show_config_warnings_plainly()
        try:
            if config_dir is not None:
                line, starts_jobs = _command_line(config_dir, config_name)
                if starts_jobs:
                    refuse(_diagnose(line))
            yield
        except KeyboardInterrupt:
            if local_rank() == 0:
                print("interrupted", file=sys.stderr)
            raise SystemExit(INTERRUPTED) from None
        except Exception as error:
            message = _message(error, config_dir, config_name)
            if message is None:
                raise
            if _WITH_TRACEBACK:
                traceback.print_exc()
            _report(message, error)


def _report(message: str, error: Exception) -> NoReturn:
    # Of processes that train together one on each machine speaks, but these befall any of them alone.
    own = isinstance(error, DivergedError | OutOfMemoryError)
    if own or local_rank() == 0:
        process = f"process {rank()}: " if rank() else ""
        print(_coloured("error:", _RED), process + message, file=sys.stderr)
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise error  # Hydra runs the sweep's other jobs before it ends
    raise SystemExit(FAILED) from None


def _command_line(config_dir: Path, config_name: str) -> tuple[Any, bool]:
    """What sys.argv asks Hydra to compose, and whether to run it or only to show it."""
    from hydra._internal.utils import get_args_parser

    from wafer_lab.config.diagnose import CommandLine

    parser = get_args_parser()
    args, unknown = parser.parse_known_args()
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        raise UserError(f"there is no option {unknown[0]}{did_you_mean(unknown[0], known) or '; see --help'}")
    line = CommandLine(
        config_dir=config_dir,
        config_name=args.config_name or config_name,
        overrides=tuple(args.overrides),
        multirun=args.multirun,
        extra_dir=args.config_dir,
    )
    shows = args.help or args.hydra_help or args.cfg or args.info or args.shell_completion
    return line, not (shows or args.config_path or args.experimental_rerun)


def _diagnose(line: Any) -> list[Problem]:
    from wafer_lab.config.diagnose import diagnose

    found = diagnose(line)
    if line.config_name == STUDIES and not any(problem.level == "error" for problem in found):
        from wafer_lab.config.study import study_problems

        found += study_problems(line)
    return found


def _message(error: Exception, config_dir: Path | None, config_name: str) -> str | None:
    """What to tell the user; None for a bug, whose traceback is wanted."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingMandatoryValue | InterpolationResolutionError):
        return resolver_message(error)
    if isinstance(error, ValueError) and str(error).startswith(("Only one of --run", "The --resolve flag")):
        return str(error)  # flags of Hydra's that exclude each other
    if not isinstance(error, ConfigCompositionException | OverrideParseException):
        return None
    if config_dir is not None:  # it was only to be shown, and so was not checked before
        try:
            refuse(_diagnose(_command_line(config_dir, config_name)[0]))
        except UserError as told:
            return str(told)
    return "\n".join(line for line in str(error).splitlines() if line.strip())


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _show_config_warnings_plainly() -> None:
    usual = warnings.showwarning
    warnings.simplefilter("always", ConfigWarning)

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, ConfigWarning):
            print(_coloured("warning:", _YELLOW), message, file=sys.stderr)
        else:
            usual(message, category, *where, **more)

    warnings.showwarning = show


def _coloured(word: str, colour: str) -> str:
    return f"{colour}{word}{_PLAIN}" if sys.stderr.isatty() and "NO_COLOR" not in os.environ else word
