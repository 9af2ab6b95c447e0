/* splice.cuh: rows that splices are about, as the step's table has them. */
#ifndef STEERD_CORE_MATH_CUDA_SPLICE_CUH
#define STEERD_CORE_MATH_CUDA_SPLICE_CUH

#include "core/math/cuda/row.cuh"

/* Row i of those that a launch is about; NULL where the group has fewer. */
static __device__ __forceinline__ const table_splice *group_row(const group_rows &of, int i) {
  row_range group = of.table->splice_groups[of.group];
  int at = group.begin + of.first + i;
  return at < group.end ? of.table->splices + at : NULL;
}

#endif
