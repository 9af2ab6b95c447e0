/* Files of directions: those that gguf, numpy and safetensors wrote, our own read back, and hostile ones. Bytes are read from
 * allocations of exactly their size, so that the sanitizer build sees a read past the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mapfile.h"
#include "core/model/control_vector.h"

#define VECTORS "tests/vectors/control-vectors/"
#define LAYERS 3
#define WIDTH 48

/* ---- helpers ---- */

struct loaded {
  char *data;
  size_t size;
};

static struct loaded load(const char *name) {
  struct error error = ERROR_INIT;
  struct loaded file;
  char path[128];
  snprintf(path, sizeof path, VECTORS "%s", name);
  if (file_read(path, 1 << 16, &file.data, &file.size, &error) != 0) fail_msg("%s", error.text);
  return file;
}

static int read_copy(const void *data, size_t size, struct arena *arena, struct control_vector *out, struct error *error) {
  unsigned char *copy = malloc(size ? size : 1);
  assert_non_null(copy);
  memcpy(copy, data, size);
  int rc = control_vector_read(copy, size, LAYERS, WIDTH, arena, out, error);
  free(copy);
  return rc;
}

/* As make_control_vectors.py makes them. */
static float value(int layer, int c) { return (float)((7 * c + layer) % 13 - 6) / 4; }

static void check_direction(const struct control_direction *got, enum site site, int layer) {
  assert_int_equal(got->point.site, site);
  assert_int_equal(got->point.layer, layer);
  for (int c = 0; c < WIDTH; c++) assert_float_equal(got->values[c], value(layer, c), 0); /* exact in every type */
}

/* The text of the refusal; the program ends where it is none. */
static void check_refused(const void *data, size_t size, enum error_code code, const char *part) {
  struct arena arena;
  struct control_vector out;
  struct error error = ERROR_INIT;
  arena_init(&arena, 1 << 20);
  assert_int_equal(read_copy(data, size, &arena, &out, &error), -1);
  if (error.code != code || !strstr(error.text, part)) fail_msg("%d: '%s' does not say '%s'", error.code, error.text, part);
  arena_clear(&arena);
}

/* ---- files of libraries ---- */

static void check_file(const char *name, const char *format, const char *hint, enum site first) {
  struct loaded file = load(name);
  struct arena arena;
  struct control_vector out;
  struct error error = ERROR_INIT;
  arena_init(&arena, 1 << 20);
  if (read_copy(file.data, file.size, &arena, &out, &error) != 0) fail_msg("%s: %s", name, error.text);
  assert_string_equal(out.format, format);
  assert_int_equal(out.n, 2);
  if (hint)
    assert_string_equal(out.hint, hint);
  else
    assert_null(out.hint);
  /* Safetensors sorts its tensors by size of type and name. */
  size_t one = out.directions[0].point.layer == 1 ? 0 : 1;
  check_direction(&out.directions[one], first, 1);
  check_direction(&out.directions[1 - one], SITE_RESID_POST, 2);
  arena_clear(&arena);
  free(file.data);
}

static void test_files(void **state) {
  (void)state;
  check_file("layers.gguf", "gguf", "gpt2", SITE_RESID_POST);
  check_file("half.gguf", "gguf", NULL, SITE_RESID_POST);
  check_file("named.safetensors", "safetensors", NULL, SITE_RESID_PRE);
  check_file("named.npz", "npz", NULL, SITE_RESID_PRE);
}

