/* feature.c: the verbs "feature" and "cossim": from the store where it knows, from the dictionary where it does not.
 * What is computed for a stored source is kept, so that it is computed once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/lab/tables.h"

struct feature_job {
  struct lab_job job;
  struct lab_feature result;
  struct arena arena;
  struct table_work work;
  struct table_row row;
  struct store_feature made; /* what was computed; groups 0: nothing, or it is kept already */
};

static void destroy(struct lab_job *job) {
  struct feature_job *f = (struct feature_job *)job;
  arena_clear(&f->arena);
  job_clear(job);
  free(f);
}

/* ---- the part that the store lacks (worker) ---- */

static int feature_slice(void *context, struct plan *plan, struct error *error) {
  struct feature_job *f = context;
  return table_slice(&f->work, plan, error);
}

static void merge(struct store_feature *to, const struct store_feature *made) {
  to->groups |= made->groups;
  if (made->groups & STORE_LOGITS) {
    to->top = made->top;
    to->bottom = made->bottom;
    to->logits = made->logits;
    to->moments = made->moments;
  }
  if (made->groups & STORE_NEIGHBOURS) {
    to->neighbours = made->neighbours;
    to->cosines = made->cosines;
    to->n_neighbours = made->n_neighbours;
  }
}

static void feature_done(void *context, const struct error *error) {
  struct feature_job *f = context;
  struct error own = ERROR_INIT;
  f->made.index = f->result.stored.index;
  if (!error && table_store(&f->work, &f->row, &f->arena, &f->made, &own) != 0) error = &own;
  if (!error) merge(&f->result.stored, &f->made);
  job_done(&f->job, error);
}

static const struct engine_work work = {.slice = feature_slice, .done = feature_done, .asked = true};

/* ---- the asker's side ---- */

static int read_stored(struct feature_job *f, size_t max_examples, struct error *error) {
  struct store *store = f->job.lab->store;
  struct store_source row;
  if (!store || !f->work.source->store_id) return 0;
  int found = store_source_at(store, f->work.source->store_id, &f->arena, &row, error);
  if (found < 0) return -1;
  if (found) f->result.statistics = row.statistics;
  struct store_feature stored;
  uint32_t index = f->result.stored.index;
  found = store_feature_get(store, f->work.source->store_id, index, max_examples, &f->arena, &stored, error);
  if (found > 0) f->result.stored = stored;
  return found < 0 ? -1 : 0;
}

static int check_index(const struct lab_source_info *source, int64_t index, struct error *error) {
  if (index >= 0 && index < source->n_feat) return 0;
  return error_set_field(error, ERROR_NOT_FOUND, "index", "index is %lld, source '%s' has features 0 to %lld",
                         (long long)index, source->id, (long long)source->n_feat - 1);
}

static void prepare(struct feature_job *f, struct lab *lab, const struct lab_source_info *info, int64_t index) {
  struct lab_source *source = lab_source_of(lab, info);
  f->result.source = info;
  f->result.decoder_norm = dict_norms(source->dict)[index];
  f->result.stored.index = (uint32_t)index;
  f->work.model = lab_model_of_source(lab, info)->model;
  f->work.lab = lab;
  f->work.source = source;
  f->work.first = index;
  f->work.n = 1;
  f->work.rows = &f->row;
}

int lab_feature(struct lab *lab, const struct lab_source_info *source, int64_t index, size_t max_examples,
                struct lab_waker waker, struct lab_job **out, struct error *error) {
  if (check_index(source, index, error) != 0) return -1;
  struct feature_job *f = calloc(1, sizeof *f);
  if (!f) return error_memory(error, sizeof *f);
  job_init(&f->job, lab, waker, destroy);
  arena_init(&f->arena, 0);
  prepare(f, lab, source, index);
  if (read_stored(f, max_examples, error) != 0) {
    destroy(&f->job);
    return -1;
  }
  f->work.logits = !(f->result.stored.groups & STORE_LOGITS);
  f->work.neighbours = !(f->result.stored.groups & STORE_NEIGHBOURS) && !dict_info(f->work.source->dict)->cross;
  if (!f->work.logits && !f->work.neighbours)
    job_finish_now(&f->job);
  else if (job_submit_work(&f->job, f->work.model, &work, error) != 0)
    return -1;
  *out = &f->job;
  return 0;
}

/* Kept for the next asker, by the reader's thread: a write waits for the disk, which the worker must not. A store that
 * cannot take it now is no reason to refuse the answer. */
