# The publisher in a container. Mount the repository at the path that the wish list names.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv ca-certificates
COPY . /src
RUN python3 -m venv /opt/publisher \
 && PIP_CONSTRAINT=/src/constraints.txt /opt/publisher/bin/python -m pip install --no-cache-dir '/src[snapshotter]'

FROM ${BASE}
# git and ssh fetch wish lists from git repositories.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 ca-certificates git openssh-client \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/publisher /opt/publisher
ENV PATH=/opt/publisher/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ENTRYPOINT ["publisher"]
CMD ["--help"]
