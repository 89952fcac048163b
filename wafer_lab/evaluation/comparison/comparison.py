"""Which of several settings is better on the same test wafers, and how sure that is.

Every setting is compared with one baseline that was not chosen by its test scores. Two tests answer two questions: a
paired bootstrap, whether a score of seed means would differ on other test wafers; McNemar's, whether the two are right
on equally many wafers. Both hold for the trained models at hand: how far another training seed would move a score is
the spread over the seeds that were run, which stands beside them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.errors import UserError
from wafer_lab.evaluation.comparison.factors import name as setting_name
from wafer_lab.evaluation.comparison.significance import (
    estimate,
    exactly_right,
    holm,
    mcnemar,
    merged,
    resamples_for,
    two_sided,
)
from wafer_lab.evaluation.intervals import judge, resampled
from wafer_lab.evaluation.resampling import several_lots
from wafer_lab.evaluation.views import Wafers

#: Scores that are better the lower they are.
LOWER = frozenset(
    ("escape_rate", "false_alarm_rate", "escapes", "false_alarms", "cost", "ece", "ece_mass", "ece_classwise")
) | {"brier", "nll"}
# Where only judge's scores are wanted.
_FEW = 20

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """What one run says about the test wafers.

    Attributes:
        name: of the run, for people.
        factors: factor -> level, the same factors for all runs; see `wafer_lab.evaluation.comparison.factors`.
        seed: the run's seed.
        probabilities: (N, C) in [0, 1].
        decisions: (N,) int64, or multilabel (N, C) int8.
        val: scores on val, out of fold, by name; empty where val is not known.
    """

    name: str
    factors: Mapping[str, str]
    seed: int
    probabilities: NDArray[Any]
    decisions: NDArray[Any]
    val: Mapping[str, float]


@dataclass(frozen=True)
class Setting:
    """Runs that differ in nothing but the seed.

    Attributes:
        name: the choices that set it apart.
        factors: factor -> level.
        runs: names of its runs.
        seeds: their seeds.
        scores: their test scores.
        mean: of `scores`.
        low, high: 95 % bootstrap interval of the mean over test wafers, for these trained models.
        spread: standard deviation of `scores` over the seeds; None for one run.
        val: mean score on val; None where a run has none.
        means: mean test value of every score, by name.
    """

    name: str
    factors: Mapping[str, str]
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    mean: float
    low: float
    high: float
    spread: float | None
    val: float | None
    means: Mapping[str, float]


@dataclass(frozen=True)
class Difference:
    """One setting against the baseline on the same test wafers.

    Attributes:
        setting: its name.
        difference: of the mean scores, setting minus baseline.
        low, high: 95 % paired bootstrap interval over test wafers.
        p_bootstrap: two-sided, that the difference is nought: twice the smaller share of draws on one side of it.
        p_mcnemar: exact, that both are right on equally many wafers; pairs of runs merged, see `merged`.
        adjusted_bootstrap, adjusted_mcnemar: the same after Holm's correction over all tests of the comparison.
        gained, lost: wafers that only the setting, or only the baseline, gets right; mean over the pairs of runs.
        pairs: pairs of runs behind McNemar's test.
        seed_spread: the larger of the two spreads over seeds; None unless both sides have two seeds.
    """

    setting: str
    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_mcnemar: float
    adjusted_bootstrap: float
    adjusted_mcnemar: float
    gained: float
    lost: float
    pairs: int
    seed_spread: float | None

    @property
    def within_seeds(self) -> bool:
        """Whether runs of one setting differ among each other by more than the settings do."""
        return self.seed_spread is not None and self.seed_spread > abs(self.difference)


@dataclass(frozen=True)
class Effect:
    """The main effect of one level of one factor.

    Attributes:
        factor, level: which.
        runs: how many runs have the level.
        mean: score of those runs, with the 95 % interval `low`, `high` over test wafers.
        difference: to the factor's first level, over the cells that have both levels beside the same levels of all
            other factors, every cell counting the same; None for the first level and where there is no such cell.
        difference_low, difference_high: its 95 % paired interval.
        cells: how many such cells there are.
    """

    factor: str
    level: str
    runs: int
    mean: float
    low: float
    high: float
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    cells: int


@dataclass(frozen=True)
class Comparison:
    """Everything `compare` finds.

    Attributes:
        score: the name of the score compared.
        lower_is_better: its direction.
        baseline: name of the setting the others are compared with.
        baseline_from_val: whether it was chosen, as the best on val, rather than named.
        settings: best first.
        differences: of every setting but the baseline, in the same order.
        effects: of a grid of at least two factors, else empty.
        wafers: test wafers.
        lots: lots drawn whole by the bootstrap, a wafer of no known lot being one; None where wafers are drawn.
        resamples: bootstrap resamples.
    """

    score: str
    lower_is_better: bool
    baseline: str
    baseline_from_val: bool
    settings: tuple[Setting, ...]
    differences: tuple[Difference, ...]
    effects: tuple[Effect, ...]
    wafers: int
    lots: int | None
    resamples: int


def compare(
    runs: Sequence[Answers],
    test: Wafers,
    *,
    score: str = "f1_macro",
    baseline: str | None = None,
    normal: Sequence[str] | None = None,
    cost: Any = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare settings, each trained with one or more seeds, on the test wafers they share.

    Args:
        runs: of at least two runs, all about the wafers of `test`.
        test: the N test wafers; of them only target, lot and what the classes are called is used.
        score: which score to compare; any of `wafer_lab.evaluation.intervals.judge`.
        baseline: name, or part of the name, of the setting that the others are compared with, or of one of its runs;
            None: the one with the best mean score on val.
        normal: classes that are no defect.
        cost: as for `judge`.
        resamples: of the bootstrap; more are taken where Holm's correction needs smaller p-values.
        seed: of the resamples.

    Raises:
        UserError: there is no such score or baseline, or no val score to choose the baseline by.
    """
    groups = _grouped(runs)
    resamples = resamples_for(2 * (len(groups) - 1), resamples)
    ranking = score.startswith(("auroc", "average_precision"))
    facts: dict[str, Any] = {"normal": normal, "cost": cost, "lot": test.lot}
    scores, draws = [], []
    for run in runs:
        what = (test.target, run.decisions, run.probabilities, test.class_names, test.target_kind)
        scores.append(judge(*what, **facts, resamples=_FEW)[0])
        drawn = resampled(*what, **facts, ranking=ranking, resamples=resamples, seed=seed)
        if score not in drawn:
            raise UserError(f"there is no score {score!r} of these runs; choose one of {_offered(scores[-1])}")
        draws.append(drawn[score])
        if np.isnan(draws[-1]).all():
            raise UserError(
                f"no test wafer is of the kind that {score} is about, so it says nothing; choose another score"
            )
    table = np.stack(draws)
    settings = {name: _setting(name, rows, runs, scores, table, score) for name, rows in groups.items()}
    chosen = _baseline(tuple(settings.values()), score, baseline)
    right = [exactly_right(run.decisions, test.target) for run in runs]
    order = sorted(settings.values(), key=lambda s: s.mean if score in LOWER else -s.mean)
    return Comparison(
        score=score,
        lower_is_better=score in LOWER,
        baseline=chosen,
        baseline_from_val=baseline is None,
        settings=tuple(order),
        differences=_differences([s.name for s in order], chosen, settings, groups, runs, right, table),
        effects=main_effects([run.factors for run in runs], [s[score] for s in scores], table),
        wafers=len(test),
        lots=_lots_drawn(test.lot),
        resamples=resamples,
    )


