/* sources.h: sources as the files of the front door share them: the registry that lets them come and go, and the thread that
 * brings them. Private to core/lab/. */
#ifndef STEERD_CORE_LAB_SOURCES_H
#define STEERD_CORE_LAB_SOURCES_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/lab/lab_int.h"

/* What lab_sources hands out: immutable, replaced as a whole. */
struct lab_source_list {
  size_t n;
  const struct lab_source_info *items[];
};

/* Out of reach, but somebody may still look at it. */
struct lab_retired {
  struct lab_retired *next;
  struct lab_source_list *list;
  struct lab_source *source; /* NULL when only the list was replaced */
  uint64_t newest;           /* leases up to this number may have seen it */
};

struct lab_load; /* loader.c */

/* Dictionaries that a request needs and that were dropped for others: prepared by the loader, so that nobody waits but the
 * request. */
struct lab_warm {
  struct lab_warm *next;
  struct dict *const *dicts;
  size_t n;
  void (*ready)(struct lab_warm *warm, const struct error *error); /* by the loader; error NULL: they are prepared */
};

struct lab_sources {
  pthread_mutex_t mutex;
  pthread_cond_t changed;           /* the loader has something to do */
  uint64_t n_leases;                /* begun so far */
  struct lab_lease *oldest, *newest; /* those that run */
  struct lab_retired *retired;
  _Atomic uint64_t changes;         /* how often a list was replaced */
  pthread_mutex_t neurons;          /* held by who makes a source of neurons */

  pthread_t thread; /* the loader */
  bool started, stop;
  struct lab_load *queue, *loading; /* waiting, oldest first; the one at work */
  struct lab_warm *cold;            /* oldest first */
  const char *forgetting;           /* the model of which something is deleted from the store now: nothing is loaded for it; NULL */
  int unchecked;                    /* sources whose self-test is wanted */
  char **folders;                   /* real paths from which may be loaded, ... */
  size_t n_folders;
  char **named;                     /* ... and those named at the start: whoever started the daemon chose them */
  size_t n_named;
  char *releases;                   /* the table of names; NULL: none */
};

int sources_open(struct lab *lab, struct error *error) MUST_CHECK;
void sources_close(struct lab *lab); /* all of them; nobody has a lease */

/* The name that a spec gives its dictionary: its path, or with none, or with its own name as the path, MODEL/SOURCE as the
 * table of releases calls the model. */
#define SOURCE_NAME_BYTES 300
/* "7-res-jb" -> "res-jb": where it stands in id, *length bytes; what stands behind "__" names a variant and is no part of the set. */
const char *source_set_part(const char *id, size_t *length);

const char *source_published_name(const struct lab *lab, const struct lab_source_spec *spec, char out[SOURCE_NAME_BYTES]);

/* Opens a dictionary for a model that is loaded; nobody finds it yet. `aside`: while the engine runs. */
struct lab_source *source_open(struct lab *lab, const struct lab_source_spec *spec, bool aside,
                               struct error *error) MUST_CHECK;
void source_close(struct lab_source *source); /* NULL is fine */

/* Whether the name says another layer than the dictionary is of ("3-mine" of one that reads blocks.2...): 0, or ERROR_ARGUMENT. The stream
 * behind a layer is the one in front of the next, so that either number will do for it. */
int source_check_layer(const struct lab_source *source, struct error *error) MUST_CHECK;

/* Floats of a row that wait between the points that sources read and write, where all of a model, or one, are spliced on the backend. */
int64_t sources_aside(const struct lab_model *model);
int64_t source_aside(const struct lab_source *source);

/* From here on it is found, and belongs to the registry. ERROR_CONFLICT when its name is taken. */
int sources_add(struct lab *lab, struct lab_source *source, struct error *error) MUST_CHECK;

/* A source made of an opened dictionary, which it owns from here on, also when this fails. spec->path: for people. */
struct lab_source *source_new(struct dict *dict, const struct lab_source_spec *spec, const struct arch *arch,
                              struct error *error) MUST_CHECK;

/* neurons.c: bare layer numbers. Whether an id is one; and the source, which is made when it is first named and stays until the
 * lab is closed. ERROR_NOT_FOUND (field `field`) for a layer that the model has not, or one without MLP. Any thread. */
bool neurons_named(const char *id);
/* An id that a dictionary may have: not of the set of neurons, which is the model's own. ERROR_ARGUMENT. */
int source_check_id(const char *id, struct error *error) MUST_CHECK;
const struct lab_source_info *neurons_find(const struct lab *lab, const struct lab_model_info *model, const char *id, const char *field,
                                           struct error *error) MUST_CHECK;
void neurons_close(struct lab *lab);

/* Frees what nobody can see any more. Takes the mutex, and gives it up while it frees. */
void sources_reclaim(struct lab *lab);
bool sources_reclaimable(const struct lab_sources *sources); /* under the mutex */

/* For work that goes on for hours: keeps one source, where a lease would keep all. Pin it under a lease. */
void source_pin(struct lab *lab, struct lab_source *source);
void source_unpin(struct lab *lab, struct lab_source *source);

/* selftest.c: runs a source over a short text and keeps and logs what came of it. Not the engine's thread. */
void selftest_run(struct lab *lab, struct lab_source *source);

/* Whether one of them has been dropped. */
bool loader_cold(const struct lab *lab, struct dict *const *dicts, size_t n);
/* Has them prepared; `ready` comes exactly once. ERROR_BUSY when the lab is closing, and then it never comes. */
int loader_warm(struct lab *lab, struct lab_warm *warm, struct error *error) MUST_CHECK;

/* The thread that loads, tests and frees. */
int loader_start(struct lab *lab, const struct lab_options *options, struct error *error) MUST_CHECK;
void loader_stop(struct lab *lab);  /* asks; returns at once */
void loader_close(struct lab *lab); /* waits until it has ended */

#endif
