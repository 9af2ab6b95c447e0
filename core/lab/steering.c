/* steering.c: steering lowered: a feature is its decoder row at the dictionary's output point, an edit is what
 * lab_edits*.c makes of it. Owns the task of the runs that edits need first. Knows no request and no sampling: whoever generates
 * text calls it. */
#include "core/lab/steering.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/model/point_shape.h"
#include "core/vectors.h"

/* Vectors and edits: two lists, so that errors name the one that a client wrote. */
enum { PLANS = 2 };

/* What the task of the first runs is about. */
struct steering_runs {
  struct steering *const *steerings;
  size_t n;
  struct lab_job *job;
  int (*then)(struct lab_job *job, struct error *error);
};

struct steering {
  struct arena arena;
  const struct model *model;
  struct lab_ids prompt;
  uint8_t *mask;           /* [prompt.n] tokens that features may change; NULL: all */
  struct edit *features;   /* one for each point that a feature writes */
  size_t n_features;
  struct edits_plan plans[PLANS];
  struct steering_runs runs; /* of a task of which this is the first steering */
};

static double vector_norm(const float *v, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)v[i] * v[i];
  return sqrt(sum);
}

/* PROJECT and CAP need a direction; ADD takes the row as it is (unit length where folding is on), unless a unit is asked for. */
static int prepare_vector(const struct lab_steering *asked, const char *field, float *v, int64_t n,
                          struct error *error) {
  if (asked->method == LAB_STEER_ADD && !asked->unit) return 0;
  double norm = vector_norm(v, n);
  if (norm == 0 && asked->method == LAB_STEER_ADD) return 0; /* adds nothing */
  if (norm == 0)
    return error_set_field(error, ERROR_ARGUMENT, field,
                           "%s: this feature's decoder row is zero, so it has no direction to project on", field);
  for (int64_t i = 0; i < n; i++) v[i] = (float)(v[i] / norm);
  return 0;
}

static enum edit_kind kind_of(enum lab_steer_method method) {
  if (method == LAB_STEER_ORTHOGONAL) return EDIT_ROW_PROJECT;
  return method == LAB_STEER_CAP ? EDIT_ROW_CAP : EDIT_ROW_ADD;
}

static int check_index(const struct lab_steering *asked, const struct lab_source_info *source, size_t i,
                       struct error *error) {
  int64_t index = asked->features[i].index;
  char field[64];
  if (index >= 0 && index < source->n_feat) return 0;
  snprintf(field, sizeof field, "%sfeatures[%zu].index", asked->prefix, i);
  return error_set_field(error, ERROR_NOT_FOUND, field, "%s is %lld, source '%s' has features 0 to %lld", field,
                         (long long)index, source->id, (long long)source->n_feat - 1);
}

/* Adds v [n], which lies in the steering's arena, at a point's columns from `column` on. */
static int put_feature(const struct lab_steering *asked, size_t i, struct point point, int64_t column, float *v, int64_t n,
                       struct steering *steering, struct error *error) {
  char field[64];
  snprintf(field, sizeof field, "%sfeatures[%zu]", asked->prefix, i);
  steering->features[steering->n_features++] =
      (struct edit){.point = point, .kind = kind_of(asked->method), .column_begin = (int32_t)column,
                    .column_end = (int32_t)(column + n),
                    .value = (float)(asked->features[i].strength * asked->strength_multiplier), .v = v, .prompt = true,
                    .generated = true, .mask = steering->mask, .n_mask = (int32_t)steering->prompt.n};
  return prepare_vector(asked, field, v, n, error);
}

/* A vector that somebody keeps (store): it steers as a feature does. */
static int add_kept_vector(struct lab *lab, const struct lab_model_info *model, const struct lab_steering *asked, size_t i,
                           struct steering *steering, struct error *error) {
  const struct lab_steer_feature *feature = &asked->features[i];
  struct store_vector vector;
  struct point point;
  char field[64];
  snprintf(field, sizeof field, "%sfeatures[%zu].index", asked->prefix, i);
  int found = !lab->store ? 0
                          : store_vector_find(lab->store, model->id, feature->source_id, feature->index, &steering->arena, &vector,
                                              error);
  if (found < 0) return -1;
  if (!found)
    return error_set_field(error, ERROR_NOT_FOUND, field, "%s: there is no vector %lld of '%.64s' in model '%s'", field,
                           (long long)feature->index, feature->source_id, model->id);
  if (point_find(vector.point, &steering->model->arch, &point, error) != 0) return -1;
  if ((int64_t)vector.n != model->d_model)
    return error_set_field(error, ERROR_ARGUMENT, field, "%s: the vector that is kept has %zu numbers, the model is %lld wide", field,
                           vector.n, (long long)model->d_model);
  float *v = arena_array(&steering->arena, vector.n, sizeof *v, error);
  if (!v) return -1;
  memcpy(v, vector.values, vector.n * sizeof *v);
  return put_feature(asked, i, point, 0, v, model->d_model, steering, error);
}

