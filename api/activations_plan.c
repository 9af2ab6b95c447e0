/* activations_plan.c: what requests for activations share: how texts and sources are read, and the shapes of an answer for one text
 * and for several. Knows no route. */
#include "api/activations.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/reply.h"

/* ---- in ----------------------------------------------------------------------------------------------- */

struct activations_plan *activations_plan_new(struct api_call *call, const struct activations_names *names, const struct values *model,
                                              struct error *error) {
  const struct values *values = call->values;
  size_t n = values_count(values, names->texts);
  struct activations_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  struct lab_text *texts = arena_array(&call->arena, n, sizeof *texts, error);
  if (!plan || !texts) return NULL;
  for (size_t i = 0; i < n; i++) texts[i].text = values_text_at(values, names->texts, i, &texts[i].length);
  plan->many = values_is_list(values, names->texts);
  plan->args = (struct lab_activations_args){.texts = texts, .n_texts = n, .n_results = 1, .text_field = names->texts,
                                             .sort_field = names->sort,
                                             .model = call_model(call, model, names->model, error)};
  call->plan = plan;
  return plan->args.model ? plan : NULL;
}

int activations_take_source(struct api_call *call, struct activations_plan *plan, const char *source, const char *field,
                            struct error *error) {
  if (!(plan->source = lab_find_source(call->api->lab, plan->args.model, source, field, error))) return -1;
  const char **ids = arena_array(&call->arena, 1, sizeof *ids, error);
  if (!ids) return -1;
  ids[0] = source;
  plan->args.source_ids = ids;
  plan->args.n_sources = 1;
  return 0;
}

int activations_start(struct api_call *call, const struct activations_plan *plan,
                      int (*finish)(struct api_call *call, struct error *error), struct error *error) {
  call->finish = finish;
  return lab_activations(call->api->lab, &plan->args, call->waker, &call->job, error);
}

static int read_sort_positions(struct api_call *call, struct activations_plan *plan, const char *name, struct error *error) {
  size_t count = values_count(call->values, name);
  int64_t *positions = arena_array(&call->arena, count, sizeof *positions, error);
  if (!positions) return -1;
  for (size_t i = 0; i < count; i++) positions[i] = values_int_at(call->values, name, i);
  plan->args.sort_positions = positions;
  plan->args.n_sort_positions = count;
  return 0;
}

static bool selected(const struct values *values, const char *name, const char *id) {
  size_t count = values_count(values, name);
  for (size_t i = 0; i < count; i++)
    if (strcmp(values_text_at(values, name, i, NULL), id) == 0) return true;
  return count == 0;
}

static bool set_has(const struct lab_source_info *const *found, size_t n, const char *id) {
  for (size_t i = 0; i < n; i++)
    if (strcmp(found[i]->id, id) == 0) return true;
  return false;
}

/* Every source that the client chose must be in the set. */
static int check_selected(const struct values *values, const struct activations_names *names, const struct lab_model_info *model,
                          const struct lab_source_info *const *found, size_t n, struct error *error) {
  for (size_t i = 0; i < values_count(values, names->sources); i++) {
    const char *id = values_text_at(values, names->sources, i, NULL);
    if (set_has(found, n, id)) continue;
    char field[64];
    snprintf(field, sizeof field, "%.40s[%zu]", names->sources, i);
    return error_set_field(error, ERROR_NOT_FOUND, field, "'%s': the set '%.64s' of model '%.64s' has no source '%.64s'", field,
                           values_text(values, names->set, NULL), model->id, id);
  }
  return 0;
}

/* Lowest layer first: among equals the earlier source ranks first. */
int activations_take_set(struct api_call *call, struct activations_plan *plan, const struct activations_names *names,
                         struct error *error) {
  const struct lab_model_info *model = plan->args.model;
  const char *set = values_text(call->values, names->set, NULL);
  const struct lab_source_info **found;
  size_t n;
  if (read_sort_positions(call, plan, names->sort, error) != 0 || call_source_set(call, model, set, names->set, &found, &n, error) != 0)
    return -1;
  if (check_selected(call->values, names, model, found, n, error) != 0) return -1;
  const char **ids = arena_array(&call->arena, n, sizeof *ids, error);
  if (!ids) return -1;
  for (size_t i = 0; i < n; i++)
    if (selected(call->values, names->sources, found[i]->id)) ids[plan->args.n_sources++] = found[i]->id;
  plan->args.source_ids = ids;
  return 0;
}

