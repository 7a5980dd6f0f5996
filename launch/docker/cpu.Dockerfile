# For the CPU: tries, data preparation, evaluation. From the root of the checkout:
#
#   docker build -f launch/docker/cpu.Dockerfile -t ctp_jax:cpu .
#   docker run --rm -v "$PWD/shared:/shared" ctp_jax:cpu \
#     --config=configs/demo.py --workdir=/shared/runs/demo
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
RUN pip install --no-cache-dir --editable ".[data]"
COPY ctp_jax ctp_jax
COPY configs configs

RUN useradd --create-home --uid 1000 ctp
USER 1000
ENV TFDS_DATA_DIR=/shared/data \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1
ENTRYPOINT ["tini", "--", "python", "-m", "ctp_jax.main"]
