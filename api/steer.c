/* steer.c: POST /steer: a prompt and features in, the steered text beside the plain one out. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/edits.h"
#include "api/handlers.h"
#include "api/reply.h"
#include "api/shares.h"
#include "api/steer.h"

const struct field steer_feature_rows[] = {STEER_FEATURE_ROWS("layer", "source"), {.name = NULL}};

const struct field steer_fields[] = {
    {"prompt", NULL, FIELD_TEXT, .required = true, .min = 1, .cap = CAP_PROMPT, .text = "The text to continue."},
    {"modelId", "model", FIELD_TEXT, .min = 1, .max = 128, .text = "May be left out where one model is loaded."},
    {"features", NULL, FIELD_OBJECTS, .unless = "edits", .cap = CAP_FEATURES, .inner = steer_feature_rows,
     .example = "{\"layer\": \"7-res-jb\", \"index\": 6770, \"strength\": 8}", .text = "What to steer with; [] gives the same text twice."},
    EDITS_ROW,
    STEER_SAMPLING_ROWS,
    {"stream", NULL, FIELD_BOOL, .fallback = "false",
     .text = "Server-sent events, each with all of the reply so far; only the last has an id."},
    STEER_METHOD_ROW("steer_method", NULL),
    {"steer_special_tokens", NULL, FIELD_BOOL, .fallback = "true",
     .text = "false leaves the special tokens of the prompt (BOS) unsteered."},
    {"include_prompt", NULL, FIELD_BOOL, .fallback = "true", .text = "false returns the generated text only."},
    {"types", NULL, FIELD_CHOICES, .choices = "STEERED DEFAULT",
     .text = "Which texts to generate; both when left out. The other is null."},
    {"top_k", NULL, FIELD_INT, .fallback = "0", .max = 1e6, .text = "Draw from the k likeliest tokens; 0 from all."},
    {"top_p", NULL, FIELD_NUMBER, .fallback = "1", .max = 1,
     .text = "Draw from the likeliest tokens that together reach this probability."},
    {"n_logprobs", "logprobs", FIELD_INT, .max = 10,
     .text = "Give the log probability of each token, with so many alternatives; left out: none are given."},
    {"share", NULL, FIELD_BOOL, .fallback = "false",
     .text = "true keeps prompt, parameters and texts in the store, and gives a link to them in shareUrl."},
    {.name = NULL}};

struct steer_plan {
  struct lab_steer_args args;
  const char *prompt; /* what the texts begin with */
  size_t prompt_length;
  bool share;
  const char *share_id, *share_url; /* NULL until it is kept */
  int64_t written[LAB_STEER_OUTPUTS]; /* tokens in the last event, -1 before the first */
};

/* ---- in ----------------------------------------------------------------------------------------------- */

enum lab_steer_method steer_method(const char *word) {
  if (strcmp(word, "ORTHOGONAL_DECOMP") == 0) return LAB_STEER_ORTHOGONAL;
  return strcmp(word, "PROJECTION_CAP") == 0 ? LAB_STEER_CAP : LAB_STEER_ADD;
}

struct lab_edit steer_vector(const struct lab_steering *steering, const char *point, float *vector, size_t n, double strength) {
  static const enum lab_edit_op ops[] = {
      [LAB_STEER_ADD] = LAB_EDIT_ADD, [LAB_STEER_ORTHOGONAL] = LAB_EDIT_PROJECT, [LAB_STEER_CAP] = LAB_EDIT_CAP};
  double square = 0;
  for (size_t i = 0; i < n; i++) square += (double)vector[i] * (double)vector[i];
  for (size_t i = 0; steering->unit && square > 0 && i < n; i++) vector[i] = (float)((double)vector[i] / sqrt(square));
  return (struct lab_edit){.op = ops[steering->method], .point = point, .index = -1, .vector = vector, .n_vector = n,
                           .strength = strength * steering->strength_multiplier, .special = steering->special_tokens,
                           .include_error = true};
}

static void read_types(const struct values *values, bool want[LAB_STEER_OUTPUTS]) {
  size_t count = values_count(values, "types");
  want[LAB_STEERED] = want[LAB_DEFAULT] = count == 0;
  for (size_t i = 0; i < count; i++)
    want[strcmp(values_text_at(values, "types", i, NULL), "STEERED") == 0 ? LAB_STEERED : LAB_DEFAULT] = true;
}

static int read_feature(struct api_call *call, const struct values *values, const struct lab_model_info *model, const char *at,
                        const char *source, struct lab_steer_feature *out, struct error *error) {
  char field[80];
  if (values_has(values, "modelId")) {
    const struct lab_model_info *own = call_model(call, values, "modelId", error);
    snprintf(field, sizeof field, "%s.modelId", at);
    if (!own) return -1;
    if (own != model)
      return error_set_field(error, ERROR_ARGUMENT, field, "'%s' is '%.64s', but the request is for model '%.64s'",
                             field, own->id, model->id);
  }
  out->source_id = values_text(values, source, NULL);
  out->index = values_int(values, "index");
  out->strength = values_number(values, "strength");
  return 0;
}

