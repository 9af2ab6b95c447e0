/* The text in front of a numpy array: a Python dict literal of exactly three members. Owns nothing; does not look at
 * the elements. */
#include "core/model/npy.h"

#include <stdint.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/model/tensor_list.h"

#define MAGIC "\x93NUMPY"
#define MAGIC_BYTES 6

/* The text being read. */
struct literal {
  const char *text;
  size_t length, at;
  struct error *error;
};

enum { SEEN_DESCR = 1, SEEN_ORDER = 2, SEEN_SHAPE = 4, SEEN_ALL = 7 };

struct array {
  enum dtype dtype;
  size_t item; /* bytes of one element */
  bool columns_first;
  int n_dims;
  int64_t shape[TENSOR_MAX_DIMS];
  unsigned seen;
};

bool npy_begins(const unsigned char *data, size_t size) {
  return size >= MAGIC_BYTES && memcmp(data, MAGIC, MAGIC_BYTES) == 0;
}

/* ---- the scanner ---- */

static char peek(struct literal *l) {
  while (l->at < l->length && (l->text[l->at] == ' ' || l->text[l->at] == '\n')) l->at++;
  return l->at < l->length ? l->text[l->at] : '\0';
}

static bool take(struct literal *l, char c) { return peek(l) == c ? l->at++, true : false; }

static int expect(struct literal *l, char c) {
  if (take(l, c)) return 0;
  return error_set(l->error, ERROR_FORMAT, "byte %zu of its header text is 0x%02x, expected '%c'", l->at,
                   l->at < l->length ? (unsigned char)l->text[l->at] : 0u, c);
}

/* A quoted text without escapes and line ends, of at most `room` bytes, into out with a NUL. */
static int read_text(struct literal *l, char *out, size_t room) {
  char quote = peek(l);
  size_t n = 0;
  if (quote != '\'' && quote != '"') return expect(l, '\'');
  for (l->at++; l->at < l->length && l->text[l->at] != quote; l->at++) {
    char c = l->text[l->at];
    if (n == room || c < ' ' || c > '~' || c == '\\')
      return error_set(l->error, ERROR_FORMAT, "a name in its header is longer than %zu bytes or not plain ASCII", room);
    out[n++] = c;
  }
  out[n] = '\0';
  return expect(l, quote);
}

static bool take_word(struct literal *l, const char *word) {
  size_t n = strlen(word);
  (void)peek(l);
  if (l->length - l->at < n || memcmp(l->text + l->at, word, n) != 0) return false;
  l->at += n;
  return true;
}

/* ---- the three members ---- */

/* Digits of a size into *out: the whole of text[0..n), below 2^31; false for anything else. */
static bool read_size(const char *text, size_t *out) {
  size_t value = 0;
  if (!*text) return false;
  for (; *text; text++) {
    if (*text < '0' || *text > '9' || value > 100000000) return false;
    value = value * 10 + (size_t)(*text - '0');
  }
  *out = value;
  return true;
}

static enum dtype dtype_of(char kind, size_t item) {
  static const struct {
    char kind;
    size_t item;
    enum dtype dtype;
  } known[] = {{'f', 2, DTYPE_F16}, {'f', 4, DTYPE_F32}, {'f', 8, DTYPE_F64}, {'i', 1, DTYPE_I8},  {'i', 2, DTYPE_I16},
               {'i', 4, DTYPE_I32}, {'i', 8, DTYPE_I64}, {'u', 1, DTYPE_U8},  {'u', 2, DTYPE_U16}, {'u', 4, DTYPE_U32},
               {'u', 8, DTYPE_U64}, {'b', 1, DTYPE_BOOL}, {'V', 2, DTYPE_BF16}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (known[i].kind == kind && known[i].item == item) return known[i].dtype;
  return DTYPE_OTHER;
}

/* '<f4': byte order, kind, bytes of an element (for texts: characters of 4 bytes). */
static int read_descr(struct literal *l, struct array *array) {
  char text[32];
  if (peek(l) == '[') return error_set(l->error, ERROR_UNSUPPORTED, "its elements are records; plain numbers are read");
  if (read_text(l, text, sizeof text - 1) != 0) return -1;
  char order = text[0], kind = order ? text[1] : '\0';
  if (kind == 'O')
    return error_set(l->error, ERROR_UNSUPPORTED, "its elements are Python objects, which are pickled; save numbers only");
  size_t length = strlen(text);
  if (kind == 'm' || kind == 'M') length = strcspn(text, "["); /* '<M8[ns]' */
  text[length] = '\0';
  bool known = kind && strchr("fiubcSUVmM", kind) && strchr("<>|", order) && read_size(text + 2, &array->item);
  if (!known) return error_set(l->error, ERROR_FORMAT, "its element type '%s' is not one that numpy writes", text);
  if (order == '>' && array->item > 1)
    return error_set(l->error, ERROR_UNSUPPORTED, "its elements '%s' are big endian; save them as '<%s'", text, text + 1);
  array->dtype = dtype_of(kind, array->item);
  if (kind == 'U') array->item *= 4;
  return 0;
}

static int read_order(struct literal *l, struct array *array) {
  if (take_word(l, "True")) return array->columns_first = true, 0;
  if (take_word(l, "False")) return 0;
  return error_set(l->error, ERROR_FORMAT, "its 'fortran_order' is neither True nor False");
}

static int read_dimension(struct literal *l, int64_t *out) {
  size_t start = (peek(l), l->at);
  int64_t value = 0;
  for (; l->at < l->length && l->text[l->at] >= '0' && l->text[l->at] <= '9'; l->at++)
    if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, l->text[l->at] - '0', &value))
      return error_set(l->error, ERROR_FORMAT, "a dimension of its 'shape' is not below 2^63");
  if (l->at == start) return error_set(l->error, ERROR_FORMAT, "its 'shape' is not a tuple of whole numbers of 0 or more");
  if (l->at < l->length && l->text[l->at] == 'L') l->at++; /* a long, from numpy under Python 2 */
  *out = value;
  return 0;
}

