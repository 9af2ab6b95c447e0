/* edits.c: the edit object parsed, once for all routes that take edits. Which fields an op uses is one table: anything
 * else beside it is refused, so that no mistake goes unnoticed. */
#include "api/edits.h"

#include <stdio.h>
#include <string.h>

#define OPS "add project cap set scale zero mean clamp ablate splice patch knockout"

static const struct field feature_rows[] = {
    {"index", NULL, FIELD_INDEX, .required = true, .max = 4294967295.0, .meant = INDEX_MEANT,
     .text = "The feature's number in the source."},
    {"op", NULL, FIELD_CHOICE, .fallback = "ablate", .choices = "clamp ablate scale", .text = "How its activation changes."},
    {"value", NULL, FIELD_NUMBER, .min = -1e6, .max = 1e6, .meant = "factor multiplier scale amount strength",
     .text = "Of clamp and scale."},
    {.name = NULL}};

#define PLAIN_ROWS                                                                                                     \
  {"op", NULL, FIELD_CHOICE, .required = true, .choices = OPS, .text = "What is done."},                                \
  {"point", NULL, FIELD_TEXT, .min = 1, .max = 128,                                                                     \
   .text = "Where, such as \"blocks.5.hook_resid_pre\"; left out where a source says it."},                             \
  {"source", "layer", FIELD_SOURCE, .text = "A dictionary, such as \"7-res-jb\"; \"7\": neurons. "},                                     \
  {"index", NULL, FIELD_INDEX, .max = 4294967295.0, .meant = INDEX_MEANT, .text = "A feature of the source."},        \
  {"vector", NULL, FIELD_NUMBERS, .min = 1, .max = 1e6,                                                                 \
   .text = "As many numbers as the point has columns, or its chosen heads (and their keys)."},                          \
  {"strength", NULL, FIELD_NUMBER, .fallback = "1", .min = -1e6, .max = 1e6, .meant = "coefficient coeff alpha",              \
   .text = "Of add, project and cap."},       \
  {"value", NULL, FIELD_NUMBER, .min = -1e6, .max = 1e6, .meant = "factor multiplier scale amount",                     \
   .text = "Of scale and clamp; of add and set the number for every column, in place of a vector."},                    \
  {"unit", NULL, FIELD_CHOICE, .fallback = "raw", .choices = "raw max",                                                 \
   .text = "max: strength and value count in the feature's largest stored activation."},                                \
  {"heads", NULL, FIELD_INTS, .min = 1, .max = 4096, .text = "Only these heads, at a point that has heads."},           \
  {"keys", NULL, FIELD_PLACES, .min = 1, .max = 1e6,                                                                    \
   .text = "Of attn_scores and pattern: the tokens that are looked at; positions are those that look. Left out: all."}, \
  {"positions", NULL, FIELD_PLACES, .fallback = "all", .choices = "all prompt generated", .min = 1, .max = 1e6,         \
   .text = "Where in the text: all of it, the prompt, what is generated, or these tokens of the prompt."},              \
  {"special", NULL, FIELD_BOOL, .fallback = "true", .text = "false leaves special tokens of the prompt (BOS) alone."},  \
  {"includeError", NULL, FIELD_BOOL, .fallback = "true",                                                                \
   .text = "Of features and splices: what the dictionary does not explain stays."},                                     \
  {"features", NULL, FIELD_OBJECTS, .max = 4096, .inner = feature_rows,                                                  \
   .example = "{\"index\": 6770, \"op\": \"clamp\", \"value\": 2}", .text = "Of splice: activations that change."},     \
  {"rows", NULL, FIELD_ROWS, .min = 1, .max = 65536, .text = "Of patch: a row for each selected position."},            \
  {"over", NULL, FIELD_CHOICE, .fallback = "positions", .choices = "positions batch corpus",                            \
   .text = "Of mean: over the positions of this text, of all texts of the request, or of texts."},                      \
  {"texts", NULL, FIELD_TEXTS, .min = 1, .cap = CAP_PROMPT,                                                             \
   .text = "Of mean: the corpus. A feature needs none where its statistics are stored."},                               \
  {"perPosition", NULL, FIELD_BOOL, .fallback = "false",                                                                \
   .text = "Of mean over batch or corpus: each position has its own mean; all texts have as many tokens."}

