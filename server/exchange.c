/* Owns one request's life: judging its head, collecting its body, asking the reception, sleeping. Refuses to
 * know what the request means, and sockets beyond one emergency reply. */
#include "server/exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "core/base/arena.h"
#include "core/base/buffer.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "server/access_log.h"
#include "server/reply.h"

/* Bytes of a refused body that are read and dropped, so that the client can see why. */
#define SWALLOW_MOST ((uint64_t)4 << 20)

enum { ID_BYTES = 65, ERROR_BYTES = 1024, SPARE_MOST = 16 };

struct exchange {
  struct exchanges *all;
  struct exchange_list *list; /* it is in */
  struct exchange *previous, *next;
  struct peer *peer;
  struct MHD_Connection *connection;
  struct arena arena;
  int64_t begin_ns;
  char id[ID_BYTES];
  char *target;           /* a copy, still encoded */
  const char *raw_target; /* where the library keeps it */
  const char *version;
  bool has_head, gzip, preflight;
  const char *origin;     /* an allowed one, or NULL */
  struct guard_body framing;
  struct api_request request;
  struct buffer body;
  size_t body_limit;
  bool batch; /* its body has outgrown max_body, and it counts in all->batches */
  uint64_t received;
  struct guard_refusal refusal; /* status 0: not refused */
  struct api_reply early;       /* the reception's own refusal, when early.status is set */
  struct api_reply recalled;    /* a finished reply, when recalled.kept is set */
  bool flows;                   /* the reply is a stream of events */
  struct reply_prepared prepared;
  struct hold hold;
  struct api_call *call;        /* changed under list->lock: exchanges_cancel reads it */
  int status;
  int64_t bytes_out;
};

/* A large body takes many times its size while it is read: so few are read at a time. */
enum { BATCHES_MOST = 4 };

static int64_t add(int64_t *counter, int64_t n) { return __atomic_add_fetch(counter, n, __ATOMIC_RELAXED); }

/* ---- the lists -------------------------------------------------------------------------------------- */

void exchanges_init(struct exchanges *exchanges, const struct exchange_rules *rules) {
  memset(exchanges, 0, sizeof *exchanges);
  exchanges->rules = *rules;
  for (size_t i = 0; i < STRIPES; i++) pthread_mutex_init(&exchanges->lists[i].lock, NULL);
  holds_init(&exchanges->holds, rules->max_held);
  if (getrandom(&exchanges->id_seed, sizeof exchanges->id_seed, GRND_NONBLOCK) < 0)
    exchanges->id_seed = (uint64_t)clock_ns();
}

static void discard(struct exchange *x) {
  arena_clear(&x->arena);
  free(x);
}

static void list_clear(struct exchange_list *list) {
  for (struct exchange *x = list->spare, *next; x; x = next) {
    next = x->next;
    discard(x);
  }
  pthread_mutex_destroy(&list->lock);
}

void exchanges_clear(struct exchanges *exchanges) {
  for (size_t i = 0; i < STRIPES; i++) list_clear(&exchanges->lists[i]);
  holds_clear(&exchanges->holds);
}

size_t exchanges_count(struct exchanges *exchanges) {
  size_t count = 0;
  for (size_t i = 0; i < STRIPES; i++) {
    pthread_mutex_lock(&exchanges->lists[i].lock);
    count += exchanges->lists[i].count;
    pthread_mutex_unlock(&exchanges->lists[i].lock);
  }
  return count;
}

void exchanges_cancel(struct exchanges *exchanges) {
  for (size_t i = 0; i < STRIPES; i++) {
    pthread_mutex_lock(&exchanges->lists[i].lock);
    for (struct exchange *x = exchanges->lists[i].first; x; x = x->next)
      if (x->call) api_cancel(x->call);
    pthread_mutex_unlock(&exchanges->lists[i].lock);
  }
}

