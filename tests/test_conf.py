"""Every option of every group composes with every other, and passes validation or is refused with a reason.

Composing takes a tenth of a second and there are thousands of pairs of options, so each composition tests many:
it chooses one option of every group, and together they hold every pair at least once (a covering array). All
problems of a config are found at once, so one that is refused rightly hides no other.
"""

from itertools import combinations
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from wafer_lab.config.resolvers import register
from wafer_lab.config.validate import problems

CONF = Path(__file__).resolve().parents[1] / "conf"
ALONE = {"debug", "experiment"}  # they override other groups, so they are composed one by one
FIXED = {"hydra", "paths", "study"}  # study is of sweep.py: tests/config/test_study.py
REFUSED = (
    "targets, but data.target is", "trains one model after another", "waits for the gradients of layers",
    "is for wafer maps, but",
)  # fmt: skip


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


GROUPS = {folder.name: options(folder.name) for folder in sorted(CONF.iterdir()) if folder.is_dir()}
PAIRED = {group: names for group, names in GROUPS.items() if names and group not in ALONE | FIXED}


def covering(groups: dict[str, list[str]]) -> list[dict[str, str]]:
    """Choices of one option per group in which every pair of options of two groups occurs; greedy, repeatable."""
    names = sorted(groups, key=lambda group: (-len(groups[group]), group))
    left = {
        frozenset([(a, x), (b, y)]) for a, b in combinations(names, 2) for x in groups[a] for y in groups[b]
    }  # fmt: skip
    rows = []
    while left:
        row = dict(min(tuple(sorted(pair)) for pair in left))
        for group in names:
            if group not in row:
                gain = {
                    name: sum(frozenset([(group, name), chosen]) in left for chosen in row.items())
                    for name in groups[group]
                }
                row[group] = max(gain, key=lambda name: gain[name])
        left -= {frozenset(pair) for pair in combinations(row.items(), 2)}
        rows.append(row)
    return rows


def errors(overrides: list[str]) -> list[str]:
    """The errors of a composition; what a user must say of the data (path, classes) is filled in."""
    places = ["name=test", "paths.outputs=/tmp/x", "paths.run=/tmp/x/run"]
    cfg = compose("train", overrides=[*places, *overrides])
    if OmegaConf.is_missing(cfg.data, "path"):
        cfg.data.path = str(CONF)
    if OmegaConf.is_interpolation(cfg.data, "num_classes"):
        cfg.data.num_classes = 3
    if OmegaConf.is_missing(cfg.task, "teacher"):
        cfg.task.teacher = str(CONF)
    return [str(problem) for problem in problems(cfg) if problem.level == "error"]


@pytest.fixture
def composing():
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def test_the_rows_hold_every_pair():
    rows = covering(PAIRED)
    for (a, first), (b, second) in combinations(PAIRED.items(), 2):
        assert {(row[a], row[b]) for row in rows} == {(x, y) for x in first for y in second}


def test_every_pair_of_options_composes(composing):
    for row in covering(PAIRED):
        left = errors([f"{group}={name}" for group, name in row.items()])
        assert all(any(reason in problem for reason in REFUSED) for problem in left), (row, left)


@pytest.mark.parametrize(
    "choice", [f"{group}={name}" for group in sorted(ALONE & set(GROUPS)) for name in GROUPS[group]]
)
def test_every_option_that_overrides_others_composes(composing, choice):
    assert errors([choice]) == []


def test_a_loss_is_refused_only_where_it_says_so(composing):
    assert not errors(["data=simulated", "loss=focal"])
    assert not errors(["data=simulated_mixed", "loss=focal"])
    assert errors(["data=simulated_mixed", "loss=ldam"])


def test_every_option_says_what_it_is():
    for file in CONF.rglob("*.yaml"):
        lines = file.read_text().splitlines()
        assert lines[0].startswith("#"), f"{file} has no header"
