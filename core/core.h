/* core.h: the front door of the house: one verb for each thing a visitor can ask for.
 *
 * A lab holds models, their dictionaries ("sources"), the engine and the store. Everything a request needs is
 * a plain struct in, a plain struct out; nothing of tensors, sockets or SQL shows. All functions may be
 * called from any thread. Errors are for clients: the text says what was found and what is allowed, `field`
 * names the request field where one is at fault (as spelled in these structs' comments). */
#ifndef STEERD_CORE_CORE_H
#define STEERD_CORE_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/arena.h"
#include "core/base/buffer.h"
#include "core/base/error.h"

struct lab;

/* ---- opening ---------------------------------------------------------------------------------------- */

struct lab_model_spec {
  const char *id;   /* "gpt2-small"; NULL: as the table of names calls it, else the last part of its path */
  const char *path; /* Hugging Face folder, an ini that describes a model, or a name that is looked for in the Hugging
                     * Face cache; "?process" or "?q8" behind it (core/model/model_find.h) */
};
struct lab_source_spec {
  const char *model_id, *source_id; /* "gpt2-small", "7-res-jb" */
  const char *path;                 /* dictionary folder or file, an ini, or a published name (core/dict/dict_find.h); for
                                       lab_source_load NULL: the name MODEL/SOURCE */
};
struct lab_options {
  const struct lab_model_spec *models;
  size_t n_models;
  const struct lab_source_spec *sources;
  size_t n_sources;
  const char *store;        /* SQLite file; NULL or "": nothing is kept */
  const char *holder;       /* who holds the store, for others that find it taken: "serve", "stats" */
  bool run_jobs;            /* run long jobs in the background (core/archive.h) */
  bool set_aside;           /* a damaged store is renamed and a new one begun (core/store/store.h); else it is refused */
  bool load_statistics;     /* a source whose folder holds statistics/ (docs/store.md) and of which the store has none: import
                               them when opening; a failure is a warning in the log */
  int checkpoint_ms;        /* a long job keeps its state at least this often; 0: every 20 s */
  const char *aliases;      /* file of names of models (core/model/model_names.h), NULL: none */
  const char *releases;     /* file of names of dictionaries (core/dict/releases.h), NULL: none */
  const char *backend;      /* see backend_open; NULL: "auto" */
  int threads;              /* compute threads; 0 = processors this process may use */
  int max_queue;            /* requests waiting for the engine */
  int max_step_rows;        /* rows computed together at most: bounds the wait between two tokens */
  int max_sessions;         /* sequences running at once */
  size_t kv_bytes;          /* memory for keys and values of all sessions of a model; 0 = chosen by model */
  int queue_timeout_ms;     /* longest wait in the queue */
  int generation_timeout_ms; /* longest generation */
  bool prefix_cache;        /* prompts that begin as earlier ones did are read from there on; changes no answer */
  bool self_test;           /* dictionaries run over a short text when they are loaded, and are warned about when far off */
  size_t dict_budget;       /* bytes that prepared encoders of dictionaries may take; 0: no limit */
  const char *dict_dtype;   /* how they are kept: "f32", "f16", "bf16"; "file" or NULL: as their files have them */
  const char *const *folders; /* from which lab_source_load takes dictionaries, besides those of `sources` */
  size_t n_folders;
  const char *train_folder;   /* where training jobs put dictionaries: an existing folder; NULL: nowhere */
};

/* Loads everything; NULL with an error naming file and tensor. May take seconds. */
struct lab *lab_open(const struct lab_options *options, struct error *error) MUST_CHECK;
void lab_close(struct lab *lab); /* cancels what runs; NULL is fine */

/* Stops admitting work: verbs that need the engine answer ERROR_BUSY. Running work goes on. */
void lab_drain(struct lab *lab);

/* ---- what is here ----------------------------------------------------------------------------------- */

#define LAB_OPEN INT64_MIN

