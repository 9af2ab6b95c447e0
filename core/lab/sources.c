/* sources.c: which sources there are, and until when they last. Readers find them without a lock: a model's list is replaced
 * as a whole, and what was replaced is freed when the last lease has ended that may have seen it. Knows no thread of its
 * own: loader.c brings and frees. */
#include "core/lab/sources.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/analysis/tables.h"
#include "core/base/log.h"
#include "core/base/nearest.h"
#include "core/model/model_names.h"
#include "core/model/points.h"

/* ---- leases ---- */

void lab_lease_begin(struct lab *lab, struct lab_lease *lease) {
  struct lab_sources *s = lab->sources;
  pthread_mutex_lock(&s->mutex);
  *lease = (struct lab_lease){.older = s->newest, .number = ++s->n_leases};
  *(s->newest ? &s->newest->newer : &s->oldest) = lease;
  s->newest = lease;
  pthread_mutex_unlock(&s->mutex);
}

void lab_lease_end(struct lab *lab, struct lab_lease *lease) {
  struct lab_sources *s = lab->sources;
  if (lease->number == 0) return;
  pthread_mutex_lock(&s->mutex);
  *(lease->older ? &lease->older->newer : &s->oldest) = lease->newer;
  *(lease->newer ? &lease->newer->older : &s->newest) = lease->older;
  lease->number = 0;
  if (sources_reclaimable(s)) pthread_cond_signal(&s->changed);
  pthread_mutex_unlock(&s->mutex);
}

void source_pin(struct lab *lab, struct lab_source *source) {
  pthread_mutex_lock(&lab->sources->mutex);
  source->pins++;
  pthread_mutex_unlock(&lab->sources->mutex);
}

void source_unpin(struct lab *lab, struct lab_source *source) {
  struct lab_sources *s = lab->sources;
  pthread_mutex_lock(&s->mutex);
  source->pins--;
  if (sources_reclaimable(s)) pthread_cond_signal(&s->changed);
  pthread_mutex_unlock(&s->mutex);
}

/* ---- freeing ---- */

static bool unseen(const struct lab_sources *s, const struct lab_retired *retired) {
  return (!s->oldest || s->oldest->number > retired->newest) && !(retired->source && retired->source->pins);
}

bool sources_reclaimable(const struct lab_sources *s) {
  for (const struct lab_retired *r = s->retired; r; r = r->next)
    if (unseen(s, r)) return true;
  return false;
}

static struct lab_retired *take_unseen(struct lab_sources *s) {
  struct lab_retired *taken = NULL;
  for (struct lab_retired **at = &s->retired; *at;) {
    struct lab_retired *r = *at;
    if (!unseen(s, r)) {
      at = &r->next;
      continue;
    }
    *at = r->next;
    r->next = taken;
    taken = r;
  }
  return taken;
}

static void free_retired(struct lab_retired *retired) {
  while (retired) {
    struct lab_retired *next = retired->next;
    if (retired->source) log_info("source %s/%s: unloaded", retired->source->model_id, retired->source->id);
    source_close(retired->source);
    free(retired->list);
    free(retired);
    retired = next;
  }
}

void sources_reclaim(struct lab *lab) {
  pthread_mutex_lock(&lab->sources->mutex);
  struct lab_retired *taken = take_unseen(lab->sources);
  pthread_mutex_unlock(&lab->sources->mutex);
  free_retired(taken);
}

/* ---- one source ---- */

const char *source_set_part(const char *id, size_t *length) {
  const char *dash = strchr(id, '-'), *set = neurons_named(id) ? LAB_NEURONS : dash ? dash + 1 : id, *end = strstr(set, "__");
  *length = end ? (size_t)(end - set) : strlen(set);
  return set;
}

static char *set_name(const char *id) {
  size_t length;
  const char *set = source_set_part(id, &length);
  return strndup(set, length);
}

static int name_source(struct lab_source *source, const struct lab_source_spec *spec, struct error *error) {
  const struct dict_info *info = dict_info(source->dict);
  char in[POINT_NAME_BYTES], out[POINT_NAME_BYTES];
  source->id = strdup(spec->source_id);
  source->model_id = strdup(spec->model_id);
  source->path = realpath(spec->path, NULL); /* for people: without links and ".." */
  if (!source->path) source->path = strdup(spec->path);
  source->set = set_name(spec->source_id);
  source->point = strdup(point_name(info->in, in));
  source->point_out = strdup(point_name(info->out, out));
  bool several = info->n_targets > 1;
  if (several) source->point_last = strdup(point_name(dict_target(source->dict, info->n_targets - 1), out));
  if (source->id && source->model_id && source->path && source->set && source->point && source->point_out &&
      (source->point_last || !several))
    return 0;
  return error_memory(error, sizeof in);
}

