"""What each part of the fab style is worth on real wafers: python benchmarks/simulator_steps.py LSWMD.pkl FOLDER.

From the textbook's wafers to the fab's, one part after the other. Every step trains the same small network on
wafers of its own and is judged on the real wafers that nothing was tuned on; nothing is chosen. FOLDER keeps the runs;
those that are finished are kept.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from hydra import compose, initialize_config_dir
from measuring import REPOSITORY, machine, table
from simulated_to_real import judged, parts_of

from wafer_lab.config.resolvers import register
from wafer_lab.data.simulator import fab, fab_patterns
from wafer_lab.data.simulator.styles import STYLES
from wafer_lab.workflows.fit import fit

# What a step adds to the one before, by its name.
STEPS = {
    "textbook": {},
    "grids": {"draw_shape": fab.draw_shape},
    "backgrounds": {"survival": fab.survival},
    "clumps": {"chance": fab.chance},
    "patterns": {"patterns": fab_patterns.PATTERNS, "num_traits": fab_patterns.NUM_TRAITS},
    "traces": {"leave_traces": fab.leave_traces},
}
SHOWN = ("none", "Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Near-full", "Random", "Scratch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("real", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wafers", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=9)
    options = parser.parse_args()
    register()
    parts, style, rows = parts_of(options.real, str(options.folder / "cache")), STYLES["textbook"], []
    runs = [("textbook", "simulated", "the textbook's, as often as the default has each class")]
    for name, changes in STEPS.items():
        STYLES[name] = style = replace(style, **changes)
        runs.append((name, "simulated_fab", name if changes else "rare and difficult classes more often"))
    for name, data, added in runs:
        run = options.folder / f"{data}_{name}"
        if not (run / "metrics.json").exists():
            overrides = [
                "experiment=simulated_to_real", f"data={data}", f"++data.source.style={name}",
                f"data.source.num_wafers={options.wafers}", f"data.external={options.real.absolute()}",
                "model=wafer_cnn", "data.canvas=32", "callbacks=ema", "callbacks.ema.decay=0.99",
                "callbacks.early_stopping=null", f"trainer.max_epochs={options.epochs}", "tracking=none",
                "figures=false", f"paths.outputs={options.folder}", f"paths.run={run}", "name=step",
            ]  # fmt: skip
            with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
                fit(compose("train", overrides=overrides))
        scores, intervals = judged(run, parts["test"])
        low, high = intervals["f1_macro"]
        rows.append(
            (added, f"{scores['f1_macro']:.3f} [{low:.3f}, {high:.3f}]", *(f"{scores[f'f1/{c}']:.2f}" for c in SHOWN))
        )
        print(table(("added", "macro F1", *SHOWN), rows), flush=True)
    print(machine())


if __name__ == "__main__":
    main()
