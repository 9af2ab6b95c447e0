/* Any bytes as a config.json: parsed, a family found, its switches read and checked. What is accepted has dimensions
 * within the limits that the memory planning relies on. */
#include <stdlib.h>

#include "core/model/arch.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  struct error error = ERROR_INIT;
  struct arch arch = {0};
  struct json_node *config = json_parse((const char *)data, size, 32, &error);
  const struct arch_family *family = config ? arch_find(config, &error) : NULL;
  int rc = family ? family->read_config(config, &arch, &error) : -1;
  if (rc == 0) rc = arch_check(&arch, &error);
  if (rc == 0 && (arch.n_layer < 1 || arch.n_head < 1 || arch.d_head < 1 || arch.n_kv_head < 1)) abort();
  if (rc == 0 && (arch.d_model < 1 || arch.d_model > 65536 || arch.vocabulary < 1 || arch.vocabulary > 1 << 22)) abort();
  if (rc != 0 && (!error.code || !error.text[0])) abort();
  json_free(config);
  return 0;
}