_Static_assert(SLICE_OPEN == LAB_OPEN, "both are Python's None");

static const int64_t *describe_slice(const struct slice *slice, int64_t out[3]) {
  if (!slice->given) return NULL;
  out[0] = slice->start;
  out[1] = slice->stop;
  out[2] = slice->step;
  return out;
}

static void describe_source(struct lab_source *source, const struct arch *arch) {
  const struct dict_info *d = dict_info(source->dict);
  source->info = (struct lab_source_info){.id = source->id, .set = source->set, .model_id = source->model_id,
                                          .kind = dict_title(d), .point = source->point,
                                          .point_out = source->point_out, .point_last = source->point_last, .layer = d->in.layer, .n_feat = d->n_feat,
                                          .d_in = d->d_in, .folded = d->folded, .bos_counts = d->bos_counts,
                                          .promotes = tables_has_logits(source->dict, arch->d_model),
                                          .bytes = d->bytes,
                                          .seqpos_slice = describe_slice(&d->positions.slice, source->slice),
                                          .excluded = d->positions.excluded, .n_excluded = d->positions.n_excluded};
}

const char *source_published_name(const struct lab *lab, const struct lab_source_spec *spec, char out[SOURCE_NAME_BYTES]) {
  snprintf(out, SOURCE_NAME_BYTES, "%s/%s", spec->model_id, spec->source_id);
  if (spec->path && strcmp(spec->path, out) != 0) return spec->path;
  snprintf(out, SOURCE_NAME_BYTES, "%s/%s", model_names_id(lab->names, spec->model_id), spec->source_id);
  return out;
}

int source_check_id(const char *id, struct error *error) {
  size_t length;
  if (lab_check_id(id, error) != 0) return -1;
  const char *set = source_set_part(id, &length);
  if (!set || neurons_named(id) || length != strlen(LAB_NEURONS) || memcmp(set, LAB_NEURONS, length) != 0) return 0;
  return error_set(error, ERROR_ARGUMENT, "the id '%s' cannot name a dictionary: the set '" LAB_NEURONS "' is the neurons of the model itself", id);
}

struct lab_source *source_open(struct lab *lab, const struct lab_source_spec *spec, bool aside, struct error *error) {
  struct lab_model *opened = lab_model_named(lab, spec->model_id);
  if (!opened) {
    error_set(error, ERROR_NOT_FOUND, "source '%s/%s': no model '%s' is loaded; name it with --model", spec->model_id,
              spec->source_id, spec->model_id);
    return NULL;
  }
  if (source_check_id(spec->source_id, error) != 0) return NULL;
  const struct dict_memory memory = {lab->budget, lab->keep, aside};
  struct dict_host host = {opened->model->id, &opened->model->arch, &memory, opened->model->tokenizer};
  struct lab_source_spec named = {opened->model->id, spec->source_id, spec->path};
  struct dict *dict = dict_open(spec->path, spec->source_id, &host, lab->backend, error);
  if (dict) return source_new(dict, &named, &opened->model->arch, error);
  error_put_prefix(error, "source '%s/%s'", spec->model_id, spec->source_id);
  return NULL;
}

struct lab_source *source_new(struct dict *dict, const struct lab_source_spec *spec, const struct arch *arch, struct error *error) {
  struct lab_source *source = calloc(1, sizeof *source);
  if (!source) {
    dict_close(dict);
    return error_memory(error, sizeof *source), NULL;
  }
  source->dict = dict;
  if (name_source(source, spec, error) != 0) {
    source_close(source);
    return NULL;
  }
  describe_source(source, arch);
  return source;
}

void source_close(struct lab_source *source) {
  if (!source) return;
  dict_close(source->dict);
  free(source->id);
  free(source->set);
  free(source->model_id);
  free(source->point);
  free(source->point_out);
  free(source->point_last);
  free(source->path);
  free(source);
}

/* Names are LAYER-SET: who asks for a layer of a set finds it by its name. */
int source_check_layer(const struct lab_source *source, struct error *error) {
  size_t digits = strspn(source->id, "0123456789");
  const struct point in = dict_info(source->dict)->in;
  if (!digits || digits > 8 || source->id[digits] != '-' || in.layer < 0) return 0;
  long named = strtol(source->id, NULL, 10);
  bool same = named == in.layer || (named == in.layer + 1 && in.site == SITE_RESID_POST) ||
              (named == in.layer - 1 && in.site == SITE_RESID_PRE);
  if (same) return 0;
  return error_set_field(error, ERROR_ARGUMENT, "source", "the name '%.64s' says layer %ld, and the dictionary is of layer %d (it reads '%s'): call it "
                         "'%d%.64s', or a name without a number in front", source->id, named, in.layer, source->point, in.layer,
                         source->id + digits);
}

