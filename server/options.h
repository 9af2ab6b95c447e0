/* options.h: the one table of settings.
 *
 * A row says a setting's name, kind, default, range, unit, meaning and where its value goes. The same rows
 * read the INI file, the environment and the command line, print `steerd help serve` and `steerd config`,
 * and word every complaint about a bad value. Adding a setting is one row, one field, one stanza in
 * config/steerd.ini (a test compares them). */
#ifndef STEERD_SERVER_OPTIONS_H
#define STEERD_SERVER_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/base/arena.h"
#include "core/base/error.h"

struct option_list {
  const char **items;
  size_t count;
};

/* Values after all layers; texts live in `arena`. Durations are milliseconds, sizes bytes unless named. */
struct options {
  struct arena arena;
  struct option_list listen, model, source, source_folders, hosts, cors_origins, keys;
  const char *store, *aliases, *releases, *static_folder, *device, *log_format, *log_level, *dict_dtype;
  int64_t dict_budget, threads, max_queue, max_step_rows, max_sessions, kv_mib;
  int64_t queue_timeout, generation_timeout;
  int64_t max_body, max_batch_body, max_store, max_json_depth, max_result, max_held, rate, reply_cache, max_features, max_texts, max_new_tokens,
      max_prompt_chars;
  int64_t max_headers_bytes, max_header_count, max_connections, max_connections_per_address, http_threads, min_send_rate;
  int64_t header_timeout, body_timeout, idle_timeout, stall_timeout, drain_timeout, stuck_timeout;
  bool insecure, core_dumps, self_test, set_aside, deterministic, prefix_cache;
};

enum option_kind {
  OPTION_TEXT,    /* const char * */
  OPTION_CHOICE,  /* const char *, one of `choices` */
  OPTION_INT,     /* int64_t in [min, max] */
  OPTION_SECONDS, /* text in seconds ("0.5"), int64_t in milliseconds; min and max in milliseconds */
  OPTION_FLAG,    /* bool: yes or no */
  OPTION_LIST     /* struct option_list; items are separated by commas, "\," is a comma inside an item */
};

struct option {
  const char *name; /* "max_body": also --max-body and STEERD_MAX_BODY */
  const char *group;
  enum option_kind kind;
  const char *fallback; /* the default, as text */
  int64_t min, max;
  const char *unit;    /* "" when it has none */
  const char *choices; /* "text|json", or the form of an item: "ADDR:PORT" */
  const char *text;    /* one sentence */
  size_t offset;       /* into struct options */
};

enum { OPTIONS_MOST = 128 };
size_t option_count(void); /* at most OPTIONS_MOST */
const struct option *option_at(size_t i);

/* By name; '-' and '_' are the same. NULL when there is none. */
const struct option *option_find(const char *name);

/* The nearest name, or NULL when none is near. */
const char *option_nearest(const char *name);

/* Everything at its default; -1 only when out of memory. Cleared with options_clear, also after -1. */
int options_init(struct options *options, struct error *error) MUST_CHECK;
void options_clear(struct options *options);

/* Sets one value; a list is replaced. `origin` says where the value stands ("/etc/steerd/steerd.ini:12",
 * "environment STEERD_MAX_BODY", "--max-body") and is part of the error. ERROR_ARGUMENT, ERROR_MEMORY. */
int option_set(struct options *options, const struct option *option, const char *value, const char *origin,
               struct error *error) MUST_CHECK;

/* As above, but puts a list's items behind those already there. */
int option_add(struct options *options, const struct option *option, const char *value, const char *origin,
               struct error *error) MUST_CHECK;

/* The table for people, and as an INI file with every key at its default. */
void options_print_help(FILE *out);
void options_print_ini(FILE *out);

#endif