/* (), (5,), (2, 3) and (2, 3,) */
static int read_shape(struct literal *l, struct array *array) {
  if (expect(l, '(') != 0) return -1;
  while (peek(l) != ')') {
    if (array->n_dims == TENSOR_MAX_DIMS)
      return error_set(l->error, ERROR_FORMAT, "it has more than %d dimensions", TENSOR_MAX_DIMS);
    if (read_dimension(l, &array->shape[array->n_dims++]) != 0) return -1;
    if (!take(l, ',') && (array->n_dims == 1 || peek(l) != ')')) return expect(l, ',');
  }
  return expect(l, ')');
}

static int read_member(struct literal *l, struct array *array) {
  static const struct {
    const char *key;
    unsigned bit;
    int (*read)(struct literal *, struct array *);
  } members[] = {{"descr", SEEN_DESCR, read_descr}, {"fortran_order", SEEN_ORDER, read_order},
                 {"shape", SEEN_SHAPE, read_shape}};
  char key[32];
  if (read_text(l, key, sizeof key - 1) != 0 || expect(l, ':') != 0) return -1;
  for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
    if (strcmp(members[i].key, key) != 0) continue;
    if (array->seen & members[i].bit) return error_set(l->error, ERROR_FORMAT, "its header has '%s' twice", key);
    array->seen |= members[i].bit;
    return members[i].read(l, array);
  }
  return error_set(l->error, ERROR_FORMAT, "its header has '%s'; expected descr, fortran_order and shape", key);
}

static int read_literal(struct literal *l, struct array *array) {
  if (expect(l, '{') != 0) return -1;
  while (peek(l) != '}') {
    if (read_member(l, array) != 0) return -1;
    if (!take(l, ',') && peek(l) != '}') return expect(l, ',');
  }
  l->at++;
  (void)peek(l);
  if (array->seen != SEEN_ALL)
    return error_set(l->error, ERROR_FORMAT, "its header lacks one of descr, fortran_order and shape");
  if (l->at == l->length) return 0;
  return error_set(l->error, ERROR_FORMAT, "its header goes on behind the dict, at byte %zu of the text", l->at);
}

/* ---- the header ---- */

/* Where the text lies, by version. */
static int find_text(const unsigned char *data, size_t size, size_t *at, size_t *length, struct error *error) {
  if (!npy_begins(data, size) || size < 10) return error_set(error, ERROR_FORMAT, "it does not begin as a numpy array");
  unsigned major = data[6], minor = data[7], wide = major > 1;
  if (major < 1 || major > 3 || minor != 0)
    return error_set(error, ERROR_UNSUPPORTED, "its format is version %u.%u; 1.0, 2.0 and 3.0 are read", major, minor);
  *at = wide ? 12 : 10;
  if (size < *at) return error_set(error, ERROR_FORMAT, "its header is cut short");
  *length = (size_t)data[8] | (size_t)data[9] << 8;
  if (wide) *length |= (size_t)data[10] << 16 | (size_t)data[11] << 24;
  if (*length > NPY_HEADER_MAX - 12)
    return error_set(error, ERROR_LIMIT, "its header text claims %zu bytes, at most %d are read", *length,
                     NPY_HEADER_MAX - 12);
  if (*length <= size - *at) return 0;
  return error_set(error, ERROR_FORMAT, "its header text claims %zu bytes, %zu are there", *length, size - *at);
}

static void set_column_strides(struct tensor *tensor) {
  int64_t stride = 1;
  for (int i = 0; i < tensor->n_dims; i++) {
    tensor->stride[i] = stride;
    stride *= tensor->shape[i] ? tensor->shape[i] : 1;
  }
}

int npy_read_header(const unsigned char *data, size_t size, struct tensor *out, size_t *data_at, struct error *error) {
  struct array array = {.item = 0};
  size_t at = 0, length = 0, count = 0;
  if (find_text(data, size, &at, &length, error) != 0) return -1;
  struct literal literal = {.text = (const char *)data + at, .length = length, .error = error};
  if (read_literal(&literal, &array) != 0) return -1;
  if (!tensor_element_count(array.shape, array.n_dims, &count) || !checked_mul(count, array.item, &out->bytes))
    return error_set(error, ERROR_FORMAT, "the product of its dimensions overflows");
  out->dtype = array.dtype;
  out->n_dims = array.n_dims;
  memcpy(out->shape, array.shape, sizeof out->shape);
  if (array.columns_first)
    set_column_strides(out);
  else
    tensor_set_strides(out);
  *data_at = at + length;
  return 0;
}