static const struct field inner_edit_rows[] = {
    PLAIN_ROWS,
    {"from", NULL, FIELD_REFUSED, .text = "a run that is taken from takes nothing from a further run; leave it out"},
    {.name = NULL}};

static const struct field from_rows[] = {
    {"text", NULL, FIELD_TEXT, .min = 1, .cap = CAP_PROMPT, .text = "The text of that run."},
    {"tokens", NULL, FIELD_INTS, .min = 1, .max = 1e6, .text = "Or its tokens."},
    {"edits", NULL, FIELD_OBJECTS, .max = 256, .inner = inner_edit_rows, .example = "{\"op\": \"zero\", \"point\": \"z.0\"}",
     .text = "Changes in that run."},
    {"positions", NULL, FIELD_PLACES, .min = 1, .max = 1e6,
     .text = "Take from these positions, in this order; left out: from the same ones. Of a mean: it is over these; left out: over all."},
    {.name = NULL}};

const struct field edit_fields[] = {
    PLAIN_ROWS,
    {"from", NULL, FIELD_OBJECT, .inner = from_rows, .example = "{\"text\": \"...\"}",
     .text = "Of patch and mean: another run, made first."},
    {.name = NULL}};

/* ---- which fields an op uses --------------------------------------------------------------------------- */

static const struct {
  const char *word;
  enum lab_edit_op op;
  const char *uses; /* besides op, positions and special */
  const char *needs;
} table[] = {
    {"add", LAB_EDIT_ADD, "point source index vector value strength unit heads keys", ""},
    {"project", LAB_EDIT_PROJECT, "point source index vector strength unit heads", "strength"},
    {"cap", LAB_EDIT_CAP, "point source index vector strength unit heads", "strength"},
    {"set", LAB_EDIT_SET, "point vector value heads keys", "point"},
    {"scale", LAB_EDIT_SCALE, "point source index value heads keys includeError", "value"},
    {"zero", LAB_EDIT_ZERO, "point heads keys", "point"},
    {"mean", LAB_EDIT_MEAN, "point source index value heads keys includeError from over texts perPosition", ""},
    {"clamp", LAB_EDIT_CLAMP, "source index value unit includeError", "value"},
    {"ablate", LAB_EDIT_ABLATE, "source index includeError", "index"},
    {"splice", LAB_EDIT_SPLICE, "source features includeError", "source"},
    {"patch", LAB_EDIT_PATCH, "point heads keys from rows", "point"},
    {"knockout", LAB_EDIT_KNOCKOUT, "point heads keys", "point"},
};
#define TABLE_COUNT (sizeof table / sizeof *table)

static int refuse(struct error *error, const char *path, const char *name, const char *text, const char *op) {
  char field[80];
  snprintf(field, sizeof field, "%.48s.%.24s", path, name);
  return error_set_field(error, ERROR_ARGUMENT, field, "'%s' %s '%s'", field, text, op);
}