void exchanges_read(struct exchanges *exchanges, struct api_porch *out) {
  out->requests = out->refused = out->bytes_in = out->bytes_out = 0;
  for (size_t i = 0; i < STRIPES; i++) {
    struct exchange_list *list = &exchanges->lists[i];
    out->requests += __atomic_load_n(&list->requests, __ATOMIC_RELAXED);
    out->refused += __atomic_load_n(&list->refused, __ATOMIC_RELAXED);
    out->bytes_in += __atomic_load_n(&list->bytes_in, __ATOMIC_RELAXED);
    out->bytes_out += __atomic_load_n(&list->bytes_out, __ATOMIC_RELAXED);
  }
  out->held = holds_total(&exchanges->holds);
  out->too_many = __atomic_load_n(&exchanges->too_many, __ATOMIC_RELAXED);
  out->wrong_keys = __atomic_load_n(&exchanges->wrong_keys, __ATOMIC_RELAXED);
}

void exchanges_refuse(struct exchanges *exchanges) { add(&exchanges->lists[stripe_own()].refused, 1); }

/* The list's lock is held. */
static void list_add(struct exchange *x) {
  x->next = x->list->first;
  if (x->next) x->next->previous = x;
  x->list->first = x;
  x->list->count++;
}

static void list_remove(struct exchange *x) {
  if (x->previous) x->previous->next = x->next;
  else x->list->first = x->next;
  if (x->next) x->next->previous = x->previous;
  x->list->count--;
}

/* ---- opening ---------------------------------------------------------------------------------------- */

/* Sixteen hexadecimal digits: a mixed counter (splitmix64), so that two of one process are never the same, and those of
 * two processes never in step. */
static void make_id(struct exchange *x) {
  static const char digits[] = "0123456789abcdef";
  uint64_t stripe = (uint64_t)(x->list - x->all->lists), number = (uint64_t)add(&x->list->requests, 1);
  uint64_t z = x->all->id_seed + (number * STRIPES + stripe) * UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  z ^= z >> 31;
  for (size_t i = 0; i < 16; i++) x->id[i] = digits[z >> 4 * (15 - i) & 15];
  x->id[16] = '\0';
}

static struct exchange *make_blank(struct exchanges *exchanges, struct exchange_list *list) {
  struct exchange *x = calloc(1, sizeof *x);
  if (!x) return NULL;
  x->all = exchanges;
  x->list = list;
  /* Headers are copied, and the target once more decoded: a small multiple of what may come in. */
  arena_init(&x->arena, exchanges->rules.limits.max_bytes * 8 + 65536);
  return x;
}

/* One that has ended or a fresh one, in the thread's list: all zeroes but for its arena. */
static struct exchange *take_blank(struct exchanges *exchanges) {
  struct exchange_list *list = &exchanges->lists[stripe_own()];
  pthread_mutex_lock(&list->lock);
  struct exchange *x = list->spare;
  if (x) {
    list->spare = x->next;
    list->n_spare--;
    list_add(x);
  }
  pthread_mutex_unlock(&list->lock);
  if (x || !(x = make_blank(exchanges, list))) return x;
  pthread_mutex_lock(&list->lock);
  list_add(x);
  pthread_mutex_unlock(&list->lock);
  return x;
}

static void give_back(struct exchange *x) {
  struct exchange_list *list = x->list;
  if (x->batch) __atomic_sub_fetch(&x->all->batches, 1, __ATOMIC_RELAXED);
  arena_reset(&x->arena);
  pthread_mutex_lock(&list->lock);
  list_remove(x);
  *x = (struct exchange){.all = x->all, .list = list, .arena = x->arena};
  bool room = list->n_spare < SPARE_MOST;
  if (room) {
    x->next = list->spare;
    list->spare = x;
    list->n_spare++;
  }
  pthread_mutex_unlock(&list->lock);
  if (!room) discard(x);
}