/* ---- coming and going ---- */

static struct lab_source_list *list_of(const struct lab *lab, const struct lab_model_info *model) {
  return atomic_load(&lab_model_of(lab, model)->sources);
}

static const struct lab_source_info *find_in(const struct lab_source_list *list, const char *id) {
  for (size_t i = 0; i < list->n; i++)
    if (strcmp(list->items[i]->id, id) == 0) return list->items[i];
  return NULL;
}

/* The same list with `more` behind it and without `less`; either may be NULL. */
static struct lab_source_list *list_change(const struct lab_source_list *list, const struct lab_source_info *more,
                                           const struct lab_source_info *less) {
  struct lab_source_list *new = malloc(sizeof *new + (list->n + 1) * sizeof *new->items);
  if (!new) return NULL;
  new->n = 0;
  for (size_t i = 0; i < list->n; i++)
    if (list->items[i] != less) new->items[new->n++] = list->items[i];
  if (more) new->items[new->n++] = more;
  return new;
}

/* Under the mutex. What leases begun so far may have seen is kept for them. */
static int replace_list(struct lab *lab, struct lab_model *opened, const struct lab_source_info *more,
                        const struct lab_source_info *less, struct error *error) {
  struct lab_sources *s = lab->sources;
  struct lab_source_list *old = atomic_load(&opened->sources), *new = list_change(old, more, less);
  struct lab_retired *retired = calloc(1, sizeof *retired);
  if (!new || !retired) {
    free(new);
    free(retired);
    return error_memory(error, sizeof *retired + (old->n + 1) * sizeof *old->items);
  }
  *retired = (struct lab_retired){s->retired, old, less ? lab_source_of(lab, less) : NULL, s->n_leases};
  s->retired = retired;
  atomic_store(&opened->sources, new);
  atomic_fetch_add(&s->changes, 1);
  pthread_cond_signal(&s->changed);
  return 0;
}

int sources_add(struct lab *lab, struct lab_source *source, struct error *error) {
  struct lab_model *opened = lab_model_named(lab, source->model_id);
  pthread_mutex_lock(&lab->sources->mutex);
  int failed = find_in(atomic_load(&opened->sources), source->id)
                   ? error_set_field(error, ERROR_CONFLICT, "source", "source '%s/%s' is loaded already", source->model_id,
                                     source->id)
                   : replace_list(lab, opened, &source->info, NULL, error);
  if (!failed && lab->options.self_test) {
    source->check.state = LAB_CHECK_WANTED;
    lab->sources->unchecked++;
  }
  pthread_mutex_unlock(&lab->sources->mutex);
  bool moves = strcmp(source->point, source->point_out) != 0;
  if (!failed)
    log_info("source %s/%s: %s at %s%s%s%s%s, %lld features", source->model_id, source->id, source->info.kind, source->point,
             moves ? " to " : "", moves ? source->point_out : "", source->point_last ? " and on to " : "",
             source->point_last ? source->point_last : "", (long long)source->info.n_feat);
  return failed;
}

int lab_source_unload(struct lab *lab, const struct lab_source_info *source, struct error *error) {
  struct lab_model *opened = lab_model_of_source(lab, source);
  if (neurons_named(source->id))
    return error_set_field(error, ERROR_ARGUMENT, "source", "source '%s/%s' is the neurons of that layer: they come with the model and "
                           "stay as long as it does", source->model_id, source->id);
  pthread_mutex_lock(&lab->sources->mutex);
  int failed = find_in(atomic_load(&opened->sources), source->id) != source
                   ? error_set_field(error, ERROR_NOT_FOUND, "source", "source '%s/%s' was just unloaded", source->model_id,
                                     source->id)
                   : replace_list(lab, opened, NULL, source, error);
  pthread_mutex_unlock(&lab->sources->mutex);
  return failed;
}

/* ---- asking ---- */

struct lab_source *lab_source_of(const struct lab *lab, const struct lab_source_info *info) {
  (void)lab;
  return (struct lab_source *)(uintptr_t)info;
}

int64_t source_aside(const struct lab_source *source) {
  return dict_splices(source->dict) ? dict_splice_aside(source->dict) : 0;
}

int64_t sources_aside(const struct lab_model *model) {
  const struct lab_source_list *list = atomic_load(&model->sources);
  int64_t floats = 0;
  for (size_t i = 0; i < list->n; i++) floats += source_aside(lab_source_of(NULL, list->items[i]));
  return floats;
}

size_t lab_sources(const struct lab *lab, const struct lab_model_info *model, const struct lab_source_info *const **out) {
  const struct lab_source_list *list = list_of(lab, model);
  *out = list->items;
  return list->n;
}

