# An image in which `wise demo` runs on a CPU, and every other command on mounted files:
#   docker build -t wise .
#   docker run --rm wise
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" -e HOME=/tmp wise wise merge zs.safetensors ft.safetensors -o out.safetensors
ARG PYTHON=3.13

# The full image has the compiler for the compiled modules; only the wheel leaves it.
FROM python:${PYTHON} AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
# From the usual index, so that torch and torchvision are builds that fit each other.
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(echo /wheels/*.whl)[demo,parquet]"
RUN useradd --create-home wise && install -d -o wise -g wise /work
USER wise
WORKDIR /work
CMD ["wise", "demo"]
