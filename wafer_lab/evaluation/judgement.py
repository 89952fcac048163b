"""Everything that a predictions table says about a model: fitted on val, reported on test once.

The deployed predictor (views, calibration, decision rule) is fitted on the val rows. Val is reported out of fold; it
also chose the checkpoint, so its scores are still optimistic. Beside the deployed rule stand the others, on the same
test wafers: to be read, not to be chosen from. What is chosen is chosen on val.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.views import TTA, VIEWS
from wafer_lab.errors import UserError
from wafer_lab.evaluation.intervals import Intervals, judge
from wafer_lab.evaluation.masks import JudgedMasks
from wafer_lab.evaluation.predictions import Predictions, TargetKind
from wafer_lab.evaluation.predictor.conformal import Conformal, Coverage, Mode, fit_conformal, measure
from wafer_lab.evaluation.predictor.cost import cost_curve, threshold_sensitivity
from wafer_lab.evaluation.predictor.decisions import Argmax, Thresholds, needed_normal, optional_costs
from wafer_lab.evaluation.predictor.predictor import Calibrated, Predictor, calibrate, fit_rule
from wafer_lab.evaluation.settings import Evaluation, Rule
from wafer_lab.evaluation.views import Wafers, wafers

# Scores of probabilities, which calibration changes.
CALIBRATION_SCORES = ("ece", "ece_mass", "ece_classwise", "brier", "nll")


@dataclass(frozen=True)
class Judged:
    """Labelled wafers, what was decided about them, and how good that was.

    Attributes:
        wafers: N wafers.
        probabilities: (N, C) float64.
        decisions: (N,) int64, or multi-label (N, C) int8.
        scores: as `intervals.judge` names them.
        intervals: of each score.
    """

    wafers: Wafers
    probabilities: NDArray[np.float64]
    decisions: NDArray[Any]
    scores: Mapping[str, float]
    intervals: Intervals


@dataclass(frozen=True)
class Step:
    """A predictor beside the deployed one, judged on the same test wafers.

    Attributes:
        name: what it does, in a few words.
        settings: how it was fitted.
        judged: the test wafers under it.
        notes: what a reader should know.
    """

    name: str
    settings: Evaluation
    judged: Judged
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ExternalTest:
    """Wafers of another data set, as the deployed predictor saw them.

    Attributes:
        judged: all of them.
        unseen: those without a twin among the train and val wafers; None where no twin was found, or nothing is left.
        notes: where they come from, which were left out and how many are twins, in sentences.
    """

    judged: Judged
    unseen: Judged | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Judgement:
    """A model's predictor and everything known of it.

    Attributes:
        settings: how it was fitted and judged.
        predictor: what is deployed.
        val: the val wafers, out of fold.
        test: the test wafers.
        before: the test wafers in the same views without calibration, by argmax.
        steps: other predictors, from the plain one on.
        costs: rule -> mean cost per test wafer at each of `cost.RATIOS`; empty where no class is normal.
        sensitivity: see `cost.threshold_sensitivity`; empty where no class is normal.
        conformal: prediction sets fitted on val, by mode, and what they hold on test.
        notes: what a reader should know of the predictor, in sentences.
        skipped: why some rule is not among the steps, likewise.
        masks: of a model that segments, how good its masks are.
        external: the test on another data set, where there is one.
        neighbours: the test wafers as nearest neighbours in pretrained features vote, where they were asked.
    """

    settings: Evaluation
    predictor: Predictor
    val: Judged
    test: Judged
    before: Judged
    steps: tuple[Step, ...]
    costs: Mapping[str, NDArray[np.float64]]
    sensitivity: Mapping[str, NDArray[np.float64]]
    conformal: Mapping[str, tuple[Conformal, Coverage]]
    notes: tuple[str, ...]
    skipped: tuple[str, ...]
    masks: JudgedMasks | None = None
    external: ExternalTest | None = None
    neighbours: Judged | None = None

    @property
    def splits(self) -> dict[str, Judged]:
        """Val, test and the external test by name."""
        return {"val": self.val, "test": self.test} | ({"external": self.external.judged} if self.external else {})

    @property
    def scores(self) -> dict[str, float]:
        """Scores keyed ``split/name``; of ``test/uncalibrated``, those that calibration changes.

        ``external/unseen`` is the external test without the twins of train and val wafers.
        """
        before = {f"test/uncalibrated/{name}": self.before.scores[name] for name in CALIBRATION_SCORES}
        masks = self.masks.scores if self.masks else {}
        parts = {f"{key}/{name}": v for key, part in self._keyed.items() for name, v in part.scores.items()}
        return before | parts | masks

    @property
    def intervals(self) -> Intervals:
        """The intervals of `scores`."""
        bounds = {f"test/uncalibrated/{name}": self.before.intervals[name] for name in CALIBRATION_SCORES}
        masks = self.masks.intervals if self.masks else {}
        parts = {f"{key}/{name}": v for key, part in self._keyed.items() for name, v in part.intervals.items()}
        return bounds | parts | masks

    @property
    def _keyed(self) -> dict[str, Judged]:
        unseen = self.external.unseen if self.external else None
        voted = {"test/knn": self.neighbours} if self.neighbours else {}
        return self.splits | ({"external/unseen": unseen} if unseen else {}) | voted


def judge_predictions(predictions: Predictions, settings: Evaluation, alternatives: bool = True) -> Judgement:
    """Fit a predictor on the val rows of a table and judge it on the test rows.

    Args:
        predictions: val and test rows of one model, in every view that the settings ask for.
        settings: what to fit and how to judge.
        alternatives: also judge the other rules, cost curves and conformal sets; training in a loop needs none.

    Raises:
        UserError: the table lacks val or test rows or views, or the settings do not suit the data.
    """
    test = wafers(predictions, "test", settings.tta)
    val = wafers(predictions, "val", settings.tta)
    calibrated = calibrate(val, settings)
    fitted = fit_rule(calibrated, settings)
    predictor = fitted.predictor
    probabilities = predictor.probabilities(test.logits)
    on_val = judge_wafers(val, fitted.probabilities, fitted.decisions, settings)
    on_test = judge_wafers(test, probabilities, predictor.decision(probabilities), settings)
    plain = calibrate_none(predictor, test)
    before = judge_wafers(test, plain, Argmax(test.target_kind)(plain), settings, ranking=False)
    known = {_choice(settings): on_test, (settings.tta, "none", "argmax"): before}
    steps, skipped = _steps(predictions, settings, calibrated, known) if alternatives else ((), ())
    costs, sensitivity = _curves(on_test, predictor, steps, settings) if alternatives else ({}, {})
    return Judgement(
        settings,
        predictor,
        on_val,
        on_test,
        before,
        steps,
        costs,
        sensitivity,
        _conformal(on_val, on_test, settings) if alternatives else {},
        (*_absent(val, test, settings), *fitted.notes),
        skipped,
    )


def check_settings(
    settings: Evaluation, class_names: Sequence[str], target_kind: TargetKind, views: Sequence[int]
) -> None:
    """Say before training what would only be found after it.

    Args:
        settings: how the model will be judged.
        class_names: of the data.
        target_kind: of the data.
        views: those that the predictions table will hold.

    Raises:
        UserError: a view is missing, or classes and costs do not fit the data.
    """
    if not set(VIEWS[settings.tta]) <= set(views):
        raise UserError(f"evaluation.tta={settings.tta} needs views that are not stored; set data.views={settings.tta}")
    optional_costs(settings, class_names, target_kind)
    if target_kind == "multiclass" and settings.decision == "recall":
        needed_normal(settings, class_names, "evaluation.decision=recall")


def calibrate_none(predictor: Predictor, part: Wafers) -> NDArray[np.float64]:
    """Probabilities of wafers in a predictor's views, as the network gives them."""
    classes = len(part.class_names)
    plain = replace(predictor.calibration, kind="none", scale=(1.0,) * classes, bias=(0.0,) * classes)
    return plain.probabilities(part.logits)


