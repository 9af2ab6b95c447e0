/* inspect.h: a third front door (beside core.h and archive.h): what a file or a model is, as steerd understands it.
 *
 * The result is one list of facts in sections, in the order in which they are to be read; whoever shows it, as text or as
 * JSON, needs to know nothing more. */
#ifndef STEERD_CORE_INSPECT_H
#define STEERD_CORE_INSPECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/arena.h"

enum inspect_kind { INSPECT_TEXT, INSPECT_INT, INSPECT_REAL };

struct inspect_fact {
  const char *section; /* "architecture"; facts of one section stand together */
  const char *key;     /* "context"; unique in its section; NULL: an item of a list, all of whose keys are NULL */
  const char *text;    /* for a reader, with unit: "8.2 MiB" */
  enum inspect_kind kind;
  int64_t integer;     /* INSPECT_INT: the same for a program: 8560640 (sizes are bytes) */
  double real;         /* INSPECT_REAL */
};

struct inspect_facts {
  struct inspect_fact *list;
  size_t count, capacity;
  struct arena arena; /* of the texts */
};

struct inspect_options {
  const char *place;    /* a model, as --model takes it, a dictionary, as --source takes it, an ini that describes both, or a file
                           of tensors */
  const char *names;    /* the table of names of models, NULL: none */
  const char *releases; /* that of dictionaries, NULL: none */
  const char *backend; /* as in lab_options */
  int threads;         /* likewise */
  bool measure;        /* run a short text in lower precisions too, where the weights are f32: takes half their size more */
};

/* Fills *out; inspect_clear in any case. The errors of opening a model or file. */
int inspect_place(const struct inspect_options *options, struct inspect_facts *out, struct error *error) MUST_CHECK;
void inspect_clear(struct inspect_facts *facts);

#endif
