/* Any bytes as an INI file: a refusal names a line or a limit, an accepted entry is found again. */
#include <stdlib.h>
#include <string.h>

#include "core/base/ini.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  struct error error = ERROR_INIT;
  struct ini *ini = ini_open_text("f", (const char *)data, size, &error);
  if (!ini && (!error.code || strncmp(error.text, "f:", 2) != 0) && error.code != ERROR_LIMIT) abort();
  for (size_t i = 0; ini && i < ini_count(ini); i++) {
    const struct ini_entry *entry = ini_at(ini, i);
    if (entry->line < 1 || ini_find(ini, entry->section, entry->key) != entry) abort();
  }
  ini_close(ini);
  return 0;
}
