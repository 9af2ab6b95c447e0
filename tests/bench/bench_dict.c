/* bench_dict.c: the host side of a dictionary of 768 x 24,576 f32: opening, one feature over rows, sparse decoding of rows
 * with 32 features each, and the error term; one thread. usage: bench_dict [FOLDER for a file of 151 MB, /tmp] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/random.h"
#include "core/dict/dict.h"
#include "tests/bench/limits.h"

enum { D = 768, F = 24576, ROWS = 256, L0 = 32, OPENINGS = 9 };

static void die(const char *text) {
  fprintf(stderr, "bench_dict: %s\n", text);
  exit(1);
}

static void write_dictionary(const char *folder) {
  char path[512], header[1024];
  size_t matrix = (size_t)D * F * 4, at = 0;
  const struct { const char *name, *shape; size_t bytes; } tensors[] = {
      {"W_dec", "24576,768", matrix}, {"W_enc", "768,24576", matrix}, {"b_dec", "768", D * 4}, {"b_enc", "24576", F * 4}};
  int n = snprintf(header, sizeof header, "{");
  for (int i = 0; i < 4; i++, at += tensors[i - 1].bytes)
    n += snprintf(header + n, sizeof header - (size_t)n, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", i ? "," : "",
                  tensors[i].name, tensors[i].shape, at, at + tensors[i].bytes);
  n += snprintf(header + n, sizeof header - (size_t)n, "}%*s", (8 - (n + 1) % 8) % 8, "");
  snprintf(path, sizeof path, "%s/sae_weights.safetensors", folder);
  FILE *file = fopen(path, "wb");
  if (!file) die("cannot write the dictionary");
  uint64_t length = (uint64_t)n;
  fwrite(&length, 8, 1, file);
  fwrite(header, 1, (size_t)n, file);
  for (size_t i = 0; i < at / 4; i++) {
    float value = (float)(random_unit(1, 2, i) - 0.5) * 0.1f;
    fwrite(&value, 4, 1, file);
  }
  if (fclose(file) != 0) die("cannot write the dictionary");
  snprintf(path, sizeof path, "%s/cfg.json", folder);
  if (!(file = fopen(path, "w"))) die("cannot write the description");
  fputs("{\"hook_name\":\"blocks.0.hook_resid_pre\",\"d_in\":768,\"d_sae\":24576}", file);
  fclose(file);
}

/* The best of many calls: what the machine does when nobody else asks. */
#define BEST(best, call)                                             \
  do {                                                               \
    int64_t start = clock_ns();                                      \
    best = 1e9;                                                      \
    for (int64_t n = 0; limits_seconds(start) < 0.7; n++) {           \
      int64_t begin = clock_ns();                                    \
      call;                                                          \
      double took = limits_seconds(begin);                            \
      if (took < best) best = took;                                  \
    }                                                                \
  } while (0)

static void measure(const struct dict *dict, const float *x, const struct sparse *codes, float *out) {
  double best;
  BEST(best, dict_feature_values(dict, n * 37 % F, x, ROWS, out));
  printf("one feature, %d rows        %8.1f us  %8.0f features/s\n", ROWS, best * 1e6, 1 / best);
  BEST(best, dict_decoder_row(dict, n * 37 % F, out));
  printf("steering row                %8.2f us\n", best * 1e6);
  BEST(best, dict_decode(dict, codes, 0, ROWS, NULL, out));
  printf("decode, %d features a row    %8.2f us a row  %6.1f GB/s of decoder rows\n", L0, best / ROWS * 1e6,
         (double)L0 * D * 4 * ROWS / best * 1e-9);
  BEST(best, dict_errors(dict, codes, 0, ROWS, x, x, out));
  printf("error term                  %8.2f us a row\n", best / ROWS * 1e6);
}

/* The file is in the page cache. Its two matrices are read once: what memory can stream, in turns, is the limit. */
static struct dict *open_often(const char *folder, const struct dict_host *host, struct backend *backend) {
  struct error error = ERROR_INIT;
  struct limits limits;
  struct dict *dict = NULL;
  double seconds[OPENINGS], share[OPENINGS];
  limits_open(&limits, 2);
  for (int i = 0; i < OPENINGS; i++) {
    dict_close(dict);
    double read = limits_read(&limits, limits.all);
    int64_t begin = clock_ns();
    if (!(dict = dict_open(folder, "0-bench", host, backend, &error))) die(error.text);
    seconds[i] = limits_seconds(begin);
    share[i] = 8.0 * D * F / seconds[i] * 1e-7 / read;
  }
  limits_close(&limits);
  printf("open %d x %d f32 (151 MB)  %6.1f ms, %.0f %% of read (medians of %d)\n", D, F, limits_median(seconds, OPENINGS) * 1e3,
         limits_median(share, OPENINGS), OPENINGS);
  return dict;
}

int main(int argc, char **argv) {
  char folder[256], path[512];
  struct error error = ERROR_INIT;
  snprintf(folder, sizeof folder, "%s/steerd-bench-XXXXXX", argc > 1 ? argv[1] : "/tmp");
  if (!mkdtemp(folder)) die("no folder");
  write_dictionary(folder);
  static const struct arch arch = {.n_layer = 1, .n_head = 12, .n_kv_head = 12, .d_head = 64, .d_model = D, .d_mlp = 4 * D,
                                   .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
  struct dict_host host = {"bench", &arch, NULL, NULL};
  struct backend *backend = backend_open("cpu", 2, &error);
  if (!backend) die(error.text);
  struct dict *dict = open_often(folder, &host, backend);
  struct sparse codes;
  sparse_init(&codes);
  for (int r = 0; r < ROWS; r++) {
    if (sparse_row(&codes, L0, &error) != 0) die(error.text);
    for (int i = 0; i < L0; i++) sparse_push(&codes, (int32_t)((r * 131 + i * 163) % F), 1.0f + (float)i);
  }
  float *x = malloc((size_t)ROWS * D * sizeof *x), *out = malloc((size_t)ROWS * D * sizeof *out);
  if (!x || !out) die("no memory");
  for (size_t i = 0; i < (size_t)ROWS * D; i++) x[i] = (float)random_unit(3, 4, i);
  measure(dict, x, &codes, out);
  free(x);
  free(out);
  sparse_clear(&codes);
  dict_close(dict);
  backend_close(backend);
  snprintf(path, sizeof path, "%s/sae_weights.safetensors", folder);
  unlink(path);
  snprintf(path, sizeof path, "%s/cfg.json", folder);
  unlink(path);
  return rmdir(folder);
}