struct exchange *exchange_open(struct exchanges *exchanges, struct peer *peer, const char *target) {
  struct exchange *x = take_blank(exchanges);
  if (!x) return NULL;
  x->peer = peer;
  x->begin_ns = clock_ns();
  x->raw_target = target;
  x->target = arena_text(&x->arena, target, strlen(target), NULL);
  if (!x->target) {
    give_back(x);
    return NULL;
  }
  make_id(x);
  buffer_init(&x->body, exchanges->rules.max_batch_body);
  x->body_limit = exchanges->rules.max_body;
  x->request.method = x->request.path = "";
  x->request.target = x->target;
  x->request.request_id = x->id;
  x->request.key = "";
  peer_attach(peer, x);
  return x;
}

bool exchange_has_head(const struct exchange *exchange) { return exchange->has_head; }

/* ---- the head --------------------------------------------------------------------------------------- */

/* The header fields while they are collected. */
struct collector {
  struct exchange *exchange;
  struct api_pair *raw; /* as they lie in the library's memory */
  size_t count, most;
  bool nul;             /* a name or value is longer than its text */
};

static enum MHD_Result collect(void *context, enum MHD_ValueKind kind, const char *name, size_t name_size,
                               const char *value, size_t value_size) {
  (void)kind;
  struct collector *c = context;
  if (c->count < c->most) c->raw[c->count] = (struct api_pair){name, value ? value : ""};
  c->count++;
  c->nul |= strlen(name) != name_size || (value && strlen(value) != value_size);
  return MHD_YES;
}

static int out_of_memory(struct exchange *x) {
  return guard_refuse(&x->refusal, 503, "memory", true, "out of memory; try again later");
}

static char *trimmed(struct exchange *x, const char *text) {
  size_t n = strlen(text);
  while (n && (text[n - 1] == ' ' || text[n - 1] == '\t')) n--;
  return arena_text(&x->arena, text, n, NULL);
}

static int keep_headers(struct exchange *x, const struct collector *c) {
  struct api_pair *pairs = arena_array(&x->arena, c->count + 1, sizeof *pairs, NULL);
  if (!pairs) return out_of_memory(x);
  for (size_t i = 0; i < c->count; i++) {
    pairs[i].name = trimmed(x, c->raw[i].name);
    pairs[i].value = trimmed(x, c->raw[i].value);
    if (!pairs[i].name || !pairs[i].value) return out_of_memory(x);
  }
  x->request.headers = pairs;
  x->request.n_headers = c->count;
  return 0;
}

/* Bytes of the head, from the first of the method; 0 when the library does not tell. */
static size_t head_bytes(struct exchange *x) {
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
  return info ? info->header_size : 0;
}

/* The library reads lines as C strings, so a NUL byte hides what follows it. Its 0.9 series parses in place,
 * which shows: the fields lie one behind the other, and the version right behind the target. From 1.0 on it
 * refuses NUL bytes itself. */
static bool is_seamless(struct exchange *x, const char *method, const struct collector *c, size_t bytes) {
  if (c->nul) return false;
  if (strncmp(MHD_get_version(), "0.9.", 4)) return true;
  const char *behind = x->version + strlen(x->version);
  return x->version == x->raw_target + strlen(x->target) + 1 && behind > method && behind < method + bytes &&
         guard_is_seamless(behind, method + bytes, c->raw, c->count);
}

static int read_head(struct exchange *x, const char *method) {
  size_t most = x->all->rules.limits.max_fields, bytes = head_bytes(x);
  struct collector c = {.exchange = x, .most = most};
  c.raw = arena_array(&x->arena, most, sizeof *c.raw, NULL);
  if (!c.raw) return out_of_memory(x);
  MHD_get_connection_values_n(x->connection, MHD_HEADER_KIND, collect, &c);
  struct guard_head head = {method, x->version, x->target, c.raw, c.count, bytes};
  if (c.count <= most && !is_seamless(x, method, &c, bytes))
    return guard_refuse(&x->refusal, 400, "header", true, "the head has a folded line or a NUL byte");
  if (guard_check(&head, &x->all->rules.limits, &x->framing, &x->refusal)) return -1;
  return keep_headers(x, &c);
}

