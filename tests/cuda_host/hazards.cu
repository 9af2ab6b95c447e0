/* hazards.cu: kernels that are wrong on a device, each with a twin that is right: the detector of races (races.cpp) has to name the one and
 * to be silent about the other, in every order. `hazards`: all of them, each in a process of its own. */
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cuda_runtime.h"

#define THREADS 64
#define BLOCKS 5
#define ROOM 4096

struct memory {
  float *from, *to;
  unsigned *count;
};

/* What a kernel leaves out; RIGHT: nothing. */
enum part { RIGHT, FIRST_FENCE, SECOND_FENCE, FIRST_BARRIER, SECOND_BARRIER, ATOMIC, WAIT };

static __device__ void grid_follow(void) {
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
}

/* ---- a block ---------------------------------------------------------------------------------------------------------------- */

template <part WITHOUT> static __global__ void neighbours(memory m) {
  __shared__ float row[THREADS];
  grid_follow();
  int i = threadIdx.x;
  for (int turn = 0; turn < 2; turn++) {
    row[i] = m.from[i];
    if (WITHOUT != FIRST_BARRIER) __syncthreads();
    m.to[(int)blockIdx.x * THREADS + i] = row[(i + 32) % THREADS];
    if (WITHOUT != SECOND_BARRIER) __syncthreads();
  }
}

template <part WITHOUT> static __global__ void lanes(memory m) {
  __shared__ float row[THREADS];
  grid_follow();
  int i = threadIdx.x;
  row[i] = m.from[i];
  if (WITHOUT != FIRST_BARRIER) __syncwarp();
  m.to[(int)blockIdx.x * THREADS + i] = row[i ^ 1];
}

/* Lanes that have met have not seen each other's memory. */
template <part WITHOUT> static __global__ void shuffles(memory m) {
  __shared__ float row[THREADS];
  grid_follow();
  int i = threadIdx.x;
  row[i] = m.from[i];
  float other = __shfl_xor_sync(0xFFFFFFFFu, m.from[i], 1);
  if (WITHOUT != FIRST_BARRIER) __syncwarp();
  m.to[(int)blockIdx.x * THREADS + i] = row[i ^ 1] + other;
}

template <part WITHOUT> static __global__ void unwritten(memory m) {
  __shared__ float row[THREADS];
  grid_follow();
  int i = threadIdx.x;
  if (WITHOUT == RIGHT || i != 7) row[i] = m.from[i];
  __syncthreads();
  m.to[(int)blockIdx.x * THREADS + i] = row[(i + 1) % THREADS];
}

template <part WITHOUT> static __global__ void unwritten_device(memory m) {
  grid_follow();
  m.to[(int)blockIdx.x * THREADS + (int)threadIdx.x] = m.from[WITHOUT == RIGHT ? threadIdx.x : ROOM / 2 + threadIdx.x];
}

template <part WITHOUT> static __global__ void counts(memory m) {
  __shared__ unsigned sum;
  grid_follow();
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  if (WITHOUT == ATOMIC) sum++;
  else atomicAdd(&sum, 1u);
  if (WITHOUT != SECOND_BARRIER) __syncthreads();
  m.to[(int)blockIdx.x * THREADS + (int)threadIdx.x] = (float)sum;
}

/* ---- copies that are not waited for ---------------------------------------------------------------------------------------------- */

template <part WITHOUT> static __global__ void copies(memory m) {
  __shared__ __attribute__((aligned(16))) float row[4 * THREADS];
  grid_follow();
  int i = threadIdx.x;
  copy_start(row + 4 * i, m.from + 4 * i, true);
  copy_group();
  if (WITHOUT != WAIT) copy_wait<0>();
  if (WITHOUT != FIRST_BARRIER) __syncthreads();
  m.to[(int)blockIdx.x * THREADS + i] = row[(4 * i + 128) % (4 * THREADS)];
  if (WITHOUT == WAIT) copy_wait<0>();
}

/* Its own piece: no barrier, but a wait; of two groups, the first. */
template <part WITHOUT> static __global__ void own_copies(memory m) {
  __shared__ __attribute__((aligned(16))) float row[2][4 * THREADS];
  grid_follow();
  int i = threadIdx.x;
  for (int k = 0; k < 2; k++) {
    copy_start(row[k] + 4 * i, m.from + 4 * i, true);
    copy_group();
  }
  copy_wait<1>();
  m.to[(int)blockIdx.x * THREADS + i] = row[WITHOUT == WAIT][4 * i];
  copy_wait<0>();
}

template <part WITHOUT> static __global__ void left_copies(memory m) {
  __shared__ __attribute__((aligned(16))) float row[4 * THREADS];
  grid_follow();
  copy_start(row + 4 * threadIdx.x, m.from + 4 * threadIdx.x, true);
  copy_group();
  if (WITHOUT != WAIT) copy_wait<0>();
}

