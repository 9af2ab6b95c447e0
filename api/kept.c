/* kept.c: the list of finished replies and its bound. Knows neither routes nor the store: who adds says what a reply
 * depends on, by the generation. */
#include "api/kept.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define SHARE_OF_ONE 16 /* a reply may have this part of the room */

struct kept {
  struct kept *next;          /* of the bucket */
  struct kept *newer, *older; /* of the list */
  atomic_int shares;          /* one is the list's */
  uint64_t hash, generation;
  enum route_family family;
  const struct lab_source_info *source; /* not ours to follow */
  _Atomic int64_t used;       /* the second that kept_used was last asked in */
  struct api_reply reply;     /* everything it points to lies in `data`, but for `packed` */
  char *packed;               /* under the list's lock until `is_packed`, then fixed; NULL: it does not pay */
  size_t packed_length;
  bool is_packed;
  _Atomic(void *) prepared[2]; /* the porch's; [1] for the packed form */
  void (*_Atomic drop)(void *prepared);
  size_t bytes;               /* all of it; under the list's lock */
  bool listed;
  bool asked;                 /* since make_room last passed by */
  char *target;
  _Alignas(16) char data[];
};

void kept_init(struct kept_replies *replies, size_t most) {
  memset(replies, 0, sizeof *replies);
  replies->most = most;
  pthread_mutex_init(&replies->lock, NULL);
}

const struct api_reply *kept_reply(const struct kept *kept) { return &kept->reply; }
enum route_family kept_family(const struct kept *kept) { return kept->family; }
uint64_t kept_generation(const struct kept *kept) { return kept->generation; }

const struct lab_source_info *kept_used(struct kept *kept, int64_t second) {
  if (!kept->source || atomic_load_explicit(&kept->used, memory_order_relaxed) == second) return NULL;
  return atomic_exchange(&kept->used, second) == second ? NULL : kept->source;
}

void kept_release(struct kept *kept) {
  if (!kept || atomic_fetch_sub(&kept->shares, 1) != 1) return;
  for (int i = 0; i < 2; i++) {
    void *prepared = atomic_load(&kept->prepared[i]);
    if (prepared) atomic_load(&kept->drop)(prepared);
  }
  free(kept->packed);
  free(kept);
}

void *kept_take_prepared(struct kept *kept, bool packed) { return atomic_exchange(&kept->prepared[packed], NULL); }

bool kept_put_prepared(struct kept *kept, bool packed, void *prepared, void (*drop)(void *prepared)) {
  void *none = NULL;
  atomic_store(&kept->drop, drop); /* the same for everybody */
  return atomic_compare_exchange_strong(&kept->prepared[packed], &none, prepared);
}

/* FNV-1a. */
static uint64_t hash_of(const char *target) {
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (; *target; target++) hash = (hash ^ (unsigned char)*target) * UINT64_C(0x100000001b3);
  return hash ^ hash >> 32;
}

/* ---- the list; its lock is held --------------------------------------------------------------------- */

static struct kept **bucket_of(struct kept_replies *replies, uint64_t hash) {
  return &replies->buckets[hash % KEPT_BUCKETS];
}

static void make_newest(struct kept_replies *replies, struct kept *kept) {
  kept->newer = NULL;
  kept->older = replies->newest;
  if (kept->older) kept->older->newer = kept;
  else replies->oldest = kept;
  replies->newest = kept;
}

static void take_out(struct kept_replies *replies, struct kept *kept) {
  if (kept->newer) kept->newer->older = kept->older;
  else replies->newest = kept->older;
  if (kept->older) kept->older->newer = kept->newer;
  else replies->oldest = kept->newer;
}

static void drop(struct kept_replies *replies, struct kept *kept) {
  struct kept **at = bucket_of(replies, kept->hash);
  while (*at != kept) at = &(*at)->next;
  *at = kept->next;
  take_out(replies, kept);
  replies->bytes -= kept->bytes;
  kept->listed = false;
  kept_release(kept);
}

/* The oldest go; one that was asked for in the meantime is passed over once. */
static void make_room(struct kept_replies *replies, size_t bytes) {
  while (replies->oldest && replies->bytes + bytes > replies->most) {
    struct kept *kept = replies->oldest;
    if (!kept->asked) {
      drop(replies, kept);
      continue;
    }
    kept->asked = false;
    take_out(replies, kept);
    make_newest(replies, kept);
  }
}

static struct kept *look_up(struct kept_replies *replies, const char *target, uint64_t hash) {
  struct kept *kept = *bucket_of(replies, hash);
  while (kept && (kept->hash != hash || strcmp(kept->target, target) != 0)) kept = kept->next;
  return kept;
}

/* ---- asking ----------------------------------------------------------------------------------------- */

