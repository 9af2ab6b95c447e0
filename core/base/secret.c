#include "core/base/secret.h"

#include <errno.h>
#include <sys/random.h>

int random_secret(void *out, size_t bytes, struct error *error) {
  ssize_t got;
  do got = getrandom(out, bytes, 0);
  while (got < 0 && errno == EINTR);
  if (got != (ssize_t)bytes) return error_set(error, ERROR_IO, "the system gave no random bytes");
  return 0;
}

/* 26 letters of 5 random bits. */
int secret_name(char out[SECRET_NAME], struct error *error) {
  unsigned char random[SECRET_NAME - 1];
  if (random_secret(random, sizeof random, error) != 0) return -1;
  for (size_t i = 0; i < sizeof random; i++) out[i] = "abcdefghijklmnopqrstuvwxyz234567"[random[i] & 31];
  out[sizeof random] = '\0';
  return 0;
}
