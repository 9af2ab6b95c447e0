/* subject.c: the source and the text of a long job: named in its parameters, checked, kept, opened, recognised after a
 * restart. Knows nothing of what the job does with them. */
#include "core/lab/subject.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "core/lab/sources.h"

#define FAILURE_PART INT32_MAX /* of a job's state: far behind the parts that jobs number */
#define FAILURE_VERSION 1u
#define CHECKPOINT_MS 20000 /* at most so much work is lost, unless options say otherwise */

/* ---- parameters ---- */

int subject_in_range(const char *field, int64_t value, int64_t low, int64_t high, struct error *error) {
  if (value >= low && value <= high) return 0;
  if (high == INT64_MAX)
    return error_set_field(error, ERROR_ARGUMENT, field, "%s is %lld, allowed are %lld and more", field, (long long)value,
                           (long long)low);
  return error_set_field(error, ERROR_ARGUMENT, field, "%s is %lld, allowed are %lld to %lld", field, (long long)value,
                         (long long)low, (long long)high);
}

int subject_check(struct lab *lab, const struct lab_subject_args *args, const struct lab_source_info **info,
                  struct error *error) {
  const struct lab_model_info *model = lab_find_model(lab, args->model_id, error);
  if (!model || !(*info = lab_find_source(lab, model, args->source_id, "source", error))) return -1;
  if (!args->corpus || !*args->corpus)
    return error_set_field(error, ERROR_ARGUMENT, "corpus", "corpus is needed: the path of a UTF-8 text file");
  if (!path_is_file(args->corpus))
    return error_set_field(error, ERROR_NOT_FOUND, "corpus", "corpus '%.200s' is not a file that can be read", args->corpus);
  return subject_in_range("maxTokens", args->max_tokens, 0, INT64_MAX, error);
}

const char *subject_write(const struct lab_subject_args *args, const struct lab_source_info *info,
                          void (*more)(const void *context, struct json_writer *writer), const void *context,
                          struct arena *arena, struct error *error) {
  struct buffer text;
  struct json_writer w;
  buffer_init(&text, 0);
  jw_init(&w, &text);
  jw_open(&w, '{');
  jw_member_text(&w, "modelId", info->model_id);
  jw_member_text(&w, "source", info->id);
  jw_member_text(&w, "corpus", args->corpus);
  jw_member_bool(&w, "lines", args->lines);
  jw_member_int(&w, "maxTokens", args->max_tokens);
  more(context, &w);
  jw_close(&w, '}');
  char *copy = buffer_check(&text, error) == 0 ? arena_text(arena, text.data, text.length, error) : NULL;
  buffer_clear(&text);
  return copy;
}

int subject_read(struct lab_subject *subject, const char *text, struct error *error) {
  const struct json_node *p = subject->parameters = json_parse(text, strlen(text), 8, error);
  if (!p) return error_prefix(error, "the job's parameters");
  subject->args = (struct lab_subject_args){.model_id = json_text_or(json_get(p, "modelId"), ""),
                                            .source_id = json_text_or(json_get(p, "source"), ""),
                                            .corpus = json_text_or(json_get(p, "corpus"), ""),
                                            .lines = json_bool_or(json_get(p, "lines"), false),
                                            .max_tokens = json_int_or(json_get(p, "maxTokens"), 0)};
  return 0;
}

/* ---- what it holds ---- */

/* Zeros for a file that is not there. */
static void stamp_file(const char *path, struct subject_stamp *out) {
  struct stat about;
  memset(out, 0, sizeof *out);
  if (stat(path, &about) == 0)
    *out = (struct subject_stamp){about.st_size, about.st_mtim.tv_sec, about.st_mtim.tv_nsec};
}

int subject_keep(struct lab_subject *subject, struct error *error) {
  struct lab_lease lease;
  lab_lease_begin(subject->lab, &lease);
  int failed = subject_check(subject->lab, &subject->args, &subject->info, error);
  if (!failed) {
    subject->source = lab_source_of(subject->lab, subject->info);
    subject->opened = lab_model_of_source(subject->lab, subject->info);
    stamp_file(subject->args.corpus, &subject->stamp);
    source_pin(subject->lab, subject->source);
  }
  lab_lease_end(subject->lab, &lease);
  return failed;
}

static bool stop_reading(void *context) { return subject_stopping(context); }

/* A text of lines that are shorter than where a slice begins has no position to count. */
static int check_counted(struct lab_subject *subject, struct error *error) {
  size_t most = (size_t)subject_context(subject);
  int32_t *ids = malloc(most * sizeof *ids), counted = 0;
  uint8_t *mask = malloc(most);
  int failed = ids && mask ? 0 : error_memory(error, most * sizeof *ids);
  for (int64_t d = 0; !failed && !counted && d < corpus_documents(subject->corpus) && !subject_stopping(subject); d++) {
    corpus_ids(subject->corpus, d, ids);
    counted = positions_mark(&dict_info(subject->source->dict)->positions, ids, corpus_length(subject->corpus, d), mask);
  }
  free(ids);
  free(mask);
  if (failed || counted || subject_stopping(subject)) return failed;
  return error_set_field(error, ERROR_ARGUMENT, "corpus", "'%s' has no position on which '%s' is read (its seqposSlice and excludedTokens say "
                         "where): nothing was counted or replaced", subject->args.corpus, subject->info->id);
}

