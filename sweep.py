"""Search for the best values of a run's keys: python sweep.py study=lr_wd. See python sweep.py --help."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from wafer_lab.config.entry import user_errors


@hydra.main(version_base="1.3", config_path="conf", config_name="sweep")
@user_errors()
def main(cfg: DictConfig) -> None:
    """Check the composed config and run its study."""
    from wafer_lab.config.validate import validate

    validate(cfg)
    from wafer_lab.workflows.study.run import sweep

    sweep(cfg)


if __name__ == "__main__":
    with user_errors(Path(__file__).parent / "conf", "sweep"):
        main()
