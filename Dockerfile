# The demo in a container:
#   docker build --tag lightning-rod .
#   docker run --volume "$PWD/runs:/home/rod/runs" lightning-rod
# Any other verb:  docker run lightning-rod verify miniature
FROM python:3.11-slim
# For a package index of your own, or wheels of torch for another device.
ARG PIP_ARGUMENTS=""
RUN useradd --create-home rod
WORKDIR /tmp/lightning-rod
COPY . .
RUN python -m pip install --no-cache-dir --constraint constraints.txt ${PIP_ARGUMENTS} . && rm -r /tmp/lightning-rod
USER rod
WORKDIR /home/rod
ENTRYPOINT ["rod"]
CMD ["evidence", "--seeds", "1", "--controls", "false", "--output", "runs/demo"]
