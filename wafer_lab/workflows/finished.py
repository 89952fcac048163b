"""Reading what finished runs left in their folders; a folder may come from somebody else, so nothing in it is run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf

from wafer_lab.config.build import build, check_targets
from wafer_lab.data.prepare import cached
from wafer_lab.data.readers import open_source
from wafer_lab.data.simulator import Simulator
from wafer_lab.data.store import Store
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.evaluation.views import wafers

if TYPE_CHECKING:
    from wafer_lab.data.datamodule import WaferDataModule  # which takes Lightning, seconds to import

# What a run leaves in its folder.
CONFIG = "config.yaml"
TABLE = "predictions.parquet"
PREDICTOR = "predictor.json"
METRICS = "metrics.json"
FACTS = "facts.json"

_SIMULATOR = "wafer_lab.data.simulator.Simulator"
_NEEDED = {"data", "task", "name", "seed", "figures"}
_GROUPS = ("data", "task", "paths", "tracking")
_AS_WRITTEN = "put back the one that train.py wrote"


@dataclass(frozen=True)
class FinishedRun:
    """A run's folder, read.

    Attributes:
        folder: where it lies.
        config: the resolved config.
        table: its predictions.
        predictor: what was deployed; None for a run that left none.
    """

    folder: Path
    config: dict[str, Any]
    table: Predictions
    predictor: Predictor | None

    @property
    def settings(self) -> Evaluation:
        """How the run is judged: as its predictor was fitted, else as its config says.

        Raises:
            UserError: as `settings_of`.
        """
        return self.predictor.settings if self.predictor else settings_of(self.config)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Say of which run a user's mistake is."""
        try:
            yield
        except UserError as error:
            raise UserError(f"{self.folder}: {error}") from error


def find_runs(paths: Sequence[Path | str]) -> tuple[list[Path], list[Path]]:
    """Run folders among and below some paths.

    Args:
        paths: run folders, or folders that hold run folders.

    Returns:
        Finished runs, in the order given and then by name; and folders of runs without predictions that were found
        below the paths and left out.

    Raises:
        UserError: a path holds no finished run, or a cross-validation, or a run is there twice.
    """
    found: list[Path] = []
    unfinished: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            raise UserError(f"there is no folder {path}; name run folders, or a folder that holds them")
        runs, open_runs = _below(path)
        if not runs:
            why = "its run has not finished" if (path / CONFIG).is_file() else "nor any folder below it"
            raise UserError(f"{path} holds no {TABLE} ({why}); name folders of finished runs")
        found += runs
        unfinished += open_runs
    seen: dict[Path, Path] = {}
    for run in found:
        if (first := seen.setdefault(run.resolve(), run)) is not run:
            raise UserError(f"the same run is given twice, as {first} and as {run}; name every run once")
        if (fold := run / "fold_0").is_dir() and not (run / PREDICTOR).is_file():
            raise UserError(
                f"{run} is a cross-validation, whose folds have a predictor each and other test wafers; name the same "
                f"fold of every run, such as {fold}"
            )
    return found, unfinished


def _below(path: Path) -> tuple[list[Path], list[Path]]:
    """Finished and unfinished runs at or below a folder; a run's own folder is not searched."""
    if (path / TABLE).is_file():
        return [path], []
    finished: list[Path] = []
    unfinished: list[Path] = []
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and not folder.is_symlink():
            runs, open_runs = _below(folder)
            finished += runs
            unfinished += open_runs
    if not finished and (path / CONFIG).is_file():
        unfinished = [path]
    return finished, unfinished


def read_run(folder: Path) -> FinishedRun:
    """Read a run's folder.

    Raises:
        UserError: a file is missing or damaged, or logits are not finite.
    """
    config, table = read_config(folder), Predictions.read(folder / TABLE)
    if not (file := folder / PREDICTOR).is_file():
        return FinishedRun(folder, config, table, None)
    predictor = Predictor.read(file)
    if (predictor.class_names, predictor.target_kind) != (table.class_names, table.target_kind):
        raise UserError(f"{file} and {TABLE} beside it are of different classes; run wafer-lab evaluate {folder}")
    return FinishedRun(folder, config, table, predictor)


