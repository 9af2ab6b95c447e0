/* subject.h: what a long job is about: one source and one text. Private to core/lab/. */
#ifndef STEERD_CORE_LAB_SUBJECT_H
#define STEERD_CORE_LAB_SUBJECT_H

#include "core/analysis/corpus.h"
#include "core/base/arena.h"
#include "core/base/json.h"
#include "core/base/json_writer.h"
#include "core/lab/runner.h"

struct lab_subject_args {
  const char *model_id, *source_id;
  const char *corpus; /* a path */
  bool lines;
  int64_t max_tokens; /* 0: the whole text */
};

/* A file as it was looked at: the same numbers, the same text. */
struct subject_stamp {
  int64_t bytes, seconds, nanoseconds; /* when it changed last */
};

struct lab_subject {
  struct lab_running *running;
  struct lab *lab;
  struct lab_subject_args args;      /* texts in `parameters`, or the caller's */
  struct json_node *parameters;      /* NULL where the arguments came from a caller */
  const struct lab_source_info *info;
  struct lab_source *source;         /* pinned */
  struct lab_model *opened;
  struct corpus *corpus;
  struct subject_stamp stamp;        /* of the text, before it was read */
};

/* Against what is loaded; *info is the source's. ERROR_NOT_FOUND / ERROR_ARGUMENT with field. */
int subject_check(struct lab *lab, const struct lab_subject_args *args, const struct lab_source_info **info,
                  struct error *error) MUST_CHECK;

/* value in [low, high], else ERROR_ARGUMENT of that field. */
int subject_in_range(const char *field, int64_t value, int64_t low, int64_t high, struct error *error) MUST_CHECK;

/* The JSON text of a job's parameters in the arena: the subject's, then what `more` writes. NULL with an error. */
const char *subject_write(const struct lab_subject_args *args, const struct lab_source_info *info,
                          void (*more)(const void *context, struct json_writer *writer), const void *context,
                          struct arena *arena, struct error *error) MUST_CHECK;

/* Parses such a text into parameters and args; the job reads the rest of it there. */
int subject_read(struct lab_subject *subject, const char *text, struct error *error) MUST_CHECK;

/* Checks again and keeps the source, and no other one: the job may take hours. */
int subject_keep(struct lab_subject *subject, struct error *error) MUST_CHECK;

/* Reads the text, which takes a while and is done again after a restart. ERROR_ARGUMENT where no position of it counts. */
int subject_open_corpus(struct lab_subject *subject, struct error *error) MUST_CHECK;

int64_t subject_context(const struct lab_subject *subject);     /* tokens of a document at most */
bool subject_stopping(const struct lab_subject *subject);
int64_t subject_checkpoint_ns(const struct lab_subject *subject);  /* how often a job keeps its state */
const char *subject_corpus_name(const struct lab_subject *subject); /* without its folders */

/* What a saved state belongs to: the text as it is cut; what the dictionary computes, how its encoder is kept, and whether the
 * model it reads is processed. Plain bytes, compared as they are. */
struct subject_identity {
  char corpus[24], dictionary[24];
};
void subject_identify(const struct lab_subject *subject, struct subject_identity *out);
/* ERROR_ARGUMENT naming what is another one now. */
int subject_is(const struct lab_subject *subject, const struct subject_identity *saved, struct error *error) MUST_CHECK;

/* A job that failed at what its text, its dictionary or its saved state is fails again as long as those are the same: kept beside
 * its state. Other failures (a full disk, too little memory) may pass, and nothing is kept of them. */
void subject_keep_failure(const struct lab_subject *subject, const struct error *why);

/* Whether a job could go on, by what is loaded, its text and what is known of its failure; reads neither text nor dictionary.
 * The subject was read from the job's parameters. ERROR_NOT_FOUND / ERROR_ARGUMENT. Under the caller's lease. */
int subject_may_go_on(struct lab_subject *subject, const struct store_job *job, struct error *error) MUST_CHECK;

/* Everything it holds; a subject of zeros is fine. */
void subject_close(struct lab_subject *subject);

#endif