static const char *header(const struct exchange *x, const char *name) {
  return guard_header(x->request.headers, x->request.n_headers, name);
}

static int read_target(struct exchange *x) {
  struct guard_target target;
  if (guard_split(x->target, &x->arena, &target, &x->refusal)) return -1;
  x->request.path = target.path;
  x->request.query = target.query;
  x->request.n_query = target.n_query;
  return 0;
}

static int check_host(struct exchange *x) {
  switch (origin_check_host(header(x, "Host"), x->all->rules.hosts)) {
  case ORIGIN_HOST_GOOD: return 0;
  case ORIGIN_HOST_MALFORMED:
    return guard_refuse(&x->refusal, 400, "host", true,
                        "the Host header is not a name or address with an optional port");
  default:
    return guard_refuse(
        &x->refusal, 421, "host", false,
        "this server does not answer under that name; the setting 'hosts' allows further names");
  }
}

static int check_origin(struct exchange *x) {
  const char *origin = header(x, "Origin");
  if (!origin) return 0;
  if (!origin_allowed(origin, header(x, "Host"), x->all->rules.origins))
    return guard_refuse(
        &x->refusal, 403, "origin", false,
        "pages of that origin may not use this server; the setting 'cors_origins' allows further ones");
  x->origin = origin;
  x->preflight = !strcmp(x->request.method, "OPTIONS") && header(x, "Access-Control-Request-Method");
  return 0;
}

static const char *sent_key(const struct exchange *x) {
  const char *key = header(x, "X-Api-Key");
  if (!key) key = header(x, "X-Secret-Key");
  if (key) return key;
  const char *authorization = header(x, "Authorization");
  if (!authorization || strncasecmp(authorization, "Bearer ", 7)) return "";
  return authorization + 7 + strspn(authorization + 7, " ");
}

static int64_t seconds_of(int64_t ns) { return (ns + 999999999) / 1000000000; }

static int refuse_for_now(struct exchange *x, int64_t wait, const char *text) {
  add(&x->all->too_many, 1);
  x->refusal.retry = seconds_of(wait);
  return guard_refuse(&x->refusal, 429, "rate", false, "%s; try again after the seconds in Retry-After", text);
}

/* Without a key nobody guesses. */
static enum door knock(struct exchange *x, const char *key, int64_t *wait) {
  bool right = keys_match(x->all->rules.keys, key);
  if (!*key) return right ? DOOR_OPEN : DOOR_WRONG;
  return doors_knock(x->all->rules.doors, x->peer->address, right, right ? keys_owner(key) : 0, clock_tick_ns(), wait);
}

static int check_key(struct exchange *x) {
  int64_t wait;
  if (!keys_count(x->all->rules.keys) || x->preflight) return 0;
  const char *key = sent_key(x);
  enum door door = knock(x, key, &wait);
  if (door == DOOR_OPEN) return x->request.key = key, 0;
  if (!strcmp(x->request.path, "/health") || api_is_open(x->all->rules.api, &x->request)) return 0;
  add(&x->all->wrong_keys, 1);
  if (door == DOOR_LATER) return refuse_for_now(x, wait, "too many wrong keys came from this address");
  return guard_refuse(&x->refusal, 401, "key", false,
                      "a valid key is needed in X-Api-Key, X-Secret-Key or Authorization: Bearer");
}

static int check_rate(struct exchange *x) {
  if (!x->all->rules.rates || x->preflight || !api_computes(&x->request)) return 0;
  int64_t wait = rates_take(x->all->rules.rates, x->request.owner, clock_tick_ns());
  return wait ? refuse_for_now(x, wait, "this client sent as many requests as the setting 'rate' allows") : 0;
}

