# The images of Unfreeze: `make images`, or
#
#   docker build --target operator --tag unfreeze-operator .
#   docker build --target trainer --tag unfreeze-trainer .
#
# A build asks for nothing but the base image, Debian's packages and PyPI. Versions are those of requirements.lock.

# Any Debian or Ubuntu with Python 3.11 or newer among its packages.
ARG BASE=debian:bookworm-slim
# What packages are built on. Of the same release as BASE; where it has a CUDA toolkit (nvcc), DeepSpeed's operations are
# compiled into the trainer's image, so that no pod needs a compiler.
ARG BUILD_BASE=${BASE}

FROM ${BASE} AS python
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt

# Packages are installed into /opt/unfreeze, and Unfreeze itself beside them: a change of code is a small layer.
FROM ${BUILD_BASE} AS build
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv ca-certificates
WORKDIR /source
COPY pyproject.toml requirements.lock ./
ENV UV_SYSTEM_CERTS=1 UV_LINK_MODE=copy UV_NO_CACHE=1
RUN python3 -m venv /opt/uv \
 && /opt/uv/bin/pip install --quiet --no-cache-dir --constraint requirements.lock uv \
 && python3 -m venv --without-pip /opt/unfreeze \
 && echo /opt/unfreeze/own > "$(echo /opt/unfreeze/lib/python3*/site-packages)/unfreeze.pth"

FROM build AS own
COPY README.md LICENSE ./
COPY crds crds
COPY operator operator
COPY trainer trainer
RUN /opt/uv/bin/uv pip install --quiet --python /opt/unfreeze --no-deps --compile-bytecode --target /opt/unfreeze/own .

# What the operator does without is half of its packages: the CEL library, since the API server evaluates the rules, and
# the Kubernetes client's classes for each kind of object.
FROM build AS operator-packages
RUN echo cel-expr-python > /tmp/excluded \
 && /opt/uv/bin/uv pip install --quiet --python /opt/unfreeze --constraints requirements.lock --excludes /tmp/excluded \
      --requirements pyproject.toml --extra operator \
 && rm -r /opt/unfreeze/lib/python3*/site-packages/kubernetes/client/api \
      /opt/unfreeze/lib/python3*/site-packages/kubernetes/aio/client/api \
 && python3 -m compileall -q -x '/client/models/' /opt/unfreeze/lib

FROM build AS trainer-packages
ARG TORCH_CUDA_ARCH_LIST="8.0;8.6;8.9;9.0"
RUN /opt/uv/bin/uv pip install --quiet --python /opt/unfreeze --constraints requirements.lock --compile-bytecode \
      --requirements pyproject.toml --extra trainer --extra deepspeed --extra trackers --extra quantization
RUN export PATH="$PATH:/usr/local/cuda/bin"; command -v nvcc > /dev/null || exit 0; \
    apt-get install --yes --no-install-recommends g++ python3-dev \
 && /opt/uv/bin/uv pip install --quiet --python /opt/unfreeze --constraints requirements.lock setuptools ninja \
 && PATH="/opt/unfreeze/bin:$PATH" DS_BUILD_FUSED_ADAM=1 DS_BUILD_CPU_ADAM=1 DS_BUILD_UTILS=1 /opt/uv/bin/uv pip install \
      --quiet --python /opt/unfreeze --constraints requirements.lock --no-deps --no-build-isolation --compile-bytecode \
      --reinstall-package deepspeed deepspeed

FROM python AS operator
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="unfreeze-operator" \
      org.opencontainers.image.description="Kubernetes operator for transfer learning" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The Kubernetes client asks for a home, and a user without an entry in /etc/passwd has none.
ENV PATH=/opt/unfreeze/own/bin:/opt/unfreeze/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 HOME=/
COPY --from=operator-packages /opt/unfreeze /opt/unfreeze
COPY --from=own /opt/unfreeze/own /opt/unfreeze/own
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["unfreeze-operator"]

FROM python AS trainer
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="unfreeze-trainer" \
      org.opencontainers.image.description="Trainer of Unfreeze: torch with CUDA, Accelerate, DeepSpeed" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Pods run on a read-only root: what libraries write goes to /tmp, an emptyDir. No library asks the hub for anything.
ENV PATH=/opt/unfreeze/own/bin:/opt/unfreeze/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 HOME=/tmp HF_HUB_OFFLINE=1
COPY --from=trainer-packages /opt/unfreeze /opt/unfreeze
COPY --from=own /opt/unfreeze/own /opt/unfreeze/own
USER 65532:65532
EXPOSE 9470
ENTRYPOINT ["unfreeze-trainer"]
