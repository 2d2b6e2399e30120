"""ONNX Runtime as every peer opens it: the model that the driver names, on so many threads."""

import os

import onnxruntime


def open_session(threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(os.environ["PEERS_MODEL"], options, providers=["CPUExecutionProvider"])