static int ask_preview(struct exchange *x, uint64_t length) {
  if (x->preflight) return 0;
  struct api_reply early;
  memset(&early, 0, sizeof early);
  if (!api_preview(x->all->rules.api, &x->request, length, &early)) return 0;
  x->early = early;
  return -1;
}

static bool has_body(const struct exchange *x) { return x->framing.chunked || x->framing.length > 0; }

static bool recall(struct exchange *x) {
  return !has_body(x) && api_recall(x->all->rules.api, &x->request, &x->recalled);
}

static int judge(struct exchange *x, const char *method) {
  const char *copy = arena_text(&x->arena, method, strlen(method), NULL);
  if (!copy) return out_of_memory(x);
  x->request.method = copy;
  if (read_head(x, method)) return -1;
  const char *id = header(x, "X-Request-Id");
  if (id && guard_is_request_id(id)) snprintf(x->id, sizeof x->id, "%s", id);
  x->gzip = guard_accepts_gzip(header(x, "Accept-Encoding"));
  if (read_target(x) || check_host(x) || check_origin(x) || check_key(x)) return -1;
  x->request.owner = *x->request.key ? keys_owner(x->request.key) : x->peer->address;
  x->request.trusted = *x->request.key || x->peer->local;
  if (recall(x)) return 0;
  return ask_preview(x, x->framing.length) || check_rate(x) ? -1 : 0;
}

static bool refused(const struct exchange *x) { return x->refusal.status || x->early.status; }

/* ---- replies ---------------------------------------------------------------------------------------- */

static struct reply_manner manner(const struct exchange *x) {
  return (struct reply_manner){.api = x->all->rules.api,
                               .request_id = x->id,
                               .origin = x->origin,
                               .preflight = x->preflight,
                               .gzip = x->gzip,
                               .close = x->refusal.close ||
                                        __atomic_load_n(&x->all->draining, __ATOMIC_RELAXED)};
}

static enum MHD_Result send_whole(struct exchange *x, const struct api_reply *reply, bool lasting) {
  struct reply_manner how = manner(x);
  if (!peer_enter(x->peer, PEER_SEND, x)) return MHD_NO;
  x->bytes_out = reply_queue(x->connection, reply, lasting, &how, &x->prepared);
  if (x->bytes_out < 0) {
    x->bytes_out = 0;
    return MHD_NO;
  }
  x->status = reply->status;
  return MHD_YES;
}

static enum MHD_Result send_refusal(struct exchange *x) {
  add(&x->list->refused, 1);
  if (x->early.status) return send_whole(x, &x->early, false);
  char body[ERROR_BYTES], seconds[24];
  struct api_pair extra = {"WWW-Authenticate", "Bearer"};
  bool later = x->refusal.retry || x->refusal.status == 503;
  snprintf(seconds, sizeof seconds, "%lld", (long long)(x->refusal.retry ? x->refusal.retry : 1));
  if (later) extra = (struct api_pair){"Retry-After", seconds};
  const char *path = *x->request.path ? x->request.path : "/";
  struct api_reply reply = {.status = x->refusal.status, .content_type = "application/json", .body = body};
  reply.headers = &extra;
  reply.n_headers = x->refusal.status == 401 || later;
  reply.body_length =
      api_error_body(path, x->refusal.status, x->refusal.word, x->refusal.text, body, sizeof body);
  return send_whole(x, &reply, false);
}

static enum MHD_Result send_recalled(struct exchange *x) {
  return send_whole(x, &x->recalled, true);
}

static enum MHD_Result send_preflight(struct exchange *x) {
  struct api_reply reply = {.status = 204, .body = ""};
  return send_whole(x, &reply, true);
}