def judge_wafers(
    part: Wafers,
    probabilities: NDArray[np.float64],
    decisions: NDArray[Any],
    settings: Evaluation,
    ranking: bool = True,
) -> Judged:
    """Score decisions as the settings say; `ranking` adds the scores that take longest."""
    scores, intervals = judge(
        part.target,
        decisions,
        probabilities,
        part.class_names,
        part.target_kind,
        normal=settings.normal,
        cost=optional_costs(settings, part.class_names, part.target_kind),
        lot=part.lot,
        ranking=ranking,
        resamples=settings.resamples,
        seed=settings.seed,
    )
    return Judged(part, probabilities, decisions, scores, intervals)


def _steps(
    predictions: Predictions, settings: Evaluation, calibrated: Calibrated, known: dict[tuple[str, str, str], Judged]
) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """The plain predictor, then what views, calibration and each rule add to it; and why a rule is not there.

    Args:
        predictions: the table.
        settings: those of the deployed predictor.
        calibrated: its val wafers.
        known: what was judged already, by `_choice`.
    """
    plain = replace(settings, tta="none", calibration="none", decision="argmax")
    base = replace(settings, decision="argmax")
    rules: dict[Rule, str] = {
        "f1": "thresholds for F1",
        "cost": f"least cost at {settings.cost_ratio:g}:1" if settings.cost_matrix is None else "least cost",
        "recall": f"{100 * settings.max_escape_rate:g} % escapes expected",
    }
    ladder = [plain]
    if settings.tta != "none":
        ladder.append(replace(plain, tta=settings.tta))
    if settings.calibration != "none":
        ladder.append(base)
    ladder += [replace(base, decision=rule) for rule in rules]
    if settings.calibration == "none":
        ladder.append(replace(base, calibration="temperature"))
    if settings.tta == "none" and (most := _most_views(predictions)) != "none":
        ladder.append(replace(base, tta=most))

    cache = {(settings.tta, settings.calibration): calibrated}
    steps, skipped = [], []
    for own in ladder:
        name = rules.get(own.decision, f"{basis(own)}, argmax")
        if (own.tta, own.calibration) not in cache:
            cache[own.tta, own.calibration] = calibrate(wafers(predictions, "val", own.tta), own)
        try:
            fitted = fit_rule(cache[own.tta, own.calibration], own)
        except UserError as error:
            skipped.append(f"{name}: {error}")
            continue
        if (choice := _choice(own)) not in known:
            part = wafers(predictions, "test", own.tta)
            probabilities = fitted.predictor.probabilities(part.logits)
            known[choice] = judge_wafers(
                part, probabilities, fitted.predictor.decision(probabilities), own, ranking=False
            )
        steps.append(Step(name, own, known[choice], fitted.notes))
    return tuple(steps), tuple(skipped)