/* ---- out ---------------------------------------------------------------------------------------------- */

int activations_finish(struct api_call *call, activations_write *write, struct error *error) {
  const struct activations_plan *plan = call->plan;
  size_t n_texts;
  const struct lab_text_activations *texts = lab_activations_result(call->job, &n_texts);
  struct json_writer w;
  jw_init(&w, &call->body);
  w.snake = plan->snake;
  if (plan->many) {
    jw_open(&w, '{');
    jw_key(&w, "results");
    jw_open(&w, '[');
  }
  for (size_t i = 0; i < n_texts; i++)
    if (write(call, &w, &texts[i], error) != 0) return -1;
  if (plan->many) {
    jw_close(&w, ']');
    jw_close(&w, '}');
  }
  return 0;
}

void activations_write_origins(struct json_writer *w, const struct lab_feature_values *values, size_t n) {
  jw_key(w, "dfaValues");
  jw_f32_array(w, values->origins, n);
  jw_member_int(w, "dfaTargetIndex", values->max_position);
  jw_member_f32(w, "dfaMaxValue", values->origins_max);
}

void activations_write_top(struct json_writer *w, struct api_call *call, const struct lab_text_activations *text, size_t i,
                           const struct activations_labels *labels, const struct lab_source_info *source) {
  jw_key(w, "topFeatures");
  jw_open(w, '[');
  for (int k = 0; k < text->n_top[i]; k++) {
    jw_open(w, '{');
    jw_member_f32(w, "activationValue", text->top[i][k].value);
    jw_member_int(w, "featureIndex", text->top[i][k].index);
    if (labels) activations_write_label(w, "feature", call, labels, source, text->top[i][k].index);
    jw_close(w, '}');
  }
  jw_close(w, ']');
}

struct firing {
  int64_t feature, position;
  float value;
};

static int by_feature(const void *a, const void *b) {
  const struct firing *x = a, *y = b;
  if (x->feature != y->feature) return x->feature < y->feature ? -1 : 1;
  return (x->position > y->position) - (x->position < y->position);
}

/* The rows of the tokens, turned: by feature, and by position within one. NULL on failure. */
static struct firing *turn(struct api_call *call, const struct lab_text_activations *text, size_t *n, struct error *error) {
  *n = 0;
  for (size_t i = 0; i < text->n_tokens; i++) *n += (size_t)text->n_top[i];
  struct firing *all = arena_array(&call->arena, *n, sizeof *all, error);
  size_t at = 0;
  for (size_t i = 0; all && i < text->n_tokens; i++)
    for (int k = 0; k < text->n_top[i]; k++)
      all[at++] = (struct firing){text->top[i][k].index, (int64_t)i, text->top[i][k].value};
  if (all) qsort(all, *n, sizeof *all, by_feature);
  return all;
}

/* {"feature": [[position, value], ...], ...} */
static void write_rows(struct json_writer *w, const struct firing *all, size_t n) {
  jw_open(w, '{');
  for (size_t i = 0; i < n; i++) {
    char name[24];
    snprintf(name, sizeof name, "%lld", (long long)all[i].feature);
    bool opens = i == 0 || all[i - 1].feature != all[i].feature, closes = i + 1 == n || all[i + 1].feature != all[i].feature;
    if (opens) {
      jw_key(w, name);
      jw_open(w, '[');
    }
    jw_open(w, '[');
    jw_int(w, all[i].position);
    jw_f32(w, all[i].value);
    jw_close(w, ']');
    if (closes) jw_close(w, ']');
  }
  jw_close(w, '}');
}

int activations_write_firing(struct api_call *call, struct json_writer *w, const struct lab_text_activations *text,
                             struct error *error) {
  size_t n;
  const struct firing *all = turn(call, text, &n, error);
  if (!all) return -1;
  jw_open(w, '{');
  reply_texts(w, "tokens", text->tokens, text->n_tokens);
  jw_key_as_it_is(w, "activeFeatures"); /* as it always was */
  write_rows(w, all, n);
  jw_close(w, '}');
  return 0;
}
