# The publisher in a container. As an ordinary user (10001), to whom then all published files belong:
#   docker run --rm -v /srv/images:/srv/images -v publisher-state:/var/lib/publisher -v /etc/publisher:/etc/publisher:ro \
#     publisher ingest --repository dir:/srv/images --no-progress /etc/publisher/wishlist.yaml
# Credentials, if there are any: -e DOCKER_CONFIG=/etc/publisher, in whose config.json they are.
# With --user 0 the files keep the owners that they have in the images.
#
# The same digest each time: docs/installation.md. Bytecode is compiled without the times of the sources (which a builder
# changes), and what installations leave behind (logs, caches, times in them) is removed.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS runtime
# The lines of /etc/apt/sources.list, such as those of a snapshot of Debian, in place of those of the base.
ARG APT_SOURCES=""
RUN [ -z "$APT_SOURCES" ] || { rm -f /etc/apt/sources.list.d/*; echo "$APT_SOURCES" >/etc/apt/sources.list; }
# In seconds: the time of the account that useradd makes.
ARG SOURCE_DATE_EPOCH
# git and ssh fetch wish lists from git repositories.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 ca-certificates git openssh-client \
 && python3 -m compileall -qf --invalidation-mode unchecked-hash /usr/lib/python3* \
 && useradd --uid 10001 --home-dir /var/lib/publisher --shell /usr/sbin/nologin publisher \
 && install -d -o publisher -g publisher -m 0755 /srv/images /var/lib/publisher \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/* /var/log/*

FROM runtime AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-venv
COPY . /src
# The version of the program, since the context has no git: --build-arg VERSION=0.1.0
ARG VERSION=0.0
ENV SETUPTOOLS_SCM_PRETEND_VERSION=${VERSION}
ARG EXTRAS=notify,sbom,service,snapshotter
RUN python3 -m venv /opt/publisher \
 && PIP_CONSTRAINT=/src/constraints.txt /opt/publisher/bin/python -m pip install --no-cache-dir --no-compile "/src[$EXTRAS]" \
 && python3 -m compileall -qf --invalidation-mode unchecked-hash /opt/publisher

FROM runtime
COPY --from=build /opt/publisher /opt/publisher
ENV PATH=/opt/publisher/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PUBLISHER_STATE=/var/lib/publisher
# The repository, and what the publisher remembers between runs.
VOLUME ["/srv/images", "/var/lib/publisher"]
USER 10001:10001
ENTRYPOINT ["publisher"]
CMD ["--help"]
