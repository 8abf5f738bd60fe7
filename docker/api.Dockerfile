# The control plane. Run docker/publish first, then from the repository's root:
#   docker build -f docker/api.Dockerfile -t fleet-api .
FROM debian:bookworm-slim
COPY artifacts/publish/api/ /app/
# Debian's nobody: the control plane needs no right but its data folder.
RUN mkdir -m 0700 /data && chown 65534:65534 /data
ENV Fleet__DataFolder=/data \
    ASPNETCORE_URLS=http://+:5480
# Plain http beyond loopback is refused unless Fleet__AllowPlainHttp=true is given, which is for private container networks.
USER 65534:65534
VOLUME /data
EXPOSE 5480
STOPSIGNAL SIGTERM
# The base image has no curl or wget: bash opens the socket of the health check itself.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/5480 && printf 'GET /health/ready HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["/app/Fleet.Api"]
