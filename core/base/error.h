/* error.h: the one error type, passed as the last parameter of every function that can fail.
 *
 * The deepest place that knows the reason writes the text; everybody above only passes it on or puts
 * what was being attempted in front of it (error_prefix). The first error wins: a second error_set on the
 * same object changes nothing. Texts are lower case, quote their subject, carry numbers with units, end
 * without a full stop and say the remedy when there is one. They are shown to clients, so they never name
 * an address or an internal object; a file is named as its user named it.
 *
 * A `struct error *` may be NULL everywhere: the caller then only learns that it failed. */
#ifndef STEERD_CORE_BASE_ERROR_H
#define STEERD_CORE_BASE_ERROR_H

#include <stdarg.h>
#include <stddef.h>

enum error_code {
  ERROR_NONE = 0,
  ERROR_ARGUMENT,    /* a value is of the wrong type or out of its range */
  ERROR_NOT_FOUND,   /* a model, source, feature, file or id does not exist */
  ERROR_CONFLICT,    /* it is there already, or is just being changed */
  ERROR_LIMIT,       /* well formed, but more than this server is set to do */
  ERROR_FULL,        /* the store has as much as it is set to take from clients */
  ERROR_STORAGE,     /* the disk of the store, or a limit of the system, refused to keep something; reads go on */
  ERROR_BUSY,        /* the queue or a memory budget is full; later it will work */
  ERROR_FORMAT,      /* a file is not what its name or header claims */
  ERROR_IO,          /* the operating system refused to read or write */
  ERROR_MEMORY,      /* an allocation failed */
  ERROR_DEVICE,      /* the compute device failed */
  ERROR_STORE,       /* the database failed or is damaged */
  ERROR_CANCELLED,   /* the asker went away or asked to stop */
  ERROR_TIMEOUT,     /* a deadline passed */
  ERROR_UNSUPPORTED, /* known and documented, but not built yet */
  ERROR_BUG          /* our own mistake, never the client's */
};

struct error {
  enum error_code code;
  char field[64];  /* the request field at fault, "" when none */
  char text[448];  /* what is wrong, for a reader */
};

#define ERROR_INIT {ERROR_NONE, "", ""}

#if defined(__GNUC__)
#define ERROR_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define MUST_CHECK __attribute__((warn_unused_result))
#else
#define ERROR_PRINTF(f, a)
#define MUST_CHECK
#endif

static inline int error_failed(void) { return -1; }

/* Each of the four always has the value -1, so that `return error_set(error, ...)` ends a function. They are macros
 * over functions only so that the compiler sees the -1 and can follow what is initialised.
 *
 * error_set sets code and text (printf format) unless an error is already set. A text is one line, whatever it quotes: control
 * characters become spaces. */
#define error_set(error, ...) (error_put((error), __VA_ARGS__), error_failed())
void error_put(struct error *error, enum error_code code, const char *format, ...) ERROR_PRINTF(3, 4);

/* As error_set, and names the request field at fault ("features[0].strength"). */
#define error_set_field(error, ...) (error_put_field((error), __VA_ARGS__), error_failed())
void error_put_field(struct error *error, enum error_code code, const char *field, const char *format, ...)
    ERROR_PRINTF(4, 5);

/* Puts "PREFIX: " in front of an error that is already set (cut to fit). */
#define error_prefix(error, ...) (error_put_prefix((error), __VA_ARGS__), error_failed())
void error_put_prefix(struct error *error, const char *format, ...) ERROR_PRINTF(2, 3);

/* ERROR_MEMORY with the number of bytes that could not be had. */
#define error_memory(error, bytes) (error_put_memory((error), (bytes)), error_failed())
void error_put_memory(struct error *error, size_t bytes);

void error_clear(struct error *error);

/* The word of a code as the API shows it: "argument", "not_found", ... Never NULL. */
const char *error_word(enum error_code code);

#endif