/* A neuron is turned where it is read: its own column, so that what it writes passes whatever stands behind it. The row is 1, or where
 * rows of length 1 are asked for, what makes its row of W_out so long. */
static int add_neuron(const struct lab_steering *asked, size_t i, const struct dict *dict, struct steering *steering,
                      struct error *error) {
  const struct dict_info *info = dict_info(dict);
  float *v = arena_array(&steering->arena, 1, sizeof *v, error);
  if (!v) return -1;
  v[0] = 1;
  if (asked->unit && asked->method == LAB_STEER_ADD) {
    float *row = arena_array(&steering->arena, (size_t)info->d_out, sizeof *row, error);
    if (!row) return -1;
    dict_decoder_row(dict, asked->features[i].index, row);
    double norm = vector_norm(row, info->d_out);
    v[0] = norm > 0 ? (float)(1 / norm) : 0;
  }
  struct lab_steering as_it_is = *asked;
  as_it_is.unit = false;
  return put_feature(&as_it_is, i, info->in, asked->features[i].index, v, 1, steering, error);
}

/* A feature of a cross-layer transcoder has a row at each of several points; any other has one. */
static int add_targets(const struct lab_steering *asked, size_t i, const struct dict *dict, struct steering *steering,
                       struct error *error) {
  const struct dict_info *shape = dict_info(dict);
  char field[64];
  if (shape->kind == DICT_NEURONS) return add_neuron(asked, i, dict, steering, error);
  snprintf(field, sizeof field, "%sfeatures[%zu]", asked->prefix, i);
  if (shape->cross && asked->method != LAB_STEER_ADD)
    return error_set_field(error, ERROR_UNSUPPORTED, field, "%s: a feature of a cross-layer transcoder writes a row to each of its %d "
                           "layers and has no one direction: only SIMPLE_ADDITIVE is served", field, shape->n_targets);
  for (int32_t t = 0; t < shape->n_targets; t++) {
    float *v = arena_array(&steering->arena, (size_t)shape->d_out, sizeof *v, error);
    if (!v) return -1;
    dict_target_row(dict, asked->features[i].index, t, v);
    if (put_feature(asked, i, dict_target(dict, t), shape->out_column, v, shape->d_out, steering, error) != 0) return -1;
  }
  return 0;
}

static int add_feature(struct lab *lab, const struct lab_model_info *model, const struct lab_steering *asked, size_t i,
                       struct steering *steering, struct error *error) {
  char field[64];
  if (lab_holds_vectors(asked->features[i].source_id)) return add_kept_vector(lab, model, asked, i, steering, error);
  snprintf(field, sizeof field, "%sfeatures[%zu].%s", asked->prefix, i, asked->source_field);
  const struct lab_source_info *info = lab_find_source(lab, model, asked->features[i].source_id, field, error);
  if (!info || check_index(asked, info, i, error) != 0) return -1;
  return add_targets(asked, i, lab_source_of(lab, info)->dict, steering, error);
}

/* 1 for every prompt token that features may change. */
static int make_mask(struct steering *steering, struct error *error) {
  steering->mask = arena_alloc(&steering->arena, steering->prompt.n, error);
  for (size_t i = 0; steering->mask && i < steering->prompt.n; i++)
    steering->mask[i] = !tokenizer_is_special(steering->model->tokenizer, steering->prompt.ids[i]);
  return steering->mask ? 0 : -1;
}

/* name: of their field. */
static int add_edits(struct lab *lab, const struct lab_model_info *model, const struct lab_edit *edits, size_t n,
                     const char *name, struct steering *steering, struct edits_plan *plan, struct error *error) {
  if (edits_resolve(lab, model, edits, n, name, LAB_BOS_DEFAULT, &steering->arena, plan, error) != 0) return -1;
  plan->continues = true;
  return edits_needs(plan, &steering->prompt, 1, error);
}

static int add_all(struct lab *lab, const struct lab_model_info *model, const struct lab_steering *asked,
                   struct steering *steering, struct error *error) {
  char vectors[32], edits[32];
  snprintf(vectors, sizeof vectors, "%svectors", asked->prefix);
  snprintf(edits, sizeof edits, "%sedits", asked->prefix);
  if (!asked->special_tokens && make_mask(steering, error) != 0) return -1;
  size_t targets = asked->n_features * (size_t)steering->model->arch.n_layer; /* as many as there can be */
  steering->features = arena_array(&steering->arena, targets, sizeof *steering->features, error);
  if (!steering->features) return -1;
  for (size_t i = 0; i < asked->n_features; i++)
    if (add_feature(lab, model, asked, i, steering, error) != 0) return -1;
  if (add_edits(lab, model, asked->vectors, asked->n_vectors, vectors, steering, &steering->plans[0], error) != 0) return -1;
  return add_edits(lab, model, asked->edits, asked->n_edits, edits, steering, &steering->plans[1], error);
}

