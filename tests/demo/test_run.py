"""The demo over a trained run: the same interface, torch behind it."""

import numpy as np
import pytest

from wafer_lab.demo.answer import answer
from wafer_lab.demo.examples import simulated_examples
from wafer_lab.demo.model import open_model


def test_a_run_a_checkpoint_and_an_export_answer_alike(tiny):
    from wafer_lab.evaluation.predictor.usual import Usual
    from wafer_lab.export.graph import WaferGraph
    from wafer_lab.workflows.checkpoint import load_task
    from wafer_lab.workflows.export import describe_run, drawing_of
    from wafer_lab.workflows.fit import fit

    run = fit(tiny("evaluation.coverage=0.8", "evaluation.resamples=100", "model.width=8")).run_dir
    whole, bare = open_model(run), open_model(run / "checkpoints" / "best.ckpt")
    assert bare.usual is None
    assert whole.usual is not None
    assert whole.usual.sets.coverage == 0.8
    states = simulated_examples("multiclass")["Center"]
    said = answer(whole, states)
    assert "80 %" in said.sets.promise
    assert sum(said.probabilities.values()) == pytest.approx(1)
    assert said.heat.shape == states.shape
    assert 0 <= said.heat.min() <= said.heat.max() <= 1
    assert "no coverage is promised" in answer(bare, states).sets.promise
    loaded = load_task(run)
    described = describe_run(run, loaded, WaferGraph(loaded.network, loaded.predictor, drawing_of(loaded)), {}, {})
    assert Usual.from_dict(described.record["usual"]) == whole.usual
    assert (
        "usual"
        not in describe_run(
            run, loaded, WaferGraph(loaded.network, loaded.predictor, drawing_of(loaded)), {}, {"pruned": 0.5}
        ).record
    )


def test_the_heat_points_where_the_network_looks(tiny):
    """With a head that asks one place only, the dies of that place are hot, whatever the shape of the map."""
    import torch
    from omegaconf import OmegaConf

    from wafer_lab.demo.run import RunJudge
    from wafer_lab.evaluation.predictor.predictor import Predictor
    from wafer_lab.models.classifier import Classifier
    from wafer_lab.models.encoder import Encoder
    from wafer_lab.workflows.checkpoint import Loaded

    class Corner(Encoder):
        num_features = 1

        def forward_features(self, x):
            mask = torch.zeros(16, 16)
            mask[:8, :4] = 1  # top left: half the rows, a quarter of the columns
            return x[:, 1:2] * mask

    head = torch.nn.Linear(1, 2)
    torch.nn.init.ones_(head.weight)
    config = OmegaConf.create({"data": {"_target_": "MapDataModule", "canvas": 16, "encoding": "one_hot"}})
    loaded = Loaded(Classifier(Corner(), head).eval(), config, {}, Predictor.plain(("a", "b"), "multiclass"))
    heat = RunJudge(loaded).activation(np.ones((30, 40), np.uint8))
    assert heat.shape == (2, 30, 40)
    assert (heat[0, :14, :9] > 0.9).all()
    assert (heat[0, 16:] < 0.1).all()
    assert (heat[0, :, 11:] < 0.1).all()


def test_models_that_draw_masks_have_no_heat():
    from omegaconf import OmegaConf
    from torch import nn

    from wafer_lab.demo.run import RunJudge
    from wafer_lab.evaluation.predictor.predictor import Predictor
    from wafer_lab.workflows.checkpoint import Loaded

    config = OmegaConf.create({"data": {"_target_": "MapDataModule", "canvas": 16, "encoding": "one_hot"}})
    judge = RunJudge(Loaded(nn.Identity(), config, {}, Predictor.plain(("a", "b"), "multilabel")))
    assert judge.activation(np.ones((8, 8), np.uint8)) is None
