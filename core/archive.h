/* archive.h: the front door's second page: what the lab remembers about features, and work that outlives a request.
 *
 * Plain structs of the store (core/store/ headers; no SQL in them) are handed through as they are: what is stored is what
 * is answered. Reading verbs may be called from any thread and take a few milliseconds at most; those that can need
 * the engine are jobs (core.h). Without a store (`--store` not given) reading verbs find nothing, writing verbs
 * answer ERROR_UNSUPPORTED with the remedy, and lab_feature still tells what the dictionary alone tells. */
#ifndef STEERD_CORE_ARCHIVE_H
#define STEERD_CORE_ARCHIVE_H

#include "core/core.h"
#include "core/store/care.h"
#include "core/store/explanations.h"
#include "core/store/features.h"
#include "core/store/jobs.h"
#include "core/store/shares.h"
#include "core/store/sources.h"
#include "core/store/store.h"
#include "core/store/vectors.h"

/* The lab's store, NULL when there is none. Handlers may call the store's verbs for which the lab adds nothing
 * (explanations, vectors, shares); texts they show come from clients or from store errors. */
struct store *lab_store(const struct lab *lab);

/* The store's number of a source, loaded (made when it is first opened) or stored; 0 without a store. */
int64_t lab_store_source(const struct lab *lab, const struct lab_source_info *source);

/* A number that grows whenever what reading verbs answer may have changed: the store (store_generation), or which sources are
 * loaded. What was read after asking for it holds as long as it stays the same. Any thread; cheap. */
uint64_t lab_generation(const struct lab *lab);

/* ERROR_UNSUPPORTED: "... needs a store: start the daemon with --store FILE". Always -1. */
int lab_needs_store(struct error *error);

/* ---- what is known from the store alone -------------------------------------------------------------- */

/* Models and sources that are names with rows and no weights: registered over HTTP, or imported. Their descriptions look like
 * those of loaded ones (`stored` tells), and may be given to the verbs of this page that say so, and to no other. A model is one
 * when it is not loaded; a source, of a loaded model too, when no dictionary was ever loaded under its name: one that was
 * unloaded is not found. What no store says is 0 or NULL. */

/* 1 and *out, in the arena; 0 when there is none; -1. id may be an alias. */
int lab_stored_model(const struct lab *lab, const char *id, struct arena *arena, struct lab_model_info *out,
                     struct error *error) MUST_CHECK;
int lab_stored_source(const struct lab *lab, const struct lab_model_info *model, const char *id, struct arena *arena,
                      struct lab_source_info *out, struct error *error) MUST_CHECK;

/* Those to be listed, by id: models with such sources, or that nobody has ever loaded; *out is [*n]. */
int lab_stored_models(const struct lab *lab, struct arena *arena, struct lab_model_info **out, size_t *n,
                      struct error *error) MUST_CHECK;

/* Of a model (stored or loaded), by layer and name. NULL: of all, by model. */
int lab_stored_sources(const struct lab *lab, const struct lab_model_info *model, struct arena *arena,
                       struct lab_source_info **out, size_t *n, struct error *error) MUST_CHECK;

/* ---- taking away what was registered and uploaded ---------------------------------------------------- */

/* From the store alone: no file that anybody named is ever touched. What is loaded stays, with all that is stored of it:
 * ERROR_CONFLICT. ERROR_BUSY: another deletion runs. Reading verbs do not find it any more when this returns. */

/* A model that is not loaded: its sets and sources with their features and explanations, its vectors. */
int lab_forget_model(struct lab *lab, const struct lab_model_info *model, struct error *error) MUST_CHECK;

/* A set of a stored or loaded model that was registered, uploaded or imported, with its sources. ERROR_NOT_FOUND (field "name"). */
int lab_forget_set(struct lab *lab, const struct lab_model_info *model, const char *set, struct error *error) MUST_CHECK;

/* A source that is known from the store alone (lab_stored_source). */
int lab_forget_source(struct lab *lab, const struct lab_source_info *source, struct error *error) MUST_CHECK;

/* ---- uploads ----------------------------------------------------------------------------------------- */

