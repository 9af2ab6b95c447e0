/* What is read line by line, or as numbers alone: the first byte says which. A line of Neuronpedia's dataset as each of the rows that it may
 * be; the rest is a checkpoint of llama2.c. */
#include "core/archive/rows.h"
#include "core/base/arena.h"
#include "core/base/utf8.h"
#include "core/model/llama2c.h"
#include "tests/fuzz/fuzz_tensors.h"

static void must(bool holds) {
  if (!holds) abort();
}

static void settle(int rc, const struct error *error) { must(rc == 0 || (error->code && error->text[0])); }

static void check_text(const char *text) { must(!text || utf8_valid(text, strlen(text), NULL)); }

static void check_tokens(const struct store_tokens *tokens) {
  for (size_t i = 0; i < tokens->n; i++) {
    must(tokens->texts[i].text != NULL && utf8_valid(tokens->texts[i].text, tokens->texts[i].length, NULL));
    fuzz_sink = ((const unsigned char *)&tokens->values[i])[3];
  }
}

static void check_bars(const struct store_histogram *bars) {
  for (size_t i = 0; i < bars->n; i++) fuzz_sink = (unsigned char)(bars->heights[i] > bars->values[i]);
}

static void check_feature(const struct store_feature *feature) {
  check_tokens(&feature->top);
  check_tokens(&feature->bottom);
  check_bars(&feature->activity);
  check_bars(&feature->logits);
  for (size_t i = 0; i < feature->n_neighbours; i++) fuzz_sink = (unsigned char)feature->neighbours[i] + (feature->cosines[i] > 0);
  check_text(feature->extra);
}

static void check_example(const struct store_example *example) {
  must(example->n >= 1 && example->n <= STORE_TOKENS_MAX && example->qualifying < (int)example->n);
  for (size_t i = 0; i < example->n; i++) {
    must(utf8_valid(example->tokens[i].text, example->tokens[i].length, NULL));
    fuzz_sink = (unsigned char)(example->values[i] > 0);
  }
}

static void read_line(const unsigned char *data, size_t size) {
  struct error error = ERROR_INIT;
  struct arena arena;
  struct archive_place place;
  struct store_feature feature = {0};
  struct store_example example = {0};
  struct store_explanation explanation = {0};
  struct store_model model = {0};
  struct store_source source = {0};
  struct json_node *line = json_parse((const char *)data, size, ARCHIVE_DEPTH, &error);
  settle(line ? 0 : -1, &error);
  if (!line) return;
  arena_init(&arena, 1 << 22);
  error = (struct error)ERROR_INIT;
  settle(archive_read_place(line, &place, &error), &error);
  error = (struct error)ERROR_INIT;
  int rc = archive_read_feature(line, &arena, &feature, &error);
  settle(rc, &error);
  if (rc == 0) check_feature(&feature);
  error = (struct error)ERROR_INIT;
  rc = archive_read_example(line, &arena, &example, &error);
  settle(rc, &error);
  if (rc == 0) check_example(&example);
  error = (struct error)ERROR_INIT;
  rc = archive_read_explanation(line, &arena, &explanation, &error);
  settle(rc, &error);
  if (rc == 0) check_text(explanation.description);
  error = (struct error)ERROR_INIT;
  settle(archive_read_model(line, &arena, &model, &error), &error);
  error = (struct error)ERROR_INIT;
  settle(archive_read_source(line, &arena, &source, &error), &error);
  arena_clear(&arena);
  json_free(line);
}

static int read_checkpoint(const char *path, const struct mapfile *file, struct tensor_list *list, struct error *error) {
  if (!llama2c_begins(file)) return error_set(error, ERROR_FORMAT, "not one");
  return llama2c_read(path, file, list, error);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  if (size == 0) return 0;
  if (data[0] & 1) return fuzz_reader(read_checkpoint, data + 1, size - 1);
  read_line(data + 1, size - 1);
  return 0;
}
