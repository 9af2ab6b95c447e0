/* pickle.h: a machine that reads pickles (protocol 2 to 5) and runs nothing.
 *
 * It builds numbers, strings, tuples, lists and dicts, and two symbolic things: a persistent id, and an
 * "object", which is the name of a constructor beside its arguments. It never calls, imports or looks up
 * anything. The caller lists the globals that may be named at all; any other name ends the reading wherever it
 * stands, as does any opcode that tensor files do not need.
 *
 * Bounds: stack 65,536 entries, memo 1,048,576 entries and never more than the pickle has bytes, all memory
 * from the caller's arena (whose limit is the caller's). Values may contain themselves through the memo: whoever
 * walks them must bound the depth. */
#ifndef STEERD_CORE_MODEL_PICKLE_H
#define STEERD_CORE_MODEL_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/arena.h"

enum pickle_kind {
  PICKLE_NONE, PICKLE_BOOL, PICKLE_INT, PICKLE_REAL, PICKLE_TEXT, PICKLE_TUPLE, PICKLE_LIST, PICKLE_DICT,
  PICKLE_GLOBAL, PICKLE_PERSISTENT, PICKLE_OBJECT
};

/* What REDUCE (a call, in Python) makes of a global. */
enum pickle_call {
  PICKLE_CALL_REFUSE, /* a class that is only named */
  PICKLE_CALL_DICT,   /* () -> an empty dict */
  PICKLE_CALL_OBJECT  /* (arguments) -> PICKLE_OBJECT */
};

struct pickle_global {
  const char *name; /* "collections.OrderedDict" */
  enum pickle_call call;
  int tag; /* the caller's */
};

struct pickle_value {
  enum pickle_kind kind;
  union {
    bool boolean;
    int64_t integer;
    double real;
    struct {
      const char *data; /* UTF-8, borrowed from the pickle, no NUL behind it */
      size_t length;
    } text;
    struct {
      struct pickle_value **list; /* DICT: key, value, key, value, ... */
      size_t count, capacity;     /* of list: twice the number of members for a DICT */
    } items;
    const struct pickle_global *global;
    const struct pickle_value *id; /* PERSISTENT */
    struct {
      const struct pickle_global *callee;
      const struct pickle_value *arguments; /* a tuple */
    } object;
  } as;
};

/* The one value of the pickle, or NULL with an error that names the byte and opcode. The value lives in the
 * arena and borrows `data` and `globals`. */
const struct pickle_value *pickle_read(const unsigned char *data, size_t size, const struct pickle_global *globals,
                                       size_t n_globals, struct arena *arena, struct error *error) MUST_CHECK;

/* "a dict", "an integer", ... */
const char *pickle_kind_word(enum pickle_kind kind);

/* True when the value is a text equal to `text`. */
bool pickle_is_text(const struct pickle_value *value, const char *text);

#endif
