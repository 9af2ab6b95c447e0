/* cublas.cpp: the part of cuBLAS that core/math/cuda uses, as loops, and what the library refuses. */
#include "emulator.h"

extern "C" {
#include "core/math/dtype.h"
}

using emulated::on_device;

extern "C" {

struct cublas_handle {
  cudaStream_t stream;
  bool own_workspace;
};
cublasStatus_t cublasCreate(cublasHandle_t *out) {
  if (emulated::called() != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
  *out = new cublas_handle();
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  emulated::stand_still();
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
/* Gives a workspace of ours back, as the library does. */
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  handle->own_workspace = false;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void *workspace, size_t bytes) {
  if ((uintptr_t)workspace % 256 || !on_device(workspace, bytes)) return CUBLAS_STATUS_INVALID_VALUE;
  handle->own_workspace = true;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) { return CUBLAS_STATUS_SUCCESS; }
const char *cublasGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "success";
    case CUBLAS_STATUS_INVALID_VALUE: return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "the functionality requested is not supported";
    default: return "the GPU program failed to execute";
  }
}

static float element(const void *data, cudaDataType type, size_t i) {
  return dtype_f32_at(data, type == CUDA_R_32F ? DTYPE_F32 : type == CUDA_R_16F ? DTYPE_F16 : DTYPE_BF16, i);
}
static size_t element_bytes(cudaDataType type) { return type == CUDA_R_32F ? 4 : 2; }

/* Tensor cores want pieces of 16 bytes: without them the library takes a slow way, which is never meant here. */
static bool aligned(const void *at, int ld, cudaDataType type) {
  return (uintptr_t)at % 16 == 0 && (size_t)ld * element_bytes(type) % 16 == 0;
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m, int n, int k,
                            const void *alpha, const void *a, cudaDataType a_type, int lda, const void *b,
                            cudaDataType b_type, int ldb, const void *beta, void *c, cudaDataType c_type, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algorithm) {
  if (a_type == CUDA_R_32F && (op_a != CUBLAS_OP_T || op_b != CUBLAS_OP_N || *(const float *)beta != 0)) /* those of the way back */
    return cublasGemmStridedBatchedEx(handle, op_a, op_b, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta, c, c_type, ldc, 0, 1,
                                      compute, algorithm);
  cudaError_t ordered = emulated::called();
  if (ordered != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
  if (m < 0 || n < 0 || k < 0 || lda < k || ldb < k || ldc < m || !alpha || !beta) return CUBLAS_STATUS_INVALID_VALUE;
  if (!m || !n) return CUBLAS_STATUS_SUCCESS;
  bool known = op_a == CUBLAS_OP_T && op_b == CUBLAS_OP_N && a_type == b_type && c_type == CUDA_R_32F &&
               *(const float *)alpha == 1 && *(const float *)beta == 0 &&
               (compute == CUBLAS_COMPUTE_32F || (compute == CUBLAS_COMPUTE_32F_PEDANTIC && a_type == CUDA_R_32F));
  if (!known || !handle->own_workspace || !aligned(a, lda, a_type) || !aligned(b, ldb, b_type) || !aligned(c, ldc, c_type))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (!on_device(a, ((size_t)(m - 1) * (size_t)lda + (size_t)k) * element_bytes(a_type)) ||
      !on_device(b, ((size_t)(n - 1) * (size_t)ldb + (size_t)k) * element_bytes(b_type)) ||
      !on_device(c, ((size_t)(n - 1) * (size_t)ldc + (size_t)m) * sizeof(float)))
    return CUBLAS_STATUS_EXECUTION_FAILED;
  cudaError_t status = emulated::submit(handle->stream, [=]() {
    emulated::count_launch();
    for (int row = 0; row < n; row++) emulated::memory_written((float *)c + (size_t)row * (size_t)ldc, (size_t)m * sizeof(float));
    for (int row = 0; row < n; row++)
      for (int out = 0; out < m; out++) {
        float sum = 0;
        for (int i = 0; i < k; i++)
          sum = fmaf(element(a, a_type, (size_t)out * (size_t)lda + (size_t)i), element(b, b_type, (size_t)row * (size_t)ldb + (size_t)i), sum);
        ((float *)c)[(size_t)row * (size_t)ldc + (size_t)out] = sum;
      }
  });
  return status == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

/* c[j][i] of one of a batch, each a chain over k. */
struct batched {
  cublasOperation_t op_a, op_b;
  int m, n, k, lda, ldb, ldc;
  float alpha, beta;
};
static void multiply(const batched &g, const float *a, const float *b, float *c) {
  for (int j = 0; j < g.n; j++) {
    emulated::memory_written(c + (size_t)j * (size_t)g.ldc, (size_t)g.m * sizeof(float));
    for (int i = 0; i < g.m; i++) {
      float sum = 0, *to = c + (size_t)j * (size_t)g.ldc + i;
      for (int k = 0; k < g.k; k++)
        sum = fmaf(a[g.op_a == CUBLAS_OP_T ? (size_t)i * (size_t)g.lda + (size_t)k : (size_t)k * (size_t)g.lda + (size_t)i],
                   b[g.op_b == CUBLAS_OP_N ? (size_t)j * (size_t)g.ldb + (size_t)k : (size_t)k * (size_t)g.ldb + (size_t)j], sum);
      *to = g.beta == 0 ? g.alpha * sum : g.alpha * sum + g.beta * *to;
    }
  }
}

/* All floats of a matrix of `lines` columns, ld apart. */
static bool floats_on_device(const void *at, int length, int lines, int ld) {
  return on_device(at, ((size_t)(lines - 1) * (size_t)ld + (size_t)length) * sizeof(float)) && (uintptr_t)at % sizeof(float) == 0;
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m, int n, int k,
                                          const void *alpha, const void *a, cudaDataType a_type, int lda, long long a_step,
                                          const void *b, cudaDataType b_type, int ldb, long long b_step, const void *beta, void *c,
                                          cudaDataType c_type, int ldc, long long c_step, int batch, cublasComputeType_t compute,
                                          cublasGemmAlgo_t) {
  if (emulated::called() != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
  int rows_a = op_a == CUBLAS_OP_N ? m : k, rows_b = op_b == CUBLAS_OP_N ? k : n;
  if (m < 0 || n < 0 || k < 0 || batch < 0 || lda < rows_a || ldb < rows_b || ldc < m || !alpha || !beta) return CUBLAS_STATUS_INVALID_VALUE;
  if (!m || !n || !batch) return CUBLAS_STATUS_SUCCESS;
  if (a_type != CUDA_R_32F || b_type != CUDA_R_32F || c_type != CUDA_R_32F || compute != CUBLAS_COMPUTE_32F_PEDANTIC || !handle->own_workspace)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  for (int i = 0; i < batch; i++)
    if (!floats_on_device((const float *)a + i * a_step, rows_a, m + k - rows_a, lda) ||
        !floats_on_device((const float *)b + i * b_step, rows_b, k + n - rows_b, ldb) || !floats_on_device((float *)c + i * c_step, m, n, ldc))
      return CUBLAS_STATUS_EXECUTION_FAILED;
  batched g = {op_a, op_b, m, n, k, lda, ldb, ldc, *(const float *)alpha, *(const float *)beta};
  cudaError_t status = emulated::submit(handle->stream, [=]() {
    emulated::count_launch();
    for (int i = 0; i < batch; i++) multiply(g, (const float *)a + i * a_step, (const float *)b + i * b_step, (float *)c + i * c_step);
  });
  return status == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

} // extern "C"
