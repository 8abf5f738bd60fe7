# The host agent. Run docker/publish first, then from the repository's root:
#   docker build -f docker/agent.Dockerfile -t fleet-agent .
# It must run as root, in the host's pid namespace, with the capabilities SYS_PTRACE (pidfd_getfd) and SYS_ADMIN
# (/proc/PID/pagemap, userfaultfd), and with the VMMs' socket folder shared with the host: see compose.yaml.
FROM debian:bookworm-slim
# SHA-256 and https come from OpenSSL, which the binary loads by name.
RUN apt-get update && apt-get install -y --no-install-recommends libssl3 ca-certificates && rm -rf /var/lib/apt/lists/*
COPY artifacts/publish/agent/ /app/
RUN mkdir -m 0700 -p /var/lib/fleet-agent /run/fleet-vmm
ENV Agent__StateFolder=/var/lib/fleet-agent \
    Agent__VmmSocketFolder=/run/fleet-vmm
VOLUME /var/lib/fleet-agent
STOPSIGNAL SIGTERM
ENTRYPOINT ["/app/Fleet.HostAgent"]
