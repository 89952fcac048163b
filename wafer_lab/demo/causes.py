"""What wafer-map patterns usually point to, as publications say: public knowledge, to illustrate, not a diagnosis.

Only what a publication says stands here. Where none is known that names a cause, the entry says so.
"""

from typing import NamedTuple


class Cause(NamedTuple):
    """What is said of one pattern.

    Attributes:
        text: A sentence.
        sources: Keys of `SOURCES`.
    """

    text: str
    sources: tuple[str, ...]


SOURCES = {
    "Wu 2015": "M.-J. Wu, J.-S. R. Jang, J.-L. Chen, Wafer map failure pattern recognition and similarity ranking for "
    "large-scale data sets, IEEE Transactions on Semiconductor Manufacturing 28(1), 2015",
    "Wang 2006": "C.-H. Wang, W. Kuo, H. Bensmail, Detection and classification of defect patterns on semiconductor "
    "wafers, IIE Transactions 38(12), 2006",
    "Yuan 2011": "T. Yuan, W. Kuo, S. J. Bae, Detection of spatial defect patterns generated in semiconductor "
    "fabrication processes, IEEE Transactions on Semiconductor Manufacturing 24(3), 2011",
    "Hansen 1997": "M. H. Hansen, V. N. Nair, D. J. Friedman, Monitoring wafer map data from integrated circuit "
    "fabrication processes for spatially clustered defects, Technometrics 39(3), 1997",
}

_CLUSTER = (
    "Failing dies that cluster have an assignable cause more often than scattered ones: one tool or one step, such as "
    "particles from equipment or a stain of chemicals"
)
_UNNAMED = "No cause that we can give a source for; the pattern is one that the data set's authors describe."

CAUSES = {
    "Center": Cause("Deposition of thin films that is uneven at the middle of the wafer.", ("Wang 2006",)),
    "Donut": Cause(_UNNAMED, ("Wu 2015",)),
    "Edge-Loc": Cause(f"{_CLUSTER}; here, at the rim.", ("Hansen 1997", "Yuan 2011")),
    "Edge-Ring": Cause("Etching that acts differently at the rim.", ("Wang 2006",)),
    "Loc": Cause(f"{_CLUSTER}.", ("Hansen 1997", "Yuan 2011")),
    "Near-full": Cause(_UNNAMED, ("Wu 2015",)),
    "Random": Cause(
        "Scattered failures have no single assignable cause; particles in the clean room are an example.",
        ("Yuan 2011",),
    ),
    "Scratch": Cause("Handling: a machine touched the wafer.", ("Wang 2006",)),
}


def cause_of(name: str) -> Cause | None:
    """What is said of a class, in any case; None of classes that are no such pattern."""
    return next((cause for known, cause in CAUSES.items() if known.lower() == name.lower()), None)
