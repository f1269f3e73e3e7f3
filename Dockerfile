# MARS-repro with all that `make reproduce` installs; the container's command is `make`.
#   docker build --build-arg UID="$(id -u)" --tag mars-repro .
#   docker run --rm --gpus all --ipc host --volume "$PWD/results:/mars-repro/results" \
#     mars-repro reproduce EXPERIMENT=paper PROFILE=gpu-node GPUS=8
# torch brings its own CUDA libraries; of the host it needs the driver and the container toolkit.
FROM nvidia/cuda:12.8.1-base-ubuntu24.04

# A compiler and Python's headers: torch compiles what runs on the GPU. Versions of Ubuntu's
# packages change no number and vanish from its archive, so they are not pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates g++ git make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

# Not root. The number of the user who owns the results on the host, so that they stay theirs.
ARG UID=1001
RUN useradd --create-home --non-unique --uid "$UID" mars \
    && install --directory --owner=mars /mars-repro /mars-repro/results
USER ${UID}
WORKDIR /mars-repro

# What the installation depends on comes first: an edit elsewhere does not repeat it.
COPY --chown=mars Makefile pyproject.toml requirements.lock README.md ./
COPY --chown=mars mars/__init__.py mars/__init__.py
RUN PIP_NO_CACHE_DIR=1 make install

# With .git, from which the records take the commit.
COPY --chown=mars . .
ENTRYPOINT ["make"]
CMD ["help"]
