/* openai_request.c: what OpenAI's generating routes are asked: sampling, stop strings, steering. Knows neither prompts nor
 * replies. */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "api/openai.h"
#include "api/steer.h"
#include "core/base/clock.h"
#include "core/vectors.h"

enum { VECTORS_MOST = 256 }; /* of a request */

static const struct field feature_rows[] = {STEER_FEATURE_ROWS("source", "layer"), {.name = NULL}};

static const struct field vector_rows[] = {
    {"point", NULL, FIELD_TEXT, .min = 1, .max = 128, .text = "Where, such as \"blocks.5.hook_resid_pre\"."},
    {"vector", NULL, FIELD_NUMBERS, .min = 1, .max = 1e6, .text = "As many numbers as the point has columns."},
    {"label", NULL, FIELD_TEXT, .min = 1, .max = 256,
     .text = "In place of both: all kept vectors of the model that have this label (POST /api/vector/upload), each where it belongs."},
    {"strength", NULL, FIELD_NUMBER, .fallback = "1", .min = -1e6, .max = 1e6,
     .text = "The vector's factor, or the factor or cap of the method."},
    {.name = NULL}};

const struct field steering_fields[] = {
    {"features", NULL, FIELD_OBJECTS, .cap = CAP_FEATURES, .inner = feature_rows, .text = "Features turned up or down."},
    {"vectors", NULL, FIELD_OBJECTS, .max = VECTORS_MOST, .inner = vector_rows, .text = "Vectors in the same way, after the features."},
    STEER_METHOD_ROW("method", "steer_method"),
    {"strength_multiplier", NULL, FIELD_NUMBER, .fallback = "1", .max = 10, .text = "Multiplies every strength."},
    {"steer_special_tokens", NULL, FIELD_BOOL, .fallback = "true",
     .text = "false leaves the special tokens of the prompt (BOS) unsteered by features and vectors."},
    EDITS_ROW,
    {.name = NULL}};

const struct field stream_options_fields[] = {
    {"include_usage", NULL, FIELD_BOOL, .fallback = "false", .text = "A last event tells how many tokens there were."},
    {.name = NULL}};

const struct field response_format_fields[] = {
    {"type", NULL, FIELD_CHOICE, .required = true, .choices = "text", .text = "Answers are plain text here."}, {.name = NULL}};

/* ---- steering ----------------------------------------------------------------------------------------- */

/* What `steering.vectors` becomes: a label stands for several. */
struct vectors_read {
  struct api_call *call;
  const struct lab_model_info *model;
  struct lab_steering *out;
  struct lab_edit *edits; /* room for VECTORS_MOST */
};

static int add_vector(struct vectors_read *read, const char *point, float *vector, size_t n, double strength, struct error *error) {
  struct lab_steering *out = read->out;
  if (out->n_vectors == VECTORS_MOST)
    return error_set_field(error, ERROR_ARGUMENT, "steering.vectors", "'steering.vectors' are more than %d, those of labels counted", VECTORS_MOST);
  read->edits[out->n_vectors++] = steer_vector(out, point, vector, n, strength);
  return 0;
}

static int add_given(struct vectors_read *read, const struct values *values, const char *at, struct error *error) {
  size_t n;
  const char *missing = !values_has(values, "point") ? "point" : !values_has(values, "vector") ? "vector" : NULL;
  if (missing) {
    char field[64];
    snprintf(field, sizeof field, "%s.%s", at, missing);
    return error_set_field(error, ERROR_ARGUMENT, field, "'%s' is required: a vector and its point, or the label of kept ones", field);
  }
  float *vector = read_floats(read->call, values, "vector", &n, error);
  return vector ? add_vector(read, values_text(values, "point", NULL), vector, n, values_number(values, "strength"), error) : -1;
}

static int add_labelled(struct vectors_read *read, const struct values *values, const char *at, struct error *error) {
  struct store_vector *kept;
  size_t n;
  struct error own = ERROR_INIT;
  char field[64];
  snprintf(field, sizeof field, "%s.label", at);
  if (values_has(values, "point") || values_has(values, "vector"))
    return error_set_field(error, ERROR_ARGUMENT, field, "'%s' takes the place of a point and a vector; leave those out", field);
  if (lab_vectors_labelled(read->call->api->lab, read->model, values_text(values, "label", NULL), &read->call->arena, &kept, &n, &own) != 0)
    return error_set_field(error, own.code, field, "'%s': %s", field, own.text);
  for (size_t i = 0; i < n; i++) {
    float *copy = arena_array(&read->call->arena, kept[i].n, sizeof *copy, error); /* its length may become 1 */
    if (!copy) return -1;
    memcpy(copy, kept[i].values, kept[i].n * sizeof *copy);
    if (add_vector(read, kept[i].point, copy, kept[i].n, values_number(values, "strength"), error) != 0) return -1;
  }
  return 0;
}

