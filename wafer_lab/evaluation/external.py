"""The external test: the deployed predictor on another data set, kept in a run's folder and told beside the test.

Nothing is fitted on it. What it says of a model in another fab is worth as much as its wafers are unlike those trained
on, so its twins among the train and val wafers are counted, and the scores without them stand beside the others.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.external import Origin
from wafer_lab.errors import UserError
from wafer_lab.evaluation.judgement import ExternalTest, Judged, Judgement, judge_wafers
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.tables import HEADLINE, table, with_interval
from wafer_lab.evaluation.views import Wafers, wafers
from wafer_lab.files import write_text
from wafer_lab.metrics.scores import normal_classes

SPLIT = "external"
TABLE = "external.parquet"
FACTS = "external.json"
_MOST_NAMES = 12


@dataclass(frozen=True)
class Twins:
    """External wafers that the run has seen, in training or in choosing the checkpoint and fitting its predictor.

    Attributes:
        exact: rows of the external data with an exact copy among the train and val wafers.
        near: rows with a near duplicate there and no exact copy; None where nobody looked for them.
        unknown: why nothing is known of twins; "" where it is.
    """

    exact: tuple[int, ...] = ()
    near: tuple[int, ...] | None = None
    unknown: str = ""

    @property
    def rows(self) -> tuple[int, ...]:
        """All of them."""
        return (*self.exact, *(self.near or ()))


@dataclass(frozen=True)
class External:
    """What a run keeps of its external test.

    Attributes:
        table: predictions of the split `external`; its `split_digest` is that of the run.
        origin: where its wafers come from.
        twins: which of them the run has seen.
    """

    table: Predictions
    origin: Origin
    twins: Twins

    def write(self, folder: Path) -> None:
        """Write `external.parquet` and `external.json`."""
        self.table.write(folder / TABLE)
        write_text(folder / FACTS, json.dumps({"origin": asdict(self.origin), "twins": asdict(self.twins)}, indent=1))

    @classmethod
    def read(cls, folder: Path, run: Predictions) -> "External | None":
        """What `write` left in a run's folder; None where there was no external test.

        Args:
            folder: the run's.
            run: its own predictions.

        Raises:
            UserError: a file is damaged, or of another run.
        """
        if not (folder / TABLE).is_file():
            return None
        table, mend = Predictions.read(folder / TABLE), f"; test again: wafer-lab evaluate {folder} --external PATH"
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            twins: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts["twins"].items()}
            origin = Origin(**facts["origin"] | {"missing": tuple(facts["origin"]["missing"])})
            external = cls(table, origin, Twins(**twins))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{folder / FACTS} is missing or damaged ({type(error).__name__}){mend}") from None
        for key in ("class_names", "target_kind", "split_digest"):
            if getattr(table, key) != getattr(run, key):
                raise UserError(f"{folder / TABLE} is of another {key} than the run's predictions{mend}")
        return external


def judge_external(judgement: Judgement, external: External | None) -> Judgement:
    """Add an external test, if there is one, to what is known of a run, as its deployed predictor decides.

    Raises:
        UserError: the table lacks the views that the predictor asks for.
    """
    if external is None:
        return judgement
    part = wafers(external.table, SPLIT, judgement.predictor.tta)
    seen = np.isin(part.index, external.twins.rows)
    unseen = _judged(judgement, part.take(~seen)) if seen.any() and not seen.all() else None
    return replace(judgement, external=ExternalTest(_judged(judgement, part), unseen, _notes(external)))


def _judged(judgement: Judgement, part: Wafers) -> Judged:
    """The scores that the part can have: without normal wafers there is no rate of false alarms among them."""
    probabilities = judgement.predictor.probabilities(part.logits)
    judged = judge_wafers(part, probabilities, judgement.predictor.decision(probabilities), judgement.settings)
    normal = ~part.target.any(axis=1) if part.target.ndim == 2 else _normal(judgement, part)[part.target]
    empty = {"false_alarm_rate": not normal.any(), "escape_rate": bool(normal.all())}
    kept = {name: value for name, value in judged.scores.items() if not empty.get(name)}
    return replace(judged, scores=kept, intervals={n: v for n, v in judged.intervals.items() if n in kept})


def _normal(judgement: Judgement, part: Wafers) -> NDArray[np.bool_]:
    return normal_classes(part.class_names, judgement.settings.normal)


def _notes(external: External) -> tuple[str, ...]:
    """What a reader must know of the wafers, in sentences."""
    origin, twins = external.origin, external.twins
    renamed = [f"{theirs} is {ours}" for theirs, ours in origin.classes.items() if ours not in (None, theirs)]
    what = "images" if origin.kind == "images" else "wafers"
    said = [f"{origin.wafers:,} {what} of {origin.path}" + (f"; {_listed(renamed)}" if renamed else "")]
    left = [f"{count:,} of {name}" for name, count in (origin.left_out or {}).items()]
    skipped = [f"{_listed(left)} (no class here)"] if left else []
    counts = {
        "with several labels": origin.ambiguous,
        "without a label": origin.unlabelled,
        "beyond data.limit": origin.unsampled,
    }
    skipped += [f"{count:,} {what}" for what, count in counts.items() if count]
    if skipped:
        said.append(f"left out: {', '.join(skipped)}")
    if origin.missing:
        said.append(f"none of them is {_listed(origin.missing)}, so calling one so is always wrong")
    return (*said, _told(twins, origin.wafers, what))


def _told(twins: Twins, count: int, what: str) -> str:
    if twins.unknown:
        return f"twins among the train and val {what} were not counted: {twins.unknown}"
    if twins.near is None:
        found, sought = f"{len(twins.exact):,} are exact copies", "; near duplicates were not looked for"
    else:
        found, sought = f"{len(twins.exact):,} are exact copies and {len(twins.near):,} more near duplicates", ""
    tail = ""
    if len(twins.rows) == count:
        tail = ": this tests nothing that the run has not seen"
    elif twins.rows:
        tail = "; the scores without them stand apart"
    return f"of the {count:,}, {found} of {what} that the run has seen, in train or val{sought}{tail}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def external_section(judgement: Judgement) -> list[str]:
    """The external test beside the internal one, as lines of Markdown; none where there was no external test."""
    external = judgement.external
    if external is None:
        return []
    columns: dict[str, Judged] = {"test": judgement.test, "external": external.judged}
    if external.unseen:
        columns["external without twins"] = external.unseen
    rows = [["wafers", *(f"{len(part.wafers):,}" for part in columns.values())]]
    for key, label in HEADLINE.items():
        cells = [_cell(part, key) for part in columns.values()]
        if any(cells):
            rows.append([label, *cells])
    lines = ["## External test", "", *table(["score", *columns], rows), ""]
    lines += [f"- {note[0].upper()}{note[1:]}." for note in external.notes]
    return [*lines, "", "The predictor is the one above: nothing was fitted or chosen on the external wafers."]


def _cell(part: Judged, key: str) -> str:
    return with_interval(part.scores[key], part.intervals.get(key)) if key in part.scores else ""


def summary_notes(external: ExternalTest) -> list[str]:
    """What the console says of an external test: that its wafers were seen before, if they were, or that nobody knows.

    Where there are scores without twins, the first score stands in the last note.
    """
    notes = [f"external test: {note}" for note in external.notes[1:]]
    if external.unseen:
        name = next(key for key in HEADLINE if key in external.unseen.scores)
        value = with_interval(external.unseen.scores[name], external.unseen.intervals.get(name))
        notes[-1] += f": {HEADLINE[name]} {value}"
    return notes
