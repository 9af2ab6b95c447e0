/* exchange.h: one request and its reply, from the request line to the last byte.
 *
 * An exchange is opened when the request line was read and closed when the reply has gone out or the
 * connection has ended. In between the library calls it on one of its threads, never on two at a time:
 *
 *   exchange_head -> exchange_body* -> exchange_answer (again after each wake) -> the stream's reader
 *
 * The head is judged before a byte of the body is read. A refused request with a small body is read to its
 * end all the same, and dropped: closing the socket in the middle of a client's sending would take the reply
 * away from it. */
#ifndef STEERD_SERVER_EXCHANGE_H
#define STEERD_SERVER_EXCHANGE_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/api.h"
#include "core/base/stripe.h"
#include "server/doors.h"
#include "server/guard.h"
#include "server/holds.h"
#include "server/keys.h"
#include "server/origin.h"
#include "server/rates.h"
#include "server/watch.h"

struct exchange;

/* What holds for every request; all borrowed. */
struct exchange_rules {
  struct api *api;
  const struct keys *keys; /* empty: none is asked for */
  struct origin_list hosts, origins;
  struct guard_limits limits;
  size_t max_body, max_batch_body; /* bytes */
  int64_t max_held;                /* bytes of large replies that are being read */
  struct rates *rates;             /* of requests that compute, by their owner; NULL: any */
  struct doors *doors;             /* NULL: no keys are asked for */
};

/* The requests that one thread has under way, and what it counts. */
struct exchange_list {
  _Alignas(STRIPE_ALIGN) pthread_mutex_t lock; /* guards the lists */
  struct exchange *first;
  size_t count;
  struct exchange *spare; /* ended ones, kept with a little memory for the next request */
  size_t n_spare;
  int64_t requests, refused, bytes_in, bytes_out; /* atomic counters */
};

/* The requests under way. */
struct exchanges {
  struct exchange_rules rules;
  struct exchange_list lists[STRIPES];
  bool draining;    /* atomic: every reply closes its connection */
  uint64_t id_seed; /* of request ids */
  int batches;      /* atomic: requests under way whose body has outgrown max_body */
  struct holds holds;
  int64_t too_many, wrong_keys; /* atomic counters: of the refused */
};

void exchanges_init(struct exchanges *exchanges, const struct exchange_rules *rules);
void exchanges_clear(struct exchanges *exchanges); /* none is under way any more */
size_t exchanges_count(struct exchanges *exchanges);
void exchanges_cancel(struct exchanges *exchanges); /* asks the reception to stop all of them */
void exchanges_read(struct exchanges *exchanges, struct api_porch *out); /* the counters; `connections` stays */
/* A connection was turned away. */
void exchanges_refuse(struct exchanges *exchanges);

/* target: the raw request target, inside the library's memory. NULL when out of memory. */
struct exchange *exchange_open(struct exchanges *exchanges, struct peer *peer, const char *target);
bool exchange_has_head(const struct exchange *exchange);

enum MHD_Result exchange_head(struct exchange *exchange, struct MHD_Connection *connection,
                              const char *method, const char *version);
/* Takes all of data. */
enum MHD_Result exchange_body(struct exchange *exchange, const char *data, size_t size);
enum MHD_Result exchange_answer(struct exchange *exchange);

/* status: of the library's own reply where it made one, else 0; cut: the reply was not delivered whole.
 * Writes the access log's line. NULL is fine. */
void exchange_close(struct exchange *exchange, int status, bool cut);

/* Writes a 408 onto the socket (watch_options.overdue). */
void exchange_print_overdue(int fd, void *exchange);

#endif
