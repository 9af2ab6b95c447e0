/* limits: what any program can get from the device, whatever its kernels are: the rate at which it reads, how long a matrix of a
 * given size takes to be read by a launch of its own, what a launch costs in a graph, and what the way from the host to the device and
 * back costs. Prints a table in Markdown; --figures FILE: appends `device|limits|which|number` for goals.awk and bench_gpu.
 *
 *   limits [--figures FILE] [--tiny]
 *
 * Knows nothing of the backend. Figures are medians, of a device that has worked for a while before. */
#include <cuda_runtime.h>

#include <algorithm>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define THREADS 256
#define MOST_AT_ONCE 8 /* pieces of 16 bytes that a thread has on their way */
#define CHAIN 100      /* kernels of a graph */
#define TURNS 25

static bool tiny;
static cudaStream_t stream;
static int processors;
static bool can_overlap; /* older devices run one kernel after the other */

static void check(cudaError_t status, const char *what) {
  if (status == cudaSuccess) return;
  fflush(stdout);
  fprintf(stderr, "limits: %s: %s\n", what, cudaGetErrorString(status));
  exit(1);
}

static double seconds() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* By asking, as the backend does. */
static void wait() {
  cudaError_t status;
  while ((status = cudaStreamQuery(stream)) == cudaErrorNotReady) {}
  check(status, "waiting");
}

template <class F> static double median_of(F run) {
  double times[TURNS];
  int turns = tiny ? 1 : TURNS;
  for (double begin = seconds(); seconds() - begin < (tiny ? 0 : 0.1);) run();
  for (int i = 0; i < turns; i++) times[i] = run();
  std::sort(times, times + turns);
  return times[turns / 2];
}

/* ---- kernels ------------------------------------------------------------------------------------------------------------ */

/* As in the backend's kernels (device.cuh). */
static __device__ __forceinline__ void follow() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

struct read_args {
  const uint4 *from;
  size_t n;
  unsigned *out; /* written where the sum is one that does not happen: or nothing would be read */
};

/* So many pieces of a thread at a time; those beyond the end are not asked for. */
template <int AT_ONCE> static __device__ __forceinline__ unsigned read_pieces(const read_args &a, size_t at, size_t step) {
  uint4 piece[AT_ONCE];
  unsigned sum = 0;
#pragma unroll
  for (int i = 0; i < AT_ONCE; i++) piece[i] = at + (size_t)i * step < a.n ? __ldcs(a.from + at + (size_t)i * step) : make_uint4(0, 0, 0, 0);
#pragma unroll
  for (int i = 0; i < AT_ONCE; i++) sum += piece[i].x ^ piece[i].y ^ piece[i].z ^ piece[i].w;
  return sum;
}

template <int AT_ONCE> static __global__ void read_kernel(const __grid_constant__ read_args a) {
  follow();
  size_t step = (size_t)gridDim.x * THREADS;
  unsigned sum = 0;
  for (size_t at = (size_t)blockIdx.x * THREADS + threadIdx.x; at < a.n; at += AT_ONCE * step) sum += read_pieces<AT_ONCE>(a, at, step);
  if (sum == 0x5eed1e55u) *a.out = sum;
}

/* What weights allow: they are on their way before the kernel in front of it has ended. */
template <int AT_ONCE> static __global__ void read_ahead_kernel(const __grid_constant__ read_args a) {
  size_t step = (size_t)gridDim.x * THREADS, at = (size_t)blockIdx.x * THREADS + threadIdx.x;
  unsigned sum = read_pieces<AT_ONCE>(a, at, step);
  follow();
  for (at += AT_ONCE * step; at < a.n; at += AT_ONCE * step) sum += read_pieces<AT_ONCE>(a, at, step);
  if (sum == 0x5eed1e55u) *a.out = sum;
}

struct nothing_args {
  unsigned *out;
};

static __global__ void nothing_kernel(const __grid_constant__ nothing_args a) {
  follow();
  if (a.out && threadIdx.x == 0 && blockIdx.x == 0) *a.out += 1;
}

struct bring_args {
  uint4 *to;
  const uint4 *from; /* locked memory of the host */
};
static __global__ void bring_kernel(const __grid_constant__ bring_args a) {
  follow();
  a.to[threadIdx.x] = a.from[threadIdx.x];
}

template <class A> static void start(void (*kernel)(A), const A &args, unsigned blocks, bool overlaps) {
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(THREADS);
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = overlaps ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, args), "a launch");
}

/* ---- what is measured ------------------------------------------------------------------------------------------------------ */

static void sleep_before(void *) {
  struct timespec time = {0, 100000};
  nanosleep(&time, NULL);
}

static size_t read_at;
static cudaEvent_t read_begin, read_end;

static void make_events(void) {
  if (read_begin) return;
  check(cudaEventCreateWithFlags(&read_begin, cudaEventDefault), "an event");
  check(cudaEventCreateWithFlags(&read_end, cudaEventDefault), "an event");
}

