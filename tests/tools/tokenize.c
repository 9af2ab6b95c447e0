/* tokenize.c: one tokenizer at the end of a pipe, for compare_tokenizers.py, and its times.
 *
 *   tokenize FOLDER|FILE.bin|FILE.txt          texts from stdin: u32 flags, u32 length, bytes, little-endian; for each a reply
 *       to stdout: u32 count, i32 ids, u32 length, decoded text; count 0xFFFFFFFF: no ids, the error's text
 *   tokenize --time FOLDER|FILE.bin            load time, memory, encoding times of hard texts */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "core/base/utf8.h"
#include "core/model/detokenizer.h"

static double milliseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static struct tokenizer *open_any(const char *path) {
  struct error error = ERROR_INIT;
  size_t length = strlen(path);
  struct tokenizer *t = length > 4 && strcmp(path + length - 4, ".bin") == 0   ? tokenizer_open_llama2c(path, &error)
                        : length > 4 && strcmp(path + length - 4, ".txt") == 0 ? tokenizer_open_characters(path, &error)
                                                                               : tokenizer_open_folder(path, &error);
  if (t) return t;
  fprintf(stderr, "%s\n", error.text);
  exit(1);
}

static void write_u32(uint32_t value) { fwrite(&value, 4, 1, stdout); }

static void write_text(const char *text, size_t length) {
  write_u32((uint32_t)length);
  fwrite(text, 1, length, stdout);
}

/* The text token by token: what has been shown is whole characters and never changes. */
static void write_decoded(const struct tokenizer *t, const int32_t *ids, size_t count) {
  struct detokenizer d;
  size_t shown = 0;
  detokenizer_init(&d, t);
  detokenizer_begin(&d);
  for (size_t i = 0; i < count; i++) {
    if (detokenizer_push(&d, ids[i]) != 0 || !utf8_valid(d.text.data + shown, d.text.length - shown, NULL)) abort();
    shown = d.text.length;
  }
  detokenizer_finish(&d);
  write_text(d.text.data, d.text.length);
  detokenizer_clear(&d);
}

static void answer(const struct tokenizer *t, const char *text, size_t length, int flags) {
  struct error error = ERROR_INIT;
  int32_t *ids;
  size_t count;
  if (tokenizer_encode(t, text, length, flags, &ids, &count, &error) != 0) {
    write_u32(UINT32_MAX);
    write_text(error.text, strlen(error.text));
    return;
  }
  write_u32((uint32_t)count);
  if (count) fwrite(ids, 4, count, stdout);
  write_decoded(t, ids, count);
  free(ids);
}

static void serve(const struct tokenizer *t) {
  uint32_t head[2];
  while (fread(head, 4, 2, stdin) == 2) {
    char *text = malloc(head[1] + 1u);
    if (!text || fread(text, 1, head[1], stdin) != head[1]) exit(1);
    answer(t, text, head[1], (int)head[0]);
    free(text);
  }
}

static void time_text(const struct tokenizer *t, const char *name, const char *unit, size_t characters) {
  size_t width = strlen(unit), length = 0, count;
  char *text = malloc(characters * width);
  int32_t *ids;
  if (!text) exit(1);
  for (size_t i = 0; i < characters; i++, length += width) memcpy(text + length, unit, width);
  double began = milliseconds();
  int failed = tokenizer_encode(t, text, length, 0, &ids, &count, NULL);
  double took = milliseconds() - began;
  if (failed) printf("%-10s refused\n", name);
  else printf("%-10s %8zu bytes %8zu tokens %8.1f ms\n", name, length, count, took);
  if (!failed) free(ids);
  free(text);
}

static void time_all(const char *path) {
  struct rusage usage;
  double began = milliseconds();
  struct tokenizer *t = open_any(path);
  double took = milliseconds() - began;
  getrusage(RUSAGE_SELF, &usage);
  printf("load       %8d ids %8.0f ms, peak memory %ld MiB\n", tokenizer_size(t), took, usage.ru_maxrss / 1024);
  time_text(t, "a...", "a", 100000);
  time_text(t, "space...", " ", 100000);
  time_text(t, "newline...", "\n", 100000);
  time_text(t, "CJK...", "\xE6\xBC\xA2\xE5\xAD\x97", 50000);
  time_text(t, "marks...", "\xCC\x81\xCC\xA7", 50000);
  time_text(t, "unknown...", "\xF0\x9F\x9A\x80", 100000);
  time_text(t, "prose", "It was the best of times, it was the worst of times. ", 20000);
  tokenizer_free(t);
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "--time") == 0) {
    time_all(argv[2]);
  } else if (argc == 2) {
    struct tokenizer *t = open_any(argv[1]);
    serve(t);
    tokenizer_free(t);
  } else {
    fprintf(stderr, "usage: tokenize [--time] FOLDER|FILE.bin|FILE.txt\n");
    return 2;
  }
  return 0;
}
