# For TPUs: JAX's wheels bring libtpu. From the root of the checkout:
#
#   docker build -f launch/docker/tpu.Dockerfile -t ctp_jax:tpu .
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
RUN pip install --no-cache-dir --editable ".[data,tpu]"
COPY ctp_jax ctp_jax
COPY configs configs

RUN useradd --create-home --uid 1000 ctp
# As this user it evaluates and prepares; TPU pods on GKE need root (jobset_tpu.yaml).
USER 1000
ENV TFDS_DATA_DIR=/shared/data
ENTRYPOINT ["tini", "--", "python", "-m", "ctp_jax.main"]
