"""The card of a zoo model: facts for programs as YAML front matter, and of them the page for people.

The facts are the only source, and the page is a function of them: `page(read(path))` is what the file holds.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from wafer_lab.errors import UserError
from wafer_lab.evaluation.tables import HEADLINE, table, with_interval
from wafer_lab.files import write_text

#: What every card says.
NEEDED = ("name", "file", "input", "classes", "predictor", "model", "data", "run", "scores", "agreement", "notes")

# By the name of the data: what a model of it is for, what it cannot do, and on what terms the data is to be had.
_USES = {
    "wm811k": "Naming the failure pattern of a wafer map of pass and fail dies, or none, and sorting maps for people.",
    "mixedwm38": "Naming all failure patterns of a wafer map of pass and fail dies, up to four at once.",
    "images": "Naming the defect class of an image from an electron microscope, and sorting images for people.",
}
_LIMITS = {
    "wm811k": """\
It knows nine classes: another pattern gets one of their names. Lots are unknown in the sample, so training and
test wafers may share lots. Wafers of other fabs and products may look otherwise.""",
    "mixedwm38": """\
It knows eight patterns: another one gets none of their names, or a wrong one. Part of the data was made by a
generative network, unmarked, and its Random and Near-full maps are WM-811K's.""",
    "images": """\
It was trained on some hundred images, many of them from papers: those of another microscope, magnification or
process may look otherwise. An image of any size is drawn on the canvas whole, so its aspect ratio is not kept,
and a defect of a few pixels gets lost in a large one.""",
}
_TERMS = {
    "wm811k": """\
WM-811K: (c) 2015 Jyh-Shing Roger Jang. Redistribution and use, with or without modification, are permitted
provided that this notice is kept and these are cited: M.-J. Wu, J.-S. R. Jang, J.-L. Chen, "Wafer Map Failure
Pattern Recognition and Similarity Ranking for Large-Scale Data Sets", IEEE Trans. Semiconductor Manufacturing
28(1), 2015; and MIR-WM811K: Dataset for wafer map failure pattern recognition, 2015.""",
    "mixedwm38": """\
MixedWM38: cite J. Wang, C. Xu, Z. Yang, J. Zhang, X. Li, "Deformable Convolutional Networks for Efficient Mixed-
Type Wafer Defect Pattern Recognition", IEEE Trans. Semiconductor Manufacturing 33(4), 2020.""",
    "images": """\
The images come from a public repository under the MIT licence, and many of those from papers. So take the model
for evaluation, and ask those who made the images before any other use. It holds none of them.""",
}
_UNKNOWN = "Nothing is known to wafer_lab of this data: see its publisher."


def page(facts: Mapping[str, Any]) -> str:
    """The whole card as Markdown."""
    front = yaml.safe_dump(dict(facts), sort_keys=False, allow_unicode=True, width=4096, default_flow_style=None)
    name, data, said = facts["name"], facts["data"], facts["agreement"]
    sections = [
        ["---", f"{front}---"],
        [f"# {name}"],
        ["```bash", f"wafer-lab predict zoo:{name} FILE --out labels.csv", "```"],
        [_model(facts)],
        ["## Scores"],
        [f"Of the run, on the {data['test']:,} test wafers of its split, each with its 95 % interval:"],
        scores(facts),
        [
            f"A weight of the file takes {facts['file']['weight_bits']} bits, and one of the run 32. Of "
            f"{said['wafers']:,} test wafers drawn at random,",
            f"the file names {said['same']:,} as the run does, and {said['right']:,} rightly.",
        ],
        [
            "## Intended use",
            "",
            f"{_USES.get(data['name'], 'As its classes say.')} No decision should hang on it alone.",
        ],
        ["## Limits", "", _LIMITS.get(data["name"], "It knows its classes only."), *_calibrated(facts)],
        ["## Licence", "", "The model: as the code, MIT.", "", _TERMS.get(data["name"], _UNKNOWN)],
        [line for note in facts["notes"] for line in (note, "")][:-1],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def scores(facts: Mapping[str, Any]) -> list[str]:
    """The table of scores: the headlines, then F1 by class."""
    rows = []
    for key, (value, *bounds) in facts["scores"].items():
        label = HEADLINE.get(key) or f"F1 of {key.partition('/')[2]}"
        rows.append([label, with_interval(value, (bounds[0], bounds[1]) if bounds else None)])
    return table(["score", "test"], rows)


def chosen_scores(metrics: Mapping[str, float]) -> dict[str, list[float]]:
    """Of a run's metrics.json, what a card tells: value, low and high by name."""
    names = [key for key in HEADLINE if f"test/{key}" in metrics]
    names += [key.removeprefix("test/") for key in metrics if re.fullmatch(r"test/f1/[^/]+", key)]
    found = {}
    for name in names:
        sides = [metrics.get(f"test/{name}/{side}") for side in ("low", "high")]
        found[name] = [round(float(value), 4) for value in (metrics[f"test/{name}"], *sides) if value is not None]
    return found


def recipe(command: str) -> str:
    """A training command without what is of its machine alone: folders, and where results went."""
    kept = []
    for word in shlex.split(command):
        if re.match(r"\+*(hydra|paths|tracking|figures|trainer\.accelerator)\b", word):
            continue
        key, equals, value = word.partition("=")
        kept.append(
            f"{key}={Path(value).name if value.startswith(('/', '~', '..')) else value}" if equals else Path(key).name
        )
    return shlex.join(kept)


def read(path: Path) -> dict[str, Any]:
    """The facts of a card.

    Raises:
        UserError: It is missing or damaged, or lacks some of what every card says.
    """
    try:
        front = path.read_text(encoding="utf-8").split("---\n", 2)[1]
        facts = yaml.safe_load(front)
        missing = [key for key in NEEDED if key not in facts]
    except (OSError, ValueError, IndexError, TypeError, yaml.YAMLError) as error:
        raise UserError(
            f"{path} is no card of a model ({error}); write it with wafer-lab export RUN --zoo NAME"
        ) from None
    if missing:
        raise UserError(f"{path} does not say {', '.join(missing)}; write it with wafer-lab export RUN --zoo NAME")
    return dict(facts)


def write(path: Path, facts: Mapping[str, Any]) -> None:
    """Write a card, and see that it says what it was made of.

    Raises:
        UserError: It cannot be written.
    """
    try:
        write_text(path, page(facts))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; free space or choose another folder") from None


def _model(facts: Mapping[str, Any]) -> str:
    taken, predictor, classes = facts["input"], facts["predictor"], facts["classes"]
    views = "" if predictor["tta"] == "none" else f", averaged over the views {predictor['tta']}"
    size = f"{facts['model']['parameters']:,} weights, {facts['file']['bytes'] / 1e6:.1f} MB"
    return (
        f"{size}. Takes {taken['kind']} of any size and draws them on a canvas of {taken['canvas']} pixels a side.\n"
        f"Classes: {', '.join(classes)}.\n"
        f"Decision: {predictor['decision']}; calibration: {predictor['calibration']}{views}."
    )


def _calibrated(facts: Mapping[str, Any]) -> list[str]:
    error = facts["scores"].get("ece")
    return (
        [f"Probabilities are calibrated for its own data (ECE {error[0]:.3f} on test), not for others."]
        if error
        else []
    )
