# Stage 1 makes a virtual environment from wheels; stage 2 has it, nft, and no compiler.
#   make image                         with docker, podman or buildah
# Another base must have Python 3.11 or newer with venv and pip, and apt: --build-arg BASE=...
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY proxy proxy
RUN python3 -m venv /opt/sidestep \
    && /opt/sidestep/bin/pip install --quiet --disable-pip-version-check --no-cache-dir \
        --only-binary :all: --constraint constraints.txt . \
    && /opt/sidestep/bin/pip uninstall --quiet --yes pip setuptools \
    && /opt/sidestep/bin/python -m compileall -q /opt/sidestep/lib

FROM ${BASE}
RUN command -v nft >/dev/null || { apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nftables \
    && rm -rf /var/lib/apt/lists/*; }
COPY --from=build /opt/sidestep /opt/sidestep
ENV PATH=/opt/sidestep/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# Root with the few capabilities that the manifest gives: workers become user 65532 before they read a packet.
ENTRYPOINT ["sidestep"]
CMD ["run", "--config", "/etc/sidestep/sidestep.yaml"]
