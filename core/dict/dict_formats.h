/* dict_formats.h: which reader a path is for, by what lies there. Private to core/dict. */
#ifndef STEERD_CORE_DICT_DICT_FORMATS_H
#define STEERD_CORE_DICT_DICT_FORMATS_H

#include "core/dict/dict_config.h"

struct dict_format {
  const char *name; /* as dict_info.format shows it */
  bool (*is_at)(const char *path);
  int (*read)(const char *path, const struct dict_host *host, struct dict_config *out, struct error *error);
};

/* NULL when nothing known lies there. */
const struct dict_format *dict_format_of(const char *path);

#endif