/* The library's content reader: sleeps when the stream has nothing yet. */
static ssize_t read_stream(void *context, uint64_t position, char *out, size_t size) {
  (void)position;
  struct exchange *x = context;
  for (;;) {
    ssize_t n = api_read(x->call, out, size);
    if (n < 0) return MHD_CONTENT_READER_END_OF_STREAM;
    if (n > 0) {
      x->bytes_out += n;
      return peer_enter(x->peer, x->flows ? PEER_FLOW : PEER_SEND, x) ? n : MHD_CONTENT_READER_END_WITH_ERROR;
    }
    peer_enter(x->peer, PEER_WORK, x);
    enum peer_sleep sleep = peer_sleep(x->peer);
    if (sleep == PEER_ASLEEP) return 0;
    if (sleep == PEER_LEAVE) return MHD_CONTENT_READER_END_WITH_ERROR;
  }
}

static enum MHD_Result send_reply(struct exchange *x, const struct api_reply *reply) {
  if (!holds_enter(&x->all->holds, &x->hold, x->request.owner, reply->held)) {
    guard_refuse(&x->refusal, 503, "busy", false, "clients have too much to read yet (setting 'max_held'); try again after the seconds in Retry-After");
    return send_refusal(x);
  }
  if (!reply->stream) return send_whole(x, reply, true);
  struct reply_manner how = manner(x);
  x->flows = reply->events;
  if (!peer_enter(x->peer, x->flows ? PEER_FLOW : PEER_SEND, x)) return MHD_NO;
  x->status = reply->status;
  return reply_queue_stream(x->connection, reply, read_stream, x, &how) ? MHD_NO : MHD_YES;
}

