"""`wafer-lab data audit` as a user meets it: exit status, report, JSON."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from wafer_lab.cli.data import app
from wafer_lab.errors import UserError


def picture(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(np.kron(rng.integers(30, 220, (12, 12)), np.ones((5, 5))).astype(np.uint8))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WAFER_LAB_OUTPUTS", str(tmp_path / "outputs"))
    for part in ("train", "test"):
        for i, name in enumerate(("open", "bridge")):
            place = tmp_path / "sem" / part / name
            place.mkdir(parents=True)
            for k in range(2):
                picture(100 * (part == "test") + 10 * i + k).save(place / f"{part}_{name}{k}.png")
    return tmp_path / "sem"


def audit(*arguments):
    return CliRunner().invoke(app, ["audit", *map(str, arguments), "--upright"])


def test_a_clean_split_passes(folder, tmp_path):
    result = audit(folder)
    assert result.exit_code == 0
    assert "no leak" in result.stdout
    assert "looking for near duplicates in sem" in result.stderr
    page = (tmp_path / "outputs/audit/sem/report.html").read_text()
    for said in ("correlation of 0.95", "data.group=near_duplicates", "need not be a labelling error"):
        assert said in page
    assert json.loads((tmp_path / "outputs/audit/sem/audit.json").read_text())["leaks"] == {"exact": {}, "near": {}}


def test_a_leak_fails_and_is_shown(folder, tmp_path):
    picture(0).point(lambda level: level * 0.8 + 20).save(folder / "test" / "bridge" / "<i>&.png")
    result = audit(folder, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "LEAK across the split: 1 near duplicates of test stand in train" in result.stdout
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    (pair,) = found["pairs"]
    assert (pair["kind"], pair["leak"], pair["label_conflict"]) == ("near", True, True)
    assert [pair["first"]["path"], pair["second"]["path"]] == ["train/open/train_open0.png", "test/bridge/<i>&.png"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Twins on two sides of the split" in page
    assert "test/bridge/&lt;i&gt;&amp;.png (test)" in page
    assert page.count("data:image/png;base64,") == 2
    assert "<script" not in page


def test_two_sets_are_compared_without_failing(folder, tmp_path):
    result = audit(folder / "train", "--against", folder, "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "against sem: 4 images have a twin there" in result.stdout
    found = json.loads((tmp_path / "out" / "audit.json").read_text())["against"]
    assert (found["exact"], found["near"], found["label_conflicts"]) == (4, 0, 0)
    assert found["classes"] == {"bridge / bridge": 2, "open / open": 2}


def test_mistakes_are_told(tmp_path, folder):
    for arguments in ([tmp_path / "nowhere"], [folder, "--against", tmp_path / "nowhere"]):
        assert isinstance(audit(*arguments).exception, UserError)
    (tmp_path / "file").write_text("")
    assert "cannot write" in str(audit(folder, "--out", tmp_path / "file").exception)


def test_a_run_is_judged_by_its_own_split(tmp_path, configured, monkeypatch):
    """Copies that a random split cannot know of, because one die differs."""
    from omegaconf import OmegaConf

    monkeypatch.setenv("WAFER_LAB_OUTPUTS", str(tmp_path / "outputs"))
    for name, seeds in (("a", range(10)), ("b", range(10, 20))):
        (tmp_path / "images" / name).mkdir(parents=True)
        for seed in seeds:
            picture(seed).save(tmp_path / "images" / name / f"{seed}.png")
            picture(seed).point(lambda level: level * 0.8 + 20).save(tmp_path / "images" / name / f"{seed}_again.png")
    for group, status in (("exact", 1), ("near_duplicates", 0)):
        config = configured("data=sem", f"data.path={tmp_path}/images", f"data.group={group}", "data.canvas=16")
        run = tmp_path / group
        run.mkdir()
        OmegaConf.save(OmegaConf.create(OmegaConf.to_container(config, resolve=True)), run / "config.yaml")
        assert audit(run).exit_code == status
