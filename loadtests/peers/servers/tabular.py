"""The 30 named numbers of one row, with the ranges of models/breast-cancer/1/model.yaml, and the answer to it."""

from pydantic import BaseModel, Field

LABELS = ["malignant", "benign"]


class Row(BaseModel):
    """One tumour, the columns in the order of the model's input."""

    mean_radius: float = Field(ge=0, le=60)
    mean_texture: float = Field(ge=0, le=80)
    mean_perimeter: float = Field(ge=0, le=400)
    mean_area: float = Field(ge=0, le=6000)
    mean_smoothness: float = Field(ge=0, le=0.4)
    mean_compactness: float = Field(ge=0, le=0.7)
    mean_concavity: float = Field(ge=0, le=0.9)
    mean_concave_points: float = Field(ge=0, le=0.5)
    mean_symmetry: float = Field(ge=0, le=0.7)
    mean_fractal_dimension: float = Field(ge=0, le=0.2)
    radius_error: float = Field(ge=0, le=6)
    texture_error: float = Field(ge=0, le=10)
    perimeter_error: float = Field(ge=0, le=50)
    area_error: float = Field(ge=0, le=2000)
    smoothness_error: float = Field(ge=0, le=0.07)
    compactness_error: float = Field(ge=0, le=0.3)
    concavity_error: float = Field(ge=0, le=0.8)
    concave_points_error: float = Field(ge=0, le=0.2)
    symmetry_error: float = Field(ge=0, le=0.2)
    fractal_dimension_error: float = Field(ge=0, le=0.06)
    worst_radius: float = Field(ge=0, le=80)
    worst_texture: float = Field(ge=0, le=100)
    worst_perimeter: float = Field(ge=0, le=600)
    worst_area: float = Field(ge=0, le=9000)
    worst_smoothness: float = Field(ge=0, le=0.5)
    worst_compactness: float = Field(ge=0, le=3)
    worst_concavity: float = Field(ge=0, le=3)
    worst_concave_points: float = Field(ge=0, le=0.6)
    worst_symmetry: float = Field(ge=0, le=2)
    worst_fractal_dimension: float = Field(ge=0, le=0.5)

    def values(self) -> list[float]:
        return list(self.__dict__.values())


class Prediction(BaseModel):
    label: str
    probabilities: dict[str, float]


def prediction(label: int, probabilities: dict[int, float]) -> dict:
    """What ONNX Runtime gives for a row, by the names of the labels."""
    return {"label": LABELS[label], "probabilities": {LABELS[i]: p for i, p in probabilities.items()}}