/* A reply written past the library, which cannot answer while a body is still coming. */
static void print_raw(struct exchange *x, int fd, int status, const char *word, const char *text) {
  char out[2 * ERROR_BYTES];
  size_t n =
      reply_print_error(*x->request.path ? x->request.path : "/", status, word, text, x->id, out, sizeof out);
  if (send(fd, out, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n) x->status = status;
}

void exchange_print_overdue(int fd, void *exchange) {
  print_raw(exchange, fd, 408, "timeout", "the request did not arrive in time");
}

/* ---- the library's calls ---------------------------------------------------------------------------- */

enum MHD_Result exchange_head(struct exchange *x, struct MHD_Connection *connection, const char *method,
                              const char *version) {
  x->has_head = true;
  x->connection = connection;
  x->version = version;
  /* No deadline while the head is judged: an emergency reply would read what is being written. */
  if (!peer_enter(x->peer, PEER_WORK, x)) return MHD_NO;
  judge(x, method);
  bool body = has_body(x);
  if (!refused(x) && !x->framing.chunked) peer_expect(x->peer, head_bytes(x) + x->framing.length);
  if (body && !peer_enter(x->peer, PEER_BODY, x)) return MHD_NO;
  if (!refused(x)) return MHD_YES;
  /* What is answered before the end of the request closes the connection, so even one without a body is let come to it. */
  bool swallow = !x->refusal.close && !x->framing.waits && x->framing.length <= SWALLOW_MOST;
  return swallow ? MHD_YES : send_refusal(x);
}

/* The body has outgrown max_body: only a route that takes batches may go on. */
static void check_growth(struct exchange *x, size_t size) {
  uint64_t total = (uint64_t)x->body.length + size;
  if (total <= x->body_limit || ask_preview(x, total)) return;
  if (!x->batch && __atomic_add_fetch(&x->all->batches, 1, __ATOMIC_RELAXED) > BATCHES_MOST) {
    __atomic_sub_fetch(&x->all->batches, 1, __ATOMIC_RELAXED);
    guard_refuse(&x->refusal, 503, "busy", false, "%d other batches are being read; try again after the seconds in Retry-After",
                 BATCHES_MOST);
    return;
  }
  x->batch = true;
  x->body_limit = x->all->rules.max_batch_body;
  if (total > x->body_limit)
    guard_refuse(&x->refusal, 413, "too_large", false, "the body has more than %zu bytes, the most that is read",
                 x->body_limit);
}

static enum MHD_Result swallow(struct exchange *x) {
  buffer_clear(&x->body);
  if (x->received <= x->all->rules.max_batch_body + SWALLOW_MOST) return MHD_YES;
  print_raw(x, x->peer->fd, 413, "too_large", "the body has more bytes than are read here");
  return MHD_NO;
}

enum MHD_Result exchange_body(struct exchange *x, const char *data, size_t size) {
  x->received += size;
  add(&x->list->bytes_in, (int64_t)size);
  if (!refused(x)) check_growth(x, size);
  if (!refused(x)) {
    buffer_append(&x->body, data, size);
    if (x->body.failed) out_of_memory(x);
  }
  return refused(x) ? swallow(x) : MHD_YES;
}

static void wake(void *context) { peer_wake(context); }

static int begin_call(struct exchange *x) {
  x->request.body = x->body.data;
  x->request.body_length = x->body.length;
  struct api_call *call = api_begin(x->all->rules.api, &x->request, wake, x->peer);
  pthread_mutex_lock(&x->list->lock);
  x->call = call;
  pthread_mutex_unlock(&x->list->lock);
  return call ? 0 : out_of_memory(x);
}

enum MHD_Result exchange_answer(struct exchange *x) {
  if (has_body(x) && !peer_enter(x->peer, PEER_WORK, x)) return MHD_NO;
  if (refused(x)) return send_refusal(x);
  if (x->recalled.kept) return send_recalled(x);
  if (x->preflight) return send_preflight(x);
  if (!x->call && begin_call(x)) return send_refusal(x);
  for (;;) {
    struct api_reply reply;
    memset(&reply, 0, sizeof reply);
    if (api_poll(x->call, &reply)) return send_reply(x, &reply);
    enum peer_sleep sleep = peer_sleep(x->peer);
    if (sleep != PEER_WOKEN) return sleep == PEER_ASLEEP ? MHD_YES : MHD_NO;
  }
}

/* ---- closing ---------------------------------------------------------------------------------------- */

static void write_log(struct exchange *x, const struct api_call *call, int64_t now, int status, bool cut) {
  const char *path = x->request.path;
  if (!*path) {
    x->target[strcspn(x->target, "?")] = '\0'; /* a query may hold what a user typed */
    path = x->target;
  }
  struct access_entry entry = {.id = x->id, .method = x->request.method, .path = path};
  entry.status = x->status ? x->status : status;
  entry.ns = now - x->begin_ns;
  entry.bytes_in = x->received;
  entry.bytes_out = (uint64_t)x->bytes_out;
  if (call && x->status) api_usage(call, &entry.prompt_tokens, &entry.new_tokens);
  entry.cut = cut;
  access_log_write(&entry);
}

/* From here on exchanges_cancel does not see the call. */
static struct api_call *take_call(struct exchange *x) {
  if (!x->call) return NULL; /* set by this thread alone */
  pthread_mutex_lock(&x->list->lock);
  struct api_call *call = x->call;
  x->call = NULL;
  pthread_mutex_unlock(&x->list->lock);
  return call;
}

void exchange_close(struct exchange *x, int status, bool cut) {
  if (!x) return;
  /* First out of everybody's sight, so that neither the watcher nor a cancel holds it while it goes. */
  peer_enter(x->peer, PEER_IDLE, NULL);
  struct api_call *call = take_call(x);
  int64_t now = clock_ns();
  add(&x->list->bytes_out, x->bytes_out);
  write_log(x, call, now, status, cut);
  if (call) api_end(call);
  holds_leave(&x->all->holds, &x->hold);
  if (x->prepared.response) reply_done(&x->recalled, &x->prepared);
  if (x->recalled.kept) api_release(x->all->rules.api, &x->recalled, now - x->begin_ns);
  buffer_clear(&x->body);
  give_back(x);
}
