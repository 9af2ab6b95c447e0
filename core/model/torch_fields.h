/* torch_fields.h: what a torch archive holds beside its tensors: texts and whole numbers, by name. Nothing is executed
 * (pickle.h). Names are those of tensors.h: "activation_state_dict.k" is k inside the dict activation_state_dict. */
#ifndef STEERD_CORE_MODEL_TORCH_FIELDS_H
#define STEERD_CORE_MODEL_TORCH_FIELDS_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

/* A text into out (cut to fit), an integer into *out; left alone where the archive has no such name. ERROR_FORMAT where
 * it is of another kind, and for what tensors_open would refuse in the pickle. */
int torch_field_text(const char *path, const char *name, char *out, size_t size, struct error *error) MUST_CHECK;
int torch_field_int(const char *path, const char *name, int64_t *out, struct error *error) MUST_CHECK;

#endif
