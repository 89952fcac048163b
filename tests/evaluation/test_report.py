import base64
import csv
import re
from pathlib import Path

import numpy as np
import pytest

from wafer_lab.evaluation import drawings, html, report
from wafer_lab.evaluation.judgement import Judgement, judge_predictions
from wafer_lab.evaluation.settings import Evaluation

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
HISTORY = [{"train/loss": 1.0, "val/loss": 1.0, "val/f1_macro": 0.5}]


@pytest.fixture(scope="module", params=["multiclass", "multilabel"])
def judgement(request, judged_table) -> Judgement:
    names = ("Donut", "Loc", "none") if request.param == "multiclass" else ("Donut", "Loc", "Scratch")
    table = judged_table(names=names, target_kind=request.param, rows=600, views=4)
    return judge_predictions(table, Evaluation(tta="d2", decision="f1", resamples=100))


def picture(row: int) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 3, (20, 24), dtype=np.uint8)


def test_headline_is_aligned_plain_text(judgement) -> None:
    lines = report.headline(judgement.scores, judgement.intervals)
    assert lines[0].split() == ["val", "test"]
    macro = next(line for line in lines if line.startswith("macro F1"))
    low, high = judgement.intervals["test/f1_macro"]
    assert macro.endswith(f"{judgement.scores['test/f1_macro']:.4f} [{low:.4f}, {high:.4f}]")
    assert macro.index(f"{judgement.scores['val/f1_macro']:.4f}") == lines[0].index("val")


def test_report_has_the_numbers_the_figures_and_the_facts(judgement, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    drawn = drawings.write_figures(tmp_path, judgement, HISTORY, picture=picture)
    path = report.write_report(tmp_path, judgement, FACTS)
    text = path.read_text()
    assert path == tmp_path / "report.md"
    for key in ("val/f1_macro", "test/f1_macro", "test/escape_rate", "test/recall/Donut", "val/f1/Loc", "test/ece"):
        low, high = judgement.intervals[key]
        assert f"{judgement.scores[key]:.4f} [{low:.4f}, {high:.4f}]" in text, key
    target = judgement.test.wafers.target
    count = (target == 0).sum() if target.ndim == 1 else target[:, 0].sum()
    assert f"| Donut | {count} |" in text
    links = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert {tmp_path / link for link in links} == set(drawn)
    labels = {"spurious_labels", "exact_match_by_count", "type_table"}
    stems = {file.stem.removesuffix("_test").removesuffix("_val") for file in drawn}
    masks = {"masks", "masks_iou"}  # of a model that draws masks: see test_masks.py
    assert stems == set(drawings.CAPTIONS) - masks - (labels if target.ndim == 1 else set())
    for fact in ("abc1234-dirty", "torch 2.15, numpy 2.3", FACTS["command"], "(config.yaml)"):
        assert fact in text
    assert "best `val/f1_macro` (0.9123, epoch 4). The val scores are out of fold" in text
    assert text.index("## Classes, test") < text.index("## Classes, val")
    assert "bootstrap over whole lots" in text
    thresholds = judgement.predictor.decision.values
    assert f"| {thresholds[0]:.4g} |" in text


def test_every_alternative_is_in_the_table_and_the_csv(judgement, tmp_path: Path) -> None:
    text = report.write_report(tmp_path, judgement, FACTS).read_text()
    with (tmp_path / "rules.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["predictor"] for row in rows] == [step.name for step in judgement.steps]
    assert text.count("(in use)") == 1
    for row, step in zip(rows, judgement.steps, strict=True):
        assert float(row["f1_macro"]) == pytest.approx(step.judged.scores["f1_macro"], rel=1e-5)
        assert float(row["cost_low"]) <= float(row["cost"]) <= float(row["cost_high"])
        assert f"| {drawings.step_name(judgement, step)} |" in text


def test_without_matplotlib_the_report_says_so(judgement, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(drawings, "find_spec", lambda name: None)
    assert drawings.write_figures(tmp_path, judgement) == []
    text = report.write_report(tmp_path, judgement, {}).read_text()
    assert "matplotlib is not installed" in text
    assert text.startswith(f"# {tmp_path.name}\n")


def test_names_cannot_break_the_tables(judged_table, tmp_path: Path) -> None:
    table = judged_table(names=("a|b", "<b>c</b>", "none"), rows=300, views=1)
    judgement = judge_predictions(table, Evaluation(resamples=100), alternatives=False)
    path = report.write_report(tmp_path, judgement, {"note": "x|y\nz"})
    assert "| a\\|b |" in path.read_text()
    assert "| note | x\\|y z |" in path.read_text()
    page = html.write_html(path).read_text()
    assert "a|b" in page
    assert "<b>" not in page


def test_the_html_is_one_file_without_script(judgement, tmp_path: Path) -> None:
    drawn = drawings.write_figures(tmp_path, judgement, HISTORY)
    page = html.write_html(report.write_report(tmp_path, judgement, FACTS))
    text = page.read_text()
    assert page == tmp_path / "report.html"
    assert text.count("<img") == len(drawn)
    inside = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', text)]
    assert sorted(inside) == sorted(file.read_bytes() for file in drawn)
    assert not re.search(r"<script|https?://", text)
    assert text.count("<table>") >= 5


def test_pictures_outside_the_folder_are_not_taken_in(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "run").mkdir()
    report_file = tmp_path / "run" / "report.md"
    report_file.write_text("# x\n\n![x](../secret.png)\n")
    assert "base64" not in html.write_html(report_file).read_text()


def test_without_markdown_it_there_is_no_html(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(html, "find_spec", lambda name: None)
    (tmp_path / "report.md").write_text("# x\n")
    assert html.write_html(tmp_path / "report.md") == tmp_path / "report.md"
    assert not (tmp_path / "report.html").exists()
