# machine.sh: what the scripts for GPUs share. Sourced from the root of the repository.
# machine_ready WHAT: ends with a line that names what is missing; nothing is wrong then, so the exit status is 0.
machine_ready() {
  library=${STEERD_CUDA_LIBRARY:-}
  if [ -n "$library" ]; then
    echo "library: $library"
  elif command -v nvcc >/dev/null; then
    echo "nvcc: $(nvcc --version | grep -o 'release [0-9.]*')"
  elif [ -f build/gpu/bundle/steerd-cuda.so ]; then
    library=$PWD/build/gpu/bundle/steerd-cuda.so
    echo "nvcc: none; build/gpu/bundle has a library"
  else
    echo "skip: $1 (no nvcc: install CUDA's toolkit 12.4 or newer, or bring build/gpu/bundle of \`make gpu-bundle\`)"; exit 0
  fi
  command -v nvidia-smi >/dev/null || { echo "skip: $1 (no nvidia-smi: this machine has no NVIDIA driver)"; exit 0; }
  nvidia-smi -L >/dev/null 2>&1 || { echo "skip: $1 (nvidia-smi finds no GPU)"; exit 0; }
  echo "GPU: $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | head -n 1)"
  if [ -z "$library" ]; then
    make -s -j"$(nproc)" cuda || exit 1
    library=$PWD/build/release/steerd-cuda.so
  fi
  export STEERD_CUDA_LIBRARY=$library
  make -s -j"$(nproc)" gpu-programs || exit 1
}