void lab_source_used(const struct lab *lab, const struct lab_source_info *source) {
  atomic_store_explicit(&lab_source_of(lab, source)->used_at, (int64_t)time(NULL), memory_order_relaxed);
}

static const char *source_id(const void *of, size_t i) { return ((const struct lab_source_list *)of)->items[i]->id; }

static const char *nearest_source(const struct lab_source_list *list, const char *id) {
  const char *names[256];
  size_t n = list->n < 256 ? list->n : 256;
  for (size_t i = 0; i < n; i++) names[i] = list->items[i]->id;
  return nearest_name(id, names, n);
}

static void refuse_source(const struct lab_source_list *list, const struct lab_model_info *model, const char *id, const char *field,
                          struct error *error) {
  char known[224], neurons[64] = "";
  const char *near = nearest_source(list, id);
  lab_list_ids(known, sizeof known, list->n, source_id, list);
  if (model->d_mlp > 0) snprintf(neurons, sizeof neurons, "; '0' to '%d' are the neurons of its layers", model->n_layer - 1);
  if (near)
    error_set_field(error, ERROR_NOT_FOUND, field, "model '%s' has no source '%.64s'; did you mean '%s'?", model->id, id, near);
  else
    error_set_field(error, ERROR_NOT_FOUND, field, "model '%s' has no source '%.64s'; loaded: %s%s", model->id, id,
                    *known ? known : "none", neurons);
}

const struct lab_source_info *lab_find_source(const struct lab *lab, const struct lab_model_info *model, const char *id,
                                              const char *field, struct error *error) {
  if (neurons_named(id)) return neurons_find(lab, model, id, field, error);
  const struct lab_source_list *list = list_of(lab, model);
  const struct lab_source_info *found = find_in(list, id);
  if (found) {
    lab_source_used(lab, found);
    return found;
  }
  if (stored_refuse_source(lab, model->id, id, field, error)) return NULL;
  refuse_source(list, model, id, field, error);
  return NULL;
}

static int by_layer(const void *a, const void *b) {
  const struct lab_source_info *x = *(const struct lab_source_info *const *)a;
  const struct lab_source_info *y = *(const struct lab_source_info *const *)b;
  if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
  return strcmp(x->id, y->id);
}

int lab_source_set(const struct lab *lab, const struct lab_model_info *model, const char *set, struct arena *arena,
                   const struct lab_source_info ***out, size_t *n, struct error *error) {
  const struct lab_source_list *list = list_of(lab, model);
  bool neurons = strcmp(set, LAB_NEURONS) == 0 && model->d_mlp > 0;
  size_t most = list->n + (neurons ? (size_t)model->n_layer : 0);
  *n = 0;
  *out = arena_array(arena, most, sizeof **out, error);
  if (!*out) return -1;
  for (size_t i = 0; i < list->n; i++)
    if (strcmp(list->items[i]->set, set) == 0) (*out)[(*n)++] = list->items[i];
  for (int layer = 0; neurons && layer < model->n_layer; layer++) {
    char id[16];
    snprintf(id, sizeof id, "%d", layer);
    const struct lab_source_info *found = neurons_find(lab, model, id, "source", error);
    if (!found) return -1;
    (*out)[(*n)++] = found;
  }
  qsort(*out, *n, sizeof **out, by_layer);
  return 0;
}

/* ---- the registry ---- */

int sources_open(struct lab *lab, struct error *error) {
  struct lab_sources *s = calloc(1, sizeof *s);
  if (!s) return error_memory(error, sizeof *s);
  pthread_mutex_init(&s->mutex, NULL);
  pthread_mutex_init(&s->neurons, NULL);
  pthread_cond_init(&s->changed, NULL);
  lab->sources = s;
  return 0;
}

static void close_list(const struct lab *lab, struct lab_source_list *list) {
  for (size_t i = 0; list && i < list->n; i++) source_close(lab_source_of(lab, list->items[i]));
  free(list);
}

void sources_close(struct lab *lab) {
  struct lab_sources *s = lab->sources;
  if (!s) return;
  free_retired(s->retired);
  for (size_t i = 0; i < lab->n_models; i++) close_list(lab, atomic_load(&lab->models[i].sources));
  neurons_close(lab);
  for (size_t i = 0; i < s->n_folders; i++) free(s->folders[i]);
  for (size_t i = 0; i < s->n_named; i++) free(s->named[i]);
  free(s->folders);
  free(s->named);
  free(s->releases);
  pthread_cond_destroy(&s->changed);
  pthread_mutex_destroy(&s->mutex);
  pthread_mutex_destroy(&s->neurons);
  free(s);
}
