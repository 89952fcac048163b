"""The wafer-lab command."""

import typer

from wafer_lab.cli import compare, data, demo, evaluate, explain, export, predict

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Prepare wafer data and use trained models. Training is python train.py.",
)
app.add_typer(data.app, name="data")
app.command()(evaluate.evaluate)
app.command()(explain.explain)
app.command()(compare.compare)
app.command()(export.export)
app.command()(predict.predict)
app.command()(demo.demo)


def main() -> None:
    """Run the command; a user's mistake is one message and exit status 2."""
    from wafer_lab.config.entry import user_errors
    from wafer_lab.config.resolvers import register

    register()
    with user_errors():
        app()
