/* races.h: what the emulator tells the detector of races (races.cpp); nothing where it is built without it (EMULATED_RACES). */
#ifndef STEERD_TESTS_CUDA_HOST_RACES_H
#define STEERD_TESTS_CUDA_HOST_RACES_H

#include <stddef.h>
#include <stdint.h>

#if defined(EMULATED_RACES)
#define TOLD(function) function;
/* Of the emulator, though it is compiled with kernels: what it reads and writes is not the device's affair. */
#define UNWATCHED __attribute__((noipa, no_sanitize("thread")))
#else
#define TOLD(function) \
  static inline function {}
#define UNWATCHED inline
#endif

namespace emulated {
struct kernel_call;

/* ---- from kernels (cuda_runtime.h, ptx.h) ---- */
TOLD(void accessed_atomically(const void *, size_t))
TOLD(void was_read(const void *, size_t))
TOLD(void fence_passed())
/* 16 bytes, to and from (NULL: zeros): on their way from when they are started until their thread has waited for them. */
TOLD(void copy_begins(const void *, const void *))
TOLD(void copy_ends(const void *, const void *))

/* ---- from blocks.cpp. Blocks that may be on their way: the usual one, and that of a grid whose turn has not come (true) ---- */
TOLD(void grid_begins(const kernel_call &))
TOLD(void grid_ends())
TOLD(void block_begins(bool, uint64_t, int, const void *, size_t)) /* place in the grid, threads, dynamic shared memory */
TOLD(void block_goes_on(bool))
TOLD(void block_has_turn())                         /* the one whose grid's turn has come */
TOLD(void thread_goes_on(int, const void *, size_t)) /* number in the block, stack */
TOLD(void thread_ends(size_t))                       /* copies that it has not waited for */
TOLD(void block_joined())                            /* all threads have come to a barrier */
TOLD(void warp_joined(int, unsigned))                /* these lanes of a warp have come to __syncwarp */

/* ---- from emulator.cpp, memory.cpp and cublas.cpp ---- */
TOLD(void stream_turns(const void *, bool))          /* to a kernel; to something else */
TOLD(void memory_begins(const void *, size_t, bool)) /* locked memory of the host; or of the device */
TOLD(void memory_ends(const void *))
TOLD(void memory_written(const void *, size_t)) /* by a copy, or by a library */

} // namespace emulated

#endif
