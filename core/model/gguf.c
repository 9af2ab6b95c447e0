/* Walks the head of a GGUF file. Every length is compared with what is left before it is followed. */
#include "core/model/gguf.h"

#include <inttypes.h>
#include <string.h>

#include "core/base/checked.h"

enum { COUNT_MOST = 4096, KEY_MOST = 256, TEXT_MOST = 1 << 20, DIMS_MOST = 4, ALIGN_LEAST = 8, ALIGN_MOST = 4096, ALIGN_UNSAID = 32 };

enum kind { KIND_U32 = 4, KIND_TEXT = 8, KIND_ARRAY = 9, KIND_COUNT = 13 };

struct reader {
  const unsigned char *data;
  size_t size, at;
  uint64_t alignment;
  struct error *error;
};

bool gguf_begins(const unsigned char *data, size_t size) { return size >= 4 && memcmp(data, "GGUF", 4) == 0; }

/* The next n bytes; NULL with an error where the file ends before. */
static const unsigned char *take(struct reader *r, uint64_t n, const char *what) {
  if (n > r->size - r->at) {
    error_set(r->error, ERROR_FORMAT, "a GGUF file of %zu bytes ends within %s: %" PRIu64 " bytes are said to begin at byte %zu", r->size,
              what, n, r->at);
    return NULL;
  }
  const unsigned char *bytes = r->data + r->at;
  r->at += (size_t)n;
  return bytes;
}

static bool take_u32(struct reader *r, const char *what, uint32_t *out) {
  const unsigned char *bytes = take(r, sizeof *out, what);
  if (bytes) memcpy(out, bytes, sizeof *out);
  return bytes;
}

static bool take_u64(struct reader *r, const char *what, uint64_t *out) {
  const unsigned char *bytes = take(r, sizeof *out, what);
  if (bytes) memcpy(out, bytes, sizeof *out);
  return bytes;
}

/* A length and so many bytes; NULL with an error. */
static const unsigned char *take_text(struct reader *r, const char *what, uint64_t most, uint64_t *length) {
  if (!take_u64(r, what, length)) return NULL;
  if (*length <= most) return take(r, *length, what);
  error_set(r->error, ERROR_LIMIT, "%s of a GGUF file has %" PRIu64 " bytes, at most %" PRIu64 " are read", what, *length, most);
  return NULL;
}

/* ---- pairs ---- */