struct lab_source_info {
  const char *id;          /* "7-res-jb" */
  const char *set;         /* "res-jb" */
  const char *model_id;
  const char *kind;        /* "relu", "topk", "jumprelu skip transcoder": for people */
  const char *point;       /* TransformerLens name it reads: "blocks.7.hook_resid_pre" */
  const char *point_out;   /* where it writes; the same for an SAE; the first of them for a layer of a cross-layer transcoder */
  const char *point_last;  /* the last of them; NULL where there is one */
  int layer;
  int64_t n_feat, d_in;
  bool folded;             /* activations are in folded units (raw * norm of the decoder row) */
  bool bos_counts;         /* whether the BOS position belongs to statistics and answers */
  const int64_t *seqpos_slice; /* [3] Python's start, stop and step over a context, LAB_OPEN for None: of which positions statistics and
                                  evaluations are; NULL: of all */
  const int32_t *excluded;     /* [n_excluded] token ids that neither has, ascending */
  size_t n_excluded;
  bool promotes;           /* its rows reach the logits by themselves: not so queries, keys and values */
  size_t bytes;            /* mapped, and kept beside the encoder */
  bool counted;            /* of a stored one: somebody has said how its numbers were made (folded, bos_counts) */
  int64_t stored;          /* the store's number of one that is known from the store alone (lab_stored_source); 0: it is loaded */
};
struct lab_model_info {
  const char *id;
  const char *display_name; /* the id, unless it was registered with another */
  const char *website;      /* or NULL */
  bool stored;              /* known from the store alone (lab_stored_model): nothing can be computed with it */
  const char *family;      /* docs/models.md: "gpt2", "llama", "workshop" */
  const char *path;
  const char *dtype;       /* of the weights in the file */
  const char *kept;        /* of the matrices in memory */
  int n_layer, n_head, n_kv_head;
  int64_t d_model, d_mlp, n_ctx, vocabulary;
  int64_t parameters;
  size_t weight_bytes;
  bool prepends_bos;
  const char *chat_format; /* of its chat template: "chatml", ...; NULL: there is none, or it is not known */
  bool processed; /* gains folded, weights centred (docs/models.md) */
};

size_t lab_models(const struct lab *lab, const struct lab_model_info **out); /* borrowed, lives as the lab */

/* LEASES. Sources come and go while requests run. A lease is what keeps the descriptions below, and the dictionaries behind
 * them, in place: whoever asks for them holds one, from before the first question until the last answer is no longer used. A
 * source that is unloaded is found no more at once; it is freed when every lease has ended that is older than that. Every
 * lab_job holds one of its own. A lease costs two short locks; one that is held for long delays the freeing of every source that
 * is unloaded meanwhile. */
struct lab_lease {
  struct lab_lease *older, *newer; /* private */
  uint64_t number;
};
void lab_lease_begin(struct lab *lab, struct lab_lease *lease);
void lab_lease_end(struct lab *lab, struct lab_lease *lease); /* one that never began is fine, when zeroed */

/* The sources of a model as they are now, in the order they were loaded in: how many, and *out their descriptions, which
 * live as long as the caller's lease. */
size_t lab_sources(const struct lab *lab, const struct lab_model_info *model, const struct lab_source_info *const **out);

/* By id or alias; id NULL or "" finds the only model. NULL with ERROR_NOT_FOUND (field "modelId"; names what
 * is loaded) or ERROR_ARGUMENT (several are loaded, so the id is needed). */
const struct lab_model_info *lab_find_model(const struct lab *lab, const char *id, struct error *error) MUST_CHECK;

/* NEURONS. A bare layer number ("7") is a source of every model that has an MLP, loaded with it and in no list: the neurons of that
 * layer (DICT_NEURONS of core/dict/dict.h), raw activations at mlp.hook_post, whose set is called: */
#define LAB_NEURONS "neurons"

/* NULL with ERROR_NOT_FOUND (field `field`, e.g. "features[0].layer"): names the nearest source. */
const struct lab_source_info *lab_find_source(const struct lab *lab, const struct lab_model_info *model,
                                              const char *id, const char *field, struct error *error) MUST_CHECK;

/* The sources of a set of the model, LAB_NEURONS too, lowest layer first: *out in the arena, descriptions under the caller's lease.
 * No such set: *n is 0. */
int lab_source_set(const struct lab *lab, const struct lab_model_info *model, const char *set, struct arena *arena,
                   const struct lab_source_info ***out, size_t *n, struct error *error) MUST_CHECK;

/* Counts as a use of it now, as finding it does (lab_source_status.used_at). */
void lab_source_used(const struct lab *lab, const struct lab_source_info *source);

