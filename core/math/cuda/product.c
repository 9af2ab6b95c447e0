/* product.c: which kernel does a product. Few rows: ours, which read the weights once and x as it is. Many: the library's, on
 * tensor cores where the weights have 16 bits, with x rounded to their type. */
#include "core/base/checked.h"
#include "core/math/cuda/cuda.h"

static cudaDataType library_type(int32_t dtype) {
  return dtype == DTYPE_F32 ? CUDA_R_32F : dtype == DTYPE_F16 ? CUDA_R_16F : CUDA_R_16BF;
}

/* sums [rows][ld] = narrowed x [rows][w.ld] times W^T. Matrices of the library are column by column: what is a row here is a
 * column there. Plain f32 for weights in f32, never the shorter format of tensor cores. */
static int multiply(struct cuda_backend *cuda, int64_t rows, const struct device_matrix *w, const void *x, float *sums,
                    int64_t ld, struct error *error) {
  const float one = 1, zero = 0;
  cudaDataType type = library_type(w->dtype);
  cublasComputeType_t compute = w->dtype == DTYPE_F32 ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_32F;
  cublasStatus_t status =
      cublasGemmEx(cuda->blas, CUBLAS_OP_T, CUBLAS_OP_N, (int)w->n_out, (int)rows, (int)w->ld, &one, w->data, type, (int)w->ld,
                   x, type, (int)w->ld, &zero, sums, CUDA_R_32F, (int)ld, compute, CUBLAS_GEMM_DEFAULT);
  static const struct launch_size unknown = {0, 0, 0, 0, 0};
  if (status == CUBLAS_STATUS_SUCCESS)
    return cuda_check(cuda, launch_watched(cuda->stream, NULL, &unknown, cudaSuccess), "a product", error);
  return error_set(error, ERROR_DEVICE, "CUDA device %d: a product failed: %s", cuda->device, cublasGetStatusString(status));
}

bool cuda_product_few(const struct cuda_backend *cuda, int64_t rows, int32_t dtype) {
  return cuda->deterministic || rows <= (dtype == DTYPE_F32 ? PRODUCT_FEW_F32 : PRODUCT_FEW);
}

/* Sums that nothing becomes of but results, which lie where the library can write: there they go. */
static bool is_bare(int64_t rows, const struct product_args *args) {
  return !args->table && args->n == rows && !args->bias && !args->gate.data && args->act == ACT_NONE && !(args->soft_cap > 0) &&
         args->y.ld % 4 == 0 && (uintptr_t)args->y.at % 16 == 0;
}

int cuda_product(struct cuda_backend *cuda, int64_t rows, const struct product_args *args, bool narrowed, struct error *error) {
  const struct device_matrix *w = &args->w;
  if (cuda_product_few(cuda, rows, w->dtype)) {
    cudaError_t status = (w->dtype == DTYPE_F32 ? launch_product_few : launch_product_tensor)(cuda->stream, rows, args);
    return cuda_check(cuda, status, "a product", error);
  }
  bool bare = is_bare(rows, args);
  int64_t ld = bare ? args->y.ld : (int64_t)size_round_up((size_t)w->n_out, 4);
  size_t x_bytes = (size_t)rows * (size_t)w->ld * dtype_size((enum dtype)w->dtype);
  void *x = cuda_scratch(cuda, SCRATCH_NARROW, x_bytes, error);
  float *sums = bare ? args->y.at : NULL;
  if (x && !bare) sums = cuda_scratch(cuda, SCRATCH_SUMS, (size_t)rows * (size_t)ld * sizeof(float), error);
  if (!x || !sums) return -1;
  if (!narrowed && cuda_check(cuda, launch_product_narrow(cuda->stream, rows, args, x), "a product", error) != 0) return -1;
  if (multiply(cuda, rows, w, x, sums, ld, error) != 0) return -1;
  return bare ? 0 : cuda_check(cuda, launch_product_finish(cuda->stream, rows, args, sums, ld), "a product", error);
}
