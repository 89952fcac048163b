"""How well anyone could outline the simulator's patterns: the IoU of an ideal observer, from the exact posterior.

The observer knows the simulator, the dies that the canvas shows, how likely each survives the random defects, and which
patterns are there (the label); not the traits of the patterns, by which die states are random. It takes wafers one at a
time, as a network does. The best call for pooled IoU is a threshold on the posterior probability of each die.

Two samplers bracket it. From the truth: Metropolis chains that start at the true traits, which are a draw of the
posterior, so that each step is one; a chain too short remembers the truth and overstates. From the prior: particles
tempered from prior to posterior, which never see the truth; anyone could call as they do, so the ceiling is no lower.

    python benchmarks/mask_ceiling.py

About 13 minutes of one core. glibc's MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000, set before,
spare it page faults of large arrays.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import sys
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from types import SimpleNamespace

import numpy as np

from wafer_lab.data.rows import FAIL
from wafer_lab.data.simulator import Simulator
from wafer_lab.data.simulator.frequencies import class_counts, production_order, wafer_types
from wafer_lab.data.simulator.grids import Grid
from wafer_lab.data.simulator.patterns import NUM_TRAITS, PATTERNS
from wafer_lab.evaluation.masks import Masks, judge

CANVAS = 64
NAMES = tuple(PATTERNS)
# How many traits a pattern reads; Near-full and Random cover every die, so that the label is the mask.
TRAITS = {"Center": 9, "Donut": 10, "Edge-Loc": 5, "Edge-Ring": 5, "Loc": 10, "Scratch": 12}
START = 0.05  # of the tempering: a power of the likelihood that a bank of draws can follow
BIGGER = 4  # bank of Scratch, which lies on few dies
EDGES = np.float32([1e-6, 0.5, 0.7, 0.85, 0.95])
LEVELS = np.float32([0, 0.4, 0.6, 0.78, 0.9, 0.975])
THRESHOLDS = np.round(np.arange(0.2, 0.8, 0.02), 2)


@dataclass(frozen=True)
class Seen(Grid):
    """Some dies of a grid end to end: every array is (1, M)."""

    full: tuple[int, int]

    @property
    def shape(self):
        """Height and width of the whole grid."""
        return self.full


class Told(Simulator):
    """A simulator that also tells what it drew."""

    def make(self, lot, bits):
        """A lot of n wafers: the M dies that the canvas shows of each, and its secrets; truth is (n, K, M)."""
        self.drawn = []
        cells, patterns = self._lot(lot, bits)
        grid, on, survival = self.known
        row, column = (np.bincount((2 * np.arange(CANVAS) + 1) * n // (2 * CANVAS), minlength=n) for n in grid.shape)
        pixels = np.outer(row, column)
        seen = on & (pixels > 0)
        arrays = [getattr(grid, name)[seen][None] for name in ("x", "y", "radius", "cos", "sin")]
        present = [k for k in range(len(NAMES)) if (bits >> k & 1).any()]
        return SimpleNamespace(
            grid=Seen(*arrays, grid.shape),
            pixels=pixels[seen],
            fails=(cells[:, seen] == FAIL).astype(np.float32),
            survival=survival[:, seen],
            label=bits[:, None] >> np.arange(len(NAMES)) & 1 > 0,
            truth=patterns[:, seen][:, None] >> np.arange(len(NAMES), dtype=np.uint8)[:, None] & 1 > 0,
            traits=dict(zip(present, self.drawn, strict=True)),
        )

    def _background_survival(self, grid, on, num_wafers, rng):
        survival = super()._background_survival(grid, on, num_wafers, rng)
        self.known = grid, on, survival.copy()
        return survival

    def _traits(self, num_wafers, rng):
        self.drawn.append(super()._traits(num_wafers, rng))
        return self.drawn[-1]


class Sampler:
    """`particles` states of the traits of each wafer of a lot; row r is of wafer r // particles."""

    def __init__(self, lot, particles, rng, from_truth):
        self.lot, self.particles, self.rng = lot, particles, rng
        self.fails, self.survival = (np.repeat(a, particles, axis=0) for a in (lot.fails, lot.survival))
        self.rows, self.z, self.passes = {}, {}, {}
        self.rates = defaultdict(lambda: np.zeros(2))
        for k, name in enumerate(NAMES):
            if name in TRAITS and lot.label[:, k].any():
                self.rows[k] = np.flatnonzero(np.repeat(lot.label[:, k], particles))
                fresh = rng.standard_normal((len(self.rows[k]), NUM_TRAITS), dtype=np.float32)
                self.z[k] = np.repeat(lot.traits[k], particles, axis=0) if from_truth else fresh
                # Without the truth the first jump finds each pattern in turn, with nothing yet of those to come.
                self.passes[k] = self.passing(k, self.z[k]) if from_truth else np.ones_like(self.fails[self.rows[k]])
        self.shared = {
            k: [(j, *np.intersect1d(rows, other, return_indices=True)[1:]) for j, other in self.rows.items() if j != k]
            for k, rows in self.rows.items()
        }
        self.fit = np.zeros(len(self.fails))
        for k, rows in self.rows.items():
            self.fit[rows] = self.log_likelihood(k, self.passes[k])

    def passing(self, k, z):
        """(rows, M) the probability that a die survives pattern k."""
        return 1 - PATTERNS[NAMES[k]](self.lot.grid, z)[:, 0]

    def others(self, k):
        """(rows, M) the probability that a die of the wafers of pattern k survives all else."""
        total = self.survival[self.rows[k]]
        for other, here, there in self.shared[k]:
            total[here] *= self.passes[other][there]
        return total

    def log_likelihood(self, k, passes):
        """Of the wafers of pattern k, were `passes` its field; the other patterns stay."""
        total = self.others(k) * passes
        np.abs(self.fails[self.rows[k]] - total, out=total)
        return np.log(np.maximum(total, np.float32(1e-9), out=total), out=total).sum(axis=1).astype(float)

    def sweep(self, power):
        """One Metropolis step of every pattern (preconditioned Crank-Nicolson); `power` of the likelihood."""
        for k, rows in self.rows.items():
            z, used, n = self.z[k], TRAITS[NAMES[k]], len(rows)
            step = np.exp(self.rng.uniform(np.log(0.02), 0, (n, 1))).astype(np.float32)
            moved = self.rng.random(z.shape) < self.rng.choice([0, 0.3, 1], (n, 1))
            moved[np.arange(n), self.rng.integers(used, size=n)] = True
            fresh = self.rng.standard_normal(z.shape, dtype=np.float32)
            proposed = np.where(moved, np.sqrt(1 - step * step) * z + step * fresh, z)
            self.rates["stepped", NAMES[k]] += self.accept(k, proposed, power), n

    def accept(self, k, proposed, power, surrogate=0.0):
        """Metropolis; `surrogate` is the log ratio of proposed to present by which the proposal was already chosen."""
        rows, passes = self.rows[k], self.passing(k, proposed)
        fit = self.log_likelihood(k, passes)
        taken = np.log(self.rng.random(len(rows))) < power * (fit - self.fit[rows]) - surrogate
        self.z[k][taken], self.passes[k][taken] = proposed[taken], passes[taken]
        self.fit[rows[taken]] = fit[taken]
        return taken.sum()

    def jump(self, bank, power):
        """Exchange each pattern for the like of a bank of prior draws, new at every call, that explains the dies.

        Iterated sampling importance resampling (Andrieu, Doucet and Holenstein 2010) with kills rounded to `LEVELS`,
        for which products of matrices score all of the bank on all wafers, then Metropolis for what rounding errs.
        """
        for k, rows in self.rows.items():
            many = bank * (BIGGER if NAMES[k] == "Scratch" else 1)
            fresh = self.rng.standard_normal((many, NUM_TRAITS), dtype=np.float32)
            level, here = (self.levels(p) for p in (self.passing(k, fresh), self.passes[k]))
            others, fails = self.others(k), self.fails[rows]
            terms = [np.log(np.maximum(np.abs(fails - others * (1 - kill)), np.float32(1e-9))) for kill in LEVELS]
            scores = np.zeros((len(rows), 1 + many), np.float32)
            for i in range(1, len(LEVELS)):
                hot = level == i
                if hot.any():
                    gain = np.float32(power) * (terms[i] - terms[0])
                    scores[:, 0] += (gain * (here == i)).sum(axis=1)
                    scores[:, 1:] += gain @ hot.astype(np.float32).T
            # Argmax under Gumbel noise draws in proportion to exp(scores).
            noisy = scores - np.log(self.rng.standard_exponential(scores.shape))
            chosen = noisy.argmax(axis=1)
            proposed = np.where(chosen[:, None] > 0, fresh[chosen - 1], self.z[k])
            surrogate = scores[np.arange(len(rows)), chosen] - scores[:, 0]
            taken = self.accept(k, proposed, power, surrogate) - (chosen == 0).sum()
            self.rates["jumped", NAMES[k]] += taken, len(rows)

    @staticmethod
    def levels(passes):
        """Which of `LEVELS` the probability of a kill is rounded to."""
        kill = 1 - passes
        return sum((kill > edge).view(np.uint8) for edge in EDGES)

    def resample(self, weight):
        """Draw the particles anew of those wafers whose weights (wafers, particles) are uneven; which they are."""
        source, many = np.arange(weight.size).reshape(weight.shape), self.particles
        uneven = 1 / (weight**2).sum(axis=1) < many / 2
        for i in np.flatnonzero(uneven):
            at = (self.rng.random() + np.arange(many)) / many
            source[i] = i * many + np.minimum(np.searchsorted(np.cumsum(weight[i]), at), many - 1)
        self.fit = self.fit[source.ravel()]
        for k, rows in self.rows.items():
            here = np.searchsorted(rows, source.ravel()[rows])
            self.z[k], self.passes[k] = self.z[k][here], self.passes[k][here]
        return uneven

    def masks(self, of=None):
        """(n, K, M) share of the first `of` particles whose pattern covers a die; Near-full and Random cover all."""
        covered = np.repeat(self.lot.label[:, :, None], len(self.lot.pixels), axis=2).astype(np.float32)
        for k, passes in self.passes.items():
            inside = (passes < 1).reshape(-1, self.particles, passes.shape[1])
            covered[self.lot.label[:, k], k] = inside[:, :of].mean(axis=1)
        return covered

    def run(self, sweeps, jumps=0):
        """The mean of the masks over sweeps at full power."""
        total, count = 0, 0
        for i in sweeps:
            self.sweep(1.0)
            if jumps and i % jumps == 0:
                self.jump(1000, 1.0)
            if i % 4 == 0:
                total, count = total + self.masks(), count + 1
        return total / count


