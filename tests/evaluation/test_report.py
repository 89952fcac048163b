import re
from pathlib import Path

import pytest

from wafer_lab.evaluation import report
from wafer_lab.evaluation.intervals import evaluate
from wafer_lab.evaluation.predictions import Predictions

FACTS = {
    "name": "resnet18_cbam",
    "command": "python train.py model=resnet18_cbam",
    "seed": 7,
    "monitor": "val/f1_macro",
    "best_epoch": 4,
    "best_score": 0.91234,
    "versions": {"torch": "2.15", "numpy": "2.3"},
    "git_revision": "abc1234-dirty",
}


@pytest.fixture(params=["multiclass_table", "multilabel_table"])
def table(request) -> Predictions:
    make = request.getfixturevalue(request.param)
    return Predictions.concat([make(rows=120, split="val"), make(rows=150, split="test", seed=1)])


def test_headline_is_aligned_plain_text(table) -> None:
    scores, intervals = evaluate(table, resamples=50)
    lines = report.headline(scores | {"test/auroc_macro": 0.5}, intervals)
    assert lines[0].split() == ["val", "test"]
    macro = next(line for line in lines if line.startswith("macro F1"))
    low, high = intervals["test/f1_macro"]
    assert macro.endswith(f"{scores['test/f1_macro']:.4f} [{low:.4f}, {high:.4f}]")
    assert macro.index(f"{scores['val/f1_macro']:.4f}") == lines[0].index("val")
    assert lines[-1].split() == ["macro", "AUROC", "0.5000"]


def test_report_has_the_numbers_the_figures_and_the_facts(table, tmp_path: Path) -> None:
    scores, intervals = evaluate(table, resamples=50)
    (tmp_path / "config.yaml").touch()
    history = [{"train/loss": 1.0, "val/loss": 1.0, "val/f1_macro": 0.5}]
    drawn = report.write_figures(tmp_path, table, scores, intervals, history)
    path = report.write_report(tmp_path, table, scores, intervals, FACTS)
    text = path.read_text()
    assert path == tmp_path / "report.md"
    for key in ("val/f1_macro", "test/f1_macro", "test/escape_rate", "test/recall/Donut", "val/f1/Loc"):
        if key in scores:
            low, high = intervals[key]
            assert f"{scores[key]:.4f} [{low:.4f}, {high:.4f}]" in text, key
    test = table.select(split="test")
    wafers = (test.target == 0).sum() if test.target.ndim == 1 else test.target[:, 0].sum()
    assert f"| Donut | {wafers} |" in text
    links = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert {tmp_path / link for link in links} == set(drawn)
    assert len(drawn) == 5
    for fact in ("abc1234-dirty", "torch 2.15, numpy 2.3", "5p117", "da7a", FACTS["command"], "(config.yaml)"):
        assert fact in text
    assert "best `val/f1_macro` (0.9123, epoch 4). The test wafers were used once" in text
    assert text.index("## Classes, test") < text.index("## Classes, val")


def test_without_matplotlib_the_report_says_so(table, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    scores, intervals = evaluate(table, resamples=20)
    assert report.write_figures(tmp_path, table, scores, intervals) == []
    text = report.write_report(tmp_path, table, scores, intervals, {}).read_text()
    assert "they need matplotlib" in text
    assert text.startswith(f"# {tmp_path.name}\n")


def test_names_cannot_break_the_tables(multiclass_table, tmp_path: Path) -> None:
    table = multiclass_table(names=("a|b", "c", "none"))
    scores, intervals = evaluate(table, resamples=20)
    text = report.write_report(tmp_path, table, scores, intervals, {"note": "x|y\nz"}).read_text()
    assert "| a\\|b |" in text
    assert "| note | x\\|y z |" in text
