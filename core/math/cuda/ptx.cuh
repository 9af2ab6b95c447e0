/* ptx.cuh: instructions that CUDA C has no word for: products on tensor cores, and copies into shared memory that a thread
 * does not wait for.
 *
 * D += A B by one warp, A [16][k], B [k][8], D [16][8] in f32. With group = lane / 4 and part = lane % 4 (PTX ISA, "Matrix
 * Fragments for mma"), a lane holds
 *
 *   16 bits, k 16  a[0]: row group,     columns 2 part, 2 part + 1     b[0]: rows 2 part, 2 part + 1, column group
 *                  a[1]: row group + 8, the same columns               b[1]: rows 8 further on, column group
 *                  a[2]: row group,     columns 8 further on           (two elements a word, the lower half first)
 *                  a[3]: row group + 8, columns 8 further on
 *   tf32, k = 8    a[0]: row group,     column part                    b[0]: row part,     column group
 *                  a[1]: row group + 8, column part                    b[1]: row part + 4, column group
 *                  a[2]: row group,     column part + 4                (one element a word, f32 with its low 13 bits 0)
 *                  a[3]: row group + 8, column part + 4
 *   D              d[0], d[1]: row group,     columns 2 part, 2 part + 1
 *                  d[2], d[3]: row group + 8, the same columns
 *
 * The emulator of the tests has its own (tests/cuda_host/ptx.h), written from the same pages. */
#ifndef STEERD_CORE_MATH_CUDA_PTX_CUH
#define STEERD_CORE_MATH_CUDA_PTX_CUH

#include <cuda_runtime.h>

#ifndef EMULATED_PTX

static __device__ __forceinline__ void mma_bf16(float d[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                                unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ void mma_tf32(float d[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                                unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ void mma_f16(float d[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                               unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* 2 to the x, to 2^-22 of it; 0 below 2^-126. */
static __device__ __forceinline__ float power_of_2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* Two values as a word, to nearest and ties to even. */
static __device__ __forceinline__ unsigned pack_bf16(float low, float high) {
  unsigned word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
static __device__ __forceinline__ unsigned pack_f16(float low, float high) {
  unsigned word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}

/* 16 bytes of device memory to shared memory, past the L1 cache; zeros where they are not wanted. Both places are multiples of 16
 * bytes. There only when this thread has waited for it; other threads see it after a barrier more. */
static __device__ __forceinline__ void copy_start(void *to, const void *from, bool wanted) {
  asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16, %2;" ::"r"((unsigned)__cvta_generic_to_shared(to)),
               "l"(__cvta_generic_to_global(from)), "r"(wanted ? 16 : 0)
               : "memory");
}
/* Ends a group: what was started since the last one. */
static __device__ __forceinline__ void copy_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Waits until no more than N groups, the youngest, are on their way. */
template <int N> static __device__ __forceinline__ void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

#endif
#endif
