#include "core/math/dtype.h"

static const struct {
  const char *name;
  size_t size;
} types[DTYPE_COUNT] = {
    [DTYPE_F32] = {"F32", 4},   [DTYPE_F16] = {"F16", 2}, [DTYPE_BF16] = {"BF16", 2}, [DTYPE_F64] = {"F64", 8},
    [DTYPE_I8] = {"I8", 1},     [DTYPE_U8] = {"U8", 1},   [DTYPE_I16] = {"I16", 2},   [DTYPE_U16] = {"U16", 2},
    [DTYPE_I32] = {"I32", 4},   [DTYPE_U32] = {"U32", 4}, [DTYPE_I64] = {"I64", 8},   [DTYPE_U64] = {"U64", 8},
    [DTYPE_BOOL] = {"BOOL", 1}, [DTYPE_OTHER] = {"other", 0}, [DTYPE_Q8] = {"Q8", 0}};

size_t dtype_size(enum dtype dtype) { return types[dtype].size; }
const char *dtype_name(enum dtype dtype) { return types[dtype].name; }

#define LOAD(type) \
  type v;          \
  memcpy(&v, at, sizeof v)

float dtype_f32_at(const void *data, enum dtype dtype, size_t i) {
  const unsigned char *at = (const unsigned char *)data + i * types[dtype].size;
  switch (dtype) {
    case DTYPE_F32: { LOAD(float); return v; }
    case DTYPE_F16: { LOAD(uint16_t); return f16_to_f32(v); }
    case DTYPE_BF16: { LOAD(uint16_t); return bf16_to_f32(v); }
    case DTYPE_F64: { LOAD(double); return (float)v; }
    case DTYPE_I8: { LOAD(int8_t); return (float)v; }
    case DTYPE_U8:
    case DTYPE_BOOL: { LOAD(uint8_t); return (float)v; }
    case DTYPE_I16: { LOAD(int16_t); return (float)v; }
    case DTYPE_U16: { LOAD(uint16_t); return (float)v; }
    case DTYPE_I32: { LOAD(int32_t); return (float)v; }
    case DTYPE_U32: { LOAD(uint32_t); return (float)v; }
    case DTYPE_I64: { LOAD(int64_t); return (float)v; }
    case DTYPE_U64: { LOAD(uint64_t); return (float)v; }
    default: return 0.0f;
  }
}

void dtype_to_f32(const void *data, enum dtype dtype, size_t stride, size_t count, float *out) {
  if (dtype == DTYPE_F32 && stride == 1) {
    memcpy(out, data, count * sizeof *out);
    return;
  }
  if (dtype == DTYPE_F32)
    for (size_t i = 0; i < count; i++) memcpy(&out[i], (const unsigned char *)data + i * stride * sizeof *out, sizeof *out);
  else
    for (size_t i = 0; i < count; i++) out[i] = dtype_f32_at(data, dtype, i * stride);
}
