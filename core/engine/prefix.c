/* prefix.c: a tree of remembered blocks. Knows what makes keys and values; who may run is admission.c's affair, and which block is
 * given away next kv.c's. */
#include "core/engine/prefix.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine/engine_int.h"

/* 64 positions behind those of `parent`, as one history of the residual stream has them. Layers whose edits differ belong to different
 * nodes, so one sequence may use blocks of several. Alive while it has a block, a child or a cursor. */
struct node {
  struct node *parent; /* NULL: it begins the text */
  struct node *next;   /* in its bucket */
  uint64_t hash;
  int32_t tokens[KV_BLOCK];
  struct digest edits; /* what was done at these positions */
  int32_t held, refs;  /* blocks; children and cursors */
  int32_t blocks[];    /* [n_layer], -1: not remembered */
};

struct prefixes {
  struct kv_pool *kv;
  int32_t n_layer;
  struct node **buckets;
  size_t n_buckets; /* a power of two */
  struct node **owner; /* [blocks of the pool] where a block is remembered; NULL: nowhere */
  int32_t *layer;      /* [blocks of the pool] and as which layer's */
};

/* Layers [from[i], from[i + 1]) have the same edits at and below them: a level. */
struct prefix_cursor {
  int32_t n_blocks;  /* behind it */
  bool stopped;      /* what follows has no name */
  int32_t n_levels;
  int32_t *from;     /* [n_levels + 1] */
  struct node **at;  /* [n_levels] of the last block; NULL: none yet */
  struct node **next; /* [n_levels] scratch */
};

/* ---- nodes ---- */

static void forget_block(void *context, int32_t block);

static size_t bucket_count(int32_t n_blocks, int32_t n_layer) {
  size_t n = 16;
  while (n < (size_t)(n_blocks / n_layer)) n *= 2;
  return n;
}

struct prefixes *prefixes_new(struct kv_pool *kv, int32_t n_layer, struct error *error) {
  size_t n_blocks = (size_t)kv_pool_blocks(kv);
  struct prefixes *p = calloc(1, sizeof *p);
  if (!p) return error_memory(error, sizeof *p), NULL;
  p->kv = kv;
  p->n_layer = n_layer;
  p->n_buckets = bucket_count((int32_t)n_blocks, n_layer);
  p->buckets = calloc(p->n_buckets, sizeof(struct node *));
  p->owner = calloc(n_blocks, sizeof(struct node *));
  p->layer = calloc(n_blocks, sizeof *p->layer);
  if (!p->buckets || !p->owner || !p->layer) {
    prefixes_free(p);
    return error_memory(error, n_blocks * sizeof(struct node *)), NULL;
  }
  kv_pool_tell(kv, forget_block, p);
  return p;
}

void prefixes_free(struct prefixes *p) {
  if (!p) return;
  kv_pool_tell(p->kv, NULL, NULL);
  for (size_t b = 0; p->buckets && b < p->n_buckets; b++)
    for (struct node *node = p->buckets[b], *next; node; node = next) {
      next = node->next;
      free(node);
    }
  free(p->buckets);
  free(p->owner);
  free(p->layer);
  free(p);
}

static uint64_t hash_of(const struct node *parent, const int32_t *tokens, struct digest edits) {
  struct digester digester;
  digest_begin(&digester, NULL);
  digest_add(&digester, &parent, sizeof(struct node *));
  digest_add(&digester, tokens, KV_BLOCK * sizeof *tokens);
  digest_add(&digester, &edits, sizeof edits);
  return digest_end(&digester).word[0];
}

static struct node *find(const struct prefixes *p, const struct node *parent, const int32_t *tokens, struct digest edits) {
  uint64_t hash = hash_of(parent, tokens, edits);
  for (struct node *node = p->buckets[hash & (p->n_buckets - 1)]; node; node = node->next)
    if (node->hash == hash && node->parent == parent && digest_equal(node->edits, edits) &&
        memcmp(node->tokens, tokens, sizeof node->tokens) == 0)
      return node;
  return NULL;
}

static struct node *make(struct prefixes *p, struct node *parent, const int32_t *tokens, struct digest edits) {
  struct node *node = calloc(1, sizeof *node + (size_t)p->n_layer * sizeof *node->blocks);
  if (!node) return NULL;
  node->parent = parent;
  node->hash = hash_of(parent, tokens, edits);
  node->edits = edits;
  memcpy(node->tokens, tokens, sizeof node->tokens);
  for (int32_t l = 0; l < p->n_layer; l++) node->blocks[l] = -1;
  struct node **bucket = &p->buckets[node->hash & (p->n_buckets - 1)];
  node->next = *bucket;
  *bucket = node;
  if (parent) parent->refs++;
  return node;
}

