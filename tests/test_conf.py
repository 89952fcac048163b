"""Every option of every group composes with every other, and passes validation or is refused with a reason."""

from itertools import combinations
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from wafer_lab.config.resolvers import register
from wafer_lab.config.validate import problems

CONF = Path(__file__).resolve().parents[1] / "conf"
GROUPS = ["data", "model", "loss", "imbalance", "augment", "optimizer", "scheduler", "callbacks", "trainer"]
REFUSED = "targets, but data.target is"


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def found(overrides: list[str]) -> list[str]:
    known = ["name=test", "paths.outputs=/tmp/x", "paths.run=/tmp/x/run", *overrides]
    if {"data=wm811k", "data=mixedwm38", "data=sem"} & set(overrides):
        known.append("data.path=somewhere")
    if "data=sem" in overrides:
        known.append("data.num_classes=3")
    return [str(problem) for problem in problems(compose("train", overrides=known)) if problem.level == "error"]


@pytest.mark.parametrize(("first", "second"), list(combinations(GROUPS, 2)))
def test_every_pair_of_options_composes(first, second):
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for one in options(first):
            for other in options(second):
                left = found([f"{first}={one}", f"{second}={other}"])
                assert all(REFUSED in problem for problem in left), (one, other, left)


def test_a_loss_is_refused_only_where_it_says_so():
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert not found(["data=simulated", "loss=focal"])
        assert not found(["data=simulated_mixed", "loss=focal"])
        assert found(["data=simulated_mixed", "loss=ldam"])


def test_every_option_says_what_it_is():
    for file in CONF.rglob("*.yaml"):
        lines = file.read_text().splitlines()
        assert lines[0].startswith("#"), f"{file} has no header"