/* Adds features, or examples of one, that a client has counted: store_upload_features and store_upload_examples, once it is clear
 * that they may go there: to a source without a dictionary (lab_stored_source); to one with a dictionary only when `identity`
 * says that they were made for it, as imports do. ERROR_CONFLICT (field "identity") otherwise. */
int archive_upload_features(const struct lab *lab, const struct lab_source_info *source, const char *identity,
                            const struct store_feature *features, size_t n, bool *added, struct error *error) MUST_CHECK;
int archive_upload_examples(const struct lab *lab, const struct lab_source_info *source, const char *identity, uint32_t index,
                            const struct store_example *examples, size_t n, size_t *added, struct error *error) MUST_CHECK;

/* ---- one feature ------------------------------------------------------------------------------------ */

/* Everything known of a feature, as a job: at once when it is stored; else logits and neighbours are computed in the
 * engine's background and (with a store) kept. Field: "index". max_examples bounds the examples read. */
int lab_feature(struct lab *lab, const struct lab_source_info *source, int64_t index, size_t max_examples,
                struct lab_waker waker, struct lab_job **out, struct error *error) MUST_CHECK;

struct lab_feature {
  const struct lab_source_info *source;
  struct store_feature stored;          /* groups says which parts are there */
  struct store_statistics statistics;   /* of the source: conventions, n_tokens */
  float decoder_norm;                   /* n_f */
};
/* The result of a LAB_JOB_DONE feature job; owned by the job. What had to be computed is written to the store here, by the
 * calling thread. */
const struct lab_feature *lab_feature_result(struct lab_job *job);

/* What a feature reads and what it writes, in the arena: its column of W_enc in folded units [n_encoder], columns of source->point, and
 * its steering row [n_decoder], columns of source->point_out (of a cross-layer transcoder the sum of its rows). Field: "index". */
struct lab_feature_vectors {
  const float *encoder, *decoder;
  size_t n_encoder, n_decoder;
};
int lab_feature_vectors(const struct lab *lab, const struct lab_source_info *source, int64_t index, struct arena *arena,
                        struct lab_feature_vectors *out, struct error *error) MUST_CHECK;

/* The n (at most 128) features of `target` whose decoder rows are nearest to the decoder row of (source, index), or to vector
 * [n_vector] when it is not NULL; as a job. Fields: "index", "vector", "targetSourceId". Largest cosine first, lower index among equals; the
 * feature itself is one of them where source and target are the same. */
int lab_cossim(struct lab *lab, const struct lab_source_info *source, int64_t index, const float *vector, size_t n_vector,
               const struct lab_source_info *target, int n, struct lab_waker waker, struct lab_job **out,
               struct error *error) MUST_CHECK;
struct lab_neighbours {
  const uint32_t *indices;
  const float *cosines; /* [-1, 1] */
  size_t n;
};
const struct lab_neighbours *lab_cossim_result(const struct lab_job *job);

/* ---- Neuronpedia's dataset batches (docs/store.md) --------------------------------------------------- */

/* What was done so far, or is done. */
struct archive_progress {
  const char *file; /* where it is: "activations/batch-3.jsonl.gz"; NULL at the end */
  int64_t features, examples, explanations;
};
/* Called now and then; true stops the work (ERROR_CANCELLED). */
typedef bool (*archive_tell)(void *context, const struct archive_progress *progress);

struct archive_import_args {
  const char *folder;               /* holds features/, activations/, explanations/ with batch-N.jsonl[.gz], any of them; and,
                                       if it has them, source.jsonl and model.jsonl */
  const char *model_id, *source_id; /* where it goes; both NULL: where the lines say. The lines must agree with each other */
  archive_tell tell;                /* or NULL */
  void *context;
};

/* Reads a source's batches into the store, in transactions of bounded size: what a line has takes the place of what the
 * feature had; explanations are added unless the same one (feature, origin, type, model name, author, text) is there. Doing it
 * twice changes nothing more. How the statistics were made is written last: after a failure part of the rows is there, and the
 * source counts as without statistics if it was. A model or source that the store lacks is made from what the files say; one
 * that is there keeps its own description. U+0000 in a text becomes a space, as upstream's importer does.
 * ERROR_FORMAT or ERROR_LIMIT with file and line: a line that is no such row, another source's
 * row, a feature that the dictionary lacks, a damaged file; ERROR_ARGUMENT: made for another dictionary than the store's source;
 * ERROR_NOT_FOUND: nothing to read in the folder. */