/* Goes when nothing needs it any more, and then perhaps those in front of it. */
static void release(struct prefixes *p, struct node *node) {
  while (node && node->refs == 0 && node->held == 0) {
    struct node **at = &p->buckets[node->hash & (p->n_buckets - 1)], *parent = node->parent;
    while (*at != node) at = &(*at)->next;
    *at = node->next;
    free(node);
    if (parent) parent->refs--;
    node = parent;
  }
}

static void hold_block(struct prefixes *p, struct node *node, int32_t layer, int32_t block) {
  if (node->blocks[layer] >= 0 || p->owner[block]) return; /* two were read side by side: one of them is enough */
  node->blocks[layer] = block;
  node->held++;
  p->owner[block] = node;
  p->layer[block] = layer;
  kv_block_keep(p->kv, block);
}

static void forget_block(void *context, int32_t block) {
  struct prefixes *p = context;
  struct node *node = p->owner[block];
  p->owner[block] = NULL;
  node->blocks[p->layer[block]] = -1;
  node->held--;
  release(p, node);
}

/* ---- cursors ---- */

static int32_t next_level(const struct sequence *s, int32_t layer) {
  int32_t next = edit_list_next_layer(s->edits, layer);
  return next < s->last ? next : s->last;
}

static void cursor_free(struct prefixes *p, struct prefix_cursor *c) {
  if (!c) return;
  for (int32_t i = 0; c->at && i < c->n_levels; i++) {
    if (c->at[i]) c->at[i]->refs--;
    release(p, c->at[i]);
  }
  free(c->from);
  free(c->at);
  free(c->next);
  free(c);
}

/* NULL: no memory. */
static struct prefix_cursor *cursor_new(struct prefixes *p, const struct sequence *s) {
  struct prefix_cursor *c = calloc(1, sizeof *c);
  if (!c) return NULL;
  for (int32_t layer = 0; layer < s->last; layer = next_level(s, layer)) c->n_levels++;
  c->from = calloc((size_t)c->n_levels + 1, sizeof *c->from);
  c->at = calloc((size_t)c->n_levels, sizeof(struct node *));
  c->next = calloc((size_t)c->n_levels, sizeof(struct node *));
  if (!c->from || !c->at || !c->next) {
    cursor_free(p, c);
    return NULL;
  }
  for (int32_t i = 0; i < c->n_levels; i++) c->from[i + 1] = next_level(s, c->from[i]);
  return c;
}

/* The node of a level's next block; NULL: none, or where it is to be made, no name or no memory. */
static struct node *next_node(struct prefixes *p, const struct sequence *s, const struct prefix_cursor *c, int32_t level, bool made) {
  const int32_t *tokens = s->tokens + (size_t)c->n_blocks * KV_BLOCK;
  struct digest edits;
  if (!edit_list_digest(s->edits, c->from[level + 1] - 1, c->n_blocks * KV_BLOCK, KV_BLOCK, s->n_prompt, &edits)) return NULL;
  struct node *node = find(p, c->at[level], tokens, edits);
  return node || !made ? node : make(p, c->at[level], tokens, edits);
}

static bool is_whole(const struct node *node, int32_t from, int32_t to) {
  for (int32_t l = from; l < to; l++)
    if (node->blocks[l] < 0) return false;
  return true;
}

/* Goes one block on: to nodes that are made where there are none, or only where all layers' blocks are remembered. False: it stays. */
static bool advance(struct prefixes *p, const struct sequence *s, struct prefix_cursor *c, bool made) {
  int32_t n = 0;
  bool found = true;
  while (found && n < c->n_levels) {
    struct node *node = next_node(p, s, c, n, made);
    found = node && (made || is_whole(node, c->from[n], c->from[n + 1]));
    if (!found) break;
    node->refs++; /* at once: another level may be at the same one */
    c->next[n++] = node;
  }
  for (int32_t i = 0; i < n; i++) {
    struct node *left = found ? c->at[i] : c->next[i];
    if (found) c->at[i] = c->next[i];
    if (left) left->refs--;
    release(p, left);
  }
  c->n_blocks += found;
  return found;
}

