/* lab_ablate.c: POST /v1/lab/ablate: features or heads taken out, and what the model expects before and after. It is
 * /v1/lab/next with the edits written by the server. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/handlers.h"
#include "api/lab_common.h"

static const struct field head_rows[] = {
    {"layer", NULL, FIELD_INT, .required = true, .max = 4095, .text = "The layer."},
    {"head", NULL, FIELD_INT, .required = true, .max = 4095, .text = "The head."},
    {.name = NULL}};

const struct field lab_ablate_fields[] = {
    MODEL_ROW,
    INPUTS_ROWS_AS("prompt"), /* "texts" are what a mean is over */
    {"source", "layer", FIELD_SOURCE, .text = "With features: their dictionary."},
    {"features", NULL, FIELD_INTS, .min = 1, .max = 4096, .text = "Numbers of the features that go."},
    {"heads", NULL, FIELD_OBJECTS, .min = 1, .max = 4096, .inner = head_rows,
     .example = "{\"layer\": 0, \"head\": 1}", .text = "The heads that go."},
    {"mode", NULL, FIELD_CHOICE, .fallback = "zero", .choices = "zero mean",
     .text = "What stands in their place: zero, or a mean: over the text's positions, or over texts."},
    {"over", NULL, FIELD_CHOICE, .fallback = "positions", .choices = "positions corpus",
     .text = "With mode mean: corpus means the texts; of features without texts what their statistics say."},
    {"texts", NULL, FIELD_TEXTS, .min = 1, .cap = CAP_PROMPT, .text = "With mode mean: the texts that the mean is over."},
    {"perPosition", NULL, FIELD_BOOL, .fallback = "false",
     .text = "With texts: each position of the heads has its own mean; all texts have as many tokens."},
    {"includeError", NULL, FIELD_BOOL, .fallback = "true",
     .text = "Of features: what the dictionary does not explain stays; false: only its reconstruction goes on."},
    {"positions", NULL, FIELD_PLACES, .fallback = "all", .choices = "all prompt generated", .min = 1, .max = 1e6,
     .text = "At these positions only; -1 is the last."},
    {"special", NULL, FIELD_BOOL, .fallback = "true", .text = "false leaves special tokens (BOS) alone."},
    {"topK", "k", FIELD_INT, .fallback = "10", .max = 1000, .text = "Rows of each table."},
    {"answers", "answer", FIELD_TEXTS, .min = 1, .max = 128, .text = "Tokens to tell rank and probability of."},
    {"prependSpace", NULL, FIELD_BOOL, .fallback = "true",
     .text = "A space in front of answers that do not begin with one."},
    {.name = NULL}};

static int refuse(struct error *error) {
  return error_set_field(error, ERROR_ARGUMENT, "features", "give 'source' with 'features', or 'heads', one of them");
}

/* Where and how, for every edit of the request. */
static int common(struct api_call *call, struct lab_edit *edit, struct error *error) {
  const struct values *values = call->values;
  edit->index = -1;
  edit->special = values_bool(values, "special");
  edit->include_error = values_bool(values, "includeError");
  edit->positions = read_integers(call, values, "positions", &edit->n_positions, error);
  edit->where = values_is_list(values, "positions") ? LAB_LISTED : LAB_PROMPT;
  edit->over = edits_over(values);
  edit->per_position = values_bool(values, "perPosition");
  return edit->positions ? edits_texts(call, values, edit, error) : -1;
}

/* What only a mean has a use for. */
static int check_mode(const struct values *values, bool mean, struct error *error) {
  static const char *const names[] = {"over", "texts", "perPosition"};
  for (size_t i = 0; !mean && i < sizeof names / sizeof *names; i++)
    if (values_has(values, names[i]))
      return error_set_field(error, ERROR_ARGUMENT, names[i], "'%s' has a meaning with mode 'mean' only", names[i]);
  return 0;
}

/* The client's field behind one of the edits' that it did not write. */
static const char *own_field(const char *field) {
  static const char *const names[] = {"source", "positions", "texts", "perPosition"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *at = strstr(field, names[i]);
    if (at) return at;
  }
  return NULL;
}