static void keep(struct feature_job *f) {
  struct lab *lab = f->job.lab;
  struct error error = ERROR_INIT;
  struct store_batch batch = {.source = f->work.source->store_id, .features = &f->made, .n_features = 1};
  if (lab->store && batch.source && f->made.groups && store_batch_put(lab->store, &batch, &error) != 0)
    log_warn("what was computed for %s/%s/%u could not be kept: %s", f->work.source->model_id, f->work.source->id,
             f->made.index, error.text);
  f->made.groups = 0;
}

const struct lab_feature *lab_feature_result(struct lab_job *job) {
  struct feature_job *f = (struct feature_job *)job;
  keep(f);
  return &f->result;
}

/* ---- its vectors ---- */

int lab_feature_vectors(const struct lab *lab, const struct lab_source_info *source, int64_t index, struct arena *arena,
                        struct lab_feature_vectors *out, struct error *error) {
  if (check_index(source, index, error) != 0) return -1;
  const struct dict *dict = lab_source_of(lab, source)->dict;
  const struct dict_info *info = dict_info(dict);
  float *encoder = arena_array(arena, (size_t)info->d_in, sizeof *encoder, error);
  float *decoder = arena_array(arena, (size_t)info->d_out, sizeof *decoder, error);
  if (!encoder || !decoder) return -1;
  dict_encoder_column(dict, index, encoder);
  dict_decoder_row(dict, index, decoder);
  *out = (struct lab_feature_vectors){encoder, decoder, (size_t)info->d_in, (size_t)info->d_out};
  return 0;
}

/* ---- cossim ---- */

struct cossim_job {
  struct lab_job job;
  const struct lab_source *target;
  float *query;
  int64_t skip, next_row;
  int n;
  struct feature_neighbours found;
  struct lab_neighbours result;
};

static void cossim_destroy(struct lab_job *job) {
  free(((struct cossim_job *)job)->query);
  job_clear(job);
  free(job);
}

static int cossim_slice(void *context, struct plan *plan, struct error *error) {
  struct cossim_job *c = context;
  return decoder_nearest_part(c->target->dict, plan_backend(plan), c->query, c->skip, c->n, &c->next_row, &c->found, error);
}

static void cossim_done(void *context, const struct error *error) {
  struct cossim_job *c = context;
  c->result = (struct lab_neighbours){c->found.index, c->found.cosine, (size_t)c->found.n};
  job_done(&c->job, error);
}

static const struct engine_work cossim_work = {.slice = cossim_slice, .done = cossim_done, .asked = true};

static int make_query(struct cossim_job *c, const struct dict *from, int64_t index, const float *vector, size_t n_vector,
                      struct error *error) {
  size_t width = (size_t)dict_info(c->target->dict)->d_out;
  if (vector && n_vector != width)
    return error_set_field(error, ERROR_ARGUMENT, "vector", "'vector' has %zu numbers, the rows of source '%s' have %zu", n_vector,
                           c->target->id, width);
  if (!vector && dict_info(from)->d_out != (int64_t)width)
    return error_set_field(error, ERROR_ARGUMENT, "targetSourceId", "the rows have %lld elements, those of the target %zu",
                           (long long)dict_info(from)->d_out, width);
  c->query = malloc(width * sizeof *c->query);
  if (!c->query) return error_memory(error, width * sizeof *c->query);
  if (vector)
    memcpy(c->query, vector, width * sizeof *c->query);
  else
    dict_decoder_row(from, index, c->query);
  return 0;
}

int lab_cossim(struct lab *lab, const struct lab_source_info *source, int64_t index, const float *vector, size_t n_vector,
               const struct lab_source_info *target, int n, struct lab_waker waker, struct lab_job **out,
               struct error *error) {
  if (!vector && check_index(source, index, error) != 0) return -1;
  struct cossim_job *c = calloc(1, sizeof *c);
  if (!c) return error_memory(error, sizeof *c);
  job_init(&c->job, lab, waker, cossim_destroy);
  c->target = lab_source_of(lab, target);
  c->n = n < TABLE_NEIGHBOURS_MOST ? n : TABLE_NEIGHBOURS_MOST;
  c->skip = -1; /* the feature itself stands first, as Neuronpedia has it */
  if (make_query(c, vector ? NULL : lab_source_of(lab, source)->dict, index, vector, n_vector, error) != 0) {
    cossim_destroy(&c->job);
    return -1;
  }
  if (job_submit_work(&c->job, lab_model_of_source(lab, target)->model, &cossim_work, error) != 0) return -1;
  *out = &c->job;
  return 0;
}

const struct lab_neighbours *lab_cossim_result(const struct lab_job *job) {
  return &((const struct cossim_job *)job)->result;
}