struct lab_stats {
  bool ready, draining;
  bool lost; /* the compute device has failed for good: nothing but starting again helps */
  const char *backend;
  int threads;
  int queued, running;           /* requests waiting / sequences in the batch */
  int max_queue, max_sessions;
  int64_t requests_done, requests_failed, requests_cancelled;
  int64_t prompt_tokens, spared_tokens, new_tokens; /* spared: of prompts, remembered and not read again */
  int64_t steps, step_rows;      /* steps run and rows computed in them */
  double busy_seconds;           /* time inside steps */
  double mean_service_seconds;   /* of recent requests: for Retry-After */
  double still_seconds;          /* since the worker last went on, though it has work; 0: it has none */
  size_t kv_bytes, kv_used_bytes;
  size_t dict_budget, dict_encoder_bytes;       /* 0: no limit; of encoders prepared now */
  int64_t dict_encoders_prepared, dict_encoders_dropped; /* how often */
};
void lab_stats(const struct lab *lab, struct lab_stats *out);

/* ---- tokens ----------------------------------------------------------------------------------------- */

struct lab_tokens {
  int32_t *ids;
  char **texts;        /* each token decoded alone, valid UTF-8 (U+FFFD for parts of characters) */
  bool *special;
  size_t count;
  bool bos;            /* ids[0] is a BOS that was put in front or stood there */
};

/* BOS in front, where the model has one. DEFAULT: as the model's tokenizer does by itself in lab_tokenize; YES in verbs that run a text. */
enum lab_bos { LAB_BOS_DEFAULT, LAB_BOS_YES, LAB_BOS_NO };

/* text: valid UTF-8; it may be longer than the model's context. Result in the arena. Errors: ERROR_ARGUMENT (field
 * "text"), ERROR_MEMORY, ERROR_LIMIT (the arena's). */
int lab_tokenize(const struct lab *lab, const struct lab_model_info *model, const char *text, size_t length,
                 enum lab_bos bos, struct arena *arena, struct lab_tokens *out, struct error *error) MUST_CHECK;

/* ---- jobs: work for the engine ---------------------------------------------------------------------- */

/* Every verb below that takes a waker starts a job and returns at once. `wake` is called from a thread of the lab (the
 * engine's, the loader's) whenever something new can be read and once when the job has ended; it must only note and
 * schedule. A job has two owners, the caller and the lab; lab_job_free gives the caller's share back (and cancels), after
 * which wake is never called again. */
struct lab_job;
struct lab_waker {
  void (*wake)(void *context);
  void *context;
  uint64_t owner; /* whoever asks: jobs of different owners take turns (engine.h); 0: nobody in particular */
};

enum lab_job_state { LAB_JOB_WAITING, LAB_JOB_RUNNING, LAB_JOB_DONE, LAB_JOB_FAILED };
enum lab_job_state lab_job_state(const struct lab_job *job);
void lab_job_error(const struct lab_job *job, struct error *out); /* copies; meaningful when FAILED */
void lab_job_cancel(struct lab_job *job);                         /* stops within one step */
void lab_job_free(struct lab_job *job);                           /* NULL is fine */
void lab_job_usage(const struct lab_job *job, int64_t *prompt_tokens, int64_t *new_tokens);

/* ---- sources that come and go ------------------------------------------------------------------------- */

enum lab_source_state {
  LAB_SOURCE_LOADING,
  LAB_SOURCE_READY,
  LAB_SOURCE_UNLOADING /* found no more, but somebody who found it before is still at work with it */
};
const char *lab_source_word(enum lab_source_state state); /* "loading", ... */

struct lab_source_status {
  const char *model_id, *source_id, *path;
  enum lab_source_state state;
  const struct lab_source_info *info; /* NULL unless it is ready */
  size_t bytes;                       /* mapped and kept beside the encoder; 0 while it is loading */
  size_t encoder_bytes;               /* of the prepared encoder; 0 while it is not: the next use prepares it */
  int64_t used_at;                    /* seconds since 1970 when a request named it last; 0: never */
};
/* All of them, texts in the arena, infos under the caller's lease. */
int lab_source_list(struct lab *lab, struct arena *arena, struct lab_source_status **out, size_t *n,
                    struct error *error) MUST_CHECK;

/* What a dictionary did over a short built-in text when it was loaded (lab_options.self_test). */
struct lab_source_check {
  enum { LAB_CHECK_NONE, LAB_CHECK_WANTED, LAB_CHECK_DONE, LAB_CHECK_FAILED } state;
  int64_t tokens;        /* counted positions */
  double l0;             /* features that fire at a token */
  double promised_l0;    /* what its configuration says (k, or what its makers measured); 0: nothing */
  double explained;      /* explained variance (core/analysis/quality.h) */
  char text[256];        /* DONE: what is far off, "" when nothing is. FAILED: why it did not run */
};
void lab_source_check(const struct lab *lab, const struct lab_source_info *source, struct lab_source_check *out);