int subject_open_corpus(struct lab_subject *subject, struct error *error) {
  struct corpus_options options = {.lines = subject->args.lines, .context = subject_context(subject),
                                   .bos = dict_info(subject->source->dict)->prepend_bos,
                                   .max_tokens = subject->args.max_tokens, .stop = stop_reading, .stop_context = subject};
  subject->running->report(subject->running, 0, 0, "tokens", "reading the text");
  subject->corpus = corpus_open(subject->args.corpus, subject->opened->model->tokenizer, &options, error);
  if (subject->corpus && corpus_tokens(subject->corpus) == 0)
    return error_set_field(error, ERROR_ARGUMENT, "corpus", "'%s' has no tokens: nothing was counted or replaced",
                           subject->args.corpus);
  return subject->corpus ? check_counted(subject, error) : -1;
}

void subject_close(struct lab_subject *subject) {
  corpus_close(subject->corpus);
  json_free(subject->parameters);
  if (subject->source) source_unpin(subject->lab, subject->source);
}

/* ---- what follows from it ---- */

int64_t subject_context(const struct lab_subject *subject) {
  int64_t model = subject->opened->model->arch.n_ctx, dict = dict_info(subject->source->dict)->context;
  return dict > 0 && dict < model ? dict : model;
}

bool subject_stopping(const struct lab_subject *subject) { return subject->running->stopping(subject->running); }

int64_t subject_checkpoint_ns(const struct lab_subject *subject) {
  int64_t ms = subject->lab->options.checkpoint_ms;
  return (ms ? ms : CHECKPOINT_MS) * 1000000;
}

const char *subject_corpus_name(const struct lab_subject *subject) {
  const char *slash = strrchr(subject->args.corpus, '/');
  return slash ? slash + 1 : subject->args.corpus;
}

static void identify_dictionary(const struct lab_subject *subject, const char *print, char out[24]) {
  const struct model *model = subject->opened->model;
  int n = snprintf(out, 24, "%s %d%s", print, (int)subject->lab->keep, model->processed ? " p" : "");
  if (model->keep != DTYPE_OTHER) snprintf(out + n, 24 - (size_t)n, "k%x", (unsigned)model->keep); /* one digit: it just fits */
}

void subject_identify(const struct lab_subject *subject, struct subject_identity *out) {
  char print[17];
  dict_fingerprint(subject->source->dict, print);
  memset(out, 0, sizeof *out);
  snprintf(out->corpus, sizeof out->corpus, "%s", corpus_identity(subject->corpus));
  identify_dictionary(subject, print, out->dictionary);
}

int subject_is(const struct lab_subject *subject, const struct subject_identity *saved, struct error *error) {
  struct subject_identity now;
  subject_identify(subject, &now);
  if (memcmp(saved->corpus, now.corpus, sizeof now.corpus) != 0)
    return error_set(error, ERROR_ARGUMENT, "'%s' has changed since the job began; start a new job", subject->args.corpus);
  if (memcmp(saved->dictionary, now.dictionary, sizeof now.dictionary) != 0)
    return error_set(error, ERROR_ARGUMENT, "the dictionary '%s' is another one than when the job began; start a new job",
                     subject->info->id);
  return 0;
}

/* ---- after a failure ---- */

/* What the job met when it failed. Plain bytes, compared as they are. */
struct saved_failure {
  uint32_t version, zero;
  struct subject_stamp corpus;
  char dictionary[24];
};

static void describe_failure(const struct lab_subject *subject, const struct subject_stamp *corpus, struct saved_failure *out) {
  memset(out, 0, sizeof *out);
  out->version = FAILURE_VERSION;
  out->corpus = *corpus;
  identify_dictionary(subject, subject->source->print, out->dictionary);
}

void subject_keep_failure(const struct lab_subject *subject, const struct error *why) {
  struct error error = ERROR_INIT;
  struct saved_failure failure;
  bool lasting = why->code == ERROR_ARGUMENT || why->code == ERROR_FORMAT;
  if (!lasting || !subject->source || !subject->lab->store || !subject->running->id) return;
  describe_failure(subject, &subject->stamp, &failure);
  struct store_job_part part = {FAILURE_PART, &failure, sizeof failure};
  struct store_batch batch = {.source = subject->source->store_id, .job = subject->running->id, .parts = &part, .n_parts = 1};
  if (store_batch_put(subject->lab->store, &batch, &error) != 0)
    log_error("why job %lld failed could not be kept: %s", (long long)subject->running->id, error.text);
}

/* The subject's source is found, and nothing of it is pinned. */
static int check_failure(struct lab_subject *subject, int64_t id, struct error *error) {
  struct arena arena;
  struct subject_stamp stamp;
  struct saved_failure now;
  const void *saved;
  size_t bytes;
  subject->source = lab_source_of(subject->lab, subject->info);
  subject->opened = lab_model_of_source(subject->lab, subject->info);
  stamp_file(subject->args.corpus, &stamp);
  describe_failure(subject, &stamp, &now);
  subject->source = NULL;
  arena_init(&arena, 0);
  int found = store_job_part(subject->lab->store, id, FAILURE_PART, &arena, &saved, &bytes, error);
  bool same = found > 0 && bytes == sizeof now && memcmp(saved, &now, sizeof now) == 0;
  arena_clear(&arena);
  if (found < 0) return -1;
  return same ? error_set(error, ERROR_ARGUMENT, "its text and its dictionary are those that it failed on; start a new job") : 0;
}

int subject_may_go_on(struct lab_subject *subject, const struct store_job *job, struct error *error) {
  if (subject_check(subject->lab, &subject->args, &subject->info, error) != 0) return -1;
  return job->state == STORE_FAILED ? check_failure(subject, job->id, error) : 0;
}
