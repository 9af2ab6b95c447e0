/* meter.c: what both places that things are brought from need. Knows neither. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/pull/pull_int.h"

#define TELL_NS 200000000
#define ENDPOINT_BYTES 500

void pull_meter_begin(struct pull_meter *meter) {
  meter->began_ns = meter->told_ns = clock_ns();
  meter->done_first = meter->done;
}

bool pull_meter_tell(void *context, int64_t bytes) {
  struct pull_meter *m = context;
  int64_t now = clock_ns();
  if (!m->tell || now - m->told_ns < TELL_NS) return false;
  m->told_ns = now;
  struct pull_progress progress = {.file = m->file, .done = m->done + bytes, .total = m->total, .seconds_left = -1};
  double seconds = (double)(now - m->began_ns) / 1e9;
  progress.rate = (double)(progress.done - m->done_first) / seconds;
  if (progress.rate > 0 && seconds > 1) progress.seconds_left = (double)(m->total - progress.done) / progress.rate;
  return m->tell(m->context, &progress);
}

void pull_escape(struct buffer *url, const char *text, bool slashes) {
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
  for (; *text; text++)
    if (strchr(plain, *text) || (slashes && *text == '/')) buffer_char(url, *text);
    else buffer_printf(url, "%%%02X", (unsigned char)*text);
}

const char *pull_endpoint(const char *variable, const char *usual, struct error *error) {
  const char *offline = getenv("HF_HUB_OFFLINE"), *endpoint = getenv(variable);
  if (offline && *offline && strcmp(offline, "0") != 0) {
    (void)error_set(error, ERROR_ARGUMENT, "HF_HUB_OFFLINE is set: nothing is fetched");
    return NULL;
  }
  if (!endpoint || !*endpoint) return usual;
  bool http = !strncmp(endpoint, "https://", 8) || !strncmp(endpoint, "http://", 7);
  if (http && strlen(endpoint) <= ENDPOINT_BYTES) return endpoint;
  (void)error_set(error, ERROR_ARGUMENT, "%s: '%.100s' is not https://HOST or http://HOST", variable, endpoint);
  return NULL;
}

int pull_temporary(char path[PULL_PATH_BYTES], struct error *error) {
  const char *folder = getenv("TMPDIR");
  snprintf(path, PULL_PATH_BYTES, "%.4000s/steerd-listing-XXXXXX", folder && *folder ? folder : "/tmp");
  int descriptor = mkstemp(path);
  if (descriptor < 0) return error_set(error, ERROR_IO, "cannot make a file '%.300s': %s", path, strerror(errno));
  close(descriptor);
  return 0;
}

int pull_check_room(const char *folder, int64_t needed, const char *variable, struct error *error) {
  struct statvfs info;
  if (statvfs(folder, &info) != 0) return 0;
  int64_t room = (int64_t)info.f_bavail * (int64_t)info.f_frsize;
  if (needed <= room) return 0;
  return error_set(error, ERROR_IO, "'%.200s' has room for %.1f GB more, and %.1f GB are to come; %s names another folder", folder,
                   (double)room / 1e9, (double)needed / 1e9, variable);
}