/* The same for a kernel that does nothing: what times of kernels one by one have in them besides the kernel. */
static double nothing_once() {
  float milliseconds;
  make_events();
  check(cudaLaunchHostFunc(stream, sleep_before, NULL), "a call");
  start(nothing_kernel, nothing_args{NULL}, 1, false);
  check(cudaEventRecord(read_begin, stream), "an event");
  start(nothing_kernel, nothing_args{NULL}, (unsigned)processors, false);
  check(cudaEventRecord(read_end, stream), "an event");
  wait();
  check(cudaEventElapsedTime(&milliseconds, read_begin, read_end), "an event");
  return (double)milliseconds * 1e-3;
}

/* Another place each time, so that nothing is in the second cache. */
static read_args next_read(const unsigned char *from, size_t all, size_t bytes, unsigned *out) {
  read_at = read_at + 2 * bytes <= all ? read_at + bytes : 0;
  return read_args{(const uint4 *)(const void *)(from + read_at), bytes / 16, out};
}

/* So many pieces a thread, as far as all of them can be on their way at once; several turns beyond. */
static unsigned blocks_of(size_t bytes, size_t pieces) {
  size_t blocks = (bytes / 16 + pieces * THREADS - 1) / (pieces * THREADS), most = (size_t)processors * 8;
  return (unsigned)(blocks < most ? blocks : most);
}

/* How a thread reads: its pieces at a time. Fewer make more blocks of a small matrix. */
typedef void (*read_function)(read_args);
static const struct way {
  int pieces;
  read_function kernel, ahead;
} ways[] = {{1, read_kernel<1>, read_ahead_kernel<1>}, {2, read_kernel<2>, read_ahead_kernel<2>}, {4, read_kernel<4>, read_ahead_kernel<4>},
            {MOST_AT_ONCE, read_kernel<MOST_AT_ONCE>, read_ahead_kernel<MOST_AT_ONCE>}};

/* Seconds, on the device's own clock, in which `bytes` are read. */
static double read_once(const struct way &way, const unsigned char *from, size_t all, size_t bytes, unsigned *out) {
  float milliseconds;
  make_events();
  read_args args = next_read(from, all, bytes, out);
  check(cudaLaunchHostFunc(stream, sleep_before, NULL), "a call"); /* what follows is there when the device comes to it */
  start(nothing_kernel, nothing_args{NULL}, 1, false);
  check(cudaEventRecord(read_begin, stream), "an event");
  start(way.kernel, args, blocks_of(bytes, (size_t)way.pieces), false);
  check(cudaEventRecord(read_end, stream), "an event");
  wait();
  check(cudaEventElapsedTime(&milliseconds, read_begin, read_end), "an event");
  return (double)milliseconds * 1e-3;
}

static double run_graph(cudaGraphExec_t exec);

static cudaGraphExec_t end_recording() {
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  check(cudaStreamEndCapture(stream, &graph), "recording");
  check(cudaGraphInstantiate(&exec, graph, 0), "recording");
  check(cudaGraphDestroy(graph), "recording");
  return exec;
}

/* The matrices of GPT-2 small in bf16, one behind the other in a graph, and nothing but read: what its decode cannot go below with a launch
 * for each. Reads wait for the kernel in front of them, or begin before their turn. */
static void report_chain(const unsigned char *from, size_t all, unsigned *out) {
  static const size_t sizes[] = {768 * 2304 * 2, 768 * 768 * 2, 768 * 3072 * 2, 3072 * 768 * 2};
  size_t bytes = 0;
  int layers = tiny ? 1 : 12;
  for (int early = 0; early <= can_overlap; early++) {
    double best = 0;
    for (const struct way &way : ways) {
      bytes = 0;
      check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "recording");
      for (int i = 0; i < 4 * layers; i++) {
        size_t size = tiny ? sizes[i % 4] >> 10 : sizes[i % 4];
        bytes += size;
        start(early ? way.ahead : way.kernel, next_read(from, all, size, out), blocks_of(size, (size_t)way.pieces), early);
      }
      cudaGraphExec_t exec = end_recording();
      double time = median_of([&] { return run_graph(exec); });
      check(cudaGraphExecDestroy(exec), "a graph");
      if (best == 0 || time < best) best = time;
    }
    printf("| %d matrices of GPT-2 small read in one graph%s | %.1f us | %.0f GB/s |\n", 4 * layers, early ? ", begun early" : "", 1e6 * best,
           (double)bytes / best * 1e-9);
  }
}

