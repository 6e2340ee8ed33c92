#!/bin/sh
# Makes a git repository that is shaped like vLLM's at three points of its history.
#   history.sh FOLDER
set -eu
folder=$1
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"
git init --quiet --initial-branch main
git config user.name Test
git config user.email test@example.com
release() {
    git add --all
    git commit --quiet --message "$1"
    git tag --annotate --message "$1" "$1"
}

# In the root, the serving stage is the last one, .git is bound, no heredocs.
cat >Dockerfile <<'EOF'
ARG CUDA_VERSION=12.4.1
FROM llmops-test/cuda:${CUDA_VERSION}-devel AS base
ARG torch_cuda_arch_list='7.0 7.5 8.0 8.6 8.9 9.0+PTX'
ENV TORCH_CUDA_ARCH_LIST=${torch_cuda_arch_list}
FROM base AS build
ARG max_jobs=2
ARG nvcc_threads=8
ARG RUN_WHEEL_CHECK=true
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,source=.git,target=.git \
    test -e .git/HEAD && echo "$max_jobs jobs of $nvcc_threads" >/wheel
FROM base AS vllm-openai
COPY --from=build /wheel /wheel
RUN echo vllm-openai >/stage
ENTRYPOINT ["python3", "-m", "vllm.entrypoints.openai.api_server"]
EOF
release v0.6.2

# In docker/, with heredocs, another stage behind the serving one.
mkdir docker
git rm --quiet Dockerfile
cat >docker/Dockerfile <<'EOF'
ARG CUDA_VERSION=12.9.1
ARG BUILD_BASE_IMAGE=llmops-test/cuda:${CUDA_VERSION}-devel
ARG FINAL_BASE_IMAGE=llmops-test/cuda:${CUDA_VERSION}-devel
FROM ${BUILD_BASE_IMAGE} AS build
ARG max_jobs=2
ARG nvcc_threads=8
ARG torch_cuda_arch_list='7.0 7.5 8.0 8.9 9.0 10.0 12.0'
ENV TORCH_CUDA_ARCH_LIST=${torch_cuda_arch_list}
ARG RUN_WHEEL_CHECK=true
ARG VLLM_USE_PRECOMPILED=
RUN --mount=type=cache,target=/root/.cache/uv --mount=type=bind,source=.git,target=.git <<WHEEL
    test -e .git/HEAD
    echo "for $TORCH_CUDA_ARCH_LIST, checked: $RUN_WHEEL_CHECK" >/wheel
WHEEL
FROM ${FINAL_BASE_IMAGE} AS vllm-base
COPY --from=build /wheel /wheel
FROM vllm-base AS vllm-openai
RUN echo vllm-openai >/stage
ENTRYPOINT ["vllm", "serve"]
FROM vllm-openai AS vllm-sagemaker
RUN echo vllm-sagemaker >/stage
ENTRYPOINT ["./sagemaker-entrypoint.sh"]
EOF
release v0.11.1

# The last stage is that without root; the file for CPUs has a base of its own.
sed -i 's/vllm-sagemaker/vllm-openai-nonroot/; s/sagemaker-entrypoint/vllm-nonroot-entrypoint/' docker/Dockerfile
printf 'USER 2000:0\n' >>docker/Dockerfile
cat >docker/Dockerfile.cpu <<'EOF'
FROM llmops-test/cuda:12.4.1-devel AS base
ARG max_jobs=32
FROM base AS vllm-openai
RUN echo cpu >/stage
ENTRYPOINT ["vllm", "serve"]
EOF
release v0.32.0

# Branches that cannot be built, or not in time.
for name in broken slow; do
    git checkout --quiet -b "$name" main
    case $name in
        broken) step='RUN echo compiling && echo "nvcc fatal: no such file" && exit 3' ;;
        slow) step='RUN sleep 600' ;;
    esac
    printf 'FROM vllm-base AS vllm-openai\n%s\n' "$step" >/tmp/step
    sed -i '/^FROM vllm-base AS vllm-openai/{r /tmp/step
d}' docker/Dockerfile
    git commit --quiet --all --message "$name"
done
git checkout --quiet main
