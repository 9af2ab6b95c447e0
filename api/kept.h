/* kept.h: finished replies, kept for the next one who asks the same.
 *
 * A GET whose route is marked ROUTE_STORED answers with what is stored and loaded: its reply is a function of its
 * target and of the generation (lab_generation, core/archive.h). Such replies are kept whole, found by the exact target as
 * it was sent, and never given out once that has moved on. Memory is bounded in bytes; what was not asked for
 * in a long time goes first. A reply remembers the source that it tells of, so that giving it out can count as a use. Any
 * thread. Private to api/. */
#ifndef STEERD_API_KEPT_H
#define STEERD_API_KEPT_H

#include <pthread.h>

#include "api/api.h"
#include "api/route.h"

enum { KEPT_BUCKETS = 4096, KEPT_TARGET_MOST = 1024 };

struct lab_source_info;
struct kept; /* one reply; shared by the list and by everybody who sends it */

struct kept_replies {
  pthread_mutex_t lock; /* guards everything below */
  struct kept *buckets[KEPT_BUCKETS];
  struct kept *newest, *oldest; /* by when they were added, or passed over when room was made */
  size_t bytes, most;           /* most 0: nothing is kept */
  int64_t hits, misses;
};

void kept_init(struct kept_replies *replies, size_t most);
void kept_clear(struct kept_replies *replies); /* nobody has a share any more */

/* A share of the reply to `target` as it is at `generation`, given back with kept_release; NULL when there is none. */
struct kept *kept_find(struct kept_replies *replies, const char *target, uint64_t generation) MUST_CHECK;
void kept_release(struct kept *kept); /* NULL is fine */

/* source: NULL, or what it tells of, which lives as long as the generation. Copies a whole reply (not a stream). One that is larger than a sixteenth of the room is not kept, nor one that does not
 * fit for want of memory. */
void kept_add(struct kept_replies *replies, const char *target, uint64_t generation, enum route_family family,
              const struct lab_source_info *source, const struct api_reply *reply);

/* Valid as long as the share. */
const struct api_reply *kept_reply(const struct kept *kept);
enum route_family kept_family(const struct kept *kept);

/* The source, the first time that this is asked in a second (of any clock); else NULL. */
const struct lab_source_info *kept_used(struct kept *kept, int64_t second);
uint64_t kept_generation(const struct kept *kept);

/* The packed form, see api_packed. */
bool kept_packed(struct kept_replies *replies, const struct kept *kept, const char **bytes, size_t *length);
void kept_pack(struct kept_replies *replies, struct kept *kept, char *bytes, size_t length);

/* See api_take_prepared. */
void *kept_take_prepared(struct kept *kept, bool packed);
bool kept_put_prepared(struct kept *kept, bool packed, void *prepared, void (*drop)(void *prepared));

/* What /metrics shows: bytes kept, and how often something was found or not. */
struct kept_counts {
  int64_t bytes, hits, misses;
};
struct kept_counts kept_count(struct kept_replies *replies);

#endif
