"""Wafer maps made on the spot: real die grids, eight defect processes, and the true region of each."""

from wafer_lab.data.simulator.frequencies import COMBINATIONS
from wafer_lab.data.simulator.simulator import Simulator

__all__ = ["COMBINATIONS", "Simulator"]