def basis(settings: Evaluation) -> str:
    """Views and calibration in words: what a decision rule is given."""
    views = "one view" if settings.tta == "none" else f"{settings.tta} views"
    return views if settings.calibration == "none" else f"{views}, {settings.calibration}"


def _choice(settings: Evaluation) -> tuple[str, str, str]:
    return settings.tta, settings.calibration, settings.decision


def _most_views(predictions: Predictions) -> TTA:
    seen = set(np.unique(predictions.view).tolist())
    stored: list[TTA] = [name for name in get_args(TTA) if set(VIEWS[name]) <= seen]
    return max(stored, key=lambda name: len(VIEWS[name]))


def _curves(
    test: Judged, predictor: Predictor, steps: tuple[Step, ...], settings: Evaluation
) -> tuple[Mapping[str, NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]:
    part = test.wafers
    rules = {
        step.settings.decision: step.judged.decisions
        for step in steps
        if (step.settings.tta, step.settings.calibration) == (settings.tta, settings.calibration)
    }
    names = {"argmax": "argmax", "f1": "thresholds for F1", "recall": "escapes bounded", "cost": "cost, fixed ratio"}
    decisions = {names[rule]: decided for rule, decided in rules.items()}
    rule = predictor.decision
    base = rule.values if isinstance(rule, Thresholds) and part.target_kind == "multiclass" else None
    try:
        costs = cost_curve(part.target, test.probabilities, decisions, settings, part.class_names, part.target_kind)
        sensitivity = threshold_sensitivity(
            part.target, test.probabilities, settings, part.class_names, part.target_kind, base
        )
    except UserError:  # no class is normal
        return {}, {}
    return costs, sensitivity


def _conformal(val: Judged, test: Judged, settings: Evaluation) -> dict[str, tuple[Conformal, Coverage]]:
    modes: tuple[Mode, ...] = ("marginal", "class")
    found: dict[str, tuple[Conformal, Coverage]] = {}
    for mode in modes:
        sets = fit_conformal(val.probabilities, val.wafers.target, settings.coverage, mode)
        found[mode] = (sets, measure(sets.sets(test.probabilities), test.wafers.target))
    return found


def _absent(val: Wafers, test: Wafers, settings: Evaluation) -> list[str]:
    """Sentences about classes that a split lacks."""
    notes = []
    for split, part in (("val", val), ("test", test)):
        target = part.target
        counts = target.sum(axis=0) if target.ndim == 2 else np.bincount(target, minlength=len(part.class_names))
        names = [name for name, count in zip(part.class_names, counts, strict=True) if not count]
        if names and (split == "test" or settings.calibration == "vector"):
            what = "nothing was tuned for it" if split == "val" else "calling one so lowers the macro F1"
            notes.append(f"no {split} wafer is {' or '.join(names)}: {what}")
    return notes