def main_effects(factors: Sequence[Mapping[str, str]], scores: Sequence[float], draws: Floats) -> tuple[Effect, ...]:
    """How much each level of each factor of an ablation grid changes the score.

    Args:
        factors: of the runs, factor -> level.
        scores: (runs,) their scores.
        draws: (runs, R) bootstrap draws of the scores, paired over the runs.

    Returns:
        The effects, factor by factor, levels in the order they appear; nothing for fewer than two factors.
    """
    if not factors or len(factors[0]) < 2:
        return ()
    table = np.column_stack([scores, draws])  # a value and its draws in one row: every mean is taken of both at once
    effects = []
    for factor in factors[0]:
        cells: dict[str, dict[Any, list[int]]] = {}  # level -> the other factors' levels -> runs
        for row, levels in enumerate(factors):
            others = tuple(value for key, value in levels.items() if key != factor)
            cells.setdefault(levels[factor], {}).setdefault(others, []).append(row)
        first = next(iter(cells.values()))
        for level, own in cells.items():
            rows = [row for members in own.values() for row in members]
            shared = [] if own is first else [key for key in own if key in first]
            steps = [table[own[key]].mean(0) - table[first[key]].mean(0) for key in shared]
            effects.append(_effect(factor, level, table[rows], np.array(steps)))
    return tuple(effects)


def _effect(factor: str, level: str, runs: Floats, steps: Floats) -> Effect:
    """From (runs, 1 + R) scores with their draws, and the (cells, 1 + R) differences to the first level."""
    over_runs, over_cells = runs.mean(0), steps.mean(0) if len(steps) else None
    mean, low, high = estimate(over_runs[0], over_runs[1:])
    step = (None, None, None) if over_cells is None else estimate(over_cells[0], over_cells[1:])
    return Effect(factor, level, len(runs), mean, low, high, step[0], step[1], step[2], len(steps))


