"""The command line."""


def main() -> None:
    """Entry point of the wafer-lab command."""
    from wafer_lab.cli.app import main as run

    run()
