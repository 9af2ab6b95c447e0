# steerd: `make` prints help. Objects live under build/<variant>/, so that variants never disturb each other.
# Adding a .c file to a room edits nothing here.

# make has a CC of its own, "cc", which ?= would leave in place.
ifeq ($(origin CC),default)
CC      := gcc
endif
PYTHON  ?= /usr/bin/python3
VARIANT ?= release
B       := build/$(VARIANT)

# What a newcomer types builds with every processor, unless it was said how many.
PARALLEL = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$$(nproc))

VERSION := 0.1.0
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

WARN   := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wpointer-arith
HARDEN := -fstack-protector-strong -fPIE -fno-strict-overflow
CFLAGS_release := -O2 -g -D_FORTIFY_SOURCE=2
CFLAGS_asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
CFLAGS_tsan    := -O1 -g -fsanitize=thread
CFLAGS_clang   := -O2 -g -D_FORTIFY_SOURCE=2
LDFLAGS_release := -pie -Wl,-z,relro,-z,now
LDFLAGS_asan    := -pie -fsanitize=address,undefined
LDFLAGS_tsan    := -pie -fsanitize=thread
LDFLAGS_clang   := -pie -Wl,-z,relro,-z,now

# Summation order is a promise (docs/architecture.md): no fast-math, no contraction the source does not ask for.
BASE   := -std=c11 -D_GNU_SOURCE -I. -MMD -MP $(WARN) $(HARDEN) -ffp-contract=off -pthread
# WERROR=1 makes warnings errors, those too that only an optimising compiler finds (what may be uninitialised, overflow, ...): what
# .ci and `make check` build with.
CFLAGS += $(BASE) $(CFLAGS_$(VARIANT)) $(EXTRA) $(if $(WERROR),-Werror)
LDLIBS := -lmicrohttpd -ljansson -lsqlite3 -linih -lpcre2-8 -lz -lm -lpthread

