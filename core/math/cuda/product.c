/* product.c: which kernel does a product. Few rows: ours, which read the weights once and x as it is. More: on tensor cores where
 * the weights have 16 bits, with x rounded to their type; by a kernel of ours where the matrix is small, else by the library. */
#include "core/base/checked.h"
#include "core/math/cuda/cuda.h"

/* Weights that our kernel reads for each 64 rows, at most. It brings 3 to 5 bytes through the second cache for one of weights, the library
 * about 2, so at 5.5 TB/s a MiB costs it 0.2 to 0.6 us more; but it is one launch that overlaps with those around it, where the
 * library's is one that does not, with a sum over parts behind it where outputs are few, and the finish behind that: 3 to 4 us. */
#define SMALL_BYTES ((int64_t)8 << 20)
#define SMALL_ROWS 64   /* that read the weights together */
#define MOST_SMALL 256  /* rows; more fill the device whoever multiplies */

static cudaDataType library_type(int32_t dtype) {
  return dtype == DTYPE_F32 ? CUDA_R_32F : dtype == DTYPE_F16 ? CUDA_R_16F : CUDA_R_16BF;
}

/* Rows of the library's matrices: floats, or x in the type of the weights. */
struct library_rows {
  void *at;
  int64_t ld;
};

/* y = x [rows][w.ld] times W^T. Matrices of the library are column by column: what is a row here is a
 * column there. Plain f32 for weights in f32, never the shorter format of tensor cores. */
static int multiply(struct cuda_backend *cuda, int64_t rows, const struct device_matrix *w, struct library_rows x, struct library_rows y,
                    struct error *error) {
  const float one = 1, zero = 0;
  cudaDataType type = library_type(w->dtype);
  cublasComputeType_t compute = w->dtype == DTYPE_F32 ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_32F;
  cublasStatus_t status =
      cublasGemmEx(cuda->blas, CUBLAS_OP_T, CUBLAS_OP_N, (int)w->n_out, (int)rows, (int)w->ld, &one, w->data, type, (int)w->ld,
                   x.at, type, (int)x.ld, &zero, y.at, CUDA_R_32F, (int)y.ld, compute, CUBLAS_GEMM_DEFAULT);
  static const struct launch_size unknown = {0, 0, 0, 0, 0};
  if (status == CUBLAS_STATUS_SUCCESS)
    return cuda_check(cuda, launch_watched(cuda->stream, NULL, &unknown, cudaSuccess), "a product", error);
  return error_set(error, ERROR_DEVICE, "CUDA device %d: a product failed: %s", cuda->device, cublasGetStatusString(status));
}

bool cuda_product_few(const struct cuda_backend *cuda, int64_t rows, int32_t dtype) {
  return cuda->deterministic || rows <= (dtype == DTYPE_F32 ? PRODUCT_FEW_F32 : PRODUCT_FEW);
}

bool cuda_product_small(const struct cuda_backend *cuda, int64_t rows, const struct device_matrix *w) {
  int64_t bytes = w->n_out * w->ld * 2, times = (rows + SMALL_ROWS - 1) / SMALL_ROWS;
  return !cuda->library && w->dtype != DTYPE_F32 && rows <= MOST_SMALL && bytes * times <= SMALL_BYTES;
}

int cuda_narrow_rows(struct cuda_backend *cuda, enum scratch_name in, int64_t rows, const struct device_matrix *w, struct narrow_rows *out,
                     struct error *error) {
  void *at = cuda_scratch(cuda, in, (size_t)rows * (size_t)w->ld * dtype_size((enum dtype)w->dtype), error);
  *out = (struct narrow_rows){at, w->ld, w->dtype};
  return at ? 0 : -1;
}

/* The library can work on rows [0, rows) of the buffer as they are: it reaches that far, and pieces of 16 bytes lie straight. */
static bool fits(const struct product_args *args, int64_t rows, const struct device_rows *of) {
  return args->room >= rows && of->ld % 4 == 0 && (uintptr_t)of->at % 16 == 0;
}

/* Where the library reads x: as it is, or as it lies narrowed, which a launch sees to unless it does already. */
static int find_x(struct cuda_backend *cuda, int64_t rows, const struct product_args *args, struct narrow_x narrowed, struct library_rows *x,
                  struct error *error) {
  const struct device_matrix *w = &args->w;
  struct narrow_rows narrow;
  *x = (struct library_rows){args->x.at, args->x.ld};
  if (w->dtype == DTYPE_F32 && w->n_in == w->ld && fits(args, rows, &args->x)) return 0;
  if (cuda_narrow_rows(cuda, narrowed.in, rows, w, &narrow, error) != 0) return -1;
  *x = (struct library_rows){narrow.at, narrow.ld};
  return narrowed.there ? 0 : cuda_check(cuda, launch_product_narrow(cuda->stream, rows, args, narrow.at), "a product", error);
}

/* Sums are what is asked for. */
static bool is_finished(const struct product_args *args) {
  return !args->bias && args->act == ACT_NONE && args->soft_cap == 0 && !args->narrow.at;
}

/* By the library, straight into y where that is all. */
static int multiply_rows(struct cuda_backend *cuda, int64_t rows, const struct product_args *args, struct library_rows x, struct error *error) {
  const struct device_matrix *w = &args->w;
  if (is_finished(args) && fits(args, rows, &args->y))
    return multiply(cuda, rows, w, x, (struct library_rows){args->y.at, args->y.ld}, error);
  int64_t ld = (int64_t)size_round_up((size_t)w->n_out, 4);
  float *sums = cuda_scratch(cuda, SCRATCH_SUMS, (size_t)rows * (size_t)ld * sizeof(float), error);
  if (!sums || multiply(cuda, rows, w, x, (struct library_rows){sums, ld}, error) != 0) return -1;
  return cuda_check(cuda, launch_product_finish(cuda->stream, rows, args, sums, ld), "a product", error);
}

int cuda_product(struct cuda_backend *cuda, int64_t rows, const struct product_args *args, struct narrow_x narrowed,
                 struct error *error) {
  const struct device_matrix *w = &args->w;
  struct library_rows x;
  if (cuda_product_few(cuda, rows, w->dtype)) {
    cudaError_t status = (w->dtype == DTYPE_F32 ? launch_product_few : launch_product_tensor)(cuda->stream, rows, args);
    return cuda_check(cuda, status, "a product", error);
  }
  if (find_x(cuda, rows, args, narrowed, &x, error) != 0) return -1;
  if (!cuda_product_small(cuda, rows, w)) return multiply_rows(cuda, rows, args, x, error);
  return cuda_check(cuda, launch_product_narrowed(cuda->stream, rows, args, x.at), "a product", error);
}
