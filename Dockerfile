# syntax=docker/dockerfile:1
# The images of the gateway: `cpu` (the last stage, so the default) and `cuda`. Where no engine runs, tools/image.py builds the first.
#
#   docker build --build-arg REVISION=$(git rev-parse HEAD) --tag sluicegate:0.1.0 .
#   docker build --build-arg REVISION=$(git rev-parse HEAD) --target cuda --tag sluicegate:0.1.0-cuda .
#
# For a release pin the bases by digest (--build-arg RUST=rust:…@sha256:…), and attest with --sbom=true --provenance=true.

ARG RUST=rust:1.95-bookworm
ARG PYTHON=python:3.12-slim-bookworm
ARG BASE=gcr.io/distroless/cc-debian12:nonroot
ARG CUDA_BASE=debian:bookworm-slim

FROM ${RUST} AS build
ARG REVISION=unknown
WORKDIR /src
COPY . .
# The commit is told, for .git is not in the context.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    SLUICEGATE_COMMIT=$(printf %.12s "${REVISION}") \
    cargo build --release --locked --package sluicegate-server --features candle \
    && strip -o /sluicegate target/release/sluicegate

# ONNX Runtime, out of the wheel that tools/onnxruntime.txt pins by its digest.
FROM ${PYTHON} AS onnxruntime
COPY tools/fetch_onnxruntime.py tools/onnxruntime.txt /tools/
RUN python3 /tools/fetch_onnxruntime.py /onnxruntime

# ONNX Runtime with CUDA 13, and what its provider is linked with; the driver comes from the node.
FROM ${PYTHON} AS libraries
RUN pip install --no-cache-dir --target /site 'onnxruntime-gpu[cuda,cudnn]==1.31.1' 'nvidia-cublas~=13.0' \
    && mkdir /onnxruntime && cp /site/onnxruntime/capi/libonnxruntime*.so* /onnxruntime/ \
    && find /site/nvidia -name '*.a' -delete

FROM ${CUDA_BASE} AS cuda
ARG REVISION=unknown
ARG VERSION=0.1.0
COPY --from=libraries /onnxruntime/ /usr/local/lib/
COPY --from=libraries /site/nvidia /opt/nvidia
COPY models/breast-cancer /models/breast-cancer
COPY models/diabetes /models/diabetes
COPY models/digits /models/digits
COPY models/fraud /models/fraud
COPY models/penguins /models/penguins
COPY LICENSE /usr/share/doc/sluicegate/LICENSE
COPY --from=build /sluicegate /usr/local/bin/sluicegate
ENV LD_LIBRARY_PATH=/opt/nvidia/cu13/lib:/opt/nvidia/cudnn/lib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
LABEL org.opencontainers.image.title="sluicegate" \
    org.opencontainers.image.description="A model serving gateway, with CUDA" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="https://example.com/sluicegate" \
    org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532
EXPOSE 8080 8081 8082
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/sluicegate"]
CMD ["serve", "--models", "/models", "--http", "0.0.0.0:8080", "--grpc", "0.0.0.0:8081", "--ops", "0.0.0.0:8082"]

FROM ${BASE} AS cpu
ARG REVISION=unknown
ARG VERSION=0.1.0
COPY --from=onnxruntime /onnxruntime/ /usr/local/lib/
COPY models/breast-cancer /models/breast-cancer
COPY models/diabetes /models/diabetes
COPY models/digits /models/digits
COPY models/fraud /models/fraud
COPY models/penguins /models/penguins
COPY LICENSE /usr/share/doc/sluicegate/LICENSE
COPY --from=build /sluicegate /usr/local/bin/sluicegate
LABEL org.opencontainers.image.title="sluicegate" \
    org.opencontainers.image.description="A model serving gateway" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="https://example.com/sluicegate" \
    org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532
EXPOSE 8080 8081 8082
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/sluicegate"]
CMD ["serve", "--models", "/models", "--http", "0.0.0.0:8080", "--grpc", "0.0.0.0:8081", "--ops", "0.0.0.0:8082"]