def _lots_drawn(lot: NDArray[np.str_] | None) -> int | None:
    if lot is None or not several_lots(lot):
        return None
    return len(np.unique(lot[lot != ""])) + int((lot == "").sum())


def _grouped(runs: Sequence[Answers]) -> dict[str, list[int]]:
    """Setting name -> positions of its runs, in order of appearance."""
    groups: dict[str, list[int]] = {}
    for row, run in enumerate(runs):
        groups.setdefault(setting_name(run.factors), []).append(row)
    return groups


def _setting(
    name: str,
    rows: Sequence[int],
    runs: Sequence[Answers],
    scores: Sequence[Mapping[str, float]],
    draws: Floats,
    score: str,
) -> Setting:
    own = [scores[row][score] for row in rows]
    mean, low, high = estimate(float(np.mean(own)), draws[list(rows)].mean(0))
    on_val = [runs[row].val.get(score) for row in rows]
    return Setting(
        name=name,
        factors=runs[rows[0]].factors,
        runs=tuple(runs[row].name for row in rows),
        seeds=tuple(runs[row].seed for row in rows),
        scores=tuple(own),
        mean=mean,
        low=low,
        high=high,
        spread=float(np.std(own, ddof=1)) if len(own) > 1 else None,
        val=None if None in on_val else float(np.mean([v for v in on_val if v is not None])),
        means={key: float(np.mean([scores[row][key] for row in rows])) for key in scores[rows[0]]},
    )


def _baseline(settings: Sequence[Setting], score: str, wanted: str | None) -> str:
    if wanted is None:
        vals = [s.val for s in settings if s.val is not None]
        if len(vals) < len(settings):
            if len(settings) == 1:
                return settings[0].name
            offered = "; ".join(s.name for s in settings)
            raise UserError(
                f"some runs have no {score} on val to choose a baseline by; name one with --baseline, of: {offered}"
            )
        return settings[int(np.argmin(vals) if score in LOWER else np.argmax(vals))].name
    names = [s.name for s in settings]
    found = [s.name for s in settings if wanted == s.name or wanted in s.runs]
    found = found or [name for name in names if wanted in name]
    if len(found) != 1:
        how = f"fits {len(found)} settings" if found else "is none of the settings"
        raise UserError(f"--baseline {wanted!r} {how}; name one of: {'; '.join(names)}")
    return found[0]


def _differences(
    names: Sequence[str],
    baseline: str,
    settings: Mapping[str, Setting],
    groups: Mapping[str, list[int]],
    runs: Sequence[Answers],
    right: Sequence[NDArray[np.bool_]],
    draws: Floats,
) -> tuple[Difference, ...]:
    reference, base = settings[baseline], groups[baseline]
    found: list[dict[str, Any]] = []
    for name in (name for name in names if name != baseline):
        own = settings[name]
        steps = draws[groups[name]].mean(0) - draws[base].mean(0)
        difference, low, high = estimate(own.mean - reference.mean, steps)
        pairs = _pairs(groups[name], base, runs)
        flips = [(int((right[a] & ~right[b]).sum()), int((right[b] & ~right[a]).sum())) for a, b in pairs]
        gained, lost = np.mean(flips, axis=0)
        spreads = [own.spread, reference.spread]
        found.append(
            {
                "setting": name,
                "difference": difference,
                "low": low,
                "high": high,
                "p_bootstrap": two_sided(steps),
                "p_mcnemar": merged([mcnemar(*flip) for flip in flips]),
                "gained": float(gained),
                "lost": float(lost),
                "pairs": len(pairs),
                "seed_spread": None if None in spreads else max(s for s in spreads if s is not None),
            }
        )
    adjusted = holm([d["p_bootstrap"] for d in found] + [d["p_mcnemar"] for d in found])
    return tuple(
        Difference(**d, adjusted_bootstrap=adjusted[i], adjusted_mcnemar=adjusted[len(found) + i])
        for i, d in enumerate(found)
    )


def _pairs(ours: Sequence[int], theirs: Sequence[int], runs: Sequence[Answers]) -> list[tuple[int, int]]:
    """Runs of equal seed where both sides have the same seeds, each once; else every run with every other."""
    seeds = [{runs[row].seed: row for row in rows} for rows in (ours, theirs)]
    if seeds[0].keys() == seeds[1].keys() and len(seeds[0]) == len(ours) == len(theirs):
        return [(row, seeds[1][seed]) for seed, row in seeds[0].items()]
    return [(a, b) for a in ours for b in theirs]


def _offered(scores: Mapping[str, float]) -> str:
    return ", ".join(key for key in scores if "/" not in key) + ", or one of a class, such as f1/<class>"
