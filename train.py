"""Train and judge one model: python train.py model=resnet18_cbam loss=focal. See python train.py --help."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from wafer_lab.config.entry import user_errors


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@user_errors()
def main(cfg: DictConfig) -> float | None:
    """Check the composed config, run its workflow, and return the monitored value."""
    from wafer_lab.config.validate import validate

    validate(cfg)
    from wafer_lab.workflows import run

    return run(cfg)


if __name__ == "__main__":
    with user_errors(Path(__file__).parent / "conf"):
        main()
