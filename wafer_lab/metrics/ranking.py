"""AUROC and average precision of one class against the rest, for many weightings of the wafers at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.intp]
Counts = NDArray[Any]


@dataclass(frozen=True)
class Blocks:
    """Where some wafers, the members, stand in an order; wafers of equal probability form a block.

    Attributes:
        members: (P,) places of the members.
        last: (B,) the last member, as an index into `members`, of each of the B blocks that hold one.
        ends: (B,) the place where that block ends.
        before: (B,) the place just before that block; -1 for the top.
    """

    members: Places
    last: Places
    ends: Places
    before: Places

    @classmethod
    def of(cls, member: NDArray[np.bool_], block_ends: Places) -> "Blocks":
        """Find them from (N,) bool in the order and the place where every block ends."""
        members = np.flatnonzero(member)
        blocks, sizes = np.unique(np.searchsorted(block_ends, members), return_counts=True)
        return cls(members, np.cumsum(sizes) - 1, block_ends[blocks], np.r_[-1, block_ends][blocks])

    def count(self, drawn: Counts, ranked: Counts) -> tuple[Counts, Counts, Counts]:
        """Weights (R, B) of the members in a block, of those down to its end, and of all wafers down to its end."""
        gained = np.take(drawn, self.members, axis=1)
        found = np.cumsum(gained, axis=1, dtype=ranked.dtype)
        if len(self.last) < len(self.members):
            found = np.take(found, self.last, axis=1)
            gained = np.diff(found, axis=1, prepend=0)
        return gained, found, np.take(ranked, self.ends, axis=1)

    def others_above(self, drawn: Counts, ranked: Counts) -> NDArray[np.float64]:
        """Pairs (R,) of a member and another wafer above it, half for the same block."""
        gained, found, reached = self.count(drawn, ranked)
        above = reached - found
        if (self.ends - self.before > 1).any():
            start = np.where(self.before < 0, 0, np.take(ranked, self.before, axis=1))
            above = (above + start - (found - gained)) / 2
        return np.asarray(np.einsum("rb,rb->r", gained.astype(np.float64), above.astype(np.float64)))


@dataclass(frozen=True)
class Ranking:
    """The wafers in falling order of one class's probability, with what the two scores need of that order.

    The order ends with the last block that holds a positive: negatives behind it count in their number alone.

    Attributes:
        rows: (M,) column of the weights that each wafer takes its weight from.
        positives: where the wafers of the class stand.
        negatives: where the others stand, if they are fewer; None otherwise. AUROC counts pairs of a positive and a
            negative, from whichever side is shorter.
    """

    rows: Places
    positives: Blocks
    negatives: Blocks | None

    @classmethod
    def of(cls, scores: NDArray[Any], positive: NDArray[np.bool_], rows: Places) -> "Ranking":
        """Sort wafers.

        Args:
            scores: (N,) the probability of the class.
            positive: (N,) bool, True for wafers of the class; at least one.
            rows: (N,) column of the weights that each wafer takes its weight from: its own, or its lot's.
        """
        order = np.argsort(-scores, kind="stable")
        falling, positive = scores[order], positive[order]
        block_ends = np.flatnonzero(np.r_[falling[1:] != falling[:-1], True])
        positives = Blocks.of(positive, block_ends)
        used = positives.ends[-1] + 1
        fewer = positive.sum() > len(positive) / 2
        return cls(rows[order[:used]], positives, Blocks.of(~positive[:used], block_ends) if fewer else None)

    def scores(
        self, weights: NDArray[np.uint8], total: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """AUROC and average precision under each weighting; equal probabilities count as scikit-learn counts them.

        AUROC is the chance that a positive outranks a negative, half for a tie. Average precision is the mean over
        positives of the precision among all wafers of at least their probability, without interpolation.

        Args:
            weights: (R, groups) how often each wafer, or each wafer of a lot, counts.
            total: (R,) the weight of all N wafers.

        Returns:
            Two arrays (R,); nan where no weight is left on the positives, or for AUROC on the negatives.
        """
        drawn = np.take(weights, self.rows, axis=1)
        ranked = np.cumsum(drawn, axis=1, dtype=np.int32)
        gained, found, reached = self.positives.count(drawn, ranked)
        positive = found[:, -1].astype(np.float64)
        negative = total - positive
        precision = found / np.maximum(reached, 1)
        precision *= gained
        if self.negatives is None:
            won = positive * negative - self.positives.others_above(drawn, ranked)
        else:
            behind = total - ranked[:, -1]
            won = self.negatives.others_above(drawn, ranked) + behind * positive
        with np.errstate(invalid="ignore", divide="ignore"):
            return won / (positive * negative), precision.sum(axis=1) / positive


def ranking_scores(scores: NDArray[Any], positive: NDArray[np.bool_]) -> tuple[float, float]:
    """AUROC and average precision of N wafers, each counting once; see `Ranking.scores`.

    Args:
        scores: (N,) higher for positives.
        positive: (N,) bool, some True and some False.
    """
    wafers = len(positive)
    ranking = Ranking.of(scores, positive, np.arange(wafers))
    auroc, precision = ranking.scores(np.ones((1, wafers), dtype=np.uint8), np.array([wafers]))
    return float(auroc[0]), float(precision[0])
