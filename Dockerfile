# The sidecar, compiled, without a compiler, pip or a shell's help at run time: README.md, "In containers".
#
#   docker build --tag sidecar .
#
# The two bases have the same Python at the same path; the second one runs in production. Name digests to get the same
# bytes again. A package index of your own: --secret id=pip,src=pip.conf. BuildKit, podman and buildah can build it.
ARG BUILD_BASE=docker.io/library/python:3.11-bookworm
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BUILD_BASE} AS build
WORKDIR /src
# requirements-otel.txt for sidecar.tracing
ARG REQUIREMENTS=requirements.txt
# Two environments: what builds, with pip, and what is built, without.
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/sidecar
COPY config/image config/image
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /build/bin/pip install --quiet --no-cache-dir --require-hashes -r config/image/requirements-build.txt \
    && /build/bin/pip --python /opt/sidecar/bin/python install --quiet --no-cache-dir --no-compile \
        --require-hashes -r "config/image/${REQUIREMENTS}"
COPY pyproject.toml README.md LICENSE ./
COPY sidecar sidecar
RUN SIDECAR_EXT=require /build/bin/pip wheel --quiet --no-cache-dir --no-deps --no-build-isolation --no-index \
        --wheel-dir /wheel . \
    && /build/bin/pip --python /opt/sidecar/bin/python install --quiet --no-cache-dir --no-compile --no-deps \
        --no-index /wheel/*.whl
# Bytecode that holds whatever times the files get (PEP 552): nothing can be written later, and without it a start takes
# a second more. A folder for sidecar.last_good that the user, and on OpenShift the group 0, may write to.
RUN /opt/sidecar/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/sidecar/lib \
    && install -d -m 0770 /state/sidecar

FROM ${BASE}
COPY --from=build /opt/sidecar /opt/sidecar
COPY --from=build --chown=10001:0 /state/ /var/lib/
# What the sidecar loads is loaded once, as root, who may leave bytecode beside the standard library. Exec form, as
# everything in this stage: the base may be one without a shell.
RUN --mount=type=bind,from=build,source=/src/config/image,target=/mnt ["/opt/sidecar/bin/python", "/mnt/load.py"]
ENV PATH=/opt/sidecar/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1
ARG VERSION=0.1.0
ARG REVISION=
ARG CREATED=
ARG SOURCE=
LABEL org.opencontainers.image.title="sidecar" \
      org.opencontainers.image.description="A client-side load-balancing sidecar proxy" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}"
WORKDIR /etc/sidecar
# A number, which Kubernetes' runAsNonRoot can check; of nobody else on the node.
USER 10001:10001
# /metrics, /live and /ready, with sidecar.metrics: 0.0.0.0:9902. Upstreams' ports are for the same network namespace.
EXPOSE 9902
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["sidecar", "status", "--ready"]
ENTRYPOINT ["sidecar"]
CMD ["run"]