/* Cut anywhere, a file is refused in words; with any byte changed, it is read or refused. */
static void test_damage(void **state) {
  (void)state;
  static const char *const names[] = {"layers.gguf", "half.gguf", "named.safetensors", "named.npz"};
  for (size_t f = 0; f < sizeof names / sizeof names[0]; f++) {
    struct loaded file = load(names[f]);
    for (size_t size = 0; size < file.size; size++) {
      struct arena arena;
      struct control_vector out;
      struct error error = ERROR_INIT;
      arena_init(&arena, 1 << 20);
      /* half.gguf ends with 32 bytes that fill up its alignment. */
      if (read_copy(file.data, size, &arena, &out, &error) == 0 && (f != 1 || size < file.size - 32))
        fail_msg("%s: its first %zu bytes were read", names[f], size);
      assert_true(error.text[0] || f == 1);
      arena_clear(&arena);
    }
    for (size_t at = 0; at < file.size; at++)
      for (int bit = 0; bit < 8; bit += 7) {
        struct arena arena;
        struct control_vector out;
        struct error error = ERROR_INIT;
        arena_init(&arena, 1 << 20);
        file.data[at] ^= (char)(1 << bit);
        int rc = read_copy(file.data, file.size, &arena, &out, &error);
        assert_true(rc == 0 ? out.n > 0 : error.text[0] != 0);
        file.data[at] ^= (char)(1 << bit);
        arena_clear(&arena);
      }
    free(file.data);
  }
}

/* ---- built here ---- */

static void put_u32(struct buffer *to, uint32_t n) { buffer_append(to, &n, sizeof n); }
static void put_u64(struct buffer *to, uint64_t n) { buffer_append(to, &n, sizeof n); }

static void put_text(struct buffer *to, const char *text) {
  put_u64(to, strlen(text));
  buffer_text(to, text);
}

/* What may be wrong with a file of one direction. */
struct wrong {
  const char *architecture, *name;
  uint32_t version, alignment, kind, dims, type;
  uint64_t tensors, pairs, width, offset;
  float first;
};

static const struct wrong right = {"controlvector", "direction.1", 3, 32, 8, 1, 0, 1, 2, WIDTH, 0, 1};

static void build(const struct wrong *w, struct buffer *out) {
  buffer_init(out, 0);
  buffer_text(out, "GGUF");
  put_u32(out, w->version);
  put_u64(out, w->tensors);
  put_u64(out, w->pairs);
  put_text(out, "general.architecture");
  put_u32(out, w->kind);
  put_text(out, w->architecture);
  put_text(out, "general.alignment");
  put_u32(out, 4);
  put_u32(out, w->alignment);
  put_text(out, w->name);
  put_u32(out, w->dims);
  put_u64(out, w->width);
  put_u32(out, w->type);
  put_u64(out, w->offset);
  while (out->length % 32) buffer_char(out, 0);
  for (int c = 0; c < WIDTH; c++) {
    float number = c ? 1 : w->first;
    buffer_append(out, &number, sizeof number);
  }
  for (int i = 0; i < 8; i++) put_u32(out, 0); /* room behind, so that an offset of 4 is wrong for what it is */
}

static void check_wrong(struct wrong w, enum error_code code, const char *part) {
  struct buffer file;
  build(&w, &file);
  check_refused(file.data, file.length, code, part);
  buffer_clear(&file);
}

static struct wrong with(void) { return right; }