int archive_import(struct store *store, const struct archive_import_args *args, struct archive_progress *done,
                   struct error *error) MUST_CHECK;

struct archive_export_args {
  const char *model_id, *source_id;
  const char *folder; /* made if it is not there; must not hold such files yet */
  int digits;         /* 0: every number exactly; 2..9: activations, logits and cosines rounded to so many significant digits,
                         for files of about four fifths of the size */
  archive_tell tell;  /* or NULL */
  void *context;
};

/* Writes everything the store has of a source in the layout above, 1,024 features a batch; importing it gives the same rows
 * (with digits 0, and -0 in a list as 0), and the same rows give the same bytes.
 * ERROR_NOT_FOUND: no such source; ERROR_ARGUMENT: the folder holds an export; ERROR_IO. */
int archive_export(struct store *store, const struct archive_export_args *args, struct archive_progress *done,
                   struct error *error) MUST_CHECK;

/* ---- long jobs -------------------------------------------------------------------------------------- */

/* Statistics of a source over a text. */
struct lab_stats_args {
  const char *model_id, *source_id;
  const char *corpus;    /* path of a UTF-8 text file the daemon may read */
  bool lines;            /* one document a line; else chunks of the context */
  int n_top;             /* top examples a feature, 0..100 */
  int n_quantile;        /* examples in each of the 8 activation intervals, 0..10 */
  int window;            /* tokens of an example at most, 8..256; the qualifying token lies 3/4 in */
  int64_t max_tokens;    /* stop after so many counted tokens; 0: the whole text */
  bool logits, neighbours, explain; /* which of the dictionary's tables to make too */
};
#define LAB_STATS_DEFAULTS {NULL, NULL, NULL, false, 20, 2, 64, 0, true, true, true}

/* Creates the job in the store and starts it; *id is its number. Jobs run one after the other in the engine's
 * background. A job that runs keeps its progress in the store and goes on where it was after a restart.
 * ERROR_UNSUPPORTED without a store; ERROR_NOT_FOUND / ERROR_ARGUMENT with field. */
int lab_stats_start(struct lab *lab, const struct lab_stats_args *args, int64_t *id, struct error *error) MUST_CHECK;

/* The same in the calling thread, for the command line: goes on with an unfinished job of the same arguments, else makes
 * one. `tell` is called a few times a second with the progress; when it returns true the job stops and can be resumed
 * (ERROR_CANCELLED). Only in a lab that was opened with run_jobs false. */
struct lab_progress;
int lab_stats_run(struct lab *lab, const struct lab_stats_args *args,
                  bool (*tell)(void *context, const struct lab_progress *progress), void *context,
                  struct error *error) MUST_CHECK;

/* ---- maps --------------------------------------------------------------------------------------------- */

#define LAB_MAP_WAITED 4096 /* features that are mapped while a request waits: a few seconds */

/* The map of one source: a row for each explanation of a feature, best first, and one for a feature without any; by index. */
struct lab_map {
  const struct lab_source_info *source;
  const struct store_map_row *rows;
  size_t n;
};

/* The maps of sources of one model, as a job: at once where the store has them; else computed in the engine's background and, with
 * a store, kept. Sources of the store alone too (lab_stored_source). ERROR_NOT_FOUND "layers[i]": there is no map, and those that
 * would have to be made have more than LAB_MAP_WAITED features in all (lab_map_start), or no dictionary. */
int lab_maps(struct lab *lab, const struct lab_source_info *const *sources, size_t n, struct lab_waker waker, struct lab_job **out,
             struct error *error) MUST_CHECK;
const struct lab_map *lab_maps_result(const struct lab_job *job); /* [n], in the order of sources */

struct lab_map_args {
  const char *model_id, *source_id;
  int64_t seed; /* >= 0: another one, another picture of the same neighbours */
  bool replace; /* a map that is there, imported ones too */
};

