"""An exported file as an MLflow model of two flavours: `onnx`, the graph, and `python_function`, the whole predictor.

`mlflow models serve` answers with the second: maps of any sizes in, a class with its probabilities out.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wafer_lab.export.predictor import WaferModel

if TYPE_CHECKING:
    import pandas as pd

#: The column of wafers: lists of rows.
COLUMN = "wafer"


def save_model(path: str, mlflow_model: Any, file: Path, **unused: Any) -> None:
    """Write an MLflow model; what `mlflow.models.Model.log` calls.

    Args:
        path: Folder to write to.
        mlflow_model: What is known of the model already.
        file: The .onnx file that `wafer-lab export` wrote.
        **unused: What MLflow passes to every flavour.
    """
    import mlflow.onnx
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    names = WaferModel(file).class_names
    shares = [ColSpec(DataType.double, f"p_{name}", required=False) for name in names]
    said = [ColSpec(DataType.string, name, required=False) for name in ("prediction", "error")]
    signature = ModelSignature(Schema([ColSpec(Array(Array(DataType.long)), COLUMN)]), Schema([*said, *shares]))
    mlflow.onnx.save_model(
        onnx.load(file),
        path,
        mlflow_model=mlflow_model,
        signature=signature,
        pip_requirements=["wafer-lab", "numpy", "onnxruntime", "onnx"],
        save_as_external_data=False,
    )
    mlflow_model.flavors["python_function"]["loader_module"] = __name__
    mlflow_model.save(str(Path(path) / "MLmodel"))


def _load_pyfunc(path: str) -> "Served":
    """What MLflow calls to load the flavour `python_function`."""
    return Served(WaferModel(path))


class Served:
    """A model behind MLflow's REST server.

    Args:
        model: Judges.
    """

    def __init__(self, model: WaferModel) -> None:
        self.model = model

    def predict(self, data: "pd.DataFrame", params: Any = None) -> "pd.DataFrame":
        """Judge a table of wafers.

        Args:
            data: With a column `wafer` of maps or grey images, each a list of rows.
            params: Nothing is taken.

        Returns:
            `prediction`, `p_<class>` for every class, and `error`; of a wafer that could not be judged, only the last.
        """
        import pandas as pd

        wafers = [_array(wafer, self.model.kind) for wafer in data[COLUMN]]
        answers = self.model(wafers)
        columns: dict[str, list[Any]] = {"prediction": [answer.prediction or None for answer in answers]}
        for k, name in enumerate(self.model.class_names):
            columns[f"p_{name}"] = [None if said.error else float(said.probabilities[k]) for said in answers]
        columns["error"] = [answer.error or None for answer in answers]
        return pd.DataFrame(columns, dtype=object)  # which keeps None, where pandas would write NaN


def _array(rows: Any, kind: str) -> Any:
    """A list of rows as an array; of rows of unequal lengths, one that is refused as no wafer."""
    try:
        array = np.array([np.asarray(row) for row in rows])
    except ValueError:
        return np.empty(0)
    grey = kind == "images" and array.dtype.kind in "iu" and array.size and 0 <= array.min() <= array.max() <= 255
    return array.astype(np.uint8) if grey else array
