# For NVIDIA GPUs. No NVIDIA base: JAX's wheels bring CUDA, cuDNN and NCCL, and the host
# brings the driver, which must know the CUDA of `jax[cuda13]` (580 or newer). From the
# root of the checkout:
#
#   docker build -f launch/docker/cuda.Dockerfile -t ctp_jax:cuda .
#   docker run --rm --gpus=all --shm-size=8g -v "$PWD/shared:/shared" ctp_jax:cuda \
#     --config=configs/ucf_r3d.py --workdir=/shared/runs/ucf_r3d
FROM python:3.12-slim

# As process 1, Python would ignore a SIGTERM that comes before its handler is set.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes tini \
    && rm -rf /var/lib/apt/lists/*

# What is installed depends on these files only: a change of code leaves the big layer.
WORKDIR /opt/ctp_jax
COPY setup.cfg pyproject.toml README.md LICENSE NOTICE ./
COPY ctp_jax/__init__.py ctp_jax/versions.py ctp_jax/
COPY configs/__init__.py configs/
RUN pip install --no-cache-dir --editable ".[data,cuda]"
COPY ctp_jax ctp_jax
COPY configs configs

RUN useradd --create-home --uid 1000 ctp
USER 1000
# The first two ask NVIDIA's container runtime for the driver; GKE mounts it at the third.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    TFDS_DATA_DIR=/shared/data
ENTRYPOINT ["tini", "--", "python", "-m", "ctp_jax.main"]