int steer_features(struct api_call *call, const struct values *values, const struct lab_model_info *model, const char *prefix,
                   const char *source, const struct lab_steer_feature **out, size_t *n, struct error *error) {
  *n = values_count(values, "features");
  struct lab_steer_feature *features = arena_array(&call->arena, *n, sizeof *features, error);
  *out = features;
  for (size_t i = 0; features && i < *n; i++) {
    char at[48];
    snprintf(at, sizeof at, "%.16sfeatures[%zu]", prefix, i);
    if (read_feature(call, values_at(values, "features", i), model, at, source, &features[i], error) != 0) return -1;
  }
  return features ? 0 : -1;
}

static int read_args(struct api_call *call, struct lab_steer_args *args, struct error *error) {
  const struct values *values = call->values;
  args->model = call_model(call, values, "modelId", error);
  if (!args->model) return -1;
  args->prompt = values_text(values, "prompt", &args->prompt_length);
  args->method = steer_method(values_text(values, "steer_method", NULL));
  args->bos = LAB_BOS_YES;
  args->strength_multiplier = values_number(values, "strength_multiplier");
  read_types(values, args->want);
  args->steer_special_tokens = values_bool(values, "steer_special_tokens");
  args->n_tokens = values_int(values, "n_tokens");
  args->temperature = values_number(values, "temperature");
  args->top_k = values_int(values, "top_k");
  args->top_p = values_number(values, "top_p");
  args->frequency_penalty = values_number(values, "freq_penalty");
  args->seed = (int64_t)values_number(values, "seed");
  args->n_logprobs = values_has(values, "n_logprobs") ? (int)values_int(values, "n_logprobs") : -1;
  if (edits_read(call, values, "edits", "", &args->edits, &args->n_edits, error) != 0) return -1;
  return steer_features(call, values, args->model, "", "layer", &args->features, &args->n_features, error);
}

/* ---- out ---------------------------------------------------------------------------------------------- */

int steer_write_text(struct json_writer *w, const char *prompt, size_t n, const struct lab_generated *output, struct arena *arena, struct error *error) {
  if (!output->text) return jw_null(w), 0;
  char *text = arena_alloc(arena, n + output->length + 1, error);
  if (!text) return -1;
  memcpy(text, prompt, n);
  memcpy(text + n, output->text, output->length);
  jw_string(w, text, n + output->length);
  return 0;
}

static int write_text(struct json_writer *w, const struct steer_plan *plan, const struct lab_generated *output, struct arena *arena, struct error *error) {
  return steer_write_text(w, plan->prompt, plan->prompt_length, output, arena, error);
}

static void write_logprob(struct json_writer *w, const struct lab_logprob *logprob, bool with_top) {
  jw_open(w, '{');
  jw_member_text(w, "token", logprob->token);
  jw_member_f32(w, "logprob", logprob->logprob);
  if (with_top) {
    jw_key(w, "topLogprobs");
    jw_open(w, '[');
    for (int i = 0; i < logprob->n_top; i++) write_logprob(w, &logprob->top[i], false);
    jw_close(w, ']');
  }
  jw_close(w, '}');
}

static void write_logprobs(struct json_writer *w, const char *key, const struct lab_generated *output, bool wanted) {
  jw_key(w, key);
  if (!wanted || !output->text) {
    jw_null(w);
    return;
  }
  jw_open(w, '[');
  for (size_t i = 0; i < output->n_logprob_tokens; i++) write_logprob(w, &output->logprobs[i], true);
  jw_close(w, ']');
}

static int write_outputs(struct json_writer *w, const struct steer_plan *plan, const struct lab_generated outputs[],
                         struct arena *arena, struct error *error) {
  bool logprobs = plan->args.n_logprobs >= 0;
  jw_key(w, "STEERED");
  if (write_text(w, plan, &outputs[LAB_STEERED], arena, error) != 0) return -1;
  jw_key(w, "DEFAULT");
  if (write_text(w, plan, &outputs[LAB_DEFAULT], arena, error) != 0) return -1;
  write_logprobs(w, "steeredLogProbs", &outputs[LAB_STEERED], logprobs);
  write_logprobs(w, "defaultLogProbs", &outputs[LAB_DEFAULT], logprobs);
  return 0;
}

/* The reply as far as it is known. id stays null until it is complete. */
static int write_reply(struct api_call *call, struct buffer *out, const struct lab_generated outputs[], bool complete,
                       struct arena *arena, struct error *error) {
  const struct steer_plan *plan = call->plan;
  const char *id = plan->share_id ? plan->share_id : call->request->request_id;
  struct json_writer w;
  jw_init(&w, out);
  jw_open(&w, '{');
  if (write_outputs(&w, plan, outputs, arena, error) != 0) return -1;
  jw_member_text(&w, "id", complete ? id : NULL);
  jw_member_text(&w, "shareUrl", plan->share_url);
  jw_member_null(&w, "limit");
  jw_close(&w, '}');
  return 0;
}

/* ---- share -------------------------------------------------------------------------------------------- */

