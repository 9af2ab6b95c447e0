/* map.c: the steps of a map, and the verb "maps": from the store where it has them, made while somebody waits where the source
 * is small. The job for large ones is map_job.c. */
#include "core/lab/map.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/archive.h"
#include "core/base/log.h"

/* ---- neighbours (worker) ---- */

int map_work_check(const struct lab_source_info *source, struct error *error) {
  if (source->n_feat <= MAP_POINTS_MOST) return 0;
  return error_set_field(error, ERROR_LIMIT, "source", "source '%s' has %lld features, a map has %d at most", source->id,
                         (long long)source->n_feat, MAP_POINTS_MOST);
}

static int64_t features_of(const struct map_work *work) { return work->source->info.n_feat; }

static int find_live(struct map_work *work, struct error *error) {
  int64_t n = features_of(work);
  work->live = malloc((size_t)n * sizeof *work->live);
  work->rows = calloc(TABLE_QUERIES, sizeof *work->rows);
  if (!work->live || !work->rows) return error_memory(error, (size_t)n * sizeof *work->live);
  for (int64_t i = 0; i < n; i++) work->live[i] = decoder_parts_has_direction(work->decoder, i) ? (int32_t)work->n_live++ : -1;
  return map_near_init(&work->near, work->n_live, error);
}

/* Rows of zeros stand between those with a cosine above 0 and those below: so many more are asked for. */
static void ask_next(struct map_work *work) {
  int64_t left = features_of(work) - work->asked, zeros = features_of(work) - work->n_live, most = MAP_NEAR + zeros;
  memset(work->rows, 0, TABLE_QUERIES * sizeof *work->rows);
  work->table = (struct table_work){.lab = work->lab, .source = work->source, .model = work->model, .first = work->asked,
                                    .n = left < TABLE_QUERIES ? left : TABLE_QUERIES, .neighbours = true,
                                    .nearest = (int)(most < TABLE_NEIGHBOURS_MOST ? most : TABLE_NEIGHBOURS_MOST), .rows = work->rows,
                                    .decoder = &work->decoder};
}

#define ROUNDING 1e-6f /* of a cosine: what is nearer than this has the same direction */

static void take_row(struct map_work *work, int64_t feature, const struct feature_neighbours *found) {
  int64_t point = work->live[feature], at = point * MAP_NEAR;
  for (int i = 0; point >= 0 && i < found->n && at < (point + 1) * MAP_NEAR; i++) {
    int32_t other = work->live[found->index[i]];
    if (other < 0 || !isfinite(found->cosine[i])) continue;
    work->near.index[at] = other;
    work->near.distance[at++] = 1 - found->cosine[i] < ROUNDING ? 0 : 1 - found->cosine[i];
  }
}

/* 1: some are left to be asked. */
static int take_rows(struct map_work *work) {
  for (int64_t i = 0; i < work->table.n; i++) take_row(work, work->asked + i, &work->rows[i].neighbours);
  work->asked += work->table.n;
  if (work->asked < features_of(work)) {
    ask_next(work);
    return 1;
  }
  decoder_parts_free(work->decoder);
  work->decoder = NULL;
  return 0;
}

int map_work_near(struct map_work *work, struct plan *plan, struct error *error) {
  if (!work->decoder && !(work->decoder = decoder_parts_new(work->source->dict, plan_backend(plan), TABLE_PART_BYTES, error))) return -1;
  if (!work->live) {
    int more = decoder_parts_prepare(work->decoder, error);
    if (more) return more;
    if (find_live(work, error) != 0) return -1;
    ask_next(work);
    return 1;
  }
  int more = table_slice(&work->table, plan, error);
  return more ? more : take_rows(work);
}

/* ---- places ---- */

int map_work_lay(struct map_work *work, int64_t *done, int64_t *total, struct error *error) {
  struct map_graph graph;
  if (!work->map) {
    if (map_graph_make(&work->near, &graph, error) != 0 || !(work->map = map_new(&graph, work->seed, error))) return -1;
    map_near_clear(&work->near);
  }
  return map_step(work->map, done, total, error);
}

void map_work_places(const struct map_work *work, struct store_place *places) {
  const float *place = map_places(work->map);
  const int32_t *group = map_group_of(work->map);
  for (int64_t i = 0; i < features_of(work); i++) {
    int32_t p = work->live[i];
    places[i] = (struct store_place){NAN, NAN, -1, NAN};
    if (p >= 0) places[i] = (struct store_place){(double)place[2 * p], (double)place[2 * p + 1], group[p], NAN};
  }
}

void map_work_clear(struct map_work *work) {
  decoder_parts_free(work->decoder);
  map_near_clear(&work->near);
  map_free(work->map);
  free(work->rows);
  free(work->live);
  work->decoder = NULL;
  work->map = NULL;
  work->rows = NULL;
  work->live = NULL;
}

/* ---- maps that somebody waits for ---- */

struct maps_job {
  struct lab_job job;
  struct arena arena;
  const struct model *model;
  struct lab_map *maps;          /* [n], the result */
  struct store_place **places;   /* [n] those that were made; NULL elsewhere */
  size_t n, next;                /* next: that is made now */
  struct map_work work;
};

static void destroy(struct lab_job *job) {
  struct maps_job *m = (struct maps_job *)job;
  map_work_clear(&m->work);
  arena_clear(&m->arena);
  job_clear(job);
  free(m);
}

/* The next source without a map; false: there is none. */
static bool begin_next(struct maps_job *m) {
  while (m->next < m->n && !m->places[m->next]) m->next++;
  if (m->next == m->n) return false;
  m->work = (struct map_work){.lab = m->job.lab, .source = lab_source_of(m->job.lab, m->maps[m->next].source), .model = m->model};
  return true;
}

