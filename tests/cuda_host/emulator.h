/* emulator.h: what the files of the emulator of CUDA (cuda_runtime.h) say to each other. */
#ifndef STEERD_TESTS_CUDA_HOST_EMULATOR_H
#define STEERD_TESTS_CUDA_HOST_EMULATOR_H

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "cublas_v2.h"
#include "cuda_runtime.h"

namespace emulated {

#define MAX_THREADS 1024
#define STATIC_SHARED ((size_t)48 << 10)  /* what a block may have without asking */
#define LARGEST_SHARED ((size_t)227 << 10) /* and with it, on sm_90 */

/* ---- blocks.cpp ---- */

struct kernel_call {
  const char *name;
  std::function<void()> thread;
  dim3 grid, block;
  size_t shared;
  bool overlaps; /* it may begin while the kernel before it runs */
};
/* Runs every block of a grid, in an order that STEERD_EMULATOR_SEED chooses. One grid at a time: the caller sees to it. */
void run_grid(const kernel_call &call);
/* A block of the kernel that comes next begins; the call stays where it is until its turn has come. */
void begin_early(const kernel_call &call);
void give_up(const kernel_call &call); /* its turn will not come */
/* The kernel that runs on this thread, or NULL. */
const char *running_kernel();
/* Ends the program with the kernel, the block and the thread that runs; other: another line, or 0. */
[[noreturn]] void fail(const char *what, int line, int other);
/* Numbers that the seed chooses; below(n): one of 0 ... n - 1. The seed 0 gives 0 for ever: everything in order and at once. */
unsigned below(unsigned n);
bool in_order();

/* ---- emulator.cpp ---- */

/* One call of the interface: the failure that a test ordered for it, or success. */
cudaError_t called();
bool hangs();
void stand_still();
/* Asks for work on a stream: it is done some time before the stream is next waited for; or recorded, where the stream records. */
cudaError_t submit(cudaStream_t stream, std::function<void()> work);
cudaError_t submit_kernel(cudaStream_t stream, kernel_call call);
cudaError_t submit_always(cudaStream_t stream, std::function<void()> work); /* even when the device is lost meanwhile */
/* Does it now: all that a stream, or every stream, was asked for. */
void do_all(cudaStream_t stream);
void do_everything();
cudaStream_t known_stream(cudaStream_t stream); /* the one behind cudaStreamPerThread, and behind 0 */
void count_launch();
/* Remembers an error for cudaGetLastError; gives it back. */
cudaError_t say(cudaError_t error);
/* For a call that waits or would have to: forbidden to a thread that records, and the end of what it records. */
cudaError_t unsafe();
cudaError_t unsafe_on(cudaStream_t stream); /* the same for a stream that records */
cudaError_t unsafe_beside();                /* for a call that the thread that records may make, and others may not while one records for all */

/* ---- tests/cuda_ptx: in a library that has it, kernels run as nvcc has translated them ---- */

/* Puts the thread of nvcc's kernel, its name, and the shared memory of its variables beside that of the launch into the call. */
__attribute__((weak)) void translate(const void *kernel, const void *args, size_t bytes, kernel_call *call);
__attribute__((weak)) size_t translated_statics(const void *kernel); /* bytes of shared memory that it has without asking */

/* ---- memory.cpp ---- */

/* Another one whenever a block of the device, or locked memory, is no longer there. */
extern std::atomic<unsigned long> memory_version;
/* The block of the device, or of locked memory, in which the bytes lie whole. */
bool memory_around(const void *at, size_t bytes, uint64_t *begin, uint64_t *end);

/* The bytes lie whole in one block of device memory. */
bool on_device(const void *at, size_t bytes);
size_t memory_capacity();
size_t memory_taken();  /* with what pools keep */
size_t memory_in_use(); /* without */
/* What lies in all blocks but the largest. */
typedef std::map<void *, std::vector<unsigned char>> snapshot;
snapshot snapshot_take();
void snapshot_put_back(const snapshot &all);
/* Ends the program where memory holds anything else. */
void snapshot_compare(const snapshot &all, const char *kernel);

} // namespace emulated

#define CALLED()                                        \
  do {                                                  \
    cudaError_t error_ = emulated::called();            \
    if (error_ != cudaSuccess) return error_;           \
  } while (0)

#define UNSAFE_IN_CAPTURE()                             \
  do {                                                  \
    cudaError_t error_ = emulated::unsafe();            \
    if (error_ != cudaSuccess) return error_;           \
  } while (0)

#endif