static void write_shared_features(struct json_writer *w, const struct lab_steer_args *args) {
  jw_key(w, "features");
  jw_open(w, '[');
  for (size_t i = 0; i < args->n_features; i++) {
    jw_open(w, '{');
    jw_member_text(w, "modelId", args->model->id);
    jw_member_text(w, "layer", args->features[i].source_id);
    reply_digits(w, "index", args->features[i].index);
    jw_member_f64(w, "strength", args->features[i].strength);
    jw_close(w, '}');
  }
  jw_close(w, ']');
}

static void write_asked(struct json_writer *w, const struct api_call *call, const struct steer_plan *plan) {
  const struct lab_steer_args *args = &plan->args;
  jw_open(w, '{');
  jw_member_text(w, "modelId", args->model->id);
  jw_key(w, "inputText");
  jw_string(w, args->prompt, args->prompt_length);
  jw_member_bool(w, "outputTextIncludesPrompt", plan->prompt_length > 0);
  write_shared_features(w, args);
  jw_member_f64(w, "temperature", args->temperature);
  jw_member_int(w, "n_tokens", args->n_tokens);
  jw_member_f64(w, "freq_penalty", args->frequency_penalty);
  jw_member_int(w, "seed", args->seed);
  jw_member_f64(w, "strength_multiplier", args->strength_multiplier);
  jw_member_text(w, "steer_method", values_text(call->values, "steer_method", NULL));
  jw_member_bool(w, "steer_special_tokens", args->steer_special_tokens);
  jw_member_int(w, "top_k", args->top_k);
  jw_member_f64(w, "top_p", args->top_p);
  jw_close(w, '}');
}

/* Keeps the finished texts, when asked to. */
static int share(struct api_call *call, const struct lab_generated outputs[], struct arena *arena,
                 struct error *error) {
  struct steer_plan *plan = call->plan;
  struct buffer asked, reply;
  struct json_writer w;
  if (!plan->share || plan->share_id) return 0;
  buffer_init(&asked, call->body.limit);
  buffer_init(&reply, call->body.limit);
  jw_init(&w, &asked);
  write_asked(&w, call, plan);
  jw_init(&w, &reply);
  jw_open(&w, '{');
  int result = write_outputs(&w, plan, outputs, arena, error);
  jw_close(&w, '}');
  if (result == 0) result = share_keep(call, plan->args.model->id, &asked, &reply, &plan->share_id, error);
  if (result == 0 && !(plan->share_url = share_url(call, plan->share_id, error))) result = -1;
  buffer_clear(&asked);
  buffer_clear(&reply);
  return result;
}

/* ---- when the engine has something -------------------------------------------------------------------- */

static int read_outputs(struct api_call *call, struct arena *arena, struct lab_generated outputs[],
                        struct error *error) {
  for (int i = 0; i < LAB_STEER_OUTPUTS; i++)
    if (lab_steer_read(call->job, i, arena, &outputs[i], error) != 0) return -1;
  return 0;
}

static int steer_finish(struct api_call *call, struct error *error) {
  struct lab_generated outputs[LAB_STEER_OUTPUTS] = {{0}};
  if (read_outputs(call, &call->arena, outputs, error) != 0 || share(call, outputs, &call->arena, error) != 0)
    return -1;
  return write_reply(call, &call->body, outputs, true, &call->arena, error);
}

/* Whether an output has tokens that no event has shown. */
static bool has_news(struct steer_plan *plan, const struct lab_generated outputs[]) {
  bool news = false;
  for (int i = 0; i < LAB_STEER_OUTPUTS; i++) {
    news = news || outputs[i].n_tokens != plan->written[i];
    plan->written[i] = outputs[i].n_tokens;
  }
  return news;
}

/* One event; its memory is its own, so that a long stream holds one event at a time. */
static int steer_frame(struct api_call *call, struct buffer *out, bool last, struct error *error) {
  struct arena arena;
  struct lab_generated outputs[LAB_STEER_OUTPUTS] = {{0}};
  arena_init(&arena, call->arena.limit);
  int result = read_outputs(call, &arena, outputs, error);
  if (result == 0 && last) result = share(call, outputs, &arena, error);
  if (result == 0 && (has_news(call->plan, outputs) || last)) {
    buffer_text(out, "data: ");
    result = write_reply(call, out, outputs, last, &arena, error);
    buffer_text(out, "\n\n");
  }
  arena_clear(&arena);
  return result;
}

int steer_post(struct api_call *call, struct error *error) {
  struct steer_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  if (!plan || read_args(call, &plan->args, error) != 0) return -1;
  plan->share = values_bool(call->values, "share");
  if (plan->share && call_may_add(call, error) != 0) return -1;
  bool echo = values_bool(call->values, "include_prompt");
  plan->prompt = plan->args.prompt;
  plan->prompt_length = echo ? plan->args.prompt_length : 0;
  for (int i = 0; i < LAB_STEER_OUTPUTS; i++) plan->written[i] = -1;
  call->plan = plan;
  call->stream = values_bool(call->values, "stream");
  call->finish = steer_finish;
  call->frame = steer_frame;
  return lab_steer(call->api->lab, &plan->args, call->waker, &call->job, error);
}
