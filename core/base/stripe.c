#include "core/base/stripe.h"

#include <stdatomic.h>

static atomic_uint threads;

size_t stripe_own(void) {
  static _Thread_local unsigned number; /* 0: not taken yet */
  if (!number) number = 1 + atomic_fetch_add(&threads, 1) % STRIPES;
  return number - 1;
}