/* Creates the job and starts it, as lab_stats_start does. ERROR_CONFLICT "replace": there is a map; ERROR_LIMIT "source": too many
 * features (core/analysis/map.h). */
int lab_map_start(struct lab *lab, const struct lab_map_args *args, int64_t *id, struct error *error) MUST_CHECK;

/* The same in the calling thread, for the command line; `tell` as in lab_stats_run. Stopped, it keeps nothing of the map. */
int lab_map_run(struct lab *lab, const struct lab_map_args *args, bool (*tell)(void *context, const struct lab_progress *progress), void *context,
                struct error *error) MUST_CHECK;

/* ---- evaluations -------------------------------------------------------------------------------------- */

/* How well a source does over a text (core/analysis/evaluation.h). */
struct lab_eval_args {
  const char *model_id, *source_id;
  const char *corpus;   /* path of a UTF-8 text file the daemon may read */
  bool lines;           /* one document a line; else chunks of the context */
  bool ends;            /* the end of each document is predicted too */
  int64_t max_tokens;   /* stop after so many tokens; 0: the whole text */
};

/* Creates the job and starts it, as lab_stats_start does. Its figures go to the store (store_evaluation_list). */
int lab_eval_start(struct lab *lab, const struct lab_eval_args *args, int64_t *id, struct error *error) MUST_CHECK;

/* One layer of a cross-layer transcoder: its features, and the output of its layer, which all layers up to it write. */
struct lab_eval_layer {
  int layer;
  const char *source_id;
  int64_t n_features, n_dead;
  double l0, mse, explained, cosine, l2_ratio, bias; /* core/analysis/quality.h */
};

struct lab_eval_found {
  struct store_evaluation evaluation; /* of the source; of a layer of a cross-layer transcoder the cross-entropies are those of layers 0 to it
                                         replaced together */
  struct lab_eval_layer *layers;      /* [n_layers], the source's the last; NULL and 0 for others */
  size_t n_layers;
};

/* The same in the calling thread, for the command line, also without a store; texts of *out in the arena. `tell` as in
 * lab_stats_run. */
int lab_eval_run(struct lab *lab, const struct lab_eval_args *args,
                 bool (*tell)(void *context, const struct lab_progress *progress), void *context, struct arena *arena,
                 struct lab_eval_found *out, struct error *error) MUST_CHECK;

/* How a training run does: of its last step, and so far. */
struct lab_train_figures {
  double mse, sparsity, aux; /* parts of the loss (core/dict/train.h) */
  double l0, explained;
  int64_t dead, features;    /* silent for long, of so many */
  int64_t tokens;            /* rows trained on */
};

/* Progress of jobs, from the store plus the running job's latest figures. */
struct lab_progress {
  struct store_job job;   /* strings in the arena */
  double rate;            /* units a second now; 0 when it does not run */
  double seconds_left;    /* -1: not known */
  bool trains;            /* it is a training that runs and has made a step: */
  struct lab_train_figures training;
  const char *refusal;    /* why lab_long_job_resume would be refused, as things are now; NULL: it would not */
};
int lab_long_job(struct lab *lab, int64_t id, struct arena *arena, struct lab_progress *out,
                 struct error *error) MUST_CHECK; /* ERROR_NOT_FOUND */
int lab_long_jobs(struct lab *lab, struct arena *arena, struct lab_progress **out, size_t *n,
                  struct error *error) MUST_CHECK; /* newest first, at most 100 */
int lab_long_job_cancel(struct lab *lab, int64_t id, struct error *error) MUST_CHECK;
/* ERROR_CONFLICT: it could only fail again (its text is gone, its source not loaded, or both are as they were when it failed). */
int lab_long_job_resume(struct lab *lab, int64_t id, struct error *error) MUST_CHECK;

/* A waker that is called (any thread) whenever a long job's progress changes, at most a few times a second; for
 * event streams. Returns a handle for lab_unwatch; after that returns the waker is never called again. NULL without a
 * store, or when out of memory. */
struct lab_watch;
struct lab_watch *lab_watch(struct lab *lab, struct lab_waker waker);
void lab_unwatch(struct lab *lab, struct lab_watch *watch);

#endif
