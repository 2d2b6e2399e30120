"""Any ONNX model behind MLServer: a custom runtime that decodes tensors by MLServer's own codecs."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from session import open_session


class OnnxModel(MLModel):
    async def load(self) -> bool:
        self.session = open_session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensors = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        answers = zip(self.session.get_outputs(), self.session.run(None, tensors))
        outputs = [NumpyCodec.encode_output(output.name, dense(answer)) for output, answer in answers]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def dense(answer: np.ndarray | list[dict]) -> np.ndarray:
    """Probabilities by class as a tensor: some exporters write them as a sequence of maps."""
    return answer if isinstance(answer, np.ndarray) else np.array([list(row.values()) for row in answer], np.float32)
