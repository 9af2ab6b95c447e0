/* activations.h: what the files of the verb "activations" share (activations*.c). */
#ifndef STEERD_CORE_LAB_ACTIVATIONS_H
#define STEERD_CORE_LAB_ACTIVATIONS_H

#include "core/lab/origins.h"
#include "core/lab/sources.h"

struct text_state {
  int32_t *ids;
  size_t n_ids;
  struct sparse *codes; /* [n_sources]; rows are positions of the full prompt */
  float *values;        /* [n_ids] LAB_ONE_FEATURE */
  struct origins_text origins; /* while its second pass runs */
};

struct activations_job {
  struct lab_job job;
  struct lab_warm warm;                 /* before the first task, where an encoder was dropped */
  struct lab_model *opened;
  enum lab_activation_form form;
  const struct lab_source_info **infos; /* [n_sources] */
  struct dict **dicts;                  /* [n_sources] */
  size_t n_sources;
  struct point *taps;                   /* distinct points of the sources */
  int *tap_of;                          /* [n_sources] */
  bool **dense;                         /* [n_sources][n_feat]: fires too often to be shown; NULL: none does */
  int n_taps;
  int *layer_of;                        /* [n_sources] whose heads it reads, among origin_layers; -1: none */
  int *origin_layers, n_origin_layers;
  struct point *origin_taps;            /* [n_origin_layers][ORIGINS_TAPS] */
  bool origins;                         /* the second passes run */
  int64_t index;
  int n_results;
  enum lab_bos ignore_bos, bos_values;
  bool silent;
  const char *text_field, *sort_field, *count_field; /* static */
  int64_t *sort;
  size_t n_sort;
  struct text_state *texts;
  size_t n_texts;
  size_t entries;                       /* in all of their codes */
  size_t first, n_running;              /* texts of the task that runs: as many as there are sessions at most */
  struct arena arena;                   /* the result */
  struct lab_text_activations *result;
};

/* Whether BOS has a place among the tokens, and whether a text begins with it. */
bool activations_show_bos(const struct activations_job *a);
bool activations_begin_with_bos(const struct activations_job *a, const struct text_state *text);

/* All texts have run: the result, in the arena. */
int activations_make_result(struct activations_job *a, struct error *error) MUST_CHECK;

/* Where features come from (activations_origins.c): asker: which layers' heads the sources read, none of them and no second
 * pass is run; what the second pass over text t is to keep; texts [first, first + n_running) have it behind them. */
int activations_find_origins(struct activations_job *a, struct error *error) MUST_CHECK;
int activations_begin_origins(struct activations_job *a, size_t t, struct error *error) MUST_CHECK;
int activations_take_origins(struct activations_job *a, struct error *error) MUST_CHECK;

#endif
