# The program as an image:
#   docker build -t spear .                         compiles here
#   docker build -t spear --target prebuilt .       takes a binary: target/image/spear (`make image` puts it there)
# podman needs --format docker as well: its own format has no HEALTHCHECK.
#
# Distroless "cc" is what the program is linked against (glibc and libgcc) and CA certificates; no shell and no
# package manager for an intruder. The program runs on a glibc that is not older than the builder's, so both are of
# one Debian release. Where a shell is wanted: --build-arg RUNTIME_IMAGE=debian:bookworm-slim.
ARG BUILDER_IMAGE=docker.io/library/rust:1.95-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12

FROM ${RUNTIME_IMAGE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Spear" \
      org.opencontainers.image.description="Functions on your own machines: registry and agent in one program" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Loopback inside a container reaches nobody. Any other address wants a token: one that is given, or the one that
# the first start makes in /var/lib/spear/sms/token. The agent's REST is on 8082 in role spearlet too.
ENV HOME=/var/lib/spear \
    SMS_GRPC_ADDR=0.0.0.0:50051 \
    SMS_HTTP_ADDR=0.0.0.0:8080 \
    SMS_DB_PATH=/var/lib/spear/sms \
    SPEARLET_GRPC_ADDR=0.0.0.0:50052 \
    SPEARLET_HTTP_ADDR=0.0.0.0:8082 \
    SPEARLET_STORAGE_DATA_DIR=/var/lib/spear/spearlet
USER 65532:65532
EXPOSE 50051 8080 50052 8082
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/usr/bin/spear", "health"]
ENTRYPOINT ["/usr/bin/spear"]
CMD ["serve", "--role", "all"]

# The binary is not run here, so this works for another architecture too.
FROM runtime AS prebuilt
COPY --chown=65532:65532 target/image/state /var/lib/spear
COPY --chown=0:0 target/image/spear /usr/bin/spear
VOLUME /var/lib/spear

FROM ${BUILDER_IMAGE} AS build
WORKDIR /source
COPY . .
ARG REVISION
RUN SPEAR_COMMIT="${REVISION}" cargo build --release --locked && mkdir /state

FROM runtime
COPY --from=build --chown=65532:65532 /state /var/lib/spear
COPY --from=build --chown=0:0 /source/target/release/spear /usr/bin/spear
# After the directory has its owner: what is copied into a volume later is lost.
VOLUME /var/lib/spear
