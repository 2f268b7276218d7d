# The demo in a container, its products in ./runs and of this user:
#   docker build --tag lightning-rod .
#   mkdir -p runs && docker run --user "$(id -u)" --volume "$PWD/runs:/runs" lightning-rod
# Any other verb:  docker run lightning-rod verify miniature
FROM python:3.11-slim
# For a package index of your own, or wheels of torch for another device.
ARG PIP_ARGUMENTS=""
WORKDIR /tmp/lightning-rod
COPY . .
RUN python -m pip install --no-cache-dir --constraint constraints.txt ${PIP_ARGUMENTS} . && rm -r /tmp/lightning-rod
# Any user may run it, one without a name or a home, too.
ENV HOME=/tmp/home USER=rod
RUN mkdir --mode 1777 /tmp/home /runs
USER 1000
WORKDIR /
ENTRYPOINT ["rod"]
CMD ["evidence", "--seeds", "1", "--controls", "false", "--output", "runs/demo"]
