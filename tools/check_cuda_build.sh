#!/usr/bin/env bash
# Configures the CUDA plug-in and compiles a few of its files for one architecture: minutes instead of the hour of the whole
# module, and enough to see that the pin, the CMake code and the toolkit go together. No GPU and no driver is needed.
#
#     tools/check_cuda_build.sh [build folder]
#
# Environment: CUDACXX (default: nvcc in PATH, else a toolkit made by tools/cuda_toolkit.py), CUDA_ARCHITECTURE (default 90-real).
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/cuda-check}
# The operators that the engine's own graphs use most, and one template instance of attention.
files=(cpy set-rows getrows norm template-instances/fattn-vec-instance-f16-f16)
# and one of ours with kv3, whose object lies below the whole path of its source
files+=("${PWD#/}/vendor/llama.cpp/kv3/kv3_attention_kv3_kv3")

if [ -z "${CUDACXX:-}" ]; then
    if command -v nvcc >/dev/null && [ -n "$(find -L "$(dirname "$(readlink -f "$(command -v nvcc)")")/.." -maxdepth 4 -name 'cublas_v2.h' -print -quit)" ]; then
        CUDACXX=$(command -v nvcc)
    else
        CUDAToolkit_ROOT=$(python3 tools/cuda_toolkit.py | tail -1)
        CUDACXX=$CUDAToolkit_ROOT/bin/nvcc
        export CUDAToolkit_ROOT
    fi
fi
export CUDACXX
"$CUDACXX" --version | tail -2

cmake -S plugins/cuda -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CUDA_ARCHITECTURES="${CUDA_ARCHITECTURE:-90-real}"
targets=()
for file in "${files[@]}"; do
    targets+=("ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/$file.cu.o")
done
cmake --build "$build" --target "${targets[@]}"
cat "$build/backend.json"
echo "configured, and compiled ${#files[@]} files: the CUDA plug-in builds"
