"""What is said of a study before its first trial, over the real configs."""

from pathlib import Path

import pytest

from wafer_lab.config.diagnose import CommandLine, diagnose
from wafer_lab.config.study import study_problems, trial_overrides

CONF = Path(__file__).resolve().parents[2] / "conf"
SMALL = ("data=simulated", "study=lr_wd")


def told(*overrides, multirun=False):
    line = CommandLine(CONF, "sweep", (*SMALL, *overrides), multirun)
    return [str(problem) for problem in (diagnose(line) or study_problems(line))]


def space(text):
    return f"+study.space={{{text}}}"


@pytest.mark.parametrize("study", sorted(file.stem for file in (CONF / "study").glob("*.yaml")))
def test_every_study_on_disk_can_be_run(study):
    assert told(f"study={study}") == []


def test_all_mistakes_of_a_space_are_one_list():
    number = "{type: float, low: 1.5, high: 2.5, when: {loss: focal}}"
    found = told(
        space(f"loss: [focl, focal], loss.gama: {number}, optimizer.lrr: {number}, trainer.max_epochs: {number}")
    )
    assert any("study.space.loss: " in one and "did you mean focal?" in one for one in found)
    for words in (
        "study.space.trainer.max_epochs: must be a whole number or null, not 2.5 (with loss=focal)",
        "study.space.loss.gama: loss has no gama; did you mean loss.gamma? (with loss=focal)",
        "study.space.optimizer.lrr: optimizer has no lrr; did you mean optimizer.lr? (with loss=focal)",
    ):
        assert words in found
    assert len(found) == 4, found


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ((space("trainer.max_epochs: [many, few]"),),
         ("study.space.trainer.max_epochs: must be a whole number or null, not 'many'",)),
        ((space("loss: [cross_entropy, ldam]"), "data=simulated_mixed"),
         ("study.space.loss: LDAMLoss serves multiclass targets",)),
        ((space("loss.gamma: {type: float, low: 1, high: 2, when: {loss: focal}}, seed: [1, 2], data.seed: [1, 2], "
                "augment: {type: float, low: 1, high: 2, when: {los: focal}}, paths.outputs: [a, b], "
                "optimizer.weight_decay: {low: 1}"), "optimizer.lr=0.1", "study.name='a/b'", "study.timeout=0",
          "study.n_trials=0", "study.storage='postgresql+psycopg://me:secret@host/db'", "workflow=unknown",
          "study.objectives=[{metric: test/f1_macro, direction: up}, {metric: val/f1_mcro, direction: max}, {a: a}]"),
         ("study.space.loss.gamma.when: loss is 'cross_entropy' in every trial, never 'focal'",
          "there is no los; did you mean loss?", "study.space.seed: cannot be sampled: luck is no setting",
          "study.space.data.seed: cannot be sampled", "study.space.augment: is a group of options; list some of",
          "study.space.paths.outputs: cannot be sampled", "weight_decay: low=1 must be less than high=0.1",
          "is sampled, but the command line sets optimizer.lr too", "study.name: names a folder",
          "study.timeout: must be greater than 0 seconds", "study.n_trials: must be at least 1, not 0", "PGPASSWORD",
          "a trial is workflow=fit or workflow=kfold", "use val/f1_macro", "must be max or min, not 'up'",
          "did you mean f1_macro?", "must be of the form", "only one objective can be pruned by")),
        (("study.objectives=[{metric: latency, direction: min}]", "study.storage=mysql://x", "study.sampler=grid"),
         ("latency is known only at the end of a trial", "must be sqlite:///<file> or postgresql+psycopg://",
          "study.space.optimizer.lr: a grid needs countable values")),
        (("study=loss", "study.sampler=cmaes", "study.pruner=wilcoxon", "study.seeds=4", "study.objectives=[]"),
         ("cmaes needs two or more numbers", "can tell nothing from 4 of them", "study.objectives: is empty")),
        (("study.sampler=tp", "study.prunner=median", "study.space.optimizer.lr.low=1"),
         ("study has no prunner; did you mean study.pruner=median?", "did you mean tpe?",
          "optimizer.lr is one name; write '+study.space={optimizer.lr: {low: 1}}'")),
        (("study=lr", "study.space={optimizer.lr: [0.1, 0.2]}"), ("study has no option lr; options: loss, lr_wd",)),
        (("study.space={optimizer.lr: [0.1, 0.2]}",), ("puts a list in the place of key: value pairs",)),
    ],
)  # fmt: skip
def test_mistakes(overrides, says):
    found = told(*overrides)
    for words in says:
        assert any(words in one for one in found), (words, found)
    assert not any("secret" in one for one in found)


def test_a_fixed_group_may_be_a_condition_that_holds():
    assert told("loss=focal", space("loss.gamma: {type: float, low: 1, high: 2, when: {loss: focal}}")) == []


def test_wilcoxon_counts_folds():
    assert told("study.pruner=wilcoxon", "workflow=kfold") == []  # five folds


def test_multirun_belongs_to_train():
    assert told(multirun=True) == ["--multirun: belongs to train.py; sweep.py runs one study, so leave it out"]


def test_what_a_trial_takes_of_the_command_line():
    line = [
        "model=a",
        "study=loss",
        "+study.space={a: 1}",
        "~study.space",
        "hydra/launcher=x",
        "hydra.run.dir=y",
        "seed=1",
    ]
    assert trial_overrides(line) == ["model=a", "seed=1"]