/* Bytes of a value that is not a text and no array; 0: there is no such kind. */
static size_t kind_size(uint32_t kind) {
  static const unsigned char sizes[KIND_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return kind < KIND_COUNT ? sizes[kind] : 0;
}

static bool skip_array(struct reader *r) {
  uint32_t kind;
  uint64_t count, length;
  size_t bytes;
  if (!take_u32(r, "an array", &kind) || !take_u64(r, "an array", &count)) return false;
  if (kind == KIND_TEXT) {
    /* A text takes 8 bytes at least, so the file's size bounds how often this is done. */
    for (uint64_t i = 0; i < count; i++)
      if (!take_text(r, "a text in an array", TEXT_MOST, &length)) return false;
    return true;
  }
  if (!kind_size(kind)) {
    error_set(r->error, ERROR_FORMAT, "an array of a GGUF file holds values of kind %u; 0 to 8 and 10 to 12 are known", kind);
    return false;
  }
  if (!checked_mul((size_t)count, kind_size(kind), &bytes)) bytes = SIZE_MAX;
  return take(r, bytes, "an array");
}

/* Words of machines: what is not ASCII is shown as '?'. */
static void keep_text(char out[64], const unsigned char *text, uint64_t length) {
  size_t n = size_min((size_t)length, 63);
  for (size_t i = 0; i < n; i++) out[i] = text[i] >= ' ' && text[i] < 127 ? (char)text[i] : '?';
  out[n] = '\0';
}

static bool named(const unsigned char *key, uint64_t length, const char *name) {
  return length == strlen(name) && memcmp(key, name, (size_t)length) == 0;
}

static bool take_alignment(struct reader *r) {
  uint32_t alignment;
  if (!take_u32(r, "general.alignment", &alignment)) return false;
  r->alignment = alignment;
  if (alignment >= ALIGN_LEAST && alignment <= ALIGN_MOST && (alignment & (alignment - 1)) == 0) return true;
  error_set(r->error, ERROR_FORMAT, "'general.alignment' of a GGUF file is %u; it must be a power of two from %d to %d", alignment,
            ALIGN_LEAST, ALIGN_MOST);
  return false;
}

static bool take_value(struct reader *r, const unsigned char *key, uint64_t key_length, uint32_t kind, struct gguf_facts *facts) {
  uint64_t length;
  if (kind == KIND_U32 && named(key, key_length, "general.alignment")) return take_alignment(r);
  if (kind == KIND_ARRAY) return skip_array(r);
  if (kind == KIND_TEXT) {
    const unsigned char *text = take_text(r, "a value", TEXT_MOST, &length);
    if (text && named(key, key_length, "general.architecture")) keep_text(facts->architecture, text, length);
    if (text && named(key, key_length, "controlvector.model_hint")) keep_text(facts->hint, text, length);
    return text;
  }
  if (kind_size(kind)) return take(r, kind_size(kind), "a value");
  error_set(r->error, ERROR_FORMAT, "a value of a GGUF file is of kind %u; kinds 0 to 12 are known", kind);
  return false;
}

static bool take_pair(struct reader *r, struct gguf_facts *facts) {
  uint64_t length;
  uint32_t kind;
  const unsigned char *key = take_text(r, "a key", KEY_MOST, &length);
  return key && take_u32(r, "a kind", &kind) && take_value(r, key, length, kind, facts);
}

/* ---- tensors ---- */

static bool read_type(struct reader *r, struct tensor *tensor) {
  static const struct {
    uint32_t type;
    enum dtype dtype;
  } types[] = {{0, DTYPE_F32}, {1, DTYPE_F16}, {28, DTYPE_F64}, {30, DTYPE_BF16}};
  uint32_t type;
  if (!take_u32(r, "a tensor's type", &type)) return false;
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
    if (types[i].type == type) {
      tensor->dtype = types[i].dtype;
      return true;
    }
  error_set(r->error, ERROR_UNSUPPORTED, "tensor '%.100s' is of GGUF's type %u; F32 (0), F16 (1), F64 (28) and BF16 (30) are read",
            tensor->name, type);
  return false;
}

/* Sizes stand innermost first. */
static bool read_shape(struct reader *r, struct tensor *tensor) {
  uint32_t n;
  size_t count;
  if (!take_u32(r, "a tensor's dimensions", &n)) return false;
  if (n < 1 || n > DIMS_MOST) {
    error_set(r->error, ERROR_FORMAT, "tensor '%.100s' has %u dimensions; 1 to %d are allowed", tensor->name, n, DIMS_MOST);
    return false;
  }
  tensor->n_dims = (int)n;
  for (int i = (int)n - 1; i >= 0; i--) {
    uint64_t size;
    if (!take_u64(r, "a tensor's sizes", &size)) return false;
    tensor->shape[i] = size > INT64_MAX ? -1 : (int64_t)size;
  }
  if (tensor_element_count(tensor->shape, tensor->n_dims, &count) && checked_mul(count, 8, &tensor->bytes)) {
    tensor->bytes = count; /* for now: the type comes next */
    tensor_set_strides(tensor);
    return true;
  }
  error_set(r->error, ERROR_FORMAT, "the sizes of tensor '%.100s' do not fit any file", tensor->name);
  return false;
}

/* Its offset stands in stride[TENSOR_MAX_DIMS - 1], which 4 dimensions never use, until the data's beginning is known. */
static bool take_tensor(struct reader *r, struct tensor_list *list) {
  uint64_t length, offset;
  const unsigned char *name = take_text(r, "a tensor's name", TENSOR_NAME_MAX, &length);
  if (!name) return false;
  struct tensor *tensor = tensor_list_add(list, (const char *)name, (size_t)length, r->error);
  if (!tensor || !read_shape(r, tensor) || !read_type(r, tensor) || !take_u64(r, "a tensor's offset", &offset)) return false;
  tensor->bytes *= dtype_size(tensor->dtype);
  tensor->stride[TENSOR_MAX_DIMS - 1] = offset > INT64_MAX ? INT64_MAX : (int64_t)offset;
  return true;
}

static bool place(struct reader *r, size_t begin, struct tensor *tensor) {
  size_t offset = (size_t)tensor->stride[TENSOR_MAX_DIMS - 1];
  tensor->stride[TENSOR_MAX_DIMS - 1] = 0;
  if (begin <= r->size && offset % r->alignment == 0 && offset <= r->size - begin && tensor->bytes <= r->size - begin - offset) {
    tensor->data = r->data + begin + offset;
    return true;
  }
  error_set(r->error, ERROR_FORMAT,
            "tensor '%.100s' is said to have %zu bytes from byte %zu of the data on, which begin at byte %zu of %zu; offsets are multiples "
            "of %" PRIu64, tensor->name, tensor->bytes, offset, begin, r->size, r->alignment);
  return false;
}

/* ---- the file ---- */

static bool read_counts(struct reader *r, uint64_t *tensors, uint64_t *pairs) {
  uint32_t version;
  if (!take(r, 4, "its first word") || !take_u32(r, "its version", &version)) return false;
  if (version != 2 && version != 3) {
    error_set(r->error, ERROR_UNSUPPORTED, "a GGUF file of version %u; versions 2 and 3 are read", version);
    return false;
  }
  if (!take_u64(r, "its head", tensors) || !take_u64(r, "its head", pairs)) return false;
  if (*tensors <= COUNT_MOST && *pairs <= COUNT_MOST) return true;
  error_set(r->error, ERROR_LIMIT, "a GGUF file of %" PRIu64 " tensors and %" PRIu64 " pairs; at most %d of each are read", *tensors, *pairs,
            COUNT_MOST);
  return false;
}

int gguf_read(const unsigned char *data, size_t size, struct tensor_list *list, struct gguf_facts *facts, struct error *error) {
  struct reader r = {.data = data, .size = size, .alignment = ALIGN_UNSAID, .error = error};
  uint64_t tensors, pairs;
  *facts = (struct gguf_facts){"", ""};
  if (!read_counts(&r, &tensors, &pairs)) return -1;
  for (uint64_t i = 0; i < pairs; i++)
    if (!take_pair(&r, facts)) return -1;
  for (uint64_t i = 0; i < tensors; i++)
    if (!take_tensor(&r, list)) return -1;
  size_t begin = size_round_up(r.at, (size_t)r.alignment);
  for (size_t i = list->count - (size_t)tensors; i < list->count; i++)
    if (!place(&r, begin, &list->items[i])) return -1;
  return 0;
}