/* Loads a dictionary as a job; nobody waits for it. path: absolute, or relative to one of the allowed folders
 * (lab_options.folders, those of lab_options.sources); a link is followed and what it leads to must be inside too. Or a
 * published name, which is looked for in those folders and in the Hugging Face cache; files of the cache are read for
 * names alone, and links do not lead out of it.
 * ERROR_CONFLICT (field "source") when it is loaded or being loaded, ERROR_ARGUMENT (fields "source", "path"),
 * ERROR_NOT_FOUND (fields "modelId", "path": no such name, with the nearest, or not on this machine). */
int lab_source_load(struct lab *lab, const struct lab_source_spec *spec, struct lab_waker waker, struct lab_job **out,
                    struct error *error) MUST_CHECK;
const struct lab_source_info *lab_source_load_result(const struct lab_job *job); /* of a LAB_JOB_DONE one */

/* From here on nobody finds it. ERROR_NOT_FOUND when somebody else was faster. */
int lab_source_unload(struct lab *lab, const struct lab_source_info *source, struct error *error) MUST_CHECK;

/* ---- steer ------------------------------------------------------------------------------------------ */

enum lab_steer_method { LAB_STEER_ADD, LAB_STEER_ORTHOGONAL, LAB_STEER_CAP };

struct lab_steer_feature {
  const char *source_id; /* "7-res-jb"; "6-neuronpedia-resid-pre": a vector of the store */
  int64_t index;
  double strength;       /* times strength_multiplier = L2 length of what is added (or c of the method) */
};

enum { LAB_STEERED, LAB_DEFAULT, LAB_STEER_OUTPUTS };

struct lab_edit; /* core/laboratory.h */

/* What a text is steered with. */
struct lab_steering {
  const struct lab_steer_feature *features;
  size_t n_features;
  const struct lab_edit *vectors; /* [n_vectors] after the features: edits that a request may write in short */
  size_t n_vectors;
  const struct lab_edit *edits; /* [n_edits] after those */
  size_t n_edits;
  enum lab_steer_method method;
  double strength_multiplier;
  bool unit;                /* each row that a feature adds is brought to length 1 (where folding is on it has it) */
  bool special_tokens;      /* false: features leave special tokens of the prompt (BOS) alone */
  const char *prefix;       /* in front of fields in errors: "" or "steering." */
  const char *source_field; /* what a feature's source is called there: "layer" or "source" */
};

struct lab_steer_args {
  const struct lab_model_info *model;
  const char *prompt;     /* valid UTF-8 */
  size_t prompt_length;
  enum lab_bos bos;       /* in front of the prompt */
  const struct lab_steer_feature *features; /* none: STEERED equals DEFAULT */
  size_t n_features;
  const struct lab_edit *edits; /* [n_edits] of STEERED, after the features */
  size_t n_edits;
  enum lab_steer_method method;
  double strength_multiplier;
  bool want[LAB_STEER_OUTPUTS]; /* which outputs to make; at least one */
  bool steer_special_tokens;    /* false: special tokens of the prompt (BOS) are not edited */
  int64_t n_tokens;             /* most tokens to generate, >= 1 */
  double temperature;           /* 0: greedy */
  int64_t top_k;                /* 0: all */
  double top_p;                 /* 1: all */
  double frequency_penalty;     /* logit -= penalty * count among generated tokens */
  int64_t seed;
  int n_logprobs;               /* most likely tokens to report with each token; -1: none at all */
  bool look_ahead;              /* one token more is drawn, which is not in the text: its log-probabilities say what was expected behind the last */
};

/* Fields named in errors: "prompt", "features[i].layer", "features[i].index", "n_tokens", "seed". */
int lab_steer(struct lab *lab, const struct lab_steer_args *args, struct lab_waker waker, struct lab_job **out,
              struct error *error) MUST_CHECK;