/* ---- where a sequence begins ---- */

static bool is_shared(const struct sequence *s) {
  return !s->task->background && !s->task->in_turn && s->last == s->task->runner->model->arch.n_layer;
}

/* Rows that somebody looks at are computed; at least the last one is, since the next token comes from it. */
static int32_t match(struct prefixes *p, const struct sequence *s) {
  struct prefix_cursor *c = NULL;
  if (is_shared(s) && !s->n_taps && s->logits != LOGITS_ALL && !s->twin) c = cursor_new(p, s);
  if (!c) return 0;
  while ((c->n_blocks + 1) * KV_BLOCK < s->n_prompt && advance(p, s, c, false)) {}
  int32_t positions = c->n_blocks * KV_BLOCK;
  cursor_free(p, c);
  return positions;
}

/* Shares what is remembered up to `positions`, which match() has found; less where memory is short. */
static void begin_at(struct prefixes *p, struct sequence *s, int32_t positions) {
  s->done = 0;
  if (!positions || !(s->prefix = cursor_new(p, s))) return;
  struct prefix_cursor *c = s->prefix;
  for (int32_t b = 0; b * KV_BLOCK < positions && advance(p, s, c, false); b++) {
    for (int32_t i = 0; i < c->n_levels; i++)
      for (int32_t l = c->from[i]; l < c->from[i + 1]; l++) {
        *sequence_block(s, l, b) = c->at[i]->blocks[l];
        kv_block_share(p->kv, c->at[i]->blocks[l]);
      }
    s->done += KV_BLOCK;
  }
}

static struct sequence *follower(const struct engine_task *task, int i) {
  return task->sequences[i].leader ? &task->sequences[i] : NULL;
}

static void leave_leader(struct sequence *s) {
  s->leader = NULL;
  s->first = 0;
}

/* A leader and its followers begin at one position, or everybody for himself: whatever computes fewer rows of a layer. */
static void choose_beginnings(struct engine_task *task) {
  struct sequence *leader = &task->sequences[0], *s;
  int64_t layers = leader->last, n = leader->n_prompt, least = leader->done;
  int64_t alone = (n - leader->done) * layers, wide = layers;
  for (int i = 1; i < task->n_sequences; i++) {
    if (!(s = follower(task, i))) continue;
    if (s->done < least) least = s->done;
    alone += (n - s->done) * layers;
    wide += layers - s->first;
  }
  bool together = (n - least) * wide <= alone;
  if (together) leader->done = (int32_t)least;
  for (int i = 1; i < task->n_sequences; i++) {
    if (!(s = follower(task, i))) continue;
    if (together)
      s->done = (int32_t)least;
    else
      leave_leader(s);
  }
}

int64_t prefix_begin(struct prefixes *p, struct engine_task *task) {
  int64_t spared = 0;
  if (task->in_turn || task->background) return 0;
  for (int i = 0; i < task->n_sequences; i++) task->sequences[i].done = match(p, &task->sequences[i]);
  if (task->n_sequences > 1) choose_beginnings(task);
  for (int i = 0; i < task->n_sequences; i++) begin_at(p, &task->sequences[i], task->sequences[i].done);
  for (int i = 0; i < task->n_sequences; i++) {
    struct sequence *s = &task->sequences[i];
    if (s->leader && s->done != s->leader->done) leave_leader(s); /* memory for a cursor was short */
    if (!s->leader) spared += s->done;
  }
  return spared;
}

/* ---- what a sequence leaves ---- */

static void remember_block(struct prefixes *p, struct sequence *s) {
  struct prefix_cursor *c = s->prefix;
  int32_t b = c->n_blocks;
  c->stopped = !advance(p, s, c, true);
  for (int32_t i = 0; !c->stopped && i < c->n_levels; i++)
    for (int32_t l = c->from[i]; l < c->from[i + 1]; l++) hold_block(p, c->at[i], l, *sequence_block(s, l, b));
}

void prefix_remember(struct prefixes *p, struct sequence *s) {
  if (s->done < KV_BLOCK || !is_shared(s)) return;
  if (!s->prefix && !(s->prefix = cursor_new(p, s))) return;
  while (!s->prefix->stopped && (s->prefix->n_blocks + 1) * KV_BLOCK <= s->done) remember_block(p, s);
}

void prefix_leave(struct prefixes *p, struct sequence *s) {
  cursor_free(p, s->prefix);
  s->prefix = NULL;
}
