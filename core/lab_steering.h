/* lab_steering.h: what steering comes down to: features and edits as one list for the engine. Private to core/lab*.c. */
#ifndef STEERD_CORE_LAB_STEERING_H
#define STEERD_CORE_LAB_STEERING_H

#include "core/lab_edits.h"

/* Whether it changes anything at all. */
bool steering_none(const struct lab_steering *steering);

/* The list for one text of n tokens: features first, then edits, in their order. The caller frees it with edit_list_free, or
 * the engine takes it. NULL with an error that names prefix + "features[i].index" and so on; ERROR_UNSUPPORTED for edits
 * that need a run of their own. */
struct edit_list *steering_lower(struct lab *lab, const struct lab_model_info *model, const struct lab_steering *steering,
                                 const int32_t *ids, size_t n, struct error *error) MUST_CHECK;

#endif