static int check_fields(const struct values *values, size_t row, const char *path, struct error *error) {
  static const char *const names[] = {"point", "source", "index", "vector", "strength", "value", "unit", "heads",
                                      "keys", "includeError", "features", "rows", "over", "texts", "perPosition", "from"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    bool used = field_word_in(table[row].uses, names[i], strlen(names[i]));
    if (values_has(values, names[i]) && !used)
      return refuse(error, path, names[i], "has no meaning for the op", table[row].word);
    if (!values_has(values, names[i]) && field_word_in(table[row].needs, names[i], strlen(names[i])))
      return refuse(error, path, names[i], "is required by the op", table[row].word);
  }
  return 0;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

int64_t *read_integers(struct api_call *call, const struct values *values, const char *name, size_t *n, struct error *error) {
  *n = values_is_list(values, name) ? values_count(values, name) : 0;
  int64_t *out = arena_array(&call->arena, *n, sizeof *out, error);
  for (size_t i = 0; out && i < *n; i++) out[i] = values_int_at(values, name, i);
  return out;
}

float *read_floats(struct api_call *call, const struct values *values, const char *name, size_t *n, struct error *error) {
  *n = values_count(values, name);
  float *out = arena_array(&call->arena, *n, sizeof *out, error);
  for (size_t i = 0; out && i < *n; i++) out[i] = (float)values_number_at(values, name, i);
  return out;
}

static int read_rows(struct api_call *call, const struct values *values, struct lab_edit *edit, struct error *error) {
  edit->n_rows = values_rows(values, "rows");
  edit->row_width = edit->n_rows ? values_row_count(values, "rows", 0) : 0;
  float *rows = arena_array(&call->arena, edit->n_rows * edit->row_width, sizeof *rows, error);
  if (!rows) return -1;
  for (size_t i = 0; i < edit->n_rows; i++)
    for (size_t j = 0; j < edit->row_width; j++) rows[i * edit->row_width + j] = (float)values_row_at(values, "rows", i, j);
  edit->rows = edit->n_rows ? rows : NULL;
  return 0;
}

static enum lab_edit_op op_of(const char *word) {
  size_t i = 0;
  while (strcmp(table[i].word, word) != 0) i++;
  return table[i].op;
}

static int read_features(struct api_call *call, const struct values *values, const char *path, struct lab_edit *edit,
                         struct error *error) {
  edit->n_features = values_count(values, "features");
  struct lab_feature_edit *features = arena_array(&call->arena, edit->n_features, sizeof *features, error);
  if (!features) return -1;
  for (size_t i = 0; i < edit->n_features; i++) {
    const struct values *one = values_at(values, "features", i);
    const char *op = values_text(one, "op", NULL);
    char at[96];
    snprintf(at, sizeof at, "%.40s.features[%zu]", path, i);
    features[i] = (struct lab_feature_edit){op_of(op), values_int(one, "index"), values_number(one, "value")};
    if (values_has(one, "value") && features[i].op == LAB_EDIT_ABLATE)
      return refuse(error, at, "value", "has no meaning for the op", op);
    if (!values_has(one, "value") && features[i].op != LAB_EDIT_ABLATE)
      return refuse(error, at, "value", "is required by the op", op);
  }
  edit->features = features;
  return 0;
}

int edits_texts(struct api_call *call, const struct values *values, struct lab_edit *edit, struct error *error) {
  edit->n_texts = values_count(values, "texts");
  struct lab_input *texts = arena_array(&call->arena, edit->n_texts, sizeof *texts, error);
  for (size_t i = 0; texts && i < edit->n_texts; i++) texts[i].text = values_text_at(values, "texts", i, &texts[i].length);
  edit->texts = texts;
  return texts ? 0 : -1;
}

/* Texts alone say what a mean is over. */
enum lab_over edits_over(const struct values *values) {
  const char *word = values_text(values, "over", NULL);
  if (!values_has(values, "over")) return values_has(values, "texts") ? LAB_OVER_CORPUS : LAB_OVER_POSITIONS;
  return strcmp(word, "corpus") == 0 ? LAB_OVER_CORPUS : strcmp(word, "batch") == 0 ? LAB_OVER_BATCH : LAB_OVER_POSITIONS;
}

static enum lab_where read_where(const struct values *values) {
  if (values_is_list(values, "positions")) return LAB_LISTED;
  const char *word = values_text(values, "positions", NULL);
  if (strcmp(word, "prompt") == 0) return LAB_PROMPT;
  return strcmp(word, "generated") == 0 ? LAB_GENERATED : LAB_EVERYWHERE;
}

int read_input(struct api_call *call, const struct values *values, const char *text, const char *tokens, const char *prefix,
               struct lab_input *out, struct error *error) {
  bool has_text = values_has(values, text), has_tokens = values_has(values, tokens);
  char field[80];
  snprintf(field, sizeof field, "%.48s%.24s", prefix, text);
  if (has_text == has_tokens)
    return error_set_field(error, ERROR_ARGUMENT, field, has_text ? "'%s%s' and '%s%s' are both given; give one of them"
                                                                  : "'%s%s' or '%s%s' is required",
                           prefix, text, prefix, tokens);
  if (has_text) {
    out->text = values_text(values, text, &out->length);
    return 0;
  }
  out->ids = read_integers(call, values, tokens, &out->n_ids, error);
  return out->ids ? 0 : -1;
}

static int read_list(struct api_call *call, const struct values *values, const char *name, const char *path,
                     const struct lab_edit **out, size_t *n, struct error *error);

static int read_from(struct api_call *call, const struct values *values, const char *path, struct lab_edit *edit,
                     struct error *error) {
  const struct values *from = values_at(values, "from", 0);
  struct lab_input *input = arena_alloc(&call->arena, sizeof *input, error);
  char at[64];
  if (!from) return 0;
  snprintf(at, sizeof at, "%.40s.from.", path);
  if (!input || read_input(call, from, "text", "tokens", at, input, error) != 0) return -1;
  edit->from = input;
  edit->from_positions = read_integers(call, from, "positions", &edit->n_from_positions, error);
  snprintf(at, sizeof at, "%.40s.from.edits", path);
  if (!edit->from_positions) return -1;
  return read_list(call, from, "edits", at, &edit->from_edits, &edit->n_from_edits, error);
}

static int read_edit(struct api_call *call, const struct values *values, const char *path, struct lab_edit *edit,
                     struct error *error) {
  const char *op = values_text(values, "op", NULL), *source = values_text(values, "source", NULL);
  size_t row = 0;
  while (strcmp(table[row].word, op) != 0) row++;
  if (check_fields(values, row, path, error) != 0) return -1;
  *edit = (struct lab_edit){.op = table[row].op, .point = values_text(values, "point", NULL), .source_id = source,
                            .index = values_has(values, "index") ? values_int(values, "index") : -1,
                            .strength = values_number(values, "strength"), .value = values_number(values, "value"),
                            .max_unit = strcmp(values_text(values, "unit", NULL), "max") == 0,
                            .where = read_where(values), .special = values_bool(values, "special"),
                            .include_error = values_bool(values, "includeError"), .over = edits_over(values),
                            .per_position = values_bool(values, "perPosition")};
  edit->uniform = values_has(values, "value") && (edit->op == LAB_EDIT_ADD || edit->op == LAB_EDIT_SET);
  const float *vector = read_floats(call, values, "vector", &edit->n_vector, error);
  if (!vector) return -1;
  if (edit->n_vector) edit->vector = vector;
  if (!(edit->heads = read_integers(call, values, "heads", &edit->n_heads, error)) ||
      !(edit->keys = read_integers(call, values, "keys", &edit->n_keys, error)) ||
      !(edit->positions = read_integers(call, values, "positions", &edit->n_positions, error)) ||
      edits_texts(call, values, edit, error) != 0 || read_features(call, values, path, edit, error) != 0 || read_rows(call, values, edit, error) != 0)
    return -1;
  return read_from(call, values, path, edit, error);
}

static int read_list(struct api_call *call, const struct values *values, const char *name, const char *path,
                     const struct lab_edit **out, size_t *n, struct error *error) {
  *n = values_count(values, name);
  struct lab_edit *edits = arena_array(&call->arena, *n, sizeof *edits, error);
  if (!edits) return -1;
  for (size_t i = 0; i < *n; i++) {
    char at[96];
    snprintf(at, sizeof at, "%.48s[%zu]", path, i);
    if (read_edit(call, values_at(values, name, i), at, &edits[i], error) != 0) return -1;
  }
  *out = edits;
  return 0;
}

int edits_read(struct api_call *call, const struct values *values, const char *name, const char *prefix,
               const struct lab_edit **out, size_t *n, struct error *error) {
  char path[64];
  snprintf(path, sizeof path, "%.20s%.40s", prefix, name);
  return read_list(call, values, name, path, out, n, error);
}
