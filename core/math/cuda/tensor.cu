/* tensor.cu: products of few rows with weights of 16 bits, as launches of their own (tensor.cuh). */
#include "core/math/cuda/tensor.cuh"

struct tensor_args {
  product_args product;
  int32_t row_groups; /* of ROWS rows */
};

template <int TYPE, int TILES, int ROWS, bool WIDE>
static __global__ void __launch_bounds__(THREADS, ROWS > 16 ? 1 : ROWS > 8 || TYPE == DTYPE_F16 ? 2 : 3) tensor_kernel(tensor_args t) {
  __shared__ tensor_shared<TILES, ROWS> shared;
  tensor_block<TYPE, TILES, ROWS, WIDE> block(shared, t.product, t.row_groups);
  block.ask();
  grid_follow();
  if (block.works()) block.multiply(t.product.x);
}

template <int TYPE, int TILES, int ROWS, bool WIDE>
static cudaError_t launch_tiles(cudaStream_t stream, int64_t rows, const product_args &args) {
  tensor_args t = {args, (int32_t)((rows + ROWS - 1) / ROWS)};
  return launch(tensor_kernel<TYPE, TILES, ROWS, WIDE>, t, dim3(tensor_blocks<TILES, ROWS>(args, t.row_groups)), THREADS, 0, stream);
}

/* Narrow matrices: as many blocks as there can be. Wide ones: more outputs for each x that is read and cut, as far as registers
 * go. Of 8 rows the x of a block of two tiles is as many bytes as its weights, and comes through the second cache like them: more tiles as
 * soon as there are blocks for every processor. */
template <int TYPE, int ROWS> static cudaError_t launch_rows_of(cudaStream_t stream, int64_t rows, const product_args &args) {
  bool wide = (uintptr_t)args.x.at % 16 == 0 && args.x.ld % 4 == 0 && args.w.n_in % 8 == 0;
  if (!wide) return launch_tiles<TYPE, 1, ROWS, false>(stream, rows, args);
  int64_t n_out = args.gate.data ? 2 * args.w.n_out : args.w.n_out;
  if (n_out < 2048 && !args.gate.data) return launch_tiles<TYPE, 1, ROWS, true>(stream, rows, args);
  if (n_out < (ROWS > 8 ? 4096 : rows > 2 ? 6144 : 32768)) return launch_tiles<TYPE, 2, ROWS, true>(stream, rows, args);
  return launch_tiles<TYPE, TYPE == DTYPE_F16 ? 2 : 4, ROWS, true>(stream, rows, args);
}

template <int TYPE> static cudaError_t launch_type(cudaStream_t stream, int64_t rows, const product_args &args) {
  if (rows <= 8) return launch_rows_of<TYPE, 8>(stream, rows, args);
  if (rows <= 16) return launch_rows_of<TYPE, 16>(stream, rows, args);
  return launch_rows_of<TYPE, 32>(stream, rows, args);
}

extern "C" cudaError_t launch_product_tensor(cudaStream_t stream, int64_t rows, const product_args *args) {
  if (args->w.dtype == DTYPE_F16) return launch_type<DTYPE_F16>(stream, rows, *args);
  return launch_type<DTYPE_BF16>(stream, rows, *args);
}
