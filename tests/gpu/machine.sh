# machine.sh: what the scripts for GPUs share. Sourced from the root of the repository, with OUT, the folder of the reports.
#
# A machine with a GPU may be at hand for minutes, and without anybody to ask: every program runs under a limit of its own and all
# together end at `deadline`; what was found stands in the report at once; what cannot be built here is taken from
# build/gpu/bundle.tar.xz (`make gpu-bundle`) where it was brought. Nothing asks anything, dumps core, or fills the disk.
# PATIENCE: limits of programs are multiplied by it, where something slower stands in for a GPU (rehearse.sh).
OUT=${OUT:-build/gpu}
export LC_ALL=C
exec </dev/null
ulimit -c 0
ulimit -f 1048576 2>/dev/null # 1 GiB
mkdir -p "$OUT" build/gpu || exit 1
command -v nvcc >/dev/null || PATH=$PATH:/usr/local/cuda/bin # compute-sanitizer's place too
command -v nvidia-smi >/dev/null || PATH=$PATH:/usr/local/nvidia/bin # where containers and small machines have the driver
bundle=$PWD/build/gpu/bundle
# Where there is no xz, Python has one.
if [ -f "$bundle.tar.xz" ] && [ ! -f "$bundle/commit" ]; then
  tar -C build/gpu -xf "$bundle.tar.xz" 2>/dev/null || python3 -m tarfile -e "$bundle.tar.xz" build/gpu >/dev/null || echo "build/gpu/bundle.tar.xz cannot be unpacked"
fi
deadline=$((SECONDS + ${LIMIT:-540}))
jobs=$(nproc 2>/dev/null || echo 4)

# Seconds for something that wants `$1`: no more than are left.
seconds_left() { local left=$((deadline - SECONDS)); echo $((left < $1 ? left : $1)); }

# limited WANTED COMMAND...: runs it under a limit; 124 or 137 where there is no time for it, or it took longer.
limited() {
  local seconds; seconds=$(seconds_left $(($1 * ${PATIENCE:-1}))); shift
  [ "$seconds" -ge 3 ] || return 124
  timeout -k 5 "$seconds" "$@"
}
out_of_time() { [ "$1" -eq 124 ] || [ "$1" -eq 137 ]; }

# smi QUERY: what nvidia-smi says of the first GPU.
smi() { timeout 20 nvidia-smi --query-gpu="$1" --format=csv,noheader 2>/dev/null | head -n 1; }

which_commit() {
  local commit; commit=$(git rev-parse --short HEAD 2>/dev/null) || commit="no git"
  [ -f "$bundle/commit" ] && commit="$commit; bundle of $(cat "$bundle/commit")"
  echo "$commit"
}

# A log that was not asked for fails nobody; one that explains a failure is shown: its end, and what compilers complain of.
show_log() { grep -a -m 12 -E 'error:|rror [0-9]+|undefined reference|cannot find|not found|No such file' "$1"; tail -n 12 "$1"; }

