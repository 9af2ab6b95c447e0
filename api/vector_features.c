/* vector_features.c: kept vectors where features are asked for: their row, and their values over texts. */
#include "api/vector_features.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/handlers.h"
#include "api/rows.h"
#include "api/vector_run.h"
#include "core/base/number.h"

int vector_find(struct api_call *call, const struct lab_model_info *model, const char *source, int64_t index, struct store_vector *out,
                struct error *error) {
  struct store *store = lab_store(call->api->lab);
  return store ? store_vector_find(store, model->id, source, index, &call->arena, out, error) : 0;
}

int vector_refuse(const struct lab_model_info *model, const char *source, const char *index, const char *field, struct error *error) {
  return error_set_field(error, ERROR_NOT_FOUND, field, "there is no vector %.32s of '%.64s' in model '%.64s'; POST /api/vector/list-owned "
                         "lists those that are kept", index, source, model->id);
}

/* ---- the row ------------------------------------------------------------------------------------------ */

struct vector_plan {
  const struct lab_model_info *model;
  struct store_vector vector;
};

static void write_row(struct json_writer *w, const struct lab_model_info *model, const struct store_vector *vector,
                      const struct store_feature *logits) {
  static const struct store_statistics nothing = {0};
  struct store_feature stored = logits ? *logits : (struct store_feature){0};
  struct lab_source_info source = lab_vector_source(model, vector);
  stored.index = (uint32_t)vector->index;
  rows_feature(w, &(struct rows_feature){.model = model, .source = &source, .stored = &stored, .statistics = &nothing,
                                         .decoder_norm = (float)lab_vector_norm(vector->values, vector->n), .vector = vector});
}

void vector_feature_write(struct json_writer *w, const struct lab_model_info *model, const struct store_vector *vector) {
  write_row(w, model, vector, NULL);
}

static int finish_row(struct api_call *call, struct error *error) {
  const struct vector_plan *plan = call->plan;
  struct json_writer w;
  (void)error;
  jw_init(&w, &call->body);
  write_row(&w, plan->model, &plan->vector, lab_vector_logits_result(call->job));
  return 0;
}

static int find_of_path(struct api_call *call, struct vector_plan *plan, struct error *error) {
  const char *model = call_part(call, "model", error), *source = call_part(call, "source", error), *text = call_part(call, "index", error);
  int64_t index;
  if (!model || !source || !text || !(plan->model = call_known_model(call, model, "modelId", error))) return -1;
  bool number = *text && text[strspn(text, "0123456789")] == '\0' && number_parse_int(text, &index);
  int found = number ? vector_find(call, plan->model, source, index, &plan->vector, error) : 0;
  if (found < 0) return -1;
  return found ? 0 : vector_refuse(plan->model, source, text, "index", error);
}

int vector_feature_get(struct api_call *call, struct error *error) {
  struct vector_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  if (!plan || find_of_path(call, plan, error) != 0) return -1;
  call->plan = plan;
  if (!plan->model->stored && (int64_t)plan->vector.n == plan->model->d_model) {
    call->finish = finish_row;
    return lab_vector_logits(call->api->lab, plan->model, plan->vector.values, call->waker, &call->job, error);
  }
  struct json_writer w;
  jw_init(&w, &call->body);
  vector_feature_write(&w, plan->model, &plan->vector);
  return 0;
}

/* ---- values over texts -------------------------------------------------------------------------------- */

struct asked_vector {
  struct lab_source_info source;
  int64_t index;
  bool hide_bos;
};

static int write_values(struct api_call *call, struct json_writer *w, const struct lab_run_text *text,
                        const struct lab_feature_values *all, struct error *error) {
  const struct vector_run *run = call->plan;
  const struct asked_vector *asked = run->own;
  size_t skip = asked->hide_bos && text->n_tokens > 1 && text->special[0] ? 1 : 0, n = text->n_tokens - skip;
  struct lab_feature_values values = {.source = &asked->source, .index = asked->index, .values = all->values + skip, .max = all->values[skip]};
  (void)error;
  for (size_t i = 1; i < n; i++) {
    if (values.values[i] <= values.max) continue;
    values.max = values.values[i];
    values.max_position = (int64_t)i;
  }
  activations_write_one(w, &(struct lab_text_activations){.n_tokens = n, .tokens = text->tokens + skip, .features = &values, .n_features = 1});
  return 0;
}

int vector_activations_start(struct api_call *call, const struct activations_plan *plan, const char *source, int64_t index,
                             const char *field, struct error *error) {
  const struct lab_activations_args *args = &plan->args;
  struct vector_run *run = arena_alloc(&call->arena, sizeof *run, error);
  struct asked_vector *asked = arena_alloc(&call->arena, sizeof *asked, error);
  struct store_vector vector;
  char number[24];
  if (!run || !asked) return -1;
  int found = vector_find(call, args->model, source, index, &vector, error);
  snprintf(number, sizeof number, "%" PRId64, index);
  if (found <= 0) return found < 0 ? -1 : vector_refuse(args->model, source, number, field, error);
  *asked = (struct asked_vector){lab_vector_source(args->model, &vector), index, args->ignore_bos == LAB_BOS_YES};
  *run = (struct vector_run){.model = args->model, .texts = args->texts, .n_texts = args->n_texts, .field = args->text_field,
                             .many = plan->many, .bos = args->model->prepends_bos ? LAB_BOS_YES : LAB_BOS_NO,
                             .hook = vector.point, .values = vector.values, .n = vector.n, .vector_field = field, .hook_field = field, .write = write_values, .rows = true, .own = asked};
  return vector_run_start(call, run, error);
}
