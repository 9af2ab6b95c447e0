/* edits.h: the edit object, wherever it stands: its rows, and how it is read. */
#ifndef STEERD_API_EDITS_H
#define STEERD_API_EDITS_H

#include "api/call.h"
#include "core/laboratory.h"

extern const struct field edit_fields[];

/* The row of a field that holds edits. */
#define EDITS_ROW                                                                              \
  {"edits", NULL, FIELD_OBJECTS, .max = 256, .inner = edit_fields, .strict = true,              \
   .example = "{\"op\": \"zero\", \"point\": \"z.0\", \"heads\": [1]}",                                \
   .text = "Changes of activations while the model runs, applied in this order; docs/api.md tells each op."}

/* The edits that a field of `values` holds. prefix stands before the field's name in errors: "" or "steering.". */
int edits_read(struct api_call *call, const struct values *values, const char *name, const char *prefix,
               const struct lab_edit **out, size_t *n, struct error *error) MUST_CHECK;

/* What a mean is over: `over` and `texts` of an edit, or of a request that writes its edits itself. */
enum lab_over edits_over(const struct values *values);
int edits_texts(struct api_call *call, const struct values *values, struct lab_edit *edit, struct error *error) MUST_CHECK;

/* Integers of a list, in the call's arena. */
int64_t *read_integers(struct api_call *call, const struct values *values, const char *name, size_t *n, struct error *error);

/* Numbers of a list as floats, likewise. */
float *read_floats(struct api_call *call, const struct values *values, const char *name, size_t *n, struct error *error);

/* One text or one list of tokens, from two fields of which one is needed. */
int read_input(struct api_call *call, const struct values *values, const char *text, const char *tokens, const char *prefix,
               struct lab_input *out, struct error *error) MUST_CHECK;

#endif