bool steering_none(const struct lab_steering *asked) { return asked->n_features + asked->n_vectors + asked->n_edits == 0; }

int steering_new(struct lab *lab, const struct lab_model_info *model, const struct lab_steering *asked, const int32_t *ids,
                 size_t n, struct steering **out, struct error *error) {
  struct steering *steering = calloc(1, sizeof *steering);
  if (!steering) return error_memory(error, sizeof *steering);
  arena_init(&steering->arena, 0);
  steering->model = lab_model_of(lab, model)->model;
  steering->prompt = (struct lab_ids){arena_array(&steering->arena, n, sizeof *ids, error), n};
  int failed = steering->prompt.ids ? 0 : -1;
  if (!failed) {
    memcpy(steering->prompt.ids, ids, n * sizeof *ids);
    failed = add_all(lab, model, asked, steering, error);
  }
  if (failed) steering_free(steering);
  if (!failed) *out = steering;
  return failed;
}

void steering_free(struct steering *steering) {
  if (!steering) return;
  arena_clear(&steering->arena);
  free(steering);
}

size_t steering_bytes(const struct steering *steering) { return steering->arena.used; }

struct edit_list *steering_list(const struct steering *steering, int32_t max_new, struct error *error) {
  struct edit_list *list = edit_list_new(error);
  int failed = list ? 0 : -1;
  for (size_t i = 0; !failed && i < steering->n_features; i++) failed = edit_list_add(list, &steering->features[i], error);
  for (int i = 0; !failed && i < PLANS; i++) {
    struct edits_plan plan = steering->plans[i];
    plan.more = engine_keys(0, max_new);
    failed = edits_append(&plan, 0, &steering->prompt, list, error);
  }
  if (!failed) return list;
  edit_list_free(list, steering->model->backend);
  return NULL;
}

/* ---- the runs that come first ---- */

static size_t count_runs(const struct steering *steering) {
  size_t n = 0;
  for (int i = 0; steering && i < PLANS; i++) n += steering->plans[i].n_runs;
  return n;
}

bool steering_waits(const struct steering *steering) { return count_runs(steering) > 0; }

/* The plan that sequence *k belongs to, of whose runs it is number *k. */
static const struct edits_plan *plan_at(const struct steering_runs *runs, size_t *k) {
  for (size_t s = 0; s < runs->n; s++) {
    for (int i = 0; runs->steerings[s] && i < PLANS; i++) {
      const struct edits_plan *plan = &runs->steerings[s]->plans[i];
      if (*k < plan->n_runs) return plan;
      *k -= plan->n_runs;
    }
  }
  return NULL;
}

static int on_tapped(void *context, int sequence, const struct engine_tapped *tapped, struct error *error) {
  size_t run = (size_t)sequence;
  const struct edits_plan *plan = plan_at(context, &run);
  return edits_tapped(plan, run, tapped, error);
}

static void on_done(void *context, const struct error *error) {
  struct steering_runs *runs = context;
  if (error)
    job_done(runs->job, error);
  else
    stager_put(runs->job, runs->then);
}

static const struct engine_events events = {.tapped = on_tapped, .reads_tapped = true, .done = on_done};

/* The sequences of all runs; on failure the lists of those that were made are freed. */
static int make_sequences(const struct steering_runs *runs, const struct model *model, struct engine_sequence *sequences, size_t n,
                          struct error *error) {
  for (size_t k = 0; k < n; k++) {
    size_t run = k;
    const struct edits_plan *plan = plan_at(runs, &run);
    if (edits_run(plan, run, &sequences[k], error) == 0) continue;
    for (size_t i = 0; i < k; i++) edit_list_free(sequences[i].edits, model->backend);
    return -1;
  }
  return 0;
}

int steering_start(struct steering *const *steerings, size_t n, struct lab_job *job,
                   int (*then)(struct lab_job *job, struct error *error), struct error *error) {
  size_t count = 0, first = n;
  for (size_t s = 0; s < n; s++) {
    count += count_runs(steerings[s]);
    if (first == n && steerings[s]) first = s;
  }
  struct steering_runs *runs = &steerings[first]->runs;
  const struct model *model = steerings[first]->model;
  *runs = (struct steering_runs){steerings, n, job, then};
  struct engine_sequence *sequences = calloc(count, sizeof *sequences);
  int failed = sequences ? make_sequences(runs, model, sequences, count, error) : error_memory(error, count * sizeof *sequences);
  if (failed) {
    job->destroy(job);
  } else {
    struct engine_task_args task = {.model = model, .sequences = sequences, .n_sequences = (int)count, .events = &events,
                                    .context = runs, .in_turn = true};
    failed = job_submit(job, &task, error);
  }
  free(sequences);
  return failed;
}