struct kept *kept_find(struct kept_replies *replies, const char *target, uint64_t generation) {
  if (!replies->most) return NULL;
  uint64_t hash = hash_of(target);
  pthread_mutex_lock(&replies->lock);
  struct kept *kept = look_up(replies, target, hash);
  if (kept && kept->generation != generation) {
    drop(replies, kept);
    kept = NULL;
  }
  if (kept) {
    atomic_fetch_add(&kept->shares, 1);
    if (!kept->asked) kept->asked = true; /* a line that is only read stays where it is */
    replies->hits++;
  } else {
    replies->misses++;
  }
  pthread_mutex_unlock(&replies->lock);
  return kept;
}

bool kept_packed(struct kept_replies *replies, const struct kept *kept, const char **bytes, size_t *length) {
  pthread_mutex_lock(&replies->lock);
  *bytes = kept->packed;
  *length = kept->packed_length;
  bool known = kept->is_packed;
  pthread_mutex_unlock(&replies->lock);
  return known;
}

/* The first one stays: others may be sending it already. */
void kept_pack(struct kept_replies *replies, struct kept *kept, char *bytes, size_t length) {
  pthread_mutex_lock(&replies->lock);
  bool first = !kept->is_packed;
  if (first) {
    kept->is_packed = true;
    kept->packed = bytes;
    kept->packed_length = bytes ? length : 0;
    kept->bytes += kept->packed_length;
    if (kept->listed) {
      replies->bytes += kept->packed_length;
      make_room(replies, 0);
    }
  }
  pthread_mutex_unlock(&replies->lock);
  if (!first) free(bytes);
}

struct kept_counts kept_count(struct kept_replies *replies) {
  pthread_mutex_lock(&replies->lock);
  struct kept_counts counts = {(int64_t)replies->bytes, replies->hits, replies->misses};
  pthread_mutex_unlock(&replies->lock);
  return counts;
}

void kept_clear(struct kept_replies *replies) {
  while (replies->oldest) drop(replies, replies->oldest);
  pthread_mutex_destroy(&replies->lock);
}

/* ---- adding ----------------------------------------------------------------------------------------- */

static size_t text_bytes(const char *text) { return text ? strlen(text) + 1 : 0; }

static size_t copy_bytes(const char *target, const struct api_reply *reply) {
  size_t bytes = reply->n_headers * sizeof(struct api_pair) + text_bytes(target) + text_bytes(reply->content_type);
  for (size_t i = 0; i < reply->n_headers; i++)
    bytes += text_bytes(reply->headers[i].name) + text_bytes(reply->headers[i].value);
  return bytes + reply->body_length;
}

static char *put(char **at, const char *text) {
  size_t bytes = text_bytes(text);
  char *copy = bytes ? memcpy(*at, text, bytes) : NULL;
  *at += bytes;
  return copy;
}

/* With one share, the list's. */
static struct kept *copy_of(const char *target, const struct api_reply *reply) {
  size_t bytes = copy_bytes(target, reply);
  struct kept *kept = calloc(1, sizeof *kept + bytes);
  if (!kept) return NULL;
  struct api_pair *headers = (struct api_pair *)kept->data;
  char *at = (char *)(headers + reply->n_headers);
  kept->bytes = sizeof *kept + bytes;
  atomic_init(&kept->shares, 1);
  kept->reply = *reply;
  kept->reply.headers = headers;
  kept->reply.kept = kept;
  kept->reply.content_type = put(&at, reply->content_type);
  kept->target = put(&at, target);
  for (size_t i = 0; i < reply->n_headers; i++) {
    headers[i].name = put(&at, reply->headers[i].name);
    headers[i].value = put(&at, reply->headers[i].value);
  }
  if (reply->body_length) kept->reply.body = memcpy(at, reply->body, reply->body_length);
  return kept;
}

void kept_add(struct kept_replies *replies, const char *target, uint64_t generation, enum route_family family,
              const struct lab_source_info *source, const struct api_reply *reply) {
  if (strlen(target) > KEPT_TARGET_MOST || reply->body_length > replies->most / SHARE_OF_ONE) return;
  struct kept *kept = copy_of(target, reply);
  if (!kept) return;
  kept->hash = hash_of(target);
  kept->generation = generation;
  kept->family = family;
  kept->source = source;
  pthread_mutex_lock(&replies->lock);
  struct kept *earlier = look_up(replies, target, kept->hash);
  if (earlier) drop(replies, earlier);
  make_room(replies, kept->bytes);
  struct kept **bucket = bucket_of(replies, kept->hash);
  kept->next = *bucket;
  *bucket = kept;
  make_newest(replies, kept);
  kept->listed = true;
  replies->bytes += kept->bytes;
  pthread_mutex_unlock(&replies->lock);
}