static double report_reads(unsigned *out) {
  static const size_t sizes[] = {(size_t)2 << 20, (size_t)9 << 20, (size_t)36 << 20, (size_t)128 << 20, (size_t)1 << 30};
  size_t all = tiny ? (size_t)1 << 20 : (size_t)4 << 30;
  unsigned char *from = NULL;
  double best = 0;
  check(cudaMalloc((void **)&from, all), "memory");
  check(cudaMemsetAsync(from, 0x3b, all, stream), "memory");
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    size_t bytes = tiny ? sizes[i] >> 14 : sizes[i];
    double time = 0;
    int pieces = 0;
    for (const struct way &way : ways) { /* the best of them is the limit */
      double one = median_of([&] { return read_once(way, from, all, bytes, out); });
      if (!pieces || one < time) time = one, pieces = way.pieces;
    }
    printf("| reading %.1f MB in one launch, %d pieces of 16 bytes a thread at a time | %.1f us | %.0f GB/s |\n", (double)bytes * 1e-6, pieces,
           1e6 * time, (double)bytes / time * 1e-9);
    if ((double)bytes / time > best) best = (double)bytes / time;
  }
  report_chain(from, all, out);
  cudaFree(from);
  return best;
}

static cudaGraphExec_t record(int kernels, unsigned blocks, bool overlaps, unsigned *out) {
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "recording");
  for (int i = 0; i < kernels; i++) start(nothing_kernel, nothing_args{out}, blocks, overlaps);
  return end_recording();
}

static double run_graph(cudaGraphExec_t exec) {
  double begin = seconds();
  check(cudaGraphLaunch(exec, stream), "a graph");
  wait();
  return seconds() - begin;
}

/* What it costs to have 4 KB of tables on the device before a graph begins: sent by a copy, or brought by a kernel. */
static void report_tables(cudaGraphExec_t one) {
  unsigned char *locked = NULL, *tables = NULL;
  check(cudaMallocHost((void **)&locked, 8192), "locked memory");
  check(cudaMalloc((void **)&tables, 8192), "memory");
  memset(locked, 1, 8192);
  double with = median_of([&] {
    double begin = seconds();
    check(cudaMemcpyAsync(tables, locked, THREADS * 16, cudaMemcpyHostToDevice, stream), "a copy");
    run_graph(one);
    return seconds() - begin;
  });
  printf("| the same behind a copy of 4 KB from locked memory | %.1f us | |\n", 1e6 * with);
  double brought = median_of([&] {
    double begin = seconds();
    start(bring_kernel, bring_args{(uint4 *)(void *)tables, (const uint4 *)(const void *)locked}, 1, false);
    run_graph(one);
    return seconds() - begin;
  });
  printf("| the same behind a kernel that fetches them from there | %.1f us | |\n", 1e6 * brought);
  cudaFreeHost(locked);
  cudaFree(tables);
}

static void report_launches(unsigned *out) {
  unsigned blocks = (unsigned)processors;
  printf("| a kernel that does nothing between two events, as gpu-trace times each | %.2f us | |\n", 1e6 * median_of(nothing_once));
  cudaGraphExec_t one = record(1, blocks, false, out);
  double alone = median_of([&] { return run_graph(one); });
  printf("| a graph of one kernel, launched and waited for | %.1f us | |\n", 1e6 * alone);
  for (int overlaps = 0; overlaps <= can_overlap; overlaps++) {
    cudaGraphExec_t chain = record(CHAIN, blocks, overlaps, out);
    double time = median_of([&] { return run_graph(chain); });
    printf("| each further kernel of a graph%s (%u blocks that do nothing) | %.2f us | |\n", overlaps ? ", begun early" : "", blocks,
           1e6 * (time - alone) / (CHAIN - 1));
    check(cudaGraphExecDestroy(chain), "a graph");
  }
  report_tables(one);
  double asked = median_of([&] {
    double begin = seconds();
    check(cudaGraphLaunch(one, stream), "a graph");
    double time = seconds() - begin;
    wait();
    return time;
  });
  printf("| until the call that launches a graph returns | %.1f us | |\n", 1e6 * asked);
  check(cudaGraphExecDestroy(one), "a graph");
}

int main(int argc, char **argv) {
  FILE *figures = NULL;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--tiny")) tiny = true;
    else if (!strcmp(argv[i], "--figures") && i + 1 < argc) figures = fopen(argv[++i], "a");
    else return fprintf(stderr, "usage: limits [--figures FILE] [--tiny]\n"), 2;
  }
  cudaDeviceProp found;
  unsigned *out = NULL;
  check(cudaSetDevice(0), "the device");
  check(cudaGetDeviceProperties(&found, 0), "the device");
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
  can_overlap = found.major >= 9;
  processors = tiny ? 2 : found.multiProcessorCount;
  check(cudaMalloc((void **)&out, sizeof *out), "memory");
  check(cudaMemsetAsync(out, 0, sizeof *out, stream), "memory");
  printf("| %s, %d processors | | |\n| --- | --- | --- |\n", found.name, found.multiProcessorCount);
  double rate = report_reads(out);
  fflush(stdout);
  if (figures) fprintf(figures, "device|limits|read|%.6g\n", rate), fflush(figures);
  report_launches(out);
  check(cudaStreamDestroy(stream), "a stream");
  cudaFree(out);
  if (figures) fclose(figures);
  return 0;
}