def chain(lot, rng, sweeps):
    """From the truth: posterior means over (0, n], (n, 2n], (2n, 4n] of 4n sweeps, and the draw at the end of each."""
    sampler = Sampler(lot, 1, rng, from_truth=True)
    ends = (0, sweeps // 4, sweeps // 2, sweeps)
    found = {
        f"from truth, {end} sweeps": (sampler.run(range(start, end), 250), sampler.masks() > 0)
        for start, end in pairwise(ends)
    }
    return found, sampler


def anneal(lot, rng, sweeps, particles):
    """From the prior: tempered over `sweeps`, then posterior means over half as many more."""
    sampler = Sampler(lot, particles, rng, from_truth=False)
    power, log_weight = 0.0, np.zeros((len(lot.fails), particles))
    for i in range(sweeps):
        rise = START + (1 - START) * ((i + 1) / sweeps) ** 2 - power
        if i:
            log_weight += rise * sampler.fit.reshape(log_weight.shape)
            weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
            log_weight[sampler.resample(weight / weight.sum(axis=1, keepdims=True))] = 0
        power += rise
        if i % (sweeps // 10) == 0:
            sampler.jump(2000, power)
        sampler.sweep(power)
    return {f"from prior, {sweeps} sweeps": (sampler.run(range(sweeps // 2)), sampler.masks(1) > 0)}, sampler


def pixels(lot, called):
    """(3, n, K) pixels in both, called and true, of masks called (n, K, M)."""
    return np.stack([(mask * lot.pixels).sum(axis=2) for mask in (called & lot.truth, called, lot.truth)])


def score(counts, lots):
    """IoU with intervals, as the project judges a network; `counts` (3, N, K), `lots` (N,)."""
    split = np.full(len(lots), "test")
    return judge(Masks(np.arange(len(lots)), split, *counts.astype(np.int32), NAMES, CANVAS, "", "", "", lots))


def best(curves, lots):
    """Pixels (3, N, K) of the calls at the best threshold of each class, chosen on the other half of the lots."""
    odd = np.unique(lots, return_inverse=True)[1] % 2
    counts = np.empty(curves.shape[:3])
    for half in (0, 1):
        both, called, true = curves[:, odd != half].sum(axis=1)
        chosen = (both / np.maximum(called + true - both, 1)).argmax(axis=-1)
        there = np.flatnonzero(odd == half)
        counts[:, there] = curves[:, there][:, :, np.arange(len(NAMES)), chosen]
    return counts


def judged(means, draws, lots, where):
    """Scores and intervals of the best calls, and scores of single draws, on some of the wafers."""
    return *score(best(means[:, where], lots[where]), lots[where]), score(draws[:, where], lots[where])[0]


def measure(lot, rng, asked, means, draws, fits, rates):
    """Run both samplers on a lot and add what they find to the lists."""
    fits["truth"].append(Sampler(lot, 1, rng, from_truth=True).fit)
    for run, settings in ((chain, (asked.sweeps,)), (anneal, (asked.tempering, asked.particles))):
        found, sampler = run(lot, rng, *settings)
        for name, (mean, draw) in found.items():
            means[name].append(np.stack([pixels(lot, mean >= t) for t in THRESHOLDS], axis=-1))
            draws[name].append(pixels(lot, draw))
        fits[run.__name__].append(sampler.fit[:: sampler.particles])
        for key, pair in sampler.rates.items():
            rates[run.__name__, *key] += pair


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wafers", type=int, default=400)
    parser.add_argument("--per-lot", type=int, default=16, help="wafers of one grid")
    parser.add_argument("--sweeps", type=int, default=3200, help="of the chains that start at the truth")
    parser.add_argument("--particles", type=int, default=16)
    parser.add_argument("--tempering", type=int, default=150, help="sweeps from the prior to the posterior")
    parser.add_argument("--seed", type=int, default=0)
    asked, began = parser.parse_args(), perf_counter()
    source = Told(asked.wafers, "multilabel", seed=asked.seed, wafers_per_lot=asked.per_lot, lot_similarity=0.0)
    types = wafer_types("multilabel")
    counts = class_counts(dict.fromkeys(types, 1 / len(types)), asked.wafers)
    order = production_order(counts, asked.per_lot, np.random.default_rng([asked.seed, 0]))
    bits = np.array(list(types.values()), np.uint8)[order]
    means, draws, fits, lots, sizes = defaultdict(list), defaultdict(list), defaultdict(list), [], []
    rates = defaultdict(lambda: np.zeros(2))
    for number, first in enumerate(range(0, asked.wafers, asked.per_lot)):
        lot = source.make(number, bits[first : first + asked.per_lot])
        lots += [f"lot{number}"] * len(lot.fails)
        sizes.append(np.sqrt(np.prod(lot.grid.full)))
        measure(lot, np.random.default_rng([asked.seed, 7, number]), asked, means, draws, fits, rates)
        print(number, lot.grid.full, f"{perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    means, draws = ({name: np.concatenate(c, axis=1) for name, c in found.items()} for found in (means, draws))
    report(means, draws, {run: np.concatenate(fit) - np.concatenate(fits["truth"]) for run, fit in fits.items()}, lots)
    shown = ", ".join(f"{' '.join(key)} {done / tries:.3f}" for key, (done, tries) in sorted(rates.items()))
    print(f"\nShare of steps taken: {shown}.\n\nMedian side {np.median(sizes):.0f} dies, {len(sizes)} grids, ", end="")
    print(f"{asked.wafers} wafers, {perf_counter() - began:.0f} s")


def report(means, draws, gaps, lots):
    lots, alike = np.array(lots), gaps["anneal"] > -5
    columns = {name: judged(means[name], draws[name], lots, alike | True) for name in means}
    columns |= {f"{name}, where it fits": judged(means[name], draws[name], lots, alike) for name in list(means)[-2:]}
    print(f"| IoU of the best calls / of one draw | {' | '.join(columns)} |\n|{' --- |' * (1 + len(columns))}")
    for name, key in [*((name, f"iou/{name}") for name in NAMES), ("mean", "iou_macro")]:
        cells = [
            f"{s[key]:.3f} [{i[key][0]:.3f}, {i[key][1]:.3f}] / {d[key]:.3f}" if key in s and key in d else "-"
            for s, i, d in columns.values()
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\nLog likelihood less that of the truth; it fits where the particles lose less than 5:")
    for run in ("chain", "anneal"):
        quantiles = ", ".join(f"{q:.1f}" for q in np.quantile(gaps[run], [0.05, 0.25, 0.5, 0.75, 0.95]))
        print(f"{run}: mean {gaps[run].mean():.2f}, quantiles {quantiles}; {(gaps[run] > -5).mean():.0%} fit")


if __name__ == "__main__":
    main()