# cuBLAS may lie where Python keeps it and not where the toolkit is.
find_cublas() {
  local name folder
  name=$(ldd "$library" 2>/dev/null | sed -n 's/^[[:space:]]*\(libcublas\.so[^ ]*\) => not found.*/\1/p' | head -n 1)
  [ -n "$name" ] || return 0
  folder=$(timeout 60 python3 -c "
import glob, site, sys
places = site.getsitepackages() + sys.path + ['/usr/local/cuda*/lib64', '/usr/lib/x86_64-linux-gnu']
found = [f for p in places if p for q in (p + '/nvidia/*/lib/$name', p + '/$name') for f in glob.glob(q)]
print(found[0].rsplit('/', 1)[0] if found else '')" 2>/dev/null)
  echo "cuBLAS: $name is not where the linker looks; taken from ${folder:-nowhere}"
  [ -n "$folder" ] && export LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
}

# The library for the device that is here, and for no other: a quarter of the time.
build_library() {
  local begin=$SECONDS
  if limited 240 make -s -j"$jobs" cuda-native SM="$sm" >build/gpu/cuda.log 2>&1; then
    library=$PWD/build/cuda/sm_$sm/steerd-cuda.so
    echo "library: built for sm_$sm in $((SECONDS - begin)) s"
  elif [ -f "$bundle/steerd-cuda.so" ]; then
    library=$bundle/steerd-cuda.so
    echo "library: of build/gpu/bundle (building it failed)"; show_log build/gpu/cuda.log
  else
    echo "FAIL  building the library"; show_log build/gpu/cuda.log; return 1
  fi
}

# The programs of core/math and the bench, into $programs.
build_programs() {
  local begin=$SECONDS
  programs=$PWD/build/gpu
  if limited 240 make -s -j"$jobs" gpu-programs >build/gpu/programs.log 2>&1; then
    echo "programs: built in $((SECONDS - begin)) s"
  elif [ -x "$bundle/bench_gpu" ]; then
    programs=$bundle
    echo "programs: of build/gpu/bundle (building them failed)"; show_log build/gpu/programs.log
  else
    echo "FAIL  building the programs"; show_log build/gpu/programs.log; return 1
  fi
}

# What the device could give (limits.cu), into $limits; empty where there is none.
build_limits() {
  limits=${STEERD_GPU_LIMITS:-}
  [ -z "$limits" ] || return 0
  if limited 60 make -s "build/gpu/limits-sm_$sm" SM="$sm" >build/gpu/limits.log 2>&1; then
    limits=$PWD/build/gpu/limits-sm_$sm
  elif [ -x "$bundle/limits" ]; then
    limits=$bundle/limits
  fi
}

# A driver without persistence puts the device to sleep when nobody has it open, and waking it takes each program seconds.
keep_awake() {
  [ "$(smi persistence_mode)" = Enabled ] && return 0
  timeout -k 5 "$(seconds_left 99999)" nvidia-smi -l 10 --format=csv --query-gpu=name >/dev/null 2>&1 &
  helpers="${helpers:-} $!"
  trap 'kill $helpers 2>/dev/null' EXIT
}

# machine_ready WHAT: ends with a line that names what is missing; nothing is wrong then, so the exit status is 0.
machine_ready() {
  library=${STEERD_CUDA_LIBRARY:-}
  if [ -n "$library" ]; then
    echo "library: $library"
  elif command -v nvcc >/dev/null; then
    echo "nvcc: $(timeout 20 nvcc --version | grep -o 'release [0-9.]*')"
  elif [ -f "$bundle/steerd-cuda.so" ]; then
    library=$bundle/steerd-cuda.so
    echo "nvcc: none; build/gpu/bundle has a library"
  else
    echo "skip: $1 (no nvcc: install CUDA's toolkit 12.8 or newer, or bring build/gpu/bundle.tar.xz of \`make gpu-bundle\`)"; exit 0
  fi
  command -v nvidia-smi >/dev/null || { echo "skip: $1 (no nvidia-smi: this machine has no NVIDIA driver)"; exit 0; }
  timeout 150 nvidia-smi -L >/dev/null 2>&1 || { echo "skip: $1 (nvidia-smi finds no GPU)"; exit 0; }
  sm=$(smi compute_cap | tr -cd '0-9'); sm=${sm:-90}
  echo "GPU: $(smi name,driver_version,memory.total,clocks.sm,clocks.mem), compute capability $sm"
  echo "host: $(uname -r), $jobs processors, $({ ${CC:-gcc} --version || echo 'no compiler'; } 2>&1 | head -n 1)"
  [ -n "$library" ] || build_library || exit 1
  find_cublas
  export STEERD_CUDA_LIBRARY=$library
  build_programs || exit 1
  keep_awake
  # Is it there for a program of ours? Then not every program has to say that it is not. The first one reads libraries of 500 MB.
  limited 150 "$programs/bench_gpu" --tiny --part limits >build/gpu/open.log 2>&1 ||
    { echo "FAIL  opening the device: status $?"; tail -n 5 build/gpu/open.log; exit 1; }
  line_buffered=$(command -v stdbuf >/dev/null && echo "stdbuf -oL")
}
