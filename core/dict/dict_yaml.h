/* dict_yaml.h: circuit-tracer's config.yaml. Private to core/dict.
 *
 * Of YAML only what these files need is read: lines "key: value" at the margin, values plain or in quotes. Lists,
 * blocks, anchors and lines further in belong to keys that are not asked for; a value that is asked for and begins like
 * one of those is refused. */
#ifndef STEERD_CORE_DICT_DICT_YAML_H
#define STEERD_CORE_DICT_DICT_YAML_H

#include "core/base/error.h"

#define DICT_YAML_BYTES 256

/* The file's text, to be freed. */
char *dict_yaml_read(const char *file, struct error *error) MUST_CHECK;

/* The value of a key at the margin, "" where there is none. ERROR_FORMAT names file and key. */
int dict_yaml_find(const char *text, const char *key, const char *file, char out[DICT_YAML_BYTES],
                   struct error *error) MUST_CHECK;

#endif