def check_comparable(runs: Sequence[FinishedRun]) -> None:
    """Refuse runs that were not judged on the same wafers.

    Raises:
        UserError: names the two runs and what they differ in.
    """
    first = runs[0]
    with first.named():
        test = wafers(first.table, "test")
    for run in runs[1:]:
        for key, what in (
            ("data_fingerprint", "data"),
            ("split_digest", "splits"),
            ("target_kind", "kinds of target"),
            ("class_names", "classes"),
        ):
            ours, theirs = getattr(first.table, key), getattr(run.table, key)
            if ours != theirs:
                raise UserError(
                    f"{first.folder.name} and {run.folder.name} are of different {what} ({_shown(ours)} and "
                    f"{_shown(theirs)}), so their scores do not compare; choose runs of the same data and data.seed"
                )
        with run.named():
            other = wafers(run.table, "test")
        for name in ("index", "target"):
            if not np.array_equal(getattr(test, name), getattr(other, name)):
                raise UserError(
                    f"{first.folder.name} and {run.folder.name} name the same split ({first.table.split_digest}), but "
                    f"their tables hold other test {'wafers' if name == 'index' else 'labels'} ({len(test):,} and "
                    f"{len(other):,} wafers); one of them was changed: predict or train again"
                )


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def read_config(run: Path) -> dict[str, Any]:
    """The config of a run as plain containers; it was resolved when it was written and is taken as it stands.

    Args:
        run: Its folder.

    Raises:
        UserError: There is none, or it is damaged.
    """
    file = run / CONFIG
    if not file.is_file():
        raise UserError(f"{run} is not a run's folder: it has no {CONFIG}; runs lie in outputs/runs")
    try:
        config: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({str(error).partition(chr(10))[0]}); {_AS_WRITTEN}") from None
    if not isinstance(config, dict) or not config.keys() >= _NEEDED:
        raise UserError(f"{file} is not the config of a run; {_AS_WRITTEN}")
    for group in _GROUPS:
        if not isinstance(config.get(group, {}), dict):
            raise UserError(f"{file}: {group} has no settings; {_AS_WRITTEN}")
    if not isinstance(config["seed"], int):
        raise UserError(f"{file}: seed is no whole number; {_AS_WRITTEN}")
    return config


def settings_of(config: Mapping[str, Any]) -> Evaluation:
    """How a run was judged; the defaults for one made before this could be chosen.

    Raises:
        UserError: The settings are not those of this version.
    """
    stored = config.get("evaluation", {})
    if not isinstance(stored, Mapping):
        raise UserError(f"{CONFIG}: evaluation has no settings; {_AS_WRITTEN}, or delete evaluation for the defaults")
    try:
        return Evaluation(**{key: value for key, value in stored.items() if key != "_target_"})
    except TypeError as error:
        raise UserError(
            f"{CONFIG}: evaluation does not fit this version of wafer_lab ({error}); delete evaluation there for the "
            "defaults, or use the version that trained the run"
        ) from None


def run_id(run: Path) -> str | None:
    """The id of a run in the tracker that recorded it; None where nothing says."""
    found = _json(run / FACTS).get("run_id")
    return found if isinstance(found, str) else None


def val_scores(run: Path) -> dict[str, float]:
    """The scores on val that the run's report has, out of fold; nothing where it has none.

    Raises:
        UserError: metrics.json is damaged.
    """
    metrics = _json(run / METRICS).items()
    scores = {name.removeprefix("val/"): value for name, value in metrics if name.startswith("val/")}
    return {name: float(v) for name, v in scores.items() if isinstance(v, int | float) and np.isfinite(v)}


def _json(file: Path) -> dict[str, Any]:
    """What a JSON file of a run says; nothing where it is not there."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}); delete it and run wafer-lab evaluate {file.parent}") from None
    if not isinstance(found, dict):
        raise UserError(f"{file} is not what a run writes; delete it and run wafer-lab evaluate {file.parent}")
    return found


def store_of(config: Mapping[str, Any]) -> Store:
    """The prepared data of a run, without its split.

    Raises:
        UserError: The data is not there, or of an unknown kind.
    """
    data = config["data"]
    made = data.get("source")
    if made and made.get("_target_") != _SIMULATOR:
        raise UserError(f"the run's data is made by {made.get('_target_')}, not read from a file; name a file as data")
    options = {key: value for key, value in (made or {}).items() if key != "_target_"}
    source = Simulator(**options) if made else open_source(data["path"])
    return source if isinstance(source, Store) else cached(source, data["cache"])


def datamodule_of(config: Mapping[str, Any], run: Path, source: Store | None = None) -> "WaferDataModule":
    """The data module of a run, without augmentation and not yet set up.

    Args:
        config: The run's.
        run: Its folder.
        source: Other data, in place of the run's own.

    Raises:
        UserError: The config names what is no class of `wafer_lab.data`, or the data is not there.
    """
    node, file = {**config["data"], "augment": None}, run / CONFIG
    check_targets(node, "wafer_lab.data", file, classes_only=True)
    try:
        other = {} if source is None else {"source": source}
        datamodule: WaferDataModule = build(OmegaConf.create({"data": node}).data, **other)
    except TypeError as error:
        raise UserError(
            f"the data in {file} does not fit this version of wafer_lab ({error}); mend data there, or use the version "
            "that trained the run"
        ) from None
    return datamodule