CORE_SRC   := $(wildcard core/*.c core/*/*.c core/math/ref/*.c core/math/cpu/*.c)
API_SRC    := $(wildcard api/*.c)
SERVER_SRC := $(wildcard server/*.c)
LIB_OBJ    := $(patsubst %.c,$(B)/%.o,$(CORE_SRC) $(API_SRC) $(filter-out server/main.c,$(SERVER_SRC)))
UNIT_SRC   := $(wildcard tests/unit/test_*.c)
UNIT_BIN   := $(patsubst tests/unit/%.c,$(B)/tests/%,$(UNIT_SRC))
BENCH_SRC  := $(wildcard tests/bench/bench_*.c)
BENCH_BIN  := $(patsubst tests/bench/%.c,$(B)/bench/%,$(BENCH_SRC))
FUZZ_SRC   := $(wildcard tests/fuzz/fuzz_*.c)

# Quiet lines; V=1 shows the commands.
ifeq ($(V),1)
Q :=
SAY := @:
else
Q := @
SAY := @printf '  %-5s %s\n'
endif

.PHONY: unit-programs help all build cpu cuda deps demo test check unit http bench asan tsan clang fuzz check-layers check-warnings clean fmt install uninstall deb browser docker docker-cuda
.DEFAULT_GOAL := help

help:
	@echo 'steerd $(VERSION) ($(COMMIT)): opens up a language model while it runs'
	@echo
	@echo '  make demo     install, build, serve a small model     make test     install what is missing, build, all tests'
	@echo '  make build    build/steerd, the daemon (CPU)'
	@echo '  make check    quick tests, layers and warnings        make bench    tokens/s beside this machine'"'"'s limits'
	@echo '  make asan     the tests under ASan and UBSan          make tsan     the unit tests under TSan'
	@echo '  make clang    build with clang, same warnings         make fuzz     short fuzz run of what reads files and requests'
	@echo '  make cuda     the GPU backend, a library (needs nvcc)    make gpu-all (gpu-check, gpu-bench)   with a GPU'
	@echo '  make deps     install the Debian packages it needs    make install  to PREFIX (default /usr/local), make uninstall'
	@echo '  make browser  the dashboard in a real browser         make deb      a Debian package in build/'
	@echo '  make docker   a container image (or make docker-cuda), with docker or podman'
	@echo
	@echo 'detected:'
	@echo "  compiler   $$($(CC) --version 2>/dev/null | head -n 1 | grep . || echo 'none: make demo installs gcc')"
	@echo "  processor  $$(grep -o -m1 -w -e avx512f /proc/cpuinfo 2>/dev/null || grep -o -m1 -w -e avx2 /proc/cpuinfo 2>/dev/null || echo 'no AVX2: generic kernels'), $$(nproc) threads"
	@if command -v nvcc >/dev/null 2>&1; then echo "  CUDA       $$(nvcc --version | grep -o 'release [0-9.]*')"; else echo '  CUDA       no nvcc found: the CPU build needs none'; fi
	@tests/tools/deps.sh --report

all build cpu: build/steerd

# ---- CUDA: a library of its own, opened at run time where a device is (docs/cuda.md) ----
# cuda/real: every architecture; cuda/sm_NN: one, to see that it compiles (cuda-quick, SM=90), or for the device at hand (cuda-native).
NVCC       := $(shell command -v nvcc 2>/dev/null)
CUDA_HOME  ?= $(if $(NVCC),$(abspath $(dir $(realpath $(NVCC)))..),/usr/local/cuda)
CUDA_C     := $(wildcard core/math/cuda/*.c)
CUDA_CU    := $(wildcard core/math/cuda/*.cu)
# What of the daemon the library carries in itself.
CUDA_OWN   := core/base/error.c core/base/clock.c core/base/pool.c core/base/room.c core/math/dtype.c core/math/host.c core/math/sparse.c
CUDA_ARCH_real  := -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90 \
                   -gencode arch=compute_100,code=sm_100 -gencode arch=compute_90,code=compute_90
SM              ?= 90
CUDA_ARCH_one   := -gencode arch=compute_$(SM),code=sm_$(SM)
CUDA_ONE        := build/cuda/sm_$(SM)
# No fusing of products and sums but where the source asks for it: edits, norms and sums have the same bits in every kernel.
CUDA_NVFLAGS := -std=c++17 -O3 -fmad=false -I. -Xcompiler -fPIC,-fvisibility=hidden -Wno-deprecated-gpu-targets
CUDA_CFLAGS  := $(BASE) -O2 -g -fPIC -fvisibility=hidden -isystem $(CUDA_HOME)/include
CUDA_LINK    := -shared -cudart static -lcublas -Xlinker -rpath,'$$ORIGIN:$(CUDA_HOME)/lib64'

build/cuda/%.c.o: %.c
	@mkdir -p $(@D)
	$(SAY) CC '$< (cuda)'
	$(Q)$(CC) $(CUDA_CFLAGS) -c -o $@ $<

build/cuda/real/%.o: %.cu
	@mkdir -p $(@D)
	$(SAY) NVCC $<
	$(Q)$(NVCC) $(CUDA_NVFLAGS) $(CUDA_ARCH_real) -MMD -MP -c -o $@ $<

$(CUDA_ONE)/%.o: %.cu
	@mkdir -p $(@:.o=.keep)
	$(SAY) NVCC '$< (sm_$(SM))'
	$(Q)$(NVCC) $(CUDA_NVFLAGS) $(CUDA_ARCH_one) -Xptxas -v --keep --keep-dir $(@:.o=.keep) -MMD -MP -c -o $@ $< 2>$(@:.o=.usage) || { cat $(@:.o=.usage) >&2; exit 1; }
	$(Q)mv $(@:.o=.keep)/$(notdir $*).ptx $(@:.o=.ptx) && rm -r $(@:.o=.keep)

build/cuda/%/steerd-cuda.so: $(patsubst %.c,build/cuda/%.c.o,$(CUDA_C) $(CUDA_OWN))
	$(SAY) LINK $@
	$(Q)$(NVCC) -o $@ $^ $(CUDA_LINK)
build/cuda/real/steerd-cuda.so: $(CUDA_CU:%.cu=build/cuda/real/%.o)
$(CUDA_ONE)/steerd-cuda.so: $(CUDA_CU:%.cu=$(CUDA_ONE)/%.o)

.SECONDARY: $(patsubst %.c,build/cuda/%.c.o,$(CUDA_C) $(CUDA_OWN))
cuda:
ifeq ($(NVCC),)
	@echo 'skip: the CUDA backend (no nvcc found; the CPU build serves everything)'
else
	@$(MAKE) --no-print-directory build/cuda/real/steerd-cuda.so
	@mkdir -p $(B) && ln -sfn ../cuda/real/steerd-cuda.so $(B)/steerd-cuda.so
	@echo 'build/$(VARIANT)/steerd-cuda.so: $(CUDA_ARCH_real)'
endif

cuda-quick:
ifeq ($(NVCC),)
	@echo 'skip: compiling the CUDA backend (no nvcc found)'
else
	@$(MAKE) --no-print-directory $(CUDA_ONE)/steerd-cuda.so
	@grep -h warning $(CUDA_CU:%.cu=$(CUDA_ONE)/%.usage) || true
	@$(PYTHON) tests/gpu/audit.py $(CUDA_ONE)
	@echo 'cuda: the backend compiles'
endif
cuda-native: $(CUDA_ONE)/steerd-cuda.so

# The same sources for the processor, against the emulator of tests/cuda_host: never shipped.
EMULATED     := $(B)/emulated/steerd-cuda-emulated.so
EMULATOR     := $(filter-out %/races.cpp,$(wildcard tests/cuda_host/*.cpp))
EMULATED_OBJ := $(patsubst %,$(B)/emulated/%.o,$(CUDA_C) $(CUDA_CU) $(CUDA_OWN) $(EMULATOR))
EMULATED_C   := $(BASE) $(CFLAGS_$(VARIANT)) -fPIC -fvisibility=hidden -Itests/cuda_host
# Not -O3: gcc 12 then fuses products with sums by twos (vfmaddsub), whatever -ffp-contract says, and bits differ.
EMULATED_CXX := -std=c++17 -I. -Itests/cuda_host -MMD -MP -Wall -Wextra -Wno-unknown-pragmas $(CFLAGS_$(VARIANT)) -O2 -fPIC -ffp-contract=off -pthread $(if $(shell grep -o -m1 -w fma /proc/cpuinfo 2>/dev/null),-mfma)
# Of the kernels: vectors read from other places than multiples of their size, and indices that overflow.
EMULATED_UB  := -fsanitize=alignment,signed-integer-overflow,shift,bounds,integer-divide-by-zero -fno-sanitize-recover=all
$(B)/emulated/%.c.o: %.c
	@mkdir -p $(@D)
	$(SAY) CC '$< (emulated)'
	$(Q)$(CC) $(EMULATED_C) -c -o $@ $<
# TSan knows no fibers: what runs on them goes without. One thread at a time runs kernels anyway.
$(B)/emulated/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(SAY) CXX '$< (emulated)'
	$(Q)$(CXX) $(filter-out -fsanitize=thread,$(EMULATED_CXX)) $(EMULATED_UB) -fdata-sections -fvisibility=hidden -x c++ -c -o $@ $<
$(B)/emulated/%/blocks.cpp.o: EMULATED_CXX := $(filter-out -fsanitize=thread,$(EMULATED_CXX))
$(B)/emulated/%.cpp.o: %.cpp
	@mkdir -p $(@D)
	$(SAY) CXX $<
	$(Q)$(CXX) $(EMULATED_CXX) -c -o $@ $<
EMULATED_LINK := $(filter -fsanitize=%,$(LDFLAGS_$(VARIANT)) $(EMULATED_UB)) -Wl,-T,tests/cuda_host/shared.ld
$(EMULATED): $(EMULATED_OBJ) tests/cuda_host/shared.ld
	$(SAY) LINK $@
	$(Q)$(CXX) -shared -o $@ $(EMULATED_OBJ) $(EMULATED_LINK) -lpthread -lm
# To see that it runs.
$(B)/emulated/limits: $(B)/emulated/tests/gpu/limits.cu.o $(patsubst %,$(B)/emulated/%.o,$(EMULATOR) core/math/dtype.c)
	$(SAY) LINK $@
	$(Q)$(CXX) -o $@ $^ $(EMULATED_LINK) -lpthread -lm
# The same with kernels that say what they read and write, and a detector of races that is told (tests/cuda_host/races.cpp): gcc's
# instrumentation without its library.
RACES       := $(B)/races/steerd-cuda-races.so
RACES_OBJ   := $(patsubst %,$(B)/races/%.o,$(CUDA_CU) $(EMULATOR) tests/cuda_host/races.cpp)
RACES_CXX   := $(filter-out -fsanitize=%,$(EMULATED_CXX)) -DEMULATED_RACES -Wno-tsan
RACES_WATCH := -fsanitize=thread --param tsan-instrument-func-entry-exit=0 -fdata-sections -fvisibility=hidden
$(B)/races/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(SAY) CXX '$< (watched)'
	$(Q)$(CXX) $(RACES_CXX) $(RACES_WATCH) -x c++ -c -o $@ $<
$(B)/races/%.cpp.o: %.cpp
	@mkdir -p $(@D)
	$(SAY) CXX '$< (races)'
	$(Q)$(CXX) $(RACES_CXX) -c -o $@ $<
$(RACES): $(RACES_OBJ) $(patsubst %,$(B)/emulated/%.o,$(CUDA_C) $(CUDA_OWN)) tests/cuda_host/shared.ld
	$(SAY) LINK $@
	$(Q)$(CXX) -shared -o $@ $(filter %.o,$^) -Wl,-T,tests/cuda_host/shared.ld -lpthread -lm -ldl
# Kernels that are wrong, to see that it finds them.
HAZARDS     := $(B)/races/hazards
$(HAZARDS): $(filter-out %.cu.o,$(RACES_OBJ)) $(B)/races/tests/cuda_host/hazards.cu.o $(B)/emulated/core/math/dtype.c.o tests/cuda_host/shared.ld
	$(SAY) LINK $@
	$(Q)$(CXX) -o $@ $(filter %.o,$^) -Wl,-T,tests/cuda_host/shared.ld -lpthread -lm -ldl
# The same library again, but a launch runs what nvcc has made of the kernel: its PTX, translated (tests/cuda_ptx). Never shipped.
PTX_FROM  := build/cuda/sm_90
PTX       := $(B)/ptx/steerd-cuda-ptx.so
PTX_MADE  := $(patsubst %.cu,$(B)/ptx/%.o,$(CUDA_CU))
PTX_OWN   := $(B)/ptx/tests/cuda_ptx/machine.o $(B)/ptx/tests/cuda_ptx/launch.o
PTX_CXX   := $(filter-out -fsanitize=% -O2,$(EMULATED_CXX)) -fno-math-errno
$(PTX_FROM)/%.ptx: $(PTX_FROM)/%.o ;
$(B)/ptx/%.cpp: $(PTX_FROM)/%.ptx $(wildcard tests/cuda_ptx/*.py)
	@mkdir -p $(@D)
	$(SAY) PTX $<
	$(Q)$(PYTHON) tests/cuda_ptx/translate.py $< $@
$(B)/ptx/tests/%.o: tests/%.cpp
	@mkdir -p $(@D)
	$(SAY) CXX $<
	$(Q)$(CXX) $(PTX_CXX) -O2 -fvisibility=hidden -c -o $@ $<
$(B)/ptx/%.o: $(B)/ptx/%.cpp
	$(SAY) CXX $<
	$(Q)$(CXX) $(PTX_CXX) -g0 -O1 -w -fvisibility=hidden -c -o $@ $<
$(PTX): $(EMULATED_OBJ) $(PTX_MADE) $(PTX_OWN) tests/cuda_host/shared.ld
	$(SAY) LINK $@
	$(Q)$(CXX) -shared -o $@ $(filter %.o,$^) $(EMULATED_LINK) -lpthread -lm -ldl
.SECONDARY: $(PTX_MADE:.o=.cpp)
# That with the detector of races.
PTX_RACES     := $(B)/races/steerd-cuda-ptx-races.so
PTX_RACES_OBJ := $(PTX_MADE:$(B)/ptx/%=$(B)/races/ptx/%) $(PTX_OWN:$(B)/ptx/%=$(B)/races/ptx/%)
$(B)/races/ptx/tests/%.o: tests/%.cpp
	@mkdir -p $(@D)
	$(SAY) CXX '$< (races)'
	$(Q)$(CXX) $(PTX_CXX) -DEMULATED_RACES -O2 -fvisibility=hidden -c -o $@ $<
$(B)/races/ptx/%.o: $(B)/ptx/%.cpp
	@mkdir -p $(@D)
	$(SAY) CXX '$< (races)'
	$(Q)$(CXX) $(PTX_CXX) -DEMULATED_RACES -g1 -O1 -w -fvisibility=hidden -c -o $@ $<
$(PTX_RACES): $(RACES_OBJ) $(PTX_RACES_OBJ) $(patsubst %,$(B)/emulated/%.o,$(CUDA_C) $(CUDA_OWN)) tests/cuda_host/shared.ld
	$(SAY) LINK $@
	$(Q)$(CXX) -shared -o $@ $(filter %.o,$^) -Wl,-T,tests/cuda_host/shared.ld -lpthread -lm -ldl
# That which counts what kernels do (tests/cuda_ptx/count.py).
PTX_COUNTED := $(B)/ptx-counted/steerd-cuda-ptx-counted.so
$(B)/ptx-counted/tests/%.o: tests/%.cpp
	@mkdir -p $(@D)
	$(SAY) CXX '$< (counted)'
	$(Q)$(CXX) $(PTX_CXX) -DPTX_COUNTED -O2 -fvisibility=hidden -c -o $@ $<
$(B)/ptx-counted/%.o: $(B)/ptx/%.cpp
	@mkdir -p $(@D)
	$(SAY) CXX '$< (counted)'
	$(Q)$(CXX) $(PTX_CXX) -DPTX_COUNTED -g0 -O1 -w -fvisibility=hidden -c -o $@ $<
$(PTX_COUNTED): $(EMULATED_OBJ) $(patsubst $(B)/ptx/%,$(B)/ptx-counted/%,$(PTX_MADE) $(PTX_OWN)) $(B)/ptx-counted/tests/cuda_ptx/count.o tests/cuda_host/shared.ld
	$(SAY) LINK $@
	$(Q)$(CXX) -shared -o $@ $(filter %.o,$^) $(EMULATED_LINK) -lpthread -lm -ldl
# The functions of its instructions, beside what the ISA says.
PTX_CHECK := $(B)/ptx/check_machine
$(PTX_CHECK): tests/cuda_ptx/check_machine.cpp $(B)/ptx/tests/cuda_ptx/machine.o $(patsubst %,$(B)/emulated/%.o,$(EMULATOR) core/math/dtype.c)
	$(SAY) TEST $@
	$(Q)$(CXX) $(PTX_CXX) -O1 -frounding-math -o $@ $(filter %.cpp %.o,$^) $(EMULATED_LINK) -lpthread -lm
# The tests of the processor's backend, with the CUDA backend in its place (tests/cuda_host/wrap.c).
CUDA_TESTS     := cuda cuda_backward cuda_matrices cuda_recording cuda_pages cuda_products cuda_rows cuda_kept cuda_mixed cuda_draws cuda_launches cuda_nodes codes splice splice_live ops ops_rows vjp backward direct plan families family_points process neurons engine_points engine_flight dict_kinds dict_formats dict_cross dict_points resident
# Of these, those in which several threads ask for something.
CUDA_THREADED  := cuda_matrices cuda_recording cuda_pages codes splice_live engine_points engine_flight resident
# Those whose bounds hold in plain mode too, and that say what they test by names of their own.
CUDA_PLAIN     := ops_rows codes
CUDA_TEST_BIN  := $(CUDA_TESTS:%=$(B)/tests-cuda/test_%)
$(B)/tests-cuda/%: tests/unit/%.c tests/cuda_host/wrap.c $(LIB_OBJ)
	@mkdir -p $(@D)
	$(SAY) TEST $@
	$(Q)$(CC) $(BASE) $(CFLAGS_$(VARIANT)) $(LDFLAGS_$(VARIANT)) -Wl,--wrap=backend_open -o $@ $< tests/cuda_host/wrap.c $(LIB_OBJ) -lcmocka $(LDLIBS)

# On a machine with a GPU, from this repository alone: tests of core/math and the bench need neither cmocka nor any library of the
# daemon. What is compiled and never called (readers of JSON) is left out by the linker.
GPU_B     := build/gpu
GPU_SRC   := $(wildcard core/math/*.c core/math/ref/*.c core/math/cpu/*.c) $(addprefix core/base/,error.c random.c pool.c log.c \
             clock.c room.c utf8.c unicode.c buffer.c) $(addprefix core/model/,plan.c instrument.c rotary.c arch.c) core/engine/sampler.c
GPU_OBJ   := $(GPU_SRC:%.c=$(GPU_B)/%.o)
GPU_TESTS := ops_rows cuda cuda_matrices cuda_recording cuda_pages cuda_products cuda_kept cuda_mixed cuda_launches cuda_draws ops vjp codes kernels
GPU_BIN   := $(GPU_TESTS:%=$(GPU_B)/test_%) $(GPU_B)/bench_gpu
GPU_CMOCKA := -Itests/gpu/without_cmocka -Werror=implicit-function-declaration
GPU_LINK  := -O2 -g -pie -Wl,--gc-sections -Wl,--wrap=backend_open
$(GPU_B)/core/math/cpu/%_avx2.o: EXTRA := -O3 -mavx2 -mfma -mf16c
$(GPU_B)/core/math/cpu/%_avx512.o: EXTRA := -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
$(GPU_B)/core/%.o: core/%.c
	@mkdir -p $(@D)
	$(SAY) CC '$< (gpu)'
	$(Q)$(CC) $(BASE) -O2 -g -ffunction-sections -fdata-sections $(EXTRA) -c -o $@ $<
$(GPU_B)/test_%: tests/unit/test_%.c tests/cuda_host/wrap.c $(GPU_OBJ)
	$(SAY) TEST $@
	$(Q)$(CC) $(BASE) $(GPU_CMOCKA) $(GPU_LINK) -o $@ $< tests/cuda_host/wrap.c $(GPU_OBJ) -lm -lpthread -ldl
$(GPU_B)/bench_gpu: $(wildcard tests/gpu/bench_*.c tests/gpu/bench_*.h) $(GPU_OBJ)
	$(SAY) BENCH $@
	$(Q)$(CC) $(BASE) -O2 -g -pie -Wl,--gc-sections -o $@ $(filter %.c %.o,$^) -lm -lpthread -ldl
# What the device could give: a program of its own, without the backend. gpu-bundle takes one for every architecture.
LIMITS_ARCH := $(CUDA_ARCH_one)
$(GPU_B)/limits-sm_$(SM) $(GPU_B)/bundle/limits: tests/gpu/limits.cu
	@mkdir -p $(@D)
	$(SAY) NVCC $@
	$(Q)$(NVCC) -std=c++17 -O3 $(LIMITS_ARCH) -Wno-deprecated-gpu-targets -o $@ $<
$(GPU_B)/bundle/limits: LIMITS_ARCH := $(CUDA_ARCH_real)
# The tests of whole models, with the libraries that a machine with a GPU may not have linked in: made here, carried there.
GPU_BUNDLE_TESTS := cuda_rows splice splice_live backward direct plan families family_points points instrument engine_points engine_flight prefix dict_kinds dict_cross dict_points dict_formats process neurons resident llama2c lab work
# These ask the emulator for failures and counts, which a device has none of. Whatever else runs on it runs on a device too.
EMULATED_ONLY    := cuda_backward cuda_nodes
LEFT_AT_HOME     := $(filter-out $(GPU_TESTS) $(GPU_BUNDLE_TESTS) $(EMULATED_ONLY),$(CUDA_TESTS))
$(if $(LEFT_AT_HOME),$(error no machine with a GPU would run these tests, which are neither in GPU_TESTS nor in GPU_BUNDLE_TESTS: $(LEFT_AT_HOME)))
GPU_BUNDLE       := $(GPU_BUNDLE_TESTS:%=$(GPU_B)/bundle/test_%)
$(B)/libsteerd.a: $(LIB_OBJ)
	$(Q)rm -f $@ && ar rcs $@ $(LIB_OBJ)
$(GPU_B)/bundle/test_%: tests/unit/test_%.c tests/cuda_host/wrap.c $(B)/libsteerd.a
	@mkdir -p $(@D)
	$(SAY) TEST $@
	$(Q)$(CC) $(BASE) -O2 -pie -s -Wl,--wrap=backend_open -o $@ $< tests/cuda_host/wrap.c $(B)/libsteerd.a -Wl,-Bstatic -ljansson \
	  -lsqlite3 -linih -lpcre2-8 -lz -Wl,-Bdynamic -lcmocka -lm -lpthread -ldl -Wl,-rpath,'$$ORIGIN'
# The daemon goes with every library it needs but those of the C compiler.
gpu-bundle: $(GPU_BUNDLE) $(GPU_BIN) build/steerd cuda $(GPU_B)/bundle/limits
	@cp -L $$($(CC) -print-file-name=libcmocka.so) $(GPU_B)/bundle/libcmocka.so.0
	@cp -L $(B)/steerd-cuda.so $(GPU_BIN) $(GPU_B)/bundle/
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS_$(VARIANT)) -s -Wl,--disable-new-dtags,-rpath,'$$ORIGIN/lib' -o $(GPU_B)/bundle/steerd $(B)/server/main.o $(LIB_OBJ) $(LDLIBS)
	@mkdir -p $(GPU_B)/bundle/lib
	@ldd $(B)/steerd | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p' | grep -vE '/(libc|libm|libpthread|libdl|librt|libgcc_s)\.so' | xargs cp -L -t $(GPU_B)/bundle/lib
	@for test in $(GPU_BIN:$(GPU_B)/%=$(GPU_B)/bundle/%); do strip $$test; done
	@strip $(GPU_B)/bundle/limits; echo $(COMMIT) >$(GPU_B)/bundle/commit
	@tar -C $(GPU_B) -cf - --exclude='*.d' bundle | xz -9 -T1 >$(GPU_B)/bundle.tar.xz && du -h $(GPU_B)/bundle.tar.xz
.SECONDARY: $(GPU_OBJ)
gpu-programs: $(GPU_BIN)
gpu-check:
	@tests/gpu/check.sh
gpu-bench:
	@tests/gpu/bench.sh
gpu-trace:
	@tests/gpu/bench.sh trace
gpu-all:
	@tests/gpu/all.sh
# All of it but the GPU: on the emulator, with small shapes.
gpu-rehearse: $(EMULATED) $(B)/emulated/limits gpu-programs
	@tests/gpu/rehearse.sh

.PHONY: cuda-quick cuda-native emulated unit-emulated racecheck ptx ptx-counted unit-ptx racecheck-ptx cuda-tests gpu-bundle gpu-programs gpu-check gpu-bench gpu-trace gpu-all gpu-rehearse
emulated: $(EMULATED)
# Every kernel comes up in these, and every barrier in a way that needs it.
RACE_TESTS := ops_rows ops vjp cuda_nodes cuda_kept cuda_draws dict_kinds dict_cross splice engine_points
RACE_BIN   := $(RACE_TESTS:%=$(B)/tests-cuda/test_%) $(CUDA_PLAIN:%=$(B)/tests-cuda/test_%)
racecheck: $(RACES) $(HAZARDS) $(RACE_BIN)
	@$(HAZARDS)
	@STEERD_CUDA_LIBRARY=$(abspath $(RACES)) STEERD_TEST_BACKEND=cuda tests/tools/run_unit.sh $(CUDA_PLAIN:%=$(B)/tests-cuda/test_%)
	@STEERD_CUDA_LIBRARY=$(abspath $(RACES)) STEERD_TEST_BACKEND=cuda+deterministic tests/tools/run_unit.sh $(RACE_TESTS:%=$(B)/tests-cuda/test_%)
cuda-tests: $(GPU_BUNDLE_TESTS:%=$(B)/tests-cuda/test_%)
unit-emulated: $(EMULATED) $(CUDA_TEST_BIN)
	@UNIT_JOBS=$(shell nproc) STEERD_CUDA_LIBRARY=$(abspath $(EMULATED)) STEERD_TEST_BACKEND=cuda+deterministic tests/tools/run_unit.sh $(CUDA_TEST_BIN)
# Each skipped by name where there is no nvcc.
ifeq ($(NVCC),)
ptx ptx-counted unit-ptx racecheck-ptx:
	@echo 'skip: the kernels as nvcc translates them (no nvcc found)'
else
ptx:
	@$(MAKE) --no-print-directory SM=90 $(PTX)
ptx-counted:
	@$(MAKE) --no-print-directory SM=90 $(PTX_COUNTED)
unit-ptx: ptx $(CUDA_TEST_BIN)
	@$(MAKE) --no-print-directory SM=90 $(PTX_CHECK)
	@$(PTX_CHECK)
	@$(PYTHON) tests/cuda_ptx/test_translate.py
	@STEERD_CUDA_LIBRARY=$(abspath $(PTX)) STEERD_TEST_BACKEND=cuda+deterministic tests/tools/run_unit.sh $(CUDA_TEST_BIN)
	@STEERD_CUDA_LIBRARY=$(abspath $(PTX)) STEERD_TEST_BACKEND=cuda tests/tools/run_unit.sh $(CUDA_PLAIN:%=$(B)/tests-cuda/test_%)
racecheck-ptx: $(RACE_BIN)
	@$(MAKE) --no-print-directory SM=90 $(PTX_RACES)
	@STEERD_CUDA_LIBRARY=$(abspath $(PTX_RACES)) STEERD_TEST_BACKEND=cuda tests/tools/run_unit.sh $(CUDA_PLAIN:%=$(B)/tests-cuda/test_%)
	@STEERD_CUDA_LIBRARY=$(abspath $(PTX_RACES)) STEERD_TEST_BACKEND=cuda+deterministic tests/tools/run_unit.sh $(RACE_TESTS:%=$(B)/tests-cuda/test_%)
endif

build/steerd: $(B)/steerd
	$(Q)ln -sfn $(VARIANT)/steerd $@

$(B)/steerd: $(B)/server/main.o $(LIB_OBJ)
	$(SAY) LINK $@
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS_$(VARIANT)) -o $@ $^ $(LDLIBS)

# The vector kernels are compiled once for each instruction set and chosen at run time.
$(B)/core/math/cpu/%_avx2.o: EXTRA := -O3 -mavx2 -mfma -mf16c
$(B)/core/math/cpu/%_avx512.o: EXTRA := -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
$(B)/core/math/cpu/%_generic.o: EXTRA := -O3

# Only the files that tell it are compiled with the version, so that a commit does not change every command line.
STAMPED := $(B)/api/graph_json.o $(B)/api/openai_request.o $(B)/api/openapi.o $(B)/api/operations.o $(B)/server/main.o
$(STAMPED): STAMP := -DSTEERD_VERSION='"$(VERSION)"' -DSTEERD_COMMIT='"$(COMMIT)"'
$(STAMPED): $(B)/stamp
.PHONY: FORCE
$(B)/stamp: FORCE
	@mkdir -p $(@D); echo '$(VERSION) $(COMMIT)' | cmp -s - $@ || echo '$(VERSION) $(COMMIT)' >$@

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(CFLAGS) $(STAMP) -c -o $@ $<

$(B)/tests/%: tests/unit/%.c $(LIB_OBJ)
	@mkdir -p $(@D)
	$(SAY) TEST $@
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS_$(VARIANT)) -MF $@.d -o $@ $< $(LIB_OBJ) -lcmocka $(LDLIBS)

# Programs that the scripts of tests/tools drive.
$(B)/tools/%: tests/tools/%.c $(LIB_OBJ)
	@mkdir -p $(@D)
	$(SAY) TOOL $@
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS_$(VARIANT)) -MF $@.d -o $@ $< $(LIB_OBJ) $(LDLIBS)

$(B)/bench/%: tests/bench/%.c $(LIB_OBJ)
	@mkdir -p $(@D)
	$(SAY) BENCH $@
	$(Q)$(CC) $(CFLAGS) -O3 -march=native $(LDFLAGS_$(VARIANT)) -MF $@.d -o $@ $< $(LIB_OBJ) $(LDLIBS)

deps:
	@tests/tools/deps.sh --install

# Everything a newcomer needs: packages, build, the demo in the foreground.
demo: deps
	@$(MAKE) --no-print-directory $(PARALLEL) build
	@tests/tools/demo.sh build/steerd

unit-programs: $(UNIT_BIN) $(EMULATED) $(CUDA_TEST_BIN)

unit: $(UNIT_BIN)
	@tests/tools/run_unit.sh $(UNIT_BIN)

http: build/steerd
	@STEERD_BINARY=$(abspath $(B))/steerd $(PYTHON) -m pytest -q tests/http

browser: build/steerd
	@STEERD_BINARY=$(abspath $(B))/steerd $(PYTHON) -m pytest -q tests/browser

test:
	@tests/tools/deps.sh --install-tests
	@$(MAKE) --no-print-directory $(PARALLEL) check-layers build unit-programs gpu-programs
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory $(PARALLEL) cuda-quick
	@$(MAKE) --no-print-directory unit-emulated
# Both wait for others most of the time, so they run at once; what each says comes as a whole, at its end.
	@echo 'tests over HTTP and in a browser: some minutes'
	@$(MAKE) --no-print-directory $(PARALLEL) --output-sync=target http browser

check: WERROR := 1
check: check-layers check-warnings build unit

asan:
	@$(MAKE) --no-print-directory VARIANT=asan unit unit-emulated build/asan/steerd
	@STEERD_BINARY=$(abspath build/asan)/steerd $(PYTHON) -m pytest -q tests/http

tsan:
	@$(MAKE) --no-print-directory VARIANT=tsan unit
	@$(MAKE) --no-print-directory VARIANT=tsan CUDA_TESTS='$(CUDA_THREADED)' unit-emulated

clang:
	@$(MAKE) --no-print-directory VARIANT=clang CC=clang build/clang/steerd

check-layers:
	@tests/tools/check_layers.sh
	@tests/gpu/test_goals.sh

# Every file again with both compilers, warnings as errors, nothing kept.
check-warnings:
	@tests/tools/check_warnings.sh

fuzz:
	@tests/fuzz/run.sh $(FUZZ_SRC)

bench: build/steerd $(BENCH_BIN)
	@tests/bench/run.sh $(B)

fmt:
	@clang-format -i $$(git ls-files '*.c' '*.h')

PREFIX ?= /usr/local
SHARE  := $(DESTDIR)$(PREFIX)/share/steerd
UNIT   := $(DESTDIR)$(PREFIX)/lib/systemd/system/steerd.service
MAN    := $(DESTDIR)$(PREFIX)/share/man/man1/steerd.1
install: build/steerd
	install -D -m 755 $(B)/steerd $(DESTDIR)$(PREFIX)/bin/steerd
	install -D -m 644 docs/steerd.1 $(MAN)
	install -d $(SHARE) $(dir $(UNIT))
	$(if $(wildcard $(B)/steerd-cuda.so),install -D -m 755 $(B)/steerd-cuda.so $(DESTDIR)$(PREFIX)/lib/steerd/steerd-cuda.so)
	cp -r config/*.ini config/models config/demo static $(SHARE)/
	rm -rf $(SHARE)/demo/training $(SHARE)/demo/cache
	chmod -R u=rwX,go=rX $(SHARE)
	sed 's|@BIN@|$(PREFIX)/bin|' config/steerd.service >$(UNIT) && chmod 644 $(UNIT)

# Takes back what install put there; stores and settings elsewhere stay.
uninstall:
	rm -rf $(DESTDIR)$(PREFIX)/bin/steerd $(DESTDIR)$(PREFIX)/lib/steerd $(SHARE) $(UNIT) $(MAN)

deb: build/steerd
	@tests/tools/make_deb.sh $(VERSION) $(VARIANT)

docker:
	@docker/build.sh cpu $(VERSION) $(COMMIT)
docker-cuda:
	@docker/build.sh cuda $(VERSION) $(COMMIT)

clean:
	rm -rf build

-include $(shell find build -name '*.d' 2>/dev/null)