/* Zero: one splice, so that all activations are those of the untouched row. Mean: one edit each. */
static int feature_edits(struct api_call *call, bool mean, struct lab_edit **out, size_t *n, struct error *error) {
  size_t count = values_count(call->values, "features");
  *n = mean ? count : 1;
  struct lab_edit *edits = *out = arena_array(&call->arena, *n, sizeof *edits, error);
  struct lab_feature_edit *features = arena_array(&call->arena, count, sizeof *features, error);
  if (!edits || !features) return -1;
  for (size_t i = 0; i < *n; i++) {
    if (common(call, &edits[i], error) != 0) return -1;
    edits[i].source_id = values_text(call->values, "source", NULL);
    edits[i].op = mean ? LAB_EDIT_MEAN : LAB_EDIT_SPLICE;
    if (mean) edits[i].index = values_int_at(call->values, "features", i);
  }
  for (size_t i = 0; i < count; i++)
    features[i] = (struct lab_feature_edit){LAB_EDIT_ABLATE, values_int_at(call->values, "features", i), 0};
  if (!mean) edits[0].features = features;
  if (!mean) edits[0].n_features = count;
  return 0;
}

static int head_edits(struct api_call *call, bool mean, struct lab_edit **out, size_t *n, struct error *error) {
  *n = values_count(call->values, "heads");
  struct lab_edit *edits = *out = arena_array(&call->arena, *n, sizeof *edits, error);
  int64_t *heads = arena_array(&call->arena, *n, sizeof *heads, error);
  if (!edits || !heads) return -1;
  for (size_t i = 0; i < *n; i++) {
    const struct values *head = values_at(call->values, "heads", i);
    if (common(call, &edits[i], error) != 0) return -1;
    heads[i] = values_int(head, "head");
    edits[i].op = mean ? LAB_EDIT_MEAN : LAB_EDIT_ZERO;
    edits[i].point = arena_printf(&call->arena, error, "z.%lld", (long long)values_int(head, "layer"));
    edits[i].heads = &heads[i];
    edits[i].n_heads = 1;
    if (!edits[i].point) return -1;
  }
  return 0;
}

/* Errors of the edits that the server wrote are told in the client's own fields: "edits[1].heads" is "heads[1]". */
static int as_asked(int failed, bool heads, const struct error *inner, struct error *error) {
  char field[sizeof inner->field], *end = NULL;
  const char *text = inner->text, *number = strchr(inner->field, '[');
  if (!failed) return 0;
  if (strncmp(inner->field, "edits[", 6) != 0) return error_set_field(error, inner->code, inner->field, "%s", text);
  long i = number ? strtol(number + 1, &end, 10) : 0;
  const char *colon = strstr(text, ": ");
  if (own_field(inner->field))
    snprintf(field, sizeof field, "%s", own_field(inner->field));
  else if (heads)
    snprintf(field, sizeof field, "heads[%ld]", i);
  else
    snprintf(field, sizeof field, "features");
  return error_set_field(error, inner->code, field, "%s: %s", field, colon ? colon + 2 : text);
}

int lab_ablate_post(struct api_call *call, struct error *error) {
  const struct values *values = call->values;
  bool heads = values_has(values, "heads"), mean = strcmp(values_text(values, "mode", NULL), "mean") == 0;
  struct lab_next_args args = {.model = call_model(call, values, "modelId", error), .bos = lab_read_bos(values),
                               .top_k = (int)values_int(values, "topK"), .loss = true,
                               .prepend_space = values_bool(values, "prependSpace")};
  struct lab_input *answers, *inputs;
  bool many;
  struct lab_edit *edits;
  if (!args.model) return -1;
  if (heads == values_has(values, "features") || values_has(values, "source") != values_has(values, "features"))
    return refuse(error);
  if (check_mode(values, mean, error) != 0) return -1;
  if (lab_read_inputs(call, values, &inputs, &args.n_inputs, &many, error) != 0 ||
      lab_read_answers(call, values, "answers", &answers, &args.n_answers, error) != 0 ||
      (heads ? head_edits : feature_edits)(call, mean, &edits, &args.n_edits, error) != 0)
    return -1;
  args.answers = answers;
  args.inputs = inputs;
  args.edits = edits;
  call->finish = lab_next_finish;
  struct error inner = ERROR_INIT;
  return as_asked(lab_next(call->api->lab, &args, call->waker, &call->job, &inner), heads, &inner, error);
}
