"""Label counts -> sampler weights, class weights or a log prior: pure functions on numpy arrays."""

from wafer_lab.imbalance.strategy import (
    Imbalance,
    balanced_weights,
    class_counts,
    effective_number_pos_weight,
    effective_number_weights,
    log_prior,
    pos_weight,
    sample_weights,
)

__all__ = [
    "Imbalance",
    "balanced_weights",
    "class_counts",
    "effective_number_pos_weight",
    "effective_number_weights",
    "log_prior",
    "pos_weight",
    "sample_weights",
]