static int read_vectors(struct api_call *call, const struct lab_model_info *model, const struct values *values, struct lab_steering *out,
                        struct error *error) {
  size_t n = values_count(values, "vectors");
  struct vectors_read read = {call, model, out, arena_array(&call->arena, n ? VECTORS_MOST : 0, sizeof *read.edits, error)};
  out->vectors = read.edits;
  for (size_t i = 0; read.edits && i < n; i++) {
    const struct values *row = values_at(values, "vectors", i);
    char at[48];
    snprintf(at, sizeof at, "steering.vectors[%zu]", i);
    if ((values_has(row, "label") ? add_labelled : add_given)(&read, row, at, error) != 0) return -1;
  }
  return read.edits ? 0 : -1;
}

static int read_steering(struct api_call *call, const struct lab_model_info *model, struct lab_steering *out,
                         struct error *error) {
  const struct values *values = values_at(call->values, "steering", 0);
  *out = (struct lab_steering){.prefix = "steering.", .source_field = "source"};
  if (!values) return 0;
  out->method = steer_method(values_text(values, "method", NULL));
  out->strength_multiplier = values_number(values, "strength_multiplier");
  out->special_tokens = values_bool(values, "steer_special_tokens");
  if (steer_features(call, values, model, "steering.", "source", &out->features, &out->n_features, error) != 0 ||
      read_vectors(call, model, values, out, error) != 0)
    return -1;
  return edits_read(call, values, "edits", "steering.", &out->edits, &out->n_edits, error);
}

/* ---- the rest ----------------------------------------------------------------------------------------- */

static int read_stops(struct api_call *call, struct lab_complete_args *args, struct error *error) {
  args->n_stops = values_count(call->values, "stop");
  const char **stops = arena_array(&call->arena, args->n_stops, sizeof *stops, error);
  for (size_t i = 0; stops && i < args->n_stops; i++) stops[i] = values_text_at(call->values, "stop", i, NULL);
  args->stops = stops;
  return stops ? 0 : -1;
}

static int read_bias(struct api_call *call, struct lab_complete_args *args, struct error *error) {
  args->n_bias = values_count(call->values, "logit_bias");
  struct lab_bias *bias = arena_array(&call->arena, args->n_bias, sizeof *bias, error);
  for (size_t i = 0; bias && i < args->n_bias; i++)
    bias[i] = (struct lab_bias){values_key_at(call->values, "logit_bias", i), values_weight_at(call->values, "logit_bias", i)};
  args->bias = bias;
  return bias ? 0 : -1;
}

static int64_t read_seed(const struct values *values) {
  int64_t seed = clock_ns();
  if (values_has(values, "seed")) return values_int(values, "seed");
  if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) < 0) seed ^= 1; /* the clock is random enough for a text */
  return seed;
}

/* What of the server decides a text beside the request: decisions 19. */
static const char *fingerprint(struct api_call *call, const struct lab_model_info *model, struct error *error) {
  struct lab_stats stats;
  lab_stats(call->api->lab, &stats);
  return arena_printf(&call->arena, error, "steerd-%s-%s-%s", STEERD_VERSION, stats.backend, model->kept);
}

static int read_args(struct api_call *call, struct lab_complete_args *args, struct error *error) {
  const struct values *values = call->values;
  int64_t top_k = values_int(values, "top_k");
  *args = (struct lab_complete_args){.model = call_model(call, values, "model", error),
                                     .bos = LAB_BOS_DEFAULT, .n = (int)values_int(values, "n"),
                                     .temperature = values_number(values, "temperature"), .top_k = top_k > 0 ? top_k : 0,
                                     .top_p = values_number(values, "top_p"), .min_p = values_number(values, "min_p"),
                                     .frequency_penalty = values_number(values, "frequency_penalty"),
                                     .presence_penalty = values_number(values, "presence_penalty"),
                                     .seed = read_seed(values), .n_logprobs = -1, .ends_turn = -1};
  if (!args->model || read_stops(call, args, error) != 0 || read_bias(call, args, error) != 0) return -1;
  return read_steering(call, args->model, &args->steering, error);
}

struct openai_plan *openai_plan_read(struct api_call *call, enum openai_shape shape, struct error *error) {
  struct openai_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  if (!plan || read_args(call, &plan->args, error) != 0) return NULL;
  const struct values *options = values_at(call->values, "stream_options", 0);
  plan->shape = shape;
  plan->usage = options && values_bool(options, "include_usage");
  plan->created = (int64_t)time(NULL);
  plan->fingerprint = fingerprint(call, plan->args.model, error);
  plan->id = arena_printf(&call->arena, error, "%s-%s", shape == OPENAI_CHAT ? "chatcmpl" : "cmpl", call->request->request_id);
  return plan->id && plan->fingerprint ? plan : NULL;
}

int openai_plan_start(struct api_call *call, struct openai_plan *plan, struct error *error) {
  plan->n_choices = plan->args.n_prompts * (size_t)plan->args.n;
  plan->told = arena_array(&call->arena, plan->n_choices, sizeof *plan->told, error);
  if (!plan->told) return -1;
  call->plan = plan;
  call->stream = values_bool(call->values, "stream");
  call->finish = openai_finish;
  call->frame = openai_frame;
  return lab_complete(call->api->lab, &plan->args, call->waker, &call->job, error);
}
