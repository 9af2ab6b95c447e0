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
                            cublasComputeType_t compute, cublasGemmAlgo_t) {
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

} // extern "C"