/* ---- blocks ------------------------------------------------------------------------------------------------------------------- */

/* Each block leaves a row; the last one adds them up. */
template <part WITHOUT> static __global__ void last_block(memory m) {
  __shared__ bool last;
  grid_follow();
  int i = threadIdx.x;
  m.to[(int)blockIdx.x * THREADS + i] = m.from[i];
  if (WITHOUT != FIRST_BARRIER) __syncthreads();
  if (i == 0) {
    if (WITHOUT != FIRST_FENCE) __threadfence();
    if (WITHOUT == ATOMIC) last = ++*m.count == gridDim.x;
    else last = atomicAdd(m.count, 1u) == gridDim.x - 1;
    if (last) *m.count = 0;
    if (WITHOUT != SECOND_FENCE) __threadfence();
  }
  if (WITHOUT != SECOND_BARRIER) __syncthreads();
  if (!last) return;
  float sum = 0;
  for (unsigned block = 0; block < gridDim.x; block++) sum += m.to[(int)block * THREADS + i];
  m.to[(int)gridDim.x * THREADS + i] = sum;
}

/* The same where each thread has its own fences: in front of the barrier, and behind it. */
template <part WITHOUT> static __global__ void last_block_by_threads(memory m) {
  __shared__ bool last;
  grid_follow();
  int i = threadIdx.x;
  m.to[(int)blockIdx.x * THREADS + i] = m.from[i];
  if (WITHOUT != FIRST_FENCE || i == 0) __threadfence();
  __syncthreads();
  if (i == 0) last = atomicAdd(m.count, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  if (WITHOUT != SECOND_FENCE || i == 0) __threadfence();
  float sum = 0;
  for (unsigned block = 0; block < gridDim.x; block++) sum += m.to[(int)block * THREADS + i];
  m.to[(int)gridDim.x * THREADS + i] = sum;
}

/* A read that somebody writes over: whoever comes last, when all have read. */
template <part WITHOUT> static __global__ void last_reader(memory m) {
  __shared__ bool last;
  grid_follow();
  float own = m.to[threadIdx.x];
  __syncthreads();
  if (threadIdx.x == 0) {
    if (WITHOUT != FIRST_FENCE) __threadfence();
    last = atomicAdd(m.count, 1u) == gridDim.x - 1;
    if (WITHOUT != SECOND_FENCE) __threadfence();
  }
  __syncthreads();
  if (last) m.to[threadIdx.x] = own + 1;
}

/* Neighbours in a word. */
template <part WITHOUT> static __global__ void half_words(memory m) {
  grid_follow();
  int at = (int)blockIdx.x * THREADS + (int)threadIdx.x;
  ((unsigned short *)m.to)[WITHOUT == RIGHT ? at : at / 2] = (unsigned short)at;
}

/* All say the same, or what they like. */
template <part WITHOUT> static __global__ void one_value(memory m) {
  __shared__ int any;
  grid_follow();
  any = 1;
  __syncthreads();
  m.to[0] = (float)any;
  m.to[1] = WITHOUT == RIGHT ? 3 : (float)threadIdx.x;
}

/* ---- a kernel behind another ---------------------------------------------------------------------------------------------------- */

template <part WITHOUT> static __global__ void writes(memory m) {
  if (WITHOUT == WAIT) m.to[(int)blockIdx.x * THREADS + (int)threadIdx.x] = 1;
  grid_follow();
  if (WITHOUT != WAIT) m.to[(int)blockIdx.x * THREADS + (int)threadIdx.x] = 1;
}

template <part WITHOUT> static __global__ void reads(memory m) {
  const float *from = WITHOUT == WAIT ? m.to : m.from;
  float early = __ldcg(from + threadIdx.x);
  grid_follow();
  m.to[(BLOCKS + (int)blockIdx.x) * THREADS + (int)threadIdx.x] = early + m.to[threadIdx.x];
}

/* ---- running them ------------------------------------------------------------------------------------------------------------------ */

struct hazard {
  const char *name, *says; /* says: NULL, nothing */
  void (*kernel)(memory);
  bool alone; /* not behind a kernel that writes */
};

static const hazard HAZARDS[] = {
    {"neighbours", NULL, neighbours<RIGHT>, true},
    {"neighbours without the first barrier", "no barrier between these warps", neighbours<FIRST_BARRIER>, true},
    {"neighbours without the second barrier", "no barrier between these warps", neighbours<SECOND_BARRIER>, true},
    {"lanes", NULL, lanes<RIGHT>, true},
    {"lanes without __syncwarp", "nor __syncwarp", lanes<FIRST_BARRIER>, true},
    {"shuffles", NULL, shuffles<RIGHT>, true},
    {"shuffles without __syncwarp", "nor __syncwarp", shuffles<FIRST_BARRIER>, true},
    {"shared memory", NULL, unwritten<RIGHT>, true},
    {"shared memory that nobody wrote", "nobody in this block wrote it", unwritten<WAIT>, true},
    {"device memory", NULL, unwritten_device<RIGHT>, true},
    {"device memory that nobody wrote", "since it was allocated", unwritten_device<WAIT>, true},
    {"counts", NULL, counts<RIGHT>, true},
    {"counts without atomics", "no barrier", counts<ATOMIC>, true},
    {"counts without a barrier", "no barrier", counts<SECOND_BARRIER>, true},
    {"copies", NULL, copies<RIGHT>, true},
    {"copies without a wait", "a copy is on its way", copies<WAIT>, true},
    {"copies without a barrier", "no barrier between these warps", copies<FIRST_BARRIER>, true},
    {"own copies", NULL, own_copies<RIGHT>, true},
    {"own copies, one too many", "a copy is on its way", own_copies<WAIT>, true},
    {"copies that are not used", NULL, left_copies<RIGHT>, true},
    {"copies that are left alone", "has not waited for it", left_copies<WAIT>, true},
    {"the last block", NULL, last_block<RIGHT>, true},
    {"the last block without the first fence", "between these blocks", last_block<FIRST_FENCE>, true},
    {"the last block without the second fence", "between these blocks", last_block<SECOND_FENCE>, true},
    {"the last block without the first barrier", "between these blocks", last_block<FIRST_BARRIER>, true},
    {"the last block without the second barrier", "no barrier", last_block<SECOND_BARRIER>, true},
    {"the last block without an atomic", "between these blocks", last_block<ATOMIC>, true},
    {"the last block, by threads", NULL, last_block_by_threads<RIGHT>, true},
    {"the last block, by threads, one fence in front", "between these blocks", last_block_by_threads<FIRST_FENCE>, true},
    {"the last block, by threads, one fence behind", "between these blocks", last_block_by_threads<SECOND_FENCE>, true},
    {"the last reader", NULL, last_reader<RIGHT>, false},
    {"the last reader without the first fence", "between these blocks", last_reader<FIRST_FENCE>, false},
    {"the last reader without the second fence", "between these blocks", last_reader<SECOND_FENCE>, false},
    {"half words", NULL, half_words<RIGHT>, true},
    {"half words of two threads", "behind a write", half_words<WAIT>, true},
    {"writers of one value", NULL, one_value<RIGHT>, true},
    {"writers of several values", "behind a write", one_value<WAIT>, true},
    {"writes", NULL, writes<RIGHT>, false},
    {"writes in front of the wait", "in front of its wait", writes<WAIT>, false},
    {"reads", NULL, reads<RIGHT>, false},
    {"reads in front of the wait", "in front of its wait", reads<WAIT>, false},
};

static void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "%s\n", cudaGetErrorString(error));
  _exit(2);
}

