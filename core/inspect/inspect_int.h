/* inspect_int.h: what the inspect_*.c files share. Private to core. */
#ifndef STEERD_CORE_INSPECT_INT_H
#define STEERD_CORE_INSPECT_INT_H

#include "core/inspect.h"
#include "core/model/model.h"

/* Each appends one fact; texts are printf formats. fact_int writes the number itself as its text. */
int fact_text(struct inspect_facts *facts, const char *section, const char *key, struct error *error, const char *format,
              ...) ERROR_PRINTF(5, 6);
int fact_int(struct inspect_facts *facts, const char *section, const char *key, int64_t value, struct error *error);
int fact_value(struct inspect_facts *facts, const char *section, const char *key, int64_t value, struct error *error,
               const char *format, ...) ERROR_PRINTF(6, 7);
int fact_real(struct inspect_facts *facts, const char *section, const char *key, double value, struct error *error,
              const char *format, ...) ERROR_PRINTF(6, 7);

/* As "8.2 MiB". */
int fact_bytes(struct inspect_facts *facts, const char *section, const char *key, size_t bytes, struct error *error);
const char *bytes_text(size_t bytes, char out[32]);

/* The sections of a model, but for "precision". */
int inspect_model(const struct model *model, struct inspect_facts *facts, struct error *error);

/* The sections of a dictionary: what dict_describe says of a path. */
int inspect_dictionary(const char *path, struct inspect_facts *facts, struct error *error);

/* The sections [source ID] of an ini, each in sections of its own; facts NULL: none. *model: whether it describes a model. */
int inspect_sources(const char *path, struct inspect_facts *facts, bool *model, struct error *error);

/* The section "precision": what the logits of a built-in text lose when matrices are kept in f16 or bf16. */
int inspect_precision(const struct model *model, struct inspect_facts *facts, struct error *error);

#endif