struct lab_logprob {
  const char *token;       /* decoded alone */
  float logprob;           /* natural logarithm of the model's probability: temperature 1, no penalty, no filter */
  const struct lab_logprob *top; /* most likely first; n_top of them, their own top is NULL */
  int n_top;
};
struct lab_generated {
  char *text;              /* generated text only, whole characters, no EOS text */
  size_t length;
  const char *finish;      /* "stop" (EOS), "length", "timeout"; NULL while it runs */
  int64_t n_tokens;        /* with look_ahead that token too */
  struct lab_logprob *logprobs; /* [n_logprob_tokens], when asked for */
  size_t n_logprob_tokens;
};

/* A consistent copy of one output as it is now, into the arena: works while running and when done. An output
 * that was not wanted has text NULL. Once LAB_JOB_DONE it is complete. */
int lab_steer_read(struct lab_job *job, int output, struct arena *arena, struct lab_generated *out,
                   struct error *error) MUST_CHECK;

/* ---- activations ------------------------------------------------------------------------------------ */

enum lab_activation_form {
  LAB_ONE_FEATURE,   /* one source, one index: its value at every token */
  LAB_TOP_BY_TOKEN,  /* one source: the strongest features at every token */
  LAB_ALL_BY_TOKEN,  /* one source: every feature that fires, at every token */
  LAB_TOP_OVER_TEXT  /* one or more sources: the strongest features over the whole text */
};

struct lab_text {
  const char *text; /* valid UTF-8 */
  size_t length;
};
struct lab_activations_args {
  const struct lab_model_info *model;
  enum lab_activation_form form;
  const char *const *source_ids;
  size_t n_sources;
  int64_t index;             /* LAB_ONE_FEATURE */
  const struct lab_text *texts;
  size_t n_texts;
  int n_results;             /* top features per token or over the text; at least 1, without a meaning for ALL_BY_TOKEN */
  enum lab_bos ignore_bos;   /* YES: the BOS position is left out; NO: it is shown (value 0 where the source does
                                not count it); DEFAULT: left out unless the source counts it */
  enum lab_bos bos_values;   /* of a BOS position that is shown. DEFAULT: 0 where the source does not count it; NO: 0; YES: what
                                comes out, whatever the source counts */
  bool silent;               /* as many results as are asked for: features that do not fire stand behind the others with 0, lower
                                source and index first */
  bool origins;              /* LAB_ONE_FEATURE, LAB_TOP_OVER_TEXT: also lab_feature_values.origins */
  double most_density;       /* in (0, 1): features known to fire at a larger share of positions are passed over; else: none */
  const int64_t *sort_positions; /* LAB_TOP_OVER_TEXT: rank by the sum of the values at these token positions */
  size_t n_sort_positions;       /* 0: rank by maximum. Positions count in the tokens shown; one named twice counts twice */
  const char *text_field, *sort_field, *count_field; /* static: what they are called in errors; NULL: "text", "sortIndexes",
                                                        "numResults" */
};

/* Fields: "source", "index", "text" or "text[i]", "sortIndexes[i]", "numResults". */
int lab_activations(struct lab *lab, const struct lab_activations_args *args, struct lab_waker waker,
                    struct lab_job **out, struct error *error) MUST_CHECK;

struct lab_feature_values {
  const struct lab_source_info *source;
  int64_t index;
  const float *values;   /* [n_tokens], folded units */
  float max, sum;        /* sum over sort_positions (0 without) */
  int64_t max_position;  /* first maximum */
  const float *origins;  /* [n_tokens] what each token's value vectors add to the pre-activation at max_position; NULL: not
                            asked for, or the source does not read what the heads bring together */
  float origins_max;
};
struct lab_token_feature {
  int64_t index;
  float value;
};
struct lab_text_activations {
  size_t n_tokens;
  const char *const *tokens; /* decoded alone, valid UTF-8 */
  const int32_t *ids;
  const bool *special;
  int64_t position_offset;   /* position of tokens[0] in the full prompt: 1 when BOS was left out */
  const struct lab_feature_values *features; /* ONE_FEATURE: 1; TOP_OVER_TEXT: n_features, best first */
  size_t n_features;
  const struct lab_token_feature *const *top; /* TOP_BY_TOKEN: [n_tokens][n_top[t]], strongest first, > 0;
                                               * ALL_BY_TOKEN: in the order of their indices, > 0 */
  const int *n_top;
};
/* The result of a LAB_JOB_DONE activations job, one entry per text; owned by the job. */
const struct lab_text_activations *lab_activations_result(const struct lab_job *job, size_t *n_texts);

#endif