/* Neighbours slice by slice, then the layout epoch by epoch. */
static int maps_slice(void *context, struct plan *plan, struct error *error) {
  struct maps_job *m = context;
  struct map_work *work = &m->work;
  if (!work->live || work->decoder) return map_work_near(work, plan, error) < 0 ? -1 : 1;
  int more = map_work_lay(work, NULL, NULL, error);
  if (more) return more;
  map_work_places(work, m->places[m->next++]);
  map_work_clear(work);
  return begin_next(m);
}

/* What was made, as rows without a store. */
static int rows_of_places(struct maps_job *m, size_t i, struct error *error) {
  size_t n = (size_t)m->maps[i].source->n_feat;
  struct store_map_row *rows = arena_array(&m->arena, n, sizeof *rows, error);
  for (size_t f = 0; rows && f < n; f++) rows[f] = (struct store_map_row){(uint32_t)f, m->places[i][f], NAN, NULL};
  m->maps[i].rows = rows;
  m->maps[i].n = n;
  return rows ? 0 : -1;
}

static int read_map(struct maps_job *m, size_t i, struct error *error) {
  struct lab *lab = m->job.lab;
  struct store_map_row *rows;
  if (store_map_list(lab->store, lab_store_source(lab, m->maps[i].source), &m->arena, &rows, &m->maps[i].n, error) != 0) return -1;
  m->maps[i].rows = rows;
  return 0;
}

/* A store that cannot take it now is no reason to refuse the answer. */
static int keep_map(struct maps_job *m, size_t i, struct error *error) {
  struct lab *lab = m->job.lab;
  struct error own = ERROR_INIT;
  const struct lab_source_info *source = m->maps[i].source;
  int64_t id = lab->store ? lab_store_source(lab, source) : 0;
  if (id && store_map_put(lab->store, id, m->places[i], (size_t)source->n_feat, &own) == 0) return read_map(m, i, error);
  if (id) log_warn("the map of %s/%s could not be kept: %s", source->model_id, source->id, own.text);
  return rows_of_places(m, i, error);
}

/* On the thread between tasks: a write waits for the disk. */
static int keep_maps(struct lab_job *job, struct error *error) {
  struct maps_job *m = (struct maps_job *)job;
  for (size_t i = 0; i < m->n; i++)
    if (m->places[i] && keep_map(m, i, error) != 0) return -1;
  job_done(job, NULL);
  return 0;
}

static void maps_done(void *context, const struct error *error) {
  struct maps_job *m = context;
  if (error) map_work_clear(&m->work);
  if (error)
    job_done(context, error);
  else
    stager_put(&m->job, keep_maps);
}

static int refuse_large(const struct lab_source_info *source, size_t i, struct error *error) {
  char field[32];
  snprintf(field, sizeof field, "layers[%zu]", i);
  if (source->stored)
    return error_set_field(error, ERROR_NOT_FOUND, field, "source '%s' has no map, and no dictionary is loaded to make one from", source->id);
  return error_set_field(error, ERROR_NOT_FOUND, field,
                         "source '%s' has no map yet, and with %lld features it is too large to be mapped while a request waits (%d in all): "
                         "start the job with POST /v1/jobs {\"kind\": \"map\", \"modelId\": \"%s\", \"source\": \"%s\"}",
                         source->id, (long long)source->n_feat, LAB_MAP_WAITED, source->model_id, source->id);
}

/* The rows of those with a map; room for those that have to be made. */
static int look_up(struct maps_job *m, struct error *error) {
  struct lab *lab = m->job.lab;
  int64_t wanted = 0;
  for (size_t i = 0; i < m->n; i++) {
    const struct lab_source_info *source = m->maps[i].source;
    int64_t id = lab->store ? lab_store_source(lab, source) : 0;
    int there = id ? store_map_there(lab->store, id, error) : 0;
    if (there < 0 || (there && read_map(m, i, error) != 0)) return -1;
    if (there) continue;
    wanted += source->n_feat;
    if (source->stored || wanted > LAB_MAP_WAITED) return refuse_large(source, i, error);
    if (!(m->places[i] = arena_array(&m->arena, (size_t)source->n_feat, sizeof **m->places, error))) return -1;
  }
  return 0;
}

static int prepare(struct maps_job *m, const struct lab_source_info *const *sources, struct error *error) {
  m->maps = arena_array(&m->arena, m->n, sizeof *m->maps, error);
  m->places = arena_array(&m->arena, m->n, sizeof *m->places, error);
  if (!m->maps || !m->places) return -1;
  for (size_t i = 0; i < m->n; i++) m->maps[i].source = sources[i];
  return look_up(m, error);
}

int lab_maps(struct lab *lab, const struct lab_source_info *const *sources, size_t n, struct lab_waker waker, struct lab_job **out,
             struct error *error) {
  static const struct engine_work work = {.slice = maps_slice, .done = maps_done, .asked = true, .long_one = true};
  struct maps_job *m = calloc(1, sizeof *m);
  if (!m) return error_memory(error, sizeof *m);
  job_init(&m->job, lab, waker, destroy);
  arena_init(&m->arena, 0);
  m->n = n;
  if (prepare(m, sources, error) != 0) return destroy(&m->job), -1;
  if (!begin_next(m)) {
    job_finish_now(&m->job);
  } else {
    m->model = lab_model_of_source(lab, m->maps[m->next].source)->model;
    m->work.model = m->model;
    if (job_submit_work(&m->job, m->model, &work, error) != 0) return -1;
  }
  *out = &m->job;
  return 0;
}

const struct lab_map *lab_maps_result(const struct lab_job *job) { return ((const struct maps_job *)job)->maps; }
