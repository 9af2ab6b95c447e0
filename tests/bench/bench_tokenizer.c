/* bench_tokenizer.c: how long a large tokenizer.json takes to open, as CSV on standard output: name, value, unit, what.
 *
 *   bench_tokenizer [FOLDER ...]     folders with a tokenizer.json of your own; without: a file made here
 *
 * The file made here has the shape of Gemma's: 262,144 pieces of 1 to 4 characters in no order, 522,000 merges, 6,000 added
 * tokens, two blanks a level of indentation. Inside the window: reading the file, which is in the page cache, checking all of it, the
 * tables that encoding needs. Processor time: least and median of rounds, beside that of reading the same bytes once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/buffer.h"
#include "core/base/mapfile.h"
#include "core/model/tokenizer.h"

#define ROUNDS 9
#define CHARACTERS 48
#define PAIRS (CHARACTERS * CHARACTERS)
#define TRIPLES (CHARACTERS * PAIRS)
#define QUADS (262144 - TRIPLES - PAIRS - CHARACTERS)
#define ADDED 6000

static void stop(const char *what) {
  fprintf(stderr, "bench_tokenizer: %s\n", what);
  exit(1);
}

static double processor_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* ---- the file ---- */

/* Characters `from` to `to` of those in `code`, a digit of base CHARACTERS each: half of one byte, half of three. */
static void put(struct buffer *out, uint32_t code, int from, int to) {
  for (int i = 0; i < to; i++, code /= CHARACTERS) {
    uint32_t digit = code % CHARACTERS;
    char wide[3] = {(char)0xE4, (char)(0x80 + digit), (char)0xB8};
    if (i < from) continue;
    if (digit < CHARACTERS / 2) buffer_char(out, (char)('a' + digit));
    else buffer_append(out, wide, sizeof wide);
  }
}

/* The next of `count` numbers, all different, in no order: odd factors permute the numbers below a power of two. */
static uint32_t draw(uint32_t *i, uint32_t count) {
  uint32_t mask = 1, code;
  while (mask < count) mask *= 2;
  do code = (*i)++ * 0x9E3779B1u & (mask - 1);
  while (code >= count);
  return code;
}

static void put_piece(struct buffer *out, uint32_t code, int length, int *id) {
  buffer_text(out, *id ? ",\n      \"" : "\n      \"");
  put(out, code, 0, length);
  buffer_printf(out, "\": %d", (*id)++);
}

static void put_merge(struct buffer *out, uint32_t code, int cut, int length, bool *first) {
  buffer_text(out, *first ? "\n      [\n        \"" : ",\n      [\n        \"");
  put(out, code, 0, cut);
  buffer_text(out, "\",\n        \"");
  put(out, code, cut, length);
  buffer_text(out, "\"\n      ]");
  *first = false;
}

static const struct {
  int length;
  uint32_t count, of;
  int first_cut;
} kinds[] = {{1, CHARACTERS, CHARACTERS, 1}, {2, PAIRS, PAIRS, 1}, {3, TRIPLES, TRIPLES, 1}, {4, QUADS, CHARACTERS * TRIPLES, 2}};

static void put_pieces(struct buffer *out, int *id) {
  for (int k = 0; k < 4; k++)
    for (uint32_t n = 0, i = 0; n < kinds[k].count; n++) put_piece(out, draw(&i, kinds[k].of), kinds[k].length, id);
}

/* All ways to cut a piece in a row, as published files have them. */
static void put_merges(struct buffer *out) {
  bool first = true;
  for (int k = 1; k < 4; k++)
    for (uint32_t n = 0, i = 0; n < kinds[k].count; n++) {
      uint32_t code = draw(&i, kinds[k].of);
      for (int cut = kinds[k].first_cut; cut < kinds[k].length; cut++) put_merge(out, code, cut, kinds[k].length, &first);
    }
}

static void put_added(struct buffer *out) {
  for (int i = 0; i < ADDED; i++)
    buffer_printf(out,
                  "%s\n    {\n      \"id\": %d,\n      \"content\": \"<unused%d>\",\n      \"single_word\": false,\n      "
                  "\"lstrip\": false,\n      \"rstrip\": false,\n      \"normalized\": false,\n      \"special\": false\n    }",
                  i ? "," : "", 262144 + i, i);
}

static void make(struct buffer *out) {
  int id = 0;
  buffer_text(out, "{\n  \"version\": \"1.0\",\n  \"added_tokens\": [");
  put_added(out);
  buffer_text(out, "\n  ],\n  \"normalizer\": null,\n  \"pre_tokenizer\": null,\n  \"model\": {\n    \"type\": \"BPE\",\n"
                   "    \"vocab\": {");
  put_pieces(out, &id);
  buffer_text(out, "\n    },\n    \"merges\": [");
  put_merges(out);
  buffer_text(out, "\n    ]\n  }\n}\n");
}

static void write_file(const char *folder, char *path, size_t size) {
  struct buffer text;
  buffer_init(&text, 0);
  make(&text);
  snprintf(path, size, "%s/tokenizer.json", folder);
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(text.data, 1, text.length, file) != text.length || fclose(file) != 0) stop("cannot write the file");
  buffer_clear(&text);
}

/* ---- the window ---- */

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void report(const char *what, double *values, const char *note) {
  qsort(values, ROUNDS, sizeof *values, ascending);
  printf("%s_least,%.1f,ms,%s\n%s_median,%.1f,ms,%s\n", what, values[0], note, what, values[ROUNDS / 2], note);
}

/* The same bytes once, from the page cache through a copy as the tokenizer takes them. */
static double read_once(const char *folder, size_t *size) {
  char path[4096], *text;
  size_t length;
  snprintf(path, sizeof path, "%s/tokenizer.json", folder);
  double began = processor_ms();
  if (file_read(path, (size_t)1 << 30, &text, &length, NULL) != 0) stop("cannot read the file");
  if (memchr(text, '\0', length)) stop("the file holds NUL");
  double took = processor_ms() - began;
  if (*size == 0) printf("size,%.1f,MB,of tokenizer.json\n", (double)length / 1e6);
  *size = length;
  free(text);
  return took;
}

static void measure(const char *folder) {
  double opened[ROUNDS], read[ROUNDS];
  struct error error = ERROR_INIT;
  struct rusage usage;
  size_t size = 0;
  for (int i = 0; i < ROUNDS; i++) {
    read[i] = read_once(folder, &size);
    double began = processor_ms();
    struct tokenizer *t = tokenizer_open_folder(folder, &error);
    opened[i] = processor_ms() - began;
    if (!t) stop(error.text);
    if (i == 0) printf("ids,%d,,%s\n", tokenizer_size(t), folder);
    tokenizer_free(t);
  }
  getrusage(RUSAGE_SELF, &usage);
  report("read", read, "file read and looked at once");
  report("open", opened, "tokenizer_open_folder: read; checked; ready to encode");
  printf("peak,%ld,MiB,of the process\n", usage.ru_maxrss / 1024);
}

int main(int argc, char **argv) {
  char folder[] = "/tmp/bench_tokenizer_XXXXXX", path[4096];
  for (int i = 1; i < argc; i++) measure(argv[i]);
  if (argc > 1) return 0;
  if (!mkdtemp(folder)) stop("cannot make a folder in /tmp");
  write_file(folder, path, sizeof path);
  measure(folder);
  unlink(path);
  rmdir(folder);
  return 0;
}