static void launch(cudaStream_t stream, void (*kernel)(memory), const memory &m) {
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {dim3(BLOCKS), dim3(THREADS), 0, stream, &overlap, 1};
  check(cudaLaunchKernelEx(&config, kernel, m));
}

static void run(const hazard &h) {
  memory m;
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, 0));
  check(cudaMalloc((void **)&m.from, ROOM * sizeof(float)));
  check(cudaMalloc((void **)&m.to, ROOM * sizeof(float)));
  check(cudaMalloc((void **)&m.count, sizeof(unsigned)));
  check(cudaMemsetAsync(m.from, 0, ROOM / 2 * sizeof(float), stream));
  check(cudaMemsetAsync(m.count, 0, sizeof(unsigned), stream));
  if (!h.alone) launch(stream, writes<RIGHT>, m);
  launch(stream, h.kernel, m);
  check(cudaStreamSynchronize(stream));
}

static char text[1 << 16]; /* what a child has said */

/* In a child, since a race ends the program. */
static bool passes(const hazard &h) {
  int ends[2], status = 0;
  size_t n = 0;
  if (pipe(ends) != 0) return false;
  pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    close(ends[0]);
    run(h);
    _exit(0);
  }
  close(ends[1]);
  for (ssize_t got; n < sizeof text - 1 && (got = read(ends[0], text + n, sizeof text - 1 - n)) > 0;) n += (size_t)got;
  text[n] = 0;
  close(ends[0]);
  waitpid(child, &status, 0);
  bool ended = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  bool right = h.says ? !ended && strstr(text, h.says) : ended && n == 0;
  if (!right) printf("FAIL  %s: expected %s, got\n%s\n", h.name, h.says ? h.says : "nothing", text);
  return right;
}

int main(void) {
  int failed = 0, all = 0;
  for (const hazard &h : HAZARDS) {
    failed += !passes(h);
    all++;
  }
  printf("hazards: %d of %d as they should be\n", all - failed, all);
  return failed != 0;
}
