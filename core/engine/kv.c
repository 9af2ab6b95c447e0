/* kv.c: the block pool. Which block holds which positions is the sequence's affair. */
#include "core/engine/kv.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/base/checked.h"

/* What a pool must hold: two sequences (STEERED and DEFAULT) of so many positions. */
#define KV_LEAST 256

/* Kept blocks without an owner: a ring through the entry behind the last block, which stands between newest and oldest. */
struct kept_link {
  int32_t older, newer;
};

struct kv_pool {
  struct backend *backend;
  struct memory *memory;
  size_t block_bytes;
  int32_t n_blocks, n_layer;
  int32_t *free;   /* stack of free blocks that are not kept */
  int32_t n_stack;
  int32_t *owners; /* [n_blocks] */
  bool *kept;      /* [n_blocks] */
  struct kept_link *links; /* [n_blocks + 1] */
  atomic_int n_free; /* those of the stack and of the ring */
  void (*taken)(void *context, int32_t block);
  void *context;
};

static size_t block_bytes(const struct model *model) {
  const struct arch *arch = &model->arch;
  return model->backend->ops->kv_block_bytes(model->backend, arch->n_kv_head, arch->d_head, model_kv_type(model));
}

size_t kv_sequence_bytes(const struct model *model, int64_t positions) {
  return (size_t)((positions + KV_BLOCK - 1) / KV_BLOCK) * (size_t)model->arch.n_layer * block_bytes(model);
}

static size_t least_bytes(const struct model *model) {
  return 2 * kv_sequence_bytes(model, model->arch.n_ctx < KV_LEAST ? model->arch.n_ctx : KV_LEAST);
}

size_t kv_pool_choose(const struct model *model, size_t room) {
  size_t one = kv_sequence_bytes(model, model->arch.n_ctx), eight;
  if (!checked_mul(8, one, &eight)) eight = SIZE_MAX;
  size_t wish = size_max(one, size_min(size_max(eight, (size_t)64 << 20), (size_t)1 << 30));
  return size_max(size_min(wish, room), least_bytes(model));
}

static int allocate(struct kv_pool *pool, struct error *error) {
  size_t n = (size_t)pool->n_blocks, bytes;
  if (!checked_mul(n, pool->block_bytes, &bytes)) return error_memory(error, SIZE_MAX);
  pool->free = calloc(n, sizeof *pool->free);
  pool->owners = calloc(n, sizeof *pool->owners);
  pool->kept = calloc(n, sizeof *pool->kept);
  pool->links = calloc(n + 1, sizeof *pool->links);
  if (!pool->free || !pool->owners || !pool->kept || !pool->links) return error_memory(error, n * sizeof *pool->links);
  for (int32_t i = 0; i < pool->n_blocks; i++) pool->free[i] = pool->n_blocks - 1 - i;
  pool->n_stack = pool->n_blocks;
  pool->links[n] = (struct kept_link){pool->n_blocks, pool->n_blocks};
  atomic_store(&pool->n_free, pool->n_blocks);
  return pool->backend->ops->alloc(pool->backend, bytes, &pool->memory, error);
}

struct kv_pool *kv_pool_new(const struct model *model, size_t bytes, struct error *error) {
  struct kv_pool *pool = calloc(1, sizeof *pool);
  if (!pool) return error_memory(error, sizeof *pool), NULL;
  pool->backend = model->backend;
  pool->block_bytes = block_bytes(model);
  pool->n_layer = model->arch.n_layer;
  size_t least = least_bytes(model);
  if (bytes < least) {
    free(pool);
    error_set(error, ERROR_LIMIT, "keys and values of two short texts need %zu MiB, %zu MiB are allowed (kv_mib)",
              (least >> 20) + 1, bytes >> 20);
    return NULL;
  }
  pool->n_blocks = (int32_t)size_min(bytes / pool->block_bytes, INT32_MAX / 2);
  if (allocate(pool, error) != 0) {
    kv_pool_free(pool);
    return NULL;
  }
  return pool;
}

void kv_pool_free(struct kv_pool *pool) {
  if (!pool) return;
  pool->backend->ops->free(pool->backend, pool->memory);
  free(pool->free);
  free(pool->owners);
  free(pool->kept);
  free(pool->links);
  free(pool);
}

int64_t kv_pool_positions(const struct kv_pool *pool) { return (int64_t)(pool->n_blocks / pool->n_layer) * KV_BLOCK; }

struct span kv_pool_span(const struct kv_pool *pool) { return (struct span){pool->memory, 0}; }
size_t kv_pool_bytes(const struct kv_pool *pool) { return (size_t)pool->n_blocks * pool->block_bytes; }
int32_t kv_pool_blocks(const struct kv_pool *pool) { return pool->n_blocks; }
int32_t kv_pool_blocks_free(const struct kv_pool *pool) { return atomic_load(&pool->n_free); }

static void ring_leave(struct kv_pool *pool, int32_t block) {
  struct kept_link link = pool->links[block];
  pool->links[link.older].newer = link.newer;
  pool->links[link.newer].older = link.older;
}

/* As the newest. */
static void ring_enter(struct kv_pool *pool, int32_t block) {
  int32_t end = pool->n_blocks, newest = pool->links[end].older;
  pool->links[block] = (struct kept_link){newest, end};
  pool->links[newest].newer = pool->links[end].older = block;
}

static int32_t take_oldest(struct kv_pool *pool) {
  int32_t block = pool->links[pool->n_blocks].newer;
  ring_leave(pool, block);
  pool->kept[block] = false;
  if (pool->taken) pool->taken(pool->context, block);
  return block;
}

int32_t kv_block_take(struct kv_pool *pool) {
  if (atomic_load(&pool->n_free) == 0) return -1;
  int32_t block = pool->n_stack > 0 ? pool->free[--pool->n_stack] : take_oldest(pool);
  atomic_fetch_sub(&pool->n_free, 1);
  pool->owners[block] = 1;
  return block;
}

void kv_block_share(struct kv_pool *pool, int32_t block) {
  assert(pool->owners[block] > 0 || pool->kept[block]);
  if (pool->owners[block]++ > 0) return;
  ring_leave(pool, block);
  atomic_fetch_sub(&pool->n_free, 1);
}

void kv_block_drop(struct kv_pool *pool, int32_t block) {
  if (block < 0) return;
  assert(pool->owners[block] > 0);
  if (--pool->owners[block]) return;
  if (pool->kept[block])
    ring_enter(pool, block);
  else
    pool->free[pool->n_stack++] = block;
  atomic_fetch_add(&pool->n_free, 1);
}

void kv_block_keep(struct kv_pool *pool, int32_t block) {
  assert(pool->owners[block] > 0);
  pool->kept[block] = true;
}

void kv_pool_tell(struct kv_pool *pool, void (*taken)(void *context, int32_t block), void *context) {
  pool->taken = taken;
  pool->context = context;
}

int kv_block_copy(struct kv_pool *pool, int32_t to, int32_t from, struct error *error) {
  struct span base = kv_pool_span(pool);
  return pool->backend->ops->copy(pool->backend, span_at(base, (size_t)to * pool->block_bytes),
                                  span_at(base, (size_t)from * pool->block_bytes), pool->block_bytes, error);
}