static void test_refusals(void **state) {
  (void)state;
  struct wrong w;
  struct buffer good;
  struct arena arena;
  struct control_vector out;
  struct error error = ERROR_INIT;
  arena_init(&arena, 1 << 20);
  build(&right, &good);
  if (read_copy(good.data, good.length, &arena, &out, &error) != 0) fail_msg("%s", error.text); /* or nothing below says anything */
  buffer_clear(&good);
  arena_clear(&arena);
  w = with(), w.architecture = "llama", check_wrong(w, ERROR_ARGUMENT, "architecture 'llama'");
  w = with(), w.version = 1, check_wrong(w, ERROR_UNSUPPORTED, "version 1");
  w = with(), w.alignment = 48, check_wrong(w, ERROR_FORMAT, "power of two");
  w = with(), w.alignment = 8192, check_wrong(w, ERROR_FORMAT, "from 8 to 4096");
  w = with(), w.kind = 13, check_wrong(w, ERROR_FORMAT, "kind 13");
  w = with(), w.tensors = 5000, check_wrong(w, ERROR_LIMIT, "at most 4096");
  w = with(), w.pairs = UINT64_MAX, check_wrong(w, ERROR_LIMIT, "at most 4096");
  w = with(), w.dims = 5, check_wrong(w, ERROR_FORMAT, "5 dimensions");
  w = with(), w.dims = 0, check_wrong(w, ERROR_FORMAT, "0 dimensions");
  w = with(), w.type = 8, check_wrong(w, ERROR_UNSUPPORTED, "GGUF's type 8");
  w = with(), w.width = (uint64_t)1 << 63, check_wrong(w, ERROR_FORMAT, "do not fit");
  w = with(), w.width = (uint64_t)1 << 61, check_wrong(w, ERROR_FORMAT, "do not fit");
  w = with(), w.width = 2 * WIDTH, check_wrong(w, ERROR_FORMAT, "384 bytes");
  w = with(), w.width = WIDTH - 1, check_wrong(w, ERROR_ARGUMENT, "expected [48]");
  w = with(), w.offset = 4, check_wrong(w, ERROR_FORMAT, "multiples of 32");
  w = with(), w.offset = UINT64_MAX - 31, check_wrong(w, ERROR_FORMAT, "multiples of 32");
  w = with(), w.name = "direction.3", check_wrong(w, ERROR_ARGUMENT, "'direction.3'");
  w = with(), w.name = "direction.99999999999", check_wrong(w, ERROR_ARGUMENT, "direction.N");
  w = with(), w.name = "direction.-1", check_wrong(w, ERROR_ARGUMENT, "direction.N");
  w = with(), w.name = "blocks.1.attn.hook_z", check_wrong(w, ERROR_ARGUMENT, "hook_resid_pre and hook_resid_post only");
  w = with(), w.first = INFINITY, check_wrong(w, ERROR_ARGUMENT, "value 0 is not finite");
  w = with(), w.first = NAN, check_wrong(w, ERROR_ARGUMENT, "value 0 is not finite");
  w = with(), w.tensors = 0, check_wrong(w, ERROR_ARGUMENT, "no tensors");
  check_refused("PK\3\4", 4, ERROR_FORMAT, "begin like none");
  check_refused("", 0, ERROR_FORMAT, "0 bytes");
}

/* ---- writing ---- */

static void test_written_is_read(void **state) {
  (void)state;
  static float one[WIDTH], two[WIDTH], both[WIDTH];
  struct arena arena;
  struct buffer file;
  struct control_vector out;
  struct error error = ERROR_INIT;
  for (int c = 0; c < WIDTH; c++) one[c] = value(1, c), two[c] = value(2, c), both[c] = one[c] + two[c];
  const struct control_direction directions[] = {
      {{.site = SITE_RESID_POST, .layer = 2}, two}, {{.site = SITE_RESID_PRE, .layer = 2}, one}, {{.site = SITE_RESID_POST, .layer = 1}, two}};
  arena_init(&arena, 1 << 20);
  buffer_init(&file, 0);
  assert_int_equal(control_vector_write(&file, "gpt2", directions, 3, WIDTH, &error), 0);
  if (read_copy(file.data, file.length, &arena, &out, &error) != 0) fail_msg("%s", error.text);
  assert_string_equal(out.hint, "gpt2");
  assert_int_equal(out.n, 2);
  check_direction(&out.directions[0], SITE_RESID_POST, 2);
  assert_int_equal(out.directions[1].point.layer, 1); /* what is read in front of layer 2 is added behind layer 1 */
  assert_memory_equal(out.directions[1].values, both, sizeof both);
  assert_int_equal(control_vector_write(&file, "gpt2", &(struct control_direction){{.site = SITE_RESID_PRE, .layer = 1}, one}, 1, WIDTH, &error), -1);
  assert_non_null(strstr(error.text, "behind layer 1"));
  buffer_clear(&file);
  arena_clear(&arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_files), cmocka_unit_test(test_damage), cmocka_unit_test(test_refusals),
                                     cmocka_unit_test(test_written_is_read)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
